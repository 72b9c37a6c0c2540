"""A small talking-face corpus made from nothing, in VoxCeleb2's layout: to try the trainer without data.

    python makeDemoData.py --out data/demo
    python makeDemoData.py --out data/big --speakers 500 --clips 4 --seconds 4 --nWorkers 16

DIR/dev and DIR/test hold mp4/, wav/ and txt/ of the training and the validation clips; DIR/voxceleb1 holds
the wavs of held-out speakers and DIR/test_list.txt their trials (`label fileA fileB`). No identity is in two
of the three.

An identity is four numbers in 0..1. Each of them is seen in the drawn face and heard in the synthetic voice,
which is what a network can learn from some identities and apply to others:

    size        head, eyes and jaw                 vocal tract: all resonances and hisses are lower
    pitch       background from blue to orange     pitch, and how fast it swings
    brightness  skin from dark to pale             spectral tilt: how high the voice stands out of the noise
    tempo       hair and shirt, green to magenta   syllables a second; slow voices are breathier

Differences that last a whole crop are lost in the network's front end, which normalises each mel band over
time. These four are not: they decide which bands move, how they move together, and how fast.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple

import rooms  # noqa: F401
from support.commands import Parser, answer_flags, command, in_words
from support.errors import UserError
from support.processes import available_cores, map_in_processes

SECONDS = (1, 60)  # shortest and longest clip; a second leaves a training crop of 18 frames


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read and check the flags; an error is one message, and exit status 2."""
    parser = Parser(
        description=__doc__,
        example=[
            "python makeDemoData.py --out data/demo",
            "python makeDemoData.py --out data/big --speakers 500",
        ],
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the corpus, made if need be")
    add("--speakers", type=int, default=60, help="training identities; more of them "
        "generalise better than more clips of few")  # fmt: skip
    add("--val_speakers", type=int, default=24, help="validation identities")
    add("--clips", type=int, default=1, help="clips of each of these identities")
    add("--test_speakers", type=int, default=12, help="held-out voices of the trials")
    add("--utterances", type=int, default=8, help="utterances of each held-out voice")
    add("--seconds", type=float, default=2.6, help="length of every clip and utterance; must be well above "
        "the maxFrames / 25 s of a training crop")  # fmt: skip
    add("--seed", type=int, default=0, help="same seed and sizes, same corpus")
    add("--nWorkers", type=int, default=available_cores(), help="processes that work at once; the "
        "corpus does not depend on it")  # fmt: skip
    args = parser.parse_args(argv)
    limits = {"speakers": 1, "val_speakers": 1, "clips": 1, "test_speakers": 2, "utterances": 2}
    for flag, least in (limits | {"nWorkers": 1, "seed": 0}).items():
        if getattr(args, flag) < least:
            parser.error(f"--{flag} {getattr(args, flag)}: must be at least {least}")
    if max(args.speakers, args.val_speakers, args.test_speakers) > 10000:
        parser.error("at most 10000 speakers of each kind can be named (id00000 to id09999)")
    if not SECONDS[0] <= args.seconds <= SECONDS[1]:
        parser.error(f"--seconds {args.seconds}: must be between {SECONDS[0]} and {SECONDS[1]}")
    return args


if __name__ == "__main__":
    answer_flags(parse_args)

import av
import cv2
import numpy as np
from scipy.io import wavfile
from scipy.signal import istft, stft

from media.clips import FPS, FRAME_SIZE, SAMPLE_RATE, SAMPLES_PER_FRAME
from support.files import replace_file
from support.progress import progress_bar

# Articulation is described in steps of 8 ms: five a video frame, and the hop of the vocal-tract filter.
STEPS_PER_FRAME = 5
HOP_LENGTH = SAMPLES_PER_FRAME // STEPS_PER_FRAME  # 128 samples
STEP_RATE = SAMPLE_RATE // HOP_LENGTH  # 125 steps a second
FILTER_LENGTH = 4 * HOP_LENGTH  # analysis window and FFT size of that filter

KEY_FRAME_INTERVAL = 250  # frames, as in VoxCeleb2
# Of successive clips: by how many frames the picture comes later than the sound.
OFFSETS = (0, 3, 0, 0, -2, 0, 0, -3, 0, 1)
MAX_OFFSET = max(map(abs, OFFSETS))

SPEECH_RMS = 3000.0  # of int16 samples, as close speech
NOISE_FLOOR = (4.0, 40.0)  # of the room, white: from the quietest recording to the noisiest


class Identity(NamedTuple):
    """Who speaks: four numbers in 0..1, each of them visible and audible."""

    size: float
    pitch: float
    brightness: float
    tempo: float


class Sound(NamedTuple):
    """A target of the vocal tract: resonances in Hz (of an average head), mouth and sources in 0..1."""

    f1: float
    f2: float
    opening: float
    spread: float
    voice: float
    hiss: float


VOWELS = (
    Sound(850, 1300, 1.00, 0.50, 1.0, 0.0),  # a
    Sound(520, 1900, 0.60, 0.80, 0.9, 0.0),  # e
    Sound(300, 2350, 0.30, 1.00, 0.8, 0.0),  # i
    Sound(500, 850, 0.70, 0.15, 0.9, 0.0),  # o
    Sound(320, 700, 0.35, 0.00, 0.8, 0.0),  # u
)
CLOSURE = Sound(250, 1300, 0.0, 0.4, 0.0, 0.0)  # p: silent, lips closed
FRICATIVE = Sound(300, 1600, 0.12, 0.7, 0.0, 1.0)  # s: a hiss between the teeth


class Speech(NamedTuple):
    """samples: (n,) float, in int16 units; opening, spread: (n // HOP_LENGTH,) mouth shape in 0..1."""

    samples: np.ndarray
    opening: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Utterance:
    """One recording to be made. `name`: id/ref/utt; `stream`: what its random numbers are drawn from."""

    name: str
    identity: Identity
    frames: int
    offset: int
    stream: tuple[int, ...]


def between(low: float, high: float, share: float) -> float:
    """The number at `share` (0..1) of the way from low to high, on a logarithmic scale."""
    return low * (high / low) ** share


def draw_identities(count: int, rng: np.random.Generator) -> list[Identity]:
    """`count` identities spread evenly: each number takes one value in each of `count` equal strata."""
    strata = rng.permuted(np.tile(np.arange(count), (len(Identity._fields), 1)), axis=1)
    return [Identity(*map(float, values)) for values in ((strata + 0.5) / count).T]


# ---------------------------------------------------------------- voice


def articulate(identity: Identity, steps: int, rng: np.random.Generator) -> Sound:
    """A random syllable sequence as tracks of `steps` values: closure or hiss, then a vowel, and again."""
    rate = between(2.2, 6.0, identity.tempo)
    sounds, lengths, vowel = [], [], None
    while sum(lengths) < steps:
        length = STEP_RATE / rate * rng.uniform(0.7, 1.4)
        vowel = VOWELS[rng.choice([n for n in range(len(VOWELS)) if VOWELS[n] is not vowel])]
        shares = (0.12, 0.28, 0.60) if rng.random() < 0.5 else (0.40, 0.0, 0.60)
        sounds += [CLOSURE, FRICATIVE, vowel]
        lengths += [round(share * length) for share in shares]
    tracks = np.repeat(np.array(sounds), lengths, axis=0)
    # Articulators glide from one target to the next in about 60 ms.
    glide = np.hanning(9)[1:-1] / np.hanning(9).sum()
    return Sound(*(np.convolve(track, glide, mode="same")[:steps] for track in tracks.T))


def pitch_track(identity: Identity, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Fundamental frequency in Hz of each sample: a base pitch with vibrato and slow random intonation."""
    time = np.arange(samples) / SAMPLE_RATE
    anchors = np.arange(0, time[-1] + 0.5, 0.25)
    intonation = np.interp(time, anchors, rng.uniform(-2.0, 2.0, len(anchors)))
    vibrato_rate = between(3.0, 8.0, identity.pitch)
    vibrato = 0.8 * np.sin(2 * np.pi * (vibrato_rate * time + rng.random()))
    base = between(85.0, 340.0, identity.pitch) * rng.uniform(0.97, 1.03)
    return base * 2 ** ((intonation + vibrato) / 12)


def resonance(frequency: np.ndarray, centre: np.ndarray | float, bandwidth: np.ndarray | float) -> np.ndarray:
    """Response of a two-pole resonator with gain 1 at 0 Hz; the arguments broadcast, all in Hz."""
    return centre**2 / (centre**2 - frequency**2 + 1j * frequency * bandwidth)


def speak(identity: Identity, frames: int, rng: np.random.Generator) -> Speech:
    """`frames` video frames of speech: pulses and noise through a moving vocal tract (source and filter)."""
    samples, steps = frames * SAMPLES_PER_FRAME, frames * STEPS_PER_FRAME
    sound = articulate(identity, steps + 1, rng)
    scale = between(1.3, 0.75, identity.size)

    pitch = pitch_track(identity, samples, rng)
    half_phase = np.pi * np.cumsum(pitch) / SAMPLE_RATE
    # Dirichlet kernel: a pulse train with every harmonic below half the sampling rate and none above.
    harmonics = int(SAMPLE_RATE / 2 / pitch.max())
    pulses = np.sin((2 * harmonics + 1) * half_phase) / np.sin(half_phase) - 1
    pulses /= np.sqrt(2 * harmonics)
    noise = rng.standard_normal(samples)

    def spectrum(signal: np.ndarray) -> np.ndarray:
        return stft(signal, SAMPLE_RATE, nperseg=FILTER_LENGTH, noverlap=FILTER_LENGTH - HOP_LENGTH)[2]

    frequency = np.linspace(0, SAMPLE_RATE / 2, FILTER_LENGTH // 2 + 1)[:, None]
    formants = (sound.f1 * scale, sound.f2 * scale, 2700 * scale, 3700 * scale, 4900 * scale)
    tract = reduce(np.multiply, (resonance(frequency, f, 50 + 0.06 * f) for f in formants))
    # A cascade of low-passes falls steeply above its last resonance; the source's tilt replaces that fall.
    tract /= np.maximum(np.abs(tract), 1e-9) ** 0.3
    octaves = np.log2(np.maximum(frequency, 300) / 300)
    tilt = 10 ** (-octaves * (12 - 11 * identity.brightness) / 20)
    breath = between(0.25, 0.02, identity.tempo)
    voiced = sound.voice * tract * tilt * (spectrum(pulses) + breath * spectrum(noise))
    hiss_centre = 5200 * scale
    hiss = np.exp(-0.5 * (np.log2(np.maximum(frequency, 1) / hiss_centre) / 0.25) ** 2)
    mixed = voiced / np.sqrt(np.mean(np.abs(voiced) ** 2)) + sound.hiss * hiss * spectrum(noise) * 1.5
    speech = istft(mixed, SAMPLE_RATE, nperseg=FILTER_LENGTH, noverlap=FILTER_LENGTH - HOP_LENGTH)[1]
    speech = speech[:samples] * SPEECH_RMS / np.sqrt(np.mean(speech**2))
    speech += between(*NOISE_FLOOR, rng.random()) * rng.standard_normal(samples)
    return Speech(speech, sound.opening[:steps], sound.spread[:steps])


# ---------------------------------------------------------------- face


def mix(low: tuple, high: tuple, share: float) -> np.ndarray:
    """The colour at `share` (0..1) of the way between two BGR colours."""
    return np.array(low) + (np.array(high, float) - np.array(low)) * share


class Face:
    """A face that can be drawn again and again, in one light and one place, with a moving mouth."""

    CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 48, endpoint=False)) for f in (np.cos, np.sin)], axis=1)
    SUBPIXEL = 4  # bits after the point in OpenCV's drawing coordinates

    def __init__(self, identity: Identity, rng: np.random.Generator):
        self.identity = identity
        self.radius = FRAME_SIZE * (0.25 + 0.15 * identity.size)
        self.skin = mix((45, 70, 120), (195, 220, 255), identity.brightness)
        self.hair = mix((40, 150, 20), (190, 20, 200), identity.tempo)
        self.background = mix((220, 60, 20), (10, 130, 255), identity.pitch)
        self.centre = FRAME_SIZE * np.array([0.5, 0.5]) + rng.uniform(-6, 6, 2)
        side = np.linspace(-1, 1, FRAME_SIZE)[None, :, None] * rng.uniform(-0.1, 0.1)
        light = np.clip(rng.uniform(0.85, 0.95) + side, 0, 1) * np.ones((FRAME_SIZE, 1, 3))
        self.light = np.uint8(255 * light)
        # Slow sway: for x, y (pixels) and roll (radians), amplitude, frequency (Hz) and phase (turns).
        self.sway = np.stack([[3.0, 2.5, 0.05], rng.uniform(0.2, 0.7, 3), rng.random(3)])
        self.blink = rng.uniform(0.5, 3.0)

    def pose(self, time: float) -> np.ndarray:
        """x, y (pixels) and roll (radians) of the head at `time` seconds."""
        amplitude, frequency, phase = self.sway
        return amplitude * np.sin(2 * np.pi * (frequency * time + phase))

    def draw(self, time: float, opening: float, spread: float) -> np.ndarray:
        """The picture at `time` seconds, mouth shape in 0..1: (FRAME_SIZE, FRAME_SIZE, 3) uint8 BGR."""
        image = np.empty((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        image[:] = self.background
        x, y, roll = self.pose(time)
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]]) * self.radius
        origin = self.centre + (x, y)

        def blob(centre: tuple, axes: tuple, colour: np.ndarray) -> None:
            """An ellipse in units of the head's radius from the head's centre."""
            points = (self.CIRCLE * axes + centre) @ turn + origin
            points = np.int32(np.round(points * 2**self.SUBPIXEL))
            cv2.fillPoly(image, [points], tuple(map(float, colour)), cv2.LINE_AA, self.SUBPIXEL)

        size, dark, white = self.identity.size, self.hair * 0.4, np.full(3, 255.0)
        blob((0, 1.95), (1.5, 0.85), self.hair)  # shirt
        blob((0, -0.15), (1.0, 1.18), self.hair)
        blob((0, 1.0), (0.4, 0.5), self.skin * 0.8)  # neck
        blob((0, 0.1), (0.82, 1.05), self.skin)
        blink = abs((time - self.blink + 1.5) % 3.0 - 1.5) < 0.06  # every three seconds
        for eye in (-0.34, 0.34):
            blob((eye, -0.22), (0.17, 0.02 if blink else 0.13 - 0.04 * size), white)
            blob((eye, -0.22), (0.08, 0.02 if blink else 0.08), dark)
            blob((eye, -0.46), (0.21, 0.03 + 0.03 * size), dark)
        blob((0, 0.12), (0.08, 0.14), self.skin * 0.85)  # nose
        width = 0.2 + 0.26 * spread
        blob((0, 0.6), (width + 0.08, 0.08 + 0.34 * opening), np.array([40, 20, 215]))  # lips
        blob((0, 0.6), (width, 0.34 * opening), np.array([15, 0, 25]))
        if opening > 0.15:
            blob((0, 0.6 - 0.2 * opening), (0.7 * width, 0.07 * opening), white)  # upper teeth
        return cv2.multiply(image, self.light, scale=1 / 255)


# ---------------------------------------------------------------- files


def write_mp4(path: str, images: Iterator[np.ndarray]) -> None:
    """Write BGR images as VoxCeleb2's videos are: H.264, 25 fps, B-frames, a key frame every 250 frames."""
    options = {"preset": "veryfast", "crf": "20", "bf": "2", "b_strategy": "0", "sc_threshold": "0"}
    options |= {"g": str(KEY_FRAME_INTERVAL), "keyint_min": str(KEY_FRAME_INTERVAL), "threads": "1"}
    options["mbtree"] = "0"  # with it, the same pictures do not always give the same bytes
    with replace_file(path, "wb") as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width = stream.height = FRAME_SIZE
        stream.pix_fmt = "yuv420p"
        for image in images:
            planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")))
        container.mux(stream.encode())


def write_wav(path: str, samples: np.ndarray) -> None:
    """Write samples (n,) in int16 units as 16 kHz mono int16."""
    limits = np.iinfo(np.int16)
    with replace_file(path, "wb") as file:
        wavfile.write(file, SAMPLE_RATE, np.int16(np.clip(np.round(samples), limits.min, limits.max)))


def write_txt(path: str, utterance: Utterance, face: Face) -> None:
    """Write the description in VoxCeleb2's format: offset on line 3, then the track's box of each frame."""
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
    # The lead-in and lead-out are what the picture shows while the sound has not begun or is over.
    speech = speak(utterance.identity, utterance.frames + 2 * MAX_OFFSET, rng)
    start = MAX_OFFSET * SAMPLES_PER_FRAME
    samples = speech.samples[start : start + utterance.frames * SAMPLES_PER_FRAME]
    face = Face(utterance.identity, rng)

    def images() -> Iterator[np.ndarray]:
        for frame in range(utterance.frames):
            step = (MAX_OFFSET + frame - utterance.offset) * STEPS_PER_FRAME + STEPS_PER_FRAME // 2
            yield face.draw(frame / FPS, speech.opening[step], speech.spread[step])

    write_mp4(f"{folder}/mp4/{utterance.name}.mp4", images())
    write_wav(f"{folder}/wav/{utterance.name}.wav", samples)
    write_txt(f"{folder}/txt/{utterance.name}.txt", utterance, face)


def make_recording(folder: str, utterance: Utterance) -> None:
    """Write the wav of one held-out utterance."""
    speech = speak(utterance.identity, utterance.frames, np.random.default_rng(utterance.stream))
    write_wav(f"{folder}/{utterance.name}.wav", speech.samples)


# ---------------------------------------------------------------- corpus


def plan(group: int, speakers: int, clips: int, frames: int, seed: int) -> list[Utterance]:
    """The utterances of one group of speakers: `clips` each, one a video. Groups share no identity."""
    utterances = []
    identities = draw_identities(speakers, np.random.default_rng((seed, group)))
    for (speaker, identity), clip in itertools.product(enumerate(identities), range(clips)):
        name = f"id{group * 10000 + speaker:05d}/video{clip:06d}/00001"
        offset = OFFSETS[len(utterances) % len(OFFSETS)]
        utterances.append(Utterance(name, identity, frames, offset, (seed, group, speaker, clip)))
    return utterances


def trial_lines(utterances: list[Utterance], rng: np.random.Generator) -> list[str]:
    """Every target pair, and as many non-target pairs drawn at random, in turn: `label fileA fileB`."""
    pairs = {1: [], 0: []}
    for a, b in itertools.combinations(utterances, 2):
        pairs[a.identity == b.identity].append(f"{a.name}.wav {b.name}.wav")
    others = [pairs[0][n] for n in rng.choice(len(pairs[0]), len(pairs[1]), replace=False)]
    return [line for a, b in zip(pairs[1], others, strict=True) for line in (f"1 {a}", f"0 {b}")]


def plan_corpus(args: argparse.Namespace) -> tuple[list[tuple[Callable, Utterance]], list[str]]:
    """What is to be made, as (how, what) tasks, and the lines of the trial list."""
    frames = round(args.seconds * FPS)
    train = plan(0, args.speakers, args.clips, frames, args.seed)
    validation = plan(1, args.val_speakers, args.clips, frames, args.seed)
    held_out = plan(2, args.test_speakers, args.utterances, frames, args.seed)
    tasks = [(partial(make_clip, f"{args.out}/dev"), utterance) for utterance in train]
    tasks += [(partial(make_clip, f"{args.out}/test"), utterance) for utterance in validation]
    tasks += [(partial(make_recording, f"{args.out}/voxceleb1"), utterance) for utterance in held_out]
    return tasks, trial_lines(held_out, np.random.default_rng((args.seed, 2)))


def check_folder(out: Path, tasks: list[tuple[Callable, Utterance]]) -> int:
    """How many of the clips and recordings are there already. Raises UserError when others are there too."""
    expected = {os.path.relpath(f"{make.args[0]}/{what.name}", out) for make, what in tasks}
    found = {}
    for pattern in ("dev/mp4/*/*/*.mp4", "test/mp4/*/*/*.mp4", "voxceleb1/*/*/*.wav"):
        for path in sorted(out.glob(pattern)):
            found[str(path.relative_to(out).with_suffix("")).replace("/mp4/", "/")] = path
    strange = [path for name, path in found.items() if name not in expected]
    if strange:
        raise UserError(
            f"--out {out}: holds {len(strange)} clips that do not belong to a corpus of these sizes "
            f"({strange[0]} is the first). Delete the folder, or name another one."
        )
    return len(found)


def run_task(task: tuple[Callable, Utterance]) -> None:
    cv2.setNumThreads(1)  # work is divided over processes; OpenCV's own threads would only get in their way
    make, utterance = task
    make(utterance)


def make_corpus(args: argparse.Namespace) -> None:
    """Make the corpus that `args` (see parse_args) describes. The work is divided over processes."""
    tasks, trials = plan_corpus(args)
    present = check_folder(args.out, tasks)
    if present:
        print(f"{args.out}: {present} of {len(tasks)} clips and recordings are there and are made again")
    bar = partial(progress_bar, total=len(tasks), desc="making clips", unit="clip")
    for _ in bar(map_in_processes(run_task, tasks, args.nWorkers, chunk=2)):
        pass
    with replace_file(f"{args.out}/test_list.txt") as file:
        file.write("\n".join(trials) + "\n")


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        make_corpus(args)
    except OSError as error:
        raise UserError(f"--out {args.out}: cannot write the corpus there: {in_words(error)}") from None
    frames = round(args.seconds * FPS)
    print(
        f"{args.out}: dev/ {args.speakers} and test/ {args.val_speakers} identities with {args.clips} clip(s) "
        f"of {frames} frames each (for --maxFrames up to {frames - MAX_OFFSET - 4}); voxceleb1/ and "
        f"test_list.txt: {args.test_speakers} other voices with {args.utterances} utterances each"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
