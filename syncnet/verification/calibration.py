"""Calibration: scores as log-likelihood ratios, how good they are as such, and the file that keeps a calibration.

A log-likelihood ratio (LLR) is the natural logarithm of p(score | same speaker) / p(score | different speakers).
Brümmer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech and Language
20(2-3), 2006: Cllr, its minimum, and the decision threshold that an LLR has. The affine calibration by logistic
regression with a prior is that of Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU
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
from syncnet.verification.rates import P_TARGETS, check_trials, detection_cost
from syncnet.verification.speakers import speaker_names

CALIBRATION_PRIOR = P_TARGETS[0]
FEW_TRIALS = 30  # of a kind; a calibration of fewer depends on which ones they are
FEW_SCORES = 10  # different ones
MOST_STEPS = 200  # of Newton's method, which takes about ten
ENOUGH = 1e-12  # decrease of the objective, in parts of it, below which it is at its minimum


@dataclass(frozen=True)
class Calibration:
    """An affine calibration: LLR = slope * score + offset. p_target: the prior that it was fitted at."""

    slope: float
    offset: float
    p_target: float = CALIBRATION_PRIOR

    def llr(self, scores: ArrayLike) -> np.ndarray:
        """The log-likelihood ratios of scores, float64 of the same shape."""
        return self.slope * np.asarray(scores, np.float64) + self.offset


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def posterior(llr: float, prior: float) -> float:
    """The probability that both have one speaker, by Bayes' rule; prior: before the scores are seen, in (0, 1)."""
    return float(np.exp(-np.logaddexp(0, -(llr + logit(prior)))))


def calibrate(scores: ArrayLike, labels: ArrayLike, p_target: float = CALIBRATION_PRIOR) -> Calibration:
    """The affine calibration of labelled scores by logistic regression, weighted for a prior P of a target.

    Least is P mean_targets log(1 + exp(-LLR - logit P)) + (1 - P) mean_nontargets log(1 + exp(LLR + logit P)),
    as in Brümmer et al. 2007; here by Newton's method. Raises UserError as tuneThresholdfromScore does, for
    scores that are all equal, for a single trial of a kind, for scores that separate both kinds without an error,
    which fit a slope of any steepness, and for targets that do not score higher.
    """
    scores, labels = check_trials(scores, labels)
    if not 0 < p_target < 1:
        raise UserError(f"p_target {p_target}, expected 0 < p_target < 1")
    targets, others = scores[labels == 1], scores[labels == 0]
    if np.ptp(scores) == 0:
        raise UserError(
            f"all {len(scores)} scores are equal ({scores[0]:g}), so they say nothing about who speaks: there is "
            "nothing to calibrate"
        )
    for kind, found in (("target", targets), ("non-target", others)):
        if len(found) == 1 and len(scores) > 2:
            raise UserError(
                f"1 {kind} trial among {len(scores)} trials: a calibration cannot be fitted to a single one; use "
                f"development trials with some hundreds of both kinds, of at least {MIN_SPEAKERS} speakers"
            )
    if targets.min() >= others.max():
        raise UserError(
            f"all {len(scores)} trials are told apart without an error, which no calibration can be fitted to; "
            "calibrate with more or harder trials"
        )
    # Of scores around 0 with spread 1 the two unknowns are of like size, whatever the system's scale.
    centre, spread = scores.mean(), scores.std()
    x = np.stack([(scores - centre) / spread, np.ones_like(scores)], 1)
    sign = np.where(labels == 1, 1.0, -1.0)
    weight = np.where(labels == 1, p_target / len(targets), (1 - p_target) / len(others))

    def objective(unknowns: np.ndarray) -> float:
        return float(weight @ np.logaddexp(0, -sign * (x @ unknowns + logit(p_target))))

    unknowns = np.zeros(2)
    value = objective(unknowns)
    for _ in range(MOST_STEPS):
        wrong = np.exp(-np.logaddexp(0, sign * (x @ unknowns + logit(p_target))))
        gradient = -(weight * sign * wrong) @ x
        curvature = (x.T * (weight * wrong * (1 - wrong))) @ x
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        size = 1.0
        while (new := objective(unknowns - size * step)) > value and size > ENOUGH:
            size /= 2
        gained = value - new
        if gained > 0:
            unknowns, value = unknowns - size * step, new
        if gained <= ENOUGH * value:
            break
    slope = float(unknowns[0] / spread)
    if slope <= 0:
        raise UserError(
            "targets (label 1) do not score higher than non-targets: there is nothing to calibrate; are the labels "
            "the right way round, 1 for the same speaker?"
        )
    return Calibration(slope, float(unknowns[1] - slope * centre), p_target)


