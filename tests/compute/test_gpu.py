"""On a real GPU: the numbers of the CPU, exact resuming, and processes that compute together. `pytest -m gpu`."""

import csv
import random
import shutil
from pathlib import Path

import pytest
import torch
from clipMaker import make_list
from processes import run
from test_devices import N_OUT, NETWORKS, T, calls, clips
from test_distributed import TRAIN, flags, weights

from DatasetLoader import DatasetLoader
from SyncNetDist import SyncNet

pytestmark = pytest.mark.gpu
ON_GPU = ("--device", "cuda")
__all__ = ["clips"]  # a fixture


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 13, 20)


def make(device: str, model: str = NETWORKS[0], precision: str = "fp32") -> SyncNet:
    torch.manual_seed(0)
    settings = {"nOut": N_OUT, "maxFrames": T, "temporal_stride": 2}
    return SyncNet(model, **settings, device=device, precision=precision)


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-3), ("tf32", 3e-2), ("bf16", 0.2)])
def test_losses_of_an_epoch(clip_list, precision, within):
    found = []
    for device, kind in (("cpu", "fp32"), ("cuda", precision)):
        random.seed(0)
        loader = DatasetLoader(str(clip_list), 8, 4, T, 2, pin_memory=device != "cpu")
        trained = make(device, precision=kind).run_epoch(loader, alpD=0.5)
        found.append(torch.tensor(trained.rows)[:, [0, 1, 2, 5]])  # without the accuracies
    torch.testing.assert_close(*found, rtol=0, atol=within)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
def test_functions_of_inference(clips, tmp_path, model):
    networks = [make(device, model) for device in ("cpu", "cuda")]
    networks[1].load_state_dict(networks[0].state_dict())
    cpu, gpu = (calls(network, clips, tmp_path) for network in networks)
    for name in cpu:
        expected, found = cpu[name](), gpu[name]()
        if name.startswith("embed"):
            torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-4)
        elif name == "score":
            assert found[0] == pytest.approx(expected[0], abs=1e-4)
        elif name == "verify":
            assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("model", ["dropModel", "models.SyncNetModelFBank"])
def test_a_deterministic_run_resumes_bit_by_bit(clip_list, tmp_path, model):
    """dropModel draws from the generator of the GPU."""
    more = ("--deterministic", "--model", model, *ON_GPU)
    done = run(TRAIN, *flags(clip_list, tmp_path / "whole"), *more)
    assert done.returncode == 0, done.stderr
    if model == "dropModel":
        assert run(TRAIN, *flags(clip_list, tmp_path / "run"), *more, FAIL_IN="0:4").returncode == 1
    else:
        assert run(TRAIN, *flags(clip_list, tmp_path / "run"), *more, "--max_epoch", 1).returncode == 0
    done = run(TRAIN, *flags(clip_list, tmp_path / "run"), *more)
    assert done.returncode == 0 and "Resuming in epoch 2" in done.stdout, done.stderr
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def losses(folder: Path) -> list[float]:
    rows = csv.DictReader((folder / "result/metrics.csv").read_text().splitlines())
    return [float(row[f"{split}_loss"]) for row in rows for split in ("train", "val")]


def test_two_processes_compute_as_one(clip_list, tmp_path):
    """On a GPU each, or on one that they share; with batch norm over both."""
    for ranks in (0, 2):
        command = [*flags(clip_list, tmp_path / str(ranks)), "--model", "blindModel", *ON_GPU]
        done = run(TRAIN, *command, ranks=ranks)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "0"), rel=1e-3)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="torch.compile needs a compiler")
def test_compiled_training(clip_list, tmp_path):
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        command = [*flags(clip_list, tmp_path / name), "--model", "tinyModel", *ON_GPU, *more]
        done = run(TRAIN, *command)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)
