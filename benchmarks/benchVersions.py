"""The training step of this version against others: worktrees of earlier commits, or a clone of the 2020 program.

    git worktree add ../before 052eb83
    git clone https://github.com/joonson/syncnet_trainer ../original
    python benchmarks/benchVersions.py ../before ../original [--precisions fp32 bf16] [--device cuda]

A step is train_network on one batch: forward, losses, backward, optimizer. Each version runs in its own process, with
the same weights and the same batch; steps alternate, so that other load affects all versions alike. The 2020 program
computes in float32 only, and on CPUs with the replacements in tests/oracle/makeOracle.py. The table has the loss of
the first step, which is equal if two versions compute the same.
"""

import argparse
import contextlib
import importlib
import io
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import ROOT, machine, seconds, table

ORIGINAL = "dataLoader.py"  # a file that the 2020 program has, and this one never had
COMPUTED = "step "  # what a line of a worker begins with that answers one of ours
STOP = "stop\n"


def serve(root: str, weights: str, precision: str, args: argparse.Namespace) -> None:
    """A worker: for each line on stdin a training step of the version in `root`, answered with loss and seconds."""
    original = os.path.exists(os.path.join(root, ORIGINAL))
    sys.path[:] = [
        root,
        *(path for path in sys.path if path not in (ROOT, os.path.join(ROOT, "tests/makers"))),
    ]
    import torch

    if original and args.device == "cpu":
        sys.path.append(os.path.join(ROOT, "tests", "oracle"))
        from makeOracle import import_original

        import_original(Path(root))
    for place in ("syncnet.compute.memory", "support.memory"):  # as the commands of that version do
        with contextlib.suppress(ImportError):
            importlib.import_module(place).keep_memory()
    import SyncNetDist

    how = {} if original else {"device": args.device, "precision": precision}
    network = SyncNetDist.SyncNet(
        model="models.SyncNetModelFBank",
        maxFrames=args.maxFrames,
        temporal_stride=args.temporal_stride,
        **how,
    )
    if os.path.exists(weights):
        network.load_state_dict(torch.load(weights, weights_only=True))
    else:
        torch.save(network.state_dict(), weights)

    draws = torch.Generator().manual_seed(0)
    frames = torch.randint(
        0, 256, (args.batch, args.maxFrames, 224, 224, 3), dtype=torch.uint8, generator=draws
    )
    video = frames.permute(0, 4, 1, 2, 3)
    audio = 3000 * torch.randn(args.batch, args.maxFrames * 640 + 240, generator=draws)
    batch = OneBatch(video.float().contiguous() if original else video, audio)  # as its loader gives it
    losses: list[float] = []

    def step() -> None:
        random.seed(0)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            losses.append(float(network.train_network(batch)[0]))

    for _ in iter(sys.stdin.readline, STOP):
        taken = seconds(step, args.device)
        print(f"{COMPUTED}{losses[-1]} {taken}", flush=True)


class OneBatch:
    """A loader of one batch, with what the train_network of every version asks of its loader."""

    maxQueueSize = 1

    def __init__(self, video, audio):
        self.batch = video, audio
        self.batch_size = self.nFiles = len(video)

    def __iter__(self) -> Iterator[tuple]:
        return iter([self.batch])

    def __len__(self) -> int:
        return 1

    def qsize(self) -> int:
        return 0


def ask(worker: subprocess.Popen) -> tuple[float, float]:
    """Loss and seconds of the next step of a worker."""
    worker.stdin.write("go\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith(COMPUTED):
            loss, taken = map(float, line[len(COMPUTED) :].split())
            return loss, taken
    sys.exit(f"{' '.join(worker.args)}: ended without an answer")


def compare(roots: list[str], precision: str, args: argparse.Namespace) -> list[tuple]:
    """A row for each version: its name, the first loss, median and least seconds, and both ratios to the last."""
    with tempfile.TemporaryDirectory() as folder:
        workers: dict[str, subprocess.Popen] = {}
        first: dict[str, float] = {}
        for root in roots:
            flags = [
                f"--serve={root}",
                f"--weights={folder}/weights",
                "--precisions",
                precision,
                f"--device={args.device}",
            ]
            sizes = [f"--{name}={getattr(args, name)}" for name in ("maxFrames", "batch", "temporal_stride")]
            command = [sys.executable, __file__, *flags, *sizes]
            workers[root] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            first[root] = ask(workers[root])[0]
        taken: dict[str, list[float]] = {root: [] for root in roots}
        for _ in range(args.repeats):
            for root, worker in workers.items():
                taken[root].append(ask(worker)[1])
        for worker in workers.values():
            worker.communicate(STOP)
    median = {root: statistics.median(times) for root, times in taken.items()}
    ours = roots[-1]
    return [
        (
            f"{'this version' if root == ours else os.path.basename(root)}, {precision}",
            f"{first[root]:.6f}",
            median[root],
            min(taken[root]),
            median[root] / median[ours],
            min(taken[root]) / min(taken[ours]),
        )
        for root in roots
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", help="folders of the others")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--maxFrames", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--temporal_stride", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.weights, args.precisions[0], args)
    rows = []
    for precision in args.precisions:
        others = [os.path.abspath(root) for root in args.versions]
        if precision != "fp32":
            others = [root for root in others if not os.path.exists(os.path.join(root, ORIGINAL))]
        rows += compare([*others, ROOT], precision, args)
    print(machine(args.device))
    sizes = f"T = {args.maxFrames}, batch {args.batch}, temporal stride {args.temporal_stride}"
    header = ("", "first loss", "median, s", "least, s", "of this version's median", "of its least")
    table(f"Training step, {sizes}, {args.repeats} steps each in turns", header, rows)
    return None


if __name__ == "__main__":
    main()
