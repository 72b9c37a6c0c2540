"""inferSyncNet.py average: average the weights of several checkpoints."""

from __future__ import annotations

import argparse
import os

from syncnet.inference.command_flags import COMMAND, LoadNetwork, Problems
from syncnet.support.commands import Parser
from syncnet.support.errors import UserError
from syncnet.support.files import check_output

HELP = "Average the weights of several checkpoints, usually a run's last epochs, into one checkpoint."
EXAMPLE = [f"{COMMAND} average data/exp01/model/model0000004*.model --output data/exp01/mean.model"]


def add_flags(parser: Parser) -> None:
    parser.add_argument(
        "checkpoints", nargs="+", help="two or more checkpoints with the same network and settings"
    )
    parser.add_argument("--output", required=True, metavar="MODEL", help="checkpoint to write")


def check(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse a single checkpoint."""
    if len(args.checkpoints) < 2:
        parser.error(f"average needs two checkpoints or more, found {args.checkpoints[0]} alone")


def run(args: argparse.Namespace, _network: LoadNetwork, _problems: Problems) -> None:
    from syncnet.checkpoints.averaging import average_checkpoints
    from syncnet.checkpoints.checkpoints import save_state_dict

    check_output("--output", args.output)
    places: dict[str, str] = {}
    for path in args.checkpoints:
        if (place := os.path.realpath(path)) in places:
            raise UserError(f"{path}: is given twice (as {places[place]}); give each checkpoint once")
        places[place] = path
    if os.path.realpath(args.output) in places:
        raise UserError(f"--output {args.output}: is one of the checkpoints; write to another file")
    weights, settings = average_checkpoints(args.checkpoints)
    save_state_dict(weights, args.output, settings)
    print(f"{args.output}: the mean of {len(args.checkpoints)} checkpoints")
