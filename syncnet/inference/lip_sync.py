"""Lip sync of face tracks: offset, LSE-D, LSE-C, and the confidence of every frame.

The method is that of Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV workshops 2016, section
4.1. LSE-D (distance, lower is better) is the minimum of the mean distances over all shifts, and LSE-C (confidence,
higher is better) their median minus their minimum, as in Prajwal et al., "A lip sync expert is all you need", ACM
Multimedia 2020. Published figures use the network models/SyncNetV2.py; other networks are measured the same way, on
unit vectors.
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
from syncnet.media.clips import LIP_FRAMES, SAMPLES_PER_FRAME, MediaError
from syncnet.media.crops import HOP_LENGTH, WINDOW_LENGTH, WINDOW_TAIL, crop_samples
from syncnet.networks.interface import Network, SoundWindows
from syncnet.networks.losses import unit
from syncnet.networks.mfcc import MFCC_PER_FRAME, SOUND_WINDOW
from syncnet.networks.output_check import require_content

LEAST_FRAMES = 6
MEDIAN_OVER = 9  # frames
EPS = 1e-6  # of torch's pairwise_distance, which published figures use
COEFFICIENTS_AT_ONCE = 6000  # a minute of sound
# Smallest confidence of a frame at which a face counts as speaking in sync.
PUBLISHED_IN_SYNC, TRAINED_IN_SYNC = 3.0, 0.15  # for the published network, and for others


@dataclass(frozen=True, eq=False)
class LipSync:
    """The lip sync of a track.

    frames: number of frames with picture and sound. offset: frames by which the picture lags the sound, as in a list
    line. lse_d: the smallest mean distance. lse_c: the median of the mean distances minus the smallest.
    mean_distances: (2 * max_offset + 1,) float64; element j is at offset max_offset - j.
    confidences: (windows,) float64; element i is for frames i ... i + 4: the median of all mean distances minus the
    distance of the window at `offset`, median-filtered over 9 windows with zero padding, as in the original.
    """

    frames: int
    offset: int
    lse_d: float
    lse_c: float
    mean_distances: np.ndarray
    confidences: np.ndarray


def summarize(distances: np.ndarray, frames: int) -> LipSync:
    """The lip sync of a track, from the distances of its windows at every shift.

    distances: (windows, 2 * max_offset + 1); column j is at offset max_offset - j.
    """
    means = distances.mean(0, dtype=np.float64)
    chosen = int(means.argmin())
    middle = float(np.median(means))
    curve = np.pad(middle - distances[:, chosen].astype(np.float64), MEDIAN_OVER // 2)
    confidences = np.median(np.lib.stride_tricks.sliding_window_view(curve, MEDIAN_OVER), axis=1)
    offset = len(means) // 2 - chosen
    return LipSync(frames, offset, float(means.min()), middle - float(means.min()), means, confidences)


def is_published(network: Network) -> bool:
    """True for the architecture that published figures use, whatever its weights."""
    return isinstance(network.__S__, SoundWindows)


def in_sync_confidence(network: Network) -> float:
    """Smallest confidence of a frame at which a face usually speaks in sync."""
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
    """Measure the lip sync of a 224x224 face track of at least 6 frames; for arguments and errors, see distances."""
    found = distances(network, video, wav, max_offset, batch, allow_resize, bilinear)
    return summarize(found.rows, found.frames)


@dataclass(frozen=True, eq=False)
class Distances:
    """The distance of each lip window of a track to the sound at every shift.

    rows: (windows, 2 * max_offset + 1) float32; column j is at offset max_offset - j. there: same shape, bool, True
    if the track has that sound. frames: number of frames with picture and sound.
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
    """Distances between lips and sound of a 224x224 face track of at least 6 frames.

    network: models.SyncNetV2, or any other; others compare unit content vectors at every frame, and their figures are
    not comparable with published ones. wav: the track's sound; None: the sound track of the video.
    max_offset: frames, in either direction. batch: windows computed at once; affects memory and speed, not results.
    bilinear: scale frames of another size bilinearly, as Wav2Lip's script does, instead of by area. offset: offset of
    the middle column, as in a list line.
    Memory holds the sound and the distances of the whole track, but not its frames. Raises MediaError, and UserError
    for a network without content embeddings.
    """
    require_content(network)
    samples = clip_sound(video, wav)
    pictures, heard = count_frames(video), len(samples) // SAMPLES_PER_FRAME
    frames = min(pictures, heard)
    if frames < LEAST_FRAMES:
        found = (
            f"{video}: {pictures} frames" if pictures <= heard else f"{wav or video}: {heard} frames of sound"
        )
        raise MediaError(f"{found}, lip sync needs {LEAST_FRAMES} (0.24 s): skip this track")
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
    """Yield the published network's outputs for windows 0 ... windows - 1: (<= batch, nOut) float32 on the device.

    samples: (n,) int16 at 16 kHz. Window i is MFCCs 4i ... 4i + 19 of the whole sound; each window passes through the
    trunk separately.
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
    """Yield the first `needed` MFCCs of a sound in blocks: (1, 1, 13, <= COEFFICIENTS_AT_ONCE) float32."""
    for first in range(0, needed, COEFFICIENTS_AT_ONCE):
        last = min(first + COEFFICIENTS_AT_ONCE, needed)
        before = min(first, 1)  # one more: pre-emphasis needs the previous sample
        block = samples[(first - before) * HOP_LENGTH : (last - 1) * HOP_LENGTH + WINDOW_LENGTH]
        audio = torch.from_numpy(block.astype(np.float32))[None]
        yield published.mfcc(audio.to(device))[..., before:]


def beside_every_shift(
    lips: Iterable[Tensor], sounds: Iterator[Tensor], max_offset: int, lead: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each block of lips with the sounds at every shift: ((b, nOut), (b, nOut, 2 * max_offset + 1)).

    lips, sounds: outputs for windows 0, 1, 2, ... in blocks of any size. lead: offset, as in a list line, between lip
    and sound windows of the same number. Sound j for lip window i is at offset max_offset - j: sound window
    i + j - max_offset + lead, or zeros if there is none. Memory holds only the sounds of the current block.
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
    """Distances as in torch's pairwise_distance: (b, nOut), (b, nOut, shifts) -> (b, shifts)."""
    return torch.linalg.vector_norm(lips[..., None] - sounds + EPS, dim=1)


def chord(lips: Tensor, sounds: Tensor) -> Tensor:
    """Distances of unit vectors; a vector of zeros is at sqrt(2), like an unrelated one. See euclidean."""
    return (2 - 2 * torch.einsum("bn,bns->bs", lips, sounds)).clamp(min=0).sqrt()
