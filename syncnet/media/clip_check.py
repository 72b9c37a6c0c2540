"""Check whether a clip can be used for training: its video, its audio and its offset. Gives the reason if not."""

import os
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from syncnet.media.check_journal import Fingerprint, Result, file_fingerprint
from syncnet.media.clips import SAMPLES_PER_FRAME, Clip, MediaError, format_list_line
from syncnet.media.find_files import beside
from syncnet.media.video_facts import (
    CHANGES,
    INTERLACED,
    NOT_OPENED,
    OTHER_RATE,
    REWRITTEN,
    VARIABLE_RATE,
    VideoError,
    check_size,
    open_container,
    probe,
)
from syncnet.media.video_facts import REMEDIES as VIDEO_REMEDIES
from syncnet.media.wav import SilentError, WavFormatError, check_heard, open_wav

MAX_DIFFERENCE = 1  # video frames between the ends of audio and video (as the 2020 baseline)
PADDED = 2  # frames; AAC decoders add up to this much
NO_WAV, NO_TXT = "wav missing", "txt missing"
HIGHER = 3  # levels above the given folder that are searched for a folder that fits
# Why a clip is skipped -> what to do about it.
REMEDIES = VIDEO_REMEDIES | {
    NO_TXT: "unpack the txt archive into --txt_dir; for clips that have none: --no_txt",
    "txt without an offset": "line 3 must read 'Offset : <number>'; unpack the txt archive again",
    NO_WAV: "make the wavs with convertAudio.py, from the videos or their sound files; check --wav_dir",
    "wav broken": "cut off, damaged, or not a wav: run convertAudio.py again, which regenerates such wavs",
    "wav of another format": "training needs 16 kHz mono int16: convert them into another folder",
    "silent": "all samples are the same: convert its source again, or remove the clip",
    "sound up to 2 frames too long": "run convertAudio.py on the videos: it ends the sound with the pictures",
    "sound and video lengths different": f"run convertAudio.py on the videos; if they still differ, {REWRITTEN}",
    "two videos, one wav": "names that differ only in their extension: rename one, and run convertAudio.py",
    "name cannot stand in a list": "rename it: no tabs or line ends, and UTF-8 only",
}


@dataclass(frozen=True)
class CheckSettings:
    """Settings that decide whether a clip is listed. Folder names have no trailing slash."""

    mp4_dir: str
    txt_dir: str | None  # None: offset 0
    wav_dir: str
    check: str  # "decode" or "packets"
    allow_resize: bool


class SkipClip(Exception):
    """Raised for a clip to be skipped. reason: a key of REMEDIES. detail: the file and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)


def clip_paths(settings: CheckSettings, relative: str) -> tuple[str, str, str | None]:
    """Return the (video, wav, txt) paths of a clip. relative: path of its video below mp4_dir."""
    stem = os.path.splitext(relative)[0]
    txt = beside(settings.txt_dir, stem, ".txt") if settings.txt_dir else None
    return os.path.join(settings.mp4_dir, relative), beside(settings.wav_dir, stem, ".wav"), txt


def sharing_a_wav(videos: list[str]) -> set[str]:
    """Return the videos that would share a wav because their paths differ only in the extension."""
    stems = Counter(os.path.splitext(video)[0] for video in videos)
    return {video for video in videos if stems[os.path.splitext(video)[0]] > 1}


def folder_that_fits(settings: CheckSettings, relative: str, reason: str) -> str | None:
    """Find a folder above or below the given one that has a clip's missing wav or txt.

    relative: path of the clip's video. reason: NO_WAV or NO_TXT. Returns the flag with that folder, or None.
    """
    wavs = ("wav_dir", settings.wav_dir, ".wav")
    wanted = [wavs] if settings.txt_dir is None else [wavs, ("txt_dir", settings.txt_dir, ".txt")]

    def is_there(folder: str, ending: str, *parts: str) -> bool:
        return os.path.isfile(beside(folder, os.path.splitext(os.path.join(*parts))[0], ending))

    parts, above = relative.split(os.sep), os.path.abspath(settings.mp4_dir).split(os.sep)
    for number in range(1, len(parts)):
        if all(is_there(folder, ending, *parts[number:]) for _, folder, ending in wanted):
            return f"--mp4_dir {shlex.quote(os.path.join(settings.mp4_dir, *parts[:number]))}"
    for number in range(1, min(HIGHER, len(above) - 1) + 1):
        if all(is_there(folder, ending, *above[-number:], relative) for _, folder, ending in wanted):
            return f"--mp4_dir {shlex.quote(shorter(settings.mp4_dir, number))}"
    flag, folder, ending = wanted[reason == NO_TXT]
    below = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    for other in [shorter(folder, 1), *below]:
        if is_there(other, ending, relative):
            return f"--{flag} {shlex.quote(other)}"
    return None


def shorter(folder: str, by: int) -> str:
    """Return the folder `by` levels up, relative or absolute as typed."""
    parts = folder.split(os.sep)
    if len(parts) <= by or ".." in parts:
        return os.path.normpath(os.path.join(os.path.abspath(folder), *[os.pardir] * by))
    return os.sep.join(parts[:-by]) or os.sep


def read_offset(path: str) -> int:
    """Read the audio-to-video offset in video frames from line 3 of a VoxCeleb2 txt. Raises SkipClip."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [file.readline(1000) for _ in range(3)]
    except OSError as error:
        raise SkipClip(NO_TXT, f"{path}: {error.strerror}") from None
    fields = lines[2].split()  # Offset : -3
    try:
        if fields[0] != "Offset":
            raise ValueError
        return int(fields[2])
    except (IndexError, ValueError):
        detail = f"{path}, line 3: found {lines[2].strip()!r}, expected 'Offset : <number>'"
        raise SkipClip("txt without an offset", detail) from None


