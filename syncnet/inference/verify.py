"""inferSyncNet.py verify: do two recordings have the same speaker?"""

from __future__ import annotations

import argparse
import math
import os
from typing import TYPE_CHECKING

from syncnet.inference.command_flags import COMMAND, MODEL, LoadNetwork, Problems, add_crops, add_network
from syncnet.support.commands import Parser
from syncnet.support.errors import UserError
from syncnet.verification.calibration import CALIBRATION_PRIOR, posterior, read_calibration
from syncnet.verification.provenance import read_threshold, warn_precision

if TYPE_CHECKING:
    from syncnet.networks.interface import Network

HELP = (
    "Do two recordings have the same speaker? The score is that of --eval: the mean over all pairs of the two files' "
    "crops. Since crops of a file differ, a file scores below 1 with itself."
)
EXAMPLE = [
    f"{COMMAND} verify {MODEL} a.wav b.wav",
    f"{COMMAND} verify {MODEL} a.wav b.wav --threshold data/exp01/result/eval.json",
    f"{COMMAND} verify {MODEL} a.wav b.wav --calibration data/exp01/result/cal.json --prior 0.5",
]


def add_flags(parser: Parser) -> None:
    add_network(parser)
    add_crops(parser)
    parser.add_argument("a", help="sound file")
    parser.add_argument("b", help="sound file")
    parser.add_argument(
        "--threshold",
        help="also decide: same speaker if the score is at least this number; for an eval.json, its threshold at the "
        "EER",
    )
    parser.add_argument(
        "--calibration",
        metavar="JSON",
        help="also print a log-likelihood ratio and the probability of the same speaker, with a calibration that "
        "tuneThreshold.py --calibrate fitted to scores of this checkpoint",
    )
    parser.add_argument(
        "--prior",
        type=probability,
        metavar="P",
        help="with --calibration: prior probability of the same speaker, between 0 and 1 "
        f"(default: {CALIBRATION_PRIOR})",
    )


def check(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse --prior without --calibration."""
    if args.prior is not None and args.calibration is None:
        parser.error("--prior goes with --calibration")


def probability(text: str) -> float:
    """An argparse type: a number strictly between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"found {text}, needs a number between 0 and 1")
    return value


def find_threshold(given: str, args: argparse.Namespace, network: Network) -> float:
    """A number, or the threshold at the EER in an eval.json of this checkpoint. Raises UserError."""
    try:
        if math.isfinite(number := float(given)):
            return number
    except ValueError:
        pass
    if not os.path.isfile(given):
        raise UserError(f"--threshold {given}: neither a number nor an eval.json")
    threshold, report = read_threshold(given, args.initial_model, network.settings, args.num_eval)
    warn_precision(f"--threshold {given}", report, "the score", {"precision": network.precision})
    return threshold


def run(args: argparse.Namespace, load_network: LoadNetwork, _problems: Problems) -> None:
    from syncnet.inference.embeddings import verify

    network = load_network(args)
    threshold = None if args.threshold is None else find_threshold(args.threshold, args, network)
    if args.calibration is not None:
        calibration, made_of = read_calibration(
            args.calibration, args.initial_model, network.settings, args.num_eval
        )
        warn_precision(
            f"--calibration {args.calibration}", made_of, "the score", {"precision": network.precision}
        )
    score = verify(network, args.a, args.b, args.num_eval, args.nBatchSize)
    print(f"score {score:.6f}")
    if os.path.realpath(args.a) == os.path.realpath(args.b):
        print(
            "(a file with itself: its crops differ from each other, so that the mean of their scores is below 1)"
        )
    if threshold is not None:
        print(f"{'same speaker' if score >= threshold else 'different speakers'} (threshold {threshold:.6f})")
    if args.calibration is not None:
        llr = float(calibration.llr(score))
        print(f"log-likelihood ratio {llr:.6f} (natural logarithm)")
        prior = args.prior or CALIBRATION_PRIOR
        print(f"probability of the same speaker {posterior(llr, prior):.6g} (prior {prior:g})")
