"""inferSyncNet.py average: the mean of checkpoints of the same network and settings."""

from pathlib import Path

import pytest
import torch
from oracleCase import load_case, oracle_state

import inferSyncNet
from models.SyncNetV2 import SyncNetModel as PublishedNetwork
from syncnet.checkpoints.averaging import average_checkpoints
from syncnet.checkpoints.checkpoints import read_checkpoint
from syncnet.checkpoints.recorded_settings import recorded_settings, trained_with
from syncnet.checkpoints.torch_files import CheckpointError
from SyncNetDist import SyncNet

NETWORK = {"model": "tinyModel", "nOut": 8, "maxFrames": 8, "temporal_stride": 2, "device": "cpu"}


def make(path: Path, seed: int, **settings: object) -> SyncNet:
    torch.manual_seed(seed)
    network = SyncNet(**{**NETWORK, **settings})
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor))
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(10 - seed)
    network.saveParameters(str(path))
    return network


def run(capsys, *args: object) -> tuple[int, str, str]:
    status = inferSyncNet.main(["average", *map(str, args)])
    return (status, *capsys.readouterr())


def test_the_mean_of_checkpoints(tmp_path, capsys):
    states = [make(tmp_path / f"{k}.model", k).state_dict() for k in range(3)]
    paths = [tmp_path / f"{k}.model" for k in range(3)]
    status, out, err = run(capsys, *paths, "--output", tmp_path / "mean.model")
    assert (status, out, err) == (0, f"{tmp_path}/mean.model: the mean of 3 checkpoints\n", "")
    mean = read_checkpoint(str(tmp_path / "mean.model"))
    assert list(mean) == list(states[0]) and trained_with(mean) == trained_with(
        read_checkpoint(str(paths[0]))
    )
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            expected = torch.stack([state[name] for state in states]).double().mean(0).float()
            assert torch.equal(tensor, expected), name
        else:
            assert tensor == 10, name
    network = SyncNet(**NETWORK)
    assert network.loadParameters(str(tmp_path / "mean.model"), strict=True).lines() == []

    (tmp_path / "copy.model").write_bytes(paths[0].read_bytes())
    assert run(capsys, paths[0], tmp_path / "copy.model", "--output", tmp_path / "same.model")[0] == 0
    same = read_checkpoint(str(tmp_path / "same.model"))
    assert all(torch.equal(same[name], tensor) for name, tensor in states[0].items())


def test_names_of_the_baseline_without_wrappers(tmp_path, capsys):
    """A state dict as the 2020 program wrote it, without recorded settings, in three wrappers."""
    case, arrays = load_case("train_stride2")
    state = oracle_state(case, arrays, case["shapes"])
    state["__S__.torchfb.spectrogram.window"] = torch.from_numpy(arrays["window"])
    state["__S__.torchfb.mel_scale.fb"] = torch.from_numpy(arrays["mel_fb"])
    torch.save(state, tmp_path / "a.model")
    torch.save({"state_dict": {f"module.{name}": t for name, t in state.items()}}, tmp_path / "b.model")
    half = {name: t.half() if "netfc" in name and t.is_floating_point() else t for name, t in state.items()}
    torch.save(half, tmp_path / "c.model")
    status, *_ = run(capsys, *(tmp_path / f"{n}.model" for n in "abc"), "--output", tmp_path / "mean.model")
    mean = torch.load(tmp_path / "mean.model", weights_only=True)
    assert status == 0 and list(mean) == list(state) and len(mean) == 126
    assert recorded_settings(mean) is None
    for name, tensor in state.items():
        assert mean[name].dtype == tensor.dtype
        assert torch.allclose(mean[name], tensor, rtol=1e-3, atol=1e-6), name
        assert "netfc" in name or torch.equal(mean[name], tensor), name


