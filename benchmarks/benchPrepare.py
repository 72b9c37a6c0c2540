"""Data preparation against its lower limit, decoding alone: ratios, measured in one run.

    python benchmarks/benchPrepare.py --mp4_dir X/mp4 --aac_dir X/aac --wav_dir X/wav [--repeats 5]

The passes alternate, so that other work on the machine affects all alike; each figure is the median over the repeats.
Without folders, clips of plain squares are generated, which decode faster than faces: use real clips. Each pass has
one process unless the table says two. Wavs go to the folder for temporary files; TMPDIR=/dev/shm keeps them off the
disk.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests/makers")]

import av  # noqa: E402
from clipMaker import make_clip, make_sound, noise  # noqa: E402

import makeFileList  # noqa: E402
from convertAudio import CONVERTED, SOURCES, convert_file, find_jobs  # noqa: E402
from syncnet.media.check_journal import CheckJournal  # noqa: E402
from syncnet.media.clip_check import CheckSettings, check_job  # noqa: E402
from syncnet.media.find_files import find_files  # noqa: E402
from syncnet.media.open_video import open_video  # noqa: E402
from syncnet.support.processes import map_in_processes  # noqa: E402

TURNS = 4  # times over that sounds are decoded and converted in a pass, which is short otherwise


def decode_videos(paths: list[str]) -> None:
    """The floor of list making: decode every frame, make no image."""
    for path in paths:
        video = open_video(path)
        while video.grab():
            pass
        video.release()


def decode_sounds(paths: list[str]) -> None:
    """The floor of conversion: decode every sound frame, keep none."""
    for path in paths:
        with av.open(path) as container:
            for _ in container.decode(audio=0):
                pass


def check_clips(settings: CheckSettings, clips: list[str]) -> int:
    """List making in this process, journal included; returns the number of usable clips."""
    with tempfile.TemporaryDirectory() as folder:
        journal = CheckJournal(os.path.join(folder, "journal"), settings.check)
        outcomes = [one.outcome for one in makeFileList.check_all(clips, False, settings, journal, 1)]
    return sum(outcome[0] not in makeFileList.REMEDIES for outcome in outcomes)


def convert_sounds(aac_dir: str, jobs: list[tuple[str, str]], dst: str) -> None:
    """Conversion in this process, TURNS times over, into the folders made by make_folders."""
    for turn in range(TURNS):
        for job in jobs:
            if convert_file((aac_dir, f"{dst}/{turn}"), job)[0] != CONVERTED:
                raise RuntimeError(f"{job[0]} was not converted")


def make_folders(jobs: list[tuple[str, str]], dst: str) -> None:
    """Empty folders for the wavs: VoxCeleb2 has about seven clips in one, so making them does not count."""
    shutil.rmtree(dst, ignore_errors=True)
    for turn in range(TURNS):
        for _, target in jobs:
            os.makedirs(os.path.dirname(f"{dst}/{turn}/{target}"), exist_ok=True)


def decode_one(path: str) -> None:
    """decode_videos for a single file: a function that a worker process can be given."""
    decode_videos([path])


def scaling(work: Callable, items: list) -> float:
    """Items a second of two workers against one, the two in processes that have started already."""
    rates = {1: 0.0, 2: 0.0}
    for workers in rates:
        # The first results come when the workers have started; the clock runs from there.
        results = map_in_processes(work, items, workers)
        ahead = len(items) // 2
        for _ in range(ahead):
            next(results)
        begin = time.perf_counter()
        done = sum(1 for _ in results)
        rates[workers] = done / (time.perf_counter() - begin)
    return rates[2] / rates[1]


def timed(work, *arguments) -> tuple[float, float]:
    """(wall, processor) seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    work(*arguments)
    return time.perf_counter() - wall, time.process_time() - processor


