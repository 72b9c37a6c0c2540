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
        # It is the nearest of several later recordings.
        ([(1, 0), (1, 2), *[(0, 0), (0, 2)] * 3, (1, 0)], [0, 2, 0, 2, 3, 5, 6, 8, 6]),
        ([(0, -3), (0, -1), (0, -3)], [-3, -1, 0]),
        # A wrong time stamp: what follows continues the first recording.
        ([(0, 0), (0, 1), (0, 2), (0, 5000), (0, 3), (0, 4)], [0, 1, 2, 3, 3, 4]),
        ([(0, 0), (0, 1), (0, 2), (0, 5000), (0, 6)], [0, 1, 2, 3, 4]),  # but not 2 seconds later
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


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([(None, None)], [(None, None)]),
        ([(None, 0), (None, 2000), (None, 0)], [(None, 0), (None, 2000), (None, 2000)]),
        ([(0, None), (10001, None), (0, None)], [(0, None), (10001, None), (10001, None)]),
        # Shown in another order than decoded, by more than a second; only decoding times rise.
        ([(0, 0), (4000, 1000), (1000, 2000), (0, 0)], [(0, 0), (4000, 1000), (1000, 2000), (4000, 4000)]),
        # A picture is shown an hour after it is decoded, or more: then FFmpeg made up the decoding time.
        ([(0, 0), (3601000, 1000)], [(0, 0), (3601000, 1000)]),
        ([(0, 0), (3601001, 1000)], [(0, 0), (0, -3600001)]),
    ],
)
def test_packets_without_duration_or_with_other_decoding_times(stamps, expected):
    """(pts, dts) in ms."""
    clock, found = Clock(), []
    for pts, dts in stamps:
        packet = SimpleNamespace(pts=pts, dts=dts, time_base=Fraction(1, 1000), stream_index=0, duration=None)
        clock.set(packet)
        found.append((packet.pts, packet.dts))
    assert found == expected


@pytest.mark.parametrize("step", [0.1, 0.5, 2.5])
def test_pictures_out_of_display_order_are_no_restart(step):
    """Of a slow video with B-frames: its first packets have no decoding times."""
    clock, shown = Clock(), []
    for order, number in enumerate([0, 4, 2, 1, 3, 8, 6, 5, 7]):
        dts = None if order < 3 else round(1000 * step * (order - 3))
        packet = SimpleNamespace(
            pts=round(1000 * step * number), dts=dts, time_base=Fraction(1, 1000), stream_index=0, duration=1
        )
        clock.set(packet)
        shown.append(packet.pts / 1000)
    assert clock.restarts == 0 and sorted(shown) == pytest.approx([step * number for number in range(9)])