def test_the_published_lip_sync_network(tmp_path, capsys):
    for k in range(2):
        torch.manual_seed(k)
        torch.save(PublishedNetwork(nOut=8).state_dict(), tmp_path / f"{k}.model")
    assert (
        run(capsys, tmp_path / "0.model", tmp_path / "1.model", "--output", tmp_path / "mean.model")[0] == 0
    )
    network = SyncNet(model="models.SyncNetV2", nOut=8, device="cpu")
    network.loadParameters(str(tmp_path / "mean.model"), strict=True)
    weights = [torch.load(tmp_path / f"{k}.model", weights_only=True)["netfcaud.0.weight"] for k in range(2)]
    assert torch.allclose(network.__S__.netfcaud[0].weight, (weights[0] + weights[1]) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"temporal_stride": 1}, "b.model: was trained with temporal_stride 1 ({a}: 2)"),
        ({"maxFrames": 9, "distance": "euclidean"}, "maxFrames 9 ({a}: 8), distance euclidean ({a}: cosine)"),
        ({"nOut": 16}, "nOut 16 ({a}: 8)"),
        ({"crop": "mouth"}, "crop mouth ({a}: face)"),
    ],
)
def test_other_settings_are_refused(tmp_path, capsys, other, words):
    make(tmp_path / "a.model", 0)
    make(tmp_path / "b.model", 1, **other)
    status, out, err = run(
        capsys, tmp_path / "a.model", tmp_path / "b.model", "--output", tmp_path / "m.model"
    )
    assert status == 1 and out == "" and err.count("\n") == 1
    assert words.format(a=tmp_path / "a.model") in err and not (tmp_path / "m.model").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("__S__.norm.bias"), "has no __S__.norm.bias"),
        (lambda s: s.update({"__S__.more": torch.ones(1)}), "has __S__.more, which is not in {a}"),
        (
            lambda s: s.update({"__S__.norm.bias": torch.ones(3)}),
            "__S__.norm.bias is floating point (3,), in {a} floating point (8,)",
        ),
        (
            lambda s: s["__S__.norm.bias"].fill_(float("nan")),
            "__S__.norm.bias has values that are not finite",
        ),
        (lambda s: s.update({"__S__.norm.bias": torch.ones(8, dtype=torch.cfloat)}), "is complex"),
        (lambda s: s["__S__.table"].fill_(4), "__S__.table differs from {a}, and integers have no mean"),
    ],
)
def test_other_networks_are_refused(tmp_path, change, words):
    for name in "ab":
        state = dict(make(tmp_path / "x.model", 0).state_dict())
        state["__S__.table"] = torch.arange(3)
        if name == "b":
            change(state)
        torch.save(state, tmp_path / f"{name}.model")
    a, b = (str(tmp_path / f"{name}.model") for name in "ab")
    with pytest.raises(CheckpointError) as refused:
        average_checkpoints([a, b])
    assert str(refused.value).startswith(b) and words.format(a=a) in str(refused.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [(torch.full((8,), torch.nan), "not finite"), (torch.ones(8, dtype=torch.cfloat), "is complex")],
)
def test_the_first_checkpoint_is_checked_too(tmp_path, value, words):
    good, bad = tmp_path / "good.model", tmp_path / "bad.model"
    state = dict(make(good, 0).state_dict())
    torch.save(state, good)
    torch.save(state | {"__S__.norm.bias": value}, bad)
    with pytest.raises(CheckpointError, match=f"^{bad}: __S__.norm.bias .*{words}"):
        average_checkpoints([str(bad), str(good)])


@pytest.mark.parametrize(("missing", "words"), [(3, "has no c$"), (4, "has no c and 1 more")])
def test_the_first_three_differences_are_listed(tmp_path, missing, words):
    names = "abcd"[:missing]
    torch.save({name: torch.ones(1) for name in ("x", *names)}, tmp_path / "a.model")
    torch.save({"x": torch.ones(1)}, tmp_path / "b.model")
    with pytest.raises(CheckpointError, match=words.replace("no c", "no __S__.c")):
        average_checkpoints([str(tmp_path / "a.model"), str(tmp_path / "b.model")])


def test_the_mean_has_the_names_and_the_larger_number_type(tmp_path):
    """Of the network alone: the names of a complete checkpoint. 1 and 1 + 2^-12 differ in float32 only."""
    torch.save({"norm.bias": torch.tensor([1.0]).half()}, tmp_path / "a.model")
    torch.save({"norm.bias": torch.tensor([1 + 2**-12])}, tmp_path / "b.model")
    for order in ("ab", "ba"):
        mean, settings = average_checkpoints([str(tmp_path / f"{name}.model") for name in order])
        assert list(mean) == ["__S__.norm.bias"] and settings == {}
        assert mean["__S__.norm.bias"].tolist() == [1 + 2**-13]


def test_files_that_cannot_be_averaged_are_refused(tmp_path, capsys):
    a, b, out = (tmp_path / name for name in ("a.model", "b.model", "mean.model"))
    state = make(a, 0).state_dict()
    torch.save(dict(state), b)  # as another program saves it: without settings
    (tmp_path / "link.model").symlink_to(a)
    before = a.read_bytes()
    for given, words in (
        ((a, b, "--output", out), "b.model: does not record its settings"),
        ((b, a, "--output", out), "b.model: does not record its settings"),
        ((a, tmp_path / "link.model", "--output", out), "link.model: is given twice"),
        ((a, b, "--output", a), "a.model: is one of the checkpoints"),
        ((a, tmp_path / "none", "--output", out), "none: no such checkpoint"),
        ((a, b, "--output", tmp_path), "is a folder"),
    ):
        status, said, err = run(capsys, *given)
        assert status == 1 and said == "" and words in err, err
    assert a.read_bytes() == before and not out.exists()
    with pytest.raises(SystemExit):
        run(capsys, a, "--output", out)
    assert "needs two checkpoints or more" in capsys.readouterr().err
