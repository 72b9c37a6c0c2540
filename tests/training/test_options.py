"""The options beside the default: crop, weights of zero, disentanglement, distance; in training and after it."""

import csv
import math
import random
import re
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from clipMaker import make_list

import trainSyncNet
from models.SyncNetModelFBank import SyncNetModel
from syncnet.checkpoints.checkpoints import read_checkpoint
from syncnet.checkpoints.recorded_settings import trained_with
from syncnet.checkpoints.torch_files import CheckpointError
from syncnet.compute.device import choose_device, no_deterministic_way
from syncnet.networks.face_crop import crop_mouth
from syncnet.networks.losses import content_confusion, identity_confusion
from syncnet.support.errors import UserError
from syncnet.training.epoch import PARTS
from SyncNetDist import SyncNet

T = 8
TINY = {"model": "tinyModel", "nOut": 8, "maxFrames": T, "device": "cpu", "learning_rate": 0.01}


def batch(clips: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (clips, T, 224, 224, 3), generator=draws, dtype=torch.uint8)
    return frames.permute(0, 4, 1, 2, 3), 1000 * torch.randn(clips, T * 640 + 240, generator=draws)


class Batches:
    """The same batch twice, as a loader."""

    batch_size, nFiles = 3, 6

    def __iter__(self):
        return iter([batch(), batch()])


# --- the mouth's box


def hand_made_frames() -> np.ndarray:
    """(2, 3, 224, 224, 3): grey frames whose box, and nothing else, has one color per clip, frame and channel."""
    frames = np.full((2, 3, 224, 224, 3), 99, np.uint8)
    for clip in range(2):
        for time in range(3):
            frames[clip, time, 78:190, 56:168] = np.array([0, 10, 20]) + 100 * clip + 30 * time
    return frames


@pytest.mark.parametrize("layout", ["frames", "planes", "float"])
def test_the_box_of_a_hand_made_frame(layout):
    frames = hand_made_frames()
    video = torch.from_numpy(frames).permute(0, 4, 1, 2, 3)
    video = {"frames": video, "planes": video.contiguous(), "float": video.float()}[layout]
    found = crop_mouth(video)
    assert found.shape == video.shape and found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    colours = torch.from_numpy(frames[:, :, 100, 100]).float().permute(0, 2, 1)
    assert torch.equal(found, colours[..., None, None].expand_as(found))


