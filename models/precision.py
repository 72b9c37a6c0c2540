"""What a precision is for PyTorch, and which is faster on this device.

That is measured, since having the instructions does not mean being faster.
"""

import time
from collections.abc import Callable

import torch

from models.twoStreams import lip_trunk, look

CPU_CLIPS, GPU_CLIPS = 2, 16  # of 5 frames, one moment each
ROUNDS = 2


def allow_tf32(allowed: bool) -> None:
    """Let GPU matrix products and convolutions round to 10-bit mantissas, or not: for the whole process, from now on.

    PyTorch has one setting for all networks, so that each sets its own ahead of what it computes.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@torch.inference_mode(False)
@torch.enable_grad()
def faster_precision(device: torch.device) -> tuple[str, str]:
    """ "fp32" or "bf16", whichever trains the lip stream faster on a device, and why, in words.

    Takes half a second to one second on a CPU, and draws no random numbers. Trains also where the caller computes
    without gradients.
    """
    if not has_bfloat16(device):
        return "fp32", f"{device} has no bfloat16 instructions"
    seconds = trial(device)
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(1 + ROUNDS):  # they take turns, so that other load meets both
        for precision, taken in times.items():
            taken.append(seconds(precision))
    fp32, bf16 = (min(taken[1:]) for taken in times.values())  # the first time, kernels are made
    return "bf16" if bf16 < fp32 else "fp32", f"in a trial bf16 was {fp32 / bf16:.2f} times as fast as fp32"


def has_bfloat16(device: torch.device) -> bool:
    """Are there instructions for it? Without them it runs too, many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def trial(device: torch.device) -> Callable[[str], float]:
    """A function that runs a lip stream once, forward and backward, and gives the seconds it took."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        trunk = lip_trunk(stride=1).to(device)
    shape = (GPU_CLIPS if cuda else CPU_CLIPS, 5, 224, 224, 3)
    video = torch.zeros(shape, dtype=torch.uint8, device=device).permute(0, 4, 1, 2, 3)

    def seconds(precision: str) -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            total = look(trunk, video, "face").float().sum()
        total.backward()
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return seconds
