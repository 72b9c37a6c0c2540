"""The face tracks to measure: inputs that are face tracks, and tracks that are made from other videos."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from syncnet.media.clips import FPS, FRAME_SIZE, Clip, MediaError
from syncnet.support.commands import Parser, at_least
from syncnet.support.errors import UserError
from syncnet.support.names import counted
from syncnet.support.processes import available_cores
from syncnet.support.progress import progress_bar
from syncnet.tracks.track_settings import KINDS, MAX_GAP, MIN_FACE, PART, Rule

if TYPE_CHECKING:
    from syncnet.inference.sources import Source
    from syncnet.media.video_facts import VideoFacts
    from syncnet.tracks.track_folder import Record

Figures = TypeVar("Figures")
MADE = {"detect_every": 5, "min_frames": 34, "min_face": 60}  # as in makeFaceTracks.py
SECONDS_PER_WORKER = 30  # of video; starting a process takes seconds


def add_track_making(parser: Parser) -> None:
    """Flags for making face tracks from videos that are not face tracks."""
    add = parser.add_argument_group(
        "face tracks, made from videos that are not 224x224 at 25 frames/s"
    ).add_argument
    add(
        "--tracks",
        metavar="DIR",
        help="folder of makeFaceTracks.py: existing tracks are used, missing ones added; by default a temporary one",
    )
    add(
        "--face_detector",
        metavar="FILE.onnx",
        help="weights of YuNet, a faster detector than the default, MTCNN",
    )
    add(
        "--detect_every",
        type=at_least(int, 1),
        metavar="N",
        help="detect faces in every Nth frame; by default 5, or 1 with a named --protocol",
    )
    add(
        "--min_frames",
        type=at_least(int, 1),
        metavar="N",
        help="shortest track, in frames; by default 34, or that of --protocol",
    )
    add(
        "--min_face",
        type=at_least(int, MIN_FACE),
        metavar="PIXELS",
        help="smallest face, by its larger side; by default 60, or that of --protocol",
    )
    add("--nWorkers", type=at_least(int, 1), default=available_cores(), help="processes that detect faces")


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """A face track to measure.

    clip: its mp4. wav: its sound; None: the sound track of clip. name: path without extension, for result files.
    video: the video that it was made from, else clip. first, frames, boxes: if it was made from a video, its first
    slot and number of slots there, and the txt with its boxes. listed: its line in a list of clips.
    """

    clip: str
    wav: str | None
    name: str
    video: str
    first: int | None = None
    frames: int = 0
    boxes: str = ""
    listed: Clip | None = None

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Begin and end in the video; None for an input that is a face track."""
        return None if self.first is None else (self.first / FPS, (self.first + self.frames) / FPS)

    def __str__(self) -> str:
        return self.clip if self.seconds is None else "{} {:.2f}-{:.2f} s".format(self.video, *self.seconds)


@dataclass(eq=False)
class Tracks:
    """The face tracks of the inputs.

    without_face: video -> why it has no face track. made: number of videos that tracks were made from. detectors:
    face detectors that found them. scaled: number of clips that are not 224x224 and are measured whole. folder: that
    of the tracks that were made.
    """

    tracks: list[FaceTrack] = field(default_factory=list)
    without_face: dict[str, str] = field(default_factory=dict)
    made: int = 0
    detectors: set[str] = field(default_factory=set)
    scaled: int = 0
    folder: str = ""


def is_face_track(facts: VideoFacts) -> bool:
    """Is it 224x224 at 25 frames per second? True even if frames are missing: it is then refused, not tracked."""
    from syncnet.media.video_facts import FRAMES_MISSING, VideoError

    if facts.size != (FRAME_SIZE, FRAME_SIZE):
        return False
    try:
        facts.check()
    except VideoError as error:
        return error.reason == FRAMES_MISSING
    return True


