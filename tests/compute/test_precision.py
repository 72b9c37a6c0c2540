"""--precision auto, and memory that is kept."""

import copy
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest
import torch
from clipMaker import make_list
from torch import Tensor, nn

import SyncNetDist
import trainSyncNet
from syncnet.compute import precision
from syncnet.compute.memory import HUGE_PAGES, keep_memory
from syncnet.compute.precision import autocast, faster_precision
from syncnet.training.epoch import GradientNotFinite, LossNotFinite
from SyncNetDist import SyncNet

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[2]


@pytest.mark.parametrize(
    "fp32, bf16, faster, ratio",
    [(2.0, 1.0, "bf16", "2.00"), (1.0, 4.0, "fp32", "0.25"), (1.0, 1.0, "fp32", "1.00")],
)
def test_auto_takes_the_faster_precision_by_its_best_trial_after_the_first(
    monkeypatch, fp32, bf16, faster, ratio
):
    times = {"fp32": iter([0.01, 9, fp32]), "bf16": iter([0.01, bf16, 9])}
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    monkeypatch.setattr(precision, "trial", lambda _: lambda kind: next(times[kind]))
    found, reason = faster_precision(torch.device("cpu"))
    assert found == faster and f"{ratio} times as fast" in reason


def test_without_bfloat16_auto_is_fp32(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: False)
    monkeypatch.setattr(precision, "trial", None)
    assert faster_precision(torch.device("cpu")) == ("fp32", "cpu has no bfloat16 instructions")


def test_a_pytorch_without_mkldnn_has_no_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not precision.has_bfloat16(CPU)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_trial_trains_where_the_caller_does_not(monkeypatch, context):
    monkeypatch.setattr(precision, "ROUNDS", 1)
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    with context():
        assert faster_precision(torch.device("cpu"))[0] in ("fp32", "bf16")
        assert not torch.is_grad_enabled()


def test_tf32_on_a_cpu_is_reported():
    assert SyncNet(model="tinyModel", nOut=4, device="cpu", precision="tf32").precision_note.endswith(
        "as with fp32"
    )
    assert SyncNet(model="tinyModel", nOut=4, device="cpu").precision_note == ""


