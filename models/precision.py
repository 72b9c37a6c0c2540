"""What a precision is for PyTorch, and which is faster on this device.

That is measured, since having the instructions does not mean being faster.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from models.twoStreams import lip_features, lip_trunk

CPU_CLIPS, GPU_CLIPS = 2, 16  # of 5 frames, one moment each
ROUNDS = 2


def allow_tf32(allowed: bool) -> None:
    """Let GPU matrix products and convolutions round to 10-bit mantissas, or not: for the whole process, from now on.

    PyTorch has one setting for all networks, so that each sets its own ahead of what it computes.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    for name in ("conv", "rnn"):
        # Switched off by that, they may still get it from torch.backends.fp32_precision, the caller's.
        kind = getattr(torch.backends.cudnn, name)  # torch's hints lack them
        if (kind.fp32_precision == "tf32") != allowed:
            kind.fp32_precision = "tf32" if allowed else "ieee"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The context of a forward pass in a precision, of the names that --precision takes."""
    if precision == "bf16" and not torch.compiler.is_compiling() and not multiplies_bfloat16(device):
        return ProductsInFloat32()  # a compiler does not see into it
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class ProductsInFloat32(TorchFunctionMode):
    """Autocast to bfloat16 on a CPU that is slow at multiplying it.

    Layers round what they take and what they give to bfloat16, as ever, but multiply and add in float32, which holds
    these products exactly: the same figures but for the order of the sums, at the speed of float32.
    """

    LAYERS = frozenset({torch.conv1d, torch.conv2d, torch.conv3d, torch.nn.functional.linear})

    def __init__(self) -> None:
        super().__init__()
        self.autocast = torch.autocast("cpu", torch.bfloat16)

    def __enter__(self) -> "ProductsInFloat32":
        self.autocast.__enter__()
        return super().__enter__()

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self.autocast.__exit__(*raised)

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        kwargs = dict(kwargs or {})
        if func not in self.LAYERS or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            args = tuple(rounded(x) for x in args)
            return func(*args, **{name: rounded(x) for name, x in kwargs.items()}).bfloat16()


def rounded(argument: object) -> object:
    """A tensor's values in bfloat16, held in float32; anything else as it is."""
    return argument.bfloat16().float() if isinstance(argument, Tensor) else argument


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
    """Are there instructions for it?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch for Apple's processors comes without mkldnn.
    mkldnn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Does it multiply bfloat16 by instructions that are faster than those for float32?

    Intel's without AMX, or in a virtual machine that hides it, are slower ones: half the rate was measured.
    """
    if device.type != "cpu":
        return True
    about = processor()
    return has_bfloat16(device) and ("GenuineIntel" not in about or "amx_bf16" in about.split())


@functools.cache
def processor() -> str:
    """What Linux tells of the first processor, instructions as words; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return ""


def trial(device: torch.device) -> Callable[[str], float]:
    """A function that runs a lip stream once, forward and backward, and gives the seconds it took."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        trunk = lip_trunk(stride=1).to(device)
    shape = (GPU_CLIPS if cuda else CPU_CLIPS, 5, 224, 224, 3)
    video = torch.zeros(shape, dtype=torch.uint8, device=device).permute(0, 4, 1, 2, 3)

    def seconds(precision: str) -> float:
        started = time.perf_counter()
        with autocast(device, precision):
            total = lip_features(trunk, video, "face").float().sum()
        total.backward()
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return seconds
