"""Run inference with a checkpoint: embeddings, speaker verification, lip sync, face-voice matching, export.

    python inferSyncNet.py embed    --initial_model x.model a.wav folder/ --output voices.npz
    python inferSyncNet.py verify   --initial_model x.model a.wav b.wav
    python inferSyncNet.py offset   --initial_model x.model talk.mp4 --plot offset.png
    python inferSyncNet.py resync   --initial_model syncnet_v2.model talk.mp4 --output talk_in_sync.mp4
    python inferSyncNet.py lse      --initial_model syncnet_v2.model videos/ --protocol latentsync --json lse.json
    python inferSyncNet.py accuracy --initial_model x.model list.txt
    python inferSyncNet.py speakers --initial_model syncnet_v2.model talk.mp4 --output seen.mp4 --rttm talk.rttm
    python inferSyncNet.py show     --initial_model syncnet_v2.model --video talk.mp4 --output seen.mp4
    python inferSyncNet.py match    --initial_model x.model list.txt
    python inferSyncNet.py export   --initial_model x.model --stream voice --head identity --output voice.onnx
    python inferSyncNet.py average  a.model b.model c.model --output mean.model

Each command has its own --help, and most have a Python function of the same name. Each is a module in
syncnet/inference/; see command_flags.py there.
"""

import syncnet  # noqa: F401  # isort: skip

import argparse
import sys
from importlib import import_module

from syncnet.inference.command_flags import COMMAND, MODEL, PUBLISHED, Problems
from syncnet.support.commands import Parser, answer_flags, command

COMMANDS = [
    "embed",
    "verify",
    "offset",
    "resync",
    "lse",
    "accuracy",
    "speakers",
    "show",
    "match",
    "export",
    "average",
]
DESCRIPTION = """Run inference with a checkpoint: embeddings, speaker verification, audio-video offsets and their
correction, LSE figures, sync accuracy, who speaks when, face-voice matching, export to ONNX, averages of checkpoints.

Each command has its own --help."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; `run` is the function of the command."""
    parser = Parser(
        description=DESCRIPTION,
        example=[
            f"{COMMAND} embed    {MODEL} a.wav folder/ --output voices.npz",
            f"{COMMAND} verify   {MODEL} a.wav b.wav",
            f"{COMMAND} offset   {MODEL} talk.mp4 --plot offset.png",
            f"{COMMAND} resync   {PUBLISHED} talk.mp4 --output talk_in_sync.mp4",
            f"{COMMAND} lse      {PUBLISHED} my_videos/ --protocol latentsync --json lse.json",
            f"{COMMAND} accuracy {MODEL} data/test.txt",
            f"{COMMAND} speakers {PUBLISHED} talk.mp4 --output seen.mp4 --rttm talk.rttm",
            f"{COMMAND} show     {PUBLISHED} --video my_videos/talk.mp4 --output seen.mp4",
            f"{COMMAND} match    {MODEL} data/test.txt",
            f"{COMMAND} export   {MODEL} --stream voice --head identity --output voice.onnx",
            f"{COMMAND} average  a.model b.model c.model --output mean.model",
        ],
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        module = import_module(f"syncnet.inference.{name}")
        flags = commands.add_parser(name, help=module.HELP, description=module.HELP, example=module.EXAMPLE)
        module.add_flags(flags)
        flags.set_defaults(run=module.run, check=getattr(module, "check", None))
    args = parser.parse_args(argv)
    if args.check:
        args.check(parser, args)
    return args


if __name__ == "__main__":
    answer_flags(parse_args)

from dataclasses import asdict, replace

import torch

from syncnet.checkpoints.by_name import at_every_frame
from syncnet.checkpoints.checkpoints import choose_settings
from syncnet.checkpoints.torch_files import CheckpointError
from syncnet.compute.memory import keep_memory
from syncnet.inference.accuracy import accuracy as accuracy
from syncnet.inference.embeddings import embed as embed
from syncnet.inference.embeddings import verify as verify
from syncnet.inference.lip_sync import lse as lse
from syncnet.inference.match import match as match
from syncnet.inference.offset import offset as offset
from syncnet.inference.onnx_file import export as export
from syncnet.inference.show import show as show
from syncnet.networks.settings import default_settings
from SyncNetDist import SyncNet


def load(
    path: str, device: str | torch.device | None = None, precision: str = "fp32", **given: object
) -> SyncNet:
    """Load the network of a checkpoint, for embed, verify, offset, lse, match and the other functions.

    path: checkpoint. device, precision: see SyncNet. given: settings (networks/settings.py) that override those of
    the checkpoint; if it has none, like the published ones, they override those of the 2020 baseline. Conflicts with
    the checkpoint are reported on stderr. Raises CheckpointError, and UserError for settings that make no sense.
    """
    settings, notes = choose_settings(path, given)
    network = SyncNet(**asdict(settings), device=device, precision=precision)
    network.loadParameters(path, strict=True)
    for line in notes + [network.precision_note] * bool(network.precision_note):
        print(line, file=sys.stderr)
    return network


def load_network(args: argparse.Namespace, every_frame: bool = False) -> SyncNet:
    """The network that the flags select. every_frame: set its temporal stride to 1."""
    given = {name: getattr(args, name, None) for name in default_settings()}
    network = load(args.initial_model, args.device, args.precision, **given)
    if every_frame:
        network.__S__ = at_every_frame(network)
        network.settings = replace(network.settings, temporal_stride=1)
    return network


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 (a file could not be used or written), 130 (Ctrl-C)."""
    args = parse_args(argv)
    keep_memory()
    problems = Problems()
    try:
        args.run(args, load_network, problems)
    except CheckpointError as error:
        first, *more = str(error).splitlines()
        raise CheckpointError(first + (f" {more[0].strip()}" if more else "")) from None
    return 1 if problems.count else 0


if __name__ == "__main__":
    sys.exit(main())
