"""Evaluate score files: EER, minDCF, thresholds, confidence intervals, DET curves, calibration.

    python tuneThreshold.py scores.txt                                   # one trial per line: score label ...
    python tuneThreshold.py one.txt two.txt --plot det.png               # two systems, and their difference
    python tuneThreshold.py scores.txt --bootstrap 1000                  # with 95 % intervals
    python tuneThreshold.py --split trials.txt                           # development and test, by speaker
    python tuneThreshold.py scores.txt --calibrate dev_scores.txt        # scores to log-likelihood ratios

The functions in __all__ can be imported from here.
"""

import syncnet  # noqa: F401  # isort: skip

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np

from syncnet.support.commands import Parser, at_least, command
from syncnet.support.errors import UserError
from syncnet.support.files import check_output
from syncnet.support.names import counted
from syncnet.verification.bootstrap import MIN_SPEAKERS, bootstrap_difference, bootstrap_interval
from syncnet.verification.calibration import (
    actual_dcf,
    calibrate,
    calibration_doubts,
    cllr,
    min_cllr,
    save_calibration,
)
from syncnet.verification.det import plot_det
from syncnet.verification.provenance import check_same_system, scores_made_with, warn_precision
from syncnet.verification.rates import (
    ABOUT_MIN_DCF,
    P_TARGETS,
    check_trials,
    eer_interpolated,
    error_rates,
    min_dcf,
    tuneThresholdfromScore,
)
from syncnet.verification.score_files import (
    has_labels,
    read_scored_trials,
    read_scores,
    read_unlabeled,
    write_llrs,
)
from syncnet.verification.speakers import Speakers, count_speakers, speaker_names, speakers_of_trials

Scored = tuple[np.ndarray, np.ndarray, list[tuple[str, str]] | None]  # see read_scored_trials

RESAMPLES = 1000  # for the differences of several systems

