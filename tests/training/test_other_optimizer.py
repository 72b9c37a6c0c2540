"""AdamW with warm-up, made by exactly the edits that docs/options.md shows, in a copy of the program."""

import re
import shutil
import subprocess
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


@pytest.mark.parametrize("ranks", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_is_the_same_bit_by_bit(edited, clip_list, tmp_path, ranks):
    def run(save_path: Path, **environment: str) -> subprocess.CompletedProcess:
        command = [*flags(clip_list, save_path), "--max_epoch", 2]
        environment["PYTHONPATH"] = f"{edited}:{PROJECT}/tests/makers"
        return processes.run(edited / "trainSyncNet.py", *command, ranks=ranks, **environment)

    whole = run(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    broken = run(tmp_path / "run", FAIL_IN="0:4")
    assert broken.returncode == 1 and "broken on purpose" in broken.stderr
    resumed = run(tmp_path / "run")
    assert resumed.returncode == 0 and "Resuming in epoch 2 after step 1" in resumed.stdout, resumed.stderr
    whole, resumed = (
        torch.load(tmp_path / name / "training_state.pt", weights_only=True) for name in ("whole", "run")
    )
    assert whole["settings"]["optimizer"] == "AdamW" and whole["settings"]["scheduler"] == "LinearLR"
    assert whole["scheduler"] == resumed["scheduler"] and whole["scheduler"]["last_epoch"] == 4
    assert whole["optimizer"]["param_groups"] == resumed["optimizer"]["param_groups"]
    rate = whole["optimizer"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(0.01 * (0.01 + 0.99 * 4 / 1000) * 0.95**2)
    for number, state in whole["optimizer"]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, resumed["optimizer"]["state"][number][name])
    assert all(torch.equal(tensor, resumed["network"][name]) for name, tensor in whole["network"].items())
