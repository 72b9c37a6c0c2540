"""inferSyncNet.py lse: LSE-D and LSE-C of videos, counted as in papers, and the confidence of every frame."""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from syncnet.inference.command_flags import (
    COMMAND,
    PUBLISHED,
    LoadNetwork,
    Problems,
    add_inputs,
    add_network,
    add_resize,
    add_windows,
)
from syncnet.inference.defaults import MAX_OFFSET
from syncnet.inference.protocols import PROTOCOLS, Protocol, Summary, summarize
from syncnet.inference.videos import (
    MADE,
    FaceTrack,
    Tracks,
    add_track_making,
    face_tracks,
    is_rule_given,
    measure_each,
    track_rule,
)
from syncnet.media.clips import LIP_FRAMES, MediaError
from syncnet.media.file_type import VIDEO_FILES
from syncnet.support.commands import Parser
from syncnet.support.errors import UserError
from syncnet.support.files import check_output, file_hash, replace_file
from syncnet.support.names import counted, repeated
from syncnet.support.version import VERSION, versions

if TYPE_CHECKING:
    from syncnet.inference.lip_sync import LipSync
    from syncnet.networks.interface import Network
    from syncnet.tracks.track_settings import Rule

HELP = (
    "Measure lip sync of videos and face tracks: offset, LSE-D (distance, lower is better) and LSE-C (confidence, "
    "higher is better) of each face track, and means, counted as in a paper (--protocol). Only figures of "
    "syncnet_v2.model are comparable with published ones; see docs/lse.md."
)
EXAMPLE = [
    f"{COMMAND} lse {PUBLISHED} my_videos/ --protocol latentsync --json lse.json",
    f"{COMMAND} lse {PUBLISHED} my_videos/ --tracks my_tracks --csv lse.csv",
    f"{COMMAND} lse {PUBLISHED} my_tracks/mp4 --wav my_tracks/wav --frames frames",
]
COLUMNS = ("clip", "wav", "frames", "offset", "lse_d", "lse_c")
OF_VIDEO = ("video", "first_s", "last_s")  # further columns, for tracks that were made from videos
HEADER = "offset   LSE-D   LSE-C  frames  clip"
NAMES = {"lse_d": "LSE-D", "lse_c": "LSE-C", "best_lse_d": "best LSE-D", "best_lse_c": "best LSE-C"}
# Measured on real clips with other weights of the published network; see docs/lse.md.
JPEG_MOVES = "moves LSE-D by up to 1 % and LSE-C by up to 4 %"
PUBLISHED_SHA256 = "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"  # of syncnet_v2.model
TRACK_NAME = re.compile(r"\d{5}$")  # name of a face track in the folder of its video


def add_flags(parser: Parser) -> None:
    add_network(parser)
    add_inputs(parser)
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="tracks",
        help="how figures are counted: "
        + "; ".join(f"{protocol.name}: {protocol.counted}" for protocol in PROTOCOLS.values())
        + " (default: %(default)s)",
    )
    add_windows(parser)
    add_resize(parser)
    parser.add_argument(
        "--csv",
        metavar="CSV",
        help="write one row per face track: clip, wav, frames, offset, lse_d, lse_c; for videos also "
        + ", ".join(OF_VIDEO),
    )
    parser.add_argument(
        "--video_csv",
        metavar="CSV",
        help="write one row per video: video, tracks, the figures of the protocol, and no_face, why there are none",
    )
    parser.add_argument(
        "--json", metavar="JSON", help="write the means with 95 %% intervals, and everything they depend on"
    )
    parser.add_argument(
        "--frames",
        metavar="DIR",
        help="write one CSV per track with the confidence of every frame, median-filtered over 9 frames",
    )
    add_track_making(parser)


