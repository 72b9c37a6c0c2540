"""Average the weights of several checkpoints, usually from the last epochs of one run.

Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018. Running statistics of
batch normalization are averaged like weights; the paper recomputes them on training data, which matters if the
checkpoints are far apart.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from syncnet.checkpoints.checkpoints import read_checkpoint
from syncnet.checkpoints.recorded_settings import recorded_settings
from syncnet.checkpoints.torch_files import CheckpointError
from syncnet.checkpoints.weights import kind_of, not_finite, plain_name
from syncnet.networks.settings import differences

NETWORK = "__S__."  # prefix of the network's weights in a complete checkpoint
COUNTER = ".num_batches_tracked"
LISTED = 3  # mismatches listed in a message


def average_checkpoints(paths: Sequence[str]) -> tuple[OrderedDict[str, Tensor], dict[str, object]]:
    """Return the mean weights of two or more checkpoints, and their common recorded settings ({} if none).

    Names are those of a complete checkpoint (126 for the networks of the 2020 baseline), without wrappers.
    Floating-point tensors are summed in float64; the largest batch counter is used; other integers must be equal.
    Raises CheckpointError, naming the file, if the networks or settings differ or a value is not finite.
    """
    first, *others = paths
    state = named_alike(read_checkpoint(first))
    settings = recorded_settings(state) or {}
    check_finite(state, first)
    sums = {name: tensor.double() for name, tensor in state.items() if tensor.is_floating_point()}
    mean = OrderedDict(state)
    for path in others:
        state = named_alike(read_checkpoint(path))
        check_settings(settings, recorded_settings(state) or {}, first, path)
        check_same_network(mean, state, first, path)
        check_finite(state, path)
        for name, tensor in state.items():
            if name in sums:
                sums[name] += tensor
                mean[name] = mean[name].to(torch.promote_types(mean[name].dtype, tensor.dtype))
            elif name.endswith(COUNTER):
                mean[name] = torch.maximum(mean[name], tensor)
            elif not torch.equal(mean[name], tensor):
                raise CheckpointError(f"{path}: {name} differs from {first}, and integers have no mean")
    for name, total in sums.items():
        mean[name] = (total / len(paths)).to(mean[name].dtype)
    return mean, settings


def named_alike(state: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Rename a state dict's tensors as in a complete checkpoint, and keep its metadata."""
    names = {name: plain_name(name) for name in state}
    inner = not any(name.startswith(NETWORK) for name in names.values())
    named = OrderedDict((NETWORK + names[n] if inner else names[n], tensor) for n, tensor in state.items())
    if (metadata := getattr(state, "_metadata", None)) is not None:
        vars(named)["_metadata"] = metadata
    return named


def check_settings(first: dict[str, object], other: dict[str, object], path: str, other_path: str) -> None:
    """Raise CheckpointError unless both record the same settings, or neither records any."""
    if bool(first) != bool(other):
        without, recorded = (other_path, path) if first else (path, other_path)
        raise CheckpointError(
            f"{without}: does not record its settings, but {recorded} does; average checkpoints of one run"
        )
    if others := differences(first, other):
        listed = ", ".join(f"{name} {now} ({path}: {before})" for name, before, now in others)
        raise CheckpointError(f"{other_path}: was trained with {listed}; average checkpoints of one run")


def check_same_network(
    first: dict[str, Tensor], other: dict[str, Tensor], path: str, other_path: str
) -> None:
    """Raise CheckpointError unless both have the same names, shapes and kinds of numbers."""
    found = [f"has no {name}" for name in first if name not in other]
    found += [f"has {name}, which is not in {path}" for name in other if name not in first]
    for name in first:
        if name in other and (ours := describe(first[name])) != (theirs := describe(other[name])):
            found.append(f"{name} is {theirs}, in {path} {ours}")
    if found:
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        listed = "; ".join(found[:LISTED])
        raise CheckpointError(f"{other_path}: is a different network from {path}: {listed}{more}")


def describe(tensor: Tensor) -> str:
    return f"{kind_of(tensor)} {tuple(tensor.shape)}"


def check_finite(state: dict[str, Tensor], path: str) -> None:
    for name, tensor in state.items():
        if kind_of(tensor) not in ("floating point", "integer"):
            raise CheckpointError(f"{path}: {name} is {kind_of(tensor)}, which has no mean")
    if problem := not_finite(state, "omit this checkpoint"):
        name, cause = problem
        raise CheckpointError(f"{path}: {name} has values that are not finite: {cause}")
