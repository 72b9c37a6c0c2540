"""From scores to numbers: EER, minDCF, thresholds, confidence intervals, DET curves.

    python tuneThreshold.py scores.txt                                   # one line a trial: score label ...
    python tuneThreshold.py scores.txt --plot det.png --compare other.txt
    python tuneThreshold.py scores.txt --bootstrap 1000                  # with 95 % intervals

A higher score means "same speaker"; a trial is accepted when its score >= threshold. Label 1 is a target
trial (same speaker), 0 a non-target trial. FA, the false acceptance rate, is the share of non-target
trials that are accepted; FR, the false rejection rate, the share of target trials that are not.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

import rooms  # noqa: F401
from support.commands import Parser, at_least, command
from support.errors import UserError
from support.files import replace_file
from support.progress import progress_bar

P_TARGETS = (0.05, 0.01)  # VoxSRC's prior, and NIST's stricter one
CONFIDENCE = 0.95
DET_TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 98, 99, 99.9)  # percent


def check_trials(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float64 (trials,) and labels as int64 (trials,), or UserError saying what is wrong."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise UserError(f"scores {scores.shape} and labels {labels.shape}: expected one of each a trial")
    if not len(scores):
        raise UserError("no trials")
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise UserError(f"{len(bad)} of {len(scores)} scores are not finite, the first at index {bad[0]}")
    bad = np.flatnonzero(~np.isin(labels, (0, 1)))
    if len(bad):
        raise UserError(f"label {labels[bad[0]]!r} at index {bad[0]}, expected 0 or 1 (1 = same speaker)")
    labels = labels.astype(np.int64)
    if labels.min() == labels.max():
        kind = "target trials (label 1)" if labels[0] else "non-target trials (label 0)"
        raise UserError(f"all {len(labels)} trials are {kind}; error rates need both kinds")
    return scores, labels


def tuneThresholdfromScore(
    scores: ArrayLike,
    labels: ArrayLike,
    target_fa: Sequence[float],
    target_fr: Sequence[float] | None = None,
) -> tuple[list[list[float]], float, np.ndarray, np.ndarray]:
    """EER and thresholds as the 2020 baseline defines them; every rate in percent.

    The operating points are the corners of the ROC curve (scikit-learn leaves out those in the middle of
    a straight stretch), from threshold inf, where every trial is rejected, downwards.

    target_fa, target_fr: wanted FA and FR rates in percent.
    Returns (tuned, eer, fpr, fnr). tuned: [threshold, FA, FR] of the point nearest to each target_fr, then
    of the point nearest to each target_fa; the threshold may be inf. eer: max(FA, FR) at the point where
    |FR - FA| is smallest. fpr, fnr: (points,), FA and FR.
    Raises UserError for scores that are not finite, labels other than 0 / 1, or one kind of trial only.
    """
    from sklearn.metrics import roc_curve  # slow to import

    scores, labels = check_trials(scores, labels)
    fpr, tpr, thresholds = roc_curve(labels, scores, pos_label=1)
    # Percent first, then differences: ties between neighbours are decided by the last bit.
    fpr, fnr = fpr * 100, (1 - tpr) * 100
    nearest = [np.argmin(np.abs(fnr - wanted)) for wanted in target_fr or ()]
    nearest += [np.argmin(np.abs(fpr - wanted)) for wanted in target_fa]
    tuned = [[float(thresholds[i]), float(fpr[i]), float(fnr[i])] for i in nearest]
    equal = np.argmin(np.abs(fnr - fpr))
    return tuned, float(max(fpr[equal], fnr[equal])), fpr, fnr


def error_rates(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fpr, fnr, thresholds), each (points,): FA and FR as fractions at every distinct score, descending.

    The first point is threshold inf (all rejected), the last the lowest score (all accepted).
    Raises UserError as tuneThresholdfromScore does.
    """
    from sklearn.metrics import roc_curve  # slow to import

    scores, labels = check_trials(scores, labels)
    fpr, tpr, thresholds = roc_curve(labels, scores, pos_label=1, drop_intermediate=False)
    return fpr, 1 - tpr, thresholds


