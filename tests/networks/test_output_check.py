"""User-defined networks: the examples in docs, and errors for outputs of the wrong form."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tinyModel
import torch
from clipMaker import make_list
from torch import nn

import trainSyncNet
from inferSyncNet import load
from models import SyncNetModelFBank
from syncnet.networks.output_check import check_outputs
from syncnet.networks.settings import Settings
from syncnet.support.errors import UserError
from SyncNetDist import SyncNet

ROOT = Path(__file__).parents[2]


def examples() -> list[str]:
    section = (ROOT / "docs/options.md").read_text(encoding="utf-8").partition("## Add a network")[2]
    return re.findall(r"^```python\n(.*?)^```$", section.split("\n## ")[0], re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_in_docs_train_and_are_used(tmp_path, monkeypatch, capsys, number):
    assert len(examples()) == 2
    (tmp_path / f"example{number}.py").write_text(examples()[number])
    monkeypatch.syspath_prepend(str(tmp_path))
    clips = make_list(tmp_path, 2, 18)
    flags = (
        f"--model example{number} --nOut 8 --maxFrames 12 --temporal_stride 2 --nBatchSize 2 --max_epoch 1"
    )
    flags += f" --train_list {clips} --verify_list {clips} --device cpu --save_path {tmp_path}/run"
    assert trainSyncNet.main(flags.split()) == 0, capsys.readouterr().err
    path = f"{tmp_path}/run/model/model000000001.model"
    network = load(path, "cpu", model=f"example{number}")
    assert network.has_content and network.has_identity
    assert network.embed([str(tmp_path / "0.wav")], 2).shape == (1, 8)
    del sys.modules[f"example{number}"]


class Changed(tinyModel.SyncNetModel):
    """tinyModel with a function applied to the outputs of one stream."""

    def __init__(self, stream: str, change: Callable) -> None:
        super().__init__(8, 2)
        self.stream, self.change = stream, change

    def forward_aud(self, *args, **kwargs):
        found = super().forward_aud(*args, **kwargs)
        return self.change(found) if self.stream == "aud" else found

    def forward_vid(self, *args, **kwargs):
        found = super().forward_vid(*args, **kwargs)
        return self.change(found) if self.stream == "vid" else found


@pytest.mark.parametrize("stream", ["aud", "vid"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda x: (x[0][..., :-1], x[1]),
            r"returns content of shape (2, 8, 1), expected (2, 8, 2): clips, nOut",
        ),
        (lambda x: (x[0], x[1][:, :4]), r"returns identity of shape (2, 4, 2), expected (2, 8, 2)"),
        (lambda x: (x[0], x[1].mean(2)), r"returns identity of shape (2, 8), expected (2, 8, 2)"),
        (lambda x: (x[0].long(), x[1]), r"returns content of shape (2, 8, 2) int64"),
        (lambda x: (x[0], [1]), r"returns identity of a list of 1"),
        (lambda x: x[0], r"returns shape (2, 8, 2), expected a tuple of two, (content, identity)"),
        (lambda x: (*x, 1), r"returns a tuple of 3, expected a tuple of two"),
        (lambda _: None, r"returns a NoneType, expected a tuple of two"),
        (lambda x: (x[0], None), r"has content; "),
    ],
)
def test_outputs_of_the_wrong_form_are_refused_at_the_start(stream, change, words):
    settings = Settings("mine", 8, 30, 2)
    with pytest.raises(UserError) as refused:
        check_outputs(Changed(stream, change), settings, torch.device("cpu"))
    said = str(refused.value)
    assert words in said and "'mine'" in said and "docs/options.md" in said and len(said.splitlines()) == 1
    assert f"forward_{stream}" in said


def test_the_check_changes_nothing():
    network = tinyModel.SyncNetModel(8, 2)
    network.norm = nn.Sequential(network.norm, nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert check_outputs(network, Settings("mine", 8, 30, 2), torch.device("cpu")) == (True, True)
    assert torch.rand(1) == expected and network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class OwnFrontEnd(SyncNetModelFBank.SyncNetModel):
    def __init__(self, change: Callable, trunk: nn.Module | None = None) -> None:
        super().__init__(8, 1)
        self.change = change
        self.netcnnaud = trunk or self.netcnnaud

    def features(self, audio: torch.Tensor) -> torch.Tensor:
        return self.change(super().features(audio))


@pytest.mark.parametrize(
    ("change", "trunk", "words"),
    [
        (
            lambda x: x[:, 0],
            None,
            "features returns shape (2, 40, 24) for audio of (2, 4080), expected 4 dimensions",
        ),
        (
            lambda x: x.repeat(1, 1, 2, 1),
            None,
            "expected (2, 512, 1, 2)",
        ),
        (lambda x: x[..., :8], None, "the audio trunk fails on shape (2, 1, 40, 8) from features"),
        (lambda x: x, nn.Conv2d(1, 512, (40, 20), (1, 2)), "to shape (2, 512, 1, 3), expected"),
    ],
)
def test_a_mismatch_of_front_end_and_trunk(change, trunk, words):
    with pytest.raises(UserError) as refused:
        check_outputs(OwnFrontEnd(change, trunk), Settings("mine", 8, 30, 1), torch.device("cpu"))
    assert words in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_a_network_without_identity_is_recognized():
    network = SyncNet("models.SyncNetV2", nOut=16, device="cpu")
    assert (network.has_content, network.has_identity) == (True, False)