class NaNInBfloat16(torch.autograd.Function):
    """The identity, whose gradient is NaN where it is computed in bfloat16."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * float("nan") if gradient.dtype == torch.bfloat16 else gradient


class Broken(nn.Conv3d):
    """A layer that stands for a kernel of PyTorch that computes its gradients wrongly in bfloat16."""

    def forward(self, video: Tensor) -> Tensor:
        return NaNInBfloat16.apply(super().forward(video))


def test_a_trial_with_nan_gradients_takes_fp32(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    monkeypatch.setattr(precision, "ROUNDS", 1)
    monkeypatch.setattr(precision, "lip_trunk", lambda **_: nn.Sequential(Broken(3, 4, (5, 224, 224))))
    found, reason = faster_precision(CPU)
    assert found == "fp32" and "gradients of bf16 were not finite" in reason


def broken_network(kind: str) -> tuple[SyncNet, Tensor]:
    """A network with such a layer in its face stream, and the loss of a batch."""
    network = SyncNet(model="tinyModel", nOut=4, device="cpu", precision=kind).train()
    network.__S__.heads[3].register_forward_hook(lambda *hooked: NaNInBfloat16.apply(hooked[2]))
    video, audio = torch.randint(0, 256, (2, 3, 6, 224, 224)).byte(), 1000 * torch.randn(2, 6 * 640 + 240)
    return network, network(video, audio, 1.0, 1.0)[0]


def test_gradients_that_are_not_finite_stop_the_first_step():
    network, total = broken_network("bf16")
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(GradientNotFinite) as raised:
        network.update(total)
    message = str(raised.value)
    assert "__S__.face.weight" in message and "Use --precision fp32" in message
    assert f"the loss is {total.item():g}" in message and "a lower --lr does not help" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    network, total = broken_network("fp32")
    network.update(total)


def test_a_loss_that_is_not_finite_is_reported_with_its_batch():
    class Batches(list):
        batch_size, nFiles = 2, 2

    video, audio = torch.zeros(2, 3, 6, 224, 224).byte(), torch.full((2, 6 * 640 + 240), torch.nan)
    network = SyncNet(model="tinyModel", nOut=4, device="cpu", precision="bf16")
    with pytest.raises(LossNotFinite, match="step 1: the loss is nan.*--precision fp32 instead of bf16"):
        network.run_epoch(Batches([(video, audio)]))


def test_bf16_is_reported_where_it_is_slower(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("syncnet.compute.precision.has_bfloat16", lambda _: False)
    network = SyncNet(model="tinyModel", nOut=4, device="cpu", precision="bf16")
    assert "no bfloat16 instructions; fp32 would be faster" in network.precision_note
    monkeypatch.setattr("syncnet.compute.precision.has_bfloat16", lambda _: True)
    assert SyncNet(model="tinyModel", nOut=4, device="cpu", precision="bf16").precision_note == ""
    for found, said in (("bf16", False), ("fp32", True)):
        monkeypatch.setattr(precision, "faster_precision", lambda _, found=found: (found, "0.50 times"))
        train(tmp_path / found, "bf16")
        assert ("fp32 would be the better choice here; 0.50 times" in capsys.readouterr().out) is said


@pytest.mark.parametrize(("kind", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_forward_pass_computes_in_its_precision(kind, dtype):
    with autocast(CPU, kind):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_two_networks_keep_their_own_precision():
    """PyTorch has one setting for all of a process: forward and backward, each network finds its own."""
    found = []
    video = torch.zeros(2, 3, 8, 224, 224, dtype=torch.uint8)
    audio = torch.randn(2, 8 * 640 + 240)

    class Batches(list):
        batch_size, nFiles = 2, 2

    def note(*_):
        found.append(allowed())

    networks = {
        name: SyncNet(model="tinyModel", nOut=4, maxFrames=8, device="cpu", precision=name)
        for name in ("fp32", "tf32")
    }
    for network in networks.values():
        network.__S__.norm.register_forward_hook(note)
        network.__S__.norm.register_full_backward_hook(note)
    for name in ("fp32", "tf32", "fp32"):
        found.clear()
        networks[name].run_epoch(Batches([(video, audio)]))
        networks["tf32" if name == "fp32" else "fp32"].identity_vectors(audio, 1)
        networks[name].identity_vectors(audio, 2)
        own, other = ((flag, flag) for flag in (name == "tf32", name != "tf32"))
        assert found == [own] * 4 + [other] * 2 + [own]
    total, _ = networks["fp32"].train()(video, audio, 1.0, 1.0)
    networks["tf32"].identity_vectors(audio, 2)
    found.clear()
    networks["fp32"].update(total)
    assert found == [(False, False)] * 2
    networks["tf32"].autocast()
    assert allowed() == (True, True)


CALLERS = """

torch.set_float32_matmul_precision('high')
torch.set_float32_matmul_precision('medium')
torch.backends.fp32_precision = 'tf32'
torch.backends.fp32_precision = 'ieee'
torch.backends.cuda.matmul.fp32_precision = 'tf32'
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.fp32_precision = 'tf32'
torch.backends.cudnn.allow_tf32 = False
torch.backends.mkldnn.fp32_precision = 'bf16'
torch.backends.mkldnn.conv.fp32_precision = 'bf16'
"""
FLAGS = f"""
import os, traceback, warnings
import torch
from SyncNetDist import SyncNet

network, backends = SyncNet(model="tinyModel", nOut=4, device="cpu"), torch.backends

def check(caller):
    exec(caller)
    warnings.simplefilter("error")
    for name in ("fp32", "tf32", "bf16", "tf32", "fp32"):
        network.precision = name
        network.set_tf32()
        tf32 = name == "tf32"
        for kind in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            assert (kind.fp32_precision == "tf32") == tf32, caller
        assert backends.cuda.matmul.allow_tf32 == backends.cudnn.allow_tf32 == tf32, caller  # the older names agree
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest"), caller
        for kind in (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn):
            assert kind.fp32_precision == "ieee", caller

