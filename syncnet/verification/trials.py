"""Trial lists: which utterance is compared with which, and whether they have the same speaker."""

import os
import shlex
from dataclasses import dataclass

import numpy as np

from syncnet.media.clips import LOOKED_AT, MediaError, text_lines
from syncnet.media.tar_members import TAR, is_file
from syncnet.verification.utterances import check_wavs, utterance_paths

# What stands for the same speaker (1) and for different ones (0), in lower case.
LABELS = {
    **dict.fromkeys(("1", "target", "tgt", "tar", "true", "same"), 1),
    **dict.fromkeys(("0", "nontarget", "non-target", "nontgt", "non", "imp", "impostor", "imposter"), 0),
    **dict.fromkeys(("false", "diff", "different"), 0),
}


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
    """Read `label fileA fileB`, `fileA fileB label` (Kaldi) or `fileA fileB` lines, separated by white space or tabs.

    A label is 1 or `target` for the same speaker, 0 or `nontarget` for different ones (see LABELS), and stands in the
    same field of every line. Raises MediaError naming file and line.
    """
    rows: list[list[str]] = []
    places: list[str] = []
    for where, line in text_lines(path, "--test_list needs lines `label fileA fileB`."):
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) == 2 and fields[0].lower() in LABELS:  # a tab after the label alone
            fields = line.split()
        if len(fields) not in (2, 3) or (rows and len(fields) != len(rows[0])) or not all(fields):
            raise MediaError(
                f"{where}: found {len(fields)} fields, expected "
                "`label fileA fileB` (or `fileA fileB` in every line)"
            )
        rows.append(fields)
        places.append(where)
    if not rows:
        raise MediaError(f"{path}: the trial list is empty")
    labels = None
    if len(rows[0]) == 3:
        column = label_column(rows, places)
        labels = np.array([LABELS[row.pop(column).lower()] for row in rows])
    index: dict[str, int] = {}
    first, second = np.array([[index.setdefault(name, len(index)) for name in row] for row in rows]).T
    return Trials(list(index), first, second, labels)


def label_column(rows: list[list[str]], places: list[str]) -> int:
    """The field of three that has a label in every row: the first, or else the last, or else the middle one.

    places: file and line of each row. Raises MediaError for the row that is at fault.
    """
    without = {
        column: next((n for n, row in enumerate(rows) if row[column].lower() not in LABELS), None)
        for column in (0, 2, 1)
    }
    for column, row in without.items():
        if row is None:
            return column
    # The field that has labels for longest is meant.
    column, row = max(without.items(), key=lambda item: item[1] or 0)
    raise MediaError(
        f"{places[row or 0]}: label {rows[row or 0][column]!r}, expected 1 (same speaker) or 0, or `target` or "
        "`nontarget`"
    )


def check_labels(trials: Trials, path: str) -> None:
    """Raise MediaError for a list that has labels and no EER: all of one kind."""
    if trials.labels is not None and len(set(trials.labels)) < 2:
        raise MediaError(
            f"{path}: an EER needs trials of the same speaker (label 1) and of different ones (label 0)"
        )


def check_folder(files: list[str], path: str, place: str) -> None:
    """Raise MediaError when none of the trials' first files is in `place`; it names the folder that has them if near.

    place: the folder or tar that the names start in, or a wav.scp; see utterance_paths.
    """
    looked_at = files[:LOOKED_AT]

    def has_some(place: str) -> bool:
        return any(map(is_file, utterance_paths(looked_at, place)))

    if not os.path.exists(place or os.curdir):
        raise MediaError(f"--test_path {place}: no such folder; the names in {path} start there")
    if has_some(place):
        return
    if place.endswith(TAR):
        raise MediaError(
            f"--test_path {place}: has none of the wavs that {path} names, such as {files[0]}; "
            "the tar must have the names of the list, with folders or with __ in their place"
        )
    if os.path.isfile(place):
        raise MediaError(
            f"--test_path {place}: none of its files is here ({utterance_paths(looked_at, place)[0]}: no such file); "
            "run the command in the folder in which its paths start"
        )
    below = sorted(entry.path for entry in os.scandir(place) if entry.is_dir())
    near = next(filter(has_some, [*below, os.path.dirname(place.rstrip(os.sep)) or os.curdir]), None)
    hint = f": they are there with --test_path {shlex.quote(near)}" if near else ""
    raise MediaError(
        f"--test_path {place}: has none of the wavs that {path} names ({files[0]}: no such wav file); "
        f"give the folder in which its names start{hint}"
    )


def read_checked_trials(path: str, place: str, maxFrames: int) -> tuple[Trials, list[str]]:
    """The trials of a list and the path of each of its files, after a look at the labels and at the sound files.

    Raises MediaError.
    """
    trials = read_trials(path)
    check_labels(trials, path)
    check_folder(trials.files, path, place)
    paths = utterance_paths(trials.files, place)
    check_wavs(paths, maxFrames, place)
    return trials, paths
