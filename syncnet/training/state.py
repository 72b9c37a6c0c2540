"""The exact state of a run, in one file in addition to its checkpoints; a run resumes from it as if never stopped.

The file holds only tensors, numbers and strings, and is read with weights_only=True, so it cannot run code. It is
replaced atomically, so a killed run leaves the last complete state.
"""

import hashlib
import math
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from syncnet.checkpoints.torch_files import CheckpointError, UnreadableCheckpoint, load_tensors
from syncnet.compute import distributed
from syncnet.support.files import replace_file
from syncnet.training.epoch import PARTS
from SyncNetDist import SyncNet

VERSION = 2  # version 1 had SGD's momenta by parameter name, and no learning rate
# Flags that may change between two starts of a run: they affect speed, location or length, not results. For lists
# and folders of sounds, hashes of the content are compared instead.
FREE_SETTINGS = {
    "save_path", "initial_model", "max_epoch", "nDataLoaderThread", "device", "eval", "test_list", "test_path",
    "train_list", "verify_list", "save_steps", "keep", "force_resume", "decode_timeout", "max_bad",
    "num_eval", "test_interval", "test_sync", "tensorboard", "score_norm", "cohort", "cohort_path", "cohort_size",
    "top_n", "save_embeddings", "load_embeddings", "augment_noise", "augment_rir",
}  # fmt: skip


@dataclass(eq=False)
class ResumeState:
    """The position of a run. rows: metrics of the epoch's finished steps, one row of PARTS per step.

    random_state: of Python's random module, from which each step draws. torch_state, gpu_state: of torch on the CPU
    and on the GPU, from which layers such as dropout draw; None: unknown, leave the generator unchanged.
    hung: clips that took too long to decode, by list; see DatasetLoader.hung.
    """

    epoch: int  # current epoch, from 1
    rows: list[list[float]]
    random_state: tuple
    torch_state: Tensor | None = None
    gpu_state: Tensor | None = None
    hung: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)

    @classmethod
    def now(cls, epoch: int, rows: list[list[float]], device: torch.device) -> "ResumeState":
        """Return the state at this step, with the current state of the random generators."""
        gpu_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(epoch, rows, random.getstate(), torch.get_rng_state(), gpu_state)

    def set_generators(self, device: torch.device) -> None:
        """Set the random generators that a step on this device uses."""
        random.setstate(self.random_state)
        if is_state_like(self.torch_state, torch.get_rng_state()):
            torch.set_rng_state(self.torch_state)
        if device.type == "cuda" and is_state_like(self.gpu_state, torch.cuda.get_rng_state(device)):
            torch.cuda.set_rng_state(self.gpu_state, device)


@contextmanager
def same_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the random generators inside the context, and restore their state afterward."""
    before = ResumeState.now(0, [], device)
    random.seed(seed)
    try:
        yield
    finally:
        before.set_generators(device)


def binding_settings(args: dict[str, object], lists: dict[str, str]) -> dict[str, str]:
    """Return the settings that must not change when a run resumes; lists are identified by content, not by path."""
    settings = {name: str(value) for name, value in args.items() if name not in FREE_SETTINGS}
    for name, path in lists.items():
        with open(path, "rb") as file:
            settings[f"content of --{name}"] = hashlib.sha256(file.read()).hexdigest()[:16]
    return settings


def optimizer_state(network: SyncNet) -> dict[str, Any]:
    """Return the state dicts of the optimizer and the scheduler (None without one), and "parameters".

    These are the names of the optimizer's parameters, in the optimizer's order.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = network.__optimizer__.param_groups
    return {
        "parameters": [names[parameter] for group in groups for parameter in group["params"]],
        "optimizer": network.__optimizer__.state_dict(),
        "scheduler": network.__scheduler__.state_dict() if network.__scheduler__ else None,
    }


def restore_optimizer(network: SyncNet, state: dict[str, Any]) -> None:
    """Load a result of optimizer_state into the optimizer and the scheduler."""
    network.__optimizer__.load_state_dict(state["optimizer"])
    if network.__scheduler__ and state["scheduler"]:
        network.__scheduler__.load_state_dict(state["scheduler"])


