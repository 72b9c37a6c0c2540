"""The speakers of the utterances of labeled trials, inferred from file names."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

Speakers = tuple[np.ndarray, np.ndarray]  # the first and the second speaker of each trial, as numbers


def speaker_names(pairs: Sequence[tuple[str, str]], labels: ArrayLike) -> dict[str, str] | None:
    """The speaker of each utterance, inferred from its name; None if the names do not follow the labels.

    pairs: the two names of each trial, such as <id>/<ref>/<utt>.wav, or Kaldi's <id>-<ref>-<utt>. The speaker is the
    shortest leading path that agrees with all labels: equal in target trials, different in non-target trials. If no
    name has a folder, parts between hyphens are used.
    """
    names = sorted({name for pair in pairs for name in pair})
    row = {name: number for number, name in enumerate(names)}
    first, second = np.array([[row[a], row[b]] for a, b in pairs]).T
    same = np.asarray(labels) == 1
    parts = [name.replace("\\", "/").split("/")[:-1] for name in names]
    separator = "/"
    if not any(parts):
        parts, separator = [name.split("-")[:-1] for name in names], "-"
    for depth in range(1, min(map(len, parts)) + 1):
        found = [separator.join(part[:depth]) for part in parts]
        number = np.unique(found, return_inverse=True)[1]
        if np.array_equal(number[first] == number[second], same):
            return dict(zip(names, found, strict=True))
    return None


def speakers_of_trials(pairs: Sequence[tuple[str, str]], labels: ArrayLike) -> Speakers | None:
    """The two speakers of each trial, as numbers; None if unknown. See speaker_names."""
    speaker = speaker_names(pairs, labels)
    if speaker is None:
        return None
    number = {name: n for n, name in enumerate(sorted(set(speaker.values())))}
    first, second = np.array([[number[speaker[a]], number[speaker[b]]] for a, b in pairs]).T
    return first, second


def count_speakers(speakers: Speakers) -> int:
    return len(np.unique(np.concatenate(speakers)))
