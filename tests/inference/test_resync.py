"""inferSyncNet.py resync: pictures as they were, sound moved so that it is in step."""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from clipMaker import make_clip, make_sound, noise
from videoMaker import click_time, flash_time, make_video

import inferSyncNet
from syncnet.inference.offset import Offset
from syncnet.inference.resync import common_offset
from syncnet.inference.videos import FaceTrack
from syncnet.media.clips import MediaError
from syncnet.media.remux import join, move_sound
from syncnet.media.timeline import VideoReader
from syncnet.tracks.track_sound import read_sound
from SyncNetDist import SyncNet

MPEG = {"codec": "mpeg2video", "sound_codec": "mp2", "options": {"b": "3000000"}}
KINDS = {
    "a.mp4": {},
    "turned.mov": {"format": "mov", "rotation": -90},
    "late.mkv": {"format": "matroska", "start": 7.7, "sound_from": 0.3},
    "a.avi": {"format": "avi", "codec": "mpeg4", "sound_codec": "libmp3lame", "options": {"b": "3000000"}},
    "a.ts": {"format": "mpegts"},
    "mpeg2.ts": {"format": "mpegts", **MPEG},
    "a.webm": {"format": "webm", "codec": "libvpx", "sound_codec": "libopus", "rate": 48000,
               "options": {"deadline": "realtime", "cpu-used": "8", "b": "1000000"}},
    "a.wmv": {"format": "asf", "codec": "wmv2", "sound_codec": "wmav2", "options": {"b": "3000000"}},
    "a.flv": {"format": "flv"},
}  # fmt: skip


def flash_and_click(path: str) -> tuple[float, float]:
    with VideoReader(path) as reader:
        pictures = np.stack([reader.bgr(frame)[::4, ::4] for _, frame in reader.slots()])
        first = reader.first_time
    return flash_time(pictures), click_time(read_sound(path, first, 0, len(pictures)).samples)


def packets(path: str) -> list[bytes]:
    with av.open(path) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def seconds_of_sound(path: str) -> float:
    with av.open(path) as container:
        return sum(
            frame.samples / frame.sample_rate for frame in container.decode(container.streams.audio[0])
        )


@pytest.mark.parametrize(
    ("name", "frames"), [("a.mp4", -4), ("a.mp4", 0), *zip(KINDS, itertools.cycle((5, -4)), strict=False)]
)
def test_the_sound_moves_and_the_pictures_stay(tmp_path, name, frames):
    source, output = str(tmp_path / name), str(tmp_path / f"out/{name}")
    make_video(source, np.arange(40) / 25, size=(64, 48), flash=0.8, **KINDS[name])
    move_sound(source, output, frames)
    (flash, click), (flash_after, click_after) = flash_and_click(source), flash_and_click(output)
    assert flash_after == flash and click_after - click == pytest.approx(frames / 25, abs=0.001)
    assert packets(output) == packets(source)
    # An encoder's last frames may differ.
    assert seconds_of_sound(output) == pytest.approx(seconds_of_sound(source), abs=0.06)


def test_a_joined_sound_begins_with_the_first_picture(tmp_path):
    source, output = str(tmp_path / "a.mkv"), str(tmp_path / "joined.nut")
    times = np.arange(40) / 25
    make_video(source, times, size=(64, 48), flash=0.8, start=3.3, sound_from=None, format="matroska")
    samples = noise(1.6, seed=1) // 30
    samples[round(0.5 * 16000) : round(0.5 * 16000) + 100] = 25000
    join(source, samples, output)
    flash, click = flash_and_click(output)
    assert (flash, click) == (0.8, 0.5) and packets(output) == packets(source)
    with VideoReader(output) as reader:
        assert (read_sound(output, reader.first_time, 0, 40).samples == samples).all()


def test_streams_that_a_container_cannot_hold_are_reported(tmp_path):
    make_video(str(tmp_path / "a.mp4"), np.arange(30) / 25, flash=None)
    with pytest.raises(MediaError, match=r"webm cannot hold the streams .* ends with .mkv"):
        move_sound(str(tmp_path / "a.mp4"), str(tmp_path / "b.webm"), 1)
    assert not (tmp_path / "b.webm").exists()
    with pytest.raises(MediaError, match=r"b.txt: not the name of a video"):
        move_sound(str(tmp_path / "a.mp4"), str(tmp_path / "b.txt"), 1)


# ---------------------------------------------------------------- the command


def measured(*pairs: tuple[int, float]) -> list[tuple[FaceTrack, Offset]]:
    shifts = np.arange(-15, 16)
    return [
        (FaceTrack(f"{n}.mp4", None, f"{n}", "v"), Offset(frames, confidence, shifts, shifts * 0.0))
        for n, (frames, confidence) in enumerate(pairs)
    ]


def test_the_most_confident_track_decides():
    assert common_offset(measured((3, 0.3), (4, 0.5), (-9, 0.1)), "v").frames == 4
    with pytest.raises(MediaError, match=r"v: its faces disagree, nothing is written: 1.mp4: .*; 0.mp4: "):
        common_offset(measured((2, 0.3), (4, 0.5)), "v")
    with pytest.raises(MediaError, match=r"v: no offset found, confidence 0.150 .*; nothing is written"):
        common_offset(measured((2, 0.1), (4, 0.15)), "v")
    with pytest.raises(MediaError, match=r"v: no offset found within 15 frames"):
        common_offset(measured((15, 0.5)), "v")


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """resync with a network for which every track of clip.mp4 is `frames` late, with this confidence."""

    def run(video: Path, frames: int, confidence: float = 0.5) -> tuple[int, str, str]:
        monkeypatch.setattr(
            inferSyncNet, "load_network", lambda *_, **__: SyncNet(model="tinyModel", nOut=8, device="cpu")
        )
        monkeypatch.setattr(
            "syncnet.inference.resync.offset", lambda *_: measured((frames, confidence))[0][1]
        )
        flags = ["--initial_model", "x", "--output", str(tmp_path / f"fixed{video.suffix}")]
        status = inferSyncNet.main(["resync", str(video), *flags])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_late_picture_moves_the_sound(tmp_path, command):
    """The picture is 3 frames later than the sound: the sound moves 120 ms."""
    video = tmp_path / "clip.mp4"
    make_clip(str(video), 40, sound=noise(1.6))
    status, out, _ = command(video, 3)
    assert status == 0 and "offset 3 frames (120 ms)" in out and "its sound is 120 ms later" in out
    assert packets(str(tmp_path / "fixed.mp4")) == packets(str(video))
    make_sound(str(tmp_path / "a.m4a"), noise(1.6))
    with av.open(str(tmp_path / "fixed.mp4")) as container:
        samples = np.concatenate([f.to_ndarray()[0] for f in container.decode(container.streams.audio[0])])
    assert abs(samples[: 3 * 640 - 64]).max() < 0.02 < abs(samples[3 * 640 :]).max()


def test_nothing_is_written_without_an_offset_or_a_face(tmp_path, command):
    video = tmp_path / "clip.mp4"
    make_clip(str(video), 40, sound=noise(1.6))
    status, _, err = command(video, 3, confidence=0.1)
    assert status == 1 and "no offset found" in err and not (tmp_path / "fixed.mp4").exists()
    empty = tmp_path / "empty.mkv"
    make_video(str(empty), np.arange(40) / 25, flash=None, format="matroska")
    status, _, err = command(empty, 3)
    assert status == 1 and "no face found" in err and not (tmp_path / "fixed.mkv").exists()
