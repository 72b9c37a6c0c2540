"""Checkpoints: plain state dicts with the 2020 baseline's names.

Settings that cannot be derived from the weights, such as the face crop used in training, are stored in the state
dict's `_metadata`, which torch saves with every state dict and programs that copy tensors by name ignore.
"""

import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from syncnet.checkpoints.by_name import is_network_of_models
from syncnet.checkpoints.recorded_settings import settings_of_flags, trained_with
from syncnet.checkpoints.torch_files import (
    CheckpointError,
    UnreadableCheckpoint,
    holds_objects,
    load_with_stand_ins,
)
from syncnet.networks.settings import Settings, check_setting
from syncnet.support.errors import UserError
from syncnet.support.files import replace_file

# Usual keys of a state dict inside a larger checkpoint, and keys of tensors that are not weights.
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "module")
NO_WEIGHTS = ("optimizer", "optimizer_state_dict", "optimizer_states", "momentum")


def read_checkpoint(path: str) -> dict[str, Tensor]:
    """Load the state dict of a checkpoint file on the CPU, and check its settings (see trained_with).

    Unwraps {"state_dict": ...}, {"model": ...} and this program's training_state.pt. Objects other than weights are
    ignored. Raises CheckpointError and OSError; see load_tensors.
    """
    loaded, objects = load_with_stand_ins(path)
    state = find_state_dict(loaded)
    if state is None and objects:
        raise UnreadableCheckpoint(f"{path}: not loaded, {holds_objects(objects[0])}")
    if state is None:
        contents = f"a {type(loaded).__name__}"
        if isinstance(loaded, dict):
            names = ", ".join(f"{name!r:.40}" for name in list(loaded)[:5])
            contents = f"the names {names}" if loaded else "nothing"
        raise CheckpointError(f"{path}: not a state dict (a dict of named tensors); it holds {contents}")
    settings = trained_with(state)
    members = loaded if isinstance(loaded, dict) else {}
    is_training_state = members.get("network") is state
    if is_training_state:
        state = OrderedDict(state)
        settings = settings_of_flags(members.get("settings"))
        vars(state)["_metadata"] = {"settings": settings}
    for name, value in settings.items():
        try:
            check_setting(name, value)
        except UserError as error:
            raise CheckpointError(f"{path}: says that it was trained with {error}") from None
    return state


def find_state_dict(loaded: object, depth: int = 3) -> dict[str, Tensor] | None:
    """Find the dict of named tensors in a loaded file: the top level, a usual key, or the only such dict."""
    if not isinstance(loaded, dict) or not loaded or not depth:
        return None
    if all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in loaded.items()):
        return loaded
    for name in WRAPPERS:
        if (state := find_state_dict(loaded.get(name), depth - 1)) is not None:
            return state
    found = [find_state_dict(value, depth - 1) for name, value in loaded.items() if name not in NO_WEIGHTS]
    found = [state for state in found if state is not None]
    return found[0] if len(found) == 1 else None


def choose_settings(path: str | None, given: Mapping[str, object]) -> tuple[Settings, list[str]]:
    """Return the settings to use with a checkpoint (path None: without one); see merge_settings."""
    return merge_settings(trained_with(read_checkpoint(path)) if path else {}, path, given)


def merge_settings(
    recorded: Mapping[str, object], path: str | None, given: Mapping[str, object]
) -> tuple[Settings, list[str]]:
    """Choose each setting: the user's value, else the one recorded in the checkpoint, else the 2020 default.

    path: the checkpoint. given: the user's values by name; None if not given.
    Returns the settings, and a line for each given one that conflicts with the checkpoint. Raises CheckpointError if
    the checkpoint's network is not in models/, unless the user names a network.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if "model" not in given and not is_network_of_models(str(recorded.get("model", Settings.model))):
        raise CheckpointError(
            f"{path}: was trained with the network {recorded['model']!r:.80}, which is not in models/, and a "
            "checkpoint cannot choose which code runs. If you trust that network, select it with --model"
        )
    conflicts = [
        f"--{name} {value} is given; {path} was trained with {recorded[name]}"
        for name, value in given.items()
        if name in recorded and recorded[name] != value
    ]
    values: dict[str, Any] = {**recorded, **given}  # Settings checks them
    return Settings(**values), conflicts


def save_checkpoint(network: nn.Module, path: str, settings: dict[str, object]) -> None:
    """Save the network's state dict and the settings it was trained with, atomically. Raises OSError."""
    save_state_dict(network.state_dict(), path, settings)


def save_state_dict(weights: Mapping[str, Tensor], path: str, settings: dict[str, object]) -> None:
    """Like save_checkpoint, for a state dict. settings: {} if unknown."""
    state = OrderedDict((name, tensor.detach().cpu().contiguous()) for name, tensor in weights.items())
    if settings:
        vars(state)["_metadata"] = {"settings": settings}
    with replace_file(path, "wb") as file:
        torch.save(state, file)


def epoch_checkpoints(folder: str) -> dict[int, str]:
    """Return {epoch: path} of the model%09d.model files in a folder, oldest first; {} if there is no such folder.

    Raises OSError.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {}
    for name in names:
        if match := re.fullmatch(r"model(\d{9,})\.model", name):
            found[int(match[1])] = os.path.join(folder, name)
    return dict(sorted(found.items()))
