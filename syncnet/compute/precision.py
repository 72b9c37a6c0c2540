"""PyTorch's settings for each --precision, and the choice of the faster precision on a device.

Speed is measured, because supporting bf16 does not make it fast.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from syncnet.compute import distributed
from syncnet.media.clips import FRAME_SIZE, LIP_FRAMES
from syncnet.networks.choices import AUTO, PRECISIONS
from syncnet.networks.two_streams import lip_features, lip_trunk
from syncnet.support.errors import UserError

CPU_CLIPS, GPU_CLIPS = 2, 16  # 5-frame clips in a trial batch, one embedding each
ROUNDS = 2


def allow_tf32(allowed: bool) -> None:
    """Set whether float32 matrix products and convolutions on GPUs may use TF32 (10-bit mantissas), process-wide.

    The setting is global in PyTorch, so each network sets it before it computes. CPUs compute in full float32 either
    way. PyTorch's older and newer settings agree afterwards, whatever the caller had set:
    torch.get_float32_matmul_precision() returns "high" or "highest".
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    # If unset, these inherit torch.backends.fp32_precision.
    for kind in kinds_of_operations(torch.backends.cudnn, "conv", "rnn"):
        if (kind.fp32_precision == "tf32") != allowed:
            kind.fp32_precision = "tf32" if allowed else "ieee"
    for kind in kinds_of_operations(torch.backends.mkldnn, "matmul", "conv", "rnn"):
        kind.fp32_precision = "ieee"


def kinds_of_operations(backend: object, *names: str) -> list[Any]:
    """Return a backend's attributes of these names, which PyTorch's type hints lack."""
    return [getattr(backend, name) for name in names]


def choose_precision(precision: str, device: torch.device) -> tuple[str, str]:
    """Return the precision to use, and a note for the user, or "".

    precision: "fp32", "tf32", "bf16", or "auto", the faster of fp32 and bf16 as measured on rank 0. Raises UserError
    for any other name.
    """
    if precision == AUTO:
        precision, reason = distributed.on_rank_zero(lambda: faster_precision(device))
        return precision, f"precision auto: {precision}; {reason}"
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r}, expected one of {', '.join((*PRECISIONS, AUTO))}")
    if precision == "tf32" and device.type != "cuda":
        return precision, f"precision tf32 is for GPUs: {device} computes as with fp32"
    if precision == "bf16" and not has_bfloat16(device):
        return precision, f"precision bf16: {device} has no bfloat16 instructions; fp32 would be faster"
    return precision, ""


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context manager for a forward pass. precision: a value of --precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@torch.inference_mode(False)
@torch.enable_grad()
def faster_precision(device: torch.device) -> tuple[str, str]:
    """Return "fp32" or "bf16", whichever trains the lip stream faster on a device, and the reason.

    Returns "fp32" if gradients in bf16 are not finite. Takes about a second on a CPU, does not change the random
    state, and also works inside no_grad or inference_mode.
    """
    if not has_bfloat16(device):
        return "fp32", f"{device} has no bfloat16 instructions"
    seconds = trial(device)
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(1 + ROUNDS):  # alternate, so that other load on the machine affects both
        for precision, taken in times.items():
            taken.append(seconds(precision))
    if math.inf in times["bf16"]:
        return "fp32", f"in a trial the gradients of bf16 were not finite on {device}"
    fp32, bf16 = (min(taken[1:]) for taken in times.values())  # the first round is warm-up
    return "bf16" if bf16 < fp32 else "fp32", f"in a trial bf16 was {fp32 / bf16:.2f} times as fast as fp32"


def slower_bf16(device: torch.device) -> str:
    """Return a warning if fp32 would train faster than bf16 on a device, otherwise "". See faster_precision."""
    precision, reason = faster_precision(device)
    return "" if precision == "bf16" else f"precision bf16: fp32 would be the better choice here; {reason}"


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch for Apple silicon is built without mkldnn.
    mkldnn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def trial(device: torch.device) -> Callable[[str], float]:
    """Return a function that runs a lip stream forward and backward in a given precision.

    It returns the time in seconds, or math.inf if a gradient is not finite.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        trunk = lip_trunk(stride=1).to(device)
    shape = (GPU_CLIPS if cuda else CPU_CLIPS, LIP_FRAMES, FRAME_SIZE, FRAME_SIZE, 3)
    pixels = torch.arange(math.prod(shape), device=device) % 251  # arbitrary varying values
    video = pixels.to(torch.uint8).view(shape).permute(0, 4, 1, 2, 3)

    def seconds(precision: str) -> float:
        trunk.zero_grad(set_to_none=True)
        started = time.perf_counter()
        with autocast(device, precision):
            total = lip_features(trunk, video, "face").float().square().sum()
        total.backward()
        if cuda:
            torch.cuda.synchronize(device)
        taken = time.perf_counter() - started
        return math.inf if gradient_not_finite(trunk) else taken

    return seconds


def gradient_not_finite(network: nn.Module) -> str | None:
    """Return the name of the first parameter with a NaN or infinity in its gradient, or None."""
    gradients = ((name, parameter.grad) for name, parameter in network.named_parameters())
    return next((name for name, grad in gradients if grad is not None and not grad.isfinite().all()), None)
