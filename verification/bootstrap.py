"""Confidence intervals of EER and minDCF: a bootstrap over speakers, or over trials where names tell no speakers."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from support.errors import UserError
from support.progress import progress_bar
from verification.rates import P_TARGETS, check_trials, crossing, detection_cost
from verification.speakers import Speakers, count_speakers, speakers_of_trials

__all__ = ["bootstrap_interval", "count_speakers", "speakers_of_trials"]

CONFIDENCE = 0.95
MIN_SPEAKERS = 5  # fewer say nothing about other speakers
TRIALS_AT_ONCE = 500_000  # of all resamples that are computed together; about 4 MB an array


def bootstrap_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    p_targets: Sequence[float] = P_TARGETS,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
    speakers: Speakers | None = None,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of eer_interpolated (percent) and min_dcf (costs 1 and 1).

    speakers: from speakers_of_trials; the speakers are drawn with replacement, and a trial counts as often as its
    speaker, or its two speakers, were drawn (the product of both counts): other people might have been
    recorded. Draws without a target or without a non-target trial are repeated. At least MIN_SPEAKERS.
    None: target and non-target trials are drawn with replacement, each kind as often as the list has it. Trials
    then count as independent; where many share a speaker or an utterance, the true interval is wider.
    Efron and Tibshirani 1993, section 13.3. The result depends on the seed, not on the order of the trials.
    Returns {"eer_interpolated": (low, high), "min_dcf_0.05": (low, high), ...}, a min_dcf for each p_targets.
    Raises UserError for resamples below 1, too few speakers, and as tuneThresholdfromScore does.
    """
    if resamples < 1:
        raise UserError(f"{resamples} resamples, expected at least 1")
    scores, labels = check_trials(scores, labels)
    names = ["eer_interpolated", *(f"min_dcf_{p:g}" for p in p_targets)]
    found = np.empty((len(names), resamples))
    rng = np.random.default_rng(seed)
    if speakers is None:
        curves = over_trials(scores, labels, resamples, rng)
    else:
        curves = over_speakers(scores, labels, speakers, resamples, rng)
    done = 0
    with progress_bar(total=resamples, desc="Bootstrap", unit="resample", disable=not progress) as bar:
        for fpr, fnr in curves:
            after, part = crossing(fpr, fnr)
            each = np.arange(len(fpr))
            low, high = fpr[each, after - 1], fpr[each, after]
            here = slice(done, done + len(fpr))
            found[0, here] = 100 * (low + part * (high - low))
            for values, p in zip(found[1:], p_targets, strict=True):
                values[here] = detection_cost(fpr, fnr, p, 1, 1).min(axis=1)
            done += len(fpr)
            bar.update(len(fpr))
    edges = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1).T
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, edges, strict=True)}


Curves = Iterator[tuple[np.ndarray, np.ndarray]]  # FA and FR of some resamples, (resamples, thresholds) each


def over_trials(scores: np.ndarray, labels: np.ndarray, resamples: int, rng: np.random.Generator) -> Curves:
    """Rates of redrawn trials at every threshold: inf and all distinct scores, descending."""
    # A trial is reduced to its rank among the distinct scores, 0 the highest.
    distinct, rank = np.unique(-scores, return_inverse=True)
    kinds = [np.sort(rank[labels == 0]), np.sort(rank[labels == 1])]

    def accepted(ranks: np.ndarray, rows: int) -> np.ndarray:
        """Share of one kind's redrawn trials at or above every threshold, (rows, 1 + distinct scores)."""
        drawn = ranks[rng.integers(len(ranks), size=(rows, len(ranks)))]
        drawn += np.arange(rows)[:, None] * len(distinct)
        counts = np.bincount(drawn.ravel(), minlength=rows * len(distinct)).reshape(rows, -1)
        shares = np.zeros((rows, len(distinct) + 1))
        np.cumsum(counts, axis=1, out=shares[:, 1:])
        shares /= len(ranks)
        return shares

    for rows in blocks(resamples, len(scores)):
        fpr, fnr = (accepted(ranks, rows) for ranks in kinds)
        np.subtract(1, fnr, out=fnr)
        yield fpr, fnr


def over_speakers(
    scores: np.ndarray, labels: np.ndarray, speakers: Speakers, resamples: int, rng: np.random.Generator
) -> Curves:
    """Rates of the trials of redrawn speakers at the same thresholds; see bootstrap_interval."""
    people, numbers = np.unique(np.concatenate(speakers), return_inverse=True)
    if len(people) < MIN_SPEAKERS:
        raise UserError(
            f"{len(people)} speakers are too few to draw from, at least {MIN_SPEAKERS} are needed"
        )
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of runs of equal scores
    kinds = []
    for label in (0, 1):
        of_kind = np.flatnonzero(labels[order] == label)
        a, b = (numbers.reshape(2, -1)[side][order][of_kind] for side in (0, 1))
        kinds.append((a, b, np.searchsorted(of_kind, ends, side="right")))

    both = [np.unique(np.stack([a, b]), axis=1) for a, b, _ in kinds]  # the speakers of a trial of each kind

    def draw() -> np.ndarray:
        """How often each speaker is drawn."""
        while True:
            counts = np.bincount(rng.integers(len(people), size=len(people)), minlength=len(people))
            if all((counts[a] * counts[b]).any() for a, b in both):
                return counts.astype(float)

    def accepted(counts: np.ndarray, label: int) -> np.ndarray:
        """Share of one kind's weight at or above every threshold, (resamples, 1 + distinct scores)."""
        a, b, reached = kinds[label]
        sums = np.zeros((len(counts), len(a) + 1))
        np.cumsum(counts[:, a] if label else counts[:, a] * counts[:, b], axis=1, out=sums[:, 1:])
        shares = np.zeros((len(counts), len(ends) + 1))
        np.divide(sums[:, reached], sums[:, -1:], out=shares[:, 1:])
        return shares

    for rows in blocks(resamples, len(scores)):
        counts = np.stack([draw() for _ in range(rows)])
        yield accepted(counts, 0), 1 - accepted(counts, 1)


def blocks(resamples: int, trials: int) -> Iterator[int]:
    """How many resamples to compute at once, until there are all."""
    most = max(1, TRIALS_AT_ONCE // trials)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
