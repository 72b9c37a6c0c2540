"""Several processes against one on the same machine: the loader alone, and a training epoch.

    python benchmarks/benchDistributed.py --list data/demo/dev.txt [--processes 1 2] [--device cuda]

Each process computes with one thread and decodes with one (--threads), so two processes use two cores. With --device
cuda, each process has a GPU, or they share the only one. Reports clips per second of all processes together, and the
ratio to one process.
"""

import argparse
import os
import subprocess
import sys
import time

from common import ROOT, machine, table

from DatasetLoader import DatasetLoader
from syncnet.compute import distributed
from syncnet.compute.memory import keep_memory
from SyncNetDist import SyncNet


def worker(args: argparse.Namespace) -> None:
    """In each process: a pass of the loader and an epoch of training, timed by the slowest process."""
    device = distributed.setup(args.device)
    share = (distributed.rank(), distributed.processes())
    pinned = (device or "cpu").startswith("cuda")
    loader = DatasetLoader(
        args.list, args.clips, args.batch, args.maxFrames, args.threads, share=share, pin_memory=pinned
    )
    network = SyncNet(
        maxFrames=args.maxFrames, temporal_stride=2, device=device or args.device, precision=args.precision
    )
    clips = len(loader) * args.batch
    for _ in loader:
        pass
    distributed.wait_for_all()
    started = time.perf_counter()
    loader.set_epoch(0)
    for _ in loader:
        pass
    distributed.wait_for_all()
    loading = time.perf_counter() - started
    loader.set_epoch(0)
    network.run_epoch(loader)  # warms up
    distributed.wait_for_all()
    started = time.perf_counter()
    loader.set_epoch(0)
    network.run_epoch(loader)
    distributed.wait_for_all()
    if distributed.is_main():
        print(clips / loading, clips / (time.perf_counter() - started), flush=True)
    distributed.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--maxFrames", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="decoding threads per process")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_memory()  # as the commands do
    if args.worker:
        worker(args)
        return
    found = {}
    for count in args.processes:
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(count),
        ]
        result = subprocess.run(
            [*launch, os.path.join(ROOT, "benchmarks", "benchDistributed.py"), "--worker", *sys.argv[1:]],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if result.returncode:
            sys.exit(result.stderr)
        found[count] = [float(x) for x in result.stdout.split()[-2:]]
    base = found[args.processes[0]]
    rows = [(count, load, load / base[0], train, train / base[1]) for count, (load, train) in found.items()]
    print(machine(args.device))
    table(
        f"Processes, one computing thread and {args.threads} decoding each, T = {args.maxFrames}, "
        f"batch {args.batch}, {args.precision}",
        ("processes", "loader, clips/s", "ratio", "training, clips/s", "ratio"),
        rows,
    )


if __name__ == "__main__":
    main()
