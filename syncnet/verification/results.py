"""Where the results of an evaluation go, what eval.json says they are of, and the threshold that it gives."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from syncnet.networks.settings import Settings, differences
from syncnet.support.errors import UserError
from syncnet.verification.rates import tuneThresholdfromScore

if TYPE_CHECKING:  # slow to import, and tuneThreshold.py has no use for it
    from torch import nn

REPORT = "eval.json"
SCORE_FILES = {"raw": "eval_scores.txt", "asnorm": "eval_scores_asnorm.txt"}
SAME_EER = 1e-3  # percent; scores are written with all their digits


def file_hash(path: str) -> str:
    """SHA-256 of a file, as sha256sum prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of a network's weights, wherever they came from."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def evaluated_with(settings: Settings, num_eval: int) -> dict[str, object]:
    """The record of what decides a score beside the weights."""
    return asdict(settings) | {"num_eval": num_eval}


def what_is_tested(test_list: str, test_path: str) -> dict[str, str]:
    """The trials that results are of: the list, by what it holds, and the folder of its wavs."""
    return {
        "path": os.path.abspath(test_list),
        "sha256": file_hash(test_list),
        "test_path": os.path.realpath(test_path),
    }


def is_same_test(one: object, other: dict[str, str]) -> bool:
    """Are both of the same trials of the same wavs? A list that was only moved or renamed is the same."""
    return isinstance(one, dict) and all(one.get(name) == other[name] for name in ("sha256", "test_path"))


def read_report(folder: str) -> dict | None:
    """The eval.json of a folder; None where there is none, {} where it says nothing that we know."""
    try:
        with open(os.path.join(folder, REPORT), encoding="utf-8") as file:
            report = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def scores_made_with(path: str, scores: np.ndarray, labels: np.ndarray | None) -> dict[str, Any] | None:
    """What the scores of an evaluation's file are of, by the eval.json beside it; None where nothing tells.

    scores, labels: what the file holds; an eval.json of others does not count. The record has the `kind` of scores
    (see SCORE_FILES), `checkpoint`, `evaluated_with` and `precision`; of normalised scores the size of the cohort,
    `cohort_recordings` (None: an earlier version did not note them) and `top_n` too.
    """
    report = read_report(os.path.dirname(path))
    kind = {name: kind for kind, name in SCORE_FILES.items()}.get(os.path.basename(path))
    try:
        if not report or kind is None or not says_what_it_is_of(report) or report["trials"] != len(scores):
            return None
        if labels is not None:
            eer = tuneThresholdfromScore(scores, labels, [])[1]
            if not abs(report["figures"][kind]["eer"] - eer) < SAME_EER:
                return None
        names = ("checkpoint", "evaluated_with", "precision") + (("cohort",) if kind == "asnorm" else ())
        made_with = {"kind": kind} | {name: report[name] for name in names}
        if kind == "asnorm":
            made_with |= {"top_n": report["settings"].get("top_n")}
            made_with |= {"cohort_recordings": report.get("cohort_recordings")}
        return made_with
    except (KeyError, TypeError, AttributeError):
        return None


def check_same_system(
    path: str, made_with: dict[str, Any] | None, dev_path: str, dev_made_with: dict[str, Any] | None
) -> None:
    """Raise UserError when scores are not of what the development scores are of, as far as both are known."""
    if made_with is None or dev_made_with is None:
        return
    ours, theirs = (
        {"kind of scores": record["kind"], "checkpoint": (record["checkpoint"] or {}).get("sha256")}
        | {"cohort": record.get("cohort"), "top_n": record.get("top_n")}
        | record["evaluated_with"]
        for record in (made_with, dev_made_with)
    )
    recordings = [record.get("cohort_recordings") for record in (dev_made_with, made_with)]
    if None not in recordings:
        theirs["recordings of the cohort"], ours["recordings of the cohort"] = recordings
    if others := differences(theirs, ours):
        listed = ", ".join(f"{name} {now} ({dev_path}: {before})" for name, before, now in others)
        raise UserError(
            f"{path}: made with {listed}; a calibration fits scores of the same checkpoint and settings only"
        )


def tell_precision(named: str, record: dict[str, Any], other: str, other_record: dict[str, Any]) -> None:
    """Say on stderr where two of which the one is used for the other were made with another --precision."""
    precision, another = record.get("precision"), other_record.get("precision")
    if None not in (precision, another) and precision != another:
        print(
            f"{named}: made with --precision {precision}, {other} with {another}; they differ a little",
            file=sys.stderr,
        )


def place_for(result_folder: str, tested: dict[str, str]) -> tuple[str, dict | None]:
    """The folder for the results of a trial list, and the report that is there already.

    result_folder itself, unless it has the results of another list: then eval_<name of the list> in it, with a
    hash of the list and its wavs' folder behind where another list of that name has it.
    """
    name = os.path.splitext(os.path.basename(tested["path"]))[0]
    key = hashlib.sha256(
        (tested["sha256"] + tested["test_path"]).encode(errors="surrogateescape")
    ).hexdigest()
    for place in ("", f"eval_{name}", f"eval_{name}_{key[:8]}"):
        folder = os.path.join(result_folder, place) if place else result_folder
        before = read_report(folder)
        if before is None or is_same_test(before.get("trial_list"), tested):
            return folder, before
    raise UserError(f"{folder}: has results that are of other trials; move them, or use another --save_path")


def says_what_it_is_of(record: dict[str, Any]) -> bool:
    """Has a record the checkpoint (None: untrained) and the settings that it was made with? Raises KeyError."""
    return isinstance(record["evaluated_with"], dict) and isinstance(record["checkpoint"], (dict, type(None)))


def read_threshold(path: str, checkpoint: str, settings: Settings, num_eval: int) -> tuple[float, dict]:
    """The threshold at the EER in an eval.json of this checkpoint and these settings, and the whole report.

    Raises UserError for a report of anything else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        threshold = float(report["figures"]["raw"]["eer_threshold"])
        if not says_what_it_is_of(report):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"--threshold {path}: not an eval.json of labelled trials that this version of the program made; "
            "make it with trainSyncNet.py --eval"
        ) from None
    check_made_with(f"--threshold {path}", "threshold", report, checkpoint, settings, num_eval)
    return threshold, report


def check_made_with(
    named: str, what: str, record: dict[str, Any], checkpoint: str, settings: Settings, num_eval: int
) -> None:
    """Raise UserError unless a record's `checkpoint` and `evaluated_with` are this checkpoint and these settings.

    named: flag and file that the record is of, what: its kind, for the message.
    """
    made_with, source = record["evaluated_with"], record["checkpoint"]
    if source is None:
        raise UserError(f"{named}: of an untrained network; its {what} does not fit {checkpoint}")
    if source.get("sha256") != file_hash(checkpoint):
        raise UserError(
            f"{named}: made with another checkpoint, {source.get('path')}; its {what} does not fit"
        )
    if others := differences(made_with, evaluated_with(settings, num_eval)):
        listed = ", ".join(f"{name} {before} (here {now})" for name, before, now in others)
        raise UserError(f"{named}: made with {listed}; its {what} does not fit")
