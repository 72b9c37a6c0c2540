"""What the commands of inferSyncNet.py share: groups of flags, what their examples name, and one-line problems.

A command is a module of this folder:

    HELP, EXAMPLE                      its one-sentence description, and command lines for the end of its help
    add_flags(parser)                  adds its flags; imports nothing slow
    run(args, load_network, problems)  does it and reports; load_network(args, every_frame=False) gives the network of
                                       --initial_model, problems(error) reports a file that cannot be used

and its name in COMMANDS of inferSyncNet.py.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Protocol

from syncnet.inference.defaults import FACES_AT_ONCE, MAX_OFFSET, NUM_EVAL, VOICES_AT_ONCE, WINDOWS_AT_ONCE
from syncnet.networks.choices import AUTO, CROPS, PRECISIONS
from syncnet.support.commands import Parser, at_least, error_text

if TYPE_CHECKING:
    from syncnet.networks.interface import Network

COMMAND = "python inferSyncNet.py"
PUBLISHED = "--initial_model data/syncnet_v2.model"
MODEL = "--initial_model data/exp01/model/model000000500.model"


class LoadNetwork(Protocol):
    """Gives the network that a command's flags ask for; with every_frame, content at every frame is set up once."""

    def __call__(self, args: argparse.Namespace, every_frame: bool = False) -> Network: ...


class Problems:
    """Reports a file that cannot be used, in one line; the exit status says that there was one."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        from tqdm import tqdm

        self.count += 1
        tqdm.write(f"inferSyncNet.py: {error_text(error)}", file=sys.stderr)  # beside a bar, not into it


def add_checkpoint(parser: Parser) -> None:
    """--initial_model and the settings of its network."""
    add = parser.add_argument_group("checkpoint").add_argument
    add("--initial_model", required=True, help="checkpoint to use")
    unless = "; by default as the checkpoint says, else as in training"
    add("--model", help="module in models/ that holds the network" + unless)
    add("--nOut", type=at_least(int, 1), help="size of the embeddings" + unless)
    add("--maxFrames", type=at_least(int, 5), help="video frames (40 ms) of a crop" + unless)
    add("--temporal_stride", type=at_least(int, 1), help="frames between embeddings" + unless)
    add("--crop", choices=CROPS, help="what the lip stream sees of a face track" + unless)


def add_network(parser: Parser) -> None:
    """The checkpoint, and on what and how exactly to compute with it."""
    add_checkpoint(parser)
    add = parser.add_argument_group("machine").add_argument
    add("--device", help="cpu, cuda, cuda:1 ...; by default a GPU if there is one")
    add(
        "--precision",
        choices=(*PRECISIONS, AUTO),
        default="fp32",
        help="bf16 is less exact, and faster on most GPUs and some CPUs; auto: the faster, measured here",
    )


def add_crops(parser: Parser) -> None:
    """How identity embeddings of crops are computed."""
    parser.add_argument(
        "--num_eval", type=at_least(int, 1), default=NUM_EVAL, help="evenly spread crops a file, as --eval"
    )
    parser.add_argument(
        "--nBatchSize",
        type=at_least(int, 1),
        help=f"crops computed at once (default: {VOICES_AT_ONCE} of voices, {FACES_AT_ONCE} of faces); changes "
        "memory and speed, not results",
    )


def add_resize(parser: Parser) -> None:
    parser.add_argument(
        "--allow_resize",
        action="store_true",
        help="scale videos that are not 224x224 instead of refusing them",
    )


def add_max_offset(parser: Parser) -> None:
    parser.add_argument(
        "--max_offset", type=at_least(int, 1), default=MAX_OFFSET, help="frames looked at either way"
    )


def add_windows(parser: Parser) -> None:
    """How lip sync is measured."""
    add_max_offset(parser)
    add_window_batch(parser)


def add_window_batch(parser: Parser) -> None:
    parser.add_argument(
        "--nBatchSize",
        type=at_least(int, 1),
        default=WINDOWS_AT_ONCE,
        help="windows computed at once; changes memory and speed, not results",
    )


def add_inputs(parser: Parser) -> None:
    """Videos or face tracks, and their sound."""
    parser.add_argument(
        "inputs",
        nargs="+",
        help="videos of any kind, 224x224 face tracks, folders of them, or lists of clips",
    )
    parser.add_argument(
        "--wav",
        help="sound of the clip, or the folder of the wavs of a folder or list of clips: <wav>/id/a.wav for "
        "/data/mp4/id/a.mp4 of a list; by default the video's sound track",
    )
