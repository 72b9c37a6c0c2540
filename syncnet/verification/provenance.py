"""Provenance of scores, thresholds and calibrations: read it from eval.json and check that it matches."""

import json
import os
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from syncnet.networks.settings import Settings, differences
from syncnet.support.errors import UserError
from syncnet.support.files import file_hash
from syncnet.verification.rates import tuneThresholdfromScore

REPORT = "eval.json"
SCORE_FILES = {"raw": "eval_scores.txt", "asnorm": "eval_scores_asnorm.txt"}
SAME_EER = 1e-3  # percent; scores are written with all their digits


def evaluated_with(settings: Settings, num_eval: int) -> dict[str, object]:
    """The record of all settings that affect a score, besides the weights."""
    return asdict(settings) | {"num_eval": num_eval}


def read_report(folder: str) -> dict | None:
    """The eval.json of a folder; None if there is none, {} if it is not a report."""
    try:
        with open(os.path.join(folder, REPORT), encoding="utf-8") as file:
            report = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def scores_made_with(path: str, scores: np.ndarray, labels: np.ndarray | None) -> dict[str, Any] | None:
    """What the scores in a file were made with, according to the eval.json next to it; None if unknown.

    scores, labels: the content of the file; an eval.json for other scores does not count. The record has the `kind`
    of scores (see SCORE_FILES), `checkpoint`, `evaluated_with` and `precision`; for normalized scores also the cohort
    size, `cohort_recordings` (None if an earlier version wrote it) and `top_n`.
    """
    report = read_report(os.path.dirname(path))
    kind = {name: kind for kind, name in SCORE_FILES.items()}.get(os.path.basename(path))
    try:
        if not report or kind is None or not has_provenance(report) or report["trials"] != len(scores):
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
    """Raise UserError if scores and development scores were made with different systems, as far as is known."""
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
            f"{path}: made with {listed}; a calibration only fits scores of the same checkpoint and settings"
        )


def warn_precision(name: str, record: dict[str, Any], other: str, other_record: dict[str, Any]) -> None:
    """Print a line on stderr if two records that are used together were made with different --precision."""
    precision, another = record.get("precision"), other_record.get("precision")
    if None not in (precision, another) and precision != another:
        print(
            f"{name}: made with --precision {precision}, {other} with {another}; they differ slightly",
            file=sys.stderr,
        )


def has_provenance(record: dict[str, Any]) -> bool:
    """True if a record has the checkpoint (None: untrained) and the settings it was made with. Raises KeyError."""
    return isinstance(record["evaluated_with"], dict) and isinstance(record["checkpoint"], (dict, type(None)))


def read_threshold(path: str, checkpoint: str, settings: Settings, num_eval: int) -> tuple[float, dict]:
    """The threshold at the EER in an eval.json of this checkpoint and these settings, and the whole report.

    Raises UserError for any other report.
    """
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        threshold = float(report["figures"]["raw"]["eer_threshold"])
        if not has_provenance(report):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"--threshold {path}: not an eval.json of labeled trials written by this version of the program; "
            "create it with trainSyncNet.py --eval"
        ) from None
    check_made_with(f"--threshold {path}", "threshold", report, checkpoint, settings, num_eval)
    return threshold, report


def check_made_with(
    name: str, what: str, record: dict[str, Any], checkpoint: str, settings: Settings, num_eval: int
) -> None:
    """Raise UserError unless a record was made with this checkpoint and these settings.

    name: flag and file of the record. what: what the record is, for the message.
    """
    made_with, source = record["evaluated_with"], record["checkpoint"]
    if source is None:
        raise UserError(f"{name}: made with an untrained network; its {what} does not fit {checkpoint}")
    if source.get("sha256") != file_hash(checkpoint):
        raise UserError(
            f"{name}: made with another checkpoint, {source.get('path')}; its {what} does not fit"
        )
    if others := differences(made_with, evaluated_with(settings, num_eval)):
        listed = ", ".join(f"{name} {before} (here {now})" for name, before, now in others)
        raise UserError(f"{name}: made with {listed}; its {what} does not fit")
