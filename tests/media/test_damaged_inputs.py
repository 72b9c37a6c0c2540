"""Damaged files of every kind: each ends in a clear message or a counted skip, and nothing worse."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import make_clip, make_txt, make_wav
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import makeFileList
from DatasetLoader import DatasetLoader
from syncnet.checkpoints.torch_files import CheckpointError
from syncnet.media.clip_check import SkipClip, read_offset
from syncnet.media.clips import Clip, MediaError, format_list_line, parse_list_line, read_list
from syncnet.training.state import ResumeState, fit_state, read_state, save_state
from syncnet.verification.trials import read_trials
from SyncNetDist import SyncNet

FRAMES, T, CASES = 20, 8, 300
KINDS = ("mp4", "wav", "txt", "list", "trials", "model", "state")


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    """One good file of each kind."""
    folder = tmp_path_factory.mktemp("intact")
    make_clip(str(folder / "x.mp4"), FRAMES)
    make_wav(str(folder / "x.wav"), FRAMES * 640)
    make_txt(str(folder / "x.txt"), offset=-3)
    clips = [Clip(f"mp4/{k}.mp4", f"wav/{k}.wav", k - 5, 100 + k) for k in range(12)]
    (folder / "x.list").write_text("".join(format_list_line(clip) + "\n" for clip in clips))
    (folder / "x.trials").write_text("".join(f"{k % 2} a/{k}.wav b/{k}.wav\n" for k in range(12)))
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    network.saveParameters(str(folder / "x.model"))
    save_state(str(folder / "x.state"), network, ResumeState(2, [], random.getstate()), {"lr": "1"})
    return folder


def damage(data: bytes, draws: random.Random) -> bytes:
    """Truncated, a stretch of zeros, flipped bits, or random bytes in between."""
    how, where = draws.randrange(4), draws.randrange(len(data))
    length = draws.randint(1, max(1, len(data) // 4))
    if how == 0:
        return data[:where]
    if how == 1:
        return data[:where] + bytes(min(length, len(data) - where)) + data[where + length :]
    changed = bytearray(data)
    if how == 2:
        for _ in range(draws.choice((1, 3, 30))):
            changed[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        return bytes(changed)
    return bytes(changed[:where] + draws.randbytes(length) + changed[where:])


def use(kind: str, path: Path, intact: Path) -> None:
    """Read the file as the program does. Returns only what can be right; else one of the program's errors."""
    if kind in ("mp4", "wav"):
        files = {"mp4": intact / "x.mp4", "wav": intact / "x.wav"} | {kind: path}
        lines = path.parent / "list.txt"
        lines.write_text(format_list_line(Clip(str(files["mp4"]), str(files["wav"]), 0, FRAMES)) + "\n")
        video, audio = next(iter(DatasetLoader(str(lines), 1, 1, T, 1, decode_timeout=20)))
        assert video.shape == (1, 3, T, 224, 224) and audio.shape == (1, T * 640 + 240)
    elif kind == "txt":
        assert -(10**6) < read_offset(str(path)) < 10**6
    elif kind == "list":
        for clip in read_list(str(path)):
            assert clip.frames > 0 and clip.video and clip.audio
    elif kind == "trials":
        trials = read_trials(str(path))
        assert trials.labels is None or set(trials.labels) <= {0, 1}
        assert max(trials.first.max(), trials.second.max()) < len(trials.files)
    else:
        network = SyncNet(model="tinyModel", nOut=8, device="cpu")
        good = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if kind == "model":
            network.loadParameters(str(path), strict=True)
            good = torch.load(intact / "x.model", weights_only=True)
            for name, tensor in network.state_dict().items():
                assert torch.equal(tensor, good[name])  # a damaged weight is not taken for a good one
        else:
            state = fit_state(str(path), read_state(str(path)), network)
            good = torch.load(intact / "x.state", weights_only=True)
            assert all(
                torch.equal(tensor, good["network"][name]) for name, tensor in state["network"].items()
            )


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind, intact, tmp_path, capfd):
    draws = random.Random(kind)
    data = (intact / f"x.{kind}").read_bytes()
    path = tmp_path / f"damaged.{kind}"
    refused = 0
    for case in range(-(-CASES // len(KINDS))):
        path.write_bytes(damage(data, draws))
        try:
            use(kind, path, intact)
        except (MediaError, CheckpointError, SkipClip) as error:
            refused += 1
            said = str(error)
            assert said and len(said) < 2000, case
            assert kind == "txt" or path.name in said, (case, said)
    assert refused > 5
    assert "Traceback" not in capfd.readouterr().err


def test_a_folder_of_damaged_clips_is_counted(intact, tmp_path, capsys):
    draws = random.Random(7)
    folders = {kind: tmp_path / kind / "id1/ref" for kind in ("mp4", "wav", "txt")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for k in range(24):
        for kind, folder in folders.items():
            shutil.copy(intact / f"x.{kind}", folder / f"{k:05d}.{kind}")
        if k % 2:
            kind = ("mp4", "wav", "txt")[k // 2 % 3]
            broken = folders[kind] / f"{k:05d}.{kind}"
            broken.write_bytes(broken.read_bytes()[: draws.randrange(30)])
    output = tmp_path / "list.txt"
    flags = [f"--{kind}_dir={tmp_path / kind}" for kind in folders]
    assert makeFileList.main([f"--output={output}", "--nWorkers=1", *flags]) == 0
    assert len(read_list(str(output))) == 12
    assert len(Path(f"{output}.skipped.txt").read_text().splitlines()) == 12
    assert "12" in capsys.readouterr().out


text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=60)


@given(text)
@settings(max_examples=300, deadline=None)
def test_any_list_line_is_read_or_refused(line):
    try:
        clip = parse_list_line(line, "list.txt, line 1")
    except MediaError as error:
        assert "list.txt, line 1" in str(error)
    else:
        assert parse_list_line(format_list_line(clip), "again") == clip


path_text = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=30
).filter(lambda path: path.strip() == path)


@given(path_text, path_text, st.integers(-99, 99), st.integers(1, 10**6))
@settings(max_examples=300, deadline=None)
def test_every_clip_survives_the_list(video, audio, offset, frames):
    clip = Clip(video, audio, offset, frames)
    assert parse_list_line(format_list_line(clip) + "\n", "list") == clip


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_trial_list_is_read_or_refused(tmp_path, data):
    path = tmp_path / "trials.txt"
    path.write_bytes(data)
    try:
        trials = read_trials(str(path))
    except MediaError as error:
        assert "trials.txt" in str(error)
    else:
        assert len(trials.first) == len(trials.second) and all(trials.files)


@given(st.lists(st.tuples(st.integers(0, 1), path_text, path_text), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_trial_survives_the_list(tmp_path, trials):
    path = tmp_path / "trials.txt"
    path.write_text("".join(f"{label}\t{a}\t{b}\n" for label, a, b in trials), encoding="utf-8")
    found = read_trials(str(path))
    pairs = zip(found.labels, found.first, found.second, strict=True)
    assert [(label, found.files[a], found.files[b]) for label, a, b in pairs] == trials
    assert np.unique(found.files).size == len(found.files)
