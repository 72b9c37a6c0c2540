"""From scores to numbers: EER, minDCF, thresholds, confidence intervals, DET curves.

    python tuneThreshold.py scores.txt                                   # one line a trial: score label ...
    python tuneThreshold.py scores.txt --plot det.png --compare other.txt
    python tuneThreshold.py scores.txt --bootstrap 1000                  # with 95 % intervals
    python tuneThreshold.py scores.txt --calibrate dev_scores.txt        # scores as log-likelihood ratios

What stands in verification/rates.py, bootstrap.py, calibration.py and det.py can be imported from here by the same
names.
"""

import rooms  # noqa: F401

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np

from support.commands import Parser, at_least, command
from support.errors import UserError
from support.files import check_output
from support.names import counted
from verification.bootstrap import MIN_SPEAKERS, bootstrap_interval, count_speakers, speakers_of_trials
from verification.calibration import (
    actual_dcf,
    calibrate,
    calibration_doubts,
    cllr,
    min_cllr,
    save_calibration,
)
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
from verification.results import check_same_system, scores_made_with, tell_precision
from verification.scoreFiles import has_labels, read_scored_trials, read_scores, read_unlabelled, write_llrs
from verification.speakers import speaker_names

Scored = tuple[np.ndarray, np.ndarray, list[tuple[str, str]] | None]  # see read_scored_trials

__all__ = [
    "P_TARGETS",
    "actual_dcf",
    "bootstrap_interval",
    "calibrate",
    "check_trials",
    "cllr",
    "eer_interpolated",
    "error_rates",
    "min_cllr",
    "min_dcf",
    "plot_det",
    "read_scores",
    "tuneThresholdfromScore",
]


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
    llr: bool = False,
) -> list[tuple[str, str]]:
    """The lines of the table for one system, (name, value); resamples > 0 adds the intervals.

    llr: the scores are taken for log-likelihood ratios, which adds Cllr and the actual DCF.
    """
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
    if llr:
        for p in P_TARGETS:
            value, threshold = actual_dcf(scores, labels, p)
            lines += [(f"actual DCF({p:g})", f"{value:2.4f}"), ("  at threshold", f"{threshold:.6g}")]
        lines += [("Cllr (bits)", f"{cllr(scores, labels):2.4f}")]
        lines += [("minimum Cllr (bits)", f"{min_cllr(scores, labels):2.4f}")]
    for wanted, (threshold, fa, fr) in zip(target_fa, tuned, strict=True):
        lines.append((f"threshold for FA {wanted:g} %", f"{threshold:.6g}"))
        lines.append(("  FA / FR there (%)", f"{fa:.4f} / {fr:.4f}"))
    return lines


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        usage="%(prog)s scores.txt [options]",
        description="EER, minDCF and thresholds of a file of scores.",
        epilog="Exit status: 0; 1 if a file cannot be read or written; 2 for a wrong option.",
        example=[
            "python tuneThreshold.py data/exp01/result/eval_scores.txt --bootstrap 1000 --plot det.png",
            "python tuneThreshold.py data/exp01/result/eval_scores.txt --calibrate data/dev/result/eval_scores.txt",
        ],
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
    calibration = parser.add_argument_group("calibration").add_argument
    calibration(
        "--calibrate",
        metavar="DEV_SCORES",
        help="write the scores as log-likelihood ratios, calibrated on these labelled scores of the same network, of "
        "other speakers; the scores themselves may have no labels",
    )
    calibration(
        "--llr_output",
        metavar="FILE",
        help="where --calibrate writes the ratios; by default the scores' name with _llr, beside them",
    )
    calibration(
        "--calibration",
        metavar="JSON",
        help="where --calibrate writes the calibration, for inferSyncNet.py verify; by default cal.json beside "
        "DEV_SCORES, or cal_asnorm.json where they are as-normed",
    )
    calibration(
        "--llr",
        action="store_true",
        help="the scores are log-likelihood ratios: give Cllr, its minimum and the actual DCF too",
    )
    args = parser.parse_args(argv)
    for flag in ("llr_output", "calibration"):
        if args.calibrate is None and getattr(args, flag) is not None:
            parser.error(f"--{flag} goes with --calibrate DEV_SCORES")
    if not all(0 <= rate <= 100 for rate in args.target_fa):
        parser.error("--target_fa is in percent, 0 to 100")
    return args


def shared_speakers(trials: Scored, others: Scored) -> set[str]:
    """The speakers who are in both, as far as names tell."""
    speakers = []
    for _, labels, pairs in (trials, others):
        found = speaker_names(pairs, labels) if pairs else None
        speakers.append(set(found.values()) if found else set())
    return speakers[0] & speakers[1]


