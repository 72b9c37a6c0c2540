"""Where the results of an evaluation go, what eval.json says they are of, and the threshold that it gives."""

import hashlib
import json
import os
from dataclasses import asdict

from torch import nn

from models.settings import Settings, differences
from support.errors import UserError

REPORT = "eval.json"


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


def read_threshold(path: str, checkpoint: str, settings: Settings, num_eval: int) -> tuple[float, dict]:
    """The threshold at the EER in an eval.json of this checkpoint and these settings, and the whole report.

    Raises UserError for a report of anything else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        threshold = float(report["figures"]["raw"]["eer_threshold"])
        made_with, source = report["evaluated_with"], report["checkpoint"]
        if not isinstance(made_with, dict) or not isinstance(source, (dict, type(None))):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"--threshold {path}: not an eval.json of labelled trials that this version of the program made; "
            "make it with trainSyncNet.py --eval"
        ) from None
    if source is None:
        raise UserError(
            f"--threshold {path}: of an untrained network; its threshold does not fit {checkpoint}"
        )
    if source.get("sha256") != file_hash(checkpoint):
        raise UserError(
            f"--threshold {path}: made with another checkpoint, {source.get('path')}; its threshold does not fit"
        )
    if others := differences(made_with, evaluated_with(settings, num_eval)):
        listed = ", ".join(f"{name} {before} (here {now})" for name, before, now in others)
        raise UserError(f"--threshold {path}: made with {listed}; its threshold does not fit")
    return threshold, report
