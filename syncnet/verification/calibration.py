"""Calibration: convert scores to log-likelihood ratios, measure their quality, and store the calibration in a file.

A log-likelihood ratio (LLR) is the natural logarithm of p(score | same speaker) / p(score | different speakers).
Cllr, its minimum, and the decision threshold for LLRs are from Brümmer and du Preez, "Application-independent
evaluation of speaker detection", Computer Speech and Language 20(2-3), 2006. Affine calibration by prior-weighted
logistic regression is from Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU
submission for the NIST SRE 2006", IEEE TASLP 15(7), 2007.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from syncnet.networks.settings import Settings
from syncnet.support.errors import UserError
from syncnet.support.files import file_hash, replace_file
from syncnet.support.version import VERSION
from syncnet.verification.bootstrap import MIN_SPEAKERS
from syncnet.verification.provenance import SCORE_FILES, check_made_with, has_provenance
from syncnet.verification.rates import P_TARGETS, check_costs, check_trials, detection_cost
from syncnet.verification.speakers import speaker_names

CALIBRATION_PRIOR = P_TARGETS[0]
FEW_TRIALS = 30  # per kind; a calibration from fewer depends on the particular trials
FEW_SCORES = 10  # distinct values


@dataclass(frozen=True)
class Calibration:
    """An affine calibration: LLR = slope * score + offset. p_target: the prior that it was fitted for."""

    slope: float
    offset: float
    p_target: float = CALIBRATION_PRIOR

    def llr(self, scores: ArrayLike) -> np.ndarray:
        """The log-likelihood ratios of scores, float64 of the same shape."""
        return self.slope * np.asarray(scores, np.float64) + self.offset


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def posterior(llr: float, prior: float) -> float:
    """The probability of a target, by Bayes' rule. prior: the probability before the scores are seen, in (0, 1)."""
    return float(np.exp(-np.logaddexp(0, -(llr + logit(prior)))))


