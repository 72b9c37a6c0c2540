"""Embeddings of sound and video files: identity (who speaks), and content at every frame (what is said)."""

import os
import shlex
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from syncnet.checkpoints.by_name import at_every_frame
from syncnet.inference.defaults import FACES_AT_ONCE, NUM_EVAL, VOICES_AT_ONCE
from syncnet.media.clips import FRAME_SIZE, LIP_FRAMES, SAMPLES_PER_FRAME, MediaError
from syncnet.media.crops import WINDOW_TAIL, crop_samples, crop_starts, spread_crops
from syncnet.media.find_files import beside
from syncnet.media.sound import decode_audio
from syncnet.media.video import FrameReader
from syncnet.media.video_facts import probe
from syncnet.media.wav import check_heard
from syncnet.networks.embedder import embed_files
from syncnet.networks.interface import Network
from syncnet.networks.losses import unit
from syncnet.networks.output_check import require_identity
from syncnet.networks.two_streams import content_of
from syncnet.support.progress import progress_bar
from syncnet.support.tar_members import is_file

# DatasetLoader starts the video at frame start + offset - 1, so networks learn that alignment as in sync.
LOADER_LEAD = 1
BLOCK = 250  # frames whose content is computed at once; bounds memory
Skip = Callable[[MediaError], None]  # called with the error of an unusable file; if None, it is raised


def heard_sound(path: str) -> np.ndarray:
    """The sound of any sound or video file, converted to 16 kHz mono: (samples,) int16.

    Raises MediaError, also for a silent file.
    """
    if not is_file(path):
        raise MediaError(
            f"{path}: " + ("is a folder, needs a file" if os.path.isdir(path) else "no such file")
        )
    samples = decode_audio(path)
    check_heard(path, samples)
    return samples


def clip_sound(video: str, wav: str | None) -> np.ndarray:
    """The sound of a clip, from `wav` or else from the video; see heard_sound. Raises MediaError."""
    try:
        return heard_sound(wav or video)
    except MediaError as error:
        raise MediaError(
            str(error) + ("" if wav else f" (--wav gives a clip its sound{wav_apart(video)})")
        ) from None


def wav_apart(video: str) -> str:
    """For an error message, the --wav flag of a face track whose sound is in a separate wav; "" if there is none.

    The wav is found in the layout of makeFaceTracks.py, VoxCeleb2 and convertAudio.py: <folder>/mp4/a/b.mp4 and
    <folder>/wav/a/b.wav.
    """
    parts = video.split(os.sep)
    if "mp4" not in parts[:-1]:
        return ""
    place = max(number for number, part in enumerate(parts[:-1]) if part == "mp4")
    tracks, wavs = (os.sep.join([*parts[:place], kind]) for kind in ("mp4", "wav"))
    wav = beside(wavs, os.path.splitext(os.path.join(*parts[place + 1 :]))[0], ".wav")
    if not os.path.isfile(wav):
        return ""
    return f": --wav {shlex.quote(wav)}, or of all {shlex.quote(tracks)} --wav {shlex.quote(wavs)}"


def count_frames(path: str) -> int:
    """The number of frames of a video, of any size. Raises MediaError unless it is intact and at 25 fps."""
    facts = probe(path)
    facts.check(allow_resize=True)
    return facts.frames


def voice_crops(path: str, maxFrames: int, num_eval: int) -> Tensor:
    """Evenly spread crops of a voice, as in evaluation: (num_eval, maxFrames*640 + 240) float32, int16 scale.

    Raises MediaError; see heard_sound.
    """
    return spread_crops(path, heard_sound(path), crop_samples(maxFrames), num_eval)