def track_rule(args: argparse.Namespace, defaults: dict[str, int], divide: bool = True) -> Rule:
    """The rule for making tracks, from the flags that were given and `defaults`. Raises UserError."""
    from syncnet.tracks.make_tracks import read_detector

    values = {name: getattr(args, name) or default for name, default in defaults.items()}
    for name, most in (("detect_every", MAX_GAP), ("min_frames", PART)):
        if values[name] > most:
            raise UserError(f"--{name} {values[name]}: expected at most {most}")
    detector, weights = read_detector(args.face_detector)
    return Rule(**values, detector=detector, weights=weights, divide=divide)


def is_rule_given(args: argparse.Namespace) -> bool:
    """True if any flag for making tracks was given."""
    return bool(args.face_detector or any(getattr(args, name) for name in MADE))


@contextlib.contextmanager
def face_tracks(
    clips: Sequence[tuple[Source, str | None]],
    args: argparse.Namespace,
    rule: Rule,
    problem: Callable[[MediaError], None],
    strict: bool = False,
    whole: bool = False,
    made: bool = False,
) -> Iterator[Tracks]:
    """The face tracks of clips and videos. Without --tracks, tracks that were made are deleted at the end.

    clips: each with its sound; None: its own sound track. strict: refuse tracks in --tracks that were made by another
    rule, instead of using them. whole: measure every clip whole, whatever its size. made: make tracks even from face
    tracks. problem: called with the error of each video that cannot be used. Raises UserError, OSError.
    """
    from syncnet.media.video_facts import probe

    found = Tracks()
    raw: list[tuple[Source, str | None]] = []
    seconds = 0.0
    for source, wav in clips:
        facts = None
        with contextlib.suppress(MediaError):  # reported when it is measured or tracked
            facts = probe(source.path)
        unreadable = source.path.lower().endswith(".mp4") or not os.path.isfile(source.path)
        given = is_face_track(facts) if facts else unreadable
        if whole or (given and not made):
            name = os.path.splitext(source.name)[0]
            found.tracks.append(FaceTrack(source.path, wav, name, source.path, listed=source.clip))
            found.scaled += facts is not None and facts.size != (FRAME_SIZE, FRAME_SIZE)
        else:
            raw.append((source, wav))
            seconds += float(facts.times[-1]) if facts else 0.0
    if not raw:
        yield found
        return
    print(
        f"not face tracks (224x224 at 25 frames per second): {len(raw)} of {counted(len(clips), 'video')}; looking "
        "for faces in them",
        file=sys.stderr,
    )
    workers = max(1, min(args.nWorkers, math.ceil(seconds / SECONDS_PER_WORKER)))
    with tempfile.TemporaryDirectory() as temporary:
        found.folder = args.tracks or os.path.join(temporary, "tracks")
        records = records_of(raw, found.folder, temporary, rule, workers, strict)
        for (source, _), record in zip(raw, records, strict=True):
            found.made += 1
            found.tracks += tracks_of(record, source.path, found.folder)
            found.detectors |= {detector_of(record)} if record.tracks else set()
            if not record.tracks and has_no_face(record):
                found.without_face[source.path] = record.reason
            elif record.reason:
                problem(MediaError(f"{source.path}: {record.reason}"))
        yield found


@contextlib.contextmanager
def tracks_of_video(
    args: argparse.Namespace, rule: Rule, problem: Callable[[MediaError], None], made: bool = True
) -> Iterator[Tracks]:
    """The face tracks of args.video; see face_tracks. Raises MediaError if it has none."""
    from syncnet.inference.sources import Source

    source = Source(args.video, os.path.basename(args.video))
    reasons: list[MediaError] = []
    with face_tracks([(source, None)], args, rule, reasons.append, is_rule_given(args), made=made) as tracks:
        if not tracks.tracks:
            why = f"{args.video}: {tracks.without_face.get(args.video, 'no face track')}"
            raise reasons[0] if reasons else MediaError(why)
        for reason in reasons:  # errors in a part of the video
            problem(reason)
        yield tracks