def calibrate(scores: ArrayLike, labels: ArrayLike, p_target: float = CALIBRATION_PRIOR) -> Calibration:
    """The affine calibration of labeled scores by logistic regression, weighted for a target prior P.

    Minimizes P mean_targets log(1 + exp(-LLR - logit P)) + (1 - P) mean_nontargets log(1 + exp(LLR + logit P)), as in
    Brümmer et al. 2007. Raises UserError as tuneThresholdfromScore does, and if all scores are equal, if there is a
    single trial of a kind, if a threshold separates both kinds without error (any steeper slope would fit better),
    or if targets do not score higher.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    scores, labels = check_trials(scores, labels)
    if not 0 < p_target < 1:
        raise UserError(f"p_target {p_target}, expected 0 < p_target < 1")
    targets, others = scores[labels == 1], scores[labels == 0]
    if np.ptp(scores) == 0:
        raise UserError(f"all {len(scores)} scores are equal ({scores[0]:g}): there is nothing to calibrate")
    for kind, found in (("target", targets), ("non-target", others)):
        if len(found) == 1 and len(scores) > 2:
            raise UserError(
                f"1 {kind} trial among {len(scores)} trials: too few to fit a calibration; use development trials "
                f"with some hundreds of both kinds, of at least {MIN_SPEAKERS} speakers"
            )
    if targets.min() >= others.max():
        raise UserError(
            f"all {len(scores)} trials are separated without error, so no calibration can be fitted; "
            "calibrate with more or harder trials"
        )
    # Standardized, so that both unknowns have a similar magnitude whatever the scale of the scores.
    center, spread = scores.mean(), scores.std()
    weights = np.where(labels == 1, p_target / len(targets), (1 - p_target) / len(others))
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    fit.fit(((scores - center) / spread)[:, None], labels, sample_weight=weights)
    slope = float(fit.coef_[0, 0] / spread)
    if slope <= 0:
        raise UserError(
            "targets (label 1) do not score higher than non-targets: there is nothing to calibrate; are the labels "
            "the right way round, 1 for the same speaker?"
        )
    return Calibration(slope, float(fit.intercept_[0] - slope * center) - logit(p_target), p_target)


def calibration_doubts(
    scores: np.ndarray, labels: np.ndarray, pairs: Sequence[tuple[str, str]] | None
) -> list[str]:
    """Reasons why a calibration fitted to these trials may be wrong for other speakers.

    scores, labels: (trials,). pairs: the two file names of each trial, if known.
    """
    doubts = []
    for kind, label in (("target", 1), ("non-target", 0)):
        if (count := int((labels == label).sum())) < FEW_TRIALS:
            doubts.append(f"only {count} {kind} trials, where some hundreds are usual")
    if (different := len(np.unique(scores))) < min(FEW_SCORES, len(scores)):
        doubts.append(f"only {different} distinct scores in {len(scores)} trials")
    speaker = speaker_names(pairs, labels) if pairs else None
    if speaker is not None and pairs is not None:
        known = {speaker[a] for (a, _), label in zip(pairs, labels, strict=True) if label}
        if len(known) < MIN_SPEAKERS:
            doubts.append(f"target trials of only {len(known)} speaker" + "s" * (len(known) != 1))
    return doubts


def cllr(llrs: ArrayLike, labels: ArrayLike) -> float:
    """Cllr in bits: (mean_targets log2(1 + exp(-LLR)) + mean_nontargets log2(1 + exp(LLR))) / 2.

    Brümmer and du Preez 2006: 0 is perfect, 1 is an LLR of 0 for every trial; bad calibration exceeds 1.
    Raises UserError as tuneThresholdfromScore does.
    """
    return _cllr(*check_trials(llrs, labels))


def min_cllr(scores: ArrayLike, labels: ArrayLike) -> float:
    """Cllr of the best LLRs that increase monotonically with the score: the cost of limited discrimination.

    Brümmer and du Preez 2006: isotonic regression (pool adjacent violators) of the labels gives the fraction of
    targets at each distinct score; its log odds minus those of all trials are the LLRs. Raises UserError as
    tuneThresholdfromScore does.
    """
    from sklearn.isotonic import isotonic_regression  # slow to import

    scores, labels = check_trials(scores, labels)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    fraction = isotonic_regression(np.bincount(place, labels) / counts, sample_weight=counts)[place]
    with np.errstate(divide="ignore"):  # a fraction of 0 or 1 is an infinite LLR, which costs nothing
        return _cllr(np.log(fraction) - np.log(1 - fraction) - logit(labels.mean()), labels)


def _cllr(llrs: np.ndarray, labels: np.ndarray) -> float:
    targets, others = llrs[labels == 1], llrs[labels == 0]
    cost = np.logaddexp(0, -targets).mean() + np.logaddexp(0, others).mean()
    return float(cost / 2 / math.log(2))


def actual_dcf(
    llrs: ArrayLike, labels: ArrayLike, p_target: float, c_miss: float = 1, c_fa: float = 1
) -> tuple[float, float]:
    """(DCF, threshold): the normalized detection cost (see min_dcf) of LLRs at the Bayes threshold.

    A trial is accepted if LLR >= log(c_fa (1 - P) / (c_miss P)), which is optimal for well-calibrated LLRs (Brümmer
    and du Preez 2006; NIST's evaluation plans call this the actual DCF). Raises UserError as min_dcf does.
    """
    check_costs(p_target, c_miss, c_fa)
    llrs, labels = check_trials(llrs, labels)
    threshold = math.log(c_fa / c_miss) - logit(p_target)
    accepted = llrs >= threshold
    alarms, misses = accepted[labels == 0].mean(), 1 - accepted[labels == 1].mean()
    return float(detection_cost(alarms, misses, p_target, c_miss, c_fa)), threshold


# ---------------------------------------------------------------- the file


def save_calibration(
    path: str, calibration: Calibration, made_with: dict[str, Any] | None, dev_scores: str
) -> None:
    """Write a calibration as JSON. made_with: see provenance.scores_made_with. Raises OSError."""
    record = {
        "calibration": asdict(calibration),
        "scores": made_with,
        "dev_scores": {"path": os.path.abspath(dev_scores), "sha256": file_hash(dev_scores)},
        "version": VERSION,
    }
    with replace_file(path) as file:
        json.dump(record, file, indent=2, allow_nan=False)


def read_calibration(
    path: str, checkpoint: str, settings: Settings, num_eval: int
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration in a file, for raw scores of this checkpoint and these settings, and its provenance record.

    Raises UserError for any other calibration, and OSError.
    """
    name = f"--calibration {path}"
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        calibration = Calibration(**{key: float(value) for key, value in record["calibration"].items()})
        made_with = record["scores"]
        if not calibration.slope > 0 or not all(map(math.isfinite, asdict(calibration).values())):
            raise TypeError
        if made_with is not None and not (made_with["kind"] in SCORE_FILES and has_provenance(made_with)):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{name}: not a calibration; create it with tuneThreshold.py --calibrate dev_scores.txt scores.txt"
        ) from None
    if made_with is None:
        raise UserError(
            f"{name}: does not say which checkpoint its scores are from; recreate it from an eval_scores.txt "
            "that lies beside its eval.json, as trainSyncNet.py --eval writes them"
        )
    if made_with["kind"] != "raw":
        raise UserError(
            f"{name}: fitted to {made_with['kind']} scores, but verify gives raw ones; calibrate with eval_scores.txt"
        )
    check_made_with(name, "calibration", made_with, checkpoint, settings, num_eval)
    return calibration, made_with
