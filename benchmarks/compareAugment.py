"""The effect of --augment_noise on noisy voices: short runs with and without it, each with several seeds.

    python benchmarks/compareAugment.py --data data/demo --save_path data/augmented

Uses a corpus made by makeDemoData.py, listed as for compareOptions.py. Noises for training are generated in
SAVE_PATH/noises, in MUSAN's layout: colored noise, chords, and babble of the training voices. Other noises of the
same kinds, with babble of the validation voices, are added to a copy of the test voices. All runs have the same
number of steps; the same command resumes one that was stopped.

The equal error rates are those of --eval, for clean trials and for noisy ones (both utterances noisy).
"""

import os
from collections.abc import Callable

import numpy as np
import torch
from common import machine, table
from compareOptions import flags_of_runs, train, untrained_network
from scipy.io import wavfile

from syncnet.loading.augment import add_noise
from syncnet.media.clips import SAMPLE_RATE, read_list
from syncnet.media.find_files import find_files
from syncnet.media.wav import open_wav, write_wav
from syncnet.verification.trials import read_trials
from SyncNetDist import SyncNet
from tuneThreshold import tuneThresholdfromScore

SECONDS = 12  # of a noise
LOUDNESS = 2000  # of a noise, root mean square in int16 units
TALKERS = 5  # of babble
TRAINING, TEST = 0, 1  # what random numbers are drawn from

Noise = Callable[[np.random.Generator, str], np.ndarray]


def coloured(draws: np.random.Generator, _: str) -> np.ndarray:
    """Noise whose spectrum falls or rises by up to 12 dB an octave, and that swells."""
    samples = SECONDS * SAMPLE_RATE
    spectrum = np.fft.rfft(draws.standard_normal(samples))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 50) / 1000)
    noise = np.fft.irfft(spectrum * 10 ** (octaves * draws.uniform(-12, 6) / 20), samples)
    time = np.arange(samples) / SAMPLE_RATE
    return noise * (1 + draws.uniform(0, 0.9) * np.sin(2 * np.pi * draws.uniform(0.2, 4) * time))


def chords(draws: np.random.Generator, _: str) -> np.ndarray:
    """A chord of three harmonic tones, half a second each."""
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    chord = []
    for _ in range(2 * SECONDS):
        pitches = 110 * 2 ** (draws.integers(0, 36, 3) / 12)
        tones = [
            np.sin(2 * np.pi * number * pitch * time) / number for pitch in pitches for number in range(1, 9)
        ]
        chord.append(np.sum(tones, 0) * np.exp(-3 * time))
    return np.concatenate(chord)


def babble(draws: np.random.Generator, voices: str) -> np.ndarray:
    """Several voices at once, of the wavs of a folder."""
    names = find_files(voices, (".wav",))
    mixed = np.zeros(SECONDS * SAMPLE_RATE)
    for _ in range(TALKERS):
        talker = [open_wav(os.path.join(voices, names[draws.integers(len(names))])) for _ in range(SECONDS)]
        mixed += np.resize(np.concatenate(talker), len(mixed))
    return mixed


KINDS: dict[str, Noise] = {"noise": coloured, "music": chords, "speech": babble}


def make_noise(kind: str, number: int, part: int, voices: str) -> np.ndarray:
    """Noise of a kind: (SECONDS * SAMPLE_RATE,) float64 of loudness LOUDNESS. part: TRAINING or TEST."""
    noise = KINDS[kind](np.random.default_rng((part, list(KINDS).index(kind), number)), voices)
    return noise * LOUDNESS / np.sqrt(np.mean(noise**2))


def make_noises(folder: str, count: int, voices: str) -> None:
    """Write so many noises of each kind for training, in MUSAN's layout."""
    for kind in KINDS:
        for number in range(count):
            noise = make_noise(kind, number, TRAINING, voices)
            write_wav(os.path.join(folder, kind, "made", f"{number:03d}.wav"), to_int16(noise))


def to_int16(sound: np.ndarray) -> np.ndarray:
    return np.clip(sound.round(), -32768, 32767).astype(np.int16)


def make_noisy(clean: str, noisy: str, snrs: tuple[float, float], voices: str) -> None:
    """Write a copy of a folder's wavs with noise added, the kinds in turn, at ratios drawn from a range in dB."""
    for number, name in enumerate(find_files(clean, (".wav",))):
        draws = np.random.default_rng((TEST, number))
        sound = wavfile.read(os.path.join(clean, name))[1].astype(np.float32)
        noise = make_noise(list(KINDS)[number % len(KINDS)], number, TEST, voices)
        first = draws.integers(len(noise) - len(sound))
        add_noise(sound, noise[first : first + len(sound)].astype(np.float32), draws.uniform(*snrs))
        write_wav(os.path.join(noisy, name), to_int16(sound))


def main() -> None:
    parser = flags_of_runs(__doc__, "data/augmented")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--noises", type=int, default=20, help="made of each of the three kinds")
    parser.add_argument("--snrs", type=float, nargs=2, default=(0, 10), help="of the test voices, in dB")
    args = parser.parse_args()

    noises = os.path.join(args.save_path, "noises")
    make_noises(noises, args.noises, f"{args.data}/dev/wav")
    places = {"clean": f"{args.data}/voxceleb1", "noisy": os.path.join(args.save_path, "noisy")}
    make_noisy(places["clean"], places["noisy"], args.snrs, f"{args.data}/test/wav")
    trials = read_trials(f"{args.data}/test_list.txt")

    def measure(network: SyncNet) -> list[float]:
        """EER of clean and of noisy trials, in percent."""
        scores = [network.score_trials(trials, folder) for folder in places.values()]
        return [tuneThresholdfromScore(score, trials.labels, [1])[1] for score in scores]

    def row(name: str, seed: int, options: dict[str, object] | None) -> None:
        torch.manual_seed(seed)
        network = untrained_network(args)
        if options is not None:
            checkpoint = train(args, f"{name}{seed}", options | {"seed": seed})
            network.loadParameters(checkpoint, strict=True)
        rows.append((name, seed, *measure(network)))
        print(*rows[-1], flush=True)

    rows: list[tuple] = []
    for seed in range(args.seeds):
        row("untrained", seed, None)
        row("without", seed, {})
        row("--augment_noise", seed, {"augment_noise": noises})
    for name in dict.fromkeys(name for name, *_ in rows):
        means = np.mean([figures for other, _, *figures in rows if other == name], 0)
        rows.append((name, "mean", *means.tolist()))
    print(machine(args.device or "cpu"))
    clips = min(args.clips, len(read_list(f"{args.data}/dev.txt")))
    steps = args.epochs * (clips // args.batch)
    table(
        f"{steps} steps, T = {args.maxFrames}, batch {args.batch}, learning rate {args.lr:g}, {args.precision}; "
        f"EER in percent, noise at {args.snrs[0]:g} to {args.snrs[1]:g} dB",
        ("", "seed", "clean", "noisy"),
        rows,
    )


if __name__ == "__main__":
    main()
