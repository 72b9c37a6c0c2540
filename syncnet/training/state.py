"""What a run needs to go on exactly where it stopped, in one file beside its checkpoints.

The file holds tensors, numbers and strings only, and is read with torch's weights_only: nothing in it
can run. It is replaced as a whole, so a killed run leaves the last complete one.
"""

import glob
import hashlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor

from syncnet.checkpoints.torch_files import CheckpointError, UnreadableCheckpoint, load_tensors
from syncnet.compute import distributed
from syncnet.loading.augment import LEVELS
from syncnet.support.files import lock_file, remove_leftovers, replace_file
from syncnet.training.epoch import PARTS
from syncnet.training.interface import TrainableNetwork

STATE_FILE = "training_state.pt"  # in --save_path
VERSION = 2  # 1 had the momenta of SGD by the names of the parameters, and no learning rate
# Flags that may change between two starts of one run: they alter speed, place or length, not results.
# Of lists and folders of sounds, the content counts instead.
FREE_SETTINGS = {
    "save_path", "initial_model", "max_epoch", "nDataLoaderThread", "device", "eval", "test_list", "test_path",
    "train_list", "verify_list", "save_steps", "keep", "force_resume", "decode_timeout", "max_bad",
    "num_eval", "test_interval", "tensorboard", "score_norm", "cohort", "cohort_path", "cohort_size", "top_n",
    "save_embeddings", "load_embeddings", "augment_noise", "augment_rir",
}  # fmt: skip


# What asks a run to save its state and stop: Ctrl-C, schedulers (USR1 is Slurm's usual warning), a closed terminal.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
SAME_REQUEST = 10.0  # seconds


@dataclass(eq=False)
class Position:
    """Where a run is: `rows` has the figures of the epoch's steps so far, one row of PARTS a step.

    The next step draws from random_state, of Python's random, and where the network itself draws, as dropout does,
    from torch_state, of torch on the CPU, or gpu_state. None: not known, they stay as they are.
    hung: by list, the clips that took too long to decode; see DatasetLoader.hung.
    """

    epoch: int  # being trained, from 1
    rows: list[list[float]]
    random_state: tuple
    torch_state: Tensor | None = None
    gpu_state: Tensor | None = None
    hung: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)

    def draw_from_here(self, device: torch.device) -> None:
        """Set the generators that a step on this device draws from."""
        random.setstate(self.random_state)
        if is_state_like(self.torch_state, torch.get_rng_state()):
            torch.set_rng_state(self.torch_state)
        if device.type == "cuda" and is_state_like(self.gpu_state, torch.cuda.get_rng_state(device)):
            torch.cuda.set_rng_state(self.gpu_state, device)


def position_now(epoch: int, rows: list[list[float]], device: torch.device) -> Position:
    """A run's position, with the generators as they are."""
    on_gpu = device.type == "cuda"
    gpu_state = torch.cuda.get_rng_state(device) if on_gpu else None
    return Position(epoch, rows, random.getstate(), torch.get_rng_state(), gpu_state)


def binding_settings(args: dict[str, object], lists: dict[str, str]) -> dict[str, str]:
    """The settings that a run must keep to stay the same run; lists by their content, not their place."""
    settings = {name: str(value) for name, value in args.items() if name not in FREE_SETTINGS}
    for name, path in lists.items():
        with open(path, "rb") as file:
            settings[f"content of --{name}"] = hashlib.sha256(file.read()).hexdigest()[:16]
    return settings


def optimizer_state(network: TrainableNetwork) -> dict[str, Any]:
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


def restore_optimizer(network: TrainableNetwork, state: dict[str, Any]) -> None:
    """Put what optimizer_state gave into the optimizer and the scheduler."""
    network.__optimizer__.load_state_dict(state["optimizer"])
    if network.__scheduler__ and state["scheduler"]:
        network.__scheduler__.load_state_dict(state["scheduler"])


def kinds_of_steps(network: TrainableNetwork) -> dict[str, str]:
    """The classes of the optimizer and the scheduler: a run must keep them, as its settings."""
    parts = {"optimizer": network.__optimizer__, "scheduler": network.__scheduler__}
    return {name: type(part).__name__ for name, part in parts.items()}


