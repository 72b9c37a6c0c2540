"""Write the results of an evaluation: scores, a DET plot and eval.json, in one folder per trial list."""

import hashlib
import json
import os

import numpy as np

from syncnet.support.errors import UserError
from syncnet.support.files import file_hash, replace_file
from syncnet.verification.det import plot_det
from syncnet.verification.provenance import REPORT, SCORE_FILES, read_report
from syncnet.verification.scores import write_scores
from syncnet.verification.trials import Trials

DET_PLOT = "eval_det.png"


def trial_list_id(test_list: str, test_path: str) -> dict[str, str]:
    """The identity of the trials of a result: the content of the list, and the folder of its wavs."""
    return {
        "path": os.path.abspath(test_list),
        "sha256": file_hash(test_list),
        "test_path": os.path.realpath(test_path),
    }


def is_same_list(recorded: object, trial_list: dict[str, str]) -> bool:
    """True if both identify the same trials of the same wavs. The list may have been moved or renamed."""
    return isinstance(recorded, dict) and all(
        recorded.get(name) == trial_list[name] for name in ("sha256", "test_path")
    )


def choose_folder(result_folder: str, trial_list: dict[str, str]) -> tuple[str, dict | None]:
    """The folder for the results of a trial list, and the report already in it.

    This is result_folder unless it holds the results of another list; then eval_<name of the list> inside it, with a
    hash of the list and its wav folder appended if another list of that name is there.
    """
    name = os.path.splitext(os.path.basename(trial_list["path"]))[0]
    key = hashlib.sha256(
        (trial_list["sha256"] + trial_list["test_path"]).encode(errors="surrogateescape")
    ).hexdigest()
    for subfolder in ("", f"eval_{name}", f"eval_{name}_{key[:8]}"):
        folder = os.path.join(result_folder, subfolder) if subfolder else result_folder
        before = read_report(folder)
        if before is None or is_same_list(before.get("trial_list"), trial_list):
            return folder, before
    raise UserError(f"{folder}: holds results of other trials; move them, or use another --save_path")


def write_results(report: dict, result_folder: str, scores: dict[str, np.ndarray], trials: Trials) -> None:
    """Write the scores, the DET plot and, last, eval.json; print what they replace."""
    folder, before = choose_folder(result_folder, report["trial_list"])
    if folder != result_folder:
        print(f"{os.path.join(result_folder, REPORT)} is for other trials and is left unchanged")
    if before is not None:
        old, new = before.get("checkpoint") or {}, report["checkpoint"] or {}
        changed = any(before.get(name) != report[name] for name in ("evaluated_with", "precision"))
        if changed or old.get("sha256") != new.get("sha256"):
            other = ", with other settings" if changed else ""
            print(
                f"Replacing the results of {old.get('path', 'an untrained network')} on these trials{other}"
            )
        for name in (REPORT, DET_PLOT, *SCORE_FILES.values()):
            if os.path.exists(path := os.path.join(folder, name)):
                os.remove(path)
    written = []
    for kind, values in scores.items():
        written.append(SCORE_FILES[kind])
        write_scores(os.path.join(folder, SCORE_FILES[kind]), values, trials)
    if trials.labels is not None:
        written.append(DET_PLOT)
        title = os.path.basename(report["checkpoint"]["path"]) if report["checkpoint"] else "untrained"
        curves = {f"{title}, {kind}": (values, trials.labels) for kind, values in scores.items()}
        plot_det(curves, os.path.join(folder, DET_PLOT))
    with replace_file(os.path.join(folder, REPORT)) as file:
        json.dump(report, file, indent=2, allow_nan=False)
    print(f"In {folder}: {', '.join(written)}, {REPORT}")
