"""What is told of the lip sync of tracks: a line and a row a track, means over tracks, confidences of frames."""

import csv
from collections.abc import Sequence

import numpy as np

from syncnet.inference.lip_sync import LipSync, is_published
from syncnet.networks.interface import Network
from syncnet.networks.two_streams import LIP_FRAMES
from syncnet.support.files import replace_file
from syncnet.verification.results import file_hash

COLUMNS = ("clip", "wav", "frames", "offset", "lse_d", "lse_c")
HEADER = "offset   LSE-D   LSE-C  frames  clip"
PUBLISHED_SHA256 = "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"  # of syncnet_v2.model
RESAMPLES = 1000
Row = tuple[str, str | None, LipSync]  # a clip, its wav (None: its own sound track), and what was measured


def line_of(clip: str, found: LipSync) -> str:
    """A track's line below HEADER."""
    return f"{found.offset:6d} {found.lse_d:7.3f} {found.lse_c:7.3f} {found.frames:7d}  {clip}"


def mean_line(rows: Sequence[Row]) -> str:
    """The means over tracks that papers report, with their 95 % intervals where there are several tracks."""
    figures = np.array([(found.lse_d, found.lse_c) for _, _, found in rows])
    cells = [f"{name} {mean:.3f}" for name, mean in zip(("LSE-D", "LSE-C"), figures.mean(0), strict=True)]
    if len(rows) == 1:
        return f"1 track: {', '.join(cells)}"
    low, high = mean_interval(figures)
    cells = [f"{cell} ({a:.3f} - {b:.3f})" for cell, a, b in zip(cells, low, high, strict=True)]
    return f"mean of {len(rows)} tracks: {', '.join(cells)}; 95 % intervals over tracks"


def mean_interval(figures: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of means over tracks: (tracks, k) -> low, high, (k,) each."""
    draws = np.random.default_rng(seed)
    means = [figures[draws.integers(len(figures), size=len(figures))].mean(0) for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def remark(network: Network, checkpoint: str) -> str | None:
    """Why the figures of a network cannot be compared with published ones; None for the published weights."""
    published = "those that papers report, which are made with syncnet_v2.model"
    if not is_published(network):
        return (
            f"NOT COMPARABLE with {published}: distances of unit vectors, of another network ({checkpoint})"
        )
    if (found := file_hash(checkpoint)) != PUBLISHED_SHA256:
        return (
            f"NOT COMPARABLE with {published}: these are not the published weights "
            f"({checkpoint}: SHA-256 {found}, not {PUBLISHED_SHA256})"
        )
    return None


def write_table(rows: Sequence[Row], path: str) -> None:
    """Write the CSV with a row a track. Raises OSError."""
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for clip, wav, found in rows:
            figures = [found.frames, found.offset, f"{found.lse_d:.6f}", f"{found.lse_c:.6f}"]
            table.writerow([clip, wav or "", *figures])


def write_frames(found: LipSync, path: str) -> None:
    """Write the CSV with the confidence of every frame that a window has in its middle. Raises OSError.

    frame: number from 0 on. The first two frames and the last few are in the middle of none.
    """
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["frame", "confidence"])
        for frame, confidence in enumerate(found.confidences, LIP_FRAMES // 2):
            table.writerow([frame, f"{confidence:.6f}"])
