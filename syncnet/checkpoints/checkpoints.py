"""Checkpoints: plain state dicts with the 2020 baseline's names, read without running anything.

What the weights do not tell, such as the crop of the face that they were trained on, is in the state dict's
`_metadata`, which torch writes with every state dict and programs that copy tensors by name do not see.
"""

import errno
import io
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from syncnet.checkpoints.by_name import is_network_of_models
from syncnet.checkpoints.inert_pickle import load_inert
from syncnet.networks.settings import Settings, check_setting, default_settings
from syncnet.networks.two_streams import settings_of_heads
from syncnet.support.errors import UserError
from syncnet.support.files import replace_file

PUBLISHED_HEADS = ("netfcaud", "netfclip")
# Where programs keep the state dict in what they save, and where they keep tensors that are none.
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "module")
NO_WEIGHTS = ("optimizer", "optimizer_state_dict", "optimizer_states", "momentum")


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and the remedy."""


class UnreadableCheckpoint(CheckpointError):
    """A file that is damaged, or holds what may not be loaded."""


def load_tensors(path: str) -> object:
    """What a file saved by torch holds, on the CPU: tensors and plain values.

    Raises CheckpointError if there is no file, UnreadableCheckpoint for a file that is damaged, of another kind, or
    holds other objects (nothing in it is run or imported), and OSError, with the file's name, for an intact file that
    could not be read: no permission, a temporary disk error, no memory.
    """
    loaded, objects = load_with_stand_ins(path)
    if objects:
        raise UnreadableCheckpoint(f"{path}: not loaded, {holds_objects(objects[0])}")
    return loaded


def load_with_stand_ins(path: str) -> tuple[object, list[str]]:
    """As load_tensors, with inert stand-ins (see inert_pickle.py) for other objects, and the names of those."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except IsADirectoryError:
        raise CheckpointError(
            f"{path}: is a folder; a checkpoint is a file, such as model000000001.model"
        ) from None
    except MemoryError:
        raise out_of_memory(path) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    sound = False
    try:
        sound = zipfile.is_zipfile(io.BytesIO(data))
        if sound:  # torch does not look at the checksums that it writes
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if damaged := archive.testzip():
                    raise UnreadableCheckpoint(
                        f"{path}: not loaded, the checksum of its part {damaged} is wrong: the file is damaged"
                    )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are read all the same
            try:
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), []
            except pickle.UnpicklingError as refused:
                try:
                    return load_inert(data)
                except MemoryError:
                    raise
                except Exception:
                    raise refused from None
    except UnreadableCheckpoint:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise OSError(error.errno, error.strerror, path) from error
        if sound and (isinstance(error, MemoryError) or "allocate memory" in str(error)):
            raise out_of_memory(path) from None
        raise UnreadableCheckpoint(f"{path}: not loaded, {what_is_wrong(data, error)}") from None


def out_of_memory(path: str) -> OSError:
    return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), path)


def what_is_wrong(data: bytes, error: Exception) -> str:
    """Why a file is no checkpoint, in words of ours: PyTorch's own advise to run what is in it."""
    if not data:
        return "the file is empty"
    if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(error))):
        return holds_objects(found[1])
    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            return "the file is damaged: its end is missing or wrong"
        if any(name.endswith("/constants.pkl") for name in names):
            return "it is a TorchScript program, not weights; save the state_dict() of what it was made from"
        if not any(name.endswith("/data.pkl") for name in names):
            return "it is a zip archive of something else, not a checkpoint"
        return "the file is damaged"
    if data.startswith(b"\x80"):
        return "it is a pickle that is damaged, or was not written by torch.save"
    return f"it is {'a text file' if is_text(data) else 'a file of another kind'}, not a checkpoint"


def holds_objects(name: str) -> str:
    """Why a file is refused that holds an object of this class."""
    return (
        f"it holds objects other than tensors ({name}), which could run code when loaded. In the program "
        "that made it, save the weights alone: torch.save(network.state_dict(), 'weights.model')"
    )


def is_text(data: bytes) -> bool:
    return not any(byte < 9 or 13 < byte < 27 for byte in data[:4096])


def read_checkpoint(path: str) -> dict[str, Tensor]:
    """The state dict of a checkpoint file, on the CPU, with checked settings (see trained_with).

    Wrapped ones are unwrapped: {"state_dict": ...}, {"model": ...} and a training_state.pt of this program. Objects
    of other classes beside the weights are ignored.
    Raises CheckpointError and OSError; see load_tensors.
    """
    loaded, objects = load_with_stand_ins(path)
    state = find_state_dict(loaded)
    if state is None and objects:
        raise UnreadableCheckpoint(f"{path}: not loaded, {holds_objects(objects[0])}")
    if state is None:
        holds = f"a {type(loaded).__name__}"
        if isinstance(loaded, dict):
            holds = (
                "the names " + ", ".join(f"{name!r:.40}" for name in list(loaded)[:5])
                if loaded
                else "nothing"
            )
        raise CheckpointError(f"{path}: not a state dict (names with a tensor each), it holds {holds}")
    said = trained_with(state)
    members = loaded if isinstance(loaded, dict) else {}
    is_training_state = members.get("network") is state
    if is_training_state:
        state = OrderedDict(state)
        said = settings_of_flags(members.get("settings"))
        vars(state)["_metadata"] = {"settings": said}
    for name, value in said.items():
        try:
            check_setting(name, value)
        except UserError as error:
            raise CheckpointError(f"{path}: says that it was trained with {error}") from None
    return state


