"""When decoded sound is heard: its samples are counted, and time stamps correct the count in the long run."""

from dataclasses import dataclass

import numpy as np

MIN_GAP = 0.02  # seconds; time stamps may be this coarse, a larger lasting step is a gap in the sound
STEADY = 0.004  # seconds; the spread of time stamps that are exact except for rounding
FEW, MANY = 3, 64  # frames that show a step in exact time stamps, and in jittering ones
WINDOW = 1.0  # seconds that MANY frames cover at least
SURE = 11.0  # standard errors by which two medians of jittering time stamps may differ without a step
COARSE = 0.01  # seconds; time stamps on a grid at least this wide were rounded down to it
KNOT = 2.0  # seconds between two measurements of a drift


@dataclass(frozen=True, eq=False)
class Run:
    """Frames first ... last - 1, without a gap.

    counted: seconds, counted in samples from frame 0. late: seconds by which the sound is later than that. Both have
    one value per measurement of a drift; one value if there is no drift.
    """

    first: int
    last: int
    counted: np.ndarray
    late: np.ndarray


def place_frames(stamps: np.ndarray, lengths: np.ndarray) -> list[Run]:
    """Divide decoded frames of sound into runs without a gap, in order.

    stamps: (frames,) seconds, NaN for a frame without a time stamp. lengths: (frames,) seconds. Jitter and rounding
    of time stamps average out; a lasting step is a gap or an overlap; a slow drift is followed.
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
    """Replace NaN: a frame without a time stamp follows the one before, or precedes the first that has one."""
    known = ~np.isnan(late)
    if not known.any():
        return np.zeros_like(late)
    last_known = np.maximum.accumulate(np.where(known, np.arange(len(late)), known.argmax()))
    return late[last_known]


def _noise(late: np.ndarray, block: int) -> float:
    """The typical spread within a block of frames, as a standard deviation; robust against gaps."""
    blocks = [late[a : a + block] for a in range(0, len(late), block)]
    return float(np.median([1.4826 * np.median(np.abs(part - np.median(part))) for part in blocks]))


def _cut_off(stamps: np.ndarray) -> float:
    """Half the width of the grid to which time stamps were rounded down, which is their mean error; 0 without one."""
    steps = np.diff(stamps[~np.isnan(stamps)])
    steps = steps[np.abs(steps) > 0.001]
    if not len(steps):
        return 0.0
    width = float(np.abs(steps).min())
    on_grid = np.abs(steps - width * np.rint(steps / width)) < 0.0015
    return width / 2 if width >= COARSE and on_grid.mean() > 0.95 else 0.0


def _medians_ahead(late: np.ndarray, window: int) -> np.ndarray:
    """The median of each frame and the ones after it; at the end, of the last window."""
    medians = np.empty_like(late)
    whole = len(late) - window + 1
    windows = np.lib.stride_tricks.sliding_window_view(late, window)
    for first in range(0, whole, 10_000):  # each window is copied
        medians[first : min(first + 10_000, whole)] = np.median(windows[first : first + 10_000], axis=1)
    medians[whole:] = medians[whole - 1]
    return medians


def _steps(late: np.ndarray, levels: np.ndarray, window: int, step: float) -> list[int]:
    """The frames at which a run begins: 0, and those where the level changes by a step."""
    starts = [0]
    while True:
        first = starts[-1]
        away = np.abs(levels[first:] - levels[first]) > step
        seen = first + int(away.argmax())
        if not away[seen - first]:
            return starts
        # The step is where the levels before and after fit the frames around it best.
        after = levels[min(seen + window // 2, len(late) - 1)]
        begin = max(first + 1, seen - window)
        around = late[begin : seen + window]
        costs = np.cumsum(np.abs(around - levels[first]) - np.abs(around - after))
        starts.append(min(begin + int(np.r_[0.0, costs].argmin()), len(late) - 1))
        if starts[-1] == first:
            return starts[:-1]
