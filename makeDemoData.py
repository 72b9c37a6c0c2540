"""Make a small synthetic talking-face corpus in VoxCeleb2's layout, to try the trainer without data.

    python makeDemoData.py --out data/demo
    python makeDemoData.py --out data/big --speakers 500 --clips 4 --seconds 4 --nWorkers 16

DIR/dev and DIR/test hold mp4/, wav/ and txt/ of the training and validation clips; DIR/voxceleb1 holds the wavs of
held-out speakers and DIR/test_list.txt their trials (`label fileA fileB`). No identity appears in two of the three.

An identity is four numbers in 0..1, each of them visible in the drawn face and audible in the synthetic voice, which
a network can learn from some identities and apply to others:

    size        head, eyes and jaw                 vocal tract: all resonances and hisses are lower
    pitch       background from blue to orange     pitch, and how fast it swings
    brightness  skin from dark to pale             spectral tilt: how high the voice stands out of the noise
    tempo       hair and shirt, green to magenta   syllables per second; slow voices are breathier

The network's front end normalizes each mel band over time, which removes constant differences. These four remain:
they determine which bands move, how they move together, and how fast.
"""

import syncnet  # noqa: F401  # isort: skip

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from syncnet.support.commands import Parser, answer_flags, at_least, command, error_text
from syncnet.support.errors import UserError
from syncnet.support.processes import available_cores, map_in_processes

SECONDS = (1, 60)  # shortest and longest clip; a second leaves a training crop of 18 frames


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the flags; errors exit with status 2."""
    parser = Parser(
        description=__doc__,
        example=[
            "python makeDemoData.py --out data/demo",
            "python makeDemoData.py --out data/big --speakers 500",
        ],
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the corpus, created if needed")
    add("--speakers", type=at_least(int, 1), default=60, help="training identities; more of them "
        "generalize better than more clips of each")  # fmt: skip
    add("--val_speakers", type=at_least(int, 1), default=24, help="validation identities")
    add("--clips", type=at_least(int, 1), default=1, help="clips per training and validation identity")
    add("--test_speakers", type=at_least(int, 2), default=12, help="held-out voices of the trials")
    add("--utterances", type=at_least(int, 2), default=8, help="utterances per held-out voice")
    add("--seconds", type=float, default=2.6, help="length of every clip and utterance; must be well above "
        "the maxFrames / 25 s of a training crop")  # fmt: skip
    add("--seed", type=at_least(int, 0), default=0, help="the same seed and sizes give the same corpus")
    add("--nWorkers", type=at_least(int, 1), default=available_cores(), help="processes that work in parallel; the "
        "corpus does not depend on it")  # fmt: skip
    args = parser.parse_args(argv)
    if max(args.speakers, args.val_speakers, args.test_speakers) > 10000:
        parser.error("expected at most 10000 speakers of each kind (id00000 to id09999)")
    if not SECONDS[0] <= args.seconds <= SECONDS[1]:
        parser.error(f"--seconds {args.seconds}: expected {SECONDS[0]} to {SECONDS[1]}")
    return args


if __name__ == "__main__":
    answer_flags(parse_args)

import av
import cv2
import numpy as np

from syncnet.demo.face import DrawnFace
from syncnet.demo.voice import STEPS_PER_FRAME, Identity, draw_identities, speak
from syncnet.media.clips import FPS, FRAME_SIZE, SAMPLES_PER_FRAME
from syncnet.media.wav import write_wav
from syncnet.support.files import check_output, replace_file
from syncnet.support.progress import progress_bar

KEY_FRAME_INTERVAL = 250  # frames, as in VoxCeleb2
# Frames by which the picture lags the sound, for successive clips.
OFFSETS = (0, 3, 0, 0, -2, 0, 0, -3, 0, 1)
MAX_OFFSET = max(map(abs, OFFSETS))


@dataclass(frozen=True)
class Utterance:
    """A recording to make. name: id/ref/utt. stream: seed of its random generator."""

    name: str
    identity: Identity
    frames: int
    offset: int
    stream: tuple[int, ...]


# ---------------------------------------------------------------- files


def write_mp4(path: str, images: Iterator[np.ndarray]) -> None:
    """Write BGR images in the format of VoxCeleb2's videos: H.264, 25 fps, B-frames, a key frame every 250 frames."""
    options = {"preset": "veryfast", "crf": "20", "bf": "2", "b_strategy": "0", "sc_threshold": "0"}
    options |= {"g": str(KEY_FRAME_INTERVAL), "keyint_min": str(KEY_FRAME_INTERVAL), "threads": "1"}
    options["mbtree"] = "0"  # with mbtree, the same frames may give different bytes
    with replace_file(path, "wb") as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width = stream.height = FRAME_SIZE
        stream.pix_fmt = "yuv420p"
        for image in images:
            planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")))
        container.mux(stream.encode())


