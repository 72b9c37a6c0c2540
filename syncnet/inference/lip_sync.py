"""Lip sync of face tracks: offset, LSE-D, LSE-C, and how well lips and sound fit at every frame.

Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV workshops 2016, section 4.1; the figures
LSE-D (distance, less is better) and LSE-C (confidence, more is better) are its minimum and its median less
minimum, as Prajwal et al., "A lip sync expert is all you need", ACM Multimedia 2020, report them. Published
figures are made with the network models/SyncNetV2.py; other networks are measured the same way, on unit vectors.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from syncnet.inference.defaults import MAX_OFFSET, WINDOWS_AT_ONCE
from syncnet.inference.embeddings import (
    LOADER_LEAD,
    clip_sound,
    count_frames,
    face_windows,
    voice_windows,
)
from syncnet.media.clips import SAMPLES_PER_FRAME, MediaError
from syncnet.media.crops import HOP_LENGTH, WINDOW_LENGTH, WINDOW_TAIL, crop_samples
from syncnet.networks.interface import Network, SoundWindows
from syncnet.networks.losses import unit
from syncnet.networks.mfcc import MFCC_PER_FRAME, SOUND_WINDOW
from syncnet.networks.output_check import require_content
from syncnet.networks.two_streams import LIP_FRAMES

LEAST_FRAMES = 6
MEDIAN_OVER = 9  # frames
EPS = 1e-6  # of torch's pairwise_distance, with which published figures are made
COEFFICIENTS_AT_ONCE = 6000  # a minute of sound
# Confidence of a frame from which on a face is taken to speak in sync: of the published network and of others.
PUBLISHED_IN_SYNC, TRAINED_IN_SYNC = 3.0, 0.15


@dataclass(frozen=True, eq=False)
class LipSync:
    """What is measured of a track.

    frames: of picture and sound. offset: frames by which the picture is later than the sound, as a list's
    third field. lse_d: LSE-D, the least of the mean distances. lse_c: LSE-C, their median less their least.
    mean_distances: (2 * max_offset + 1,) float64, element j at the offset max_offset - j.
    confidences: (windows,) float64, element i of the frames i ... i + 4: the median of all mean distances less
    its distance at the chosen offset, median-filtered over 9 (zeros before and after, as in the original).
    """

    frames: int
    offset: int
    lse_d: float
    lse_c: float
    mean_distances: np.ndarray
    confidences: np.ndarray


def summarize(distances: np.ndarray, frames: int) -> LipSync:
    """The figures of a track from the distance of each of its windows at every shift.

    distances: (windows, 2 * max_offset + 1); column j is at the offset max_offset - j.
    """
    means = distances.mean(0, dtype=np.float64)
    chosen = int(means.argmin())
    middle = float(np.median(means))
    curve = np.pad(middle - distances[:, chosen].astype(np.float64), MEDIAN_OVER // 2)
    confidences = np.median(np.lib.stride_tricks.sliding_window_view(curve, MEDIAN_OVER), axis=1)
    offset = len(means) // 2 - chosen
    return LipSync(frames, offset, float(means.min()), middle - float(means.min()), means, confidences)


def is_published(network: Network) -> bool:
    """Is it the network of published figures (whatever its weights)?"""
    return isinstance(network.__S__, SoundWindows)


def in_sync_confidence(network: Network) -> float:
    """The confidence of a frame from which on a face is usually one that speaks in sync."""
    return PUBLISHED_IN_SYNC if is_published(network) else TRAINED_IN_SYNC


def lse(
    network: Network,
    video: str,
    wav: str | None = None,
    max_offset: int = MAX_OFFSET,
    batch: int = WINDOWS_AT_ONCE,
    allow_resize: bool = False,
    bilinear: bool = False,
) -> LipSync:
    """Measure the lip sync of a 224x224 face track of at least 6 frames; for arguments and errors see distances."""
    found = distances(network, video, wav, max_offset, batch, allow_resize, bilinear)
    return summarize(found.rows, found.frames)


@dataclass(frozen=True, eq=False)
class Distances:
    """The distance of each lip window of a track to the sound at every shift.

    rows: (windows, 2 * max_offset + 1); column j is at the offset max_offset - j. there: of the same shape, where the
    track has that sound. frames: of picture and sound.
    """

    rows: np.ndarray
    there: np.ndarray
    frames: int


def distances(
    network: Network,
    video: str,
    wav: str | None = None,
    max_offset: int = MAX_OFFSET,
    batch: int = WINDOWS_AT_ONCE,
    allow_resize: bool = False,
    bilinear: bool = False,
    offset: int = 0,
) -> Distances:
    """The distances of a 224x224 face track of at least 6 frames.

    network: models.SyncNetV2, or any other, whose unit content vectors at every frame are compared: those figures
    are not comparable with published ones. wav: the track's sound; None takes the sound track of the video.
    max_offset: frames, both ways. batch: windows computed at once; changes memory and speed, not results.
    bilinear: pictures of another size are scaled bilinearly, as Wav2Lip's script does, else by area. offset: column
    max_offset is at this one, as a list has it, instead of at 0.
    Of a long track, memory holds its sound and its distances, not its pictures. Raises MediaError.
    """
    require_content(network)
    samples = clip_sound(video, wav)
    pictures, heard = count_frames(video), len(samples) // SAMPLES_PER_FRAME
    frames = min(pictures, heard)
    if frames < LEAST_FRAMES:
        found = (
            f"{video}: {pictures} frames" if pictures <= heard else f"{wav or video}: {heard} frames of sound"
        )
        raise MediaError(f"{found}, lip sync needs {LEAST_FRAMES} (0.24 s): leave this track out")
    if is_published(network):
        windows = frames - LEAST_FRAMES + 1
        moments = windows + LIP_FRAMES - 1
        lips = face_windows(network, video, moments, batch, allow_resize, bilinear)
        sounds = published_sound(network, samples, windows, batch)
        distance, lead = euclidean, 0
    else:
        windows = min(pictures, (len(samples) - WINDOW_TAIL) // SAMPLES_PER_FRAME) - LIP_FRAMES + 1
        moments = windows + LIP_FRAMES - 1
        lips = map(unit, face_windows(network, video, moments, batch, allow_resize, bilinear))
        sounds = map(unit, voice_windows(network, samples[: crop_samples(moments)]))
        distance, lead = chord, LOADER_LEAD
    lead -= offset
    rows = [distance(*pair).cpu() for pair in beside_every_shift(lips, sounds, max_offset, lead)]
    sound = np.arange(windows)[:, None] + np.arange(2 * max_offset + 1) - max_offset + lead
    return Distances(torch.cat(rows).numpy(), (sound >= 0) & (sound < windows), frames)


@torch.inference_mode()
def published_sound(network: Network, samples: np.ndarray, windows: int, batch: int) -> Iterator[Tensor]:
    """Outputs of the published network for sound windows 0 ... windows - 1: (<= batch, nOut) float32 on the device.

    samples: (n,) int16 at 16 kHz. Window i has the coefficients 4i ... 4i + 19 of the whole sound, and goes through
    the trunk by itself.
    """
    published = network.__S__
    assert isinstance(published, SoundWindows)
    needed = MFCC_PER_FRAME * (windows - 1) + SOUND_WINDOW
    coefficients = torch.cat(list(coefficient_blocks(published, samples, needed, network.device)), 3)
    # (windows, 1, 13, 20), a view.
    inputs = coefficients[0].unfold(2, SOUND_WINDOW, MFCC_PER_FRAME).permute(2, 0, 1, 3)
    network.eval()
    for part in inputs.split(batch):
        with network.autocast():
            content = published.embed_windows(part.contiguous()).float()
        yield content


def coefficient_blocks(
    published: SoundWindows, samples: np.ndarray, needed: int, device: torch.device
) -> Iterator[Tensor]:
    """The first `needed` MFCCs of a sound: (1, 1, 13, <= COEFFICIENTS_AT_ONCE) float32 each."""
    for first in range(0, needed, COEFFICIENTS_AT_ONCE):
        last = min(first + COEFFICIENTS_AT_ONCE, needed)
        before = min(first, 1)  # one more, since the pre-emphasis of a sample needs the sample before it
        block = samples[(first - before) * HOP_LENGTH : (last - 1) * HOP_LENGTH + WINDOW_LENGTH]
        audio = torch.from_numpy(block.astype(np.float32))[None]
        yield published.mfcc(audio.to(device))[..., before:]


def beside_every_shift(
    lips: Iterable[Tensor], sounds: Iterator[Tensor], max_offset: int, lead: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each block of lips the sounds at every shift: ((b, nOut), (b, nOut, 2 * max_offset + 1)).

    lips, sounds: outputs of the windows 0, 1, 2 ... in blocks of any sizes. lead: offset, as a list has it, of lips
    and sound of the same number. Sound j beside lips i is at the offset max_offset - j: number
    i + j - max_offset + lead, a vector of zeros where there is none. Holds no more sounds than it needs.
    """
    kept: Tensor | None = None
    for block in lips:
        if kept is None:
            kept = block.new_zeros(max_offset - lead, block.shape[1])
        needed = len(block) + 2 * max_offset
        while len(kept) < needed:
            more = next(sounds, None)
            kept = torch.cat(
                (kept, block.new_zeros(needed - len(kept), block.shape[1]) if more is None else more)
            )
        yield block, kept[:needed].unfold(0, 2 * max_offset + 1, 1)
        kept = kept[len(block) :]


def euclidean(lips: Tensor, sounds: Tensor) -> Tensor:
    """Distances as torch's pairwise_distance has them: (b, nOut), (b, nOut, shifts) -> (b, shifts)."""
    return torch.linalg.vector_norm(lips[..., None] - sounds + EPS, dim=1)


def chord(lips: Tensor, sounds: Tensor) -> Tensor:
    """Distances of unit vectors; one of zeros is as far away as an unrelated one: sqrt(2). See euclidean."""
    return (2 - 2 * torch.einsum("bn,bns->bs", lips, sounds)).clamp(min=0).sqrt()