def calibrate_file(args: argparse.Namespace, trials: Scored | None) -> tuple[str, Scored | None]:
    """Write the ratios and the calibration of --calibrate; return the ratios' file and what it holds.

    trials: of args.scores; None for scores without labels, whose ratios are only written.
    Raises UserError, OSError.
    """
    stem, extension = os.path.splitext(args.scores)
    output = f"{stem}_llr{extension}" if args.llr_output is None else args.llr_output
    check_output("--llr_output", output)
    dev_scores, dev_labels, dev_pairs = read_scored_trials(args.calibrate)
    dev_made_with = scores_made_with(args.calibrate, dev_scores, dev_labels)
    kind = dev_made_with["kind"] if dev_made_with else "raw"
    name = "cal.json" if kind == "raw" else f"cal_{kind}.json"
    beside = os.path.join(os.path.dirname(args.calibrate), name)
    kept = beside if args.calibration is None else args.calibration
    check_output("--calibration", kept)
    read = {os.path.realpath(path) for path in (args.scores, args.calibrate, *args.compare)}
    for flag, path in (("--llr_output", output), ("--calibration", kept)):
        if os.path.realpath(path) in read:
            raise UserError(f"{flag} {path}: is read here, and would be replaced; write to another file")
    scores = read_unlabelled(args.scores) if trials is None else trials[0]
    made_with = scores_made_with(args.scores, scores, None if trials is None else trials[1])
    check_same_system(args.scores, made_with, args.calibrate, dev_made_with)
    if made_with and dev_made_with:
        tell_precision(args.scores, made_with, args.calibrate, dev_made_with)
    try:
        calibration = calibrate(dev_scores, dev_labels)
    except UserError as error:
        raise UserError(f"--calibrate {args.calibrate}: {error}") from None
    llrs = calibration.llr(scores)
    write_llrs(args.scores, output, llrs)
    save_calibration(kept, calibration, dev_made_with, args.calibrate)
    print(
        f"{output}: {len(llrs)} log-likelihood ratios, {calibration.slope:.6g} x score {calibration.offset:+.6g}"
    )
    print(f"{kept}: the calibration, of {len(dev_labels)} trials in {args.calibrate}")
    if dev_made_with is None:
        print(
            "(it does not say of which checkpoint, since there is no eval.json of these scores beside them; "
            "inferSyncNet.py verify needs that)"
        )
    for doubt in calibration_doubts(dev_scores, dev_labels, dev_pairs):
        print(f"WARNING: {args.calibrate} has {doubt}: the calibration may be wrong for other speakers")
    if os.path.realpath(args.scores) == os.path.realpath(args.calibrate):
        print("(calibrated on the trials themselves: Cllr and the actual DCF are too good)")
    elif trials is not None and (shared := shared_speakers(trials, (dev_scores, dev_labels, dev_pairs))):
        people = counted(len(shared), "speaker")
        print(
            f"WARNING: {args.calibrate} and {args.scores} share {people} ({min(shared)} ...): Cllr and actual DCF "
            "are too good. Make trials without common speakers: tuneThreshold.py --split"
        )
    return output, None if trials is None else (llrs, *trials[1:])


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.plot is not None:
        check_output("--plot", args.plot)
    systems: dict[str, Scored] = {}
    if args.calibrate is None or has_labels(args.scores):
        systems[args.scores] = read_scored_trials(args.scores)
    elif args.compare or args.plot is not None or args.bootstrap:
        raise UserError(f"{args.scores}: has no labels, which --compare, --plot and --bootstrap need")
    given = list(dict.fromkeys([args.scores, *args.compare]))
    systems |= {path: read_scored_trials(path) for path in given[1:]}
    drawn = dict(systems)
    if args.calibrate is not None:
        output, calibrated = calibrate_file(args, systems.get(args.scores))
        if calibrated is None:
            return 0
        systems = {args.scores: systems.pop(args.scores), output: calibrated} | systems
    llr = args.llr or args.calibrate is not None
    columns = [
        describe(*trials, args.target_fa, args.bootstrap, args.seed, llr) for trials in systems.values()
    ]
    # The table first: it may have taken long, and the picture may find no place.
    table = [("", *systems)]
    table += [(rows[0][0], *(value for _, value in rows)) for rows in zip(*columns, strict=True)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *values in table:
        cells = [f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=True)]
        print("  ".join([f"{name:<{widths[0]}}", *cells]))
    if args.plot:
        short = [os.path.basename(path) for path in drawn]
        names = short if len(set(short)) == len(short) else drawn
        plot_det({name: system[:2] for name, system in zip(names, drawn.values(), strict=True)}, args.plot)
        print(f"DET plot: {args.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
