"""inferSyncNet.py accuracy: how often the best shift between picture and sound is the true one.

This is the accuracy that Perfect Match (Chung et al., 2019), VocaLiST (Kadandale et al., 2022) and later papers
report for LRS2 and LRS3: for each window of five frames, the best of 31 shifts of the sound is right if it is within
one frame of the true shift.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from syncnet.inference.command_flags import (
    COMMAND,
    MODEL,
    PUBLISHED,
    LoadNetwork,
    Problems,
    add_inputs,
    add_network,
    add_resize,
    add_window_batch,
)
from syncnet.inference.defaults import MAX_OFFSET, WINDOWS_AT_ONCE
from syncnet.inference.protocols import mean_interval
from syncnet.media.clips import LIP_FRAMES, Clip, MediaError
from syncnet.media.file_type import VIDEO_FILES
from syncnet.support.commands import Parser
from syncnet.support.files import check_output, file_hash, replace_file
from syncnet.support.names import counted
from syncnet.support.progress import progress_bar

if TYPE_CHECKING:
    from syncnet.networks.interface import Network

HELP = (
    "Sync accuracy, as papers on audio-video synchronization report it: the percentage of windows whose best shift, "
    "out of 31, is within one frame of the true one, for windows of 5 to 15 frames; means over clips."
)
EXAMPLE = [
    f"{COMMAND} accuracy {MODEL} data/test.txt --json accuracy.json",
    f"{COMMAND} accuracy {PUBLISHED} lrs2/mp4 --wav lrs2/wav",
]
CONTEXTS = (5, 7, 9, 11, 13, 15)  # frames
WITHIN = 1  # frames
CHANCE = (2 * WITHIN + 1) / (2 * MAX_OFFSET + 1)


def add_flags(parser: Parser) -> None:
    add_network(parser)
    add_inputs(parser)
    add_resize(parser)
    add_window_batch(parser)
    parser.add_argument(
        "--json", metavar="JSON", help="write the accuracies with their 95 %% intervals over clips"
    )


def right_windows(scores: np.ndarray, context: int) -> float:
    """The fraction of windows whose best shift is right.

    scores: (windows, shifts) for windows of 5 frames; the middle column is the true shift; -inf where there is no
    sound. context: frames; at each shift, the scores of the context - 4 windows centered on a window are averaged,
    fewer at the ends of the clip.
    """
    beside = (context - LIP_FRAMES) // 2
    means = [scores[max(0, i - beside) : i + beside + 1].mean(0) for i in range(len(scores))]
    best = np.argmax(means, axis=1)
    return float((np.abs(best - scores.shape[1] // 2) <= WITHIN).mean())


def accuracy(
    network: Network,
    video: str,
    wav: str | None = None,
    offset: int = 0,
    batch: int = WINDOWS_AT_ONCE,
    allow_resize: bool = False,
) -> np.ndarray:
    """The fraction of windows of a clip whose best shift is right, for each of CONTEXTS: (6,) float64.

    offset: true offset of the clip, as in its list line. Windows at the ends of the clip do not count if their sound
    is missing. For the other arguments and errors, see lip_sync.distances.
    """
    from syncnet.inference.lip_sync import distances

    if abs(offset) >= MAX_OFFSET:
        raise MediaError(f"{video}: offset {offset} in the list, needs one below {MAX_OFFSET} frames")
    found = distances(network, video, wav, MAX_OFFSET, batch, allow_resize, offset=offset)
    scores = np.where(found.there, -found.rows, -np.inf)[found.there[:, MAX_OFFSET]]
    if not len(scores):
        raise MediaError(f"{video}: {found.frames} frames, too few for the offset {offset} in the list")
    return np.array([right_windows(scores, context) for context in CONTEXTS])


class SyncTest:
    """The sync accuracy of clips of a list, measured repeatedly during training.

    clips: all clips of the list. count: how many of them, evenly spread, are measured. allow_resize: scale frames
    that are not 224x224. Raises UserError for a network without content embeddings.
    """

    def __init__(self, network: Network, clips: Sequence[Clip], count: int, allow_resize: bool = False):
        from syncnet.networks.output_check import require_content

        require_content(network)
        chosen = np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(int)
        self.network, self.clips, self.allow_resize = network, [clips[n] for n in chosen], allow_resize

    def run(self) -> dict[str, float]:
        """Print and return the network's current accuracies in percent; several processes share the clips.

        Clips that cannot be measured are skipped; if all are, the figures are NaN.
        """
        import torch

        from syncnet.compute import distributed

        rows = torch.zeros(len(self.clips), len(CONTEXTS), device=self.network.device)
        with progress_bar(total=len(self.clips), unit="clip", desc="accuracy", leave=False) as bar:
            for n in range(distributed.rank(), len(self.clips), distributed.processes()):
                clip = self.clips[n]
                try:
                    found = accuracy(
                        self.network, clip.video, clip.audio, clip.offset, allow_resize=self.allow_resize
                    )
                except MediaError:
                    found = np.full(len(CONTEXTS), np.nan)
                rows[n] = torch.from_numpy(found)
                bar.update(distributed.processes())
        measured = distributed.total(rows)
        measured = measured[~measured.isnan().any(1)]
        means = 100 * measured.double().mean(0).cpu().numpy()
        shown = ", ".join(f"{mean:.2f}" for mean in means)
        print(
            f"  {'sync':10s} accuracy {shown} % of {counted(len(measured), 'clip')} "
            f"({', '.join(map(str, CONTEXTS))} frames; chance {100 * CHANCE:.1f})"
        )
        return {f"sync_accuracy_{context}": mean for context, mean in zip(CONTEXTS, means, strict=True)}


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    from syncnet.inference.sources import find_sources, with_wavs

    clips = with_wavs(find_sources(args.inputs, VIDEO_FILES, args.wav is None, problems), args.wav)
    if args.json:
        check_output("--json", args.json)
    network = load_network(args, every_frame=True)
    rows: list[np.ndarray] = []
    with progress_bar(total=len(clips), unit="clip", desc="accuracy", leave=False) as bar:
        for source, wav in clips:
            offset = source.clip.offset if source.clip else 0
            try:
                rows.append(accuracy(network, source.path, wav, offset, args.nBatchSize, args.allow_resize))
            except MediaError as error:
                problems(error)
            bar.update()
    if rows:
        print(table(rows))
    if args.json:
        write(rows, args)


def table(rows: Sequence[np.ndarray]) -> str:
    """The means over clips, as a table to print."""
    header = "frames    " + " ".join(f"{context:6d}" for context in CONTEXTS)
    means = "accuracy  " + " ".join(f"{100 * mean:6.2f}" for mean in np.mean(rows, 0))
    note = f"of {counted(len(rows), 'clip')}, in %; {2 * MAX_OFFSET + 1} shifts, right within {WITHIN} frame; chance "
    return f"{header}\n{means}\n{note}{100 * CHANCE:.1f}"


def write(rows: Sequence[np.ndarray], args: argparse.Namespace) -> None:
    """Write --json. Raises OSError."""
    means, low, high = (np.full(len(CONTEXTS), np.nan) for _ in range(3))
    if rows:
        means = np.mean(rows, 0)
    if len(rows) > 1:
        low, high = mean_interval(np.array(rows))
    found: dict[str, object] = {
        "weights": args.initial_model,
        "weights_sha256": file_hash(args.initial_model),
    }
    found |= {"clips": len(rows), "shifts": 2 * MAX_OFFSET + 1, "within": WITHIN, "chance": CHANCE}
    cells = np.stack([means, low, high], 1).tolist()
    found["accuracy"] = {
        str(context): {
            name: None if math.isnan(value) else value
            for name, value in zip(("mean", "low", "high"), row, strict=True)
        }
        for context, row in zip(CONTEXTS, cells, strict=True)
    }
    with replace_file(args.json) as file:
        json.dump(found, file, indent=2)
        file.write("\n")
