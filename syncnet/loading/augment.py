"""Augmentation of training clips: additive noise, room impulse responses, horizontal flips.

All random draws use the generator that is passed in. Audio stays float32 on the int16 scale and is not clipped, which
the network's front end does not need.
"""

import hashlib
import math
import os
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import av
import numpy as np

from syncnet.media.clips import SAMPLE_RATE, MediaError
from syncnet.media.file_type import SOUND_FILES, VIDEO_FILES
from syncnet.media.find_files import find_files
from syncnet.media.open_media import open_media, sound_streams
from syncnet.media.sound import NoSoundError, decode_audio
from syncnet.media.video import flip_frames
from syncnet.media.wav import check_heard, map_wav, open_wav, plain_length, read_wav
from syncnet.support.errors import UserError

Decode = Callable[[str], np.ndarray]
Change = Callable[[np.random.Generator, np.ndarray], None]

# Lowest and highest signal-to-noise ratio in dB by folder name in MUSAN (Snyder, Chen, Povey, 2015), as in Kaldi's
# VoxCeleb recipe.
SNRS = {"noise": (0.0, 15.0), "music": (5.0, 15.0), "speech": (13.0, 20.0)}
OTHER_SNRS = (5.0, 15.0)
LEVELS = (
    "; ".join(f"{name}: {low:g} to {high:g} dB" for name, (low, high) in SNRS.items())
    + f"; other names: {OTHER_SNRS[0]:g} to {OTHER_SNRS[1]:g} dB"
)
# RIRS_NOISES (OpenSLR 28) has a folder for each kind, and one with both kinds, distinguished by file name.
RESPONSES_ALONE, NOISES_ALONE, BOTH = "simulated_rirs", "pointsource_noises", "real_rirs_isotropic_noises"
FLIPPED = 0.5  # fraction of the clips
MAX_DRAWS = 20  # files tried per clip if they are damaged or silent
CACHE_SIZE = 64 * 2**20  # bytes of decoded sounds


@dataclass(frozen=True)
class Sound:
    """An audio file of a SoundFolder. name: relative path. snrs: lowest and highest SNR in dB, for noise."""

    name: str
    size: int
    snrs: tuple[float, float]


