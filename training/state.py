"""What a run needs to go on exactly where it stopped, in one file beside its checkpoints.

The file holds tensors, numbers and strings only, and is read with torch's weights_only: nothing in it
can run. It is replaced as a whole, so a killed run leaves the last complete one.
"""

import glob
import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from models.checkpoints import CheckpointError, load_tensors
from support import distributed
from support.files import lock_file, remove_leftovers, replace_file
from SyncNetDist import SyncNet
from training.epoch import PARTS

VERSION = 1
# Flags that may change between two starts of one run: they alter speed, place or length, not results.
FREE_SETTINGS = {
    "save_path", "initial_model", "max_epoch", "nDataLoaderThread", "device", "eval", "test_list", "test_path",
    "train_list", "verify_list", "save_steps", "keep", "force_resume", "decode_timeout", "max_bad",
    "num_eval", "test_interval", "tensorboard", "score_norm", "cohort", "cohort_path", "cohort_size", "top_n",
    "save_embeddings", "load_embeddings",
}  # fmt: skip


@dataclass
class Position:
    """Where a run is: `rows` has the figures of the epoch's steps so far, one row of PARTS a step."""

    epoch: int  # being trained, from 1
    rows: list[list[float]]
    random_state: tuple  # of Python's random, from which the next step draws


def binding_settings(args: dict[str, object], lists: dict[str, str]) -> dict[str, str]:
    """The settings that a run must keep to stay the same run; lists by their content, not their place."""
    settings = {name: str(value) for name, value in args.items() if name not in FREE_SETTINGS}
    for name, path in lists.items():
        with open(path, "rb") as file:
            settings[f"content of --{name}"] = hashlib.sha256(file.read()).hexdigest()[:16]
    return settings


def save_state(path: str, network: SyncNet, position: Position, settings: dict[str, str]) -> None:
    """Write the state, complete or not at all. Raises OSError."""
    version, words, gauss = position.random_state
    state = {
        "version": VERSION,
        "epoch": position.epoch,
        "rows": torch.tensor(position.rows, dtype=torch.float64).reshape(-1, len(PARTS)),
        "random": torch.tensor([version, *words], dtype=torch.int64),
        "gauss": gauss,
        "settings": settings,
        "network": network.state_dict(),
        "momentum": {
            name: network.__optimizer__.state[parameter]["momentum_buffer"]
            for name, parameter in network.named_parameters()
            if network.__optimizer__.state[parameter].get("momentum_buffer") is not None
        },
    }
    with replace_file(path, "wb") as file:
        torch.save(state, file)


def load_state(path: str, network: SyncNet) -> dict:
    """Read and check a state for this network. Raises CheckpointError for anything but a whole, fitting one."""
    state = load_tensors(path)
    kinds = {
        "version": int, "epoch": int, "rows": Tensor, "random": Tensor, "gauss": (float, type(None)),
        "settings": dict, "network": dict, "momentum": dict,
    }  # fmt: skip
    if not isinstance(state, dict) or state.keys() != kinds.keys():
        raise CheckpointError(f"{path}: not a training state of this program")
    for name, kind in kinds.items():
        if not isinstance(state[name], kind):
            raise CheckpointError(f"{path}: {name} is a {type(state[name]).__name__}")
    if state["version"] != VERSION:
        raise CheckpointError(f"{path}: has version {state['version']}, this program writes {VERSION}")
    rows, words = state["rows"], state["random"]
    if rows.dtype != torch.float64 or rows.dim() != 2 or rows.shape[1] != len(PARTS) or state["epoch"] < 1:
        raise CheckpointError(f"{path}: its position in the run makes no sense")
    # Of a step's figures, only the total loss is there whatever the weights of its parts.
    figures_fit = rows[:, 0].isfinite().all() and not rows.isinf().any()
    if words.dtype != torch.int64 or words.shape != (626,) or not figures_fit:
        raise CheckpointError(f"{path}: its random state or its figures make no sense")
    parameters = dict(network.named_parameters())
    if not state["momentum"].keys() <= parameters.keys():
        raise CheckpointError(f"{path}: has momenta of another network")
    for part, own in (("network", network.state_dict()), ("momentum", parameters)):
        names = own if part == "network" else state[part]
        for name in names:
            tensor = state[part].get(name)
            if (
                not isinstance(tensor, Tensor)
                or tensor.shape != own[name].shape
                or tensor.dtype != own[name].dtype
            ):
                raise CheckpointError(
                    f"{path}: {part} {name} does not fit (was it trained with another --model or --nOut?)"
                )
    return state


def restore(state: dict, network: SyncNet) -> Position:
    """Put a checked state into the network and its optimiser. Returns where the run is."""
    network.load_state_dict(state["network"])
    for name, parameter in network.named_parameters():
        if name in state["momentum"]:
            momentum = torch.empty_like(parameter)
            momentum.copy_(state["momentum"][name])
            network.__optimizer__.state[parameter]["momentum_buffer"] = momentum
    version, *words = state["random"].tolist()
    return Position(state["epoch"], state["rows"].tolist(), (version, tuple(words), state["gauss"]))


def changed_settings(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """A line for each setting that differs."""
    return [
        f"{name}: {old.get(name, 'not set')} then, {new.get(name, 'not set')} now"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


@contextmanager
def run_folder(save_path: str, network: SyncNet) -> Iterator[tuple[str, str]]:
    """The run's (model, result) folders: made, writable, with room, and locked against a second run.

    The lock ends with the process, however it ends. Raises OSError with what to do.
    """
    folders = tuple(os.path.join(save_path, name) for name in ("model", "result"))
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
    """SIGINT and SIGTERM are put into the list; a second one ends the process at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
