"""Every public function on a network that is not on the CPU.

There is no GPU here. PyTorch's fake tensors have a device, a dtype and a shape but no memory, and raise what CUDA
tensors raise when devices are mixed. They are private to PyTorch: where they have changed, these tests are skipped.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clipMaker import make_clip, make_wav
from torch import nn

from inferSyncNet import embed, export, lse, offset, verify
from syncnet.inference import onnx_file as exporting
from syncnet.inference.match import match
from syncnet.media.clips import Clip
from syncnet.networks.interface import Streams
from SyncNetDist import SyncNet

T, N_OUT = 12, 16
GPU = torch.device("cuda", 0)
NETWORKS = ("models.SyncNetModelFBank", "models.SyncNetModelMFCC", "models.SyncNetV2")


def fake_mode():
    """Fake tensors; skips the test where they are no longer there."""
    module = pytest.importorskip("torch._subclasses.fake_tensor")
    return module.FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture
def fake(monkeypatch) -> Iterator[None]:
    """A CUDA device that fake tensors can be on, and pictures and sounds of one shape for all files."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU; the other tests use it")
    if not hasattr(torch._C, "_ensureCUDADeviceGuardSet"):
        pytest.skip("this PyTorch has no device guard for fake CUDA tensors")
    torch._C._ensureCUDADeviceGuardSet()
    for name, value in (
        ("is_available", True),
        ("device_count", 1),
        ("current_device", 0),
        ("is_current_stream_capturing", True),  # the fused optimizer asks for it
    ):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: True)  # are the gradients finite?
    monkeypatch.setattr(nn.Module, "_apply", apply)
    with fake_mode():
        try:
            x = torch.ones(2, device=GPU)
            assert (x + x).device == GPU
            with pytest.raises(RuntimeError, match="device"):
                x + torch.ones(2)
        except Exception as error:
            pytest.skip(f"fake CUDA tensors have changed: {error}")
        yield


def another(tensor: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """A tensor like this one. A fake torch.tensor(0) itself holds a real one, which cannot be moved."""
    size, stride = tensor.size(), tensor.stride()
    return torch.empty_strided(size, stride, dtype=tensor.dtype, device=device or tensor.device)


def apply(
    module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
) -> nn.Module:
    """nn.Module._apply, which moves a module, without a swap of tensors that fake ones do not allow."""
    assert recurse
    for part in module.modules():
        for tensors, kind in ((part._parameters, nn.Parameter), (part._buffers, lambda tensor: tensor)):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = kind(change(another(tensor)))
        plain = [name for name, value in vars(part).items() if isinstance(value, torch.Tensor)]
        assert not plain, f"{type(part).__name__}.{plain[0]} would stay where it is: register it as a buffer"
    return module


@pytest.fixture(params=NETWORKS)
def made(request) -> SyncNet:
    return SyncNet(request.param, nOut=N_OUT, maxFrames=T, temporal_stride=2, device="cpu")


@pytest.fixture
def on_gpu(made, fake) -> SyncNet:  # noqa: ARG001
    """A network on the fake device. Made on the CPU first, since a real one is."""
    return moved_network(made)


def moved_network(network: SyncNet) -> SyncNet:
    apply(network, lambda tensor: another(tensor, GPU))
    network.device, network.steps_per_fetch = GPU, 10
    settings = network.__optimizer__.defaults | {"fused": False}  # which fake tensors do not have
    network.__optimizer__ = type(network.__optimizer__)(network.parameters(), **settings)
    return network


def batch(frames: int = T) -> tuple[torch.Tensor, torch.Tensor]:
    video = torch.zeros(4, frames, 224, 224, 3, dtype=torch.uint8, device=GPU).permute(0, 4, 1, 2, 3)
    return video, torch.zeros(4, frames * 640 + 240, device=GPU)


@pytest.mark.parametrize(
    ("precision", "distance"), [("fp32", "cosine"), ("tf32", "euclidean"), ("bf16", "cosine")]
)
def test_losses_and_a_step(on_gpu, monkeypatch, precision, distance):
    """The gradients are made here: autograd has no threads for a device that is not there."""
    on_gpu.precision, on_gpu.distance = precision, distance

    def backward(_total: torch.Tensor) -> None:
        for parameter in on_gpu.parameters():
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    on_gpu.train()
    for alpI, alpD in ((1.0, 0.0), (1.0, 1.0)) if on_gpu.has_identity else ((0.0, 0.0),):
        total, row = on_gpu(*batch(), 1.0, alpI, alpD)
        assert total.device == row.device == GPU and total.dtype == torch.float32
        on_gpu.update(total)


@pytest.mark.parametrize("crop", ["face", "mouth"])
def test_identity_vectors(on_gpu, crop):
    on_gpu.__S__.crop = crop
    if not on_gpu.has_identity:
        return
    for crops in (torch.zeros(5, T * 640 + 240), torch.zeros(5, 3, T, 224, 224, dtype=torch.uint8)):
        found = on_gpu.identity_vectors(crops, 2)
        assert found.shape == (5, N_OUT) and found.device.type == "cpu"


def noise_like(tensor: torch.Tensor, **_: object) -> np.ndarray:
    """In the place of Tensor.numpy: fake tensors have no values."""
    assert tensor.device.type == "cpu", "a tensor on a GPU has no numpy()"
    return np.random.default_rng(0).standard_normal(tuple(tensor.shape)).astype(np.float32)


@pytest.fixture
def clips(tmp_path) -> list[Clip]:
    found = []
    for k in range(4):
        clip = Clip(str(tmp_path / f"id{k}/a/{k}.mp4"), str(tmp_path / f"id{k}/a/{k}.wav"), 0, 30)
        make_clip(clip.video, 50)
        make_wav(clip.audio, 50 * 640)
        found.append(clip)
    return found


def calls(network: SyncNet, clips: list[Clip], tmp_path) -> dict[str, Callable[[], object]]:
    """Everything that inferSyncNet.py gives to other programs, and scoring of a list."""
    sounds, videos = [clip.audio for clip in clips], [clip.video for clip in clips]
    trials = tmp_path / "trials.txt"
    trials.write_text(f"1 {sounds[0]} {sounds[1]}\n0 {sounds[0]} {sounds[2]}\n")
    found = {
        "offset": lambda: offset(network, videos[0], sounds[0], 3),
        "lse": lambda: lse(network, videos[0], sounds[0], 3),
    }
    if network.has_identity:
        found |= {
            "embed voices": lambda: embed(network, sounds, num_eval=2),
            "embed faces": lambda: embed(network, videos, True, 2),
            "verify": lambda: verify(network, *sounds[:2], num_eval=2),
            "match": lambda: match(network, clips, [2], 2),
            "score": lambda: network.evaluateFromListSave(str(trials), num_eval=2),
        }
    return found


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
def test_functions_of_inference(made, clips, tmp_path, request, monkeypatch):
    names = list(calls(made, clips, tmp_path))
    request.getfixturevalue("fake")
    monkeypatch.setattr(torch.Tensor, "numpy", noise_like)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda _: 0.5)
    network = moved_network(made)
    for name in names:
        result = calls(network, clips, tmp_path)[name]()
        assert result is not None, name


