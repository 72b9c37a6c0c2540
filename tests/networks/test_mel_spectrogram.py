"""The mel filterbank: torchaudio's and its substitute give the same features, and one always loads."""

import importlib
import importlib.util
import sys
from pathlib import Path

import processes
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import models.SyncNetModelFBank
from models.SyncNetModelFBank import SyncNetModel
from syncnet.media.clips import SAMPLE_RATE
from syncnet.networks import mel_spectrogram
from syncnet.networks.mel_spectrogram import PlainMelSpectrogram
from syncnet.support.version import torchaudio_error, version_text

REPOSITORY = Path(__file__).parents[2]
NAMES = {"torchfb.spectrogram.window", "torchfb.mel_scale.fb"}
SETTINGS = {"sample_rate": SAMPLE_RATE, "n_fft": 512, "win_length": 400, "hop_length": 160}
SETTINGS |= {"f_min": 0.0, "f_max": 8000.0, "n_mels": 40}
needs_torchaudio = pytest.mark.skipif(
    torchaudio_error() is not None, reason=f"torchaudio: {torchaudio_error()}"
)


class Blocked:
    """A finder that fails to import torchaudio with a given error."""

    def __init__(self, error: Exception):
        self.error = error

    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torchaudio":
            raise self.error


@pytest.fixture
def blocked(monkeypatch):
    """A function that makes importing torchaudio raise its argument until the end of the test."""

    def block(error: Exception) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Blocked(error), *sys.meta_path])
        torchaudio_error.cache_clear()

    yield block
    torchaudio_error.cache_clear()


@pytest.fixture
def plain_network(monkeypatch):
    """The network with the substitute, in eval mode."""
    monkeypatch.setattr(models.SyncNetModelFBank, "MelSpectrogram", PlainMelSpectrogram)
    torch.manual_seed(0)
    return SyncNetModel(nOut=16).eval()


def random_audio(frames: int = 12) -> torch.Tensor:
    return torch.randn(2, frames * 640 + 240, generator=torch.Generator().manual_seed(1)) * 3000


@needs_torchaudio
def test_the_substitute_equals_torchaudio():
    from torchaudio.transforms import MelSpectrogram

    assert mel_spectrogram.MelSpectrogram is MelSpectrogram
    plain, reference = PlainMelSpectrogram(**SETTINGS), MelSpectrogram(**SETTINGS)
    assert [name for name, _ in plain.named_modules()] == [name for name, _ in reference.named_modules()]
    assert plain.state_dict().keys() == reference.state_dict().keys()
    for name, expected in reference.state_dict().items():
        torch.testing.assert_close(plain.state_dict()[name], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(plain(random_audio()), reference(random_audio()), rtol=1e-6, atol=0)


@needs_torchaudio
def test_networks_with_either_filterbank_are_interchangeable(plain_network):
    from torchaudio.transforms import MelSpectrogram

    models.SyncNetModelFBank.MelSpectrogram = MelSpectrogram  # restored by plain_network's monkeypatch
    other = SyncNetModel(nOut=16).eval()
    assert type(other.torchfb) is not type(plain_network.torchfb)
    other.load_state_dict(plain_network.state_dict(), strict=True)
    plain_network.load_state_dict(other.state_dict(), strict=True)
    torch.testing.assert_close(
        plain_network.features(random_audio()), other.features(random_audio()), rtol=0, atol=1e-6
    )


def test_names_in_a_checkpoint(plain_network):
    assert {name for name in plain_network.state_dict() if name.startswith("torchfb.")} == NAMES


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'torchaudio'"),
        OSError("Could not load this library:\nlibtorchaudio.so"),
        RuntimeError("operator torchaudio::x does not exist"),
        AttributeError("module 'torch' has no attribute 'x'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_torchaudio_is_replaced_if_it_does_not_load(error, blocked):
    blocked(error)
    spec = importlib.util.spec_from_file_location("models.another", mel_spectrogram.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.MelSpectrogram is module.PlainMelSpectrogram
    assert version_text().splitlines()[1:] == [
        "mel filterbank: syncnet/networks/mel_spectrogram.py (torchaudio cannot be loaded: "
        f"{type(error).__name__}: {' '.join(str(error).split())})"
    ]


def test_a_command_without_torchaudio(tmp_path):
    """The network is built, and --version says what it uses."""
    (tmp_path / "torchaudio.py").write_text("raise OSError('Could not load this library: libtorchaudio.so')")
    code = (
        "import runpy, sys; [sys.modules.pop(name) for name in [*sys.modules] if name[:10] == 'torchaudio']; "
    )
    code += f"sys.path.append({str(REPOSITORY)!r}); from SyncNetDist import SyncNet; "
    code += "print(SyncNet(nOut=8).__S__.torchfb); "
    code += f"runpy.run_path({str(REPOSITORY / 'trainSyncNet.py')!r}, run_name='__main__')"
    (tmp_path / "program.py").write_text(code)
    done = processes.run(tmp_path / "program.py", "--version", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "PlainMelSpectrogram" in done.stdout and "libtorchaudio.so)" in done.stdout.splitlines()[-1]


def test_fake_tensors(plain_network):
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = plain_network.features(torch.empty(2, 12 * 640 + 240))
    assert found.shape == (2, 1, 40, 48) and found.dtype == torch.float32


def test_compile_and_export(plain_network):
    """Both trace the whole front end without a graph break."""
    expected = plain_network.forward_aud(random_audio())
    compiled = torch.compile(plain_network.forward_aud, fullgraph=True, backend="eager")(random_audio())

    class Voice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = plain_network

        def forward(self, audio):
            return self.network.forward_aud(audio)

    exported = torch.export.export(Voice(), (random_audio(),)).module()(random_audio())
    for found in (compiled, exported):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
