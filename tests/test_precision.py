"""--precision auto, and memory that is kept."""

import copy
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from clipMaker import make_list
from torch import Tensor, nn

import trainSyncNet
from models import precision
from models.precision import autocast, faster_precision
from support.memory import HUGE_PAGES
from SyncNetDist import SyncNet

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "fp32, bf16, faster, ratio",
    [(2.0, 1.0, "bf16", "2.00"), (1.0, 4.0, "fp32", "0.25"), (1.0, 1.0, "fp32", "1.00")],
)
def test_the_faster_one_is_taken_by_its_best_trial_but_the_first(monkeypatch, fp32, bf16, faster, ratio):
    times = {"fp32": iter([0.01, 9, fp32]), "bf16": iter([0.01, bf16, 9])}
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    monkeypatch.setattr(precision, "trial", lambda _: lambda kind: next(times[kind]))
    found, reason = faster_precision(torch.device("cpu"))
    assert found == faster and f"{ratio} times as fast" in reason


def test_without_bfloat16_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: False)
    monkeypatch.setattr(precision, "trial", None)
    assert faster_precision(torch.device("cpu")) == ("fp32", "cpu has no bfloat16 instructions")


def test_a_pytorch_without_mkldnn_has_no_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not precision.has_bfloat16(CPU) and not isinstance(autocast(CPU, "bf16"), torch.autocast)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_trial_trains_where_the_caller_does_not(monkeypatch, context):
    monkeypatch.setattr(precision, "ROUNDS", 1)
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    with context():
        assert faster_precision(torch.device("cpu"))[0] in ("fp32", "bf16")
        assert not torch.is_grad_enabled()


def test_a_precision_that_a_processor_does_not_have_is_told():
    assert SyncNet(model="tinyModel", nOut=4, device="cpu", precision="tf32").precision_found.endswith(
        "as with fp32"
    )
    assert SyncNet(model="tinyModel", nOut=4, device="cpu").precision_found == ""


INTEL, AMD = (
    "vendor_id\t: GenuineIntel\nflags\t: avx512_bf16",
    "vendor_id\t: AuthenticAMD\nflags\t: avx512_bf16",
)


@pytest.mark.parametrize(
    "about, instructions, fast",
    [
        (f"{INTEL} amx_bf16 amx_tile", True, True),
        (INTEL, True, False),
        (INTEL, False, False),
        (AMD, True, True),
        (AMD, False, False),
        ("", True, True),  # not on Linux
        ("", False, False),
    ],
)
def test_which_processors_multiply_bfloat16(monkeypatch, about, instructions, fast):
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: instructions)
    monkeypatch.setattr(precision, "processor", lambda: about)
    assert precision.multiplies_bfloat16(CPU) is fast
    assert isinstance(autocast(CPU, "bf16"), torch.autocast) is fast
    assert isinstance(autocast(CPU, "fp32"), torch.autocast)
    assert precision.multiplies_bfloat16(torch.device("cuda"))


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="not on Linux")
def test_one_processor_is_read():
    assert precision.processor().count("processor") == 1


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(33, 7), (5, 33)),
        (nn.Conv1d(33, 7, 3, stride=2, padding="valid"), (2, 33, 9)),
        (nn.Conv2d(33, 7, 3, padding="same", bias=False), (2, 33, 9, 8)),
        (nn.Conv3d(33, 7, 3, dilation=2, padding=1), (2, 33, 5, 5, 5)),
    ],
)
def test_products_in_float32_are_those_of_bfloat16(layer, shape, monkeypatch):
    """Against rounded values in float64: forward, and both gradients."""
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: False)
    draws = torch.Generator().manual_seed(0)
    given = torch.randn(shape, generator=draws, requires_grad=True)
    with autocast(CPU, "bf16"):
        found = layer(given)
        assert (given @ given.mT if given.dim() == 2 else found).dtype == torch.bfloat16  # autocast as ever
    pull = torch.randn(found.shape, generator=draws).bfloat16()
    found.backward(pull)
    exact = copy.deepcopy(layer).double()
    for parameter in exact.parameters():
        parameter.data = parameter.data.bfloat16().double()
        parameter.grad = None
    rounded = given.detach().bfloat16().double().requires_grad_()
    expected = exact(rounded)
    expected.backward(pull.double())
    pairs = [(found, expected), (given.grad, rounded.grad)]
    pairs += [
        (one.grad, other.grad) for one, other in zip(layer.parameters(), exact.parameters(), strict=True)
    ]
    for one, other in pairs:
        # 2^-8 is what rounding the result to bfloat16 may change.
        torch.testing.assert_close(one.double(), other, rtol=2**-8, atol=1e-4)
        assert not torch.equal(one.double(), other)
    assert layer(given).dtype == torch.float32  # not beyond the context


