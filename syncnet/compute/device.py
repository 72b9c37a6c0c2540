"""Choose a device, copy batches to it, and compile the network."""

import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from syncnet.support.errors import UserError

Inputs = ParamSpec("Inputs")
Embeddings = TypeVar("Embeddings")


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the device of this name; None: CUDA if available, else the CPU. Raises UserError if there is none."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UserError(f"device {device!r}: expected cpu, cuda, or cuda:1 and the like") from None
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise UserError(f"device {device}: this PyTorch finds no CUDA GPU; use cpu")
        if (chosen.index or 0) >= count:
            raise UserError(
                f"device {device}: the GPUs that PyTorch finds here are cuda:0 to cuda:{count - 1}"
            )
    elif chosen.type != "cpu":
        try:
            torch.zeros(1, device=chosen).item()
        except (RuntimeError, AssertionError, ImportError):
            raise UserError(f"device {device}: this PyTorch cannot compute there; use cpu or cuda") from None
    return chosen


def compute_deterministically() -> None:
    """Make GPU results reproducible bit by bit, for the whole process. Call before CUDA is initialized."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # Slow, and no code here reads uninitialized memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def no_deterministic_way(error: Exception) -> bool:
    """Return whether an error means that an operation has no deterministic algorithm on this device."""
    return isinstance(error, RuntimeError) and "use_deterministic_algorithms" in str(error)


class BatchLoader(Protocol):
    """An iterable over the batches of an epoch, such as DatasetLoader: nFiles clips in batches of batch_size."""

    batch_size: int
    nFiles: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


class DeviceBatches:
    """A loader's (video, audio) batches on the device; `waited` is the time spent waiting for them, in seconds.

    On a GPU the copy runs on a separate CUDA stream. When the next batch is requested, the previous step is only
    queued, so the copy overlaps with its computation.
    """

    def __init__(self, loader: BatchLoader, device: torch.device):
        self.loader = loader
        self.device = device
        self.waited = 0.0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        batches = iter(self.loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            video, audio = batch
            if stream is None:
                yield video.to(self.device), audio.to(self.device)
            else:
                with torch.cuda.stream(stream):
                    copies = [x.to(self.device, non_blocking=True) for x in batch]
                    copied = stream.record_event()
                compute = torch.cuda.current_stream(self.device)
                compute.wait_event(copied)
                for x in copies:
                    x.record_stream(compute)
                yield copies[0], copies[1]
                copied.synchronize()
                del copies, x
            del batch, video, audio  # lets the loader reuse the memory for the next batch


def compile_embeddings(function: Callable[Inputs, Embeddings]) -> Callable[Inputs, Embeddings]:
    """Apply torch.compile, which compiles at the first call; that call raises UserError if compiling fails."""
    compiled = torch.compile(function)

    @functools.wraps(function)
    def call(*args: Inputs.args, **kwargs: Inputs.kwargs) -> Embeddings:
        try:
            return compiled(*args, **kwargs)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"--compile: {reason}. Compiling needs a C++ compiler (on Debian and Ubuntu: apt install g++); "
                "or omit --compile"
            ) from error

    return call
