"""Whose voice belongs to a face: N-way matching across the two streams, the test of what the identity loss learns."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln

from syncnet.inference.defaults import NUM_EVAL, WAYS
from syncnet.inference.embeddings import Skip, embed
from syncnet.media.clips import Clip
from syncnet.networks.interface import Network
from syncnet.support.errors import UserError

RESAMPLES = 1000


@dataclass(frozen=True)
class Matching:
    """Accuracy, in percent, of finding the right one of `ways`, with its 95 % interval."""

    ways: int
    accuracy: float
    low: float
    high: float


def match(
    network: Network,
    clips: Sequence[Clip],
    ways: Sequence[int] = WAYS,
    num_eval: int = NUM_EVAL,
    batch: int | None = None,
    allow_resize: bool = False,
    skip: Skip | None = None,
) -> tuple[list[Matching], list[Matching], list[str]]:
    """How often a face finds its own voice among N - 1 voices of other people, and a voice its face.

    Returns (face to voice, voice to face, speaker of each clip used); see matching_accuracy. Raises MediaError, and
    UserError when there are too few speakers, before anything is computed where the list tells.
    """
    check_ways(speakers_of_clips([clip.video for clip in clips]), ways)
    heard, voices = embed(network, [c.audio for c in clips], False, num_eval, False, batch, skip=skip)
    voice = dict(zip(heard, voices, strict=True))
    clips = [clip for clip in clips if clip.audio in voice]
    seen, faces = embed(
        network, [c.video for c in clips], True, num_eval, False, batch, allow_resize, skip=skip
    )
    usable = set(seen)
    clips = [clip for clip in clips if clip.video in usable]
    speakers = speakers_of_clips([clip.video for clip in clips])
    check_ways(speakers, ways)
    similarity = (faces @ torch.stack([voice[clip.audio] for clip in clips]).T).numpy()
    there, back = ([matching_accuracy(s, speakers, n) for n in ways] for s in (similarity, similarity.T))
    return there, back, speakers


def speakers_of_clips(videos: Sequence[str]) -> list[str]:
    """Who is in each video: the folder two above it (<id>/<ref>/<utt>.mp4); where all share one, each its own."""
    folders = [os.path.dirname(os.path.dirname(os.path.abspath(video))) for video in videos]
    return list(videos) if len(set(folders)) == 1 else folders


def check_ways(speakers: Sequence[str], ways: Sequence[int]) -> None:
    """Raise UserError unless every clip has ways - 1 clips of other speakers to be told from.

    speakers: of each clip.
    """
    counts = Counter(speakers)
    if len(counts) < 2:
        raise UserError(f"{len(speakers)} clips of {len(counts)} speakers: nothing to tell apart")
    most = len(speakers) - max(counts.values()) + 1
    for count in ways:
        if not 2 <= count <= most:
            raise UserError(
                f"{count}-way matching: there are clips of other speakers for {most} at most, "
                f"of {len(speakers)} clips of {len(counts)} speakers (--ways)"
            )


def matching_accuracy(similarity: np.ndarray, speakers: Sequence[str], ways: int, seed: int = 0) -> Matching:
    """N-way accuracy, exactly as of drawing every set of ways - 1 wrong clips of other speakers.

    similarity: (clips, clips), row i, column i a pair that belongs together. A row is won by a draw that has
    none of the other speakers' columns that are at least as similar: of m columns, b of them, with
    probability C(m - b, ways - 1) / C(m, ways - 1). The interval is a bootstrap over speakers, whose clips
    are not independent. Raises UserError when there are too few other speakers' clips.
    """
    check_ways(speakers, [ways])
    names, index = np.unique(speakers, return_inverse=True)
    other = index[:, None] != index
    columns = other.sum(1)
    better = (other & (similarity >= np.diagonal(similarity)[:, None])).sum(1)
    left = columns - better

    def log_choose(n: np.ndarray) -> np.ndarray:
        return gammaln(n + 1) - gammaln(np.maximum(n - ways + 1, 0) + 1)

    won = np.where(left >= ways - 1, np.exp(log_choose(left) - log_choose(columns)), 0.0)
    totals, counts = np.bincount(index, won), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = totals[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Matching(ways, 100 * float(won.mean()), 100 * float(low), 100 * float(high))