def test_a_pixel_of_the_box_grows_to_two_by_two():
    frame = np.zeros((1, 1, 224, 224, 3), np.uint8)
    frame[0, 0, 78 + 10, 56 + 20] = 160
    video = torch.from_numpy(frame).permute(0, 4, 1, 2, 3)
    spread = torch.tensor([0.25, 0.75, 0.75, 0.25])
    expected = torch.zeros(224, 224)
    expected[19:23, 39:43] = 160 * spread[:, None] * spread
    torch.testing.assert_close(crop_mouth(video)[0, 1, 0], expected)
    assert crop_mouth(video, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_network_sees_the_mouth_alone(precision):
    torch.manual_seed(0)
    network = SyncNetModel(nOut=8).eval()
    video = batch(1)[0][:, :, :5]
    inside, outside = video.clone(), video.clone()
    inside[..., 78:190, 56:168] = 0
    outside[..., :78, :] = 0
    outside[..., :56] = 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        face = network.forward_vid(video)[0]
        network.crop = "mouth"
        mouth = network.forward_vid(video)[0]
        assert torch.equal(network.forward_vid(outside)[0], mouth)
        assert not torch.equal(network.forward_vid(inside)[0], mouth)
    assert not torch.equal(face, mouth)


def test_a_checkpoint_is_bound_to_its_crop(tmp_path):
    path = str(tmp_path / "x.model")
    mouth = SyncNet(**TINY, crop="mouth")
    mouth.saveParameters(path)
    assert trained_with(read_checkpoint(path))["crop"] == "mouth"
    assert all(type(tensor) is torch.Tensor for tensor in torch.load(path, weights_only=True).values())
    SyncNet(**TINY, crop="mouth").loadParameters(path, strict=True)
    face = SyncNet(**TINY)
    before = {name: tensor.clone() for name, tensor in face.state_dict().items()}
    with pytest.raises(
        CheckpointError, match="trained with --crop mouth, this is --crop face; use --crop mouth"
    ):
        face.loadParameters(path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in face.state_dict().items())
    # A state dict that does not say, as those of the original, is taken as it is.
    torch.save(dict(mouth.state_dict()), path)
    face.loadParameters(path, strict=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": "nose"}, "crop 'nose', expected one of face, mouth"),
        ({"distance": "manhattan"}, "distance 'manhattan', expected one of cosine, euclidean"),
    ],
)
def test_unknown_choices_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SyncNet(**TINY, **settings)


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("gpu", 1, "expected cpu, cuda, or cuda:1"),
        ("cuda", 0, "finds no CUDA GPU; use cpu"),
        ("cuda:2", 2, "are cuda:0 to cuda:1"),
        ("cuda", 2, None),
        ("cuda:1", 2, None),
        ("cpu", 0, None),
        ("meta", 0, "device meta: this PyTorch cannot compute there"),
        ("ipu", 0, "device ipu: this PyTorch cannot compute there"),
    ],
)
def test_missing_devices_are_reported(monkeypatch, device, gpus, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if message is None:
        assert choose_device(device) == torch.device(device)
    else:
        with pytest.raises(UserError, match=message):
            choose_device(device)


# --- weights of the losses

HEADS = {"content": ("netfcaud", "netfclip"), "identity": ("netfcspk", "netfcface")}


@pytest.mark.parametrize("off", ["content", "identity"])
def test_a_loss_of_weight_zero_is_not_computed_and_changes_no_weights(off):
    torch.manual_seed(0)
    network = SyncNet(nOut=8, maxFrames=T, temporal_stride=2, device="cpu", learning_rate=0.01)
    calls = []
    for name, module in network.__S__.named_children():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for parameter in network.parameters():  # as after training with both
        network.__optimizer__.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    weights = {"alpC": float(off != "content"), "alpI": float(off != "identity")}
    network.train()
    total, row = network(*batch(2), **weights)
    total.backward()
    network.__optimizer__.step()

    on = "identity" if off == "content" else "content"
    assert not set(calls) & set(HEADS[off]) and set(calls) >= set(HEADS[on])
    figures = dict(zip(PARTS, row.tolist(), strict=True))
    assert math.isnan(figures[f"{off}_loss"]) and math.isnan(figures[f"{off}_top1"])
    assert figures["loss"] == figures[f"{on}_loss"]
    scales = {"content": ("__L__.wC", "__L__.bC"), "identity": ("__L__.wI", "__L__.bI")}
    for name, tensor in network.state_dict().items():
        part = name.split(".")[1]
        if part in HEADS[off] or name in scales[off]:
            assert torch.equal(tensor, before[name]), name
        elif name.endswith("weight"):
            assert not torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("later", ["alpC", "alpI"])
def test_a_loss_may_be_switched_on_between_epochs(later):
    """What begins later begins without momentum, as in the first step of all."""
    network = SyncNet(**TINY)
    network.train_network(Batches(), **{later: 0.0})
    scale = network.__L__.wC if later == "alpC" else network.__L__.wI
    before, momenta = scale.item(), network.__optimizer__.state
    assert "momentum_buffer" not in momenta.get(scale, {})
    trained = [
        parameter for parameter in network.parameters() if "momentum_buffer" in momenta.get(parameter, {})
    ]
    network.update(network(*batch(), 1.0, 1.0)[0])
    assert before - scale.item() == pytest.approx(0.01 * momenta[scale]["momentum_buffer"].item(), rel=1e-3)
    assert trained and all("momentum_buffer" in momenta[parameter] for parameter in network.parameters())


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_loss_is_the_weighted_sum_of_its_parts(distance, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(random, "randint", lambda *_: 2)
    network = SyncNet(**TINY, distance=distance)
    content_aud, identity_aud, content_vid, identity_vid = network.embeddings(*batch())
    scale = network.__L__
    confusions = {
        "identity": content_confusion(identity_vid, identity_aud, scale.wC, scale.bC, distance).item(),
        "content": identity_confusion(
            content_vid[:, :, 2], content_aud.mean(2), scale.wI, scale.bI, distance
        ).item(),
    }
    for alpC, alpI, kinds in ((2, 3, ("content", "identity")), (2, 0, ("content",)), (0, 3, ("identity",))):
        figures = dict(zip(PARTS, network(*batch(), alpC, alpI, 0.5)[1].tolist(), strict=True))
        confusion = sum(confusions[kind] for kind in kinds)
        assert figures["disentanglement_loss"] == pytest.approx(confusion, rel=1e-5)
        parts = (alpC and alpC * figures["content_loss"]) + (alpI and alpI * figures["identity_loss"])
        assert figures["loss"] == pytest.approx(parts + 0.5 * confusion, rel=1e-5)
    with pytest.raises(ValueError, match="weight 0"):
        network(*batch(), 0, 0, 1)


def test_validation_changes_nothing_and_keeps_no_graph():
    network = SyncNet(**TINY)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    graphs = []
    network.register_forward_hook(lambda *hooked: graphs.append(hooked[2][0].requires_grad))
    network.run_epoch(Batches(), evalmode=True)
    assert graphs == [False, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# --- the command


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 4, 14)


def run(capsys, clip_list: Path, save_path: Path, *more) -> tuple[int, str, str]:
    flags = f"--maxFrames {T} --nBatchSize 2 --nOut 8 --model tinyModel --device cpu --lr 0.01".split()
    lists = ("--train_list", clip_list, "--verify_list", clip_list, "--save_path", save_path)
    status = trainSyncNet.main([str(x) for x in (*flags, *lists, *more)])
    said = capsys.readouterr()
    return status, said.out, said.err


OPTIONS = {
    "identity only": ("--alphaC", 0),
    "disentangled": ("--alphaD", 0.5),
    "all": ("--crop", "mouth", "--alphaI", 0, "--alphaD", 0.5, "--distance", "euclidean"),
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", OPTIONS)
def test_a_stopped_run_resumes_exactly(name, clip_list, tmp_path, capsys, stopped_at):
    """Two epochs in one go, and with a stop after the first step of the second, end alike."""
    flags = (*OPTIONS[name], "--save_steps", 1)
    assert run(capsys, clip_list, tmp_path / "whole", *flags, "--max_epoch", 2)[0] == 0

    with stopped_at(6):  # two steps of training, two of validation, one of training
        assert run(capsys, clip_list, tmp_path / "halves", *flags, "--max_epoch", 2)[0] == 1
    status, out, err = run(capsys, clip_list, tmp_path / "halves", *flags, "--max_epoch", 2)
    assert status == 0 and "Resuming in epoch 2 after step 1" in out, err

    ends = [
        torch.load(tmp_path / folder / "model/model000000002.model", weights_only=True)
        for folder in ("whole", "halves")
    ]
    assert all(torch.equal(tensor, ends[1][key]) for key, tensor in ends[0].items())
    logs = []
    for folder in ("whole", "halves"):
        with open(tmp_path / folder / "result/metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        logs.append([{name: row[name] for name in row if re.match("train_|val_", name)} for row in rows])
    assert logs[0] == logs[1]


def test_a_checkpoint_of_another_crop_is_refused(clip_list, tmp_path, capsys):
    assert run(capsys, clip_list, tmp_path / "a", "--crop", "mouth", "--max_epoch", 1)[0] == 0
    model = tmp_path / "a/model/model000000001.model"
    for more in (("--max_epoch", 1), ("--eval",)):
        given = ("--initial_model", model, "--crop", "face")
        status, _, err = run(capsys, clip_list, tmp_path / "b", *given, *more)
        assert status == 1 and "was trained with --crop mouth" in err.splitlines()[-1]


def test_a_run_that_would_train_nothing_is_refused():
    with pytest.raises(SystemExit):
        trainSyncNet.parse_args(["--alphaC", "0", "--alphaI", "0", "--alphaD", "1"])


def test_a_network_without_identity_is_refused_before_training(tmp_path, capsys):
    """As syncnet_v2.model, named by --initial_model, is."""
    clips = make_list(tmp_path, 3, 20)
    flags = f"--train_list {clips} --verify_list {clips} --maxFrames 8 --nBatchSize 2 --device cpu --nOut 8"
    path = str(tmp_path / "syncnet_v2.model")
    SyncNet(model="models.SyncNetV2", nOut=8, maxFrames=8, device="cpu").saveParameters(path)
    flags += f" --initial_model {path} --save_path {tmp_path}/run"
    assert trainSyncNet.main(flags.split()) == 1
    said = capsys.readouterr()
    assert "models.SyncNetV2 has no identity heads, and --alphaI 1 trains them. Use --alphaI 0" in said.err
    assert "epoch 1" not in said.out and not (tmp_path / "run").exists()


def test_deterministic_computing(tmp_path):
    """In its own process, which it changes permanently."""
    clips = make_list(tmp_path, 3, 20)
    code = "import os, sys, torch, trainSyncNet; os.environ.pop('CUBLAS_WORKSPACE_CONFIG', None); "
    code += "status = trainSyncNet.main(); "
    code += "print(torch.are_deterministic_algorithms_enabled(), os.environ['CUBLAS_WORKSPACE_CONFIG']); "
    code += "sys.exit(status)"
    (tmp_path / "program.py").write_text(code)
    flags = f"--train_list {clips} --verify_list {clips} --maxFrames 8 --nBatchSize 2 --device cpu --nOut 8"
    flags += f" --model tinyModel --max_epoch 1 --save_path {tmp_path}/run --deterministic --crop mouth"
    done = processes.run(tmp_path / "program.py", *flags.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("True :4096:8\n") and "IT 1," in done.stdout
    error = RuntimeError(
        "x does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'"
    )
    assert no_deterministic_way(error) and not no_deterministic_way(RuntimeError("x"))
