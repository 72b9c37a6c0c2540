"""One clock for the streams of a file whose time stamps restart or jump."""

from fractions import Fraction
from types import SimpleNamespace

import pytest

from syncnet.media.clock import Clock


def on_clock(stamps: list[tuple[int, float]], **settings) -> tuple[list[float], Clock]:
    """The times of packets of one second, given as (stream, seconds) in the order of the file; and the clock."""
    clock = Clock(settings.pop("delays", None))
    times = []
    for stream, time in stamps:
        stamp = round(1000 * time)
        packet = SimpleNamespace(
            pts=stamp, dts=stamp, time_base=Fraction(1, 1000), stream_index=stream, duration=1000
        )
        clock.set(packet, **settings)
        assert packet.pts == packet.dts
        times.append(packet.pts / 1000)
    return times, clock


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([(0, 0), (0, 1), (0, 2)] * 3, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ([(0, 5), (0, 7), (0, 5), (0, 6)], [5, 7, 8, 9]),
        # Going back by a second, or forward by an hour, is within one recording; more is another one.
        ([(0, 0), (0, 2), (0, 1)], [0, 2, 1]),
        ([(0, 0), (0, 2), (0, 0.999)], [0, 2, 3]),
        ([(0, 0), (0, 3600)], [0, 3600]),
        ([(0, 0), (0, 3600.001)], [0, 1]),
        # The other stream restarts a little later in the file.
        ([(0, 0), (1, 0), (0, 2), (1, 2), (0, 0), (1, 2.5), (1, 0.2)], [0, 0, 2, 2, 3, 2.5, 3.2]),
        # It is the same restart if it is within 10 seconds, else another one.
        ([(0, 0), (1, 20), (0, 20), (0, 0), (0, 9), (1, 0)], [0, 20, 20, 21, 30, 21]),
        ([(0, 0), (1, 20), (0, 20), (0, 0), (0, 9.001), (1, 0)], [0, 20, 20, 21, 30.001, 31.001]),
        # A stream that begins in the second recording.
        ([(0, 0), (0, 5), (0, 0), (1, 0.1)], [0, 5, 6, 6.1]),
        # A wrong time stamp: what follows continues the first recording.
        ([(0, 0), (0, 1), (0, 2), (0, 5000), (0, 3), (0, 4)], [0, 1, 2, 3, 3, 4]),
    ],
)
def test_recordings_follow_one_another(stamps, expected):
    assert on_clock(stamps)[0] == expected


def test_the_number_of_the_recording_at_a_time():
    _, clock = on_clock([(0, 0), (0, 1), (0, 2)] * 3)
    assert clock.restarts == 2
    assert [clock.recording_at(time) for time in (0, 2.9, 3, 5.9, 6, 99)] == [0, 0, 1, 1, 2, 2]


def test_delays_are_those_of_one_stream_and_indexed_files_do_not_restart():
    stamps = [(0, 0), (1, 0), (0, 5), (0, 1)]
    assert on_clock(stamps, delays={0: 40}, restarts=False)[0] == [0.04, 0, 5.04, 1.04]
    assert on_clock(stamps, delays={0: 40})[0] == [0.04, 0, 5.04, 6.04]


def test_packets_without_time_stamps_stay_so_and_decoding_times_decide():
    clock = Clock()
    packet = SimpleNamespace(pts=None, dts=None, time_base=Fraction(1, 1000), stream_index=0, duration=1000)
    clock.set(packet)
    assert packet.pts is packet.dts is None and clock.restarts == 0
    shown = []
    # Shown in another order than decoded, by more than a second; only decoding times rise.
    for decoded, pts in ((0, 0), (1000, 4000), (2000, 1000), (3000, 2000), (0, 0)):
        packet.pts, packet.dts = pts, decoded
        clock.set(packet)
        shown.append(packet.pts)
    assert shown == [0, 4000, 1000, 2000, 5000] and clock.restarts == 1
