"""inferSyncNet.py export: ONNX files that give what PyTorch gives, for any number of clips and any length."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import inferSyncNet
from models.SyncNetV2 import SyncNetModel as PublishedNetwork
from syncnet.inference import onnx_file as exporting
from syncnet.inference.onnx_file import CHECKED, example, export
from syncnet.networks.face_crop import crop_mouth, enlarge, mouth_box
from syncnet.networks.losses import unit
from syncnet.support.errors import UserError
from syncnet.support.files import file_hash
from SyncNetDist import SyncNet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

STREAMS = ("voice", "face")
HEADS = ("identity", "content")
# Runs a file with NumPy and onnxruntime alone: no torch, nothing of this project.
ALONE = """
import sys
import numpy, onnxruntime
batch, = numpy.load(sys.argv[2]).values()
session = onnxruntime.InferenceSession(sys.argv[1])
numpy.save(sys.argv[3], session.run(None, {session.get_inputs()[0].name: batch})[0])
assert "torch" not in sys.modules
"""


def make(model: str, stride: int = 1, crop: str = "face", nOut: int = 32) -> SyncNet:
    """A network whose running statistics are those of a real one: neither 0 nor 1."""
    torch.manual_seed(0)
    network = SyncNet(model=model, nOut=nOut, temporal_stride=stride, crop=crop, device="cpu")
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return network


def expected(network: SyncNet, stream: str, head: str, batch: torch.Tensor) -> np.ndarray:
    """By the network's own forward."""
    network.eval()
    with torch.inference_mode():
        if stream == "voice":
            content, identity = network.__S__.forward_aud(batch)
        else:
            content, identity = network.__S__.forward_vid(batch.permute(0, 4, 1, 2, 3))
        if head == "identity":
            return unit(identity.mean(2)).numpy()
        raw = isinstance(network.__S__, PublishedNetwork)
        return (content if raw else unit(content)).transpose(1, 2).numpy()


def compute(path: Path, batch: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]


def check(network: SyncNet, stream: str, head: str, path: Path, frames: tuple[int, ...]) -> None:
    difference = export(network, stream, head, str(path))
    assert difference < 1e-4
    for clips, length in zip((2, 1), frames, strict=True):
        batch = example(stream, clips, length)
        found = compute(path, batch)
        assert found == pytest.approx(expected(network, stream, head, batch), abs=1e-4)


@pytest.mark.parametrize(
    ("stream", "head", "stride", "crop"),
    [
        ("face", "identity", 1, "mouth"),
        ("face", "content", 2, "face"),
    ],
)
def test_streams_and_heads(tmp_path, stream, head, stride, crop):
    check(make("tinyModel", stride, crop, 8), stream, head, tmp_path / "x.onnx", (20, 37))


def test_the_front_end_is_inside(tmp_path):
    """Log-mel bands of any length, and of silence, before a trunk of a single layer."""
    network = make("models.SyncNetModelFBank", 2, nOut=8)
    network.__S__.netcnnaud = nn.Conv2d(1, 512, (40, 20), (1, 8))
    check(network, "voice", "content", tmp_path / "x.onnx", (20, 50))
    for silence in (slice(None), slice(0, 3000)):  # all of it, and some of it
        batch = example("voice", 1, 20)
        batch[:, silence] = 0
        reference = expected(network, "voice", "content", batch)
        assert compute(tmp_path / "x.onnx", batch) == pytest.approx(reference, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("model", ["FBank", "MFCC"])
def test_real_networks(tmp_path, model, stride, head, stream):
    check(make(f"models.SyncNetModel{model}", stride), stream, head, tmp_path / "x.onnx", (20, 50))


@pytest.mark.slow
def test_a_real_network_of_the_mouth(tmp_path):
    network = make("models.SyncNetModelFBank", 1, "mouth")
    check(network, "face", "identity", tmp_path / "x.onnx", (20, 50))


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS)
def test_the_published_network_has_content_alone(tmp_path, stream):
    network = make("models.SyncNetV2")
    check(network, stream, "content", tmp_path / "x.onnx", (20, 50))


