"""Score files: one trial per line."""

from collections.abc import Iterator

import numpy as np

from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.support.names import counted
from syncnet.verification.rates import check_trials


def read_scores(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels from `score label` or `score label fileA fileB` lines, separated by whitespace.

    Returns (scores float64, labels int64), both (trials,). Empty lines are skipped.
    Raises UserError naming the file and the line, and OSError.
    """
    return read_scored_trials(path)[:2]


def read_scored_trials(path: str) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]] | None]:
    """Like read_scores, but also returns the two file names of each trial, None if any line lacks them."""
    scores, labels, pairs = [], [], []
    for number, line in scored_lines(path):
        fields = line.split("\t") if line.count("\t") == 3 else line.split()
        where = f"{path}, line {number}"
        if len(fields) not in (2, 4):
            raise UserError(
                f"{where}: {counted(len(fields), 'field')}, expected 'score label [fileA fileB]', as in "
                "the eval_scores.txt of --eval"
            )
        score = to_score(fields[0], where)
        if fields[1] not in ("0", "1"):
            raise UserError(f"{where}: label {fields[1][:40]!r}, expected 0 or 1 (1 = same speaker)")
        scores.append(score)
        labels.append(int(fields[1]))
        if len(fields) == 4:
            pairs.append((fields[2], fields[3]))
    try:
        return *check_trials(scores, labels), pairs if len(pairs) == len(scores) else None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def to_score(text: str, where: str) -> float:
    """Parse a finite number. where: file and line, for the message. Raises UserError."""
    try:
        score = float(text)
    except ValueError:
        raise UserError(f"{where}: score {text[:40]!r} is not a number") from None
    if not np.isfinite(score):
        raise UserError(f"{where}: score {text!r} is not a finite number")
    return score


def has_labels(path: str) -> bool:
    """False if the first line is `score fileA fileB`, as for a trial list without labels. Raises OSError."""
    _, line = next(scored_lines(path), (0, ""))
    fields = line.split("\t") if line.count("\t") == 2 else line.split()
    return len(fields) != 3 or fields[1] in ("0", "1")


def read_unlabeled(path: str) -> np.ndarray:
    """Scores from `score fileA fileB` lines, (trials,) float64.

    Raises UserError naming the file and the line, and OSError.
    """
    scores = []
    for number, line in scored_lines(path):
        where = f"{path}, line {number}"
        fields = line.split("\t") if line.count("\t") == 2 else line.split()
        if len(fields) != 3:
            raise UserError(
                f"{where}: {len(fields)} fields, expected 'score fileA fileB' as in the first line"
            )
        scores.append(to_score(fields[0], where))
    return np.array(scores)


def write_llrs(path: str, output: str, llrs: np.ndarray) -> None:
    """Copy a score file with the scores replaced by log-likelihood ratios, (trials,). Raises OSError.

    The rest of each line is unchanged.
    """
    with replace_file(output, "wb") as file:
        for (_, line), llr in zip(scored_lines(path), llrs, strict=True):
            rest = line.lstrip()
            rest = rest[len(rest.split(maxsplit=1)[0]) :]
            file.write(f"{llr:.17g}{rest}\n".encode(errors="surrogateescape"))


def scored_lines(path: str) -> Iterator[tuple[int, str]]:
    """The numbers and the text of all lines that are not empty. Raises OSError."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\n")