for caller in {CALLERS.splitlines()[1:]}:
    if not os.fork():  # some of PyTorch's settings cannot be undone
        try:
            check(caller)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.wait()[1]:
        raise SystemExit(f"after {{caller!r}}")
"""


def test_float32_is_float32_whatever_the_caller_has_set(tmp_path):
    (tmp_path / "program.py").write_text(FLAGS)
    done = processes.run(tmp_path / "program.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_trial_draws_no_random_numbers(device, monkeypatch):
    monkeypatch.setattr(precision, "ROUNDS", 1)
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    before = torch.random.get_rng_state()
    assert faster_precision(torch.device(device))[0] in ("fp32", "bf16")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_reports_what_auto_became(monkeypatch):
    monkeypatch.setattr("syncnet.compute.precision.faster_precision", lambda _: ("bf16", "it won"))
    network = SyncNet(model="tinyModel", nOut=4, device="cpu", precision="auto")
    assert (network.precision, network.precision_note) == ("bf16", "precision auto: bf16; it won")


def train(folder: Path, kind: str, epochs: int = 1) -> None:
    """Train a tiny network by the command, in folder/run."""
    clips = folder / "clips"
    listed = str(clips / "list.txt" if clips.exists() else make_list(clips, 4, 12))
    flags = f"--maxFrames 6 --nBatchSize 2 --nOut 8 --model tinyModel --device cpu --precision {kind}".split()
    lists = ["--train_list", listed, "--verify_list", listed, "--save_path", str(folder / "run")]
    assert trainSyncNet.main([*flags, *lists, "--max_epoch", str(epochs)]) == 0


def test_a_run_keeps_the_precision_that_auto_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("syncnet.compute.precision.faster_precision", lambda _: ("bf16", "it won"))
    train(tmp_path, "auto")
    assert "precision auto: bf16; it won" in capsys.readouterr().out
    assert "precision bf16" in (tmp_path / "run/result/scores.txt").read_text().splitlines()
    monkeypatch.setattr("syncnet.compute.precision.faster_precision", lambda _: ("fp32", "it won"))
    train(tmp_path, "auto", 2)
    said = capsys.readouterr().out
    assert "in epoch 2" in said and "it won" not in said


PAGES = """
import ctypes, resource, sys
from syncnet.compute.memory import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = malloc(ctypes.c_size_t(2**26))
    ctypes.memset(ctypes.c_void_p(block), 1, 2**26)
    free(block)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_memory_is_kept():
    """The third block of 64 MiB: new pages without, none with it."""
    new, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", PAGES, how], capture_output=True, text=True, cwd=ROOT
            ).stdout
        )
        for how in ("give back", "keep")
    )
    assert new > 20 and kept < 5


def test_programs_can_import_keep_memory_with_the_network():
    assert SyncNetDist.keep_memory is keep_memory


PREFERENCES = """
import os
from syncnet.compute.memory import HUGE_PAGES, keep_memory, prefer_huge_pages
prefer_huge_pages(True)
before = os.environ[HUGE_PAGES]
assert keep_memory()
print(before, os.environ[HUGE_PAGES])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_kept_memory_uses_no_huge_pages_unless_the_user_asks():
    for given, expected in (({}, "1 0"), ({HUGE_PAGES: "1"}, "1 1"), ({HUGE_PAGES: "0"}, "0 0")):
        environment = {name: value for name, value in os.environ.items() if name != HUGE_PAGES} | given
        said = subprocess.run(
            [sys.executable, "-c", PREFERENCES], capture_output=True, text=True, cwd=ROOT, env=environment
        )
        assert said.stdout.strip() == expected, said.stderr


def test_gradients_are_freed_after_a_step():
    network = SyncNet(model="tinyModel", nOut=4, device="cpu")
    video, audio = torch.randint(0, 256, (2, 3, 6, 224, 224)).float(), 1000 * torch.randn(2, 6 * 640 + 240)
    before = network.__S__.voice.weight.clone()
    network.update(network(video, audio, 1.0, 1.0)[0])
    assert not torch.equal(network.__S__.voice.weight, before)
    assert all(parameter.grad is None for parameter in network.parameters())