def make_clips(folder: str) -> None:
    """20 clips of 200 frames (VoxCeleb2's mean length) with their sound, as the tests make them."""
    for number in range(20):
        make_clip(f"{folder}/mp4/{number:05d}.mp4", 200)
        make_sound(f"{folder}/aac/{number:05d}.m4a", noise(8, seed=number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mp4_dir", help="folder of clips")
    parser.add_argument("--aac_dir", help="folder of their sound tracks")
    parser.add_argument("--wav_dir", help="folder of their wavs; default: converted first")
    parser.add_argument("--repeats", type=int, default=5, help="median of this many (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not (args.mp4_dir and args.aac_dir):
            make_clips(folder)
            args.mp4_dir, args.aac_dir, args.wav_dir = (f"{folder}/mp4", f"{folder}/aac", None)
        if not args.wav_dir:
            args.wav_dir = f"{folder}/wav"
            for job in find_jobs(args.aac_dir)[0]:
                convert_file((args.aac_dir, args.wav_dir), job)
        compare(args, f"{folder}/converted")


def compare(args: argparse.Namespace, dst: str) -> None:
    """Measure and print the table. dst: a folder for wavs, best in memory (/dev/shm)."""
    clips = find_files(args.mp4_dir, (".mp4",))
    videos = [os.path.join(args.mp4_dir, clip) for clip in clips]
    sounds = [os.path.join(args.aac_dir, name) for name in find_files(args.aac_dir, SOURCES)]
    jobs = find_jobs(args.aac_dir)[0]
    decode = CheckSettings(args.mp4_dir, None, args.wav_dir, "decode", False)
    packets = CheckSettings(args.mp4_dir, None, args.wav_dir, "packets", False)
    passes = {
        "decode videos only": (len(videos), lambda: decode_videos(videos)),
        "list, --check decode": (len(clips), lambda: check_clips(decode, clips)),
        "list, --check packets": (len(clips), lambda: check_clips(packets, clips)),
        "decode sounds only": (TURNS * len(sounds), lambda: decode_sounds(TURNS * sounds)),
        "convert sounds": (TURNS * len(jobs), lambda: convert_sounds(args.aac_dir, jobs, dst)),
    }
    usable = check_clips(decode, clips)
    if usable < len(clips):
        sys.exit(
            f"only {usable} of {len(clips)} clips can be used, and skipping costs nothing: give good ones"
        )
    print(f"{len(clips)} clips; {len(sounds)} sounds; median of {args.repeats}")
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
    gains: list[tuple[float, float]] = []
    check = partial(check_job, decode)
    for _ in range(args.repeats):
        make_folders(jobs, dst)
        for name, (_, work) in passes.items():
            seconds[name].append(timed(work))
        gains.append((scaling(check, [(clip, None) for clip in clips * 6]), scaling(decode_one, videos * 6)))
    for name, (files, _) in passes.items():
        wall, processor = (files / statistics.median(column) for column in zip(*seconds[name], strict=True))
        print(f"  {name:24}{wall:8.1f} files/s {processor:8.1f} files per processor second")

    def ratio(name: str, base: str, column: int) -> float:
        pairs = zip(seconds[name], seconds[base], strict=True)
        times = passes[name][0] / passes[base][0]
        return statistics.median(other[column] / one[column] * times for one, other in pairs)

    for text, name, base, goal in (
        ("list making against decoding", "list, --check decode", "decode videos only", 0.95),
        ("packets against decode", "list, --check packets", "list, --check decode", 15),
        ("conversion against decoding", "convert sounds", "decode sounds only", 0.8),
    ):
        wall, processor = ratio(name, base, 0), ratio(name, base, 1)
        print(f"{text:32}{wall:6.2f} wall {processor:6.2f} processor   goal {goal}")
    listing, decoding = (statistics.median(column) for column in zip(*gains, strict=True))
    print(f"{'list making, 2 workers against 1':32}{listing:6.2f} wall {'':16}   goal 1.7")
    print(f"{'decoding only, 2 against 1':32}{decoding:6.2f} wall {'':16}   what the machine gives")


if __name__ == "__main__":
    main()