def optimizer_classes(network: SyncNet) -> dict[str, str]:
    """Return the class names of the optimizer and the scheduler, which a run must keep like its settings."""
    parts = {"optimizer": network.__optimizer__, "scheduler": network.__scheduler__}
    return {name: type(part).__name__ for name, part in parts.items()}


CLASSES_2020 = {"optimizer": "SGD", "scheduler": "NoneType"}  # for a state that does not record them


def same_steps(state: dict, network: SyncNet) -> bool:
    """Return whether a state is from the same classes of optimizer and scheduler, so that they can load it."""
    return all(
        state["settings"].get(name, CLASSES_2020[name]) == kind
        for name, kind in optimizer_classes(network).items()
    )


def save_state(path: str, network: SyncNet, position: ResumeState, settings: dict[str, str]) -> None:
    """Write the state atomically. Raises OSError."""
    version, words, gauss = position.random_state
    state = {
        "version": VERSION,
        "epoch": position.epoch,
        "rows": torch.tensor(position.rows, dtype=torch.float64).reshape(-1, len(PARTS)),
        "random": torch.tensor([version, *words], dtype=torch.int64),
        "gauss": gauss,
        "torch_random": position.torch_state,
        "gpu_random": position.gpu_state,
        "hung": position.hung,
        "settings": settings,
        "network": network.state_dict(),
        **optimizer_state(network),
    }
    with replace_file(path, "wb") as file:
        torch.save(state, file)


def read_state(path: str) -> dict | None:
    """Read a run's state and check its form; None if there is no file.

    Raises UnreadableCheckpoint if the file is damaged or not a state, CheckpointError for a state from a newer
    version, OSError if the file is temporarily unreadable.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return None
    state = load_tensors(path)
    version = state.get("version") if isinstance(state, dict) else None
    if isinstance(version, int) and not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{path}: has version {version}, this program writes {VERSION}; resume with the program that wrote it, "
            "or use another --save_path"
        )
    if not isinstance(state, dict):
        raise UnreadableCheckpoint(f"{path}: not a training state of this program")
    check_form(path, state)
    return state


def check_form(path: str, state: dict) -> None:
    """Raise UnreadableCheckpoint unless a state has all parts, with the right types and plausible values."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "version": int, "epoch": int, "rows": Tensor, "random": Tensor, "gauss": (float, type(None)),
        "torch_random": (Tensor, type(None)), "gpu_random": (Tensor, type(None)), "hung": dict,
        "settings": dict, "network": dict, "parameters": list, "optimizer": dict, "scheduler": (dict, type(None)),
    }  # fmt: skip
    if state.get("version") == 1:
        later = ("torch_random", "gpu_random", "hung", "parameters", "optimizer", "scheduler")
        kinds = {name: kind for name, kind in kinds.items() if name not in later} | {"momentum": dict}
    if not kinds.keys() <= state.keys() or (state["version"] != 1 and state.keys() != kinds.keys()):
        raise UnreadableCheckpoint(f"{path}: not a training state of this program")
    for name, kind in kinds.items():
        if not isinstance(state[name], kind):
            raise UnreadableCheckpoint(f"{path}: {name} is a {type(state[name]).__name__}")
    rows, words = state["rows"], state["random"]
    if (
        rows.dtype != torch.float64
        or rows.dim() != 2
        or not 1 <= rows.shape[1] <= len(PARTS)
        or state["epoch"] < 1
    ):
        raise UnreadableCheckpoint(f"{path}: its position in the run is invalid")
    # The total loss is finite in every step; its parts are NaN if they are not computed.
    figures_fit = rows[:, 0].isfinite().all() and not rows.isinf().any()
    if words.dtype != torch.int64 or words.shape != (626,) or not figures_fit:
        raise UnreadableCheckpoint(f"{path}: its random state or its figures are invalid")


def fit_state(path: str, state: dict, network: SyncNet) -> dict:
    """Check a state against this network and return it, converted from version 1 if necessary.

    Raises CheckpointError if the state belongs to another network.
    """
    if state["version"] == 1:
        state = from_version_1(path, state, network)
    check_tensors(path, "network", state["network"], network.state_dict())
    if same_steps(state, network):
        check_optimizer(path, state, network)
    return state


