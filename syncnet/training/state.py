"""The exact state of a run, from which it resumes as if it had never stopped, in one file beside its checkpoints.

The file holds tensors, numbers and strings only, and is read with torch's weights_only: nothing in it
can run. It is replaced as a whole, so a killed run leaves the last complete one.
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

VERSION = 2  # 1 had SGD's momenta by parameter name, and no learning rate
# Flags that may change between two starts of one run: they alter speed, place or length, not results.
# Of lists and folders of sounds, the content counts instead.
FREE_SETTINGS = {
    "save_path", "initial_model", "max_epoch", "nDataLoaderThread", "device", "eval", "test_list", "test_path",
    "train_list", "verify_list", "save_steps", "keep", "force_resume", "decode_timeout", "max_bad",
    "num_eval", "test_interval", "test_sync", "tensorboard", "score_norm", "cohort", "cohort_path", "cohort_size",
    "top_n", "save_embeddings", "load_embeddings", "augment_noise", "augment_rir",
}  # fmt: skip


@dataclass(eq=False)
class ResumeState:
    """Where a run is: `rows` holds the figures of the epoch's finished steps, one row of PARTS per step.

    The next step draws from random_state, of Python's random, and where the network itself draws, as dropout does,
    from torch_state, of torch on the CPU, or gpu_state. None: unknown, they stay as they are.
    hung: by list, the clips that took too long to decode; see DatasetLoader.hung.
    """

    epoch: int  # being trained, from 1
    rows: list[list[float]]
    random_state: tuple
    torch_state: Tensor | None = None
    gpu_state: Tensor | None = None
    hung: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)

    @classmethod
    def now(cls, epoch: int, rows: list[list[float]], device: torch.device) -> "ResumeState":
        """The state at this step, with the random generators as they are."""
        gpu_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(epoch, rows, random.getstate(), torch.get_rng_state(), gpu_state)

    def set_generators(self, device: torch.device) -> None:
        """Set the random generators that a step on this device draws from."""
        random.setstate(self.random_state)
        if is_state_like(self.torch_state, torch.get_rng_state()):
            torch.set_rng_state(self.torch_state)
        if device.type == "cuda" and is_state_like(self.gpu_state, torch.cuda.get_rng_state(device)):
            torch.cuda.set_rng_state(self.gpu_state, device)


@contextmanager
def same_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from this seed inside, and continue afterwards with the random numbers of before."""
    before = ResumeState.now(0, [], device)
    random.seed(seed)
    try:
        yield
    finally:
        before.set_generators(device)


def binding_settings(args: dict[str, object], lists: dict[str, str]) -> dict[str, str]:
    """The settings that a run must keep to stay the same run; lists by their content, not their place."""
    settings = {name: str(value) for name, value in args.items() if name not in FREE_SETTINGS}
    for name, path in lists.items():
        with open(path, "rb") as file:
            settings[f"content of --{name}"] = hashlib.sha256(file.read()).hexdigest()[:16]
    return settings


def optimizer_state(network: SyncNet) -> dict[str, Any]:
    """The state of the optimizer and of the scheduler (None without one), as torch gives it.

    parameters: the names of the optimizer's parameters, in its order.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = network.__optimizer__.param_groups
    return {
        "parameters": [names[parameter] for group in groups for parameter in group["params"]],
        "optimizer": network.__optimizer__.state_dict(),
        "scheduler": network.__scheduler__.state_dict() if network.__scheduler__ else None,
    }


def restore_optimizer(network: SyncNet, state: dict[str, Any]) -> None:
    """Put what optimizer_state gave into the optimizer and the scheduler."""
    network.__optimizer__.load_state_dict(state["optimizer"])
    if network.__scheduler__ and state["scheduler"]:
        network.__scheduler__.load_state_dict(state["scheduler"])


def optimizer_classes(network: SyncNet) -> dict[str, str]:
    """The classes of the optimizer and the scheduler: a run must keep them, as its settings."""
    parts = {"optimizer": network.__optimizer__, "scheduler": network.__scheduler__}
    return {name: type(part).__name__ for name, part in parts.items()}


CLASSES_2020 = {"optimizer": "SGD", "scheduler": "NoneType"}  # of a state that does not say


def same_steps(state: dict, network: SyncNet) -> bool:
    """Is a state of this optimizer and scheduler, so that it can be put into them?"""
    return all(
        state["settings"].get(name, CLASSES_2020[name]) == kind
        for name, kind in optimizer_classes(network).items()
    )


def save_state(path: str, network: SyncNet, position: ResumeState, settings: dict[str, str]) -> None:
    """Write the state, complete or not at all. Raises OSError."""
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

    Raises UnreadableCheckpoint for a file that is damaged or no state, CheckpointError for a state of a newer
    version, OSError for one that is temporarily unreadable.
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
    """Raise UnreadableCheckpoint unless a state has all its parts, each of its type, and makes sense."""
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
        raise UnreadableCheckpoint(f"{path}: its position in the run makes no sense")
    # The total loss is finite in every step; its parts are NaN where they are not computed.
    figures_fit = rows[:, 0].isfinite().all() and not rows.isinf().any()
    if words.dtype != torch.int64 or words.shape != (626,) or not figures_fit:
        raise UnreadableCheckpoint(f"{path}: its random state or its figures make no sense")


def fit_state(path: str, state: dict, network: SyncNet) -> dict:
    """A state that has been read, checked against this network.

    A state of version 1 comes back as one of this version whose learning rate is the network's.
    Raises CheckpointError for a state of another network.
    """
    if state["version"] == 1:
        state = from_version_1(path, state, network)
    check_tensors(path, "network", state["network"], network.state_dict())
    if same_steps(state, network):
        check_optimizer(path, state, network)
    return state


def from_version_1(path: str, state: dict, network: SyncNet) -> dict:
    """A state of version 1 in the form of this version; the learning rate is the network's."""
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
    """Raise CheckpointError unless a state has the network's tensors, of the same shape and dtype."""
    for name, expected in own.items():
        tensor = found.get(name)
        if not isinstance(tensor, Tensor) or tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise CheckpointError(
                f"{path}: {part} {name} does not fit (was it trained with another --model or --nOut?); "
                "use another --save_path, with a checkpoint of this run as --initial_model to keep what fits"
            )


def check_optimizer(path: str, state: dict, network: SyncNet) -> None:
    """Raise CheckpointError unless the state of an optimizer is of the same parameters in the same groups."""
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
    rows = state["rows"]  # a state from before a figure was added to PARTS has narrower ones
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
    """Can it take the place of a generator's present state? Other versions of torch may have others."""
    return state is not None and state.dtype == present.dtype and state.shape == present.shape


def sync_from_rank_zero(network: SyncNet, settings: dict[str, str]) -> None:
    """Give all processes the first one's weights, running statistics and state of the optimizer.

    Raises UserError, naming the process, when one of them then has other weights, or other settings or lists
    of another content (see binding_settings).
    """
    if distributed.processes() == 1:
        return
    restore_optimizer(network, distributed.on_rank_zero(lambda: on_cpu(optimizer_state(network))))
    tensors = list(network.state_dict().values())
    distributed.broadcast_from_rank_zero(tensors)
    distributed.check_same({"weights": fingerprint(tensors)} | settings)


def on_cpu(state: Any) -> Any:
    """A copy of nested dicts and lists with its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {name: on_cpu(value) for name, value in state.items()}
    return [on_cpu(value) for value in state] if isinstance(state, list) else state


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """A hash of the values of tensors."""
    values = hashlib.sha256()
    for tensor in tensors:
        values.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return values.hexdigest()