class SoundFolder:
    """The audio files of a folder, at any depth and of any format. Recognizes MUSAN and RIRS_NOISES by folder names.

    flag: for messages. responses: use the files as room impulse responses, not as noise; from RIRS_NOISES, only files
    of that kind are used. decode: returns the samples of a file that is not a 16 kHz mono int16 wav. Raises UserError
    if no file can be used.
    """

    def __init__(self, flag: str, folder: str, responses: bool, decode: Decode):
        self.flag, self.folder, self.responses, self.decode = flag, folder, responses, decode
        if not os.path.isdir(folder):
            raise UserError(f"{flag} {folder}: no such folder; give one with sound files in it")
        names = find_files(folder, SOUND_FILES + VIDEO_FILES)
        kept = [name for name in names if holds_response(self._places(name)) in (responses, None)]
        self.skipped = len(names) - len(kept)
        self.sounds = [
            # Responses have no SNR: their folder names must not change the fingerprint.
            Sound(name, _size(self._path(name)), OTHER_SNRS if responses else snrs_of(self._places(name)))
            for name in kept
        ]
        self.bad: dict[str, str] = {}
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()  # guards bad and _cache
        self._check_that_some_can_be_read()

    def __getstate__(self) -> dict[str, object]:
        """Copy and pickle everything except the lock."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    def fingerprint(self) -> str:
        """Return a hash of names, sizes and SNRs, which does not depend on where the folder is."""
        lines = (f"{sound.name}\t{sound.size}\t{sound.snrs}\n" for sound in self.sounds)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]

    def draw(
        self, draws: np.random.Generator, read: Callable[[Sound], np.ndarray]
    ) -> tuple[Sound, np.ndarray] | None:
        """Draw a sound uniformly; return it with the result of `read`, or None if none of MAX_DRAWS can be used.

        Silent and damaged sounds are skipped; the first time, a damaged one is reported in a warning.
        """
        for _ in range(MAX_DRAWS):
            sound = self.sounds[draws.integers(len(self.sounds))]
            try:
                samples = read(sound)
            except MemoryError:
                raise
            except Exception as error:  # a noise that crashes a decoder is not the clip's fault
                self._warn(sound.name, error)
                continue
            if power(samples) > 0:
                return sound, samples
        return None

    def read(self, sound: Sound) -> np.ndarray:
        """Read a whole sound: (samples,) of any number type, 16 kHz, at least one sample. Raises MediaError."""
        path = self._path(sound.name)
        samples = plain_length(path)
        return self._decoded(path) if samples is None else self._read_plain(path, 0, samples)

    def read_segment(self, sound: Sound, draws: np.random.Generator, samples: int) -> np.ndarray:
        """Read a segment at a random position, (samples,) float32; a shorter sound is repeated. Raises MediaError.

        Only the segment is read if the file is a wav that needs no decoder.
        """
        path = self._path(sound.name)
        length = plain_length(path)
        if length is not None and length >= samples:
            return self._read_plain(path, int(draws.integers(length - samples + 1)), samples)
        whole = self.read(sound)
        if len(whole) < samples:
            whole = np.resize(np.roll(whole, -draws.integers(len(whole))), samples)
            return whole.astype(np.float32)
        first = draws.integers(len(whole) - samples + 1)
        return whole[first : first + samples].astype(np.float32)

    def __str__(self) -> str:
        """Describe the folder in one line."""
        line = f"{self.flag} {self.folder}: {len(self.sounds)} files"
        if not self.responses:
            ranges = Counter(sound.snrs for sound in self.sounds)
            line += "".join(f", {n} at {low:g} to {high:g} dB" for (low, high), n in sorted(ranges.items()))
            line += f" (by folder name: {LEVELS})"
        if self.skipped:
            line += f"; {self.skipped} files of the other kind of RIRS_NOISES are skipped"
        return line

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _places(self, name: str) -> list[str]:
        """Return the parts of a file's path, from the given folder's name to the file's name."""
        return [os.path.basename(os.path.abspath(self.folder)), *name.split(os.sep)]

    def _read_plain(self, path: str, first: int, samples: int) -> np.ndarray:
        if not samples:
            raise MediaError(f"{path}: holds no samples")
        sound = np.empty(samples, np.float32)
        read_wav(path, first, sound)
        return sound

    def _decoded(self, path: str) -> np.ndarray:
        """Return the samples of a file that needs a decoder, from the cache if possible."""
        with self._lock:
            if path in self._cache:
                self._cache.move_to_end(path)
                return self._cache[path]
        sound = self.decode(path)
        if not len(sound) or not np.isfinite(sound).all():
            found = "values that are not finite" if len(sound) else "no samples"
            raise MediaError(f"{path}: holds {found}")
        with self._lock:
            if sound.nbytes <= CACHE_SIZE:
                self._cache[path] = sound
            while sum(kept.nbytes for kept in self._cache.values()) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return sound

    def _warn(self, name: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, MediaError) else f"{self._path(name)}: {error}"
        with self._lock:
            known, self.bad[name] = name in self.bad, reason
        if not known:
            print(
                f"WARNING: {self.flag}: {reason}. Other sounds are used instead", file=sys.stderr, flush=True
            )

    def _check_that_some_can_be_read(self) -> None:
        reasons = []
        for sound in self.sounds:
            path = self._path(sound.name)
            try:
                check_heard(path, self._decoded(path) if plain_length(path) is None else open_wav(path))
                return
            except MediaError as error:
                reasons.append(str(error))
        if reasons:
            raise UserError(
                f"{self.flag} {self.folder}: none of its {len(reasons)} sound files can be used. The first:\n  "
                + "\n  ".join(reasons[:3])
            )
        wanted = "room impulse responses" if self.responses else "noises"
        others = f"; {self.skipped} files are of the other kind of RIRS_NOISES" if self.skipped else ""
        raise UserError(
            f"{self.flag} {self.folder}: no {wanted} in this folder or the folders in it{others}. "
            f"Searched for {' '.join(SOUND_FILES)} and videos"
        )


