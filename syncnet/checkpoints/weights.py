"""Copy the weights of a checkpoint into a network by name, and report mismatches."""

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from syncnet.checkpoints.checkpoints import read_checkpoint
from syncnet.checkpoints.recorded_settings import published_settings, trained_with
from syncnet.checkpoints.torch_files import CheckpointError

# Names that torch.compile and DataParallel insert.
ADDED_NAMES = ("module", "_orig_mod")


@dataclass
class Misfits:
    """Mismatches between a checkpoint and a network. Names are the network's, if it has them."""

    missing: list[str] = field(default_factory=list)  # in the network, not in the checkpoint
    shape: dict[str, str] = field(default_factory=dict)  # name -> message with both shapes or kinds
    unknown: list[str] = field(default_factory=list)  # in the checkpoint, not in the network

    def lines(self, names: set[str] | None = None) -> list[str]:
        """Return one line per mismatch, or only for the network's weights in `names`."""
        wanted = [name for name in self.missing if names is None or name in names]
        found = [f"{name} is not in the checkpoint" for name in wanted]
        found += [text for name, text in self.shape.items() if names is None or name in names]
        if names is None:
            found += [f"{name} is not in the model" for name in self.unknown]
        return found


def load_weights(network: nn.Module, path: str, crop: str, strict: bool = False) -> Misfits:
    """Copy a checkpoint's tensors by name, print one line per mismatch, and return the mismatches.

    crop: the face crop of the network. strict: raise CheckpointError instead if a needed weight is missing or has
    another shape. Raises CheckpointError if the file is not a state dict, or the weights were trained on another crop
    or are not finite.
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
    # The published lip-sync network was saved without the scales of the losses, which are not needed.
    for line in needed if published_settings(state) else misfits.lines():
        print(f"{path}: {line}")
    return misfits


def not_finite(state: dict[str, Tensor], remedy: str) -> tuple[str, str] | None:
    """Find the first tensor with a NaN or infinity; returns its name and the cause with a remedy, or None.

    remedy: for the case that training has failed.
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
    """Like torch.isfinite, but also supports 8-bit floating-point types."""
    return (tensor.float() if tensor.element_size() == 1 else tensor).isfinite()


def copy_weights(network: nn.Module, state: dict[str, Tensor]) -> Misfits:
    """Copy tensors into the network by name, and return the mismatches.

    Ignores `module.` and `_orig_mod.`, which DataParallel and torch.compile insert, and adds `__S__.` if only the
    inner network was saved.
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
    """Return a weight's name without the parts that torch.compile and DataParallel insert."""
    return ".".join(part for part in name.split(".") if part not in ADDED_NAMES)


def needed_weights(network: nn.Module) -> set[str]:
    """Return the names that SyncNet cannot be used without: weights and running statistics of the inner network.

    The scales of the losses, the constants of the front end and the batch counters are not needed.
    """
    return {
        name
        for name in network.state_dict()
        if name.startswith("__S__.") and not re.search(r"\.torchfb\.|\.num_batches_tracked$", name)
    }


def kind_of(tensor: Tensor) -> str:
    """Return the kind of numbers in a tensor. Tensors of one kind, such as float16 and float32, can be converted."""
    if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
        return "a sparse, quantized or meta tensor"
    if tensor.is_complex():
        return "complex"
    return "floating point" if tensor.is_floating_point() else "integer"