def face_crops(path: str, maxFrames: int, num_eval: int, allow_resize: bool = False) -> Tensor:
    """Evenly spread crops of a face track: (num_eval, 3, maxFrames, 224, 224) uint8, BGR. Raises MediaError."""
    frames = count_frames(path)
    if frames < maxFrames:
        raise MediaError(
            f"{path}: {frames} frames, a crop needs {maxFrames} (use a smaller --maxFrames, or skip it)"
        )
    crops = np.empty((num_eval, maxFrames, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    with FrameReader(path, allow_resize) as reader:
        for number, start in enumerate(crop_starts(frames, maxFrames, num_eval)):
            known = max(0, reader.position - start)  # frames shared with the end of the previous crop
            crops[number, :known] = crops[number - 1, maxFrames - known :]
            reader.read(start + known, crops[number, known:])
    return torch.from_numpy(crops).permute(0, 4, 1, 2, 3)


def iter_embeddings(
    network: Network,
    files: Sequence[str],
    face: bool = False,
    num_eval: int = NUM_EVAL,
    per_crop: bool = False,
    batch: int | None = None,
    allow_resize: bool = False,
    skip: Skip | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield the embeddings of files in order, each as soon as it is computed; for arguments and errors, see embed.

    Yields (file, (nOut,) float32), or with per_crop (file, (num_eval, nOut)). Memory holds only the crops of one
    batch and of a few files that are read ahead.
    """
    require_identity(network)

    def read(path: str) -> Tensor:
        if face:
            return face_crops(path, network.maxFrames, num_eval, allow_resize)
        return voice_crops(path, network.maxFrames, num_eval)

    at_once = batch or (FACES_AT_ONCE if face else VOICES_AT_ONCE)
    with progress_bar(total=len(files), unit="file", desc="embed", leave=False) as bar:
        for path, crops in embed_files(network, files, read, num_eval, at_once):
            if not isinstance(crops, MediaError):
                yield path, crops if per_crop else unit(crops.mean(0, keepdim=True))[0]
            elif skip:
                skip(crops)
            else:
                raise crops
            bar.update()


def embed(
    network: Network,
    files: Sequence[str],
    face: bool = False,
    num_eval: int = NUM_EVAL,
    per_crop: bool = False,
    batch: int | None = None,
    allow_resize: bool = False,
    skip: Skip | None = None,
) -> tuple[list[str], Tensor]:
    """Voice embeddings of sound files, or, with `face`, face embeddings of 224x224 face tracks.

    A crop's embedding is the mean over time of the identity output, at unit length. A file's embedding is the mean
    over its num_eval evenly spread crops of maxFrames, normalized to unit length.
    per_crop: return the embeddings of the crops instead. batch: crops computed at once, of one file or several (None:
    40 voice crops, 10 face crops). skip: called with the error of each file that cannot be used, which is then
    missing from the result; if None, the error is raised.
    Returns (files, (files, nOut) float32), or with per_crop (files, (files, num_eval, nOut)). The dot product of the
    means of two files' crops is their score in --eval. To process embeddings one by one, use iter_embeddings. Raises
    MediaError, and UserError for a network without identity heads.
    """
    used: list[str] = []
    vectors = torch.empty(len(files), *([num_eval] if per_crop else []), network.nOut)
    for file, vector in iter_embeddings(network, files, face, num_eval, per_crop, batch, allow_resize, skip):
        vectors[len(used)] = vector
        used.append(file)
    return used, vectors if len(used) == len(files) else vectors[: len(used)].clone()


def verify(network: Network, a: str, b: str, num_eval: int = NUM_EVAL, batch: int | None = None) -> float:
    """The score that --eval gives a pair: the mean of the num_eval x num_eval cosines of their crops.

    a, b: sound files. Raises MediaError.
    """
    first, second = embed(network, [a, b], num_eval=num_eval, per_crop=True, batch=batch)[1].mean(1)
    return float(first @ second)


def face_content(network: Network, path: str, allow_resize: bool = False) -> Tensor:
    """Content embeddings of the face at every frame, unit length: (frames - 4, nOut) on the CPU.

    Row v sees frames v ... v + 4. network: any temporal stride. Raises MediaError.
    """
    frames = count_frames(path)
    if frames < LIP_FRAMES:
        raise MediaError(f"{path}: {frames} frames, at least {LIP_FRAMES} are needed")
    return torch.cat([unit(part).cpu() for part in face_windows(network, path, frames, BLOCK, allow_resize)])


def face_windows(
    network: Network,
    path: str,
    frames: int,
    batch: int,
    allow_resize: bool = False,
    bilinear: bool = False,
) -> Iterator[Tensor]:
    """Yield content outputs of the face at every frame, `batch` at a time: (<= batch, nOut) float32 on the device.

    Output v sees frames v ... v + 4; only the first `frames` are read. network: any temporal stride. Raises
    MediaError.
    """
    streams = at_every_frame(network)
    memory = np.empty((batch + LIP_FRAMES - 1, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    with FrameReader(path, allow_resize, bilinear) as reader:
        for first in range(0, frames - LIP_FRAMES + 1, batch):
            known = reader.position - first  # frames shared with the end of the previous block
            memory[:known] = memory[batch : batch + known].copy()
            block = memory[: frames - first]
            reader.read(first + known, block[known:])
            video = torch.from_numpy(block)[None].permute(0, 4, 1, 2, 3)
            with torch.inference_mode(), network.autocast():
                content = content_of(streams.forward_vid(video.to(network.device)))[0].T.float()
            yield content


def voice_content(network: Network, samples: np.ndarray) -> Tensor:
    """Content embeddings of the voice at every video frame, unit length: (frames - 4, nOut) on the CPU.

    samples: (n,) int16 at 16 kHz, at least 5 frames; frames = (n - 240) // 640. network: any temporal stride. See
    voice_windows.
    """
    return torch.cat([unit(part).cpu() for part in voice_windows(network, samples)])


def voice_windows(network: Network, samples: np.ndarray) -> Iterator[Tensor]:
    """Yield content outputs of the voice at every video frame, in blocks: (<= BLOCK, nOut) float32 on the device.

    samples: (n,) int16 at 16 kHz. Output a hears frames a ... a + 4 and a little around them. The front end
    normalizes each block separately.
    """
    frames = (len(samples) - WINDOW_TAIL) // SAMPLES_PER_FRAME
    streams = at_every_frame(network)
    for first in range(0, frames - LIP_FRAMES + 1, BLOCK):
        last = min(first + BLOCK + LIP_FRAMES - 1, frames)
        block = samples[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME + WINDOW_TAIL]
        audio = torch.from_numpy(block.astype(np.float32))[None]
        with torch.inference_mode(), network.autocast():
            content = content_of(streams.forward_aud(audio.to(network.device)))[0].T.float()
        yield content
