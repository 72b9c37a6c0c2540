"""Videos of any kind: the frames that are shown are counted, listed and read, or the video is refused."""

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import videoMaker
from clipMaker import Pipe, frame_number, make_clip, make_video, make_wav, noise, shift
from test_make_file_list import reasons

import convertAudio
import makeFileList
import syncnet.inference.embeddings
import syncnet.media.video
import syncnet.media.video_facts
from syncnet.inference.embeddings import face_content, face_crops
from syncnet.media.clips import Clip, MediaError, read_list
from syncnet.media.find_files import find_files
from syncnet.media.open_media import open_media
from syncnet.media.open_video import open_video
from syncnet.media.video import FrameReader, read_frames
from syncnet.media.video_facts import REMEDIES, REWRITE, VideoError, allowed_lateness, probe
from syncnet.media.wav import open_wav
from SyncNetDist import SyncNet

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 24
STEADY = range(FRAMES)
CHECKS = ("decode", "packets")


def made_list(folder: Path, check: str = "decode", *more: str) -> list[Clip]:
    """The list of a folder with videos and wavs; empty where nothing can be used."""
    output = folder / "list.txt"
    output.unlink(missing_ok=True)
    flags = [f"--output={output}", f"--mp4_dir={folder}", f"--wav_dir={folder}", "--no_txt", "--nWorkers=1"]
    status = makeFileList.main([*flags, f"--check={check}", *more])
    assert status == (0 if output.exists() else 1)
    return read_list(str(output)) if output.exists() else []


def numbers(path: str, first: int, count: int) -> list[int]:
    """What frames first ... first + count - 1 show."""
    pictures = np.full((count, 224, 224, 3), 99, np.uint8)
    read_frames(path, first, pictures)
    return [frame_number(picture) for picture in pictures]


