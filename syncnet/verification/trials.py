"""Trial lists: pairs of utterances, labeled as having the same speaker or not, or without labels."""

import os
import shlex
from dataclasses import dataclass

import numpy as np

from syncnet.media.clips import LOOKED_AT, MediaError, text_lines
from syncnet.support.tar_members import TAR, is_file
from syncnet.verification.utterances import check_wavs, utterance_paths

# Words for the same speaker (1) and for different speakers (0), in lower case.
LABELS = {
    **dict.fromkeys(("1", "target", "tgt", "tar", "true", "same"), 1),
    **dict.fromkeys(("0", "nontarget", "non-target", "nontgt", "non", "imp", "impostor", "imposter"), 0),
    **dict.fromkeys(("false", "diff", "different"), 0),
}


@dataclass(frozen=True, eq=False)
class Trials:
    """A trial list: trial i compares files[first[i]] with files[second[i]].

    labels: (N,) int, 1 = same speaker, 0 = different; None for a list without labels.
    files: the distinct names, in order of first occurrence.
    """

    files: list[str]
    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray | None


def read_trials(path: str) -> Trials:
    """Read `label fileA fileB`, `fileA fileB label` (Kaldi) or `fileA fileB` lines, separated by whitespace or tabs.

    A label is 1 or `target` for the same speaker, 0 or `nontarget` for different speakers (see LABELS), in the same
    field of every line. Raises MediaError naming file and line.
    """
    rows: list[list[str]] = []
    places: list[str] = []
    for where, line in text_lines(path, "--test_list needs lines `label fileA fileB`."):
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) == 2 and fields[0].lower() in LABELS:  # only the label is followed by a tab
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
    """The column with a label in every row: the first, else the last, else the middle one.

    places: file and line of each row. Raises MediaError for a row without a label.
    """
    unlabeled = {
        column: next((n for n, row in enumerate(rows) if row[column].lower() not in LABELS), None)
        for column in (0, 2, 1)
    }
    for column, row in unlabeled.items():
        if row is None:
            return column
    # Report the column whose first row without a label comes last: most likely the label column.
    column, row = max(unlabeled.items(), key=lambda item: item[1] or 0)
    raise MediaError(
        f"{places[row or 0]}: label {rows[row or 0][column]!r}, expected 1 (same speaker) or 0, or `target` or "
        "`nontarget`"
    )


def check_labels(trials: Trials, path: str) -> None:
    """Raise MediaError if all labels are of one kind, which gives no EER."""
    if trials.labels is not None and len(set(trials.labels)) < 2:
        raise MediaError(
            f"{path}: an EER needs trials of the same speaker (label 1) and of different speakers (label 0)"
        )


def check_folder(files: list[str], path: str, root: str) -> None:
    """Raise MediaError if none of the first files of the trials exists; it suggests a nearby folder that has them.

    root: the folder or tar that names are relative to, or a wav.scp; see utterance_paths.
    """
    first = files[:LOOKED_AT]

    def has_some(root: str) -> bool:
        return any(map(is_file, utterance_paths(first, root)))

    if not os.path.exists(root or os.curdir):
        raise MediaError(f"--test_path {root}: no such folder; the names in {path} are relative to it")
    if has_some(root):
        return
    if root.endswith(TAR):
        raise MediaError(
            f"--test_path {root}: has none of the wavs that {path} names, such as {files[0]}; "
            "the tar must have the names of the list, with / or with __ between folders"
        )
    if os.path.isfile(root):
        raise MediaError(
            f"--test_path {root}: none of its files exists ({utterance_paths(first, root)[0]}: no such file); "
            "run the command in the folder that its paths are relative to"
        )
    below = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    near = next(filter(has_some, [*below, os.path.dirname(root.rstrip(os.sep)) or os.curdir]), None)
    hint = f": --test_path {shlex.quote(near)}" if near else ""
    raise MediaError(
        f"--test_path {root}: has none of the wavs that {path} names ({files[0]}: no such wav file); "
        f"give the folder that its names are relative to{hint}"
    )


def read_checked_trials(path: str, root: str, maxFrames: int) -> tuple[Trials, list[str]]:
    """The trials of a list and the path of each file, with checked labels and sound files. Raises MediaError."""
    trials = read_trials(path)
    check_labels(trials, path)
    check_folder(trials.files, path, root)
    paths = utterance_paths(trials.files, root)
    check_wavs(paths, maxFrames, root)
    return trials, paths