def from_version_1(path: str, state: dict, network: SyncNet) -> dict:
    """Convert a state of version 1 to the current version, with the network's learning rate."""
    momenta = state["momentum"]
    parameters = dict(network.named_parameters())
    if not momenta.keys() <= parameters.keys():
        raise CheckpointError(f"{path}: has momenta of another network; use another --save_path")
    check_tensors(path, "momentum", momenta, {name: parameters[name] for name in momenta})
    steps = optimizer_state(network)
    buffers = {steps["parameters"].index(name): {"momentum_buffer": momenta[name]} for name in momenta}
    steps["optimizer"] = steps["optimizer"] | {"state": buffers}
    rest = {name: value for name, value in state.items() if name != "momentum"}
    return {"torch_random": None, "gpu_random": None, "hung": {}} | rest | steps


def check_tensors(path: str, part: str, found: dict, own: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless a state has all tensors of the network, with the same shapes and dtypes."""
    for name, expected in own.items():
        tensor = found.get(name)
        if not isinstance(tensor, Tensor) or tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise CheckpointError(
                f"{path}: {part} {name} does not fit (was it trained with another --model or --nOut?); "
                "use another --save_path, with a checkpoint of this run as --initial_model to keep what fits"
            )


def check_optimizer(path: str, state: dict, network: SyncNet) -> None:
    """Raise CheckpointError unless the optimizer's state has the same parameters in the same groups."""
    own = optimizer_state(network)
    if state["parameters"] != own["parameters"]:
        raise CheckpointError(
            f"{path}: its optimizer has parameters of another network; use another --save_path"
        )
    groups = [
        [len(group.get("params", ())) if isinstance(group, dict) else None for group in groups]
        for groups in (state["optimizer"].get("param_groups", ()), own["optimizer"]["param_groups"])
    ]
    if groups[0] != groups[1] or not isinstance(state["optimizer"].get("state"), dict):
        raise CheckpointError(
            f"{path}: its optimizer has parameter groups of {groups[0]} parameters, the program's has {groups[1]}; "
            "use another --save_path, with a checkpoint of this run as --initial_model"
        )


def restore(state: dict, network: SyncNet) -> ResumeState:
    """Load a checked state into the network, and into its optimizer if it is of the same class."""
    network.load_state_dict(state["network"])
    if same_steps(state, network):
        restore_optimizer(network, state)
    rows = state["rows"]  # in states of earlier versions, with fewer columns than PARTS
    version, *words = state["random"].tolist()
    random_state = (version, tuple(words), state["gauss"])
    return ResumeState(
        state["epoch"],
        nn.functional.pad(rows, (0, len(PARTS) - rows.shape[1]), value=math.nan).tolist(),
        random_state,
        state["torch_random"],
        state["gpu_random"],
        state["hung"],
    )


def is_state_like(state: Tensor | None, present: Tensor) -> TypeGuard[Tensor]:
    """Return whether a generator can load a state; other versions of torch may have states of another form."""
    return state is not None and state.dtype == present.dtype and state.shape == present.shape


def sync_from_rank_zero(network: SyncNet, settings: dict[str, str]) -> None:
    """Broadcast weights, running statistics and optimizer state from rank 0 to all processes.

    Raises UserError, naming the process, if weights, settings or the content of lists (see binding_settings) differ
    afterward.
    """
    if distributed.processes() == 1:
        return
    restore_optimizer(network, distributed.on_rank_zero(lambda: on_cpu(optimizer_state(network))))
    tensors = list(network.state_dict().values())
    distributed.broadcast_from_rank_zero(tensors)
    distributed.check_same({"weights": hash_of_tensors(tensors)} | settings)


def on_cpu(state: Any) -> Any:
    """Copy nested dicts and lists, with their tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {name: on_cpu(value) for name, value in state.items()}
    return [on_cpu(value) for value in state] if isinstance(state, list) else state


def hash_of_tensors(tensors: Iterable[Tensor]) -> str:
    """Return a hash of the values of tensors."""
    values = hashlib.sha256()
    for tensor in tensors:
        values.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return values.hexdigest()
