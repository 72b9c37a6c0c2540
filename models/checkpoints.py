"""Checkpoints: plain state dicts with the 2020 baseline's names, read without running anything.

What the weights do not tell, such as the crop of the face that they were trained on, is in the state dict's
`_metadata`, which torch writes with every state dict and programs that copy tensors by name do not see.
"""

import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from support.errors import UserError
from support.files import replace_file


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and the remedy."""


class UnreadableCheckpoint(CheckpointError):
    """A file that is damaged, or holds what may not be loaded."""


@dataclass
class Misfits:
    """What of a checkpoint and a network did not fit each other; names are the network's where it has them."""

    missing: list[str] = field(default_factory=list)  # in the network, not in the checkpoint
    shape: dict[str, str] = field(default_factory=dict)  # name -> both shapes or kinds of number, in words
    unknown: list[str] = field(default_factory=list)  # in the checkpoint, not in the network

    def lines(self, names: set[str] | None = None) -> list[str]:
        """A line for each, or for those of the network's names that are in `names` alone."""
        wanted = [name for name in self.missing if names is None or name in names]
        found = [f"{name} is not in the checkpoint" for name in wanted]
        found += [text for name, text in self.shape.items() if names is None or name in names]
        return (
            found if names is not None else found + [f"{name} is not in the model" for name in self.unknown]
        )


def load_tensors(path: str) -> object:
    """What a file saved by torch holds, on the CPU. Raises CheckpointError, UnreadableCheckpoint.

    Only tensors and plain values are read (torch's weights_only): a file that asks for anything else is
    refused before any of it runs.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        if zipfile.is_zipfile(path):  # torch does not look at the checksums that it writes
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of its part {damaged} is wrong: the file is damaged")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):  # the file may be whole
        raise
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            reason = "it holds objects other than tensors, which could run code when loaded"
        raise UnreadableCheckpoint(f"{path}: not loaded, {reason}") from None


def read_checkpoint(path: str) -> dict[str, Tensor]:
    """The state dict of a checkpoint file, on the CPU. Raises CheckpointError; see load_tensors."""
    state = load_tensors(path)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(f"{path}: not a state dict (names with a tensor each)")
    return state


def trained_with(state: dict[str, Tensor]) -> dict[str, object]:
    """The settings that a checkpoint's weights were trained with; empty where it does not say."""
    metadata = getattr(state, "_metadata", None)
    settings = metadata.get("settings") if isinstance(metadata, dict) else None
    return settings if isinstance(settings, dict) else {}


def copy_weights(network: nn.Module, state: dict[str, Tensor]) -> Misfits:
    """Copy tensors into the network by name, also by the name without `module.`; return what did not fit."""
    own = network.state_dict()
    left = set(own)
    misfits = Misfits()
    for original, tensor in state.items():
        name = original if original in own else original.replace("module.", "")
        if name not in own:
            misfits.unknown.append(original)
            continue
        left.discard(name)
        if own[name].is_floating_point() != tensor.is_floating_point():
            misfits.shape[name] = (
                f"{name} is {tensor.dtype} in the checkpoint, {own[name].dtype} in the model"
            )
            continue
        if own[name].shape != tensor.shape:
            misfits.shape[name] = (
                f"{name} has shape {tuple(tensor.shape)} in the checkpoint, {tuple(own[name].shape)} in the model"
            )
            continue
        own[name].copy_(tensor)
    misfits.missing = [name for name in own if name in left]
    return misfits


def save_checkpoint(network: nn.Module, path: str, settings: dict[str, object]) -> None:
    """Write the network's state dict with what it was trained with, complete or not at all. Raises OSError."""
    state = OrderedDict(
        (name, tensor.detach().cpu().contiguous()) for name, tensor in network.state_dict().items()
    )
    state._metadata = {"settings": settings}
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
