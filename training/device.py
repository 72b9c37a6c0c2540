"""Batches on their way to the device, and the network compiled for it."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from support.errors import UserError


class DeviceBatches:
    """A loader's (video, audio) batches on the device; `waited` counts the seconds for which they were waited for.

    On a GPU the copy runs on a stream of its own. Steps are only queued by the time the next batch
    is asked for, so it overlaps with the computing of the step before.
    """

    def __init__(self, loader: Iterable, device: torch.device):
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
            if stream is None:
                yield tuple(x.to(self.device) for x in batch)
            else:
                with torch.cuda.stream(stream):
                    copies = tuple(x.to(self.device, non_blocking=True) for x in batch)
                    copied = stream.record_event()
                compute = torch.cuda.current_stream(self.device)
                compute.wait_event(copied)
                for x in copies:
                    x.record_stream(compute)
                yield copies
                copied.synchronize()
                del copies
            del batch  # before the next is asked for: the loader uses its memory again


def compile_embeddings(function: Callable) -> Callable:
    """torch.compile, which compiles at the first call. There, UserError when that cannot be done here."""
    compiled = torch.compile(function)

    @functools.wraps(function)
    def call(*args: Tensor, **kwargs: bool) -> tuple[Tensor | None, ...]:
        try:
            return compiled(*args, **kwargs)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"--compile: {reason}. Compiling needs a C++ compiler (on Debian and Ubuntu: apt install g++); "
                "the network runs without --compile too"
            ) from error

    return call