def as_int16(samples: np.ndarray) -> np.ndarray:
    """Convert (n,) float samples in int16 units to int16."""
    limits = np.iinfo(np.int16)
    return np.clip(np.round(samples), limits.min, limits.max).astype(np.int16)


def write_txt(path: str, utterance: Utterance, face: DrawnFace) -> None:
    """Write the txt in VoxCeleb2's format: offset on line 3, then the box of each frame."""
    identity, reference, _ = utterance.name.split("/")
    lines = [
        f"Identity  : \t{identity}",
        f"Reference : \t{reference}",
        f"Offset    : \t{utterance.offset}",
        "FV Conf   : \t20.000\t(1)",
        "ASD Conf  : \t5.000",
        "",
        "FRAME \tX \tY \tW \tH ",
    ]
    for frame in range(utterance.frames):
        x, y, _ = face.pose(frame / FPS) / FRAME_SIZE
        lines.append(f"{frame + 1:06d} \t{0.4 + 0.2 * x:.3f} \t{0.2 + 0.3 * y:.3f} \t0.200 \t0.300 ")
    with replace_file(path) as file:
        file.write("\n".join(lines) + "\n")


def make_clip(folder: str, utterance: Utterance) -> None:
    """Write mp4, wav and txt of one clip. With offset k, frame f shows the mouth of audio frame f - k."""
    rng = np.random.default_rng(utterance.stream)
    # The picture shows the lead-in and lead-out before the sound begins and after it ends.
    speech = speak(utterance.identity, utterance.frames + 2 * MAX_OFFSET, rng)
    start = MAX_OFFSET * SAMPLES_PER_FRAME
    samples = speech.samples[start : start + utterance.frames * SAMPLES_PER_FRAME]
    face = DrawnFace(utterance.identity, rng)

    def images() -> Iterator[np.ndarray]:
        for frame in range(utterance.frames):
            step = (MAX_OFFSET + frame - utterance.offset) * STEPS_PER_FRAME + STEPS_PER_FRAME // 2
            yield face.draw(frame / FPS, speech.opening[step], speech.spread[step])

    write_mp4(f"{folder}/mp4/{utterance.name}.mp4", images())
    write_wav(f"{folder}/wav/{utterance.name}.wav", as_int16(samples))
    write_txt(f"{folder}/txt/{utterance.name}.txt", utterance, face)


def make_recording(folder: str, utterance: Utterance) -> None:
    """Write the wav of one held-out utterance."""
    speech = speak(utterance.identity, utterance.frames, np.random.default_rng(utterance.stream))
    write_wav(f"{folder}/{utterance.name}.wav", as_int16(speech.samples))


# ---------------------------------------------------------------- corpus


class Task(NamedTuple):
    """An utterance, the function that makes it, and its folder."""

    make: Callable[[str, Utterance], None]
    folder: str
    utterance: Utterance