def find_state_dict(loaded: object, depth: int = 3) -> dict[str, Tensor] | None:
    """The names with a tensor each in what a file holds: itself, else under a usual name, else the only one."""
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


def trained_with(state: dict[str, Tensor]) -> dict[str, object]:
    """The settings (see syncnet/networks/settings.py) that the weights were trained with, as far as the file says.

    Of a file that says nothing, the size of the embeddings is known by the shapes of its weights, and so is the
    published lip-sync network.
    """
    said = recorded_settings(state)
    return published_settings(state) or settings_of_heads(state) if said is None else said


def recorded_settings(state: dict[str, Tensor]) -> dict[str, object] | None:
    """The settings that a file itself says that its weights were trained with; None where it says nothing."""
    metadata = getattr(state, "_metadata", None)
    said = metadata.get("settings") if isinstance(metadata, dict) else None
    if not isinstance(said, dict):
        return None
    return {name: said[name] for name in default_settings() if name in said}


def settings_of_flags(flags: object) -> dict[str, object]:
    """The settings among the flags of a training state, whose values are text."""
    if not isinstance(flags, dict):
        return {}
    said: dict[str, object] = {}
    for name, default in default_settings().items():
        if isinstance(value := flags.get(name), str):
            said[name] = int(value) if isinstance(default, int) and re.fullmatch(r"\d{1,9}", value) else value
    return said


def choose_settings(path: str | None, given: Mapping[str, object]) -> tuple[Settings, list[str]]:
    """The settings to use: what the user gave, else what the checkpoint says, else the 2020 default.

    path: of the checkpoint, None without one. given: by name; None where the user gave nothing.
    Returns them, and a line for each that was given and is not what the checkpoint says. Raises CheckpointError,
    also for a checkpoint that names a network which models/ does not have, unless the user names one.
    """
    given = {name: value for name, value in given.items() if value is not None}
    said = trained_with(read_checkpoint(path)) if path else {}
    if "model" not in given and not is_network_of_models(str(said.get("model", Settings.model))):
        raise CheckpointError(
            f"{path}: was trained with the network {said['model']!r:.80}, which is not one of models/, and a "
            "checkpoint does not choose what is run. If you know that network, name it with --model"
        )
    told = [
        f"--{name} {value} is given; {path} was trained with {said[name]}"
        for name, value in given.items()
        if name in said and said[name] != value
    ]
    values: dict[str, Any] = {**said, **given}  # Settings checks them
    return Settings(**values), told


def save_checkpoint(network: nn.Module, path: str, settings: dict[str, object]) -> None:
    """Write the network's state dict with what it was trained with, complete or not at all. Raises OSError."""
    save_state_dict(network.state_dict(), path, settings)


def save_state_dict(weights: Mapping[str, Tensor], path: str, settings: dict[str, object]) -> None:
    """As save_checkpoint, of weights by name; settings: {} where they are not known."""
    state = OrderedDict((name, tensor.detach().cpu().contiguous()) for name, tensor in weights.items())
    if settings:
        vars(state)["_metadata"] = {"settings": settings}
    with replace_file(path, "wb") as file:
        torch.save(state, file)


def epoch_checkpoints(folder: str) -> dict[int, str]:
    """The model%09d.model files of a folder by epoch, oldest first. Raises OSError unless it is just not there."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {}
    for name in names:
        if match := re.fullmatch(r"model(\d{9,})\.model", name):
            found[int(match[1])] = os.path.join(folder, name)
    return dict(sorted(found.items()))


def published_settings(state: dict[str, Tensor]) -> dict[str, object]:
    """The settings of a state dict of this network, whatever its names begin with; {} where it is of another.

    It is told by its heads, which are dense (two dimensions), where the other networks' are convolutions.
    """
    heads = [
        tensor
        for name, tensor in state.items()
        if name.endswith(tuple(f"{h}.0.weight" for h in PUBLISHED_HEADS))
    ]
    sizes = [len(tensor) for name, tensor in state.items() if name.endswith(f"{PUBLISHED_HEADS[0]}.3.weight")]
    if len(heads) != len(PUBLISHED_HEADS) or len(sizes) != 1 or any(head.dim() != 2 for head in heads):
        return {}
    return {"model": "models.SyncNetV2", "nOut": sizes[0], "temporal_stride": 1}