# name -> how it is written, and the number that its first frame shows
SOUND_FILES = {
    "plain.mp4": ({}, 0),
    "capitals.MP4": ({"kind": "mp4"}, 0),
    "matroska.mkv": ({"clock": 1000}, 0),
    "matroska inside.mp4": ({"clock": 1000, "kind": "matroska"}, 0),
    "webm.webm": ({"codec": "libvpx-vp9", "clock": 1000}, 0),
    "webm inside.mp4": ({"codec": "libvpx-vp9", "clock": 1000, "kind": "webm"}, 0),
    "stream.ts": ({}, 0),
    "stream inside.mp4": ({"kind": "mpegts"}, 0),
    "programme.mpg": ({"codec": "mpeg2video", "clock": 25}, 0),
    "quick.mov": ({"clock": 600}, 0),
    "flash.flv": ({"clock": 1000}, 0),
    "sound first.mkv": ({"clock": 1000, "sound": noise(FRAMES / 25), "sound_first": True}, 0),
    "sound first.ts": ({"sound": noise(FRAMES / 25), "sound_first": True}, 0),
    "sound first.mp4": ({"sound": noise(FRAMES / 25), "sound_first": True}, 0),
    "syncnet_python.avi": ({"codec": "mpeg4", "clock": 25}, 0),
    "jpegs.avi": ({"codec": "mjpeg", "clock": 25}, 0),
    "both ways.avi": ({"options": {"bf": "2", "b_strategy": "0"}, "clock": 25}, 0),
    "fragments.mp4": ({"options": {"g": "8"}, "muxing": {"movflags": "frag_keyframe+empty_moov"}}, 0),
    "indexed fragments.mp4": (
        {"options": {"g": "8"}, "muxing": {"movflags": "frag_keyframe+empty_moov+dash+global_sidx"}},
        0,
    ),
    "starts late.mp4": ({"moments": [moment + 5 for moment in STEADY]}, 0),
    "trimmed.mp4": ({"moments": [moment - 6 for moment in range(FRAMES + 6)]}, 6),
    "trimmed.mov": ({"moments": [moment - 3 for moment in range(FRAMES + 3)]}, 3),
    "trembling.mp4": ({"moments": [moment + 0.07 * (moment % 2) for moment in STEADY]}, 0),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """SOUND_FILES, each in its own folder with a wav."""
    folder = tmp_path_factory.mktemp("whole")
    for name, (how, _) in SOUND_FILES.items():
        place = folder / name.replace(".", "-")
        moments = how.get("moments", STEADY)
        make_video(str(place / name), moments, **{key: how[key] for key in how if key != "moments"})
        make_wav(str(place / os.path.splitext(name)[0]) + ".wav", FRAMES * 640)
    return folder


@pytest.mark.parametrize("check", CHECKS)
def test_every_container_is_listed_with_the_frames_it_shows(whole, check):
    listed = {os.path.basename(clip.video): clip.frames for clip in made_list(whole, check)}
    assert listed == dict.fromkeys(SOUND_FILES, FRAMES), (whole / "list.txt.skipped.txt").read_text()


@pytest.mark.parametrize("name", SOUND_FILES)
def test_the_frames_that_are_shown_are_read(whole, name):
    path, first = str(whole / name.replace(".", "-") / name), SOUND_FILES[name][1]
    assert numbers(path, 0, FRAMES) == list(range(first, first + FRAMES))
    assert numbers(path, 9, 8) == list(range(first + 9, first + 17))
    with pytest.raises(MediaError, match=f"ends after {FRAMES} frames|only {FRAMES} frames"):
        numbers(path, 9, FRAMES)
    facts = probe(path)
    assert (facts.frames, facts.size, facts.interlaced) == (FRAMES, (224, 224), False)


@pytest.mark.parametrize("check", CHECKS)
def test_packets_that_show_nothing(tmp_path, check):
    """VP8 in two passes: 41 packets, one of which is only predicted from. The pictures show 0 ... 39."""
    shutil.copy(Path(__file__).parent / "cases/vp8_hidden_frame.webm", tmp_path / "clip.webm")
    make_wav(str(tmp_path / "clip.wav"), 40 * 640)
    assert [clip.frames for clip in made_list(tmp_path, check)] == [40]
    assert numbers(str(tmp_path / "clip.webm"), 0, 40) == list(range(40))


INTERLACED = {
    "h264.mp4": {"options": {"x264opts": "tff=1", "flags": "+ildct+ilme"}},
    "h264.mkv": {"options": {"x264opts": "bff=1", "flags": "+ildct+ilme"}, "clock": 1000},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}, "clock": 25},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"flags": "+ildct+ilme"}, "clock": 25},
}
OTHER_TIMES = {
    "24.8.mp4": ([moment * 25 / 24.8 for moment in STEADY], "not 25 frames a second"),
    "30.mp4": ([moment * 25 / 30 for moment in STEADY], "not 25 frames a second"),
    "25.1.mkv": ([moment * 25 / 25.1 for moment in range(60)], "not 25 frames a second"),
    "on average 25.mp4": (
        [*(moment * 25 / 30 for moment in range(14)), *(13 * 25 / 30 + k * 1.19 for k in range(1, 13))],
        "variable frame rate",
    ),
    "slow end.mp4": ([m + max(0, m - 19) * 0.8 for m in STEADY], "variable frame rate"),
    "one dropped.mkv": ([moment + (moment >= 10) for moment in STEADY], "variable frame rate"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_frame_rates_are_judged_by_time_stamps(tmp_path, check):
    for name, (moments, _) in OTHER_TIMES.items():
        make_video(str(tmp_path / name), moments, clock=1000 if name.endswith("mkv") else 90000)
        make_wav(str(tmp_path / os.path.splitext(name)[0]) + ".wav", round(moments[-1] + 1) * 640)
    assert made_list(tmp_path, check) == []
    expected = {str(tmp_path / name): reason for name, (_, reason) in OTHER_TIMES.items()}
    assert reasons(tmp_path / "list.txt") == expected
    for name, (moments, reason) in OTHER_TIMES.items():
        with pytest.raises(VideoError) as refused:  # an older list may still name it
            numbers(str(tmp_path / name), 2, len(moments) - 2)
        assert refused.value.reason == reason


@pytest.mark.parametrize("check", CHECKS)
def test_interlaced_pictures_are_refused(tmp_path, check):
    for name, how in INTERLACED.items():
        folder = tmp_path / name
        make_video(str(folder / name), STEADY, **how)
        make_wav(str(folder / os.path.splitext(name)[0]) + ".wav", FRAMES * 640)
    assert made_list(tmp_path, check) == []
    assert set(reasons(tmp_path / "list.txt").values()) == {"interlaced"}
    assert len(reasons(tmp_path / "list.txt")) == len(INTERLACED)
    # If they are read nevertheless, their frames are right or refused, with any version of OpenCV.
    for name in INTERLACED:
        for first, count in ((0, FRAMES), (0, 1), (5, 1), (5, 8)):
            try:
                assert numbers(str(tmp_path / name / name), first, count) == list(range(first, first + count))
            except VideoError as refused:
                assert refused.reason == "interlaced"


def joined(path: str, parts: Sequence[str]) -> None:
    """One video of the packets of several, one after the other."""
    with av.open(path, "w") as target:
        stream, place = None, 0
        for part in parts:
            with av.open(part) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = round(place / 25 / packet.time_base)
                        packet.stream = stream
                        target.mux(packet)
                        place += 1


@pytest.mark.parametrize("interlaced_first", [False, True])
def test_interlaced_and_progressive_pictures_in_one_video(tmp_path, interlaced_first):
    """Broadcasts have them. Frame 7 is the last of the one kind, frame 8 the first of the other."""
    parts = []
    for kind, options in (("whole", {}), ("halves", {"flags": "+ildct+ilme"})):
        part = str(tmp_path / f"{kind}.ts")
        make_video(part, range(8), codec="mpeg2video", clock=25, options={"bf": "0"} | options)
        parts.insert(0 if interlaced_first else len(parts), part)
    path = str(tmp_path / "clips/both.ts")
    os.makedirs(os.path.dirname(path))
    joined(path, parts)
    make_wav(str(tmp_path / "clips/both.wav"), 16 * 640)
    assert made_list(tmp_path / "clips") == []
    assert reasons(tmp_path / "clips/list.txt") == {path: "interlaced"}
    for first, count in ((7, 6), (6, 6), (2, 5), (9, 6), (0, 16)):
        expected = [number % 8 for number in range(first, first + count)]
        try:
            assert numbers(path, first, count) == expected
        except VideoError as refused:
            assert refused.reason == "interlaced"


def test_black_and_still_pictures_are_read(tmp_path):
    make_video(str(tmp_path / "black.mp4"), STEADY, still=True)
    make_wav(str(tmp_path / "black.wav"), FRAMES * 640)
    assert [clip.frames for clip in made_list(tmp_path)] == [FRAMES]
    pictures = np.full((FRAMES - 3, 224, 224, 3), 99, np.uint8)
    read_frames(str(tmp_path / "black.mp4"), 3, pictures)
    assert not pictures.any()


class Converting:
    """A VideoCapture of which some frames are left as they were, as OpenCV leaves what it cannot convert."""

    def __init__(self, video: cv2.VideoCapture, failing: Sequence[int]) -> None:
        self.video, self.failing, self.number = video, failing, 0
        self.held = np.full((224, 224, 3), 130, np.uint8)

    def __getattr__(self, name: str):
        return getattr(self.video, name)

    def grab(self) -> bool:
        self.number += 1
        return self.video.grab()

    def read(self, slot: np.ndarray) -> tuple[bool, np.ndarray]:
        failing = self.number in self.failing
        ok, picture = self.video.read(self.held.copy() if failing else self.held)
        self.number += 1
        slot[:] = self.held
        return ok, slot


@pytest.mark.parametrize("failing", [(0,), (1,), (5, 6), (9,), (12,), range(FRAMES)])
def test_a_picture_that_opencv_did_not_convert_is_refused(tmp_path, monkeypatch, failing):
    path = str(tmp_path / "clip.mp4")
    make_clip(path, FRAMES)
    probe(path)
    monkeypatch.setattr(syncnet.media.video, "open_video", lambda path: Converting(open_video(path), failing))
    for first, count in ((0, FRAMES), (5, 8), (6, 4), (9, 4)):
        if any(first <= number < first + count for number in failing):
            with pytest.raises(VideoError, match="OpenCV decodes frame"):
                numbers(path, first, count)
        else:
            assert numbers(path, first, count) == list(range(first, first + count))
    with FrameReader(path) as reader, pytest.raises(VideoError, match="OpenCV decodes frame"):
        block = np.empty((4, 224, 224, 3), np.uint8)  # reused
        for first in range(0, FRAMES, 4):
            reader.read(first, block)


class Losing(Converting):
    """A VideoCapture that passes over a frame which it cannot decode, as some do."""

    def grab(self) -> bool:
        self.number += 1
        if self.number - 1 in self.failing:
            self.video.grab()
        return self.video.grab()

    def read(self, slot: np.ndarray) -> tuple[bool, np.ndarray]:
        return self.grab() and self.video.retrieve(slot)[0], slot


@pytest.mark.parametrize("lost", [0, 2, 7])
def test_a_lost_picture_does_not_shift_the_others(tmp_path, monkeypatch, lost):
    path = str(tmp_path / "clip.mp4")
    make_clip(path, FRAMES)
    probe(path)
    monkeypatch.setattr(syncnet.media.video, "open_video", lambda path: Losing(open_video(path), [lost]))
    with pytest.raises(VideoError, match="OpenCV decodes frame"):
        numbers(path, 5, 8)


def test_an_ordinary_clip_is_opened_once(tmp_path, monkeypatch):
    path = str(tmp_path / "clip.mp4")
    make_clip(path, FRAMES)
    opened = []
    monkeypatch.setattr(
        syncnet.media.video, "open_video", lambda path: opened.append(path) or open_video(path)
    )
    monkeypatch.setattr(syncnet.media.video_facts, "open_container", lambda _: pytest.fail("opened twice"))
    assert numbers(path, 6, 12) == list(range(6, 18))
    assert opened == [path]


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_pictures_are_upright_with_every_opencv(tmp_path, monkeypatch, turned):
    path = str(tmp_path / "clip.mp4")
    make_video(path, STEADY, turned=turned)
    make_wav(str(tmp_path / "clip.wav"), FRAMES * 640)

    def as_opencv_4_11(*arguments) -> cv2.VideoCapture:
        """Which does not rotate pictures unless asked to."""
        video = capture(*arguments)
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return video

    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", as_opencv_4_11)
    assert [clip.frames for clip in made_list(tmp_path)] == [FRAMES]
    pictures = np.empty((6, 224, 224, 3), np.uint8)
    read_frames(path, 9, pictures)
    back = [frame_number(np.rot90(picture, -turned // 90)) for picture in pictures]
    assert back == list(range(9, 15))


@pytest.mark.parametrize("check", CHECKS)
def test_time_stamps_in_another_order_than_the_pictures(tmp_path, check):
    """What programs make of a raw H.264 stream with B-frames: shown in the order in which it is decoded."""
    make_video(str(tmp_path / "good/clip.mp4"), STEADY, options={"bf": "2"})
    path = str(tmp_path / "clips/clip.mp4")
    os.makedirs(os.path.dirname(path))
    with av.open(str(tmp_path / "good/clip.mp4")) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.stream = packet.dts, stream
                target.mux(packet)
    for folder, listed in (("good", 1), ("clips", 0)):
        make_wav(str(tmp_path / folder / "clip.wav"), FRAMES * 640)
        assert len(made_list(tmp_path / folder, check)) == listed
    assert reasons(tmp_path / "clips/list.txt") == {path: "variable frame rate"}


def opencv_decodes(path: str) -> bool:
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    return video.isOpened() and video.read()[0]


@pytest.mark.parametrize("check", CHECKS)
def test_a_codec_without_decoder_is_refused(tmp_path, check, capsys):
    path = str(tmp_path / "clip.mp4")
    make_video(path, STEADY, codec="libsvtav1")
    make_wav(str(tmp_path / "clip.wav"), FRAMES * 640)
    listed = made_list(tmp_path, check)
    if opencv_decodes(path):
        assert [clip.frames for clip in listed] == [FRAMES]
        return
    assert listed == []
    assert "clip.mp4: cannot decode AV1" in (tmp_path / "list.txt.skipped.txt").read_text()
    printed = capsys.readouterr().out
    assert f"cannot be decoded here: {REMEDIES['cannot be decoded here']}" in printed
    assert "download" not in printed
    with pytest.raises(VideoError, match="cannot decode AV1"):
        numbers(path, 3, 8)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("first index.mp4", {"muxing": {"movflags": "faststart"}}),
        ("trimmed.mp4", {"muxing": {"movflags": "faststart"}, "moments": [m - 6 for m in range(FRAMES + 6)]}),
        (
            "indexed fragments.mp4",
            {"options": {"g": "4"}, "muxing": {"movflags": "frag_keyframe+empty_moov+dash+global_sidx"}},
        ),
    ],
)
def test_files_that_are_cut_off_are_refused(tmp_path, name, how, check):
    path = tmp_path / name
    make_video(str(path), how.get("moments", STEADY), **{key: how[key] for key in how if key != "moments"})
    shutil.copy(path, tmp_path / f"whole {name}")
    cut(path, 0.8)
    for stem in (path.stem, f"whole {path.stem}"):
        make_wav(str(tmp_path / f"{stem}.wav"), FRAMES * 640)
    assert [os.path.basename(clip.video) for clip in made_list(tmp_path, check)] == [f"whole {name}"]
    assert reasons(tmp_path / "list.txt") == {str(path): "frames missing"}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("lost", [1, 6])
def test_a_file_that_is_cut_off_between_two_pictures_is_refused(tmp_path, check, lost):
    path = tmp_path / "clip.mp4"
    make_video(str(path), STEADY, muxing={"movflags": "faststart"}, options={"bf": "0"})
    make_wav(str(tmp_path / "clip.wav"), (FRAMES - lost) * 640)
    with av.open(str(path)) as container:
        ends = sorted(packet.pos + packet.size for packet in container.demux(video=0) if packet.size)
    path.write_bytes(path.read_bytes()[: ends[FRAMES - lost - 1]])
    assert made_list(tmp_path, check) == []
    assert reasons(tmp_path / "list.txt") == {str(path): "frames missing"}
    with pytest.raises(VideoError, match=f"{FRAMES - lost} frames found, it ends 0.{4 * lost:02} s before"):
        syncnet.inference.embeddings.count_frames(str(path))


def test_an_avi_from_a_pipe_is_listed(tmp_path):
    pipe = Pipe(tmp_path / "clip.avi")
    make_video(pipe, STEADY, codec="mjpeg", kind="avi", clock=25)
    pipe.file.close()
    make_wav(str(tmp_path / "clip.wav"), FRAMES * 640)
    assert [clip.frames for clip in made_list(tmp_path)] == [FRAMES]


def test_a_damaged_picture_is_refused_although_the_decoder_conceals_it(tmp_path):
    path = tmp_path / "clip.mp4"
    rough = np.random.default_rng(0).integers(0, 255, (3, 336, 224), np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 224
        video.options = {"threads": "1", "bf": "0"}
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(rough[number % 3], format="yuv420p")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    make_wav(str(tmp_path / "clip.wav"), FRAMES * 640)
    assert len(made_list(tmp_path)) == 1
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.pts == 10 * 512)
        middle = packet.pos + packet.size // 2
    content = bytearray(path.read_bytes())
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    assert made_list(tmp_path) == []
    assert reasons(tmp_path / "list.txt") == {str(path): "frames missing"}


def test_a_whole_video_is_read_in_one_pass(tmp_path, monkeypatch):
    path = str(tmp_path / "clip.mp4")
    make_clip(path, 60)
    decoded = []

    class Counting(Converting):
        def grab(self) -> bool:
            decoded.append(self.number)
            return super().grab()

        def read(self, slot: np.ndarray) -> tuple[bool, np.ndarray]:
            decoded.append(self.number)
            return super().read(slot)

    monkeypatch.setattr(syncnet.media.video, "open_video", lambda path: Counting(open_video(path), ()))
    with FrameReader(path) as reader:
        found = []
        for first in (3, 13, 33):
            block = np.empty((10, 224, 224, 3), np.uint8)
            reader.read(first, block)
            found += [frame_number(picture) for picture in block]
        with pytest.raises(ValueError, match="frame 40 was requested after frame 42"):
            reader.read(40, block)
    assert found == [*range(3, 23), *range(33, 43)]
    assert decoded == list(range(43))


@pytest.mark.parametrize(("bilinear", "expected"), [(False, 85), (True, 0)])
def test_frames_of_another_size_are_scaled_by_area_unless_bilinear(tmp_path, bilinear, expected):
    """To a third of their size; one column of three is white, but not the middle one."""

    def stripes(picture, number):
        picture[:] = 0
        picture[60 * number :, ::3] = 255  # no two are the same

    path, out = str(tmp_path / "clip.mp4"), np.empty((2, 224, 224, 3), np.uint8)
    videoMaker.make_video(
        path, np.arange(4) / 25, size=(672, 672), flash=None, draw=stripes, options={"crf": "1"}
    )
    with FrameReader(path, allow_resize=True, bilinear=bilinear) as reader:
        reader.read(1, out)
    assert out[:, 60:].mean() == pytest.approx(expected, abs=8)


def test_the_error_that_is_allowed_in_a_time_stamp():
    """5 ms, or the container's unit up to 10 ms, and 0.4 ms per second; at most half a frame."""
    assert [allowed_lateness(time) for time in (0.0, 10.0, 37.5, 1000.0)] == pytest.approx(
        [0.005, 0.009, 0.02, 0.02]
    )
    assert [allowed_lateness(0.0, step) for step in (0.001, 0.008, 0.04)] == pytest.approx(
        [0.005, 0.008, 0.01]
    )


def test_system_files_are_skipped(tmp_path):
    names = ["id1/a.mp4", "id1/._a.mp4", "id1/@eaDir/a.mp4", "__MACOSX/id1/a.mp4", "#recycle/b.mp4"]
    names += ["#snapshot/a.mp4", ".snapshot/a.mp4", ".Trash-1000/files/a.mp4", "id1/.Trash/a.mp4"]
    for name in [*names, ".git/annex/objects/x/a.mp4"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_files(str(tmp_path), (".mp4",)) == ["id1/a.mp4"]
    assert find_files(str(tmp_path / ".snapshot"), (".mp4",)) == ["a.mp4"]  # asked for by its name


def test_names_in_capitals_and_shared_wavs(tmp_path, capsys):
    make_clip(str(tmp_path / "a.mp4"), FRAMES)
    shutil.move(tmp_path / "a.mp4", tmp_path / "a.MP4")
    make_wav(str(tmp_path / "a.wav"), FRAMES * 640)
    shutil.move(tmp_path / "a.wav", tmp_path / "a.WAV")
    shutil.copy(tmp_path / "a.MP4", tmp_path / "b.mp4")
    shutil.copy(tmp_path / "a.MP4", tmp_path / "b.m4v")
    make_wav(str(tmp_path / "b.wav"), FRAMES * 640)
    assert made_list(tmp_path) == [Clip(f"{tmp_path}/a.MP4", f"{tmp_path}/a.WAV", 0, FRAMES)]
    assert set(reasons(tmp_path / "list.txt").values()) == {"two videos, one wav"}
    printed = capsys.readouterr().out
    assert "2 two videos, one wav: " in printed


def test_archives_are_mentioned_for_voxceleb2_only(tmp_path, capsys):
    for name in ("id00012/21Uxsk56VDQ/00001", "own/clip"):
        folder = tmp_path / name.split("/")[0]
        make_wav(str(tmp_path / name) + ".wav", FRAMES * 640)
        (tmp_path / f"{name}.mp4").touch()
        assert made_list(folder.parent if name.startswith("id") else folder) == []
        assert ("download" in capsys.readouterr().out) == name.startswith("id")


# ---------------------------------------------------------------- the remedy

REMEDIED = {
    "30.mp4": {"moments": [moment * 25 / 30 for moment in range(36)]},
    "slow end.mp4": {"moments": [m + max(0, m - 19) * 0.8 for m in range(29)]},
    "halves.mp4": INTERLACED["h264.mp4"],
    "av1.mp4": {"codec": "libsvtav1"},
    "fragments.mkv": {"clock": 1000},
}


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the remedy needs the ffmpeg command")
@pytest.mark.parametrize("name", REMEDIED)
def test_the_remedy_gives_a_clip_that_is_listed_and_in_sync(tmp_path, name):
    how = REMEDIED[name]
    source, target = str(tmp_path / "before" / name), tmp_path / "after/a.mp4"
    target.parent.mkdir()
    moments = how.get("moments", STEADY)
    more = {key: how[key] for key in how if key != "moments"}
    make_video(source, moments, sound=noise(0.5), **more)  # which ends much earlier than the pictures
    line = REWRITE.replace("in.mp4", shlex.quote(source)).replace("out.mp4", shlex.quote(str(target)))
    subprocess.run(["sh", "-c", line], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert convertAudio.main([f"--src={target.parent}", f"--dst={target.parent}", "--nWorkers=1"]) == 0
    (clip,) = made_list(target.parent)
    assert abs(clip.frames - (moments[-1] + 1)) <= 2  # FFmpeg may repeat the last picture
    shown = numbers(str(target), 0, clip.frames)
    late = shift(open_wav(clip.audio), noise(0.5)) / 640
    for number in set(shown):  # each picture is where it was in the sound, within a frame
        away = [abs(place - late - moments[number]) for place, n in enumerate(shown) if n == number]
        assert min(away) <= 1, number
    assert len(set(shown)) > FRAMES / 2


def test_the_content_of_a_long_video_is_computed_in_one_pass(tmp_path, monkeypatch):
    path = str(tmp_path / "clip.mp4")
    make_clip(path, 60)
    network = SyncNet(model="tinyModel", nOut=8, device="cpu", temporal_stride=1)
    whole = face_content(network, path)
    read = []
    monkeypatch.setattr(FrameReader, "_read", counted(FrameReader._read, read))
    monkeypatch.setattr(syncnet.inference.embeddings, "BLOCK", 12)
    assert torch.allclose(face_content(network, path), whole, atol=1e-5)
    assert len(whole) == 56 and len(read) == 60


def counted(method: Callable, calls: list) -> Callable:
    def call(self, *arguments):
        calls.append(arguments)
        return method(self, *arguments)

    return call


@pytest.mark.parametrize("frames", [20, 60])
def test_crops_of_a_face_are_read_in_one_pass(tmp_path, monkeypatch, frames):
    path = str(tmp_path / "clip.mp4")
    make_clip(path, frames)
    read = []
    monkeypatch.setattr(FrameReader, "_read", counted(FrameReader._read, read))
    crops = face_crops(path, 6, 5).permute(0, 2, 3, 4, 1).numpy()
    starts = np.linspace(0, frames - 6, 5).astype(int)
    for crop, start in zip(crops, starts, strict=True):
        assert [frame_number(picture) for picture in crop] == list(range(start, start + 6))
    assert len(read) <= frames


def test_names_that_are_not_utf8(tmp_path):
    """OpenCV would crash, and with it the process."""
    folder = tmp_path / os.fsdecode(b"d\xe9")
    folder.mkdir()
    make_clip(str(tmp_path / "a.mp4"), FRAMES)
    for name in (b"x.mp4", b"x\xff.mp4"):
        shutil.copy(tmp_path / "a.mp4", folder / os.fsdecode(name))
    code = """
        import os, numpy as np
        from clipMaker import frame_number
        from syncnet.media.video import read_frames
        from syncnet.media.video_facts import probe
        for name in sorted(os.listdir(".")):
            pictures = np.empty((3, 224, 224, 3), np.uint8)
            probe(name).check()
            read_frames(name, 2, pictures)
            print([frame_number(picture) for picture in pictures])
    """
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/makers'}"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2, 3, 4]\n" * 2


@pytest.mark.parametrize("version", [None, "19.0.2"])
def test_a_title_that_is_not_utf8(version, tmp_path, monkeypatch):
    """PyAV 19 took away the option that older versions need for this, and refuses it."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Caffee"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Caffee", b"Caf\xe9\xff "))
    if version is not None:
        given = {}
        monkeypatch.setattr(av, "__version__", version)
        monkeypatch.setattr(av, "open", lambda _, **options: given.update(options))
        open_media(str(path))
        assert "metadata_errors" not in given
        return
    with open_media(str(path)) as container:
        assert container.metadata["title"] == "Caf\udce9\udcff "
        assert len(list(container.decode(video=0))) == 3


def test_every_kind_of_picture_is_compared_with_what_opencv_shows(tmp_path, monkeypatch):
    """Not only every codec: OpenCV may show 8 bits of a color rightly, and other pictures of that codec not."""
    paths = {pixels: str(tmp_path / f"{pixels}.mp4") for pixels in ("yuv420p", "yuv444p")}
    for pixels, path in paths.items():
        videoMaker.make_video(
            path, np.arange(10) / 25, size=(224, 224), flash=None, sound_from=None, pixels=pixels
        )
    monkeypatch.setattr(syncnet.media.video_facts, "opencv_shows", lambda path, _: path == paths["yuv420p"])
    assert [probe(path).decodable for path in paths.values()] == [True, False]
