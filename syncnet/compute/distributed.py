"""Distributed training: setup from torchrun's environment, and communication between processes.

    torchrun --nproc_per_node 8 trainSyncNet.py ...

Each process reads and computes its share of the same global batch. Rank 0 decides what to load, where to resume and
when to stop. Without torchrun there is one process and no process group, and every function here returns its input.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm

from syncnet.support.errors import UserError

Value = TypeVar("Value")


def setup(device: str | None) -> str | None:
    """Initialize the process group if torchrun started this process. Returns the device of this process.

    Uses NCCL if each process has its own GPU; gloo on the CPU, or if processes on any machine have to share a GPU.
    Processes other than rank 0 print nothing on stdout. Raises UserError if the processes cannot use the device.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return device
    local, local_processes = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    kind, _, number = (device or "cuda").partition(":")
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    gpu = int(number) if number.isdecimal() else local % gpus if gpus else 0
    if gpu < gpus:
        device = f"cuda:{gpu}"
        torch.cuda.set_device(device)
    _join("nccl" if local_processes <= gpus and gpu < gpus else "gloo", gpu)
    if not is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for the life of the process)
    if kind == "cuda" and number and local_processes > 1:
        raise UserError(
            f"--device {kind}:{number}: {local_processes} processes on this machine would share that GPU; omit "
            "--device, and choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    check_same({"kind of device": "cuda" if gpus else "cpu"})
    return device


def _join(backend: str, gpu: int) -> None:
    """Initialize the process group, with this backend if all processes can use it, otherwise with gloo."""
    if os.environ.get("WORLD_SIZE") == "1":
        store, rank, count = None, -1, -1  # from the environment
    else:
        store, rank, count = next(dist.rendezvous("env://"))
        store, backend = agree_on_start(store, rank, count, backend)
    on_gpu = torch.device("cuda", gpu) if backend == "nccl" else None
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, device_id=on_gpu)


def agree_on_start(store: dist.Store, rank: int, count: int, backend: str) -> tuple[dist.Store, str]:
    """Return a store that only the processes of this start use, and a backend that all of them can use.

    torchrun's store outlives processes that it restarts after a failure, so it may hold keys from an earlier start.
    Each process therefore sends a new name to rank 0, which replies with the name of this start.
    """
    name = uuid.uuid4().hex
    if rank:
        store.set(f"process {rank}", name)
        start = dist.PrefixStore(store.get(f"start of {name}").decode(), store)
        start.set(f"backend of {rank}", backend)
        return start, start.get("backend").decode()
    start = dist.PrefixStore(name, store)
    missing = set(range(1, count))
    while missing:
        for other in missing:
            if store.check([f"process {other}"]):
                theirs = store.get(f"process {other}").decode()
                store.set(f"start of {theirs}", name)
        missing = {other for other in missing if not start.check([f"backend of {other}"])}
        time.sleep(0.05)
    backends = {backend, *(start.get(f"backend of {other}").decode() for other in range(1, count))}
    start.set("backend", backend if len(backends) == 1 else "gloo")
    return start, start.get("backend").decode()


def several_without_torchrun() -> str:
    """Return a warning if the environment is for several processes but torchrun did not start this one; else ""."""
    names = ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"]
    if "SLURM_STEP_NUM_TASKS" in os.environ:  # tasks that srun started; the allocation may have more
        names.append("SLURM_STEP_NUM_TASKS")
    elif not (os.isatty(0) or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")):
        names.append("SLURM_NTASKS")
    for name in names if "TORCHELASTIC_RUN_ID" not in os.environ else ():
        count = os.environ.get(name, "")
        if count.isdecimal() and int(count) > 1:
            return (
                f"{name} is {count}, but this was not started by torchrun: running as one process "
                "(docs/training.md has the command lines for several)"
            )
    return ""


def first_to_fail() -> bool:
    """Return whether this process is the first to fail. Its error is shown; torchrun stops the others."""
    if not dist.is_initialized():
        return True
    try:
        return dist.distributed_c10d._get_default_store().add("failed", 1) == 1
    except Exception:  # the store is already gone
        return False


def lost_process(error: BaseException) -> bool:
    """Return whether an error comes from a collective operation with processes that are gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def shutdown() -> None:
    """Wait for all processes at the end of a run, and destroy the process group."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this is rank 0, the process that prints, logs and saves."""
    return rank() == 0


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def check_batch(batch: int) -> None:
    """Raise UserError, naming the nearest valid sizes, if the batch size is not divisible by the processes."""
    count = processes()
    if batch % count:
        below, above = batch // count * count, (batch // count + 1) * count
        fitting = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"--nBatchSize {batch} is the batch of all {count} processes together and is not divided by "
            f"{count}; the nearest sizes that fit: {fitting}"
        )


