"""Error rates of scored trials: FA and FR, EER, minDCF, thresholds.

A higher score means "same speaker"; a trial is accepted if its score >= threshold. Label 1 is a target trial (same
speaker), 0 a non-target trial. FA, the false acceptance rate, is the fraction of non-target trials that are accepted;
FR, the false rejection rate, is the fraction of target trials that are rejected.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from syncnet.support.errors import UserError

P_TARGETS = (0.05, 0.01)  # VoxSRC's prior, and NIST's stricter one
ABOUT_MIN_DCF = (
    "minDCF(P_target): C_miss = C_fa = 1; 1 = no better than a constant decision"  # printed with minDCF
)


def check_trials(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float64 and labels as int64, both (trials,). Raises UserError; see tuneThresholdfromScore."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise UserError(f"scores {scores.shape} and labels {labels.shape}: expected one of each per trial")
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
    """EER and thresholds as the 2020 baseline defines them; all rates in percent.

    The operating points are the corners of the ROC curve (scikit-learn drops points inside straight segments), from
    threshold inf, where every trial is rejected, downward.

    target_fa, target_fr: wanted FA and FR rates in percent.
    Returns (tuned, eer, fpr, fnr). tuned: [threshold, FA, FR] of the point nearest to each target_fr, then of the
    point nearest to each target_fa; the threshold may be inf. eer: max(FA, FR) at the point where |FR - FA| is
    smallest. fpr, fnr: (points,), FA and FR.
    Raises UserError for scores that are not finite, labels other than 0 or 1, or only one kind of trial.
    """
    from sklearn.metrics import roc_curve  # slow to import

    scores, labels = check_trials(scores, labels)
    fpr, tpr, thresholds = roc_curve(labels, scores, pos_label=1)
    # Percent first, then differences: rounding decides ties between neighbors.
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


def crossing(fpr: np.ndarray, fnr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the linearly interpolated FA and FR are equal, along the last axis.

    Returns the rate there, the index of the first point at or past it, and its position (0..1] between the previous
    point and that one.
    """
    gap = fnr - fpr
    after = np.argmax(gap <= 0, axis=-1)  # never 0: the first point is FA 0, FR 1

    def on_both_sides(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pair = np.take_along_axis(values, np.stack((after - 1, after), -1), -1)
        return pair[..., 0], pair[..., 1]

    before, behind = on_both_sides(gap)
    part = before / (before - behind)
    low, high = on_both_sides(fpr)
    return low + part * (high - low), after, part


def eer_interpolated(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """(EER in percent, threshold) where the linearly interpolated ROC curve has FA = FR (no convex hull).

    Unlike the baseline's EER, which is the worse rate at the nearest corner of the curve, this one does not depend on
    how coarse the curve is there; with many trials the two agree. The threshold is interpolated likewise; next to
    threshold inf it is the finite neighbor. Raises UserError as tuneThresholdfromScore does.
    """
    fpr, fnr, thresholds = error_rates(scores, labels)
    eer, after, part = crossing(fpr, fnr)
    low, high = thresholds[after], thresholds[after - 1]
    threshold = high + part * (low - high) if np.isfinite(high) else low
    return 100 * float(eer), float(threshold)


def check_costs(p_target: float, c_miss: float, c_fa: float) -> None:
    """Raise UserError for a prior or costs without meaning."""
    if not 0 < p_target < 1 or not (0 < c_miss < np.inf and 0 < c_fa < np.inf):
        raise UserError(f"p_target {p_target}, costs {c_miss}, {c_fa}: expected 0 < p_target < 1, costs > 0")


def detection_cost(
    fpr: np.ndarray, fnr: np.ndarray, p_target: float, c_miss: float, c_fa: float
) -> np.ndarray:
    """The normalized detection cost, in the shape of the rates; see min_dcf."""
    miss, alarm = c_miss * p_target, c_fa * (1 - p_target)
    return (miss * fnr + alarm * fpr) / min(miss, alarm)


def min_dcf(
    scores: ArrayLike, labels: ArrayLike, p_target: float, c_miss: float = 1, c_fa: float = 1
) -> tuple[float, float]:
    """(minDCF, threshold): the smallest normalized detection cost over all thresholds.

    DCF(t) = (c_miss P FR(t) + c_fa (1 - P) FA(t)) / min(c_miss P, c_fa (1 - P)), as in the NIST speaker
    recognition evaluation plans (2016, section 3) and VoxSRC: a system with 1 is no better than always making the
    cheaper of the two decisions. p_target: the prior P of a target trial, in (0, 1).
    The threshold is the highest that reaches the minimum; inf if rejecting everything is best.
    Raises UserError for a prior or costs out of range, and as tuneThresholdfromScore does.
    """
    check_costs(p_target, c_miss, c_fa)
    fpr, fnr, thresholds = error_rates(scores, labels)
    cost = detection_cost(fpr, fnr, p_target, c_miss, c_fa)
    best = np.argmax(cost <= cost.min() + 1e-12)  # equal costs differ by rounding
    return float(cost[best]), float(thresholds[best])
