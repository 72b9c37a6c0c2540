"""AdamW with warm-up, made by exactly the edits that docs/options.md shows, in a copy of the program."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import processes
import pytest
import torch
from clipMaker import make_list
from test_distributed import flags

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def edited(tmp_path_factory) -> Path:
    """The program with the lines of docs/options.md changed."""
    copy = tmp_path_factory.mktemp("program")
    for script in PROJECT.glob("*.py"):
        shutil.copy(script, copy)
    for room in ("syncnet", "models"):
        shutil.copytree(PROJECT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    (shown,) = re.findall(
        r"```diff\n(.*?)```", (PROJECT / "docs/options.md").read_text(encoding="utf-8"), re.S
    )
    before, after = (
        "".join(line[1:] for line in shown.splitlines(keepends=True) if line[0] == sign) for sign in "-+"
    )
    source = (copy / "SyncNetDist.py").read_text()
    assert source.count(before) == 1
    (copy / "SyncNetDist.py").write_text(source.replace(before, after))
    return copy


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 13, 12)


@pytest.fixture
def run(edited, clip_list) -> Callable[..., subprocess.CompletedProcess]:
    def start(save_path: Path, **settings) -> subprocess.CompletedProcess:
        paths = f"{edited}:{PROJECT}/tests/makers"
        command = [edited / "trainSyncNet.py", *flags(clip_list, save_path)]
        return processes.run(*command, PYTHONPATH=paths, **settings)

    return start


def state_of(folder: Path) -> dict:
    return torch.load(folder / "training_state.pt", weights_only=True)


def test_the_edits_of_docs_train_with_adamw_and_warm_up(run, tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    state = state_of(tmp_path)
    assert state["settings"]["optimizer"] == "AdamW" and state["settings"]["scheduler"] == "LinearLR"
    assert state["scheduler"]["last_epoch"] == 4
    rate = state["optimizer"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(0.01 * (0.01 + 0.99 * 4 / 1000) * 0.95**2)


@pytest.mark.slow
def test_two_processes_resume_bit_by_bit(run, tmp_path):
    assert run(tmp_path / "whole", ranks=2).returncode == 0
    broken = run(tmp_path / "run", ranks=2, FAIL_IN="0:4")
    assert broken.returncode == 1 and "broken on purpose" in broken.stderr
    resumed = run(tmp_path / "run", ranks=2)
    assert resumed.returncode == 0 and "Resuming in epoch 2 after step 1" in resumed.stdout, resumed.stderr
    whole, resumed = (state_of(tmp_path / name) for name in ("whole", "run"))
    assert whole["scheduler"] == resumed["scheduler"]
    assert whole["optimizer"]["param_groups"] == resumed["optimizer"]["param_groups"]
    for number, state in whole["optimizer"]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, resumed["optimizer"]["state"][number][name])
    assert all(torch.equal(tensor, resumed["network"][name]) for name, tensor in whole["network"].items())
