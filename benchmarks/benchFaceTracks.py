"""How close makeFaceTracks.py comes to its own face detection: ratios, measured in one run.

    python benchmarks/benchFaceTracks.py [--video X.mp4] [--face_detector YUNET.onnx] [--repeats 3] [--workers]

With --face_detector, YuNet is measured beside MTCNN. Without --video, a 720p video with one moving face is made. The
passes that are compared take turns in one process and are measured in seconds of that process, so that other work
counts little; each figure is the median over the repeats. --workers compares two processes with one, for eight
files and for a long one; that is measured by the clock, and needs two idle cores.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests/makers")]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from common import machine, table  # noqa: E402
from videoMaker import face, make_video  # noqa: E402

import makeFaceTracks  # noqa: E402
from syncnet.media.clips import FPS  # noqa: E402
from syncnet.media.timeline import VideoReader  # noqa: E402
from syncnet.tracks.face_tracks import group_tracks, plan_parts, select_tracks, survey_part, write_group  # noqa: E402
from syncnet.tracks.survey import DETECTORS, Survey  # noqa: E402
from syncnet.tracks.track_settings import PART, Rule  # noqa: E402

RULE = Rule(detect_every=5, min_frames=34, min_face=60)
SIDE = 320  # pixels of the square around the face


def make_720p(path: str, seconds: float) -> None:
    """One face that moves slowly over a background with some noise, as a camera has it."""
    person = face(SIDE)
    rng = np.random.default_rng(0)
    coarse = cv2.resize(
        rng.integers(40, 160, (12, 20, 3), np.uint8), (1280, 720), interpolation=cv2.INTER_CUBIC
    )
    grain = rng.integers(0, 6, (8, 720, 1280, 3), np.uint8)

    def draw(picture: np.ndarray, number: int) -> None:
        picture[:] = coarse + grain[number % 8]
        left = 480 + round(60 * np.sin(number / 20))
        picture[200 : 200 + SIDE, left : left + SIDE] = person

    options = {"preset": "veryfast", "g": "250"}
    make_video(
        path, np.arange(round(seconds * FPS)) / FPS, size=(1280, 720), flash=None, draw=draw, options=options
    )


def decode(path: str) -> None:
    with VideoReader(path) as reader:
        for _ in reader.slots():
            pass


def decode_and_detect(path: str, rule: Rule) -> None:
    detector = DETECTORS[rule.detector](rule.min_face, rule.weights)
    with VideoReader(path) as reader:
        for slot, frame in reader.slots():
            if slot % rule.detect_every == 0:
                detector.find(reader.bgr(frame, detector.scale))


def first_pass(path: str, rule: Rule) -> None:
    for part in plan_parts(path).parts:
        with VideoReader(path, part.first_time) as reader:
            Survey(reader, rule).run(part)


def whole(path: str, rule: Rule) -> None:
    parts = plan_parts(path, rule.detect_every).parts
    found = select_tracks([survey_part(part, rule) for part in parts], rule)
    for tracks in group_tracks(found.tracks, PART if len(parts) > 1 else float("inf")):
        first = tracks[0].first if len(parts) > 1 else 0
        with tempfile.TemporaryDirectory() as folder:
            write_group(replace(parts[0], first=first), tracks, folder, "a")


def median_seconds(works: dict[str, Callable[[str], None]], path: str, repeats: int) -> dict[str, float]:
    """Median seconds of this process for each work; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            begin = time.process_time()
            work(path)
            taken[name].append(time.process_time() - begin)
    return {name: statistics.median(times) for name, times in taken.items()}


def command_seconds(src: str, workers: int) -> float:
    """Seconds by the clock that the command takes for a folder."""
    with tempfile.TemporaryDirectory() as dst:
        begin = time.perf_counter()
        status = makeFaceTracks.main(["--src", src, "--dst", dst, "--nWorkers", str(workers)])
        assert status == 0
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description="Ratios of the passes of makeFaceTracks.py.")
    parser.add_argument("--video", help="a video to measure with (default: one of 720p is made)")
    parser.add_argument("--face_detector", help="weights of YuNet, to be measured beside MTCNN")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", action="store_true", help="compare two processes with one as well")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = args.video or os.path.join(folder, "a.mp4")
        if not args.video:
            make_720p(path, 12)
        with VideoReader(path) as reader:
            length = sum(1 for _ in reader.slots()) / FPS
            print(f"{machine()}\n{reader.stream.width}x{reader.stream.height}, {length:.1f} s")
        rules = {"MTCNN": RULE}
        if args.face_detector:
            with open(args.face_detector, "rb") as file:
                rules["YuNet"] = replace(RULE, detector="yunet", weights=file.read())
        passes = {
            "decode + detect": decode_and_detect,
            "first pass (decode, detect, shots, tracks)": first_pass,
            "whole (with crops, mp4, wav, txt)": whole,
        }
        works = {"decode": decode}
        for name, rule in rules.items():
            works |= {f"{name}: {what}": partial(work, rule=rule) for what, work in passes.items()}
        taken = median_seconds(works, path, args.repeats)
        rows = [
            (name, length / t, taken["decode"] / t, taken.get(f"MTCNN:{name.partition(':')[2]}", t) / t)
            for name, t in taken.items()
        ]
        table(
            "One process", ("pass", "seconds of video a second", "of decode", "times as fast as MTCNN"), rows
        )
        if args.workers:
            rows = []
            for name, count, seconds in (("8 files", 8, length), ("one long file", 1, 4 * PART / FPS)):
                src = os.path.join(folder, name)
                os.makedirs(src)
                if count > 1:
                    for number in range(count):
                        shutil.copy(path, os.path.join(src, f"{number}.mp4"))
                else:
                    make_720p(os.path.join(src, "a.mp4"), seconds)
                one, two = (command_seconds(src, workers) for workers in (1, 2))
                rows.append((name, one, two, one / two))
            table("Two processes", ("", "one (s)", "two (s)", "times as fast"), rows)


if __name__ == "__main__":
    main()
