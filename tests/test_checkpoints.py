"""Checkpoints in the 2020 baseline's format: in and out unchanged, and nothing else gets in."""

import os
import pickle

import pytest
import torch
from oracleCase import load_case, oracle_state

from models.checkpoints import CheckpointError, epoch_checkpoints, read_checkpoint
from SyncNetDist import SyncNet


@pytest.fixture(scope="module")
def baseline() -> dict[str, torch.Tensor]:
    """A complete state dict with the reference's names and shapes."""
    case, arrays = load_case("train_stride2")
    state = oracle_state(case, arrays, case["shapes"])
    state["__S__.torchfb.spectrogram.window"] = torch.from_numpy(arrays["window"])
    state["__S__.torchfb.mel_scale.fb"] = torch.from_numpy(arrays["mel_fb"])
    return state


@pytest.fixture
def network() -> SyncNet:
    return SyncNet(device="cpu", temporal_stride=2)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_names_and_values_survive(baseline, network, tmp_path, capsys):
    assert len(baseline) == 126
    torch.save(baseline, tmp_path / "in.model")
    assert network.loadParameters(str(tmp_path / "in.model"), strict=True).lines() == []
    assert capsys.readouterr().out == ""
    network.saveParameters(str(tmp_path / "out.model"))
    assert same(torch.load(tmp_path / "out.model", weights_only=True), baseline)
    assert sorted(os.listdir(tmp_path)) == ["in.model", "out.model"]


@pytest.mark.parametrize(
    ("rename", "zipped"),
    [
        (lambda name: "module." + name, True),
        (lambda name: name.replace("__S__.", "__S__.module."), True),
        (lambda name: name, False),  # the format of PyTorch before 1.6
    ],
)
def test_other_forms_of_the_same(baseline, network, tmp_path, rename, zipped):
    path = tmp_path / "x.model"
    state = {rename(name): tensor for name, tensor in baseline.items()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert network.loadParameters(str(path), strict=True).lines() == []
    assert same(dict(network.state_dict()), baseline)


def test_what_does_not_fit(baseline, network, tmp_path, capsys):
    state = dict(baseline)
    del state["__S__.netfcspk.3.weight"], state["__L__.wI"]
    state["__S__.netfcaud.3.bias"] = torch.zeros(7)
    state["extra"] = torch.zeros(1)
    path = str(tmp_path / "x.model")
    torch.save(state, path)
    before = network.state_dict()["__S__.netfcspk.3.weight"].clone()
    network.loadParameters(path)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 4
    for words in ("netfcspk.3.weight is not in the checkpoint", "(7,)", "extra is not in the model", "wI"):
        assert words in printed
    assert torch.equal(network.state_dict()["__S__.netfcspk.3.weight"], before)
    assert torch.equal(network.state_dict()["__S__.netfcaud.0.bias"], baseline["__S__.netfcaud.0.bias"])
    with pytest.raises(CheckpointError, match=r"2 weights .*\n.*netfcspk.3.weight.*\n.*netfcaud.3.bias"):
        network.loadParameters(path, strict=True)


def test_what_evaluation_does_not_need_may_be_missing(baseline, network, tmp_path):
    skip = ("__L__", "__S__.torchfb", "num_batches_tracked")
    torch.save({k: v for k, v in baseline.items() if not any(s in k for s in skip)}, tmp_path / "x.model")
    network.loadParameters(str(tmp_path / "x.model"), strict=True)


class Trap:
    """Runs a command when unpickled."""

    def __init__(self, mark: str):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_runs_on_load(baseline, network, tmp_path, how):
    mark, path = tmp_path / "it-ran", tmp_path / "trap.model"
    state = baseline | {"trap": Trap(str(mark))}
    if how == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(CheckpointError, match="trap.model: not loaded"):
        network.loadParameters(str(path))
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + b"0" * 100])
def test_damaged_files(tmp_path, content):
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(CheckpointError, match="x.model: not loaded"):
        read_checkpoint(str(tmp_path / "x.model"))


def test_other_contents(tmp_path):
    torch.save([1, 2], tmp_path / "x.model")
    with pytest.raises(CheckpointError, match="not a state dict"):
        read_checkpoint(str(tmp_path / "x.model"))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(str(tmp_path / "none.model"))


def test_newest_checkpoint(tmp_path):
    for name in ("model000000002.model", "model000000010.model", "model000000003.model", "model0.model", "x"):
        (tmp_path / name).touch()
    assert list(epoch_checkpoints(str(tmp_path))) == [2, 3, 10]
    assert epoch_checkpoints(str(tmp_path / "none")) == {}


def test_a_failed_save_leaves_the_old_file(network, tmp_path, monkeypatch):
    path = tmp_path / "x.model"
    path.write_bytes(b"old")

    def full(_, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        network.saveParameters(str(path))
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.model"]
