"""inferSyncNet.py lse: LSE-D and LSE-C of face tracks, their means, and confidences of frames."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from syncnet.inference.command_flags import (
    COMMAND,
    PUBLISHED,
    LoadNetwork,
    Problems,
    add_network,
    add_resize,
    add_tracks,
    add_windows,
)
from syncnet.media.clips import MediaError
from syncnet.media.file_type import VIDEO_FILES
from syncnet.support.commands import Parser
from syncnet.support.files import check_output, file_hash, replace_file
from syncnet.support.names import repeated
from syncnet.support.progress import progress_bar

if TYPE_CHECKING:
    from syncnet.inference.lip_sync import LipSync
    from syncnet.networks.interface import Network

HELP = (
    "Lip sync of face tracks: offset, LSE-D (distance, less is better) and LSE-C (confidence) of each, and their "
    "means. Comparable with published figures only with syncnet_v2.model, for which see docs/inference.md."
)
EXAMPLE = [
    f"{COMMAND} lse {PUBLISHED} tracks/ --csv lse.csv",
    f"{COMMAND} lse {PUBLISHED} my_tracks/mp4 --wav my_tracks/wav --frames frames",
]
COLUMNS = ("clip", "wav", "frames", "offset", "lse_d", "lse_c")
HEADER = "offset   LSE-D   LSE-C  frames  clip"
PUBLISHED_SHA256 = "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"  # of syncnet_v2.model
RESAMPLES = 1000
Row = tuple[
    str, "str | None", "LipSync"
]  # a clip, its wav (None: its own sound track), and what was measured


def add_flags(parser: Parser) -> None:
    add_network(parser)
    add_tracks(parser)
    add_windows(parser)
    add_resize(parser)
    parser.add_argument("--csv", metavar="CSV", help="write a table: clip, wav, frames, offset, lse_d, lse_c")
    parser.add_argument(
        "--frames",
        metavar="DIR",
        help="write a CSV a track with the confidence of every frame, median-filtered over 9",
    )


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    from syncnet.inference.lip_sync import lse
    from syncnet.inference.sources import find_sources, with_wavs

    sources = find_sources(args.inputs, VIDEO_FILES, args.wav is None, problems)
    clips = with_wavs(sources, args.wav)
    names = [os.path.splitext(source.name)[0] + ".csv" for source, _ in clips]
    if args.frames and repeated(names):
        raise MediaError(
            f"--frames {args.frames}: two inputs would have the same .csv; give the folder they are in"
        )
    if args.csv is not None:
        check_output("--csv", args.csv)
    if args.frames is not None:
        check_output("--frames", args.frames, folder=True)
    network = load_network(args, every_frame=True)
    rows: list[Row] = []
    print(HEADER)
    with progress_bar(total=len(clips), unit="track", desc="lip sync", leave=False) as bar:
        for (source, wav), name in zip(clips, names, strict=True):
            try:
                found = lse(network, source.path, wav, args.max_offset, args.nBatchSize, args.allow_resize)
            except MediaError as error:
                problems(error)
            else:
                rows.append((source.path, wav, found))
                bar.write(line_of(source.path, found))
                if args.frames:
                    write_frames(found, os.path.join(args.frames, name))
            bar.update()
    if not rows:
        return
    print(mean_line(rows))
    if note := remark(network, args.initial_model):
        print(note)
    if args.csv:
        write_table(rows, args.csv)


def line_of(clip: str, found: LipSync) -> str:
    """A track's line below HEADER."""
    return f"{found.offset:6d} {found.lse_d:7.3f} {found.lse_c:7.3f} {found.frames:7d}  {clip}"


def mean_line(rows: Sequence[Row]) -> str:
    """The means over tracks that papers report, with their 95 % intervals where there are several tracks."""
    figures = np.array([(found.lse_d, found.lse_c) for _, _, found in rows])
    cells = [f"{name} {mean:.3f}" for name, mean in zip(("LSE-D", "LSE-C"), figures.mean(0), strict=True)]
    if len(rows) == 1:
        return f"1 track: {', '.join(cells)}"
    low, high = mean_interval(figures)
    cells = [f"{cell} ({a:.3f} - {b:.3f})" for cell, a, b in zip(cells, low, high, strict=True)]
    return f"mean of {len(rows)} tracks: {', '.join(cells)}; 95 % intervals over tracks"


def mean_interval(figures: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of means over tracks: (tracks, k) -> low, high, (k,) each."""
    draws = np.random.default_rng(seed)
    means = [figures[draws.integers(len(figures), size=len(figures))].mean(0) for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


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


def write_table(rows: Sequence[Row], path: str) -> None:
    """Write the CSV with a row a track. Raises OSError."""
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for clip, wav, found in rows:
            figures = [found.frames, found.offset, f"{found.lse_d:.6f}", f"{found.lse_c:.6f}"]
            table.writerow([clip, wav or "", *figures])


def write_frames(found: LipSync, path: str) -> None:
    """Write the CSV with the confidence of every frame that a window has in its middle. Raises OSError.

    frame: number from 0 on. The first two frames and the last few are in the middle of none.
    """
    from syncnet.networks.two_streams import LIP_FRAMES

    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["frame", "confidence"])
        for frame, confidence in enumerate(found.confidences, LIP_FRAMES // 2):
            table.writerow([frame, f"{confidence:.6f}"])
