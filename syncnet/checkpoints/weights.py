"""The weights of a checkpoint in a network: what fits is copied by name, and what does not is told."""

import re
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from syncnet.checkpoints.checkpoints import read_checkpoint
from syncnet.checkpoints.recorded_settings import published_settings, trained_with
from syncnet.checkpoints.torch_files import CheckpointError

# Names that torch.compile and DataParallel put around a network's.
ADDED_NAMES = ("module", "_orig_mod")


class HasStateDict(Protocol):
    """A network, or what passes for one."""

    def state_dict(self) -> dict[str, Any]: ...


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


def load_weights(network: nn.Module, path: str, crop: str, strict: bool = False) -> Misfits:
    """Copy a checkpoint's tensors by name, print a line for each that does not fit, and return them.

    crop: of the face that the network sees. strict: raise CheckpointError instead when a weight that is needed is
    missing or of another shape. Raises CheckpointError for a file that is not a state dict, whose weights were
    trained on another crop, or are not numbers any more.
    """
    state = read_checkpoint(path)
    theirs = trained_with(state).get("crop", crop)
    if theirs != crop:
        raise CheckpointError(
            f"{path}: was trained with --crop {theirs}, this is --crop {crop}; use --crop {theirs}"
        )
    if problem := not_finite(state, "use an earlier checkpoint"):
        name, cause = problem
        raise CheckpointError(f"{path}: {name} holds values that are not finite: {cause}")
    misfits = copy_weights(network, state)
    needed = misfits.lines(needed_weights(network))
    if strict and needed:
        raise CheckpointError(
            f"{path}: {len(needed)} weights of the network do not fit "
            "(was it trained with another --model or --nOut?):\n  " + "\n  ".join(needed)
        )
    # The published lip-sync network was saved without losses' scales, and is used without.
    for line in needed if published_settings(state) else misfits.lines():
        print(f"{path}: {line}")
    return misfits


def not_finite(state: dict[str, Tensor], remedy: str) -> tuple[str, str] | None:
    """The name of the first tensor with a NaN or an infinity, and the cause with what to do; None if all are finite.

    remedy: what to do where training has failed.
    """
    bad = [
        name
        for name, tensor in state.items()
        if kind_of(tensor) == "floating point" and not is_finite(tensor).all()
    ]
    if not bad:
        return None
    if all(state[name].dtype == torch.float16 and not state[name].isnan().any() for name in bad):
        largest = torch.finfo(torch.float16).max
        return bad[0], (
            f"it was saved in float16, whose largest number is {largest:.0f}, and running variances of pixels from 0 "
            "to 255 are larger; save it in float32 or bfloat16"
        )
    return bad[0], f"its training has failed; {remedy}"


def is_finite(tensor: Tensor) -> Tensor:
    """torch.isfinite, also of 8-bit floating-point numbers."""
    return (tensor.float() if tensor.element_size() == 1 else tensor).isfinite()


def copy_weights(network: nn.Module, state: dict[str, Tensor]) -> Misfits:
    """Copy tensors into the network by name; return what did not fit.

    A name fits also without the `module.` and `_orig_mod.` that DataParallel and torch.compile put into it, and
    below `__S__.` where the inner network was saved alone.
    """
    own = network.state_dict()
    left = set(own)
    misfits = Misfits()
    for original, tensor in state.items():
        plain = plain_name(original)
        name = next((name for name in (original, plain, f"__S__.{plain}") if name in own), None)
        if name is None:
            misfits.unknown.append(original)
            continue
        left.discard(name)
        if kind_of(own[name]) != kind_of(tensor):
            misfits.shape[name] = (
                f"{name} is {kind_of(tensor)} in the checkpoint, {kind_of(own[name])} in the model"
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


def plain_name(name: str) -> str:
    """A weight's name without what torch.compile and DataParallel put into it."""
    return ".".join(part for part in name.split(".") if part not in ADDED_NAMES)


def needed_weights(network: HasStateDict) -> set[str]:
    """The names without which SyncNet cannot be used: weights and running statistics of the network itself.

    Not the losses' scales, the front end's constants or the counters of batches.
    """
    return {
        name
        for name in network.state_dict()
        if name.startswith("__S__.") and not re.search(r"\.torchfb\.|\.num_batches_tracked$", name)
    }


def kind_of(tensor: Tensor) -> str:
    """Tensors of one kind can be copied into each other: float16 into float32, not whole numbers."""
    if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
        return "a tensor without plain numbers"
    return (
        "complex"
        if tensor.is_complex()
        else "floating point"
        if tensor.is_floating_point()
        else "whole numbers"
    )
