"""inferSyncNet.py accuracy: how often the right shift of picture and sound is found, as papers report it.

As Perfect Match (Chung et al., 2019), VocaLiST (Kadandale et al., 2022) and later papers report it for LRS2 and LRS3:
of each window of five frames, which of 31 shifts of the sound is the best? Right is one within a frame of the true
one.
"""

from __future__ import annotations

import argparse
import json
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
from syncnet.media.clips import Clip, MediaError
from syncnet.media.file_type import VIDEO_FILES
from syncnet.support.commands import Parser
from syncnet.support.files import check_output, file_hash, replace_file
from syncnet.support.names import counted
from syncnet.support.progress import progress_bar

if TYPE_CHECKING:
    from syncnet.networks.interface import Network

HELP = (
    "In how many of its windows does a clip in sync have its best shift, of 31, within a frame of the right one? As "
    "papers on synchronization report it, for windows of 5 to 15 frames; means over clips, in percent."
)
EXAMPLE = [
    f"{COMMAND} accuracy {MODEL} data/test.txt --json accuracy.json",
    f"{COMMAND} accuracy {PUBLISHED} lrs2/mp4 --wav lrs2/wav",
]
CONTEXTS = (5, 7, 9, 11, 13, 15)  # frames
LIP_FRAMES = 5  # of a window
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
    """The share of windows whose best shift is right.

    scores: (windows, shifts) of windows of 5 frames, the right shift in the middle, -inf where there is no sound.
    context: frames; at each shift, the scores of the context - 4 windows centered on one are averaged, fewer at the
    clip's ends.
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
    """The share of right windows of a clip for each of CONTEXTS, (6,).

    offset: at which the clip is in sync, as a list has it; windows without the right sound, at an end of the clip, do
    not count. For the rest and for errors see lip_sync.distances.
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

    clips: of the list; `count` of them are taken, evenly spread. allow_resize: scale frames that are not 224x224.
    Raises UserError for a network without content embeddings.
    """

    def __init__(self, network: Network, clips: Sequence[Clip], count: int, allow_resize: bool = False):
        from syncnet.networks.output_check import require_content

        require_content(network)
        chosen = np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(int)
        self.network, self.clips, self.allow_resize = network, [clips[n] for n in chosen], allow_resize

    def run(self) -> dict[str, float]:
        """Print and return the accuracies in percent of the network as it is now; several processes share the clips.

        Clips that cannot be measured do not count; without any, the figures are NaN.
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
    if not rows:
        return
    print(table(rows))
    if args.json:
        write(rows, args)


def table(rows: Sequence[np.ndarray]) -> str:
    """The means over clips, for people."""
    header = "frames    " + " ".join(f"{context:6d}" for context in CONTEXTS)
    means = "accuracy  " + " ".join(f"{100 * mean:6.2f}" for mean in np.mean(rows, 0))
    said = f"of {counted(len(rows), 'clip')}, in %; {2 * MAX_OFFSET + 1} shifts, right within {WITHIN} frame; chance "
    return f"{header}\n{means}\n{said}{100 * CHANCE:.1f}"


def write(rows: Sequence[np.ndarray], args: argparse.Namespace) -> None:
    """Write --json. Raises OSError."""
    figures = np.array(rows)
    low, high = mean_interval(figures)
    found: dict[str, object] = {
        "weights": args.initial_model,
        "weights_sha256": file_hash(args.initial_model),
    }
    found |= {"clips": len(rows), "shifts": 2 * MAX_OFFSET + 1, "within": WITHIN, "chance": CHANCE}
    cells = zip(CONTEXTS, figures.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
    found["accuracy"] = {str(context): {"mean": m, "low": a, "high": b} for context, m, a, b in cells}
    with replace_file(args.json) as file:
        json.dump(found, file, indent=2)
        file.write("\n")
