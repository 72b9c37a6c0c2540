"""Sound is placed by counting its samples: jitter is averaged out, lasting steps are gaps, a drift is followed."""

import numpy as np
import pytest

from syncnet.media.sound_placement import place_frames

AAC, OPUS, SPEECH = 1024 / 44100, 0.02, 1024 / 16000  # seconds per frame


def frames(seconds: float, length: float) -> tuple[np.ndarray, np.ndarray]:
    """The true times of frames, from 1.4 s on, and their lengths."""
    lengths = np.full(round(seconds / length), length)
    return 1.4 + np.cumsum(lengths) - lengths, lengths


def placed(stamps: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, int]:
    """The times at which frames are placed, and the number of runs."""
    counted = np.cumsum(lengths) - lengths
    times = np.full(len(stamps), np.nan)
    runs = place_frames(stamps, lengths)
    for run in runs:
        inside = slice(run.first, run.last)
        times[inside] = counted[inside] + np.interp(counted[inside], run.counted, run.late)
    return times, len(runs)


@pytest.mark.parametrize("length", [AAC, OPUS, SPEECH])
@pytest.mark.parametrize("seconds", [4, 60])
@pytest.mark.parametrize("jitter", [0.001, 0.005, 0.01, 0.025, 0.04])
def test_jitter_inserts_and_drops_nothing(length, seconds, jitter):
    true, lengths = frames(seconds, length)
    for seed in range(5):
        stamps = true + np.random.default_rng(seed).uniform(-jitter, jitter, len(true))
        times, runs = placed(np.round(stamps, 3), lengths)
        assert runs == 1
        assert np.abs(times - true).max() < 0.02


@pytest.mark.parametrize("length", [AAC, OPUS, SPEECH])
@pytest.mark.parametrize("grid", [0.001, 0.02, 1001 / 30000, 0.04])
def test_time_stamps_rounded_down_to_a_grid(length, grid):
    true, lengths = frames(20, length)
    times, runs = placed(np.floor(true / grid + 1e-9) * grid, lengths)
    assert runs == 1
    assert np.abs(times - true).max() < 0.02


@pytest.mark.parametrize("length", [AAC, OPUS, SPEECH])
@pytest.mark.parametrize("gap", [0.1, 0.5, 5.0])
@pytest.mark.parametrize("jitter", [0.0, 0.001, 0.01, 0.025])
def test_gaps_keep_their_place_and_length(length, gap, jitter):
    true, lengths = frames(30, length)
    first = len(true) // 3
    true[first:] += gap
    true[2 * first :] += gap
    stamps = true + np.random.default_rng(3).uniform(-jitter, jitter, len(true))
    times, runs = placed(stamps, lengths)
    assert runs == 3
    late = np.abs(times - true)
    # Jitter as long as a frame leaves open to which side of the gap the nearest frames belong.
    near = np.zeros(len(true), bool)
    if jitter >= 0.01:
        near[np.r_[first - 2 : first + 2, 2 * first - 2 : 2 * first + 2]] = True
    assert late[~near].max() < 0.015


@pytest.mark.parametrize("length", [AAC, OPUS])
def test_single_lost_packets_are_gaps(length):
    true, lengths = frames(30, length)
    for place in (100, 110, 150, 400):
        true[place:] += 2 * length
    times, runs = placed(true, lengths)
    assert runs == 5
    assert np.abs(times - true).max() < 1e-6


@pytest.mark.parametrize("drift", [-0.005, -0.001, 0.0002, 0.001, 0.005])
@pytest.mark.parametrize("jitter", [0.0, 0.001, 0.01])
def test_a_drift_is_followed_without_holes(drift, jitter):
    true, lengths = frames(180, AAC)
    true = 1.4 + (true - 1.4) * (1 + drift)
    stamps = true + np.random.default_rng(3).uniform(-jitter, jitter, len(true))
    times, runs = placed(stamps, lengths)
    assert runs == 1
    assert np.abs(times - true).max() < 0.021


def test_wrong_time_stamps_of_single_frames_are_ignored():
    true, lengths = frames(10, AAC)
    stamps = true.copy()
    stamps[[50, 200]] += 3.0
    stamps[300] = np.nan
    times, runs = placed(stamps, lengths)
    assert runs == 1
    assert np.abs(times - true).max() < 1e-6


def test_frames_without_any_time_stamp():
    lengths = np.full(10, AAC)
    times, runs = placed(np.full(10, np.nan), lengths)
    assert runs == 1
    assert np.allclose(times, np.arange(10) * AAC)
