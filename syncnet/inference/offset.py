"""By how many frames picture and sound of a clip are apart, measured with the content embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from syncnet.inference.defaults import MAX_OFFSET
from syncnet.inference.embeddings import LOADER_LEAD, clip_sound, face_content, voice_content
from syncnet.inference.lip_sync import is_published, lse
from syncnet.media.clips import FPS, MediaError
from syncnet.media.crops import crop_samples
from syncnet.networks.interface import Network
from syncnet.networks.output_check import require_content
from syncnet.networks.two_streams import LIP_FRAMES
from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.support.names import printable

MIN_MOMENTS = 10  # embeddings for which picture and sound have to overlap at every shift
# Confidence of this program's networks from which on an offset counts as found. With the demo's network, clips in
# sync had 0.40 at least and 0.57 in the middle, with the sound of another clip 0.19 in the middle (drawn people talk
# much alike); with noise, and with a network that has hardly learnt, below 0.06.
FOUND = 0.2
PUBLISHED_FOUND = 2.0  # confidence of the published lip-sync network below which nothing was found


@dataclass(frozen=True, eq=False)
class Offset:
    """The offset of a clip as the list's third field has it: the picture is `frames` later than the sound.

    similarity: (shifts,) mean cosine of picture and sound at each of `shifts` (frames); of the published lip-sync
    network the negative of their mean distance. measure: what it is, in words. enough: confidence from which on an
    offset counts as found.
    """

    frames: int
    confidence: float  # highest similarity less the median over all shifts; near 0: nothing was found
    shifts: np.ndarray
    similarity: np.ndarray
    measure: str = "mean similarity"
    enough: float = FOUND

    @property
    def found(self) -> str:
        """Was there an offset to be found? "yes", "no", or "edge" (it may lie beyond the shifts)."""
        if abs(self.frames) == self.shifts[-1]:
            return "edge"
        return "yes" if self.confidence >= self.enough else "no"

    @property
    def milliseconds(self) -> int:
        return self.frames * 1000 // FPS

    def __str__(self) -> str:
        if self.found == "edge":
            return (
                f"no offset found within {abs(self.frames)} frames: the best is at the edge, {self.frames} frames, "
                f"confidence {self.confidence:.3f}; the true offset may lie beyond it (use a larger --max_offset)"
            )
        if self.found == "no":
            return (
                f"no offset found, confidence {self.confidence:.3f} where {self.enough:g} is needed: the best is "
                f"{self.frames} frames"
            )
        way = {1: "later than", 0: "in step with", -1: "earlier than"}[int(np.sign(self.frames))]
        count = f"{abs(self.frames)} frame{'s' * (abs(self.frames) != 1)} " if self.frames else ""
        return (
            f"offset {self.frames} frames ({self.milliseconds} ms), confidence {self.confidence:.3f}: "
            f"the picture is {count}{way} the sound"
        )


def find_offset(video: Tensor, audio: Tensor, max_offset: int = MAX_OFFSET) -> Offset:
    """The offset at which the mean similarity of the two streams is highest.

    video, audio: unit content embeddings at every frame, (moments, nOut) each. Embedding v of the picture
    belongs to embedding a of the sound when v = a + offset - 1, as in training. Chung and Zisserman, "Out of
    time: automated lip sync in the wild", ACCV workshops 2016, section 4.1 (there with distances, and the
    confidence is median less minimum). Raises UserError when the two overlap too little for max_offset.
    """
    longest = max_offset + LOADER_LEAD + MIN_MOMENTS
    if min(len(video), len(audio)) < longest:
        have, need = min(len(video), len(audio)) + LIP_FRAMES - 1, longest + LIP_FRAMES - 1
        most = max_offset - (need - have)
        remedy = f"use --max_offset {most} or less" if most > 0 else "leave this clip out"
        raise UserError(
            f"{have} frames of picture and sound, --max_offset {max_offset} needs {need}; {remedy}"
        )
    shifts = np.arange(-max_offset, max_offset + 1)
    cosines = (video @ audio.T).numpy()
    means = np.array([np.diagonal(cosines, LOADER_LEAD - shift).mean() for shift in shifts])
    return Offset(int(shifts[means.argmax()]), float(means.max() - np.median(means)), shifts, means)


def offset(
    network: Network,
    video: str,
    wav: str | None = None,
    max_offset: int = MAX_OFFSET,
    allow_resize: bool = False,
) -> Offset:
    """Measure the offset of a clip. network: of any temporal stride; its content is computed at every frame.

    Of the published lip-sync network (models/SyncNetV2.py) it is that of lse(). wav: the clip's sound; None takes the
    sound track of the video. max_offset: frames, both ways. Raises MediaError.
    """
    require_content(network)
    if is_published(network):
        found = lse(network, video, wav, max_offset, allow_resize=allow_resize)
        shifts = np.arange(-max_offset, max_offset + 1)
        nearness = -found.mean_distances[::-1]  # at the shift -max_offset the sound is the latest
        return Offset(found.offset, found.lse_c, shifts, nearness, "mean distance, negative", PUBLISHED_FOUND)
    samples = clip_sound(video, wav)
    need = crop_samples(LIP_FRAMES)
    if len(samples) < need:
        raise MediaError(f"{wav or video}: {len(samples)} samples, at least {need} are needed")
    faces, voices = face_content(network, video, allow_resize), voice_content(network, samples)
    try:
        return find_offset(faces, voices, max_offset)
    except UserError as error:
        raise MediaError(f"{video}: {error}") from None


def plot_offsets(found: Sequence[tuple[str, Offset]], path: str) -> None:
    """Write a PNG: the curve of one (path, offset), or the curves of several as rows of a map. Raises OSError."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    if len(found) == 1:
        path_of_clip, one = found[0]
        name = printable("/".join(Path(path_of_clip).parts[-3:]))  # <id>/<ref>/<utt>.mp4
        figure = Figure(figsize=(7, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(one.shifts, one.similarity, ".-")
        axes.plot([one.frames], [one.similarity.max()], "o", color="tab:red", markersize=8)
        axes.axhline(np.median(one.similarity), color="0.5", linestyle=":", label="median")
        axes.axvline(one.frames, color="tab:red", linewidth=0.8)
        nothing = "no offset found: " if one.found in ("no", "edge") else ""
        figures = f"offset {one.frames} frames ({one.milliseconds} ms), confidence {one.confidence:.3f}"
        axes.set_title(f"{name}\n{nothing}{figures}", fontsize=10)
        axes.set_ylabel(one.measure)
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    else:
        figure = Figure(figsize=(7, min(3 + 0.08 * len(found), 12)), layout="constrained")
        axes = figure.subplots()
        shifts = found[0][1].shifts
        edges = (shifts[0] - 0.5, shifts[-1] + 0.5, len(found) + 0.5, 0.5)
        image = axes.imshow(
            [one.similarity for _, one in found], aspect="auto", extent=edges, interpolation="nearest"
        )
        figure.colorbar(image, label=found[0][1].measure)
        axes.plot(
            [one.frames for _, one in found], range(1, len(found) + 1), ".", color="tab:red", markersize=4
        )
        axes.set_title(f"{len(found)} clips; red: the offset found", fontsize=10)
        axes.set_ylabel("clip")
    axes.set_xlabel("offset in frames (40 ms); positive: the picture is later than the sound")
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