KINDS_OF_STEPS_2020 = {"optimizer": "SGD", "scheduler": "NoneType"}  # of a state that does not say


def same_steps(state: dict, network: TrainableNetwork) -> bool:
    """Is a state of this optimizer and scheduler, so that it can be put into them?"""
    return all(
        state["settings"].get(name, KINDS_OF_STEPS_2020[name]) == kind
        for name, kind in kinds_of_steps(network).items()
    )


def save_state(path: str, network: TrainableNetwork, position: Position, settings: dict[str, str]) -> None:
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


def load_state(
    path: str, network: TrainableNetwork, agree: Callable[[dict[str, str]], None] | None = None
) -> dict | None:
    """Read and check a run's state for this network; None where there is no file.

    agree: called with the settings that the state was saved under, before its tensors are compared. A state of
    version 1 comes back as one of this version whose learning rate is that of the network.
    Raises UnreadableCheckpoint for a file that is damaged or no state, CheckpointError for a state of another
    network or version, OSError for one that cannot be read now.
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
    if version == 1:
        state = from_version_1(path, state, network)
    kinds: dict[str, type | tuple[type, ...]] = {
        "version": int, "epoch": int, "rows": Tensor, "random": Tensor, "gauss": (float, type(None)),
        "torch_random": (Tensor, type(None)), "gpu_random": (Tensor, type(None)), "hung": dict,
        "settings": dict, "network": dict, "parameters": list, "optimizer": dict, "scheduler": (dict, type(None)),
    }  # fmt: skip
    if state.keys() != kinds.keys():
        raise UnreadableCheckpoint(f"{path}: not a training state of this program")
    for name, kind in kinds.items():
        if not isinstance(state[name], kind):
            raise UnreadableCheckpoint(f"{path}: {name} is a {type(state[name]).__name__}")
    rows, words = state["rows"], state["random"]
    if rows.dtype != torch.float64 or rows.dim() != 2 or rows.shape[1] != len(PARTS) or state["epoch"] < 1:
        raise UnreadableCheckpoint(f"{path}: its position in the run makes no sense")
    # Of a step's figures, only the total loss is there whatever the weights of its parts.
    figures_fit = rows[:, 0].isfinite().all() and not rows.isinf().any()
    if words.dtype != torch.int64 or words.shape != (626,) or not figures_fit:
        raise UnreadableCheckpoint(f"{path}: its random state or its figures make no sense")
    if agree:
        agree(state["settings"])
    check_tensors(path, "network", state["network"], network.state_dict())
    if same_steps(state, network):
        check_optimizer(path, state, network)
    return state


def from_version_1(path: str, state: dict, network: TrainableNetwork) -> dict:
    """A state of version 1 as one of today; the learning rate is the network's."""
    momenta = state.get("momentum")
    if not isinstance(momenta, dict):
        raise UnreadableCheckpoint(f"{path}: not a training state of this program")
    parameters = dict(network.named_parameters())
    if not momenta.keys() <= parameters.keys():
        raise CheckpointError(f"{path}: has momenta of another network; use another --save_path")
    check_tensors(path, "momentum", momenta, {name: parameters[name] for name in momenta})
    steps = optimizer_state(network)
    buffers = {steps["parameters"].index(name): {"momentum_buffer": momenta[name]} for name in momenta}
    steps["optimizer"] = steps["optimizer"] | {"state": buffers}
    kept = {name: value for name, value in state.items() if name != "momentum"}
    return {"torch_random": None, "gpu_random": None, "hung": {}} | kept | steps