__all__ = [
    "P_TARGETS",
    "actual_dcf",
    "bootstrap_difference",
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


def drawn_speakers(pairs: list[tuple[str, str]] | None, labels: np.ndarray) -> tuple[Speakers | None, str]:
    """The speakers for a bootstrap (None if they are unknown or too few), and a description of what is drawn."""
    speakers = speakers_of_trials(pairs, labels) if pairs else None
    drawn = "trials" if speakers is None else f"{count_speakers(speakers)} speakers"
    if speakers is not None and count_speakers(speakers) < MIN_SPEAKERS:
        speakers, drawn = None, f"trials ({drawn} are too few)"
    return speakers, drawn


def resample(
    scores: np.ndarray, labels: np.ndarray, pairs: list[tuple[str, str]] | None, resamples: int, seed: int
) -> tuple[dict[str, tuple[float, float]], str]:
    """The intervals of bootstrap_interval, and a description of what was drawn."""
    speakers, drawn = drawn_speakers(pairs, labels)
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
    """The table rows of one system, (name, value).

    resamples: number of draws for intervals; 0: no intervals. llr: treat the scores as log-likelihood ratios, which
    adds Cllr and the actual DCF.
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
        usage="%(prog)s scores.txt [scores.txt ...] [options]",
        description="EER, minDCF and thresholds of one score file, or of several side by side.",
        epilog="Exit status: 0; 1 if a file cannot be read or written; 2 for wrong flags.",
        example=[
            "python tuneThreshold.py data/exp01/result/eval_scores.txt --bootstrap 1000 --plot det.png",
            "python tuneThreshold.py one/eval_scores.txt two/eval_scores.txt --plot det.png",
            "python tuneThreshold.py --split voxceleb/veri_test.txt",
            "python tuneThreshold.py data/exp01/result/eval_scores.txt --calibrate data/dev/result/eval_scores.txt",
        ],
    )
    add = parser.add_argument
    add(
        "scores",
        nargs="+",
        help="one trial per line: 'score label' or 'score label fileA fileB'. Several files of the same trials are "
        "compared: one column each, and intervals of their differences from the first",
    )
    add(
        "--compare",
        nargs="+",
        default=[],
        metavar="FILE",
        help="more score files to compare",
    )
    add("--plot", metavar="PNG", help="write a DET plot of all systems to this file")
    intervals = (
        "add 95 %% intervals from N bootstrap resamples (1000 is enough) of the speakers, or of the trials if the "
        f"file names do not show the speakers; by default only for differences, with {RESAMPLES} resamples. 0: none"
    )
    add("--bootstrap", type=at_least(int, 0), metavar="N", help=intervals)
    add("--seed", type=at_least(int, 0), default=0, help="random seed of --bootstrap and --split")
    wanted = "print the thresholds nearest to these false acceptance rates"
    add("--target_fa", type=float, nargs="+", default=[1, 0.1], metavar="PERCENT", help=wanted)
    split = parser.add_argument_group(
        "split", "divide trials into two lists without common speakers"
    ).add_argument
    split(
        "--split",
        action="store_true",
        help="write the trials of a trial list (or score file) to <name>_dev and <name>_test beside it: each speaker "
        "is in one of them, and trials of two speakers on different sides are dropped",
    )
    split(
        "--dev_fraction",
        type=at_least(float, 0),
        default=0.5,
        help="fraction of the speakers used for development",
    )
    calibration = parser.add_argument_group("calibration").add_argument
    calibration(
        "--calibrate",
        metavar="DEV_SCORES",
        help="convert the scores to log-likelihood ratios, calibrated on these labeled scores of the same network "
        "and other speakers; the scores themselves need no labels",
    )
    calibration(
        "--llr_output",
        metavar="FILE",
        help="where --calibrate writes the ratios; by default <name of the scores>_llr beside them",
    )
    calibration(
        "--calibration",
        metavar="JSON",
        help="where --calibrate writes the calibration, for inferSyncNet.py verify; by default cal.json beside "
        "DEV_SCORES, or cal_asnorm.json for normalized scores",
    )
    calibration(
        "--llr",
        action="store_true",
        help="the scores are log-likelihood ratios: also print Cllr, its minimum and the actual DCF",
    )
    args = parser.parse_args(argv)
    args.scores, *further = args.scores
    args.compare = [*further, *args.compare]
    if args.split and (args.compare or args.calibrate is not None or args.plot is not None or args.bootstrap):
        parser.error("--split takes one file, and no flags except --seed and --dev_fraction")
    if not 0 < args.dev_fraction < 1:
        parser.error(
            f"--dev_fraction {args.dev_fraction:g}: expected a fraction between 0 and 1, such as 0.5"
        )
    for flag in ("llr_output", "calibration"):
        if args.calibrate is None and getattr(args, flag) is not None:
            parser.error(f"--{flag} needs --calibrate DEV_SCORES")
    if not all(0 <= rate <= 100 for rate in args.target_fa):
        parser.error("--target_fa is in percent, 0 to 100")
    return args


def shared_speakers(trials: Scored, others: Scored) -> set[str]:
    """The speakers in both, as far as the file names show them."""
    speakers = []
    for _, labels, pairs in (trials, others):
        found = speaker_names(pairs, labels) if pairs else None
        speakers.append(set(found.values()) if found else set())
    return speakers[0] & speakers[1]


def calibrate_file(args: argparse.Namespace, trials: Scored | None) -> tuple[str, Scored | None]:
    """Write the ratios and the calibration of --calibrate; return the file of the ratios and its content.

    trials: content of args.scores; None for scores without labels. Raises UserError, OSError.
    """
    stem, extension = os.path.splitext(args.scores)
    output = f"{stem}_llr{extension}" if args.llr_output is None else args.llr_output
    check_output("--llr_output", output)
    dev_scores, dev_labels, dev_pairs = read_scored_trials(args.calibrate)
    dev_made_with = scores_made_with(args.calibrate, dev_scores, dev_labels)
    kind = dev_made_with["kind"] if dev_made_with else "raw"
    name = "cal.json" if kind == "raw" else f"cal_{kind}.json"
    beside = os.path.join(os.path.dirname(args.calibrate), name)
    calibration_file = beside if args.calibration is None else args.calibration
    check_output("--calibration", calibration_file)
    read = {os.path.realpath(path) for path in (args.scores, args.calibrate, *args.compare)}
    for flag, path in (("--llr_output", output), ("--calibration", calibration_file)):
        if os.path.realpath(path) in read:
            raise UserError(f"{flag} {path}: is an input, and would be overwritten; write to another file")
    scores = read_unlabeled(args.scores) if trials is None else trials[0]
    made_with = scores_made_with(args.scores, scores, None if trials is None else trials[1])
    check_same_system(args.scores, made_with, args.calibrate, dev_made_with)
    if made_with and dev_made_with:
        warn_precision(args.scores, made_with, args.calibrate, dev_made_with)
    try:
        calibration = calibrate(dev_scores, dev_labels)
    except UserError as error:
        raise UserError(f"--calibrate {args.calibrate}: {error}") from None
    llrs = calibration.llr(scores)
    write_llrs(args.scores, output, llrs)
    save_calibration(calibration_file, calibration, dev_made_with, args.calibrate)
    print(
        f"{output}: {len(llrs)} log-likelihood ratios, {calibration.slope:.6g} x score {calibration.offset:+.6g}"
    )
    print(f"{calibration_file}: the calibration, fitted to {len(dev_labels)} trials in {args.calibrate}")
    if dev_made_with is None:
        print(
            "(it does not name a checkpoint, because there is no eval.json for these scores beside them; "
            "inferSyncNet.py verify needs one)"
        )
    for doubt in calibration_doubts(dev_scores, dev_labels, dev_pairs):
        print(f"WARNING: {args.calibrate} has {doubt}: the calibration may be wrong for other speakers")
    if os.path.realpath(args.scores) == os.path.realpath(args.calibrate):
        print("(calibrated on the same trials: Cllr and the actual DCF are too optimistic)")
    elif trials is not None and (shared := shared_speakers(trials, (dev_scores, dev_labels, dev_pairs))):
        people = counted(len(shared), "speaker")
        print(
            f"WARNING: {args.calibrate} and {args.scores} share {people} ({min(shared)} ...): Cllr and actual DCF "
            "are too optimistic. Make trials without common speakers with tuneThreshold.py --split"
        )
    return output, None if trials is None else (llrs, *trials[1:])


def in_order_of(pairs: list[tuple[str, str]], other: list[tuple[str, str]]) -> list[int] | None:
    """The index of each of `pairs` in `other`; None if they are not the same trials.

    A trial is two files in either order; repeated trials are matched in order.
    """
    places: dict[tuple[str, ...], list[int]] = {}
    for number, pair in enumerate(other):
        places.setdefault(tuple(sorted(pair)), []).append(number)
    if len(pairs) != len(other):
        return None
    try:
        return [places[tuple(sorted(pair))].pop(0) for pair in pairs]
    except (KeyError, IndexError):
        return None


def print_differences(systems: dict[str, Scored], resamples: int, seed: int) -> None:
    """Print how much each system differs from the first, with intervals of a paired bootstrap.

    If that is impossible, the reason goes to stderr.
    """
    (name, (scores, labels, pairs)), *others = systems.items()
    speakers, drawn = drawn_speakers(pairs, labels)
    for other, (other_scores, other_labels, other_pairs) in others:
        reason, order = "", None
        if pairs is None or other_pairs is None:
            reason = f"{name if pairs is None else other} does not name the files of its trials"
        elif (order := in_order_of(pairs, other_pairs)) is None:
            common = len(set(map(frozenset, pairs)) & set(map(frozenset, other_pairs)))
            reason = f"they have different trials ({len(pairs)} and {len(other_pairs)}, {common} in common)"
        elif not np.array_equal(labels, other_labels[order]):
            reason = f"they have different labels in {(labels != other_labels[order]).sum()} trials"
        if reason:
            print(f"No interval for the difference of {name} and {other}: {reason}", file=sys.stderr)
            continue
        found = bootstrap_difference(
            scores, other_scores[order], labels, resamples=resamples, seed=seed, speakers=speakers
        )
        print(f"\n{other} minus {name}, 95 % intervals of {resamples} paired draws of {drawn}:")
        for key, (value, low, high) in found.items():
            title = "EER interpolated (%)" if key == "eer_interpolated" else f"minDCF({key.split('_')[-1]})"
            clear = "" if low <= 0 <= high else "  differ"
            print(f"  {title:22}{value:+9.4f}   {low:+.4f} to {high:+.4f}{clear}")


def split_file(args: argparse.Namespace) -> None:
    """Write the two lists of --split. Raises UserError, OSError."""
    stem, extension = os.path.splitext(args.scores)
    paths = [f"{stem}_{name}{extension}" for name in ("dev", "test")]
    for path in paths:
        check_output("--split", path)
    from syncnet.verification.split import split_trials, write_part  # reading trial lists imports PyTorch

    dev, test, dropped = split_trials(args.scores, args.dev_fraction, args.seed)
    for path, part in zip(paths, (dev, test), strict=True):
        write_part(path, part)
        print(f"{path}: {part}")
    print(f"dropped: {counted(dropped, 'trial')}, of two speakers on different sides (--seed {args.seed})")


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.split:
        split_file(args)
        return 0
    if args.plot is not None:
        check_output("--plot", args.plot)
    systems: dict[str, Scored] = {}
    if args.calibrate is None or has_labels(args.scores):
        systems[args.scores] = read_scored_trials(args.scores)
    elif args.compare or args.plot is not None or args.bootstrap:
        raise UserError(f"{args.scores}: has no labels; --compare, --plot and --bootstrap need them")
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
        describe(*trials, args.target_fa, args.bootstrap or 0, args.seed, llr) for trials in systems.values()
    ]
    # Print the table before the plot: it may have taken long, and writing the plot may fail.
    table = [("", *systems)]
    table += [(rows[0][0], *(value for _, value in rows)) for rows in zip(*columns, strict=True)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *values in table:
        cells = [f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=True)]
        print("  ".join([f"{name:<{widths[0]}}", *cells]))
    if len(drawn) > 1 and args.bootstrap != 0:
        print_differences(drawn, args.bootstrap or RESAMPLES, args.seed)
    if args.plot:
        short = [os.path.basename(path) for path in drawn]
        names = short if len(set(short)) == len(short) else drawn
        plot_det({name: system[:2] for name, system in zip(names, drawn.values(), strict=True)}, args.plot)
        print(f"DET plot: {args.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
