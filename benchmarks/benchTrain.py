"""The training step against the machine's matrix product, in the same run.

    python benchmarks/benchTrain.py                                           # T = 20, batch 4, on this CPU
    python benchmarks/benchTrain.py --device cuda --maxFrames 50 --batch 30   # the README's settings

Reports clips a second, the rate of the convolutions' operations, its ratio to a matrix product of the same
number format, and the share of the losses. --profile adds where the time of a step goes, --layouts contiguous the
step with weights and pictures in the other order in memory.
"""

import argparse
import itertools
from collections.abc import Callable

import torch
from common import convolution_operations, machine, matrix_product, median_seconds, table
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from syncnet.compute.memory import keep_memory
from SyncNetDist import SyncNet

FORMATS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--maxFrames", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--temporal_stride", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="measure with torch.compile too")
    parser.add_argument(
        "--layouts",
        nargs="+",
        choices=["channels_last", "contiguous"],
        default=["channels_last"],
        help="order of weights and pictures in memory; channels_last is what training has",
    )
    parser.add_argument("--profile", action="store_true", help="list the operators that take most of a step")
    parser.add_argument("--precisions", nargs="+", choices=list(FORMATS), default=None)
    args = parser.parse_args()
    keep_memory()  # as the commands do
    cuda = args.device.startswith("cuda")
    precisions = args.precisions or (list(FORMATS) if cuda else ["fp32", "bf16"])

    shape = (args.batch, args.maxFrames, 224, 224, 3)
    video = torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 4, 1, 2, 3).to(args.device)
    audio = (3000 * torch.randn(args.batch, args.maxFrames * 640 + 240)).to(args.device)
    rows, profiles = [], {}
    settings = {"temporal_stride": args.temporal_stride, "device": args.device}
    compilings = (False, True) if args.compile else (False,)
    for precision, layout, compiled in itertools.product(precisions, args.layouts, compilings):
        network = SyncNet(**settings, precision=precision, compiled=compiled).train()
        pixels = video
        if layout == "contiguous":
            network.__S__.to(memory_format=torch.contiguous_format)
            pixels = video.contiguous()

        def step(network: SyncNet = network, pixels: torch.Tensor = pixels) -> None:
            total, _ = network(pixels, audio, 1.0, 1.0)
            network.__optimizer__.zero_grad(set_to_none=True)
            total.backward()
            network.__optimizer__.step()

        counted = SyncNet(**settings, precision=precision)
        operations = convolution_operations(
            counted.__S__, lambda n=counted: n(video, audio, 1.0, 1.0), training=True
        )
        del counted
        product, product_operations = matrix_product(FORMATS[precision], args.device, 8192 if cuda else 2048)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        taken = median_seconds({"step": step, "product": product}, args.repeats, args.device)
        peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan")
        name = precision + f", {layout}" * (layout != "channels_last") + ", compiled" * compiled
        if args.profile:
            profiles[name] = operators(step, cuda)
        rate, limit = operations / taken["step"], product_operations / taken["product"]
        rows.append(
            (
                name,
                args.batch / taken["step"],
                operations / args.batch / 1e9,
                rate / 1e12,
                limit / 1e12,
                rate / limit,
                loss_share(network, video, audio, taken["step"], args.device),
                f"{peak:.1f}" if cuda else "-",
            )
        )
        del network, step  # their memory, before the next is measured
    print(machine(args.device))
    table(
        f"Training step, T = {args.maxFrames}, batch {args.batch}, temporal stride {args.temporal_stride}",
        ("", "clips/s", "GFLOP per clip", "TFLOP/s", "matrix product", "ratio", "losses' share", "peak GiB"),
        rows,
    )
    for name, found in profiles.items():
        table(f"Where a step goes, {name}", ("operator", "calls", "ms", "share"), found)


def operators(step: Callable[[], None], cuda: bool, most: int = 12) -> list[tuple[str, int, float, float]]:
    """Name, calls, milliseconds and share of the operators that take most of a step, without what they call."""
    device = "device" if cuda else "cpu"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as steps:
        step()
        if cuda:
            torch.cuda.synchronize()
    times = {
        event.key: (event.count, getattr(event, f"self_{device}_time_total") / 1e3)
        for event in steps.key_averages()
        if event.device_type == DeviceType.CPU  # operators; their kernels on a GPU are listed once more
    }
    total = sum(ms for _, ms in times.values())
    ranked = sorted(times.items(), key=lambda item: -item[1][1])
    return [(name, calls, ms, ms / total) for name, (calls, ms) in ranked[:most]]


def loss_share(
    network: SyncNet, video: torch.Tensor, audio: torch.Tensor, step_seconds: float, device: str
) -> float:
    """Share of the step that the losses take, forward and backward, given the embeddings."""
    with torch.no_grad():
        embeddings = [x.float().requires_grad_() for x in network.embeddings(video, audio)]

    def losses() -> None:
        network.losses(*embeddings, 1.0, 1.0)[0].backward()

    return median_seconds({"losses": losses}, 5, device)["losses"] / step_seconds


if __name__ == "__main__":
    main()