def calibration_doubts(
    scores: np.ndarray, labels: np.ndarray, pairs: Sequence[tuple[str, str]] | None
) -> list[str]:
    """Why a calibration fitted to these trials may be wrong for other speakers, in words; [] where nothing tells.

    scores, labels: (trials,). pairs: the two names of each trial, where they are known.
    """
    doubts = []
    for kind, label in (("target", 1), ("non-target", 0)):
        if (count := int((labels == label).sum())) < FEW_TRIALS:
            doubts.append(f"only {count} {kind} trials, where some hundreds are usual")
    if (different := len(np.unique(scores))) < min(FEW_SCORES, len(scores)):
        doubts.append(f"only {different} different scores in {len(scores)} trials")
    speaker = speaker_names(pairs, labels) if pairs else None
    if speaker is not None and pairs is not None:
        known = {speaker[a] for (a, _), label in zip(pairs, labels, strict=True) if label}
        if len(known) < MIN_SPEAKERS:
            doubts.append(f"target trials of only {len(known)} speaker" + "s" * (len(known) != 1))
    return doubts


def cllr(llrs: ArrayLike, labels: ArrayLike) -> float:
    """Cllr in bits: the mean of log2(1 + exp(-LLR)) over targets and of log2(1 + exp(LLR)) over non-targets, halved.

    Brümmer and du Preez 2006: 0 is perfect, 1 what an LLR of 0 for every trial has; bad calibration
    goes above. Raises UserError as tuneThresholdfromScore does.
    """
    return _cllr(*check_trials(llrs, labels))


def min_cllr(scores: ArrayLike, labels: ArrayLike) -> float:
    """Cllr of the best LLRs that rise with the score: what it costs that the scores discriminate no better.

    Brümmer and du Preez 2006: isotonic regression (pool adjacent violators) of the labels gives the share
    of targets at each score, whose log odds less those of all trials are the LLRs. Equal scores are one. Raises
    UserError as tuneThresholdfromScore does.
    """
    from sklearn.isotonic import isotonic_regression  # slow to import

    scores, labels = check_trials(scores, labels)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    share = isotonic_regression(np.bincount(place, labels) / counts, sample_weight=counts)[place]
    with np.errstate(divide="ignore"):  # a share of 0 or 1 is an infinite LLR, which costs nothing
        return _cllr(np.log(share) - np.log(1 - share) - logit(labels.mean()), labels)


def _cllr(llrs: np.ndarray, labels: np.ndarray) -> float:
    targets, others = llrs[labels == 1], llrs[labels == 0]
    cost = np.logaddexp(0, -targets).mean() + np.logaddexp(0, others).mean()
    return float(cost / 2 / math.log(2))


def actual_dcf(
    llrs: ArrayLike, labels: ArrayLike, p_target: float, c_miss: float = 1, c_fa: float = 1
) -> tuple[float, float]:
    """(DCF, threshold): the normalised detection cost of LLRs at the threshold that needs no tuning, as in min_dcf.

    A trial is accepted from LLR log(c_fa (1 - P) / (c_miss P)) on, which costs least if the LLRs are right (Brümmer
    and du Preez 2006; NIST's plans call it the actual DCF). Raises UserError as min_dcf does.
    """
    if not 0 < p_target < 1 or not (0 < c_miss < np.inf and 0 < c_fa < np.inf):
        raise UserError(f"p_target {p_target}, costs {c_miss}, {c_fa}: expected 0 < p_target < 1, costs > 0")
    llrs, labels = check_trials(llrs, labels)
    threshold = math.log(c_fa / c_miss) - logit(p_target)
    accepted = llrs >= threshold
    alarms, misses = accepted[labels == 0].mean(), 1 - accepted[labels == 1].mean()
    return float(detection_cost(alarms, misses, p_target, c_miss, c_fa)), threshold


# ---------------------------------------------------------------- the file


def save_calibration(
    path: str, calibration: Calibration, made_of: dict[str, Any] | None, dev_scores: str
) -> None:
    """Write a calibration as JSON, with what it is of (see provenance.scores_made_with). Raises OSError."""
    record = {
        "calibration": asdict(calibration),
        "scores": made_of,
        "dev_scores": {"path": os.path.abspath(dev_scores), "sha256": file_hash(dev_scores)},
        "version": VERSION,
    }
    with replace_file(path) as file:
        json.dump(record, file, indent=2, allow_nan=False)


def read_calibration(
    path: str, checkpoint: str, settings: Settings, num_eval: int
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration in a file, for raw scores of this checkpoint and these settings, and what it is of.

    Raises UserError for a calibration of anything else, and OSError.
    """
    named = f"--calibration {path}"
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        calibration = Calibration(**{name: float(value) for name, value in record["calibration"].items()})
        made_of = record["scores"]
        if not calibration.slope > 0 or not all(map(math.isfinite, asdict(calibration).values())):
            raise TypeError
        if made_of is not None and not (made_of["kind"] in SCORE_FILES and has_provenance(made_of)):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{named}: not a calibration; make it with tuneThreshold.py --calibrate dev_scores.txt scores.txt"
        ) from None
    if made_of is None:
        raise UserError(
            f"{named}: does not say which checkpoint its scores are of; make it again of an eval_scores.txt that "
            "lies beside its eval.json, as trainSyncNet.py --eval writes them"
        )
    if made_of["kind"] != "raw":
        raise UserError(
            f"{named}: of {made_of['kind']} scores, and verify gives raw ones; calibrate with eval_scores.txt"
        )
    check_made_with(named, "calibration", made_of, checkpoint, settings, num_eval)
    return calibration, made_of