def plan_group(group: int, speakers: int, clips: int, frames: int, seed: int) -> list[Utterance]:
    """The utterances of one group of speakers: `clips` each, one per video. Groups share no identity."""
    utterances: list[Utterance] = []
    identities = draw_identities(speakers, np.random.default_rng((seed, group)))
    for (speaker, identity), clip in itertools.product(enumerate(identities), range(clips)):
        name = f"id{group * 10000 + speaker:05d}/video{clip:06d}/00001"
        offset = OFFSETS[len(utterances) % len(OFFSETS)]
        utterances.append(Utterance(name, identity, frames, offset, (seed, group, speaker, clip)))
    return utterances


def trial_lines(utterances: list[Utterance], rng: np.random.Generator) -> list[str]:
    """Every target pair, alternating with as many random non-target pairs: `label fileA fileB`."""
    pairs: dict[bool, list[str]] = {True: [], False: []}
    for a, b in itertools.combinations(utterances, 2):
        pairs[a.identity == b.identity].append(f"{a.name}.wav {b.name}.wav")
    others = [pairs[False][n] for n in rng.choice(len(pairs[False]), len(pairs[True]), replace=False)]
    return [line for a, b in zip(pairs[True], others, strict=True) for line in (f"1 {a}", f"0 {b}")]


def plan_corpus(args: argparse.Namespace) -> tuple[list[Task], list[str]]:
    """The tasks, and the lines of the trial list."""
    frames = round(args.seconds * FPS)
    train = plan_group(0, args.speakers, args.clips, frames, args.seed)
    validation = plan_group(1, args.val_speakers, args.clips, frames, args.seed)
    held_out = plan_group(2, args.test_speakers, args.utterances, frames, args.seed)
    tasks = [Task(make_clip, f"{args.out}/dev", utterance) for utterance in train]
    tasks += [Task(make_clip, f"{args.out}/test", utterance) for utterance in validation]
    tasks += [Task(make_recording, f"{args.out}/voxceleb1", utterance) for utterance in held_out]
    return tasks, trial_lines(held_out, np.random.default_rng((args.seed, 2)))


def check_folder(out: Path, tasks: list[Task]) -> int:
    """The number of clips and recordings that exist. Raises UserError for clips that do not belong to the tasks."""
    expected = {os.path.relpath(f"{task.folder}/{task.utterance.name}", out) for task in tasks}
    found = {}
    for pattern in ("dev/mp4/*/*/*.mp4", "test/mp4/*/*/*.mp4", "voxceleb1/*/*/*.wav"):
        for path in sorted(out.glob(pattern)):
            found[str(path.relative_to(out).with_suffix("")).replace("/mp4/", "/")] = path
    strange = [path for name, path in found.items() if name not in expected]
    if strange:
        raise UserError(
            f"--out {out}: contains {len(strange)} clips that do not belong to a corpus of these sizes, such as "
            f"{strange[0]}. Delete the folder, or give another one."
        )
    return len(found)


def run_task(task: Task) -> None:
    cv2.setNumThreads(1)  # the processes use all cores
    task.make(task.folder, task.utterance)


def make_corpus(args: argparse.Namespace) -> None:
    """Make the corpus that `args` (see parse_args) describes, in parallel processes."""
    tasks, trials = plan_corpus(args)
    present = check_folder(args.out, tasks)
    if present:
        print(f"{args.out}: {present} of {len(tasks)} clips and recordings exist and are made again")
    bar = partial(progress_bar, total=len(tasks), desc="making clips", unit="clip")
    for _ in bar(map_in_processes(run_task, tasks, args.nWorkers, chunk=2)):
        pass
    with replace_file(f"{args.out}/test_list.txt") as file:
        file.write("\n".join(trials) + "\n")


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    check_output("--out", str(args.out), folder=True)
    try:
        make_corpus(args)
    except OSError as error:
        raise UserError(f"--out {args.out}: cannot write the corpus there: {error_text(error)}") from None
    frames = round(args.seconds * FPS)
    print(
        f"{args.out}: dev/ {args.speakers} and test/ {args.val_speakers} identities with {args.clips} clip(s) "
        f"of {frames} frames each (for --maxFrames up to {frames - MAX_OFFSET - 4}); voxceleb1/ and "
        f"test_list.txt: {args.test_speakers} other voices with {args.utterances} utterances each"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
