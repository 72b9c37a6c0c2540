"""inferSyncNet.py accuracy: against a literal version of the protocol, and where the right shift is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import make_clip, make_wav

import inferSyncNet
from inferSyncNet import accuracy
from syncnet.inference.accuracy import CONTEXTS, SyncTest, right_windows
from syncnet.inference.lip_sync import distances
from syncnet.media.clips import MediaError, read_list
from SyncNetDist import SyncNet

SHIFTS, WORST = range(-15, 16), -1000.0


def literal(scores: list[dict[int, float]], context: int) -> float:
    """Window by window, shift by shift. scores: of each window the score at each shift."""
    right = 0
    for i in range(len(scores)):
        mean = {}
        for k in SHIFTS:
            beside = [
                scores[n][k]
                for n in range(i - (context - 5) // 2, i + (context - 5) // 2 + 1)
                if 0 <= n < len(scores)
            ]
            mean[k] = sum(beside) / len(beside)
        best = max(SHIFTS, key=lambda k: mean[k])  # the first one
        right += abs(best) <= 1
    return right / len(scores)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("windows", [3, 20, 60])
def test_as_the_protocol_has_it(windows, context):
    draws = np.random.default_rng(windows)
    noisy = draws.normal(0, 1, (windows, 31))
    noisy[:, 14:17] += draws.normal(1.5, 1, (windows, 3))
    there = (np.arange(windows)[:, None] + np.arange(31) - 15 >= 0) & (
        np.arange(windows)[:, None] + np.arange(31) - 15 < windows
    )
    scores = [{k: noisy[i, k + 15] if there[i, k + 15] else WORST for k in SHIFTS} for i in range(windows)]
    found = right_windows(np.where(there, noisy, -np.inf), context)
    assert found == pytest.approx(literal(scores, context)) and found > 0


def test_chance_is_three_of_31():
    scores = np.random.default_rng(0).normal(0, 1, (20000, 31))
    assert right_windows(scores, 5) == pytest.approx(3 / 31, abs=0.01)


@pytest.mark.parametrize(("late", "share"), [(-1, 1.0), (0, 1.0), (-2, 1.0), (1, 0.0), (-3, 0.0), (5, 0.0)])
def test_clips_whose_right_shift_is_known(clock, tmp_path, late, share):
    """In step is late = -1: the loader takes the picture from frame start + offset - 1."""
    video, wav = str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")
    make_clip(video, 50, first=20)
    make_wav(wav, 50 * 640, first=(20 + late) * 640)
    found = accuracy(clock, video, wav)
    assert found[0] == pytest.approx(share, abs=0.06)  # at an end, the right sound is outside the clip
    assert (accuracy(clock, video, wav, offset=late + 1) == 1).all()


def test_the_middle_column_is_at_the_offset_of_the_list(clock, tmp_path):
    video, wav = str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")
    make_clip(video, 30, first=20)
    make_wav(wav, 30 * 640, first=20 * 640)
    usual = distances(clock, video, wav, 30)
    for offset in (-14, 0, 14):
        moved, columns = distances(clock, video, wav, 15, offset=offset), slice(15 - offset, 46 - offset)
        np.testing.assert_allclose(moved.rows, usual.rows[:, columns], atol=2e-3)
        assert (moved.there == usual.there[:, columns]).all()


def test_the_command(clock, tmp_path, capsys, monkeypatch):
    lines = []
    for name, offset, said in (("a", 0, 0), ("b", 3, 3), ("c", 4, 0), ("d", 0, 20)):
        make_clip(str(tmp_path / f"{name}.mp4"), 50, first=20)
        make_wav(str(tmp_path / f"{name}.wav"), 50 * 640, first=(20 + offset - 1) * 640)
        lines.append(f"{tmp_path}/{name}.mp4 {tmp_path}/{name}.wav {said} 50\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    (tmp_path / "x.model").write_bytes(b"weights")
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    flags = ["--initial_model", str(tmp_path / "x.model"), "--json", str(tmp_path / "a.json")]
    status = inferSyncNet.main(["accuracy", str(tmp_path / "list.txt"), *flags])
    said = capsys.readouterr()
    assert status == 1 and "d.mp4: offset 20 in the list" in said.err
    assert "of 3 clips, in %; 31 shifts, right within 1 frame; chance 9.7" in said.out
    each = [accuracy(clock, *(str(tmp_path / f"{n}.{k}") for k in ("mp4", "wav")), offset=o) for n, o in
            (("a", 0), ("b", 3), ("c", 0))]  # fmt: skip
    figures = SyncTest(clock, read_list(str(tmp_path / "list.txt")), 4).run()  # as in training
    assert list(figures.values()) == pytest.approx(100 * np.mean(each, 0))
    assert "of 3 clips" in capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert [found["accuracy"][str(context)]["mean"] for context in CONTEXTS] == pytest.approx(
        np.mean(each, 0)
    )
    assert [float(number) for number in said.out.splitlines()[1].split()[1:]] == pytest.approx(
        100 * np.mean(each, 0), abs=0.006
    )
    assert (found["shifts"], found["within"], found["chance"]) == (31, 1, pytest.approx(3 / 31))
    assert found["clips"] == 3 and found["accuracy"]["5"]["low"] <= found["accuracy"]["5"]["high"]


@pytest.mark.parametrize("clips", [0, 1])
def test_the_json_of_too_few_clips_has_nulls(clock, tmp_path, monkeypatch, clips):
    make_clip(str(tmp_path / "a.mp4"), 50 if clips else 4)
    make_wav(str(tmp_path / "a.wav"), 50 * 640)
    (tmp_path / "x.model").write_bytes(b"weights")
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    flags = ["--initial_model", str(tmp_path / "x.model"), "--wav", str(tmp_path / "a.wav")]
    status = inferSyncNet.main(
        ["accuracy", str(tmp_path / "a.mp4"), *flags, "--json", str(tmp_path / "a.json")]
    )
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["clips"] == clips and status == 1 - clips
    assert all(
        (row["mean"] is None) == (not clips) and row["low"] is None for row in found["accuracy"].values()
    )


def test_a_clip_without_a_window_that_has_its_sound_is_refused(clock, tmp_path):
    make_clip(str(tmp_path / "a.mp4"), 14)
    make_wav(str(tmp_path / "a.wav"), 14 * 640)
    with pytest.raises(MediaError, match=r"a.mp4: 14 frames, too few for the offset 12"):
        accuracy(clock, str(tmp_path / "a.mp4"), str(tmp_path / "a.wav"), offset=12)


def test_the_published_network_has_its_own_distances(tmp_path):
    torch.manual_seed(0)
    published = SyncNet(model="models.SyncNetV2", device="cpu")
    video, wav = str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")
    make_clip(video, 12)
    make_wav(wav, 12 * 640)
    found = distances(published, video, wav)
    scores = [
        {k: -found.rows[i, k + 15] if 0 <= i + k < 7 else WORST for k in SHIFTS}
        for i in range(len(found.rows))
    ]
    assert len(scores) == 7
    assert accuracy(published, video, wav) == pytest.approx(
        [literal(scores, context) for context in CONTEXTS]
    )
    assert Path(video).exists()
