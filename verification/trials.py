"""Trial lists: which utterance is compared with which, and whether they have the same speaker."""

import os
import shlex
from dataclasses import dataclass

import numpy as np

from media.clips import LOOKED_AT, MediaError, text_lines
from verification.voices import check_wavs


@dataclass(frozen=True, eq=False)
class Trials:
    """A trial list: trial i compares files[first[i]] with files[second[i]].

    labels: (N,) int, 1 = same speaker, 0 = different; None for a list without labels.
    files: the distinct names, in order of first appearance.
    """

    files: list[str]
    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray | None


def read_trials(path: str) -> Trials:
    """Read `label fileA fileB` or `fileA fileB` lines, separated by white space or tabs.

    Raises MediaError naming file and line.
    """
    index: dict[str, int] = {}
    pairs: list[list[int]] = []
    labels: list[int] = []
    for where, line in text_lines(path, "--test_list needs lines `label fileA fileB`."):
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) == 2 and fields[0] in ("0", "1"):  # a tab after the label alone
            fields = line.split()
        if not pairs:
            width = len(fields)
        if len(fields) not in (2, 3) or len(fields) != width or not all(fields):
            raise MediaError(
                f"{where}: found {len(fields)} fields, expected "
                "`label fileA fileB` (or `fileA fileB` in every line)"
            )
        if width == 3 and fields[0] not in ("0", "1"):
            raise MediaError(f"{where}: label {fields[0]!r}, expected 1 (same speaker) or 0")
        if width == 3:
            labels.append(int(fields[0]))
        pairs.append([index.setdefault(name, len(index)) for name in fields[-2:]])
    if not pairs:
        raise MediaError(f"{path}: the trial list is empty")
    first, second = np.array(pairs).T
    return Trials(list(index), first, second, np.array(labels) if labels else None)


def check_labels(trials: Trials, path: str) -> None:
    """Raise MediaError for a list that has labels and no EER: all of one kind."""
    if trials.labels is not None and len(set(trials.labels)) < 2:
        raise MediaError(
            f"{path}: an EER needs trials of the same speaker (label 1) and of different ones (label 0)"
        )


def check_folder(files: list[str], path: str, folder: str) -> None:
    """Raise MediaError, with the right folder where it is near, when the trials' first files are not in `folder`."""

    def has_some(folder: str) -> bool:
        return any(os.path.exists(os.path.join(folder, name)) for name in files[:LOOKED_AT])

    if has_some(folder):
        return
    if not os.path.isdir(folder):
        raise MediaError(f"--test_path {folder}: no such folder; the names in {path} start there")
    below = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    near = next(filter(has_some, [*below, os.path.dirname(folder.rstrip(os.sep)) or os.curdir]), None)
    hint = f": they are there with --test_path {shlex.quote(near)}" if near else ""
    raise MediaError(
        f"--test_path {folder}: has none of the wavs that {path} names ({files[0]}: no such wav file); "
        f"give the folder in which its names start{hint}"
    )


def read_checked_trials(path: str, folder: str, maxFrames: int) -> Trials:
    """The trials of a list, after a look at the labels and at the wavs in `folder`. Raises MediaError."""
    trials = read_trials(path)
    check_labels(trials, path)
    check_folder(trials.files, path, folder)
    check_wavs([os.path.join(folder, file) for file in trials.files], maxFrames, folder)
    return trials
