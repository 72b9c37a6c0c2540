"""Split a trial list or score file into development and test trials without common speakers, for calibration."""

from dataclasses import dataclass

import numpy as np

from syncnet.media.clips import text_lines
from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.support.names import counted
from syncnet.verification.score_files import read_scored_trials
from syncnet.verification.speakers import speaker_names
from syncnet.verification.trials import read_trials


@dataclass(frozen=True)
class Part:
    """One side of a split. lines: its trials, unchanged. targets, speakers: their counts."""

    lines: list[str]
    targets: int
    speakers: int

    def __str__(self) -> str:
        return f"{len(self.lines)} trials, {self.targets} of them targets, of {counted(self.speakers, 'speaker')}"


def split_trials(path: str, dev_fraction: float = 0.5, seed: int = 0) -> tuple[Part, Part, int]:
    """Split the trials of a list or score file: (development part, test part, number of dropped trials).

    Each speaker (see speaker_names) is on one side; trials of two speakers on different sides are dropped.
    dev_fraction: fraction of the speakers used for development. The same seed and speakers give the same split.
    Raises UserError if the speakers are unknown, or a side has no targets or no non-targets.
    """
    lines = [line for _, line in text_lines(path, "Give a trial list or a file of scores.")]
    first = lines[0] if lines else ""
    if len(first.split("\t") if first.count("\t") == 3 else first.split()) == 4:
        _, labels, pairs = read_scored_trials(path)
    else:
        trials = read_trials(path)
        if trials.labels is None:
            raise UserError(
                f"{path}: has no labels, which are needed to find the speakers in the names of the files"
            )
        labels = trials.labels
        pairs = [(trials.files[a], trials.files[b]) for a, b in zip(trials.first, trials.second, strict=True)]
    speaker = speaker_names(pairs, labels) if pairs else None
    if speaker is None:
        raise UserError(
            f"{path}: the speakers cannot be found in the names. Expected names such as <speaker>/x.wav or "
            "<speaker>-x, with the same speaker in all targets and different speakers in all non-targets"
        )
    people = sorted(set(speaker.values()))
    count = min(max(1, round(dev_fraction * len(people))), len(people) - 1)
    for_dev = {people[n] for n in np.random.default_rng(seed).permutation(len(people))[:count]}
    sides = np.array([[speaker[name] in for_dev for name in pair] for pair in pairs or []])
    parts = []
    for name, is_dev in (("development", True), ("test", False)):
        chosen = np.flatnonzero((sides == is_dev).all(1))
        kinds = labels[chosen]
        if len(set(kinds)) < 2:
            raise UserError(
                f"{path}: with {counted(len(people), 'speaker')}, {count} of them for development, the {name} trials "
                f"have {int(kinds.sum())} targets and {int((kinds == 0).sum())} non-targets; both kinds are needed. "
                "Use a list of more speakers, or another --seed or --dev_fraction"
            )
        found = {speaker[file] for n in chosen for file in (pairs or [])[n]}
        parts.append(Part([lines[n] for n in chosen], int(kinds.sum()), len(found)))
    return parts[0], parts[1], len(lines) - sum(len(part.lines) for part in parts)


def write_part(path: str, part: Part) -> None:
    """Write the lines of one side. Raises OSError."""
    with replace_file(path) as file:
        file.writelines(line + "\n" for line in part.lines)
