"""Checkpoints in the 2020 baseline's format are read and written unchanged; anything else is refused."""

import argparse
import builtins
import datetime
import enum
import errno
import functools
import io
import os
import pickle
import random
import struct
import sys
import zipfile
from collections import OrderedDict, defaultdict, deque
from pathlib import Path

import numpy as np
import pytest
import torch
from oracleCase import load_case, oracle_state

import trainSyncNet
from syncnet.checkpoints.averaging import average_checkpoints
from syncnet.checkpoints.by_name import load_model
from syncnet.checkpoints.checkpoints import choose_settings, epoch_checkpoints, read_checkpoint
from syncnet.checkpoints.recorded_settings import trained_with
from syncnet.checkpoints.torch_files import CheckpointError, UnreadableCheckpoint
from syncnet.networks.settings import Settings, differences
from syncnet.support.errors import UserError
from syncnet.training.state import ResumeState, save_state
from SyncNetDist import SyncNet

TINY = {"model": "tinyModel", "nOut": 8, "maxFrames": 8, "temporal_stride": 2, "device": "cpu"}


@pytest.fixture
def tiny() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet(**TINY)


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


def test_a_checkpoint_of_2020_is_loaded_and_saved_unchanged(baseline, network, tmp_path, capsys):
    assert len(baseline) == 126
    torch.save(baseline, tmp_path / "in.model")
    assert network.loadParameters(str(tmp_path / "in.model"), strict=True).lines() == []
    assert capsys.readouterr().out == ""
    network.saveParameters(str(tmp_path / "out.model"))
    assert same(torch.load(tmp_path / "out.model", weights_only=True), baseline)
    assert sorted(os.listdir(tmp_path)) == ["in.model", "out.model"]


def test_mismatches_are_reported(tiny, tmp_path, capsys):
    state = {name: tensor + 1 for name, tensor in tiny.state_dict().items()}
    del state["__S__.heads.1.weight"], state["__L__.wI"]
    state["__S__.heads.0.bias"] = torch.zeros(7)
    state["extra"] = torch.zeros(1)
    path = str(tmp_path / "x.model")
    torch.save(state, path)
    before = tiny.state_dict()["__S__.heads.1.weight"].clone()
    tiny.loadParameters(path)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 4
    for words in ("heads.1.weight is not in the checkpoint", "(7,)", "extra is not in the model", "wI"):
        assert words in printed
    assert torch.equal(tiny.state_dict()["__S__.heads.1.weight"], before)
    assert torch.equal(tiny.state_dict()["__S__.heads.2.bias"], state["__S__.heads.2.bias"])
    with pytest.raises(CheckpointError, match=r"2 weights .*\n.*heads.1.weight.*\n.*heads.0.bias"):
        tiny.loadParameters(path, strict=True)


def test_evaluation_needs_only_the_network_weights(baseline, network, tmp_path):
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
def test_nothing_runs_on_load(tiny, tmp_path, how):
    mark, path = tmp_path / "it-ran", tmp_path / "trap.model"
    state = tiny.state_dict() | {"trap": Trap(str(mark))}
    if how == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(CheckpointError, match="trap.model: not loaded"):
        tiny.loadParameters(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"not a checkpoint", "a text file, not a checkpoint"),
        (b"# A read me\n\nwith words\n", "a text file, not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "a file of another type, not a checkpoint"),
        (b"PK\x03\x04" + b"0" * 100, "damaged"),
        (pickle.dumps({"a": 1})[:-3], "damaged or was not written by torch.save"),
    ],
)
def test_files_that_are_not_checkpoints(tmp_path, content, words):
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(UnreadableCheckpoint, match=f"x.model: not loaded, .*{words}") as raised:
        read_checkpoint(str(tmp_path / "x.model"))
    assert len(str(raised.value).splitlines()) == 1 and "weights_only" not in str(raised.value)


def test_files_without_weights_are_refused(tmp_path):
    torch.save({"lr": 1}, tmp_path / "x.model")
    with pytest.raises(CheckpointError, match="not a state dict .*; it holds the names 'lr'"):
        read_checkpoint(str(tmp_path / "x.model"))
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(str(tmp_path))
    deep = [{a: {b: {c: {"weight": torch.zeros(1)}}}} for a, b, c in ("xyz", ("model", "net", "module"))]
    names = ((deep[0], "the names 'x'"), (deep[1], "the names 'model'"))
    for content, words in (([1, 2], "a list"), ({}, "nothing"), *names):
        torch.save(content, tmp_path / "x.model")
        with pytest.raises(CheckpointError, match=f"not a state dict .* it holds {words}$"):
            read_checkpoint(str(tmp_path / "x.model"))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(str(tmp_path / "none.model"))


