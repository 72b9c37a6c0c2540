"""The MFCC network: its front end compared with python_speech_features, its shapes and names."""

import numpy as np
import pytest
import torch
from python_speech_features import mfcc

from models import SyncNetModelFBank, SyncNetModelMFCC
from syncnet.media.crops import WINDOW_TAIL
from SyncNetDist import SyncNet

FRAMES = 30
SAMPLES = FRAMES * 640 + WINDOW_TAIL


def speech_like(seed: int) -> np.ndarray:
    """Pulses at a gliding pitch through two resonances, with syllables and a little noise: int16."""
    draws = np.random.default_rng(seed)
    time = np.arange(SAMPLES) / 16000
    phase = np.cumsum(120 + 40 * draws.random() + 30 * np.sin(2 * np.pi * 1.5 * time)) / 16000
    pulses = np.diff(np.floor(phase), prepend=0)
    sound = np.zeros(SAMPLES)
    for centre in draws.uniform(300, 3500, 3):
        length = np.arange(400)
        sound += np.convolve(pulses, np.exp(-length / 80) * np.cos(2 * np.pi * centre / 16000 * length))[
            :SAMPLES
        ]
    sound *= 2500 * (0.05 + np.clip(np.sin(2 * np.pi * 4 * time), 0, None))
    return (sound + draws.normal(0, 5, SAMPLES)).clip(-32768, 32767).astype(np.int16)


def half_silent() -> np.ndarray:
    sound = speech_like(7)
    sound[SAMPLES // 2 :] = 0
    return sound


SOUNDS = {
    "speech-like": speech_like(1),
    "another": speech_like(2),
    "silent": np.zeros(SAMPLES, np.int16),
    "half silent": half_silent(),
    "one step of noise": np.random.default_rng(3).integers(-1, 2, SAMPLES).astype(np.int16),
    "a constant": np.full(SAMPLES, 1000, np.int16),
    "full scale": np.where(np.arange(SAMPLES) % 2, 32767, -32768).astype(np.int16),
}


def network(stride: int = 1) -> SyncNetModelMFCC.SyncNetModel:
    return SyncNetModelMFCC.SyncNetModel(nOut=8, stride=stride)


@pytest.mark.parametrize("name", SOUNDS)
def test_numbers_of_python_speech_features(name):
    found = network().features(torch.from_numpy(SOUNDS[name]).float()[None])
    expected = mfcc(SOUNDS[name], 16000)
    assert found.shape == (1, 1, 13, 4 * FRAMES) and expected.shape == (4 * FRAMES, 13)
    np.testing.assert_allclose(found[0, 0].T, expected, atol=1e-3, rtol=0)


def test_a_batch_equals_single_clips_also_under_autocast():
    sounds = torch.from_numpy(np.stack(list(SOUNDS.values()))).float()
    model = network()
    one_by_one = torch.cat([model.features(sound[None]) for sound in sounds])
    with torch.autocast("cpu", torch.bfloat16):
        together = model.features(sounds)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=0)


def test_no_gradient_goes_through_the_front_end():
    audio = torch.from_numpy(SOUNDS["speech-like"]).float()[None].requires_grad_()
    assert not network().features(audio).requires_grad


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_both_networks_and_streams_give_the_same_number_of_embeddings(stride):
    modules = (SyncNetModelFBank, SyncNetModelMFCC)
    models = [module.SyncNetModel(8, stride).to("meta") for module in modules]  # shapes without computing
    for frames in (*range(10, 18), 50, 61):
        expected = (1, 512, (frames - 5) // stride + 1)
        for model, bands in zip(models, (40, 13), strict=True):
            trunk = model.netcnnaud(torch.empty(1, 1, bands, 4 * frames, device="meta"))
            assert trunk.squeeze(2).shape == expected
            lips = model.netcnnlip(torch.empty(1, 3, frames, 224, 224, device="meta"))
            assert lips.squeeze(4).squeeze(3).shape == expected


def test_names_and_shapes_of_the_layers():
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in SyncNet(model="models.SyncNetModelMFCC", device="cpu").state_dict().items()
    }
    convolutions = {
        0: (64, 1, 3, 3), 4: (192, 64, 3, 3), 8: (384, 192, 3, 3), 11: (256, 384, 3, 3),
        14: (256, 256, 3, 3), 18: (512, 256, 5, 4),
    }  # fmt: skip
    prefix = "__S__.netcnnaud."
    found = {
        int(name[len(prefix) :].split(".")[0]): shape
        for name, shape in shapes.items()
        if name.startswith(prefix) and len(shape) == 4
    }
    assert found == convolutions
    # All but the audio trunk and the front end are the first network's.
    other = {name: tuple(tensor.shape) for name, tensor in SyncNet(device="cpu").state_dict().items()}
    assert {name: shape for name, shape in shapes.items() if not name.startswith(prefix)} == {
        name: shape
        for name, shape in other.items()
        if not name.startswith(prefix) and not name.startswith("__S__.torchfb.")
    }


def test_it_trains():
    torch.manual_seed(0)
    model = SyncNet(model="models.SyncNetModelMFCC", nOut=8, device="cpu", learning_rate=0.01).train()
    video = torch.randint(0, 256, (2, 3, 6, 224, 224), dtype=torch.uint8)
    audio = torch.from_numpy(np.stack([SOUNDS["speech-like"], SOUNDS["silent"]])[:, : 6 * 640 + 240]).float()
    total, _ = model(video, audio, 1.0, 1.0)
    total.backward()
    assert total.isfinite() and all(p.grad.isfinite().all() for p in model.parameters())
    assert model.__S__.netcnnaud[0].weight.grad.any()
