"""inferSyncNet.py offset: the offset between picture and sound of a clip, measured with content embeddings."""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from syncnet.inference.command_flags import (
    COMMAND,
    MODEL,
    PUBLISHED,
    LoadNetwork,
    Problems,
    add_inputs,
    add_max_offset,
    add_network,
    add_resize,
)
from syncnet.inference.defaults import MAX_OFFSET
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
from syncnet.media.clips import FPS, LIP_FRAMES, Clip, MediaError, format_list_line
from syncnet.media.file_type import VIDEO_FILES
from syncnet.support.commands import Parser, at_least
from syncnet.support.errors import UserError
from syncnet.support.files import check_output, replace_file
from syncnet.support.names import counted, printable

if TYPE_CHECKING:
    from torch import Tensor

    from syncnet.networks.interface import Network

HELP = "Measure the offset between picture and sound, in frames."
EXAMPLE = [
    f"{COMMAND} offset {MODEL} clip.mp4 --plot offset.png",
    f"{COMMAND} offset {MODEL} data/test.txt --csv offsets.csv --write_list data/checked.txt",
    f"{COMMAND} offset {PUBLISHED} my.txt --write_list checked.txt --min_confidence 3 --max_shift 5",
]
MIN_MOMENTS = 10  # smallest overlap of picture and sound at every shift, in embeddings
# Smallest confidence at which an offset counts as found, for networks of this program. With the demo's network, clips
# in sync had at least 0.40 (median 0.57); with the sound of another clip, the median was 0.19 (drawn people talk much
# alike); with noise, and with a network that has hardly learned, all were below 0.06.
FOUND = 0.2
PUBLISHED_FOUND = 2.0  # the same for the published lip-sync network
NO_OFFSET = "in which no offset was found"


def add_flags(parser: Parser) -> None:
    add_network(parser)
    add_inputs(parser)
    add_resize(parser)
    add_max_offset(parser)
    parser.add_argument("--plot", metavar="PNG", help="plot the similarity at every shift")
    parser.add_argument("--csv", metavar="CSV", help="write one row per clip")
    parser.add_argument(
        "--write_list", metavar="TXT", help="write a list of the clips with the offsets found"
    )
    parser.add_argument(
        "--min_confidence",
        type=float,
        default=0.0,
        help="--write_list skips clips with less confidence. Clips in sync often have about 7 with syncnet_v2.model, "
        "where no offset is found below 2, and 0.3 to 0.7 with other networks, where none is found below 0.2",
    )
    parser.add_argument(
        "--max_shift",
        type=at_least(int, 0),
        metavar="N",
        help="--write_list skips clips with a larger offset, in either direction; by default none",
    )
    add_track_making(parser)


@dataclass(frozen=True, eq=False)
class Offset:
    """The offset of a clip, as in a list line: the picture lags the sound by `frames`.

    similarity: (shifts,) mean cosine of picture and sound at each of `shifts` (frames); for the published lip-sync
    network, the negative of their mean distance. measure: name of the similarity. enough: smallest confidence at
    which an offset counts as found.
    """

    frames: int
    confidence: float  # highest similarity minus the median over all shifts; near 0: no offset found
    shifts: np.ndarray
    similarity: np.ndarray
    measure: str = "mean similarity"
    enough: float = FOUND

    @property
    def found(self) -> str:
        """Was an offset found? "yes", "no", or "edge" (it may lie beyond the shifts)."""
        if abs(self.frames) == self.shifts[-1]:
            return "edge"
        return "yes" if self.confidence >= self.enough else "no"

    @property
    def milliseconds(self) -> int:
        return self.frames * 1000 // FPS

    def __str__(self) -> str:
        if self.found == "edge":
            return (
                f"no offset found within {abs(self.frames)} frames: the best is at the edge, {self.frames} frames, "
                f"confidence {self.confidence:.3f}; the true offset may lie beyond it (use a larger --max_offset)"
            )
        if self.found == "no":
            return (
                f"no offset found, confidence {self.confidence:.3f} where {self.enough:g} is needed: the best is "
                f"{self.frames} frames"
            )
        way = {1: "later than", 0: "in step with", -1: "earlier than"}[int(np.sign(self.frames))]
        count = f"{abs(self.frames)} frame{'s' * (abs(self.frames) != 1)} " if self.frames else ""
        return (
            f"offset {self.frames} frames ({self.milliseconds} ms), confidence {self.confidence:.3f}: "
            f"the picture is {count}{way} the sound"
        )


