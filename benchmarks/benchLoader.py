"""The loader against decoding alone, of the same frames of the same clips.

    python benchmarks/benchLoader.py --list data/dev.txt             # T = 50, batch 30
    python benchmarks/benchLoader.py --list data/demo/dev.txt --maxFrames 20 --batch 8
    python benchmarks/benchLoader.py --list data/dev.txt --augment musan RIRS_NOISES

The limit is the decode-only rate of one thread, times the number of cores. Because cores share memory and clock, the
rate of several threads that only decode is reported too. The passes alternate. Reports clips per second for each
number of threads, the ratios, the time to the first batch, and the peak memory of a process that only loads.

--augment, with a folder of noises and one of room impulse responses, compares the loader with and without
augmentation instead: in clips per second, and in CPU time, which depends less on other work on the machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from common import ROOT, machine, table

from DatasetLoader import DatasetLoader
from syncnet.compute.memory import keep_memory
from syncnet.media.clips import FRAME_SIZE
from syncnet.media.video import read_frames
from syncnet.support.names import counted


def decode_only(loader: DatasetLoader, threads: int) -> float:
    """Seconds that threads take to decode the frames of an epoch's clips, each into one place."""
    clips = list(enumerate(loader.draws(0)[: len(loader) * loader.batch_size]))

    def decode(part: list) -> None:
        frames = np.empty((loader.maxFrames, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        for position, clip in part:
            read_frames(clip.video, loader.draw_start(clip, 0, position) + clip.offset - 1, frames)

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, [clips[i::threads] for i in range(threads)]))
    return time.perf_counter() - started


def load(loader: DatasetLoader) -> tuple[float, float]:
    """Seconds of an epoch, and until its first batch."""
    loader.set_epoch(0)
    started = time.perf_counter()
    first = None
    for batch in loader:
        first = first or time.perf_counter() - started
        del batch  # as training does: its memory is used again
    return time.perf_counter() - started, first


def augmented(args: argparse.Namespace, off: DatasetLoader, on: DatasetLoader) -> tuple:
    """A row: threads, rates of both loaders, their ratio, and that of the processor time (off / on)."""
    taken: dict[DatasetLoader, list[tuple[float, float]]] = {off: [], on: []}
    for _ in range(args.repeats):
        for loader, times in taken.items():
            started = time.process_time()
            wall = load(loader)[0]
            times.append((wall, time.process_time() - started))
    (off_wall, off_used), (on_wall, on_used) = (np.median(times, 0).tolist() for times in taken.values())
    clips = len(off) * off.batch_size
    return off.nThreads, clips / off_wall, clips / on_wall, off_wall / on_wall, off_used / on_used


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", required=True)
    parser.add_argument("--maxFrames", type=int, default=50)
    parser.add_argument("--batch", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clips", type=int, default=720, help="clips per pass at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--augment", nargs=2, metavar=("NOISE_DIR", "RIR_DIR"))
    parser.add_argument("--memory", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_memory()  # as the commands do

    def make(threads: int, **augmentation: object) -> DatasetLoader:
        return DatasetLoader(args.list, args.clips, args.batch, args.maxFrames, threads, **augmentation)

    if args.augment:
        noise, rir = args.augment
        on = {"augment_noise": noise, "augment_rir": rir, "flip": True}
        print(machine())
        table(
            f"Augmentation, T = {args.maxFrames}, batch {args.batch}",
            ("threads", "off, clips/s", "on, clips/s", "ratio", "ratio in processor time"),
            [augmented(args, make(threads), make(threads, **on)) for threads in args.threads],
        )
        return

    if args.memory:  # in a separate process, for its peak memory
        load(make(args.memory))
        with open("/proc/self/status") as status:  # getrusage's figure includes the parent's
            print(int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 2**10)
        return

    cores = len(os.sched_getaffinity(0))
    loaders = {threads: make(threads) for threads in args.threads}
    clips = len(loaders[args.threads[0]]) * args.batch
    alone: dict[int, list[float]] = {threads: [] for threads in {1, *(min(t, cores) for t in args.threads)}}
    taken: dict[int, list[tuple[float, float]]] = {threads: [] for threads in args.threads}
    for _ in range(args.repeats):
        for threads, times in alone.items():
            times.append(decode_only(loaders[args.threads[0]], threads))
        for threads, loader in loaders.items():
            taken[threads].append(load(loader))
    floors = {threads: statistics.median(times) for threads, times in alone.items()}
    floor = floors[1]
    rows = [
        (
            f"decode only, {counted(threads, 'thread')}",
            clips / taken_alone,
            floor / threads / taken_alone,
            "",
            "",
            "",
        )
        for threads, taken_alone in floors.items()
    ]
    for threads in args.threads:
        seconds = statistics.median(s for s, _ in taken[threads])
        first = statistics.median(f for _, f in taken[threads])
        workers = min(threads, cores)
        peak = subprocess.run(
            [sys.executable, os.path.join(ROOT, "benchmarks", "benchLoader.py"), *sys.argv[1:]]
            + ["--memory", str(threads)],
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append(
            (
                f"loader, {counted(threads, 'thread')}",
                clips / seconds,
                floor / workers / seconds,
                floors[workers] / seconds,
                first / (floor / clips * args.batch / workers),
                f"{float(peak.stdout):.0f}",
            )
        )
    print(machine())
    table(
        f"Loader, T = {args.maxFrames}, batch {args.batch}, {clips} clips per pass",
        (
            "",
            "clips/s",
            "of min(threads, cores) x decode only",
            "of as many threads that only decode",
            "first batch / decoding one",
            "peak MiB",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
