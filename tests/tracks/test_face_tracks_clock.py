"""The clock of makeFaceTracks.py: picture and sound of a track are in sync as in the source."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clipMaker import Pipe
from videoMaker import click_time, flash_time, make_video

from syncnet.media.clips import MediaError
from syncnet.media.timeline import VideoReader
from syncnet.media.wav import open_wav, write_wav
from syncnet.tracks.face_tracks import plan_parts, write_tracks
from syncnet.tracks.survey import Part
from syncnet.tracks.track_sound import read_sound
from syncnet.tracks.tracks import Track

HALF_FRAME = 0.020
TONE_ONSET = 0.001  # seconds until the click is loud


def whole_picture_track(source: Path, folder: Path, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(frames, 224, 224, 3) and (samples,) of a track with a fixed box, from slot `first` on."""
    folder.mkdir()
    with VideoReader(str(source)) as reader:
        end = max(slot for slot, _ in reader.slots()) + 1
        sound = read_sound(str(source), reader.first_time, 0, end)
        boxes = np.tile([100.0, 60.0, 200.0, 160.0], (end, 1))
        track = Track(0, boxes, end, 1.0, 1).part(max(first, sound.begin), sound.end)
        write_tracks(reader, Part(str(source), reader.first_time, 0, None), [track], str(folder), "x")
        write_wav(str(folder / "00001.wav"), sound.part(track.first, track.end))
    video = cv2.VideoCapture(str(folder / "00001.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 25
    pictures = []
    while True:
        ok, picture = video.read()
        if not ok:
            break
        pictures.append(picture)
    samples = np.array(open_wav(str(folder / "00001.wav")))
    assert len(pictures) == len(track) == video.get(cv2.CAP_PROP_FRAME_COUNT)
    assert len(samples) == len(track) * 640
    assert len((folder / "00001.txt").read_text().splitlines()) == 7 + len(track)
    return np.array(pictures), samples


def uneven(count: int) -> np.ndarray:
    """Times of pictures as a phone makes them: 20 to 60 ms apart."""
    return np.concatenate([[0], np.cumsum(np.random.default_rng(1).uniform(0.02, 0.06, count - 1))])


@pytest.mark.parametrize(
    ("times", "settings"),
    [
        (np.arange(50) / 25, {}),
        (np.arange(60) / 30, {}),
        (np.arange(60) * 1001 / 30000, {}),
        (np.arange(100) / 50, {"flash": 0.98}),
        (np.arange(100) / 50, {"flash": 1.0}),
        (np.arange(48) * 1001 / 24000, {}),
        (np.arange(30) / 15, {}),
        (uneven(50), {}),
        (np.arange(50) / 25, {"sound_from": 0.3}),
        (np.arange(50) / 25, {"sound_from": -0.2, "container_options": {"avoid_negative_ts": "disabled"}}),
        (np.arange(50) / 25, {"sound_from": -0.2, "start": 0.2}),
        (np.arange(60) / 30, {"start": 5.3, "format": "matroska"}),
        (np.arange(60) / 30, {"start": 5.3, "format": "matroska", "sound_from": 0.3}),
        (np.arange(50) / 25, {"start": 2.0, "format": "mpegts"}),
        (np.arange(60) * 1001 / 30000, {"start": 1.0, "format": "mpegts", "codec": "mpeg2video"}),
        (np.arange(50) / 25, {"format": "mpegts", "codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}}),
        # The encoder begins before time 0; the file says with an edit list that this is not shown.
        (np.arange(-10, 50) / 25, {"sound_from": -0.4, "container_options": {"avoid_negative_ts": "disabled"}}),
    ],
)  # fmt: skip
def test_picture_and_sound_stay_together(tmp_path, times, settings):
    source = tmp_path / "a video"
    make_video(str(source), times, **settings)
    pictures, samples = whole_picture_track(source, tmp_path / "out")
    flash, click = flash_time(pictures), click_time(samples)
    assert 0.4 < click < 1.3
    assert abs(flash - click) <= HALF_FRAME + TONE_ONSET
    # All of the picture that has sound is there.
    late = max(0.0, settings.get("sound_from", 0.0))
    assert abs(len(pictures) - 25 * (times[-1] + np.median(np.diff(times)) - max(0, times[0]) - late)) <= 2


def test_pictures_that_pause(tmp_path):
    """A picture that is up for more than half a second is no video of a face: there is no slot for it."""
    times = np.concatenate([np.arange(20) / 25, 3 + np.arange(20) / 25])
    make_video(str(tmp_path / "a.mkv"), times, format="matroska", flash=3.2)
    with VideoReader(str(tmp_path / "a.mkv")) as reader:
        slots = [slot for slot, _ in reader.slots()]
        assert slots == [*range(20), *range(75, 95)]
        assert [slot for slot, _ in reader.slots(78, 80)] == [78, 79]
    pictures, samples = whole_picture_track(tmp_path / "a.mkv", tmp_path / "out", first=75)
    assert abs(flash_time(pictures) - click_time(samples)) <= HALF_FRAME + TONE_ONSET


def test_the_last_picture_stays_as_long_as_the_one_before(tmp_path):
    make_video(str(tmp_path / "a.mp4"), np.arange(4) / 5, flash=None, sound_from=None)
    with VideoReader(str(tmp_path / "a.mp4")) as reader:
        assert [slot for slot, _ in reader.slots()] == list(range(20))


def test_reading_from_the_middle_gives_the_same_pictures_and_sound(tmp_path):
    path = str(tmp_path / "a.mp4")

    def number(picture, k):
        picture[:, : 4 * k] = 200

    make_video(
        path,
        np.arange(75) / 30,
        flash=2.0,
        draw=number,
        rate=16000,
        sound_codec="libmp3lame",
        options={"g": "20"},
    )
    with VideoReader(path) as reader:
        assert reader.can_seek([30, 45])
        whole = {slot: reader.bgr(frame) for slot, frame in reader.slots()}
        part = {slot: reader.bgr(frame) for slot, frame in reader.slots(45, 60)}
        assert list(part) == list(range(45, 60))
        assert all(np.array_equal(part[slot], whole[slot]) for slot in part)
        everything = read_sound(path, reader.first_time, 0, 62)
        some = read_sound(path, reader.first_time, 45, 62)
    assert (some.begin, some.end) == (45, everything.end)
    assert np.abs(some.samples - everything.samples[45 * 640 :].astype(int)).max() <= 1


def test_damaged_packets_leave_a_gap_and_do_not_shift_what_follows(tmp_path):
    whole, damaged = tmp_path / "a.mkv", tmp_path / "b.mp4"
    make_video(str(whole), np.arange(50) / 25, format="matroska", options={"g": "10", "bf": "0"})
    with av.open(str(whole)) as source, av.open(str(damaged), "w", format="matroska") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "video" and 0.2 < float(packet.pts * packet.time_base) < 0.5:
                continue
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    pictures, samples = whole_picture_track(damaged, tmp_path / "out")
    assert abs(flash_time(pictures) - click_time(samples)) <= HALF_FRAME + TONE_ONSET


def numbered(picture: np.ndarray, number: int) -> None:
    """Draw a bar for each picture, as wide as its number says, for shown_numbers()."""
    picture[:, : 4 * number] = 230


def shown_numbers(path: str, last: int | None = None) -> dict[int, int]:
    """Slot -> number of the picture that is shown there."""
    with VideoReader(path) as reader:
        pictures = {slot: reader.bgr(frame)[10, :, 0] > 145 for slot, frame in reader.slots(0, last)}
    return {slot: round(row.sum() / 4) for slot, row in pictures.items()}


@pytest.mark.parametrize("kind", ["avi", "mxf"])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "2", "b_strategy": "0", "g": "10"}])
def test_files_with_decoding_times_only(tmp_path, kind, options):
    """No picture is repeated or skipped, each has its sound, also where B-frames are decoded in another order."""
    path = str(tmp_path / "a")
    how = {"format": kind, "sound_codec": "pcm_s16le", "rate": 48000, "options": options}
    make_video(path, np.arange(50) / 25, draw=numbered, flash=None, **how)
    assert shown_numbers(path) == {number: number for number in range(50)}
    with VideoReader(path) as reader:
        if reader.can_seek([30]):
            assert [slot for slot, _ in reader.slots(30, 33)] == [30, 31, 32]
    make_video(path, np.arange(50) / 25, **how)
    pictures, samples = whole_picture_track(Path(path), tmp_path / "out")
    assert abs(flash_time(pictures) - click_time(samples)) <= TONE_ONSET


def test_presentation_times_that_are_decoding_times(tmp_path):
    """Packets of a raw stream, stamped in the order of decoding."""
    make_video(
        str(tmp_path / "a.mp4"), np.arange(50) / 25, draw=numbered, flash=None, options={"b_strategy": "0"}
    )
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        track = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream, packet.time_base = track, Fraction(1, 25)
            packet.pts = packet.dts = number
            target.mux(packet)
    assert shown_numbers(str(tmp_path / "b.mp4")) == {number: number for number in range(50)}


def test_the_sound_of_a_stream_reaches_to_its_end(tmp_path):
    """What FFmpeg takes for the length of sound in an MPEG stream is a guess, and often too short."""
    path = str(tmp_path / "a.vob")
    make_video(path, np.arange(50) / 25, format="vob", codec="mpeg2video", sound_codec="ac3", rate=48000)
    with VideoReader(path) as reader:
        sound = read_sound(path, reader.first_time, 0, 50)
    assert (sound.begin, sound.end) == (0, 50)
    assert sound.samples[-640:].any()


def test_an_avi_from_a_pipe_declares_no_length(tmp_path):
    pipe = Pipe(tmp_path / "a.avi")
    make_video(pipe, np.arange(50) / 25, format="avi", sound_codec="pcm_s16le", options={"bf": "0"})
    pipe.file.close()
    plan = plan_parts(str(tmp_path / "a.avi"))
    assert (plan.declared, plan.sure, len(plan.parts)) == (None, False, 1)


def test_pictures_of_unknown_time_are_skipped(tmp_path):
    """Matroska of pictures before time 0: FFmpeg reads them without a time stamp."""
    path = tmp_path / "a.mkv"
    make_video(
        str(path), np.arange(-36, 40) / 25, format="matroska", sound_from=-1.44, flash=0.6, rate=48000,
        container_options={"avoid_negative_ts": "disabled"},
    )  # fmt: skip
    pictures, samples = whole_picture_track(path, tmp_path / "out")
    assert 0.4 < click_time(samples) < 2.1
    assert abs(flash_time(pictures) - click_time(samples)) <= HALF_FRAME + TONE_ONSET


def test_a_raw_stream_has_no_sound(tmp_path):
    path = str(tmp_path / "a.h264")
    make_video(path, np.arange(20) / 25, format="h264", sound_from=None, flash=None)
    with pytest.raises(MediaError, match="a.h264: no sound in it"):
        plan_parts(path)


def test_time_stamps_that_jump_by_hours(tmp_path):
    """Another recording: it follows at once, and not after hours without a picture."""
    path = str(tmp_path / "a.mkv")
    make_video(path, np.r_[np.arange(40) / 25, 2e6 + np.arange(5) / 25], format="matroska", sound_to=1.6)
    with VideoReader(path) as reader:
        slots = [slot for slot, _ in reader.slots()]
        assert len(slots) >= 42 and slots[-1] <= 48
        assert reader.clock.restarts == 1


def test_slots_with_incomplete_sound_are_excluded(tmp_path):
    """Sound from 0.03 to 1.03 s: not all of slot 0, which ends at 0.04 s, nor of slot 25, which ends at 1.04 s."""
    path = str(tmp_path / "a.mkv")
    part = {"sound_from": 0.03, "sound_to": 1.03, "sound_codec": "pcm_s16le", "rate": 16000}
    make_video(path, np.arange(50) / 25, flash=None, format="matroska", **part)
    found = read_sound(path, 0.0, 0, 50)
    assert (found.begin, found.end) == (1, 25)