def test_newest_checkpoint(tmp_path):
    for name in ("000000002", "000000010", "1000000000", "000000003", "0"):
        (tmp_path / f"model{name}.model").touch()
    found = epoch_checkpoints(str(tmp_path))
    assert list(found) == [2, 3, 10, 10**9] and found[2] == str(tmp_path / "model000000002.model")
    assert epoch_checkpoints(str(tmp_path / "none")) == {}


def test_a_failed_save_leaves_the_old_file(tiny, tmp_path, monkeypatch):
    path = tmp_path / "x.model"
    path.write_bytes(b"old")

    def full(_, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        tiny.saveParameters(str(path))
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.model"]


# ---------------------------------------------------------------- what other programs put around the weights


def renamed(state: dict, form: str) -> dict:
    return OrderedDict((form.format(name), tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"momentum": s}},
        lambda s: {"model": s},
        lambda s: {"state_dict": s, "args": argparse.Namespace(lr=1, more=argparse.Namespace(x=[1]))},
        lambda s: {"epoch": 1, "weights of mine": s},
        lambda s: {"ema": {n: t + 1 for n, t in s.items()}, "state_dict": s},
        lambda s: {"mine": {"weights": s}},
        lambda s: {"model": {"state_dict": renamed(s, "module.{}")}},
        lambda s: renamed(s, "_orig_mod.{}"),
        lambda s: renamed(s, "module._orig_mod.{}"),
        lambda s: {n.replace("__S__.", "__S__._orig_mod.module."): t for n, t in s.items()},
        lambda s: {n.removeprefix("__S__."): t for n, t in s.items() if n.startswith("__S__.")},
        lambda s: {n: t.half().double() if t.is_floating_point() else t for n, t in s.items()},
    ],
)
def test_wrapped_and_renamed_weights_are_read(tiny, tmp_path, wrap):
    state = {name: tensor.half().to(tensor.dtype) for name, tensor in tiny.state_dict().items()}
    torch.save(wrap(state), tmp_path / "x.model")
    torch.manual_seed(1)
    other = SyncNet(**TINY)
    other.loadParameters(str(tmp_path / "x.model"), strict=True)
    assert all(torch.equal(other.state_dict()[n], state[n]) for n in state if n.startswith("__S__."))


def test_embedding_size_is_inferred_from_the_weights(tmp_path):
    network = SyncNet(nOut=24, maxFrames=16, device="cpu")
    for name, state in (("plain", network.state_dict()), ("inner", network.__S__.state_dict())):
        torch.save({"state_dict": renamed(state, "module.{}")}, tmp_path / name)
        settings, told = choose_settings(str(tmp_path / name), {"maxFrames": 16})
        assert (settings, told) == (Settings(nOut=24, maxFrames=16), [])
    SyncNet(nOut=24, maxFrames=16).loadParameters(str(tmp_path / "inner"), strict=True)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_a_failed_training_are_refused(tiny, tmp_path, value, strict):
    state = tiny.state_dict()
    state["__S__.heads.1.weight"] = state["__S__.heads.1.weight"].clone()
    state["__S__.heads.1.weight"][0, 1] = value
    torch.save(state, tmp_path / "x.model")
    with pytest.raises(CheckpointError, match="x.model: __S__.heads.1.weight holds .* not finite"):
        SyncNet(**TINY).loadParameters(str(tmp_path / "x.model"), strict=strict)


def test_a_training_state_is_read_with_its_settings(tiny, tmp_path):
    flags = {"temporal_stride": "2", "nOut": "8", "model": "tinyModel", "lr": "0.1", "crop": "mouth"}
    save_state(str(tmp_path / "s.pt"), tiny, ResumeState(1, [], random.getstate()), flags)
    state = read_checkpoint(str(tmp_path / "s.pt"))
    assert same(dict(state), dict(tiny.state_dict()))
    assert trained_with(state) == {"temporal_stride": 2, "nOut": 8, "model": "tinyModel", "crop": "mouth"}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", ["whole", "numpy"])
