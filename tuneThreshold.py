"""From scores to numbers: EER, minDCF, thresholds, confidence intervals, DET curves.

    python tuneThreshold.py scores.txt                                   # one line a trial: score label ...
    python tuneThreshold.py scores.txt --plot det.png --compare other.txt
    python tuneThreshold.py scores.txt --bootstrap 1000                  # with 95 % intervals

What stands in verification/rates.py, bootstrap.py and det.py can be imported from here by the same names.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np

import rooms  # noqa: F401
from support.commands import Parser, at_least, command
from support.errors import UserError
from support.files import check_output
from verification.bootstrap import MIN_SPEAKERS, bootstrap_interval, count_speakers, speakers_of_trials
from verification.det import plot_det
from verification.rates import (
    ABOUT_MIN_DCF,
    P_TARGETS,
    check_trials,
    eer_interpolated,
    error_rates,
    min_dcf,
    tuneThresholdfromScore,
)

__all__ = [
    "P_TARGETS",
    "bootstrap_interval",
    "check_trials",
    "eer_interpolated",
    "error_rates",
    "min_dcf",
    "plot_det",
    "read_scores",
    "tuneThresholdfromScore",
]


def read_scores(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of a file of `score label` or `score label fileA fileB` lines, split at white space.

    Returns (scores float64, labels int64), both (trials,). Empty lines are skipped.
    Raises UserError naming the file and the line, and OSError.
    """
    return read_scored_trials(path)[:2]


def read_scored_trials(path: str) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]] | None]:
    """As read_scores, with the two file names of each trial; None where a line has none."""
    scores, labels, pairs = [], [], []
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\n").split("\t") if line.count("\t") == 3 else line.split()
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            if len(fields) not in (2, 4):
                raise UserError(f"{where}: {len(fields)} fields, expected 'score label [fileA fileB]'")
            try:
                score = float(fields[0])
            except ValueError:
                raise UserError(f"{where}: score {fields[0][:40]!r} is not a number") from None
            if not np.isfinite(score):
                raise UserError(f"{where}: score {fields[0]!r} is not a finite number")
            if fields[1] not in ("0", "1"):
                raise UserError(f"{where}: label {fields[1][:40]!r}, expected 0 or 1 (1 = same speaker)")
            scores.append(score)
            labels.append(int(fields[1]))
            if len(fields) == 4:
                pairs.append((fields[2], fields[3]))
    try:
        return *check_trials(scores, labels), pairs if len(pairs) == len(scores) else None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def resample(
    scores: np.ndarray, labels: np.ndarray, pairs: list[tuple[str, str]] | None, resamples: int, seed: int
) -> tuple[dict[str, tuple[float, float]], str]:
    """The intervals of bootstrap_interval, and in words what was drawn: speakers where names tell enough of them."""
    speakers = speakers_of_trials(pairs, labels) if pairs else None
    drawn = "trials" if speakers is None else f"{count_speakers(speakers)} speakers"
    if speakers is not None and count_speakers(speakers) < MIN_SPEAKERS:
        speakers, drawn = None, f"trials ({drawn} are too few)"
    return bootstrap_interval(scores, labels, resamples=resamples, seed=seed, speakers=speakers), drawn


def describe(
    scores: np.ndarray,
    labels: np.ndarray,
    pairs: list[tuple[str, str]] | None,
    target_fa: Sequence[float],
    resamples: int = 0,
    seed: int = 0,
) -> list[tuple[str, str]]:
    """The lines of the table for one system, (name, value); resamples > 0 adds the intervals."""
    tuned, eer, _, _ = tuneThresholdfromScore(scores, labels, target_fa)
    intervals, drawn = resample(scores, labels, pairs, resamples, seed) if resamples else ({}, "")
    counts = [("trials", len(labels)), ("targets", labels.sum()), ("non-targets", (labels == 0).sum())]
    lines = [(name, str(count)) for name, count in counts]
    if drawn:
        lines.append((f"intervals: {resamples} draws of", drawn))
    lines.append(("EER (%)", f"{eer:2.4f}"))
    measured = [("EER interpolated (%)", "eer_interpolated", eer_interpolated(scores, labels))]
    measured += [(f"minDCF({p:g})", f"min_dcf_{p:g}", min_dcf(scores, labels, p)) for p in P_TARGETS]
    for title, key, (value, threshold) in measured:
        if key == f"min_dcf_{P_TARGETS[0]:g}":
            lines.append((ABOUT_MIN_DCF, ""))
        lines += [(title, f"{value:2.4f}"), ("  at threshold", f"{threshold:.6g}")]
        if key in intervals:
            lines.append(("  95 % interval", "{:.4f} - {:.4f}".format(*intervals[key])))
    for wanted, (threshold, fa, fr) in zip(target_fa, tuned, strict=True):
        lines.append((f"threshold for FA {wanted:g} %", f"{threshold:.6g}"))
        lines.append(("  FA / FR there (%)", f"{fa:.4f} / {fr:.4f}"))
    return lines


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        usage="%(prog)s scores.txt [options]",
        description="EER, minDCF and thresholds of a file of scores.",
        epilog="Exit status: 0; 1 if a file cannot be read or written; 2 for a wrong option.",
        example=["python tuneThreshold.py data/exp01/result/eval_scores.txt --bootstrap 1000 --plot det.png"],
    )
    add = parser.add_argument
    add("scores", help="one trial a line: 'score label' or 'score label fileA fileB'")
    add("--compare", nargs="+", default=[], metavar="FILE", help="further systems, beside the first")
    add("--plot", metavar="PNG", help="write a DET plot of all systems to this file")
    intervals = (
        "add 95 %% intervals from N resamples (1000 is enough) of the speakers, where the file names' folders tell "
        "them, else of the trials"
    )
    add("--bootstrap", type=at_least(int, 0), default=0, metavar="N", help=intervals)
    add("--seed", type=at_least(int, 0), default=0, help="of the bootstrap")
    wanted = "give the threshold nearest to these false acceptance rates"
    add("--target_fa", type=float, nargs="+", default=[1, 0.1], metavar="PERCENT", help=wanted)
    args = parser.parse_args(argv)
    if not all(0 <= rate <= 100 for rate in args.target_fa):
        parser.error("--target_fa is in percent, 0 to 100")
    return args


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.plot is not None:
        check_output("--plot", args.plot)
    systems = {path: read_scored_trials(path) for path in dict.fromkeys([args.scores, *args.compare])}
    settings = args.target_fa, args.bootstrap, args.seed
    columns = [describe(*trials, *settings) for trials in systems.values()]
    # The table first: it may have taken long, and the picture may find no place.
    table = [("", *systems)]
    table += [(rows[0][0], *(value for _, value in rows)) for rows in zip(*columns, strict=True)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *values in table:
        cells = [f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=True)]
        print("  ".join([f"{name:<{widths[0]}}", *cells]))
    if args.plot:
        short = [os.path.basename(path) for path in systems]
        names = short if len(set(short)) == len(short) else systems
        plot_det({name: system[:2] for name, system in zip(names, systems.values(), strict=True)}, args.plot)
        print(f"DET plot: {args.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