def test_export_computes_on_the_cpu(on_gpu, tmp_path, monkeypatch):
    """Of a copy: the network stays where it is."""
    seen = []

    class Stop(Exception):
        pass

    def exported(streams: Streams, *_: object) -> None:
        seen.extend(tensor.device.type for tensor in (*streams.parameters(), *streams.buffers()))
        raise Stop

    monkeypatch.setattr(exporting, "import_packages", SimpleNamespace)
    monkeypatch.setattr(exporting, "Exported", exported)
    with pytest.raises(Stop):
        export(on_gpu, "voice", "content", str(tmp_path / "x.onnx"))
    assert set(seen) == {"cpu"}
    assert {tensor.device for tensor in on_gpu.__S__.parameters()} == {GPU}


@pytest.fixture
def two_processes(fake) -> Iterator[None]:  # noqa: ARG001
    """A process group of two whose other process never answers, and batch norm over processes on fake tensors."""
    group = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    library = torch.library.Library("aten", "IMPL", "Meta")

    def statistics(x: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        return x.new_empty(x.shape[1], dtype=torch.float32), x.new_empty(x.shape[1], dtype=torch.float32)

    try:
        library.impl("batch_norm_stats", statistics)
        library.impl("batch_norm_gather_stats_with_counts", statistics)
        library.impl("batch_norm_elemt", lambda x, *_: torch.empty_like(x))
        torch.distributed.init_process_group("fake", rank=0, world_size=2, store=group.FakeStore())
    except Exception as error:
        pytest.skip(f"the fake process group has changed: {error}")
    yield
    torch.distributed.destroy_process_group()
    library._destroy()


def test_losses_over_several_processes(made, request, monkeypatch):
    """All that is exchanged is on the device of the network; the other process's embeddings count."""
    made.__S__ = nn.SyncBatchNorm.convert_sync_batchnorm(made.__S__)
    request.getfixturevalue("two_processes")
    network, devices = moved_network(made), []
    names = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_single", "broadcast")
    for name in filter(torch.distributed.__dict__.__contains__, names):
        real = getattr(torch.distributed, name)

        def exchanged(*args, real=real, **kwargs):
            for argument in args:
                parts = argument if isinstance(argument, (list, tuple)) else [argument]
                devices.extend(part.device for part in parts if isinstance(part, torch.Tensor))
            return real(*args, **kwargs)

        monkeypatch.setattr(torch.distributed, name, exchanged)
    network.train()
    total, _ = network(*batch(), 1.0, float(network.has_identity), 0.0)
    assert total.device == GPU and set(devices) == {GPU}
