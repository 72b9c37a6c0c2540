"""The classes and functions as other scripts use them: names, packages, main guard."""

import copy
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import processes
import pytest
import torch
from clipMaker import make_list

import trainSyncNet
from DatasetLoader import DatasetLoader
from syncnet.support.names import FLAGS_OF_2020
from SyncNetDist import SyncNet

REPOSITORY = Path(__file__).parent.parent
T = 16


def write(folder: Path, script: str) -> str:
    """Write a script in another folder, with this project at the end of its path."""
    text = f"import sys; sys.path.append({str(REPOSITORY)!r})\n" + textwrap.dedent(script)
    (folder / "script.py").write_text(text)
    return text


def run(folder: Path, script: str, stdin: bool = False) -> subprocess.CompletedProcess:
    text = write(folder, script)
    line = [sys.executable, "-" if stdin else "script.py"]
    return subprocess.run(line, cwd=folder, input=text if stdin else None, capture_output=True, text=True)


def run_forked(folder: Path, script: str) -> subprocess.CompletedProcess:
    """As `run`, from a process that has PyTorch, but none of our modules."""
    write(folder, script)
    return processes.run(folder / "script.py", cwd=folder, PYTHONPATH=str(folder))


# ---------------------------------------------------------------- arguments


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> dict[str, object]:
    """The namespace of the 2020 program, with all its flags."""
    folder = tmp_path_factory.mktemp("clips")
    clips = make_list(folder, 2, 24)
    flags: dict[str, object] = dict.fromkeys(FLAGS_OF_2020, "")
    flags |= {
        "maxFrames": T,
        "nBatchSize": 2,
        "nTrainPerEpoch": 2,
        "nTestPerEpoch": 2,
        "nDataLoaderThread": 1,
    }
    flags |= {
        "model": "tinyModel",
        "nOut": 8,
        "temporal_stride": 2,
        "max_epoch": 1,
        "lr": 0.001,
        "lr_decay": 0.95,
    }
    return flags | {"train_list": str(clips), "alphaC": 1.0, "alphaI": 1.0, "eval": False}


def test_the_calls_of_2020(flags):
    with pytest.warns(UserWarning, match=r"lr 0.001 is not used.*learning_rate.*0.0001"):
        network = SyncNet(**flags)
    assert network.updateLearningRate(1) == [0.0001]  # as in the 2020 program
    assert (network.maxFrames, network.nOut) == (T, 8)
    loader = DatasetLoader(flags["train_list"], nPerEpoch=flags["nTrainPerEpoch"], **flags)
    assert (loader.batch_size, loader.nFiles, loader.maxFrames, loader.evalmode) == (2, 2, T, False)
    checked = DatasetLoader(flags["train_list"], nPerEpoch=2, evalmode=True, **flags)
    loss, accuracy = network.train_network(loader, evalmode=False, alpI=1.0, alpC=1.0)
    assert loss > 0 and 0 <= accuracy <= 100
    assert network.train_network(loader=checked, evalmode=True)[0] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = SyncNet(**flags | {"learning_rate": 0.001})
    assert given.updateLearningRate(1) == [0.001]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("max_frames", "did you mean maxFrames"), ("seeds", "it takes"), ("nout", "did you mean nOut")],
)
def test_unknown_arguments_are_errors(name, hint):
    with pytest.raises(TypeError, match=rf"SyncNet\(\) got an unexpected keyword argument '{name}'; {hint}"):
        SyncNet(**{name: 1})


def test_unknown_arguments_of_the_loader_are_errors(flags):
    with pytest.raises(
        TypeError, match=r"DatasetLoader\(\) got .* 'max_queue_size'; did you mean maxQueueSize"
    ):
        DatasetLoader(flags["train_list"], 2, 2, T, 1, max_queue_size=3)


# ---------------------------------------------------------------- packages of the same names


USE = """
    {first}
    import tuneThreshold
    from SyncNetDist import SyncNet
    network = SyncNet(nOut=8, device="cpu")
    print(type(network.__S__).__module__)
    import {name}
    print({name}.HERE)
"""


def weights_of(network: SyncNet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(network: SyncNet, before: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_copy_is_independent(flags, monkeypatch, copied, compiled):
    """A network that is trained and then copied: the copy learns, the original does not."""
    monkeypatch.setattr(
        "SyncNetDist.compile_embeddings", lambda function: lambda *x, **kw: function(*x, **kw)
    )
    network = SyncNet(**flags, device="cpu", compiled=compiled)
    loader = DatasetLoader(flags["train_list"], nPerEpoch=2, **flags)
    network.train_network(loader)
    other = copied(network)
    before = weights_of(network)
    assert not changed(other, before)
    other.train_network(loader)
    assert changed(other, before) and not changed(network, before)


def test_a_run_on_a_thread(flags, tmp_path, capsys):
    """Python handles signals only on the main thread; a run on another one does without."""
    lists = ("--train_list", flags["train_list"], "--verify_list", flags["train_list"])
    line = f"--maxFrames {T} --nBatchSize 2 --nOut 8 --model tinyModel --device cpu --max_epoch 1".split()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(trainSyncNet.main([*line, *lists, "--save_path", str(tmp_path)]))
    )
    thread.start()
    thread.join()
    assert found == [0], capsys.readouterr().err
    assert (tmp_path / "model/model000000001.model").exists()


@pytest.mark.parametrize(
    ("first", "files", "theirs"),
    [
        ("", ("models/__init__.py", "models/mine.py"), "models.mine"),
        ("import models", ("models/mine.py",), "models.mine"),
        ("import models.mine", ("models/__init__.py", "models/mine.py"), "models.mine"),
        ("import models.SyncNetModelFBank", ("models/SyncNetModelFBank.py",), "models.SyncNetModelFBank"),
        ("import models", ("models.py",), "models"),
    ],
)
def test_a_callers_own_models_and_ours_do_not_conflict(tmp_path, first, files, theirs):
    """Ours are loaded by path, and theirs are not replaced."""
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("HERE = 'my own'")
    done = run_forked(tmp_path, USE.format(first=first, name=theirs))
    assert done.stdout == "models.SyncNetModelFBank\nmy own\n", done.stderr


# ---------------------------------------------------------------- worker processes


UNGUARDED = """
    from functools import partial
    from syncnet.support.errors import UserError
    from syncnet.support.processes import map_in_processes
    print("begin")
    try:
        print(sorted(map_in_processes(abs, [-1, 2], {workers})))
    except UserError as error:
        print(error)
"""


@pytest.mark.parametrize("stdin", [False, True])
def test_a_missing_main_guard_is_reported(tmp_path, stdin):
    done = run(tmp_path, UNGUARDED.format(workers=2), stdin)
    assert "must be a file" in done.stdout if stdin else "no worker process could start" in done.stdout
    assert 'under `if __name__ == "__main__":`' in done.stdout and "nWorkers 1" in done.stdout
    assert done.stderr == ""
    assert run(tmp_path, UNGUARDED.format(workers=1), stdin).stdout == "begin\n[1, 2]\n"


def test_a_guarded_script_works(tmp_path):
    script = """
    from syncnet.support.processes import map_in_processes
    if __name__ == "__main__":
        print(sorted(map_in_processes(abs, [-1, 2], 2)))
    """
    assert run(tmp_path, script).stdout == "[1, 2]\n"


# ---------------------------------------------------------------- what is imported


def test_training_starts_without_matplotlib(tmp_path):
    script = """
    sys.modules.update(matplotlib=None)
    import trainSyncNet, makeFileList
    print("there")
    """
    done = run_forked(tmp_path, script)
    assert done.stdout == "there\n", done.stderr
