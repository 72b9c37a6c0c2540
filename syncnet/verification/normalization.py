"""Score normalization with a cohort of utterances of other speakers."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from syncnet.media.clips import MediaError, text_lines
from syncnet.support.errors import UserError
from syncnet.verification.embedding_cache import Recording, find_recording
from syncnet.verification.trials import Trials
from syncnet.verification.utterances import WAV_SCP, read_wav_scp, utterance_paths

COSINES_PER_BLOCK = 2**24  # 64 MiB


def read_cohort(path: str, folder: str, size: int = 0, seed: int = 0) -> dict[str, str]:
    """The utterances of a cohort: path on disk by name, in the list's order.

    Lines are names of sound files, or clips as listed by makeFileList.py, whose wavs are taken; from a Kaldi wav.scp
    (extension .scp), all utterances are taken. folder: the folder that names are relative to, or a wav.scp (see
    utterance_paths). size: utterances drawn at random with this seed; 0 takes all. Raises MediaError.
    """
    names: dict[str, str] = {}
    if path.endswith(WAV_SCP):
        names = read_wav_scp(path)
    else:
        for _, line in text_lines(path, "Lines are wav names relative to --cohort_path."):
            line = line.strip()
            fields = line.split("\t") if "\t" in line else line.split()
            if len(fields) == 4 and fields[3].isdigit():
                names[fields[1]] = fields[1]
            else:
                names[line] = ""
    if size and size < len(names):
        drawn = np.random.default_rng(seed).choice(len(names), size, replace=False)
        every = list(names)
        names = {every[n]: names[every[n]] for n in sorted(drawn)}
    named = [name for name, path in names.items() if not path]
    names |= dict(zip(named, utterance_paths(named, folder), strict=True))
    if len(names) < 2:
        raise MediaError(
            f"{path}: {len(names)} utterances, a cohort needs at least 2 (some hundreds are usual)"
        )
    return names


def check_overlap(cohort: Sequence[Recording], tested: Sequence[Recording]) -> None:
    """Raise MediaError if a recording is in both the cohort and the trials, under any name."""
    if shared := {one.path for one in cohort} & {one.path for one in tested}:
        raise MediaError(
            f"{len(shared)} utterances of the cohort are in the trials ({min(shared)}); "
            "a cohort needs other speakers"
        )


def distinct_recordings(cohort: Mapping[str, str]) -> dict[str, str]:
    """A cohort with one name per recording, so that none counts twice. Raises MediaError."""
    first: dict[Recording, str] = {}
    for name, path in cohort.items():
        first.setdefault(find_recording(path), name)
    if len(first) == 1 < len(cohort):
        raise MediaError(f"the cohort's {len(cohort)} utterances are one recording ({min(cohort.values())})")
    return {name: cohort[name] for name in first.values()}


def cohort_statistics(vectors: Tensor, cohort: Tensor, top_n: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the top_n highest scores of each utterance against the cohort.

    vectors: (files, nOut), cohort: (N, nOut), scored as in score_vectors. Returns two (files,) float64.
    Raises UserError if the top_n scores of an utterance are all equal.
    """
    rows = max(1, COSINES_PER_BLOCK // len(cohort))
    top = torch.cat([(part @ cohort.T).topk(min(top_n, len(cohort))).values for part in vectors.split(rows)])
    mean, deviation = top.double().mean(1), top.double().std(1, correction=0)
    if deviation.min() < 1e-9:
        raise UserError(
            "an utterance has the same score with its whole nearest cohort: is the cohort a single file?"
        )
    return mean, deviation


def as_norm(scores: np.ndarray, trials: Trials, vectors: Tensor, cohort: Tensor, top_n: int) -> np.ndarray:
    """Adaptive symmetric score normalization: (trials,) float64.

    s' = ((s - m(e)) / d(e) + (s - m(t)) / d(t)) / 2, where m and d are the mean and standard deviation of the scores
    of an utterance (e: first, t: second) against its own top_n nearest cohort utterances: AS-norm1 of Matejka et al.,
    "Analysis of score normalization in multilingual speaker recognition", Interspeech 2017, section 2.3.
    vectors: (files, nOut) of trials.files; cohort: (N, nOut). Raises UserError.
    """
    mean, deviation = (statistic.numpy() for statistic in cohort_statistics(vectors, cohort, top_n))
    scores = scores.astype(np.float64)
    sides = [(scores - mean[side]) / deviation[side] for side in (trials.first, trials.second)]
    return (sides[0] + sides[1]) / 2