def check_tensors(path: str, part: str, found: dict, own: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless a state has the network's tensors, of the same shape and dtype."""
    for name, expected in own.items():
        tensor = found.get(name)
        if not isinstance(tensor, Tensor) or tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise CheckpointError(
                f"{path}: {part} {name} does not fit (was it trained with another --model or --nOut?); "
                "use another --save_path, with a checkpoint of this run as --initial_model to keep what fits"
            )


def check_optimizer(path: str, state: dict, network: TrainableNetwork) -> None:
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


def restore(state: dict, network: TrainableNetwork) -> Position:
    """Put a checked state into the network, and into its optimizer where it is of one of that class.

    Returns where the run is.
    """
    network.load_state_dict(state["network"])
    if same_steps(state, network):
        restore_optimizer(network, state)
    version, *words = state["random"].tolist()
    random_state = (version, tuple(words), state["gauss"])
    return Position(
        state["epoch"],
        state["rows"].tolist(),
        random_state,
        state["torch_random"],
        state["gpu_random"],
        state["hung"],
    )


def is_state_like(state: Tensor | None, present: Tensor) -> TypeGuard[Tensor]:
    """Can it take the place of a generator's present state? Other versions of torch may have others."""
    return state is not None and state.dtype == present.dtype and state.shape == present.shape


def follow_the_first(network: TrainableNetwork, settings: dict[str, str]) -> None:
    """Give all processes the first one's weights, running statistics and state of the optimizer.

    Raises UserError, naming the process, when one of them then has other weights, or other settings or lists
    of another content (see binding_settings).
    """
    if distributed.processes() == 1:
        return
    restore_optimizer(network, distributed.of_first(lambda: on_cpu(optimizer_state(network))))
    tensors = list(network.state_dict().values())
    distributed.copy_from_first(tensors)
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


# What changes a setting beside the obvious.
CHANGED_BY = {
    "content of --augment_noise": " (names and sizes of the files, and the level of each, which the names of their "
    f"folders decide, that of the given folder too: {LEVELS}. If you renamed the folder, give it its old name)"
}


def changed_settings(old: dict[str, str], new: dict[str, str], defaults: dict[str, object]) -> list[str]:
    """A line for each setting that differs; what an older state does not have was the default."""
    old = KINDS_OF_STEPS_2020 | {name: str(defaults[name]) for name in new if name in defaults} | old
    return [
        f"{name}: {old.get(name, 'not set')} then, {new.get(name, 'not set')} now{CHANGED_BY.get(name, '')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


@contextmanager
def run_folder(save_path: str, network: TrainableNetwork) -> Iterator[tuple[str, str]]:
    """The run's (model, result) folders: made, writable, with room, and locked against a second run.

    The lock ends with the process, however it ends. Raises OSError with what to do.
    """
    folders = os.path.join(save_path, "model"), os.path.join(save_path, "result")
    if not distributed.is_main():
        distributed.wait_for_all()
        yield folders
        return
    for folder in folders:
        os.makedirs(folder, exist_ok=True)
    taken = f"{save_path}: another run is using it. Stop that one, or use another --save_path."
    with lock_file(os.path.join(save_path, "lock"), taken):
        weights = sum(tensor.nbytes for tensor in network.state_dict().values())
        for folder in (save_path, *folders):
            remove_leftovers(glob.glob(os.path.join(glob.escape(folder), "*.part")))
        # A checkpoint, and the state before beside the state being written (weights and momenta each).
        needed, free = 5 * weights, shutil.disk_usage(save_path).free
        if free < needed:
            raise OSError(
                f"{save_path}: {free / 2**20:.0f} MiB free, a checkpoint and two training states "
                f"need {needed / 2**20:.0f} MiB. Make room, or use another --save_path."
            )
        distributed.wait_for_all()
        yield folders


class Interrupted(Exception):
    """A signal asked the run to stop, and its state is saved."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Put SIGINT, SIGTERM, SIGUSR1 and SIGHUP into the list; another one after SAME_REQUEST seconds ends the process.

    Within that time it is the same request: Slurm, a terminal and torchrun each send theirs, and the state may be
    in the middle of being saved. SIGHUP stays ignored under nohup.
    On a thread other than the main one, where Python allows no handlers, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    first = 0.0
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def note(number: int, _frame: object) -> None:
        nonlocal first
        if number == signal.SIGHUP:  # the terminal may be gone, and writing to it an error
            for terminal in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)
        if not received:
            first = time.monotonic()
        elif time.monotonic() - first > SAME_REQUEST:
            os._exit(128 + number)
        received.append(number)

    ignored = [number for number in (signal.SIGHUP,) if signal.getsignal(number) == signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in STOP_SIGNALS if number not in ignored}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