def check(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse flags that would change a named protocol."""
    if args.protocol == "tracks":
        return
    for flag in ("min_frames", "min_face"):
        if getattr(args, flag) is not None:
            parser.error(f"--{flag} goes with --protocol tracks; {args.protocol} has its own")
    if args.allow_resize:
        parser.error(f"--allow_resize goes with --protocol tracks; {args.protocol} says what is measured")
    if args.max_offset != MAX_OFFSET:
        parser.error(f"--max_offset goes with --protocol tracks; {args.protocol} has {MAX_OFFSET}")


@dataclass(frozen=True, eq=False)
class Measured:
    """A face track and its figures."""

    track: FaceTrack
    found: LipSync

    @property
    def figures(self) -> tuple[float, float]:
        return self.found.lse_d, self.found.lse_c


@dataclass(eq=False)
class Video:
    """A video: its tracks that count, or why it has none."""

    name: str
    rows: list[Measured] = field(default_factory=list)
    no_face: str = ""


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    from syncnet.inference.sources import find_sources, with_wavs

    protocol = PROTOCOLS[args.protocol]
    sources = find_sources(args.inputs, VIDEO_FILES, args.wav is None, problems)
    clips = with_wavs(sources, args.wav)
    check_names(args.frames, [os.path.splitext(source.name)[0] for source in sources])
    for flag in ("csv", "video_csv", "json"):
        if getattr(args, flag) is not None:
            check_output(f"--{flag}", getattr(args, flag))
    if args.frames is not None:
        check_output("--frames", args.frames, folder=True)
    made = MADE if not protocol.is_named else {"detect_every": 1, **flags_of(protocol)}
    rule = track_rule(args, made, divide=not protocol.is_named)
    network = load_network(args, every_frame=True)
    strict = protocol.is_named or is_rule_given(args)
    whole = protocol.whole or args.allow_resize
    with face_tracks(clips, args, rule, problems, strict, whole) as tracks:
        if tracks.scaled and not protocol.whole:
            print(
                f"--allow_resize: measured whole, because they are not 224x224: {tracks.scaled} of "
                f"{counted(len(clips), 'video')}; without it, face tracks are made of them",
                file=sys.stderr,
            )
        check_names(args.frames, [track.name for track in tracks.tracks])
        rows = measure(network, tracks.tracks, args, protocol, problems)
    videos = by_video(rows, tracks, protocol)
    for video in videos:
        if not video.rows:
            print(f"not counted: {video.name}: {video.no_face}")
    if args.csv and rows:
        write_table(rows, args.csv, kept=args.tracks is not None)
    if args.video_csv and videos:
        write_videos(videos, protocol, args.video_csv)
    counting = [np.array([row.figures for row in video.rows]) for video in videos if video.rows]
    summary = summarize(protocol, counting) if counting else None
    note = remark(network, args.initial_model)
    if summary is None:
        if videos:
            problems(UserError(f"no face track that counts in {counted(len(videos), 'video')}"))
    elif tracks.made or protocol.is_named:
        print(summary_lines(summary, videos, protocol))
        print(note or comparability(tracks, rule, protocol))
    else:
        print(mean_line(summary, len(rows)))
        if note:
            print(note)
    if args.json:
        write_summary(summary, videos, tracks, rule, protocol, args, note)


def flags_of(protocol: Protocol) -> dict[str, int]:
    """The flags of makeFaceTracks.py that a protocol sets."""
    return {"min_frames": protocol.min_frames or MADE["min_frames"], "min_face": protocol.min_face}


def check_names(folder: str | None, names: Sequence[str]) -> None:
    """Raise MediaError if two tracks would have the same file in the folder --frames."""
    if folder and repeated(names):
        raise MediaError(
            f"--frames {folder}: two inputs would have the same .csv; give the folder they are in"
        )


def measure(
    network: Network,
    tracks: Sequence[FaceTrack],
    args: argparse.Namespace,
    protocol: Protocol,
    problems: Problems,
) -> list[Measured]:
    """Measure face tracks; print one line for each, and write --frames."""
    from tqdm import tqdm

    from syncnet.inference.lip_sync import lse

    def one(track: FaceTrack) -> LipSync:
        resize = args.allow_resize or protocol.whole
        batch, bilinear = args.nBatchSize, protocol.whole
        return lse(network, track.clip, track.wav, args.max_offset, batch, resize, bilinear)

    rows = []
    print(HEADER)
    for track, found in measure_each(tracks, one, problems):
        if found:
            rows.append(Measured(track, found))
            tqdm.write(line_of(str(track), found))
            if args.frames:
                write_frames(found, os.path.join(args.frames, f"{track.name}.csv"))
    return rows


def by_video(rows: Sequence[Measured], tracks: Tracks, protocol: Protocol) -> list[Video]:
    """Group the tracks that count by video.

    For input face tracks, a named protocol takes numbered ones in the same folder (00001.mp4, ...) as one video,
    and tracks that are shorter than its min_frames do not count.
    """
    videos = {name: Video(name, no_face=reason) for name, reason in tracks.without_face.items()}
    for row in rows:
        name, least = row.track.video, 0
        if row.track.first is None and protocol.is_named and not protocol.whole:
            stem = os.path.splitext(name)[0]
            name = os.path.dirname(stem) if TRACK_NAME.search(stem) else name
            least = protocol.min_frames
        video = videos.setdefault(name, Video(name))
        if row.found.frames >= least:
            video.rows.append(row)
        else:
            video.no_face = f"shorter than the {least} frames of --protocol {protocol.name}"
    return list(videos.values())


def line_of(clip: str, found: LipSync) -> str:
    """A track's line below HEADER."""
    return f"{found.offset:6d} {found.lse_d:7.3f} {found.lse_c:7.3f} {found.frames:7d}  {clip}"


def cells(summary: Summary, columns: Sequence[str]) -> str:
    """The means, with their intervals if there are any."""
    texts = [f"{NAMES[column]} {mean:.3f}" for column, mean in zip(columns, summary.means, strict=True)]
    if summary.low is not None and summary.high is not None:
        texts = [
            f"{text} ({low:.3f} - {high:.3f})"
            for text, low, high in zip(texts, summary.low, summary.high, strict=True)
        ]
    return ", ".join(texts)


def mean_line(summary: Summary, tracks: int) -> str:
    """The means over input face tracks, with 95 % intervals if there are several."""
    text = cells(summary, ("lse_d", "lse_c"))
    return (
        f"1 track: {text}" if tracks == 1 else f"mean of {tracks} tracks: {text}; 95 % intervals over tracks"
    )


def summary_lines(summary: Summary, videos: Sequence[Video], protocol: Protocol) -> str:
    """The figures over videos, and how they were counted."""
    counting = [video for video in videos if video.rows]
    number = sum(len(video.rows) for video in counting)
    without = len(videos) - len(counting)
    line = f"{protocol.name}: {cells(summary, protocol.columns)}; of {counted(len(counting), 'video')}"
    line += f", {counted(number, 'face track')}" * (not protocol.whole)
    line += f", {counted(without, 'video')} without a face not counted" * (without > 0)
    line += "; 95 % intervals over videos" * (summary.low is not None)
    return f"{line}\nCounted: {protocol.counted}."


def comparability(tracks: Tracks, rule: Rule, protocol: Protocol) -> str:
    """What the figures are comparable with."""
    if protocol.is_named:
        return f"Comparable with {protocol.comparable}, but for this: {differences(tracks, rule, protocol)}."
    return f"Comparable with {protocol.comparable}; for a paper's way of counting, see --protocol."


def differences(tracks: Tracks, rule: Rule, protocol: Protocol) -> str:
    """How the measurement differs from the protocol's script."""
    faces = (
        []
        if protocol.whole
        else [f"faces are found by {found_by(tracks)} in {every(rule)}, there by S3FD in every frame"]
    )
    return "; ".join([*faces, f"frames are not written as JPEG first, which {JPEG_MOVES}"])


def found_by(tracks: Tracks) -> str:
    """The face detectors, for a sentence."""
    names = sorted({detector.split()[0] for detector in tracks.detectors})
    return (
        " and ".join({"mtcnn": "MTCNN", "yunet": "YuNet"}[name] for name in names)
        or "others (face tracks were given)"
    )


def every(rule: Rule) -> str:
    return "every frame" if rule.detect_every == 1 else f"one of {rule.detect_every} frames"


def remark(network: Network, checkpoint: str) -> str | None:
    """Why the figures of a network cannot be compared with published ones; None for the published weights."""
    from syncnet.inference.lip_sync import is_published

    published = "those that papers report, which are made with syncnet_v2.model"
    if not is_published(network):
        return (
            f"NOT COMPARABLE with {published}: distances of unit vectors, of another network ({checkpoint})"
        )
    if (found := file_hash(checkpoint)) != PUBLISHED_SHA256:
        return (
            f"NOT COMPARABLE with {published}: these are not the published weights "
            f"({checkpoint}: SHA-256 {found}, not {PUBLISHED_SHA256})"
        )
    return None


def write_table(rows: Sequence[Measured], path: str, kept: bool) -> None:
    """Write the CSV with one row per track. Raises OSError.

    kept: tracks that were made from videos are kept; if not, their names are written instead of their files.
    """
    of_videos = any(row.track.first is not None for row in rows)
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS + OF_VIDEO * of_videos)
        for row in rows:
            track, found = row.track, row.found
            figures = [found.frames, found.offset, f"{found.lse_d:.6f}", f"{found.lse_c:.6f}"]
            seconds = ["" if time is None else f"{time:.2f}" for time in track.seconds or (None, None)]
            files = [track.clip, track.wav or ""] if kept or track.first is None else [track.name, ""]
            table.writerow([*files, *figures, *[track.video, *seconds] * of_videos])


