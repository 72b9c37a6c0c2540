"""How published LSE figures are counted: which frames are measured, and how a video's tracks become one figure.

Each named protocol follows a public script; all use syncnet_v2.model and shifts of up to 15 frames. LSE-D and
LSE-C are defined in Prajwal et al., "A lip sync expert is all you need", ACM Multimedia 2020.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
Figures = np.ndarray  # (tracks, 2): LSE-D and LSE-C of each track of a video


@dataclass(frozen=True, eq=False)
class Protocol:
    """How figures are counted.

    name: value of --protocol. counted, comparable: how figures are counted, and what they are comparable with, in
    words. min_frames, min_face: smallest length and face size (pixels) of a track that counts; with min_frames 0,
    whole frames are measured. of_video: maps the figures of a video's tracks to those of the video, in the order of
    `columns`. over_tracks: weight each video by its number of tracks.
    """

    name: str
    counted: str
    comparable: str
    min_frames: int = 34
    min_face: int = 60
    columns: tuple[str, ...] = ("lse_d", "lse_c")
    of_video: Callable[[Figures], Figures] = lambda tracks: tracks.mean(0)
    over_tracks: bool = False

    @property
    def whole(self) -> bool:
        """Are whole frames measured, without face detection?"""
        return self.min_frames == 0

    @property
    def is_named(self) -> bool:
        """Does it follow a public script?"""
        return self.name != "tracks"


def best_each(tracks: Figures) -> Figures:
    """The lowest LSE-D and the highest LSE-C of the tracks, each by itself."""
    return np.array([tracks[:, 0].min(), tracks[:, 1].max()])


def mean_and_best(tracks: Figures) -> Figures:
    """The means over tracks, and the figures of the track with the largest LSE-C - LSE-D."""
    return np.concatenate((tracks.mean(0), tracks[(tracks[:, 1] - tracks[:, 0]).argmax()]))


_ALL = (
    Protocol(
        "tracks",
        "mean over all face tracks",
        "figures counted by the same program with the same flags",
        over_tracks=True,
    ),
    Protocol(
        "wav2lip-lrs",
        "every frame scaled whole to 224x224, without looking for faces; mean over videos",
        "Wav2Lip's figures for LRS2, LRS3 and LRW (calculate_scores_LRS.py)",
        min_frames=0,
    ),
    Protocol(
        "wav2lip-real",
        "face tracks of more than 100 frames and of faces of 100 pixels or more; mean over all tracks",
        "Wav2Lip's figures for real videos (calculate_scores_real_videos.py) and those of syncnet_python",
        min_frames=101,
        min_face=100,
        over_tracks=True,
    ),
    Protocol(
        "latentsync",
        "face tracks of more than 50 frames and of faces of 100 pixels or more; mean over the tracks of a video, "
        "then over videos with a face",
        "LatentSync's Sync-C (eval_sync_conf.py, which gives no distance)",
        min_frames=51,
        min_face=100,
    ),
    Protocol(
        "mocha",
        "face tracks of more than 50 frames and of faces of 100 pixels or more; the lowest LSE-D and the highest "
        "LSE-C of a video's tracks, each by itself; mean over videos with a face",
        "MoChaBench's Sync-Dist and Sync-Conf, which are measured with the speech alone (--wav)",
        min_frames=51,
        min_face=100,
        of_video=best_each,
    ),
    Protocol(
        "mova",
        "face tracks of more than 20 frames and of faces of 100 pixels or more; per video the mean over its tracks, "
        "and as `best` the track with the largest LSE-C - LSE-D; mean over videos with a face",
        "MOVA's figures for Verse-Bench (eval_lip_sync.py, whose tables by category have `best`)",
        min_frames=21,
        min_face=100,
        columns=("lse_d", "lse_c", "best_lse_d", "best_lse_c"),
        of_video=mean_and_best,
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


@dataclass(frozen=True, eq=False)
class Summary:
    """Means over videos, (columns,), and their 95 % intervals; None for a single video."""

    means: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def summarize(protocol: Protocol, videos: Sequence[Figures]) -> Summary:
    """The means over videos. videos: at least one, each with the figures of its tracks."""
    figures = np.array([protocol.of_video(tracks) for tracks in videos])
    weights = np.array([len(tracks) if protocol.over_tracks else 1 for tracks in videos], float)
    means = np.average(figures, axis=0, weights=weights)
    if len(videos) == 1:
        return Summary(means, None, None)
    return Summary(means, *mean_interval(figures, weights))


def mean_interval(
    figures: np.ndarray, weights: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of weighted means over rows: (rows, k), (rows,) -> low, high, (k,) each."""
    weights = np.ones(len(figures)) if weights is None else weights
    draws = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = draws.integers(len(figures), size=len(figures))
        means.append(np.average(figures[drawn], axis=0, weights=weights[drawn]))
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high
