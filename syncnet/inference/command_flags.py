"""Shared by the commands of inferSyncNet.py: groups of flags, paths for examples, and reports of unusable files.

A command is a module in this folder whose name is in COMMANDS in inferSyncNet.py. It defines:

    HELP, EXAMPLE                      a short description, and command lines for the end of its --help
    add_flags(parser)                  adds its flags; must not import anything slow
    check(parser, args)                optional: refuses combinations of flags
    run(args, load_network, problems)  runs the command; load_network(args, every_frame=False) returns the network of
                                       --initial_model, problems(error) reports a file that cannot be used
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
    """Returns the network that the flags select; every_frame sets its temporal stride to 1."""

    def __call__(self, args: argparse.Namespace, every_frame: bool = False) -> Network: ...


class Problems:
    """Reports each file that cannot be used, in one line on stderr; the exit status is then 1."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        from tqdm import tqdm

        self.count += 1
        tqdm.write(f"inferSyncNet.py: {error_text(error)}", file=sys.stderr)  # does not break progress bars


def add_checkpoint(parser: Parser) -> None:
    """--initial_model and the settings of its network."""
    add = parser.add_argument_group("checkpoint").add_argument
    add("--initial_model", required=True, help="checkpoint to use")
    unless = "; by default that of the checkpoint, else the training default"
    add("--model", help="module in models/ that holds the network" + unless)
    add("--nOut", type=at_least(int, 1), help="size of the embeddings" + unless)
    add("--maxFrames", type=at_least(int, 5), help="video frames (40 ms each) per crop" + unless)
    add("--temporal_stride", type=at_least(int, 1), help="frames between embeddings" + unless)
    add("--crop", choices=CROPS, help="part of a face track that the lip stream sees" + unless)


def add_network(parser: Parser) -> None:
    """The checkpoint, the device and the precision."""
    add_checkpoint(parser)
    add = parser.add_argument_group("machine").add_argument
    add("--device", help="cpu, cuda, cuda:1 ...; by default a GPU if there is one")
    add(
        "--precision",
        choices=(*PRECISIONS, AUTO),
        default="fp32",
        help="bf16 is less accurate, but faster on most GPUs and some CPUs; auto uses the faster of the two, "
        "measured on this machine",
    )


def add_crops(parser: Parser) -> None:
    """Crops for identity embeddings: how many per file, and how many at once."""
    parser.add_argument(
        "--num_eval",
        type=at_least(int, 1),
        default=NUM_EVAL,
        help="evenly spread crops per file, as in --eval",
    )
    parser.add_argument(
        "--nBatchSize",
        type=at_least(int, 1),
        help=f"crops computed at once (default: {VOICES_AT_ONCE} for voices, {FACES_AT_ONCE} for faces); affects "
        "memory and speed, not results",
    )


def add_resize(parser: Parser) -> None:
    parser.add_argument(
        "--allow_resize",
        action="store_true",
        help="scale whole frames that are not 224x224, instead of refusing the video or making face tracks from it",
    )


def add_max_offset(parser: Parser) -> None:
    parser.add_argument(
        "--max_offset",
        type=at_least(int, 1),
        default=MAX_OFFSET,
        help="largest offset that is searched for, in frames, in either direction",
    )


def add_windows(parser: Parser) -> None:
    """Flags for measuring lip sync."""
    add_max_offset(parser)
    add_window_batch(parser)


def add_window_batch(parser: Parser) -> None:
    parser.add_argument(
        "--nBatchSize",
        type=at_least(int, 1),
        default=WINDOWS_AT_ONCE,
        help="windows computed at once; affects memory and speed, not results",
    )


def add_inputs(parser: Parser) -> None:
    """Videos or face tracks, and their sound."""
    parser.add_argument(
        "inputs",
        nargs="+",
        help="videos in any format, 224x224 face tracks, folders of them, or lists of clips",
    )
    parser.add_argument(
        "--wav",
        help="sound file of the clip; for a folder or list of clips, the folder of their wavs: <wav>/id/a.wav for "
        "/data/mp4/id/a.mp4 in a list; by default the wav in the list, else the video's sound track",
    )