def write_videos(videos: Sequence[Video], protocol: Protocol, path: str) -> None:
    """Write the CSV with one row per video. Raises OSError.

    The figures of a video without a face are empty, or zeros for the protocol mocha; the video does not count.
    """
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["video", "tracks", *protocol.columns, "no_face"])
        for video in videos:
            if video.rows:
                figures = protocol.of_video(np.array([row.figures for row in video.rows]))
                cells = [f"{figure:.6f}" for figure in figures]
            else:
                cells = ["0" if protocol.name == "mocha" else ""] * len(protocol.columns)
            table.writerow([video.name, len(video.rows), *cells, "" if video.rows else video.no_face])


def write_summary(
    summary: Summary | None,
    videos: Sequence[Video],
    tracks: Tracks,
    rule: Rule,
    protocol: Protocol,
    args: argparse.Namespace,
    note: str | None,
) -> None:
    """Write --json: the means (null if no video counts), and everything they depend on. Raises OSError."""
    counting = [video for video in videos if video.rows]
    sides = (summary.means, summary.low, summary.high) if summary else (None, None, None)
    means, low, high = ([None] * len(protocol.columns) if side is None else side.tolist() for side in sides)
    found = {
        "protocol": protocol.name,
        "counted": protocol.counted,
        "comparable": note or comparability(tracks, rule, protocol),
        "detector": sorted(tracks.detectors),
        **({} if protocol.whole else {"detect_every": rule.detect_every}),
        **({} if protocol.whole else {"min_frames": rule.min_frames, "min_face": rule.min_face}),
        "max_offset": args.max_offset,
        "versions": versions() | {"syncnet_trainer": VERSION},
        "weights": args.initial_model,
        "weights_sha256": file_hash(args.initial_model),
        "videos": len(counting),
        "videos_without_face": len(videos) - len(counting),
        "tracks": sum(len(video.rows) for video in counting),
        "not_counted": {video.name: video.no_face for video in videos if not video.rows},
        "intervals": "95 %, bootstrap over videos",
    }
    for column, mean, a, b in zip(protocol.columns, means, low, high, strict=True):
        found[column] = {"mean": mean, "low": a, "high": b}
    with replace_file(args.json) as file:
        json.dump(found, file, indent=2)
        file.write("\n")


def write_frames(found: LipSync, path: str) -> None:
    """Write the CSV with the confidence of every frame on which a window is centered. Raises OSError.

    Frames are numbered from 0. No window is centered on the first two and the last few frames.
    """
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["frame", "confidence"])
        for frame, confidence in enumerate(found.confidences, LIP_FRAMES // 2):
            table.writerow([frame, f"{confidence:.6f}"])