def test_the_remedy_for_pickled_objects_works(tiny, tmp_path, what):
    path = tmp_path / "x.model"
    torch.save(tiny.__S__ if what == "whole" else {"state_dict": {}, "best": np.float64(3)}, path)
    with pytest.raises(UnreadableCheckpoint) as raised:
        read_checkpoint(str(path))
    said = str(raised.value)
    assert ("tinyModel.SyncNetModel" if what == "whole" else "numpy") in said
    assert "torch.save(network.state_dict(), 'weights.model')" in said
    assert "weights_only" not in said and len(said.splitlines()) == 1
    torch.save(tiny.__S__.state_dict(), path)  # the remedy
    SyncNet(**TINY).loadParameters(str(path), strict=True)


class Config(dict):
    """A dict with attributes, as many programs use for their settings."""

    def __setstate__(self, state: object) -> None:
        raise AssertionError("run")


class Settings2(enum.Enum):
    ADAM = "adam"


def objects_beside() -> dict[str, object]:
    config = Config(lr=0.1, layers=[1, 2])
    config.note = "text"
    return {
        "epoch": np.int64(4),
        "best_eer": np.float64(14.2),
        "history": np.arange(3.0),
        "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        "where": Path("/data/a"),
        "args": argparse.Namespace(lr=1, out=Path("x")),
        "kind": Settings2.ADAM,
        "losses": defaultdict(list, train=[np.float32(1)]),
        "config": config,
        Settings2.ADAM: {"a", "b"},
        "last": deque([1, 2]),
        "schedule": functools.partial(max, 1),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_weights_are_not_loaded(tiny, tmp_path, protocol, zipped):
    path, state = str(tmp_path / "x.model"), tiny.state_dict()
    wrapped = objects_beside() | {"state_dict": Config(state) if protocol > 1 else state}
    torch.save(wrapped, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    torch.manual_seed(1)
    other = SyncNet(**TINY)
    other.loadParameters(path, strict=True)
    assert same(dict(other.state_dict()), dict(state))


def test_settings_survive_beside_other_objects(tiny, tmp_path):
    state = OrderedDict(tiny.state_dict())
    state._metadata = {"settings": {"nOut": 8, "temporal_stride": 2}}
    torch.save({"state_dict": state, "best": np.float64(1)}, tmp_path / "x.model")
    assert trained_with(read_checkpoint(str(tmp_path / "x.model"))) == {"nOut": 8, "temporal_stride": 2}


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


SYSTEM, REDUCE, ONE = b"cos\nsystem\n", b"R", b"\x85"
HOSTILE = {  # pickles by hand, and what each would do to a loader that looks names up
    "call": lambda mark: SYSTEM + text(f"touch {mark}") + ONE + REDUCE,
    "eval": lambda mark: b"cbuiltins\neval\n" + text(f"open('{mark}', 'w')") + ONE + REDUCE,
    "getattr": lambda mark: (
        (b"cbuiltins\ngetattr\n" + SYSTEM + text("__call__") + b"\x86" + REDUCE)
        + (text(f"touch {mark}") + ONE + REDUCE)
    ),
    "import": lambda _: b"cstranger\nSpy\n)\x81",
    "old instance": lambda mark: b"(" + text(f"touch {mark}") + b"ios\nsystem\n",
    "instance": lambda mark: b"(" + SYSTEM + text(f"touch {mark}") + b"o",
    "state of a function": lambda _: (
        b"ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__defaults__") + b")s\x86b"
    ),
    "state of a dict": lambda _: b"ccollections\nOrderedDict\n)R}" + text("items") + SYSTEM + b"sb",
    "append": lambda mark: b"cstranger\nSpy\n)R" + text(f"touch {mark}") + b"a",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_objects_beside_the_weights_do_nothing(tiny, tmp_path, monkeypatch, kind):
    """The pickle of a real checkpoint with an extra entry that would run, import or change something."""
    mark, path = tmp_path / "it-ran", tmp_path / "x.model"
    (tmp_path / "stranger.py").write_text(f"open({str(mark)!r}, 'w')\nclass Spy(list): pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    state = tiny.state_dict()
    torch.save({"state_dict": state, "date": datetime.date(2026, 1, 1)}, tmp_path / "clean.model")
    with zipfile.ZipFile(tmp_path / "clean.model") as clean, zipfile.ZipFile(path, "w") as changed:
        for name in clean.namelist():
            data = clean.read(name)
            if name.endswith("/data.pkl"):
                assert data.endswith(b"u.")
                data = data[:-2] + text("bad") + HOSTILE[kind](str(mark)) + b"u."
            changed.writestr(name, data)
    defaults = torch._utils._rebuild_tensor_v2.__defaults__
    found = read_checkpoint(str(path))
    assert same(dict(found), dict(state)) and not mark.exists() and "stranger" not in sys.modules
    assert torch._utils._rebuild_tensor_v2.__defaults__ == defaults


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float16_overflow_is_reported_as_the_cause(tiny, tmp_path, dtype):
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tiny.state_dict().items()}
    state["__S__.norm.running_var"] = (tiny.state_dict()["__S__.norm.running_var"] * 1e5).to(dtype)
    torch.save(state, tmp_path / "x.model")
    if dtype == torch.bfloat16:  # as large as float32
        SyncNet(**TINY).loadParameters(str(tmp_path / "x.model"), strict=True)
        return
    words = r"x.model: __S__.norm.running_var h.* in float16, .*65504.* save it in float32 or bfloat16"
    with pytest.raises(CheckpointError, match=words) as raised:
        SyncNet(**TINY).loadParameters(str(tmp_path / "x.model"))
    assert "training has failed" not in str(raised.value)
    with pytest.raises(CheckpointError, match=words):
        average_checkpoints([str(tmp_path / "x.model")] * 2)
    state["__S__.norm.running_var"][0] = float("nan")  # not from overflow alone
    torch.save(state, tmp_path / "x.model")
    with pytest.raises(CheckpointError, match="training has failed"):
        SyncNet(**TINY).loadParameters(str(tmp_path / "x.model"))


# ---------------------------------------------------------------- a file that cannot be read is not a damaged one


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("where", ["open", "read", "load"])
def test_temporary_errors_are_not_reported_as_damage(tiny, tmp_path, monkeypatch, number, where):
    path = str(tmp_path / "x.model")
    tiny.saveParameters(path)
    fault = OSError(number, os.strerror(number))

    def fail(*_args: object, **_more: object) -> None:
        raise fault

    class Broken(io.BytesIO):
        read = fail

    real = builtins.open
    if where == "load":
        monkeypatch.setattr(torch, "load", fail)
    else:
        opened = fail if where == "open" else lambda *_: Broken()
        monkeypatch.setattr(builtins, "open", lambda p, *a, **k: (opened if p == path else real)(p, *a, **k))
    with pytest.raises(OSError, match="x.model") as raised:
        read_checkpoint(path)
    assert raised.value.errno == number


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_lack_of_memory_is_not_reported_as_damage(tiny, tmp_path, monkeypatch, error):
    path = str(tmp_path / "x.model")
    tiny.saveParameters(path)

    def fail(*_args: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(OSError, match="x.model") as raised:
        read_checkpoint(path)
    assert raised.value.errno == errno.ENOMEM


# ---------------------------------------------------------------- settings


def saved_with(network: SyncNet, path: Path, **said: object) -> str:
    state = OrderedDict(network.state_dict())
    state._metadata = {"settings": said}
    torch.save(state, path)
    return str(path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"maxFrames": "50"}, "maxFrames '50', expected a whole number"),
        ({"maxFrames": 4}, "maxFrames 4, expected a whole number from 5"),
        ({"temporal_stride": 2.0}, "temporal_stride 2.0, expected"),
        ({"nOut": 10**12}, "nOut 1000000000000, expected"),
        ({"nOut": True}, "nOut True, expected"),
        ({"crop": ["mouth"]}, "crop .*, expected one of face, mouth"),
        ({"distance": "x" * 10000}, "distance 'x+, expected one of"),
        ({"model": None}, "model None, expected"),
        ({"model": 7}, "model 7, expected"),
    ],
)
def test_recorded_settings_are_checked(tiny, tmp_path, said, words):
    path = saved_with(tiny, tmp_path / "x.model", **said)
    for read in (read_checkpoint, tiny.loadParameters):
        with pytest.raises(CheckpointError, match=f"x.model: says .* {words}") as raised:
            read(path)
        assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "name",
    [
        "stranger",
        "os",
        "syncnet.networks.losses",
        "models",
        "models.../../stranger",
        "models..losses",
        "models.no",
        ".x",
    ],
)
def test_a_checkpoint_cannot_choose_what_is_imported(tiny, tmp_path, monkeypatch, name):
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = saved_with(tiny, tmp_path / "x.model", model=name)
    before = set(sys.modules)
    with pytest.raises(CheckpointError, match="not in models/.* select it with --model"):
        choose_settings(path, {})
    assert set(sys.modules) == before
    assert choose_settings(path, {"model": "tinyModel"})[0].model == "tinyModel"


