"""Synthesize voices: an identity is four numbers, and a source-filter model produces the speech."""

from functools import reduce
from typing import NamedTuple

import numpy as np
from scipy.signal import istft, stft

from syncnet.media.clips import SAMPLE_RATE, SAMPLES_PER_FRAME

# Articulation has 8 ms steps, five per video frame; the vocal-tract filter uses the same hop.
STEPS_PER_FRAME = 5
HOP_LENGTH = SAMPLES_PER_FRAME // STEPS_PER_FRAME  # 128 samples
STEP_RATE = SAMPLE_RATE // HOP_LENGTH  # 125 steps per second
FILTER_LENGTH = 4 * HOP_LENGTH  # analysis window and FFT size of that filter

SPEECH_RMS = 3000.0  # in int16 units, as from a close microphone
NOISE_FLOOR = (4.0, 40.0)  # RMS of white noise in int16 units, in the quietest and the noisiest recording


class Identity(NamedTuple):
    """A speaker: four numbers in 0..1, each one both visible and audible."""

    size: float
    pitch: float
    brightness: float
    tempo: float


class Phone(NamedTuple):
    """A target of the vocal tract: formants in Hz (for an average head), mouth shape and sources in 0..1."""

    f1: float
    f2: float
    opening: float
    spread: float
    voice: float
    hiss: float


VOWELS = (
    Phone(850, 1300, 1.00, 0.50, 1.0, 0.0),  # a
    Phone(520, 1900, 0.60, 0.80, 0.9, 0.0),  # e
    Phone(300, 2350, 0.30, 1.00, 0.8, 0.0),  # i
    Phone(500, 850, 0.70, 0.15, 0.9, 0.0),  # o
    Phone(320, 700, 0.35, 0.00, 0.8, 0.0),  # u
)
CLOSURE = Phone(250, 1300, 0.0, 0.4, 0.0, 0.0)  # p: silent, lips closed
FRICATIVE = Phone(300, 1600, 0.12, 0.7, 0.0, 1.0)  # s: a hiss between the teeth


class Articulation(NamedTuple):
    """A sequence of sounds: each number of a Phone as (steps,), STEP_RATE per second."""

    f1: np.ndarray
    f2: np.ndarray
    opening: np.ndarray
    spread: np.ndarray
    voice: np.ndarray
    hiss: np.ndarray


class Speech(NamedTuple):
    """samples: (n,) float, in int16 units. opening, spread: (n // HOP_LENGTH,) mouth shape, 0..1."""

    samples: np.ndarray
    opening: np.ndarray
    spread: np.ndarray


def between(low: float, high: float, share: float) -> float:
    """Interpolate between two numbers on a logarithmic scale. share: 0 for low, 1 for high."""
    return low * (high / low) ** share


def draw_identities(count: int, rng: np.random.Generator) -> list[Identity]:
    """Draw `count` evenly spread identities: each number takes one value in each of `count` equal strata."""
    strata = rng.permuted(np.tile(np.arange(count), (len(Identity._fields), 1)), axis=1)
    return [Identity(*map(float, values)) for values in ((strata + 0.5) / count).T]


def articulate(identity: Identity, steps: int, rng: np.random.Generator) -> Articulation:
    """Generate random syllables, each a closure or a hiss followed by a vowel, as tracks of `steps` values."""
    rate = between(2.2, 6.0, identity.tempo)
    sounds: list[Phone] = []
    lengths: list[int] = []
    vowel = None
    while sum(lengths) < steps:
        length = STEP_RATE / rate * rng.uniform(0.7, 1.4)
        vowel = VOWELS[rng.choice([n for n in range(len(VOWELS)) if VOWELS[n] is not vowel])]
        shares = (0.12, 0.28, 0.60) if rng.random() < 0.5 else (0.40, 0.0, 0.60)
        sounds += [CLOSURE, FRICATIVE, vowel]
        lengths += [round(share * length) for share in shares]
    tracks = np.repeat(np.array(sounds), lengths, axis=0)
    # Articulators glide from one target to the next in about 60 ms.
    glide = np.hanning(9)[1:-1] / np.hanning(9).sum()
    return Articulation(*(np.convolve(track, glide, mode="same")[:steps] for track in tracks.T))