def on_rank_zero(decide: Callable[[], Value]) -> Value:
    """Call `decide` on rank 0 only, and return its result in all processes.

    The result is sent with pickle. An error on rank 0 stops all processes.
    """
    if not dist.is_initialized():
        return decide()
    value: list[Any] = [decide() if is_main() else None]
    dist.broadcast_object_list(value, src=0)
    return value[0]


def broadcast_from_rank_zero(tensors: Iterable[Tensor]) -> None:
    """Broadcast the tensors of rank 0 into those of all processes, in place. Shapes must match."""
    if not dist.is_initialized():
        return
    with torch.no_grad():
        for tensor in tensors:
            values = tensor.detach().contiguous()
            dist.broadcast(values, src=0)
            tensor.copy_(values)


def check_same(facts: dict[str, str]) -> None:
    """Raise UserError if a value, such as a hash of the weights, differs between processes. facts: values by name."""
    if not dist.is_initialized():
        return
    found: list[dict[str, str]] = [{}] * processes()
    dist.all_gather_object(found, facts)
    for number, theirs in enumerate(found):
        for name, value in found[0].items():
            if theirs.get(name) != value:
                raise UserError(
                    f"process {number} does not have the same {name} as process 0, so their "
                    "results would differ. Do all machines see the same files and run the same program?"
                )


def union(values: list[Any]) -> list[Any]:
    """Return the distinct values of all processes, sorted."""
    found = [values]
    if dist.is_initialized():
        found = [[]] * processes()
        dist.all_gather_object(found, values)
    return sorted({value for part in found for value in part})


class _Gather(torch.autograd.Function):
    """All-gather with gradients; torch.distributed.nn's is deprecated since PyTorch 2.14."""

    @staticmethod
    def forward(context: FunctionCtx, x: Tensor) -> Tensor:  # noqa: ARG004
        parts = [torch.empty_like(x) for _ in range(processes())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(context: FunctionCtx, gradient: Tensor) -> Tensor:  # noqa: ARG004
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # it may be shared
        dist.all_reduce(gradient)  # the loss of each process depends on the rows of all processes
        return gradient.chunk(processes())[rank()]


def gather(x: Tensor) -> Tensor:
    """All-gather the rows of all processes, in rank order, with gradients: (b, ...) -> (b * processes, ...)."""
    return _Gather.apply(x.contiguous()) if dist.is_initialized() else x


def total(x: Tensor) -> Tensor:
    """Return the sum over all processes, without gradients; computed in place if there are several processes."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def sum_gradients(module: nn.Module) -> None:
    """Sum each gradient over all processes.

    DistributedDataParallel gives the same results, but warns in every run, about unused parameters or its own flags.
    """
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def average_running_statistics(module: nn.Module) -> None:
    """Average the running statistics of batch norms in training mode over all processes.

    On GPUs, SyncBatchNorm already has the statistics of the whole batch.
    """
    if not dist.is_initialized():
        return
    statistics = [
        tensor
        for norm in module.modules()
        if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm) and norm.training
        for tensor in (norm.running_mean, norm.running_var)
        if tensor is not None
    ]
    if statistics:
        flat = torch.cat(statistics) / processes()
        dist.all_reduce(flat)
        for tensor, part in zip(statistics, flat.split([x.numel() for x in statistics]), strict=True):
            tensor.copy_(part)


def add_one(name: str, here: int) -> int:
    """Increment a counter shared by all processes; may be called from any thread, and by one process alone.

    here: the count in this process, after the increment. Returns the new total.
    """
    if not dist.is_initialized():
        return here
    return dist.distributed_c10d._get_default_store().add(name, 1)


def any_of(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process. All processes must call this."""
    return bool(total(torch.tensor(float(flag), device=device)) > 0) if dist.is_initialized() else flag