@pytest.mark.parametrize(
    "name",
    [
        "models.No",
        "models.no.such.Net",
        "nowhere.Net",
        "syncnet.networks.losses",
        "syncnet.networks.losses.Net",
        "",
        ".x",
        "a..b",
    ],
)
def test_unknown_models_are_reported(name):
    with pytest.raises(UserError, match=r"has no SyncNetModel .*models.SyncNetModelFBank"):
        load_model(name)


@pytest.mark.parametrize("fault", ["import nowhere", "[].nothing", "int('x')", "len()"])
def test_bugs_in_a_model_keep_their_traceback(tmp_path, monkeypatch, fault):
    (tmp_path / "faultyModel.py").write_text(fault)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises((ImportError, AttributeError, ValueError, TypeError)) as raised:
        load_model("faultyModel")
    assert raised.type is not UserError and raised.traceback[-1].path.name == "faultyModel.py"


def test_settings_come_from_flags_then_checkpoint_then_defaults(tiny, tmp_path):
    path = saved_with(tiny, tmp_path / "x.model", temporal_stride=2, maxFrames=50, later="unknown")
    settings, told = choose_settings(path, {"maxFrames": 20, "temporal_stride": 2, "nOut": None})
    assert settings == Settings(maxFrames=20, temporal_stride=2)
    assert told == [f"--maxFrames 20 is given; {path} was trained with 50"]
    assert choose_settings(None, {"nOut": 8}) == (Settings(nOut=8), [])


