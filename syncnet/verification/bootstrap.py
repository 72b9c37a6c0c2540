"""Confidence intervals of EER and minDCF: a bootstrap over speakers, or over trials if the speakers are unknown."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from syncnet.support.errors import UserError
from syncnet.support.progress import progress_bar
from syncnet.verification.rates import P_TARGETS, check_trials, crossing, detection_cost
from syncnet.verification.speakers import Speakers

CONFIDENCE = 0.95
MIN_SPEAKERS = 5  # fewer say nothing about other speakers
TRIALS_PER_BLOCK = 500_000  # over all resamples that are computed together; about 4 MB per array


def bootstrap_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    p_targets: Sequence[float] = P_TARGETS,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
    speakers: Speakers | None = None,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of eer_interpolated (percent) and min_dcf (both costs 1).

    speakers: from speakers_of_trials, at least MIN_SPEAKERS. The speakers are drawn with replacement; a target trial
    is weighted by how often its speaker was drawn, a non-target trial by the product of these counts of its two
    speakers. This estimates the variation between groups of people. Draws without a target or without a non-target
    trial are repeated.
    None: target and non-target trials are drawn with replacement, as many of each kind as there are. This treats
    trials as independent; if many share a speaker or an utterance, the true interval is wider.
    Efron and Tibshirani 1993, section 13.3. The result depends on the seed, not on the order of the trials.
    Returns {"eer_interpolated": (low, high), "min_dcf_0.05": (low, high), ...}, one min_dcf for each of p_targets.
    Raises UserError for resamples below 1, too few speakers, and as tuneThresholdfromScore does.
    """
    scores, labels = check_trials(scores, labels)
    if speakers is None:  # sort, so that draws do not depend on the order of the trials
        order = np.argsort(-scores, kind="stable")
        scores, labels = scores[order], labels[order]
    curve = WeightedCurve(scores, labels)
    parts = [
        figures_of(*curve.rates(weights), p_targets)
        for weights in draws(labels, resamples, seed, speakers, progress)
    ]
    return dict(zip(figure_names(p_targets), intervals(np.concatenate(parts, 1)), strict=True))


def bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    p_targets: Sequence[float] = P_TARGETS,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
    speakers: Speakers | None = None,
) -> dict[str, tuple[float, float, float]]:
    """How much higher the figures of a second system are than those of a first, on the same trials.

    A paired bootstrap: each draw takes the same speakers, or trials, for both systems (see bootstrap_interval), and
    the interval is that of the difference. first, second: their (trials,) scores.
    Returns {"eer_interpolated": (difference, low, high), ...} with 95 % intervals; if an interval does not contain 0,
    other speakers would show a difference too. Raises UserError as bootstrap_interval does.
    """
    first, labels = check_trials(first, labels)
    second, _ = check_trials(second, labels)
    curves = [WeightedCurve(scores, labels) for scores in (first, second)]

    def difference(weights: np.ndarray) -> np.ndarray:
        before, after = (figures_of(*curve.rates(weights), p_targets) for curve in curves)
        return after - before

    measured = difference(np.ones((1, len(labels))))[:, 0]
    parts = [difference(weights) for weights in draws(labels, resamples, seed, speakers, progress)]
    edges = intervals(np.concatenate(parts, 1))
    return {
        name: (float(value), *interval)
        for name, value, interval in zip(figure_names(p_targets), measured, edges, strict=True)
    }


def draws(
    labels: np.ndarray, resamples: int, seed: int, speakers: Speakers | None, progress: bool
) -> Iterator[np.ndarray]:
    """Yield how often each trial counts in each resample, in blocks of shape (some resamples, trials)."""
    if resamples < 1:
        raise UserError(f"{resamples} resamples, expected at least 1")
    rng = np.random.default_rng(seed)
    drawn = trial_weights(labels, resamples, rng)
    if speakers is not None:
        drawn = speaker_weights(labels, speakers, resamples, rng)
    with progress_bar(total=resamples, desc="Bootstrap", unit="resample", disable=not progress) as bar:
        for weights in drawn:
            yield weights
            bar.update(len(weights))


def figure_names(p_targets: Sequence[float]) -> list[str]:
    return ["eer_interpolated", *(f"min_dcf_{p:g}" for p in p_targets)]


def figures_of(fpr: np.ndarray, fnr: np.ndarray, p_targets: Sequence[float]) -> np.ndarray:
    """The figures of figure_names, (figures, resamples), from rates of shape (resamples, thresholds)."""
    eer, _, _ = crossing(fpr, fnr)
    return np.stack([100 * eer, *(detection_cost(fpr, fnr, p, 1, 1).min(axis=1) for p in p_targets)])


def intervals(found: np.ndarray) -> list[tuple[float, float]]:
    """The percentile interval of each row."""
    edges = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1).T
    return [(float(low), float(high)) for low, high in edges]


class WeightedCurve:
    """The error rates of weighted trials at every threshold: inf and all distinct scores, descending."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of runs of equal scores
        self._kinds = []  # for each kind, its trials by score, and their number up to each end
        for label in (0, 1):
            of_kind = np.flatnonzero(labels[order] == label)
            self._kinds.append((order[of_kind], np.searchsorted(of_kind, ends, side="right")))

    def rates(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """FA and FR, (resamples, thresholds) each. weights: (resamples, trials)."""
        return self._accepted(weights, 0), 1 - self._accepted(weights, 1)

    def _accepted(self, weights: np.ndarray, label: int) -> np.ndarray:
        """Fraction of the weight of one kind at or above every threshold."""
        trials, reached = self._kinds[label]
        sums = np.zeros((len(weights), len(trials) + 1))
        np.cumsum(weights[:, trials], axis=1, out=sums[:, 1:])
        fractions = np.zeros((len(weights), len(reached) + 1))
        np.divide(sums[:, reached], sums[:, -1:], out=fractions[:, 1:])
        return fractions


def speaker_weights(
    labels: np.ndarray, speakers: Speakers, resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """draws() by speaker; see bootstrap_interval."""
    people, numbers = np.unique(np.concatenate(speakers), return_inverse=True)
    if len(people) < MIN_SPEAKERS:
        raise UserError(
            f"{len(people)} speakers are too few for a bootstrap, at least {MIN_SPEAKERS} are needed"
        )
    first, second = numbers.reshape(2, -1)
    # The pairs of speakers of each kind of trial.
    both = [np.unique(np.stack([first, second])[:, labels == label], axis=1) for label in (0, 1)]

    def draw() -> np.ndarray:
        """How often each speaker is drawn."""
        while True:
            counts = np.bincount(rng.integers(len(people), size=len(people)), minlength=len(people))
            if all((counts[a] * counts[b]).any() for a, b in both):
                return counts.astype(float)

    for rows in blocks(resamples, len(labels)):
        counts = np.stack([draw() for _ in range(rows)])
        yield counts[:, first] * np.where(labels == 1, 1, counts[:, second])


def trial_weights(labels: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """draws() by trial, as many of each kind as there are."""
    kinds = [np.flatnonzero(labels == label) for label in (0, 1)]
    for rows in blocks(resamples, len(labels)):
        weights = np.zeros((rows, len(labels)))
        for of_kind in kinds:
            drawn = of_kind[rng.integers(len(of_kind), size=(rows, len(of_kind)))]
            for row, trials in zip(weights, drawn, strict=True):
                row += np.bincount(trials, minlength=len(labels))
        yield weights


def blocks(resamples: int, trials: int) -> Iterator[int]:
    """Sizes of the blocks in which resamples are computed."""
    most = max(1, TRIALS_PER_BLOCK // trials)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