def wav_samples(path: str) -> int:
    """Return the number of samples of a wav. Raises SkipClip if it cannot be used for training."""
    if not os.path.isfile(path):
        raise SkipClip(NO_WAV, f"{path}: no such file")
    try:
        samples = open_wav(path)
        check_heard(path, samples)
    except SilentError as error:
        raise SkipClip("silent", str(error)) from None
    except WavFormatError as error:
        raise SkipClip("wav of another format", str(error)) from None
    except MediaError as error:
        raise SkipClip("wav broken", str(error)) from None
    return len(samples)


def without_wav(video: str, skip: SkipClip) -> SkipClip:
    """Return the exception for a clip without a wav; it blames the video if no wav can be made from it."""
    try:
        with open_container(video) as container:
            mute = not container.streams.audio
    except VideoError as error:
        return SkipClip(error.reason, error.detail)
    except (MediaError, OSError):
        return skip
    return SkipClip(NO_WAV, skip.args[1] + ", and no sound in the video" * mute)


def check_lengths(samples: int, frames: int, path: str) -> None:
    """Raise SkipClip unless audio and video end within MAX_DIFFERENCE frames of each other."""
    excess = samples / SAMPLES_PER_FRAME - frames
    if abs(excess) > MAX_DIFFERENCE:
        padded = 0 < excess <= PADDED
        reason = "sound up to 2 frames too long" if padded else "sound and video lengths different"
        detail = f"{path}: sound {samples / SAMPLES_PER_FRAME:.2f}, video {frames} frames long"
        raise SkipClip(reason, detail)


def check_video(settings: CheckSettings, video: str) -> Result:
    """Return [frames, width, height] for an intact video at 25 frames per second, otherwise [reason, detail]."""
    try:
        facts = probe(video, decode=settings.check == "decode")
        facts.check(allow_resize=True)
    except VideoError as error:
        return [error.reason, error.detail]
    except MediaError as error:
        return [NOT_OPENED, str(error)]
    except OSError as error:
        return [NOT_OPENED, f"{video}: {error}"]
    return [facts.frames, *facts.size]


def check_clip(
    settings: CheckSettings, relative: str, video_result: Callable[[str], Result]
) -> tuple[int, int]:
    """Return (offset, frames) of a clip. Raises SkipClip if it cannot be used.

    video_result: returns the result of check_video for a path, possibly from a cache.
    """
    video, wav, txt = clip_paths(settings, relative)
    try:
        format_list_line(Clip(video, wav, 0, 1))
    except MediaError as error:
        raise SkipClip("name cannot stand in a list", f"{video!r}: {error}") from None
    offset = read_offset(txt) if txt else 0
    try:
        samples = wav_samples(wav)
    except SkipClip as skip:
        raise without_wav(video, skip) if skip.args[0] == NO_WAV else skip from None
    result = video_result(video)
    if len(result) == 2:
        raise SkipClip(*result)
    frames, *size = result
    try:
        check_size(video, tuple(size), settings.allow_resize)
    except VideoError as error:
        raise SkipClip(error.reason, error.detail) from None
    check_lengths(samples, frames, wav)
    return offset, frames


# Reasons that hold until the file changes. With any other reason, the video may be readable next time.
CERTAIN = (INTERLACED, CHANGES, OTHER_RATE, VARIABLE_RATE)


@dataclass(frozen=True)
class Checked:
    """The result for a clip. outcome: (offset, frames), or (reason, detail) if the clip cannot be used.

    found: the video's fingerprint and result, if this run checked it and should record it. reused: the video's
    result comes from an earlier run.
    """

    relative: str
    outcome: tuple
    found: tuple[Fingerprint, Result] | None = None
    reused: bool = False


def check_job(settings: CheckSettings, job: tuple[str, tuple[Fingerprint, Result] | None]) -> Checked:
    """Check a clip. job: its path relative to mp4_dir, and the fingerprint and result of its video in an earlier run.

    That result is reused if the fingerprint is still the same.
    """
    relative, known = job
    found = None
    reused = False

    def video_result(video: str) -> Result:
        nonlocal found, reused
        fingerprint = file_fingerprint(video)
        if known and known[0] == fingerprint:
            reused = True
            # The detail is recorded without the path, which may be typed differently this time.
            result = known[1]
            return result if len(result) == 3 else [result[0], video + result[1]]
        result = check_video(settings, video)
        if fingerprint and (len(result) == 3 or result[0] in CERTAIN):
            found = fingerprint, [result[0], result[1].removeprefix(video)] if len(result) == 2 else result
        return result

    try:
        outcome: tuple = check_clip(settings, relative, video_result)
    except SkipClip as skip:
        outcome = skip.args
    except OSError as error:
        outcome = NOT_OPENED, f"{clip_paths(settings, relative)[0]}: {error}"
    return Checked(relative, outcome, found, reused)