def test_missing_settings_count_as_defaults():
    assert differences({"maxFrames": 30}, {"maxFrames": 30, "crop": "face"}) == []
    assert differences({"maxFrames": 30}, {"maxFrames": 20, "crop": "mouth"}) == [
        ("maxFrames", 30, 20),
        ("crop", "face", "mouth"),
    ]


# ---------------------------------------------------------------- the command


def test_an_initial_model_must_share_some_weights(tmp_path, capsys):
    clips = tmp_path / "list.txt"
    clips.write_text("a.mp4 a.wav 0 50\nb.mp4 b.wav 0 50\n")
    SyncNet(**TINY).saveParameters(str(tmp_path / "tiny.model"))
    # Of a different network, only the four scales of the losses fit.
    flags = f"--train_list {clips} --verify_list {clips} --save_path {tmp_path}/exp --nBatchSize 2 --nOut 8"
    flags += f" --model models.SyncNetModelFBank --device cpu --initial_model {tmp_path}/tiny.model"
    assert trainSyncNet.main(flags.split()) == 1
    assert "tiny.model: none of its weights fit the network" in capsys.readouterr().err


def test_evaluation_needs_a_checkpoint(tmp_path, capsys):
    from clipMaker import make_wav

    make_wav(str(tmp_path / "a.wav"), 9000, first=0)
    make_wav(str(tmp_path / "b.wav"), 9000, first=977)
    (tmp_path / "trials.txt").write_text("1 a.wav a.wav\n0 a.wav b.wav\n")
    flags = f"--eval --model tinyModel --nOut 8 --maxFrames 8 --device cpu --save_path {tmp_path}/typo"
    flags += f" --test_list {tmp_path}/trials.txt --test_path {tmp_path}"
    assert trainSyncNet.main(flags.split()) == 1
    said = capsys.readouterr()
    assert "no checkpoint in" in said.err and "typo/model" in said.err and "--untrained" in said.err
    assert "EER" not in said.out and not (tmp_path / "typo").exists()
    assert trainSyncNet.main([*flags.split(), "--untrained"]) == 0
    assert "Evaluating an untrained network" in (out := capsys.readouterr().out) and "EER" in out

    # The checkpoint's settings are used, and conflicting flags are reported.
    SyncNet(**TINY).saveParameters(str(tmp_path / "x.model"))
    flags = (
        f"--eval --model tinyModel --device cpu --save_path {tmp_path}/e --initial_model {tmp_path}/x.model"
    )
    flags += f" --test_list {tmp_path}/trials.txt --test_path {tmp_path}"
    assert trainSyncNet.main(flags.split()) == 0
    out = capsys.readouterr().out
    assert "is given" not in out and "temporal_stride 2\n" in out and "maxFrames 8\n" in out
    assert trainSyncNet.main([*flags.split(), "--temporal_stride", "1"]) == 0
    assert "--temporal_stride 1 is given; " in (out := capsys.readouterr().out) and "with 2\n" in out
