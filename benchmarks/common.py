"""What the benchmarks share: limits measured in the same run, the network's operations, tables."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests/makers")]

import torch  # noqa: E402
from torch import nn  # noqa: E402

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def machine(device: str = "cpu") -> str:
    """A line that names the machine and the versions."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    return (
        f"{name}, {os.cpu_count()} cores{gpu}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    )


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """Seconds that one call takes, the device's work included.

    With one thread (OMP_NUM_THREADS=1) on the CPU these are CPU seconds, which change little with other load.
    """
    cuda = device.startswith("cuda")
    clock = time.perf_counter if cuda or torch.get_num_threads() > 1 else time.process_time
    if cuda:
        torch.cuda.synchronize()
    started = clock()
    work()
    if cuda:
        torch.cuda.synchronize()
    return clock() - started


def median_seconds(
    works: dict[str, Callable[[], object]], repeats: int, device: str = "cpu"
) -> dict[str, float]:
    """Median seconds of each work; they take turns, so that other load on the machine meets all alike."""
    for work in works.values():
        seconds(work, device)  # warm up
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            taken[name].append(seconds(work, device))
    return {name: statistics.median(times) for name, times in taken.items()}


def matrix_product(dtype: torch.dtype, device: str = "cpu", size: int = 2048) -> tuple[Callable, float]:
    """A square matrix product and its operations: the limit of what convolutions can reach."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return (lambda: a @ b), 2.0 * size**3


def convolution_operations(network: nn.Module, work: Callable[[], object], training: bool) -> float:
    """Operations of the convolutions that `work` runs, two a multiply-add.

    training: with the two products of the backward pass, of which a convolution that sees the input
    itself needs only one.
    """
    total = 0.0

    def count(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        once = 2.0 * output.numel() * layer.weight[0].numel()
        passes = 1 + (1 + inputs[0].requires_grad if training else 0)
        total += once * passes

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, CONVOLUTIONS)]
    work()
    for hook in hooks:
        hook.remove()
    return total


def table(title: str, header: tuple[str, ...], rows: list[tuple]) -> None:
    """Print a Markdown table, ready for benchmarks/README.md."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print("| " + " | ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row) + " |")
