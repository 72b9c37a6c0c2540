"""inferSyncNet.py speakers: who speaks when, among the faces in a video."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from syncnet.inference.command_flags import (
    COMMAND,
    MODEL,
    PUBLISHED,
    LoadNetwork,
    Problems,
    add_network,
    add_windows,
)
from syncnet.inference.videos import (
    MADE,
    FaceTrack,
    add_track_making,
    measure_each,
    track_rule,
    tracks_of_video,
)
from syncnet.media.clips import FPS, MediaError
from syncnet.support.commands import Parser, at_least
from syncnet.support.errors import UserError
from syncnet.support.files import check_output, replace_file
from syncnet.support.names import counted

if TYPE_CHECKING:
    from syncnet.inference.lip_sync import LipSync

HELP = (
    "Who speaks when? Find the spans in which the lips of a face are in sync with the sound, and write them as a "
    "video (green boxes while a face speaks), as RTTM or as a table. Each face track is one person."
)
EXAMPLE = [
    f"{COMMAND} speakers {PUBLISHED} talk.mp4 --output seen.mp4 --rttm talk.rttm --csv talk.csv",
    f"{COMMAND} speakers {MODEL} talk.mp4 --tracks my_tracks --min_span 0.5",
]
COLUMNS = ("video", "person", "begin_s", "end_s", "confidence")
OFF = 0.5  # default of --off, as a fraction of --on


def add_flags(parser: Parser) -> None:
    add_network(parser)
    parser.add_argument("video", help="video in any format")
    parser.add_argument("--output", metavar="MP4", help="write the video with the faces drawn on it")
    parser.add_argument("--rttm", metavar="RTTM", help="write the spans as a NIST RTTM file")
    parser.add_argument("--csv", metavar="CSV", help="write the spans as a table: " + ", ".join(COLUMNS))
    parser.add_argument(
        "--on",
        type=float,
        metavar="CONFIDENCE",
        help="confidence that a span reaches in at least one frame; by default 3 with syncnet_v2.model, else 0.15",
    )
    parser.add_argument(
        "--off",
        type=float,
        metavar="CONFIDENCE",
        help="confidence below which a span ends, at most --on; by default half of --on",
    )
    parser.add_argument(
        "--min_span", type=at_least(float, 0), default=0.4, metavar="S", help="shortest span, in seconds"
    )
    add_windows(parser)
    add_track_making(parser)


def check(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse a run without any output, and thresholds in the wrong order."""
    if not (args.output or args.rttm or args.csv):
        parser.error("nothing to write: give --output, --rttm or --csv")
    if args.on is not None and args.off is not None and args.off > args.on:
        parser.error(f"--off {args.off:g}: is above --on {args.on:g}")


@dataclass(frozen=True)
class Span:
    """A span in which a face speaks. begin, end: seconds. confidence: mean over its frames."""

    person: str
    begin: float
    end: float
    confidence: float


def runs(mask: np.ndarray) -> np.ndarray:
    """The runs of True in a (n,) bool array: (runs, 2), the first of each and the one after its last."""
    return np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(int))).reshape(-1, 2)


def speaking(confidences: np.ndarray, on: float, off: float, shortest: int) -> np.ndarray:
    """The frames in which a face speaks: (frames,) bool.

    In a span of speech, every frame has at least confidence `off`, one has at least `on`, and there are at least
    `shortest` frames. Frames that were not measured (NaN) count as silent.
    """
    above = np.nan_to_num(confidences, nan=-np.inf) >= off
    found = np.zeros(len(confidences), bool)
    for begin, end in runs(above):
        if end - begin >= shortest and confidences[begin:end].max() >= on:
            found[begin:end] = True
    return found


def spans_of(track: FaceTrack, confidences: np.ndarray, speaks: np.ndarray) -> list[Span]:
    """The spans of a face track in which it speaks."""
    first = track.first or 0
    return [
        Span(track.name, (first + begin) / FPS, (first + end) / FPS, float(confidences[begin:end].mean()))
        for begin, end in runs(speaks)
    ]


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    from syncnet.inference.drawing import SeenFace, confidence_of_frames, draw_video
    from syncnet.inference.lip_sync import in_sync_confidence, lse
    from syncnet.tracks.track_files import read_track_boxes

    for flag in ("output", "rttm", "csv"):
        if getattr(args, flag):
            check_output(f"--{flag}", getattr(args, flag))
    if args.output and os.path.exists(args.output) and os.path.samefile(args.output, args.video):
        raise MediaError(f"--output {args.output}: is the video itself; write to another file")
    rule = track_rule(args, MADE)
    network = load_network(args, every_frame=True)
    on = in_sync_confidence(network) if args.on is None else args.on
    off = OFF * on if args.off is None else args.off
    if off > on:
        raise UserError(f"--off {off:g}: is above --on {on:g}, the default of this network")
    faces, spans = [], []
    with tracks_of_video(args, rule, problems) as tracks:

        def measure(track: FaceTrack) -> LipSync:
            return lse(network, track.clip, track.wav, args.max_offset, args.nBatchSize)

        for track, found in measure_each(tracks.tracks, measure, problems):
            confidences = confidence_of_frames(found, track.frames)
            speaks = speaking(confidences, on, off, round(args.min_span * FPS))
            spans += spans_of(track, confidences, speaks)
            first, boxes = read_track_boxes(track.boxes)
            faces.append(SeenFace(first, boxes, confidences, speaks))
    spans.sort(key=lambda span: (span.begin, span.person))
    for span in spans:
        print(f"{span.begin:8.2f} {span.end:8.2f} s  {span.confidence:7.3f}  {span.person}")
    if not spans:
        print(f"{args.video}: no face speaks in sync with the sound")
    if args.rttm:
        write_rttm(spans, args.video, args.rttm)
    if args.csv:
        write_csv(spans, args.video, args.csv)
    if args.output:
        draw_video(args.video, faces, args.output, on)
        print(f"{args.output}: {args.video} with {counted(len(faces), 'face track')}")


def write_rttm(spans: Sequence[Span], video: str, path: str) -> None:
    """Write the spans as NIST RTTM, one SPEAKER line per span. Raises OSError."""
    name = "_".join(os.path.splitext(os.path.basename(video))[0].split())
    with replace_file(path) as file:
        for span in spans:
            person = "_".join(span.person.split())
            times = f"{span.begin:.3f} {span.end - span.begin:.3f}"
            file.write(f"SPEAKER {name} 1 {times} <NA> <NA> {person} {span.confidence:.3f} <NA>\n")


def write_csv(spans: Sequence[Span], video: str, path: str) -> None:
    """Write the CSV with one row per span. Raises OSError."""
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for span in spans:
            table.writerow(
                [video, span.person, f"{span.begin:.2f}", f"{span.end:.2f}", f"{span.confidence:.6f}"]
            )