def measure_each(
    tracks: Sequence[FaceTrack],
    measure: Callable[[FaceTrack], Figures],
    problem: Callable[[MediaError], None],
    what: str = "lip sync",
) -> Iterator[tuple[FaceTrack, Figures | None]]:
    """Yield each track with what is measured, or None after calling `problem` with the error; show a progress bar."""
    with progress_bar(total=len(tracks), unit="track", desc=what, leave=False) as bar:
        for track in tracks:
            figures = None
            try:
                figures = measure(track)
            except MediaError as error:
                problem(error)
            yield track, figures
            bar.update()


def records_of(
    raw: Sequence[tuple[Source, str | None]],
    folder: str,
    temporary: str,
    rule: Rule,
    workers: int,
    strict: bool,
) -> list[Record]:
    """The record of each video in the folder of tracks; missing tracks are made. See face_tracks."""
    from syncnet.inference.embeddings import clip_sound
    from syncnet.media.remux import join
    from syncnet.tracks.make_tracks import make_tracks
    from syncnet.tracks.track_folder import Record, read_records

    top = os.path.commonpath([os.path.dirname(os.path.abspath(source.path)) for source, _ in raw])
    names = [os.path.relpath(os.path.abspath(source.path), top) for source, _ in raw]
    made = {(os.path.basename(name), *record.facts): record for name, record in read_records(folder).items()}
    records: dict[int, Record] = {}
    joined = os.path.join(temporary, "joined")
    todo: dict[str, dict[str, int]] = {top: {}, joined: {}}
    for number, ((source, wav), name) in enumerate(zip(raw, names, strict=True)):
        if wav is not None:
            path = os.path.join(joined, os.path.splitext(name)[0] + ".nut")
            try:
                join(source.path, clip_sound(source.path, wav), path)
            except MediaError as error:
                records[number] = Record(name, "", "", reason=str(error))
                continue
            stamp = max(os.stat(source.path).st_mtime_ns, os.stat(wav).st_mtime_ns)
            os.utime(path, ns=(stamp, stamp))
        else:
            path = source.path
        facts = os.stat(path)
        record = made.get((os.path.basename(path), facts.st_size, facts.st_mtime_ns))
        if record is not None and is_complete(record, folder):
            if strict and settings_of(record) != rule.settings:
                raise UserError(
                    f"--tracks {folder}: the tracks of {source.path} were made with {in_flags(settings_of(record))}, "
                    f"and {in_flags(rule.settings)} are needed; give another folder"
                )
            records[number] = record
        elif wav is not None:
            todo[joined][os.path.relpath(path, joined)] = number
        else:
            todo[top][name] = number
    for src, paths in todo.items():
        if paths:
            for path, record in make_tracks(src, list(paths), folder, rule, workers).items():
                records[paths[path]] = record
    return [records[number] for number in range(len(raw))]


def settings_of(record: Record) -> dict[str, int | str]:
    """The settings that the tracks of a record were made with; see Rule.settings."""
    return json.loads(record.mark)[-1]


def detector_of(record: Record) -> str:
    return str(settings_of(record).get("detector", "mtcnn"))


def in_flags(settings: dict[str, int | str]) -> str:
    return " ".join(f"--{name} {value}" for name, value in settings.items())


def is_complete(record: Record, folder: str) -> bool:
    """True if all files of its tracks exist."""
    return all(
        os.path.isfile(path)
        for track in tracks_of(record, "", folder)
        for path in (track.clip, track.wav or "")
    )


def has_no_face(record: Record) -> bool:
    """True if a record has no tracks because no face was found, or none was large and long enough."""
    from syncnet.tracks.track_jobs import NO_FACE

    return record.reason.startswith(NO_FACE)


def tracks_of(record: Record, video: str, folder: str) -> list[FaceTrack]:
    """The face tracks in the record of a video."""
    found = []
    for number, track in enumerate(record.tracks, 1):
        name = os.path.join(record.name, f"{number:05d}")
        mp4, wav, txt = (os.path.join(folder, kind, f"{name}.{kind}") for kind in KINDS)
        found.append(FaceTrack(mp4, wav, name, video, track["first"], track["frames"], txt))
    return found
