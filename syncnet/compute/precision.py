"""PyTorch's settings for each --precision, and which precision trains faster on this device.

The latter is measured, because supporting bf16 does not make it fast.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from syncnet.compute import distributed
from syncnet.media.clips import FRAME_SIZE
from syncnet.networks.choices import AUTO, PRECISIONS
from syncnet.networks.two_streams import LIP_FRAMES, lip_features, lip_trunk
from syncnet.support.errors import UserError

CPU_CLIPS, GPU_CLIPS = 2, 16  # of 5 frames, one embedding each
ROUNDS = 2


def allow_tf32(allowed: bool) -> None:
    """Let float32 matrix products and convolutions on GPUs round to 10-bit mantissas, or not, in the whole process.

    PyTorch has one setting per process, so each network sets its own before it computes. On CPUs float32 stays
    float32 either way. The older and the newer names of PyTorch's settings agree afterwards, whatever the caller had
    set: torch.get_float32_matmul_precision() returns "high" or "highest".
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    # Without a value of their own, these inherit torch.backends.fp32_precision.
    for kind in kinds_of_operations(torch.backends.cudnn, "conv", "rnn"):
        if (kind.fp32_precision == "tf32") != allowed:
            kind.fp32_precision = "tf32" if allowed else "ieee"
    for kind in kinds_of_operations(torch.backends.mkldnn, "matmul", "conv", "rnn"):
        kind.fp32_precision = "ieee"


def kinds_of_operations(backend: object, *names: str) -> list[Any]:
    """A backend's settings of these names; PyTorch's type hints lack them."""
    return [getattr(backend, name) for name in names]


def choose_precision(precision: str, device: torch.device) -> tuple[str, str]:
    """The precision to compute in, and a note on it for the user, "" if there is none.

    precision: "fp32", "tf32", "bf16", or "auto", which becomes the faster of fp32 and bf16, for all processes the
    first one's choice. Raises UserError for another name.
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
    """The context of a forward pass in a precision, of the names that --precision takes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@torch.inference_mode(False)
@torch.enable_grad()
def faster_precision(device: torch.device) -> tuple[str, str]:
    """ "fp32" or "bf16", whichever trains the lip stream faster on a device, and the reason.

    bf16 also loses where its gradients are not finite. Takes about a second on a CPU, draws no random numbers, and
    works under the caller's no_grad or inference_mode too.
    """
    if not has_bfloat16(device):
        return "fp32", f"{device} has no bfloat16 instructions"
    seconds = trial(device)
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(1 + ROUNDS):  # in turns, so that other load on the machine affects both
        for precision, taken in times.items():
            taken.append(seconds(precision))
    if math.inf in times["bf16"]:
        return "fp32", f"in a trial the gradients of bf16 were not finite on {device}"
    fp32, bf16 = (min(taken[1:]) for taken in times.values())  # the first round compiles kernels
    return "bf16" if bf16 < fp32 else "fp32", f"in a trial bf16 was {fp32 / bf16:.2f} times as fast as fp32"


def slower_bf16(device: torch.device) -> str:
    """A warning if fp32 would train faster on a device than bf16, else "". See faster_precision."""
    precision, reason = faster_precision(device)
    return "" if precision == "bf16" else f"precision bf16: fp32 would be the better choice here; {reason}"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch for Apple's processors comes without mkldnn.
    mkldnn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def trial(device: torch.device) -> Callable[[str], float]:
    """A function that runs a lip stream forward and backward in a precision.

    It returns the seconds taken, math.inf where a gradient is not finite.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        trunk = lip_trunk(stride=1).to(device)
    shape = (GPU_CLIPS if cuda else CPU_CLIPS, LIP_FRAMES, FRAME_SIZE, FRAME_SIZE, 3)
    pixels = torch.arange(math.prod(shape), device=device) % 251  # any values that differ
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
    """The name of the first parameter whose gradient holds a NaN or an infinity, else None."""
    gradients = ((name, parameter.grad) for name, parameter in network.named_parameters())
    return next((name for name, grad in gradients if grad is not None and not grad.isfinite().all()), None)