def test_a_network_in_bf16_is_the_same_whatever_the_processor(monkeypatch):
    network = SyncNet(model="tinyModel", nOut=4, device="cpu", precision="bf16").eval()
    video, audio = torch.randint(0, 256, (2, 3, 8, 224, 224)).byte(), 1000 * torch.randn(2, 8 * 640 + 240)
    given: list[tuple[Tensor, ...]] = []
    for native in (True, False):
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _, native=native: native)
        with torch.no_grad(), network.autocast():
            given.append(network.embeddings(video, audio))
    for native, products in zip(*given, strict=True):
        assert native.dtype == products.dtype == torch.bfloat16
        torch.testing.assert_close(native, products, rtol=2**-7, atol=2**-7)


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
    networks["tf32"].autocast()
    assert allowed() == (True, True)


@pytest.mark.parametrize("general", ["none", "tf32", "ieee"])
def test_float32_is_float32_whatever_the_program_around_says(monkeypatch, general):
    network = SyncNet(model="tinyModel", nOut=4, device="cpu")
    monkeypatch.setattr(torch.backends, "fp32_precision", general)
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    for name in ("fp32", "tf32", "bf16", "tf32", "fp32"):
        network.precision = name
        network.own_exactness()
        assert {kind.fp32_precision == "tf32" for kind in kinds} == {name == "tf32"}
        assert allowed() == (name == "tf32", name == "tf32")  # the older names of the same agree


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_trial_draws_no_random_numbers(device, monkeypatch):
    monkeypatch.setattr(precision, "ROUNDS", 1)
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    before = torch.random.get_rng_state()
    assert faster_precision(torch.device(device))[0] in ("fp32", "bf16")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_says_what_auto_became(monkeypatch):
    monkeypatch.setattr("SyncNetDist.faster_precision", lambda _: ("bf16", "it won"))
    network = SyncNet(model="tinyModel", nOut=4, device="cpu", precision="auto")
    assert (network.precision, network.precision_found) == ("bf16", "precision auto: bf16; it won")


def test_a_run_keeps_the_precision_that_auto_found(tmp_path, monkeypatch, capsys):
    clips = str(make_list(tmp_path / "clips", 4, 12))
    flags = [
        "--train_list",
        clips,
        "--verify_list",
        clips,
        "--maxFrames",
        "6",
        "--nBatchSize",
        "2",
        "--nOut",
        "8",
    ]
    flags += [
        "--model",
        "tinyModel",
        "--device",
        "cpu",
        "--save_path",
        str(tmp_path / "run"),
        "--precision",
        "auto",
    ]
    monkeypatch.setattr("SyncNetDist.faster_precision", lambda _: ("bf16", "it won"))
    assert trainSyncNet.main([*flags, "--max_epoch", "1"]) == 0
    assert "precision auto: bf16; it won" in capsys.readouterr().out
    assert "precision bf16" in (tmp_path / "run/result/scores.txt").read_text().splitlines()
    monkeypatch.setattr("SyncNetDist.faster_precision", lambda _: ("fp32", "it won"))
    assert trainSyncNet.main([*flags, "--max_epoch", "2"]) == 0
    said = capsys.readouterr().out
    assert "Going on in epoch 2" in said and "it won" not in said


PAGES = """
import ctypes, resource, sys
from support.memory import keep_memory
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
    root = Path(__file__).parent.parent
    new, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", PAGES, how], capture_output=True, text=True, cwd=root
            ).stdout
        )
        for how in ("give back", "keep")
    )
    assert new > 20 and kept < 5


PREFERENCES = """
import os
from support.memory import HUGE_PAGES, keep_memory, prefer_huge_pages
prefer_huge_pages(True)
before = os.environ[HUGE_PAGES]
assert keep_memory()
print(before, os.environ[HUGE_PAGES])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_huge_pages_are_for_memory_that_is_not_kept():
    root = Path(__file__).parent.parent
    for given, expected in (({}, "1 0"), ({HUGE_PAGES: "1"}, "1 1"), ({HUGE_PAGES: "0"}, "0 0")):
        environment = {name: value for name, value in os.environ.items() if name != HUGE_PAGES} | given
        said = subprocess.run(
            [sys.executable, "-c", PREFERENCES], capture_output=True, text=True, cwd=root, env=environment
        )
        assert said.stdout.strip() == expected, said.stderr


def test_no_gradients_are_left_to_break_up_the_memory_of_the_next_step():
    network = SyncNet(model="tinyModel", nOut=4, device="cpu")
    video, audio = torch.randint(0, 256, (2, 3, 6, 224, 224)).float(), 1000 * torch.randn(2, 6 * 640 + 240)
    before = network.__S__.voice.weight.clone()
    network.update(network(video, audio, 1.0, 1.0)[0])
    assert not torch.equal(network.__S__.voice.weight, before)
    assert all(parameter.grad is None for parameter in network.parameters())