def find_offset(video: Tensor, audio: Tensor, max_offset: int = MAX_OFFSET) -> Offset:
    """The offset at which the mean similarity of the two streams is highest.

    video, audio: unit content embeddings at every frame, (moments, nOut) each. Embedding v of the picture
    belongs to embedding a of the sound if v = a + offset - 1, as in training. Chung and Zisserman, "Out of time:
    automated lip sync in the wild", ACCV workshops 2016, section 4.1 (with distances instead of similarities, so that
    the confidence is the median minus the minimum). Raises UserError if the two overlap too little for max_offset.
    """
    from syncnet.inference.embeddings import LOADER_LEAD

    longest = max_offset + LOADER_LEAD + MIN_MOMENTS
    if min(len(video), len(audio)) < longest:
        have, need = min(len(video), len(audio)) + LIP_FRAMES - 1, longest + LIP_FRAMES - 1
        most = max_offset - (need - have)
        remedy = f"use --max_offset {most} or less" if most > 0 else "skip this clip"
        raise UserError(
            f"{have} frames of picture and sound, --max_offset {max_offset} needs {need}; {remedy}"
        )
    shifts = np.arange(-max_offset, max_offset + 1)
    cosines = (video @ audio.T).numpy()
    means = np.array([np.diagonal(cosines, LOADER_LEAD - shift).mean() for shift in shifts])
    return Offset(int(shifts[means.argmax()]), float(means.max() - np.median(means)), shifts, means)


def offset(
    network: Network,
    video: str,
    wav: str | None = None,
    max_offset: int = MAX_OFFSET,
    allow_resize: bool = False,
) -> Offset:
    """Measure the offset of a clip. network: any temporal stride; content is computed at every frame.

    With the published lip-sync network (models/SyncNetV2.py), the offset is that of lse(). wav: the clip's sound;
    None: the sound track of the video. max_offset: frames, in either direction. Raises MediaError, and
    UserError for a network without content embeddings.
    """
    from syncnet.inference.embeddings import clip_sound, face_content, voice_content
    from syncnet.inference.lip_sync import is_published, lse
    from syncnet.media.crops import crop_samples
    from syncnet.networks.output_check import require_content

    require_content(network)
    if is_published(network):
        found = lse(network, video, wav, max_offset, allow_resize=allow_resize)
        shifts = np.arange(-max_offset, max_offset + 1)
        nearness = -found.mean_distances[::-1]  # mean_distances starts at offset max_offset
        return Offset(found.offset, found.lse_c, shifts, nearness, "mean distance, negative", PUBLISHED_FOUND)
    samples = clip_sound(video, wav)
    need = crop_samples(LIP_FRAMES)
    if len(samples) < need:
        raise MediaError(f"{wav or video}: {len(samples)} samples, at least {need} are needed")
    faces, voices = face_content(network, video, allow_resize), voice_content(network, samples)
    try:
        return find_offset(faces, voices, max_offset)
    except UserError as error:
        raise MediaError(f"{video}: {error}") from None


