"""Compute when decoded audio is heard, by counting samples and correcting the count with the time stamps."""

from dataclasses import dataclass

import numpy as np

MIN_GAP = 0.02  # seconds; time stamps may be this coarse; a larger lasting step is a gap in the audio
STEADY = 0.004  # seconds; spread of time stamps that are exact up to rounding
FEW, MANY = 3, 64  # frames needed to detect a step in exact and in jittering time stamps
WINDOW = 1.0  # seconds; MANY frames are extended to cover at least this
SURE = 11.0  # standard errors by which two medians of jittering time stamps may differ without a step
COARSE = 0.01  # seconds; time stamps on a grid at least this coarse were rounded down
KNOT = 2.0  # seconds between measurements of a drift


@dataclass(frozen=True, eq=False)
class Run:
    """Frames first ... last - 1, without a gap.

    counted: time in seconds from counting samples since frame 0. late: seconds by which the audio is later than that.
    Both have one value per measurement of the drift, or a single value without drift.
    """

    first: int
    last: int
    counted: np.ndarray
    late: np.ndarray


def place_frames(stamps: np.ndarray, lengths: np.ndarray) -> list[Run]:
    """Divide decoded audio frames into runs without a gap, in order.

    stamps: (frames,) seconds, NaN for a frame without a time stamp. lengths: (frames,) seconds. Jitter and rounding
    are averaged out; a lasting step is a gap or an overlap; a slow drift is tracked.
    """
    counted = np.cumsum(lengths) - lengths
    late = _filled(stamps - counted)
    if np.abs(late - late[0]).max(initial=0.0) <= MIN_GAP:
        return [Run(0, len(late), counted[:1], late[:1])]
    second = max(2, round(WINDOW / max(float(np.median(lengths)), 1e-4)))
    noise = _noise(late, second)
    window, step = FEW, MIN_GAP
    if noise > STEADY:
        window = max(MANY, second)
        step = max(MIN_GAP, SURE * noise / window**0.5)
        late = late + _cut_off(stamps)
    window = min(window, len(late))
    levels = _medians_ahead(late, window)
    starts = _steps(late, levels, window, step)
    runs: list[Run] = []
    for first, last in zip(starts, [*starts[1:], len(late)], strict=True):
        drifts = bool(runs) and abs(levels[first] - levels[max(runs[-1].first, first - window)]) < 0.9 * step
        if drifts:
            first = runs.pop().first
            middles = range(first, last, max(4 * window, round(KNOT * second / WINDOW)))
            knots = [slice(a, min(a + middles.step, last)) for a in middles]
            at = np.array([counted[knot].mean() for knot in knots])
            by = np.array([np.median(late[knot]) for knot in knots])
            runs.append(Run(first, last, at, by))
        else:
            runs.append(Run(first, last, counted[first : first + 1], levels[first : first + 1]))
    return runs


def _filled(late: np.ndarray) -> np.ndarray:
    """Replace NaN with the value of the previous frame, or with the first known value at the beginning."""
    known = ~np.isnan(late)
    if not known.any():
        return np.zeros_like(late)
    last_known = np.maximum.accumulate(np.where(known, np.arange(len(late)), known.argmax()))
    return late[last_known]


def _noise(late: np.ndarray, block: int) -> float:
    """Estimate the standard deviation within blocks of frames; robust against gaps."""
    blocks = [late[a : a + block] for a in range(0, len(late), block)]
    return float(np.median([1.4826 * np.median(np.abs(part - np.median(part))) for part in blocks]))


def _cut_off(stamps: np.ndarray) -> float:
    """Return the mean error of time stamps that were rounded down, half the grid width; 0 if there is no grid."""
    steps = np.diff(stamps[~np.isnan(stamps)])
    steps = steps[np.abs(steps) > 0.001]
    if not len(steps):
        return 0.0
    width = float(np.abs(steps).min())
    on_grid = np.abs(steps - width * np.rint(steps / width)) < 0.0015
    return width / 2 if width >= COARSE and on_grid.mean() > 0.95 else 0.0


def _medians_ahead(late: np.ndarray, window: int) -> np.ndarray:
    """Return the median of each window that starts at a frame; frames near the end get that of the last window."""
    medians = np.empty_like(late)
    whole = len(late) - window + 1
    windows = np.lib.stride_tricks.sliding_window_view(late, window)
    for first in range(0, whole, 10_000):  # in blocks, because median copies each window
        medians[first : min(first + 10_000, whole)] = np.median(windows[first : first + 10_000], axis=1)
    medians[whole:] = medians[whole - 1]
    return medians


def _steps(late: np.ndarray, levels: np.ndarray, window: int, step: float) -> list[int]:
    """Return the frames at which runs begin: 0, and every frame at which the level changes by a step."""
    starts = [0]
    while True:
        first = starts[-1]
        away = np.abs(levels[first:] - levels[first]) > step
        seen = first + int(away.argmax())
        if not away[seen - first]:
            return starts
        # Place the step where the levels before and after it fit the surrounding frames best.
        after = levels[min(seen + window // 2, len(late) - 1)]
        begin = max(first + 1, seen - window)
        around = late[begin : seen + window]
        costs = np.cumsum(np.abs(around - levels[first]) - np.abs(around - after))
        starts.append(min(begin + int(np.r_[0.0, costs].argmin()), len(late) - 1))
        if starts[-1] == first:
            return starts[:-1]