def _crossing(fpr: np.ndarray, fnr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where FR - FA changes sign along the last axis: index of the first point at or past the crossing,
    and how far (0..1] it lies on the way there from the point before."""
    gap = fnr - fpr
    after = np.argmax(gap <= 0, axis=-1)  # never 0: the first point is FA 0, FR 1
    before = np.take_along_axis(gap, after[..., None] - 1, -1)[..., 0]
    behind = np.take_along_axis(gap, after[..., None], -1)[..., 0]
    return after, before / (before - behind)


def eer_interpolated(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """(EER in percent, threshold): where the line through neighbouring operating points has FA = FR.

    Neighbours of the ROC curve are joined by straight lines (plain linear interpolation, no convex hull).
    Unlike the baseline's EER, which is the worse rate at the nearest corner of the curve, this one does not
    depend on how coarse the curve is there; with many trials the two agree. The threshold is
    interpolated likewise; next to threshold inf it is the finite neighbour.
    Raises UserError as tuneThresholdfromScore does.
    """
    fpr, fnr, thresholds = error_rates(scores, labels)
    after, part = _crossing(fpr, fnr)
    eer = fpr[after - 1] + part * (fpr[after] - fpr[after - 1])
    low, high = thresholds[after], thresholds[after - 1]
    threshold = high + part * (low - high) if np.isfinite(high) else low
    return 100 * float(eer), float(threshold)


def _dcf(fpr: np.ndarray, fnr: np.ndarray, p_target: float, c_miss: float, c_fa: float) -> np.ndarray:
    miss, alarm = c_miss * p_target, c_fa * (1 - p_target)
    return (miss * fnr + alarm * fpr) / min(miss, alarm)


def min_dcf(
    scores: ArrayLike, labels: ArrayLike, p_target: float, c_miss: float = 1, c_fa: float = 1
) -> tuple[float, float]:
    """(minDCF, threshold): the smallest normalised detection cost over all thresholds.

    DCF(t) = (c_miss P FR(t) + c_fa (1 - P) FA(t)) / min(c_miss P, c_fa (1 - P)), as in the NIST speaker
    recognition evaluation plans (2016, section 3) and VoxSRC: 1 is a system no better than always taking
    the cheaper of the two decisions. p_target: the prior P of a target trial, in (0, 1).
    The threshold is the highest that reaches the minimum; inf where rejecting everything is best.
    Raises UserError for a prior or costs out of range, and as tuneThresholdfromScore does.
    """
    if not 0 < p_target < 1 or not (0 < c_miss < np.inf and 0 < c_fa < np.inf):
        raise UserError(f"p_target {p_target}, costs {c_miss}, {c_fa}: expected 0 < p_target < 1, costs > 0")
    fpr, fnr, thresholds = error_rates(scores, labels)
    cost = _dcf(fpr, fnr, p_target, c_miss, c_fa)
    best = np.argmax(cost <= cost.min() + 1e-12)  # equal costs differ by rounding
    return float(cost[best]), float(thresholds[best])


def bootstrap_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    p_targets: Sequence[float] = P_TARGETS,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals over trials of eer_interpolated (percent) and min_dcf (costs 1 and 1).

    Target and non-target trials are drawn with replacement, each kind as often as the list has it (Efron
    and Tibshirani 1993, section 13.3). Trials count as independent: where many share a speaker or an
    utterance, the true interval is wider.
    The result depends on the seed, not on the order of the trials.
    Returns {"eer_interpolated": (low, high), "min_dcf_0.05": (low, high), ...}, a min_dcf for each p_targets.
    Raises UserError for resamples below 1 and as tuneThresholdfromScore does.
    """
    if resamples < 1:
        raise UserError(f"{resamples} resamples, expected at least 1")
    scores, labels = check_trials(scores, labels)
    # A trial is reduced to its rank among the distinct scores, 0 the highest.
    distinct, rank = np.unique(-scores, return_inverse=True)
    kinds = [np.sort(rank[labels == 0]), np.sort(rank[labels == 1])]
    names = ["eer_interpolated", *(f"min_dcf_{p:g}" for p in p_targets)]
    found = np.empty((len(names), resamples))
    rng = np.random.default_rng(seed)
    block = max(1, 500_000 // len(scores))  # resamples at a time: about 4 MB an array

    def accepted(ranks: np.ndarray, rows: int) -> np.ndarray:
        """Share of one kind's redrawn trials at or above every threshold, (rows, 1 + distinct scores)."""
        drawn = ranks[rng.integers(len(ranks), size=(rows, len(ranks)))]
        drawn += np.arange(rows)[:, None] * len(distinct)
        counts = np.bincount(drawn.ravel(), minlength=rows * len(distinct)).reshape(rows, -1)
        shares = np.zeros((rows, len(distinct) + 1))
        np.cumsum(counts, axis=1, out=shares[:, 1:])
        shares /= len(ranks)
        return shares

    with progress_bar(total=resamples, desc="Bootstrap", unit="resample", disable=not progress) as bar:
        for start in range(0, resamples, block):
            rows = min(block, resamples - start)
            fpr, fnr = (accepted(ranks, rows) for ranks in kinds)
            np.subtract(1, fnr, out=fnr)
            after, part = _crossing(fpr, fnr)
            each = np.arange(rows)
            low, high = fpr[each, after - 1], fpr[each, after]
            here = slice(start, start + rows)
            found[0, here] = 100 * (low + part * (high - low))
            for values, p in zip(found[1:], p_targets, strict=True):
                values[here] = _dcf(fpr, fnr, p, 1, 1).min(axis=1)
            bar.update(rows)
    edges = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1).T
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, edges, strict=True)}