def plot_offsets(found: Sequence[tuple[str, Offset]], path: str) -> None:
    """Plot the similarities of (path, offset) pairs as a PNG: one as a curve, several as a map. Raises OSError."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    if len(found) == 1:
        path_of_clip, one = found[0]
        name = printable("/".join(Path(path_of_clip).parts[-3:]))  # <id>/<ref>/<utt>.mp4
        figure = Figure(figsize=(7, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(one.shifts, one.similarity, ".-")
        axes.plot([one.frames], [one.similarity.max()], "o", color="tab:red", markersize=8)
        axes.axhline(np.median(one.similarity), color="0.5", linestyle=":", label="median")
        axes.axvline(one.frames, color="tab:red", linewidth=0.8)
        nothing = "no offset found: " if one.found in ("no", "edge") else ""
        figures = f"offset {one.frames} frames ({one.milliseconds} ms), confidence {one.confidence:.3f}"
        axes.set_title(f"{name}\n{nothing}{figures}", fontsize=10)
        axes.set_ylabel(one.measure)
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    else:
        figure = Figure(figsize=(7, min(3 + 0.08 * len(found), 12)), layout="constrained")
        axes = figure.subplots()
        shifts = found[0][1].shifts
        edges = (shifts[0] - 0.5, shifts[-1] + 0.5, len(found) + 0.5, 0.5)
        image = axes.imshow(
            [one.similarity for _, one in found], aspect="auto", extent=edges, interpolation="nearest"
        )
        figure.colorbar(image, label=found[0][1].measure)
        axes.plot(
            [one.frames for _, one in found], range(1, len(found) + 1), ".", color="tab:red", markersize=4
        )
        axes.set_title(f"{len(found)} clips; red: the offset found", fontsize=10)
        axes.set_ylabel("clip")
    axes.set_xlabel("offset in frames (40 ms); positive: the picture is later than the sound")
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)


# ---------------------------------------------------------------- the command


Measured = tuple[FaceTrack, Offset]


def is_found(measured: Offset) -> bool:
    return measured.found == "yes"


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    from syncnet.inference.sources import find_sources, with_wavs

    sources = find_sources(args.inputs, VIDEO_FILES, args.wav is None, problems)
    clips = with_wavs(sources, args.wav)
    for flag in ("plot", "csv", "write_list"):
        if getattr(args, flag) is not None:
            check_output(f"--{flag}", getattr(args, flag))
    if args.write_list and not args.tracks and not all(wav for _, wav in clips):
        raise MediaError(
            "--write_list: a list names a wav for every clip; give a list, or a folder with --wav"
        )
    if args.write_list is None and (args.min_confidence or args.max_shift is not None):
        print("not used: --min_confidence and --max_shift, for --write_list alone", file=sys.stderr)
    rule = track_rule(args, MADE)
    network = load_network(args, every_frame=True)
    with face_tracks(clips, args, rule, problems, is_rule_given(args), args.allow_resize) as tracks:
        if args.write_list and tracks.made and not args.tracks:
            raise UserError(
                "--write_list: some are no face tracks; give --tracks, which keeps those made of them"
            )
        rows = measure(network, tracks.tracks, args, problems)
        report(rows, tracks, args, problems)


def measure(
    network: Network, tracks: Sequence[FaceTrack], args: argparse.Namespace, problems: Problems
) -> list[Measured]:
    """Measure the offsets of face tracks; print one line for each."""
    from tqdm import tqdm

    def one(track: FaceTrack) -> Offset:
        return offset(network, track.clip, track.wav, args.max_offset, args.allow_resize)

    rows: list[Measured] = []
    several = len(tracks) > 1
    if several:
        print("offset     ms  confidence   found  listed  clip")
    for track, found in measure_each(tracks, one, problems, "offset"):
        if found:
            rows.append((track, found))
            listed = track.listed.offset if track.listed else "-"
            figures = f"{found.frames:6d} {found.milliseconds:6d} {found.confidence:11.3f}"
            figures += f" {found.found:>7} {listed:>7}"
            tqdm.write(f"{figures}  {track}" if several else f"{track}: {found}")
    return rows


def report(rows: Sequence[Measured], tracks: Tracks, args: argparse.Namespace, problems: Problems) -> None:
    """Print a summary of the offsets, and write the requested files."""
    for video, why in tracks.without_face.items():
        problems(MediaError(f"{video}: {why}"))
    several = len(tracks.tracks) > 1
    if not rows:
        if args.write_list:
            problems(
                UserError(
                    f"{args.write_list}: not written, none of the {len(tracks.tracks)} clips can be measured"
                )
            )
        return
    if several:
        print("offset: frames by which the picture is later than the sound, as a list's third field")
    nothing = sum(not is_found(found) for _, found in rows)
    if several and nothing:
        print(
            f"found: in {nothing} of {len(rows)} clips no offset was found, or it may lie beyond --max_offset"
        )
    listed = [f.frames - track.listed.offset for track, f in rows if track.listed and is_found(f)]
    if listed:
        apart = np.abs(listed)
        print(
            f"of {len(listed)} clips, {(apart == 0).sum()} are as listed, {(apart <= 1).sum()} within a frame"
        )
    if late := [track for track, found in rows if is_found(found) and found.frames and not track.listed]:
        print(f"to move the sound: {correction(args, late[0].video)}")
    if args.plot:
        plot_offsets([(track.clip, found) for track, found in rows], args.plot)
    if args.csv:
        write_offset_table(rows, args.csv, kept=args.tracks is not None)
    if args.write_list:
        write_checked_list(args, rows, len(tracks.tracks))


def correction(args: argparse.Namespace, video: str) -> str:
    """The command that writes a video with its sound in sync."""
    stem, ending = os.path.splitext(video)
    names = [shlex.quote(name) for name in (args.initial_model, video, f"{stem}_in_sync{ending}")]
    return f"{COMMAND} resync --initial_model {names[0]} {names[1]} --output {names[2]}"


def write_offset_table(rows: Sequence[Measured], path: str, kept: bool) -> None:
    """Write the CSV with one row per clip. kept: see lse.write_table. Raises OSError."""
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["clip", "wav", "offset", "milliseconds", "confidence", "listed", "found"])
        for track, found in rows:
            listed = track.listed.offset if track.listed else ""
            row = [found.frames, found.milliseconds, f"{found.confidence:.6f}", listed, found.found]
            files = [track.clip, track.wav or ""] if kept or track.first is None else [str(track), ""]
            table.writerow([*files, *row])


def write_checked_list(args: argparse.Namespace, rows: Sequence[Measured], clips: int) -> None:
    """Write --write_list: the clips with the offsets found. Raises UserError if no clip is left, and OSError.

    clips: number of all clips, including those that could not be measured.
    """
    from syncnet.inference.embeddings import count_frames

    kept: list[Measured] = []
    skipped = Counter({"that cannot be read": clips - len(rows)})
    for row in rows:
        reason = reason_to_skip(row[1], args)
        if reason:
            skipped[reason] += 1
        else:
            kept.append(row)
    if not kept:
        counts = ", ".join(f"{count} {reason}" for reason, count in skipped.items() if count)
        raise UserError(f"{args.write_list}: not written, no clip is left: of {clips} clips, {counts}")
    with replace_file(args.write_list) as file:
        for track, measured in kept:
            frames = track.listed.frames if track.listed else count_frames(track.clip)
            file.write(format_list_line(Clip(track.clip, track.wav or "", measured.frames, frames)) + "\n")
    without = f" ({skipped[NO_OFFSET]} skipped because no offset was found)" if skipped[NO_OFFSET] else ""
    print(f"{args.write_list}: {len(kept)} of {counted(clips, 'clip')}{without}")


def reason_to_skip(measured: Offset, args: argparse.Namespace) -> str:
    """Why --write_list skips a clip; "" if it does not."""
    if not is_found(measured):
        return NO_OFFSET
    if not measured.confidence >= args.min_confidence:
        return f"with less confidence than --min_confidence {args.min_confidence:g}"
    if args.max_shift is not None and abs(measured.frames) > args.max_shift:
        return f"further apart than --max_shift {args.max_shift}"
    return ""