def test_mouths_are_cropped_as_the_network_crops_them():
    video = example("face", 2, 5).permute(0, 4, 1, 2, 3)
    mouths = mouth_box(video)
    scaled = enlarge(mouths.flatten(0, 1), 224).unflatten(0, mouths.shape[:2]).transpose(1, 2)
    assert torch.equal(scaled, crop_mouth(video))


def test_command(tmp_path, capsys):
    network = make("tinyModel", 2, nOut=8)
    path = tmp_path / "x.model"
    network.saveParameters(str(path))
    flags = ["--model", "tinyModel", "--initial_model", path, "--stream", "voice", "--head", "identity"]
    given = [str(flag) for flag in ("export", *flags, "--output", tmp_path / "voice.onnx")]
    assert inferSyncNet.main(given) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    assert f"{tmp_path}/voice.onnx: waveform to voice identity embeddings of 8; largest difference" in out

    model = onnx.load(tmp_path / "voice.onnx")
    onnx.checker.check_model(model)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["checkpoint_sha256"] == file_hash(str(path))
    assert (about["stream"], about["head"]) == ("voice", "identity")
    assert json.loads(about["settings"])["temporal_stride"] == 2

    batch = example("voice", 3, 23)
    np.savez(tmp_path / "batch.npz", batch=batch.numpy())
    (tmp_path / "alone").mkdir()
    files = [str(tmp_path / name) for name in ("voice.onnx", "batch.npz", "found.npy")]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *files], check=True, cwd=tmp_path / "alone")
    reference = expected(network, "voice", "identity", batch)
    assert np.load(tmp_path / "found.npy") == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    flags = ["--initial_model", "x", "--stream", "face", "--head", "content", "--output", str(tmp_path / "x")]
    assert inferSyncNet.main(["export", *flags]) == 1
    assert capsys.readouterr().err == (
        f"inferSyncNet.py: export: needs {missing}; install with: pip install onnx onnxscript onnxruntime\n"
    )


class Unexportable(nn.Module):
    def forward_aud(self, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moments = audio.unfold(1, 640, 640).mean(2)[:, None].repeat(1, 8, 1)
        if moments.sum() > 0:
            moments = moments + 1
        return moments, moments


def test_a_network_that_cannot_be_exported_is_an_error(tmp_path):
    network = make("tinyModel", nOut=8)
    network.__S__ = Unexportable()
    with pytest.raises(UserError, match="PyTorch cannot export the voice stream of this network"):
        export(network, "voice", "content", str(tmp_path / "x.onnx"))
    assert list(tmp_path.iterdir()) == []


def test_examples_are_of_both_kinds_and_lengths():
    for clips, frames in CHECKED:
        sound, pictures = example("voice", clips, frames), example("face", clips, frames)
        assert sound.shape == (clips, frames * 640 + 240) and 1000 < sound.abs().max() < 40000
        assert (sound == 0).any() and torch.equal(sound, example("voice", clips, frames))
        assert pictures.shape == (clips, frames, 224, 224, 3) and pictures.dtype == torch.uint8


class Session:
    """An onnxruntime session that gives what PyTorch gives, but for one number of one of its batches."""

    def __init__(self, network: SyncNet, broken: int, error: float) -> None:
        self.network, self.broken, self.number, self.error = network, broken, 0, error

    def run(self, _outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        (batch,) = inputs.values()
        found = expected(self.network, "voice", "identity", torch.from_numpy(batch)).copy()
        found[0, 0] += self.error * (self.number == self.broken)
        self.number += 1
        return [found]


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize(("error", "written"), [(np.nan, False), (-0.0011, False), (0.0009, True)])
def test_a_file_that_differs_from_pytorch_is_not_written(tmp_path, monkeypatch, batch, error, written):
    network = make("tinyModel", nOut=8)
    runtime = SimpleNamespace(
        SessionOptions=SimpleNamespace, InferenceSession=lambda *_, **__: Session(network, batch, error)
    )
    monkeypatch.setattr(exporting, "import_packages", lambda: runtime)
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: b"onnx")
    if written:
        assert export(network, "voice", "identity", str(tmp_path / "x")) == pytest.approx(error, rel=0.01)
    else:
        with pytest.raises(UserError, match=f"x: not written, .* by up to {abs(error):.2g}, more than 0.001"):
            export(network, "voice", "identity", str(tmp_path / "x"))
    assert (tmp_path / "x").exists() == written