def plot_det(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], path: str) -> None:
    """Write a DET plot (Martin et al. 1997: FR against FA on normal-deviate axes) as a PNG.

    curves: (scores, labels) of each system by name. The EER (interpolated) and the minDCF points are
    marked. A rate of 0 or 1, infinitely far on these axes, is drawn half a trial inside.
    Raises UserError as tuneThresholdfromScore does, with the system's name, and OSError.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here
    from matplotlib.lines import Line2D
    from scipy.special import ndtri

    if not curves:
        raise UserError("no systems to plot")
    systems = []
    for name, (scores, labels) in curves.items():
        try:
            scores, labels = check_trials(scores, labels)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        fpr, fnr, thresholds = error_rates(scores, labels)
        eer = eer_interpolated(scores, labels)[0]
        label, marks = f"{name}: EER {eer:.2f} %", [(eer / 100, eer / 100)]
        for p in P_TARGETS:
            cost, threshold = min_dcf(scores, labels, p)
            point = np.flatnonzero(thresholds == threshold)[0]
            label += f", minDCF({p:g}) {cost:.3f}"
            marks.append((fpr[point], fnr[point]))
        half = 0.5 / np.bincount(labels)  # of a trial, non-target and target
        curve = np.clip(np.stack([fpr, fnr], axis=1), half, 1 - half)
        systems.append((label, ndtri(curve), ndtri(np.clip(marks, half, 1 - half))))

    # Every mark in the picture, and at least 1 % to 50 % on both axes.
    marks = np.concatenate([marks for _, _, marks in systems])
    low = np.minimum(ndtri(0.01), marks.min(axis=0)) - 0.25
    high = np.maximum(ndtri(0.5), marks.max(axis=0)) + 0.25
    figure = Figure(figsize=(7, 7), dpi=130)
    axes = figure.add_subplot()
    axes.plot([-9, 9], [-9, 9], color="0.6", linewidth=0.8, linestyle=":")
    handles = []
    for index, (label, curve, points) in enumerate(systems):
        style = {"color": f"C{index % 10}", "linestyle": ("-", "--", "-.", ":")[index // 10 % 4]}
        handles += axes.plot(*curve.T, label=label, linewidth=1.6, **style)
        for point, marker in zip(points, "osD", strict=True):
            axes.plot(*point, marker, color=style["color"], markeredgecolor="black", zorder=3)
    kinds = ["EER", *(f"minDCF({p:g})" for p in P_TARGETS)]
    for kind, marker in zip(kinds, "osD", strict=True):
        handles.append(Line2D([], [], marker=marker, color="0.8", markeredgecolor="black", ls="", label=kind))
    ticks = ndtri(np.array(DET_TICKS) / 100)
    names = [f"{tick:f}".rstrip("0").rstrip(".") for tick in DET_TICKS]
    axes.set_xticks(ticks, names, rotation=45)
    axes.set_yticks(ticks, names)
    axes.set(
        xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", title="Detection error trade-off"
    )
    axes.set(xlabel="False acceptance rate (%)", ylabel="False rejection rate (%)")
    axes.grid(color="0.9")
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.05, -0.13), frameon=False, fontsize=9)
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", bbox_inches="tight")


def read_scores(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of a file of `score label` or `score label fileA fileB` lines, split at white space.

    Returns (scores float64, labels int64), both (trials,). Empty lines are skipped.
    Raises UserError naming the file and the line, and OSError.
    """
    scores, labels = [], []
    # Only the file names of a line may be other than ASCII, and they are not used here.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            fields = line.split("\t") if line.count("\t") == 3 else line.split()
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
    try:
        return check_trials(scores, labels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def describe(
    scores: np.ndarray, labels: np.ndarray, target_fa: Sequence[float], resamples: int = 0, seed: int = 0
) -> list[tuple[str, str]]:
    """The lines of the table for one system, (name, value); resamples > 0 adds the intervals."""
    tuned, eer, _, _ = tuneThresholdfromScore(scores, labels, target_fa)
    intervals = bootstrap_interval(scores, labels, resamples=resamples, seed=seed) if resamples else {}
    counts = [("trials", len(labels)), ("targets", labels.sum()), ("non-targets", (labels == 0).sum())]
    lines = [(name, str(count)) for name, count in counts] + [("EER (%)", f"{eer:2.4f}")]
    measured = [("EER interpolated (%)", "eer_interpolated", eer_interpolated(scores, labels))]
    measured += [(f"minDCF({p:g})", f"min_dcf_{p:g}", min_dcf(scores, labels, p)) for p in P_TARGETS]
    for title, key, (value, threshold) in measured:
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
    intervals = "add 95 %% intervals from N resamples of the trials (1000 is enough)"
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
    systems = {path: read_scores(path) for path in dict.fromkeys([args.scores, *args.compare])}
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
        plot_det(dict(zip(names, systems.values(), strict=True)), args.plot)
        print(f"DET plot: {args.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