class Augmentation:
    """Augments training clips. Thread-safe.

    noise: folder of noises to add ("": none). rir: folder of room impulse responses ("": none). probability: fraction
    of clips with augmented audio; with both folders, half of these get noise and half get a room. flip: flip half of
    the clips, drawn at random, horizontally. Raises UserError if a folder has no usable audio.
    """

    def __init__(self, noise: str = "", rir: str = "", probability: float = 0.6, flip: bool = False):
        if not 0 <= probability <= 1:
            raise UserError(f"augment_prob {probability}: expected a fraction of the clips, from 0 to 1")
        self.probability, self.flip = probability, flip
        self.noises = SoundFolder("--augment_noise", noise, False, decode_audio) if noise else None
        self.rooms = SoundFolder("--augment_rir", rir, True, first_channel) if rir else None
        self.folders = [folder for folder in (self.noises, self.rooms) if folder]
        changes = ((self.noises, add_drawn_noise), (self.rooms, add_drawn_room))
        self._changes: list[Change] = [partial(change, folder) for folder, change in changes if folder]

    def change(self, draws: np.random.Generator, video: np.ndarray, audio: np.ndarray) -> None:
        """Augment a clip in place. video: (T, H, W, 3) uint8. audio: (samples,) float32 on the int16 scale."""
        flipped, changed = draws.random(2)
        if self.flip and flipped < FLIPPED:
            flip_frames(video)
        if self._changes and changed < self.probability:
            self._changes[draws.integers(len(self._changes))](draws, audio)

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each folder, by setting name."""
        return {f"content of {folder.flag}": folder.fingerprint() for folder in self.folders}


def add_drawn_noise(noises: SoundFolder, draws: np.random.Generator, audio: np.ndarray) -> None:
    """Add a random segment of a random noise to (samples,) float32 speech, in place, at a random SNR in its range."""
    drawn = noises.draw(draws, lambda sound: noises.read_segment(sound, draws, len(audio)))
    if drawn:
        sound, noise = drawn
        add_noise(audio, noise, draws.uniform(*sound.snrs))


def add_drawn_room(rooms: SoundFolder, draws: np.random.Generator, audio: np.ndarray) -> None:
    """Convolve (samples,) float32 speech with a random room impulse response, in place."""
    drawn = rooms.draw(draws, rooms.read)
    if drawn:
        reverberate(audio, drawn[1])


def add_noise(speech: np.ndarray, noise: np.ndarray, snr: float) -> None:
    """Add (samples,) noise to (samples,) float32 speech, in place. snr: ratio of their mean powers in dB."""
    loudness = math.sqrt(power(speech) / power(noise) / 10 ** (snr / 10))
    speech += noise * np.float32(loudness)


def reverberate(speech: np.ndarray, response: np.ndarray) -> None:
    """Convolve (samples,) float32 speech with a room impulse response, in place, at the same mean power.

    response: (n,); its largest absolute value is the direct sound, which is not delayed.
    """
    from scipy.signal import fftconvolve  # importing it takes half a second and 50 MB

    samples, direct = len(speech), int(np.abs(response).argmax())
    heard = response[max(0, direct - samples + 1) : direct + samples].astype(np.float32)
    heard /= np.abs(heard).max()
    direct = min(direct, samples - 1)
    wet = fftconvolve(speech, heard)[direct : direct + samples]
    before, after = power(speech), power(wet)
    if before > 0 and after > 0:
        speech[:] = wet * np.float32(math.sqrt(before / after))


def power(sound: np.ndarray) -> float:
    """Return the mean square of (samples,) audio of any number type."""
    return float(np.mean(np.square(sound, dtype=np.float64)))


def first_channel(path: str) -> np.ndarray:
    """Decode the first channel of a file's audio track, from its first sample on: (samples,) float32, 16 kHz.

    For room impulse responses: one microphone records the room at one place, a mix of several does not, and int16
    lacks the dynamic range. Raises NoSoundError, MediaError.
    """
    plain = map_wav(path)
    if plain is not None:
        return plain.astype(np.float32)
    with open_media(path) as container:
        streams = sound_streams(container)
        if not streams:
            raise NoSoundError(f"{path}: no sound track")
        # A packed format, in which PyAV supports any number of channels.
        resampler = av.AudioResampler(format="flt", rate=SAMPLE_RATE)
        parts: list[np.ndarray] = []
        try:
            for frame in chain(container.decode(streams[0]), (None,)):
                if frame is not None:
                    frame.pts = None  # the resampler counts samples
                parts += [
                    part.to_ndarray().reshape(-1, len(part.layout.channels))[:, 0]
                    for part in resampler.resample(frame)
                ]
        except av.error.FFmpegError as error:
            raise MediaError(f"{path}: cannot be decoded ({error.strerror})") from None
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def snrs_of(places: Sequence[str]) -> tuple[float, float]:
    """Return the lowest and highest SNR in dB for a file, by the names of its folders.

    places: path parts from the given folder to the file's name. Inner folders take precedence over the given one.
    """
    given, *inside = (place.lower() for place in places[:-1])
    return next((SNRS[place] for place in (*inside, given) if place in SNRS), OTHER_SNRS)


def holds_response(places: Sequence[str]) -> bool | None:
    """Return whether a file of RIRS_NOISES is a room impulse response; None if it is not part of RIRS_NOISES."""
    *folders, name = (place.lower() for place in places)
    for folder in folders:
        if folder == RESPONSES_ALONE:
            return True
        if folder == NOISES_ALONE:
            return False
        if folder == BOTH:
            return "noise" not in name
    return None


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else -1