def pitch_track(identity: Identity, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fundamental frequency in Hz of each sample: base pitch, vibrato and slow random intonation."""
    time = np.arange(samples) / SAMPLE_RATE
    anchors = np.arange(0, time[-1] + 0.5, 0.25)
    intonation = np.interp(time, anchors, rng.uniform(-2.0, 2.0, len(anchors)))
    vibrato_rate = between(3.0, 8.0, identity.pitch)
    vibrato = 0.8 * np.sin(2 * np.pi * (vibrato_rate * time + rng.random()))
    base = between(85.0, 340.0, identity.pitch) * rng.uniform(0.97, 1.03)
    return base * 2 ** ((intonation + vibrato) / 12)


def resonance(frequency: np.ndarray, center: np.ndarray | float, bandwidth: np.ndarray | float) -> np.ndarray:
    """Return the response of a two-pole resonator with gain 1 at 0 Hz. Arguments are in Hz and broadcast."""
    return center**2 / (center**2 - frequency**2 + 1j * frequency * bandwidth)


def speak(identity: Identity, frames: int, rng: np.random.Generator) -> Speech:
    """Synthesize `frames` video frames of speech: pulses and noise through a moving vocal-tract filter."""
    samples, steps = frames * SAMPLES_PER_FRAME, frames * STEPS_PER_FRAME
    sound = articulate(identity, steps + 1, rng)
    scale = between(1.3, 0.75, identity.size)

    pitch = pitch_track(identity, samples, rng)
    half_phase = np.pi * np.cumsum(pitch) / SAMPLE_RATE
    # Dirichlet kernel: a pulse train with all harmonics below half the sampling rate and none above.
    harmonics = int(SAMPLE_RATE / 2 / pitch.max())
    pulses = np.sin((2 * harmonics + 1) * half_phase) / np.sin(half_phase) - 1
    pulses /= np.sqrt(2 * harmonics)
    noise = rng.standard_normal(samples)

    def spectrum(signal: np.ndarray) -> np.ndarray:
        return stft(signal, SAMPLE_RATE, nperseg=FILTER_LENGTH, noverlap=FILTER_LENGTH - HOP_LENGTH)[2]

    frequency = np.linspace(0, SAMPLE_RATE / 2, FILTER_LENGTH // 2 + 1)[:, None]
    formants = (sound.f1 * scale, sound.f2 * scale, 2700 * scale, 3700 * scale, 4900 * scale)
    tract = reduce(np.multiply, (resonance(frequency, f, 50 + 0.06 * f) for f in formants))
    # A cascade of low-pass filters rolls off steeply above the last formant; the tilt of the source replaces this.
    tract /= np.maximum(np.abs(tract), 1e-9) ** 0.3
    octaves = np.log2(np.maximum(frequency, 300) / 300)
    tilt = 10 ** (-octaves * (12 - 11 * identity.brightness) / 20)
    breath = between(0.25, 0.02, identity.tempo)
    voiced = sound.voice * tract * tilt * (spectrum(pulses) + breath * spectrum(noise))
    hiss_center = 5200 * scale
    hiss = np.exp(-0.5 * (np.log2(np.maximum(frequency, 1) / hiss_center) / 0.25) ** 2)
    mixed = voiced / np.sqrt(np.mean(np.abs(voiced) ** 2)) + sound.hiss * hiss * spectrum(noise) * 1.5
    speech = istft(mixed, SAMPLE_RATE, nperseg=FILTER_LENGTH, noverlap=FILTER_LENGTH - HOP_LENGTH)[1]
    speech = speech[:samples] * SPEECH_RMS / np.sqrt(np.mean(speech**2))
    speech += between(*NOISE_FLOOR, rng.random()) * rng.standard_normal(samples)
    return Speech(speech, sound.opening[:steps], sound.spread[:steps])
