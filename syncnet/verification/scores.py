"""Scores of trials, their file, and the error rates they give."""

import math

import numpy as np
import torch
from torch import Tensor

from syncnet.support.files import replace_file
from syncnet.verification.rates import P_TARGETS, eer_interpolated, min_dcf, tuneThresholdfromScore
from syncnet.verification.trials import Trials

TRIALS_PER_BLOCK = 512  # fits in the processor's cache


def score_vectors(vectors: Tensor, trials: Trials) -> np.ndarray:
    """Scores of all trials: the dot products of their vectors, (N,) float32.

    vectors: (files, nOut) float32, each the mean of the unit vectors of a file's crops. Their dot product is exactly
    the mean of the 10 x 10 cosine similarities of the 2020 baseline.
    """
    first, second = torch.from_numpy(trials.first), torch.from_numpy(trials.second)
    blocks = [
        vectors[a].mul_(vectors[b]).sum(1)
        for a, b in zip(first.split(TRIALS_PER_BLOCK), second.split(TRIALS_PER_BLOCK), strict=True)
    ]
    return torch.cat(blocks).numpy()


def write_scores(path: str, scores: np.ndarray, trials: Trials) -> None:
    """Write `score label fileA fileB` (or `score fileA fileB`) lines, with tabs if a name contains whitespace.

    Scores are written with enough digits to be read back exactly. Raises OSError.
    """
    separator = "\t" if any(c.isspace() for file in trials.files for c in file) else " "
    digits = 9 if scores.dtype == np.float32 else 17
    labels = [[]] * len(scores) if trials.labels is None else [[str(label)] for label in trials.labels]
    with replace_file(path) as file:
        for score, label, a, b in zip(scores, labels, trials.first, trials.second, strict=True):
            file.write(
                separator.join([f"{score:.{digits}g}", *label, trials.files[a], trials.files[b]]) + "\n"
            )


def measure(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """The error rates of scored trials by name: EERs in percent, minDCF, thresholds (None if infinite).

    `eer` is the 2020 baseline's. Raises UserError as tuneThresholdfromScore does.
    """
    figures: dict[str, float | None] = {"eer": tuneThresholdfromScore(scores, labels, [])[1]}
    figures["eer_interpolated"], figures["eer_threshold"] = eer_interpolated(scores, labels)
    for p in P_TARGETS:
        cost, threshold = min_dcf(scores, labels, p)
        figures[f"min_dcf_{p:g}"] = cost
        figures[f"min_dcf_{p:g}_threshold"] = threshold if math.isfinite(threshold) else None
    return figures


def format_costs(figures: dict[str, float | None]) -> str:
    return ", ".join(f"minDCF({p:g}) {figures[f'min_dcf_{p:g}']:.4f}" for p in P_TARGETS)
