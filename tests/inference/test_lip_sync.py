"""Lip sync: the published network and its distances against literal versions and the original's numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clipMaker import make_clip, make_wav
from oracle import recipe
from oracleCase import load_case, oracle_state
from python_speech_features import mfcc
from scipy.io import wavfile
from torch import Tensor

from DatasetLoader import get_frames
from inferSyncNet import load
from models import SyncNetV2
from syncnet.checkpoints.checkpoints import choose_settings
from syncnet.inference import embeddings, lip_sync
from syncnet.inference.embeddings import embed
from syncnet.inference.lip_sync import (
    beside_every_shift,
    chord,
    coefficient_blocks,
    euclidean,
    in_sync_confidence,
    lse,
    published_sound,
    summarize,
)
from syncnet.inference.offset import offset
from syncnet.inference.protocols import mean_interval
from syncnet.media.clips import MediaError
from syncnet.support.errors import UserError
from SyncNetDist import SyncNet

FRAMES = 9
CASE, ARRAYS = load_case("syncnet_v2")


# ---------------------------------------------------------------- the published way, a window at a time


def batch_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    parts = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{part}"] for part in parts))


def literal_sound(state: dict[str, Tensor], window: Tensor) -> Tensor:
    """(1, 1, 13, 20) -> (1, 1024)"""
    x = window
    for layer, padding in ((0, 1), (4, 1), (8, 1), (11, 1), (14, 1), (18, 0)):
        name = f"netcnnaud.{layer}"
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)
        x = batch_norm(x, state, f"netcnnaud.{layer + 1}").relu()
        if layer == 4:
            x = F.max_pool2d(x, 3, (1, 2))
        if layer == 14:
            x = F.max_pool2d(x, 3, 2)
    return literal_head(state, "netfcaud", x.flatten(1))


def literal_lips(state: dict[str, Tensor], window: Tensor) -> Tensor:
    """(1, 3, 5, 224, 224) -> (1, 1024)"""
    x = window
    shapes = {0: ((1, 2, 2), 0), 4: ((1, 2, 2), (0, 1, 1)), 18: (1, 0)}
    for layer in (0, 4, 8, 11, 14, 18):
        name = f"netcnnlip.{layer}"
        stride, padding = shapes.get(layer, (1, (0, 1, 1)))
        x = F.conv3d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)
        x = batch_norm(x, state, f"netcnnlip.{layer + 1}").relu()
        if layer in (0, 14):
            x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2))
        if layer == 4:
            x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    return literal_head(state, "netfclip", x.flatten(1))


def literal_head(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = F.linear(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"])
    x = batch_norm(x, state, f"{name}.1").relu()
    return F.linear(x, state[f"{name}.3.weight"], state[f"{name}.3.bias"])


def literal_distances(lips: Tensor, sounds: Tensor, most: int) -> np.ndarray:
    padded = F.pad(sounds, (0, 0, most, most))
    rows = [
        F.pairwise_distance(lip.repeat(2 * most + 1, 1), padded[i : i + 2 * most + 1])
        for i, lip in enumerate(lips)
    ]
    return torch.stack(rows).numpy()


# ---------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> str:
    """A checkpoint as the published one is: the network's own names, in the old format of torch.save."""
    path = str(tmp_path_factory.mktemp("v2") / "syncnet_v2.model")
    torch.save(oracle_state(CASE, ARRAYS, CASE["shapes"]), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def network(published) -> SyncNet:
    return load(published, device="cpu")


@pytest.fixture(scope="module")
def track(tmp_path_factory) -> tuple[str, str]:
    """A video and its wav; the sound is a little longer."""
    folder = tmp_path_factory.mktemp("track")
    make_clip(str(folder / "a.mp4"), FRAMES, first=37)
    sound = recipe.audio((CASE["seed"], "track"), 1, FRAMES * 640 + 300)[0]
    wavfile.write(folder / "a.wav", 16000, sound.astype(np.int16))
    return str(folder / "a.mp4"), str(folder / "a.wav")


# ---------------------------------------------------------------- the published network


def test_names_and_shapes_are_the_published_ones():
    found = {name: list(tensor.shape) for name, tensor in SyncNetV2.SyncNetModel().state_dict().items()}
    assert found == CASE["shapes"]


def test_a_track_is_measured_as_the_published_way_measures_it(network, track, monkeypatch):
    video, wav = track
    state = oracle_state(CASE, ARRAYS, CASE["shapes"])
    coefficients = torch.from_numpy(mfcc(wavfile.read(wav)[1], 16000)).float().T[None, None]
    pixels = get_frames(video, FRAMES, 0).float()
    windows = range(FRAMES - 5)
    with torch.no_grad():
        lips = torch.cat([literal_lips(state, pixels[:, :, i : i + 5]) for i in windows])
        sounds = torch.cat([literal_sound(state, coefficients[..., 4 * i : 4 * i + 20]) for i in windows])
    for most in (15, 3):
        distances = literal_distances(lips, sounds, most)
        means = distances.mean(0)
        chosen = means.argmin()
        curve = np.pad(np.median(means) - distances[:, chosen], 4)
        curve = [np.median(curve[i : i + 9]) for i in windows]
        found = lse(network, video, wav, max_offset=most)
        np.testing.assert_allclose(found.mean_distances, means, rtol=1e-5)
        np.testing.assert_allclose(found.confidences, curve, atol=1e-3)
        assert (found.offset, found.frames) == (most - chosen, FRAMES)
        assert found.lse_d == pytest.approx(means.min(), rel=1e-5)
        assert found.lse_c == pytest.approx(np.median(means) - means.min(), abs=1e-3)

    monkeypatch.setattr(lip_sync, "COEFFICIENTS_AT_ONCE", 7)
    again = lse(network, video, wav, max_offset=most, batch=1)
    np.testing.assert_allclose(again.mean_distances, found.mean_distances, rtol=1e-6)
    np.testing.assert_allclose(again.confidences, found.confidences, atol=1e-3)


def test_forward_gives_each_window_by_itself(network, track):
    state = oracle_state(CASE, ARRAYS, CASE["shapes"])
    sounds = torch.from_numpy(recipe.audio((CASE["seed"], "forward"), 2, 6 * 640 + 240))
    pixels = get_frames(track[0], 6, 0)
    with torch.no_grad():
        heard, seen = network.__S__.forward_aud(sounds)[0], network.__S__.forward_vid(pixels)[0]
        assert heard.shape == (2, 1024, 2) and seen.shape == (1, 1024, 2)
        for i in range(2):
            windows = network.__S__.mfcc(sounds)[..., 4 * i : 4 * i + 20]
            torch.testing.assert_close(heard[:, :, i], literal_sound(state, windows), rtol=1e-4, atol=1e-4)
            window = pixels[:, :, i : i + 5].float()
            torch.testing.assert_close(seen[:, :, i], literal_lips(state, window), rtol=1e-4, atol=1e-4)


def test_the_checkpoint_is_known_by_what_is_in_it(network, published, tmp_path, capsys):
    assert network.settings.model == "models.SyncNetV2"
    for name, tensor in oracle_state(CASE, ARRAYS, CASE["shapes"]).items():
        assert torch.equal(network.__S__.state_dict()[name], tensor)
    again = SyncNet(model="models.SyncNetV2", device="cpu")
    assert not again.loadParameters(published).shape and capsys.readouterr().out == ""
    again.saveParameters(str(tmp_path / "own.model"))
    assert choose_settings(str(tmp_path / "own.model"), {})[0].model == "models.SyncNetV2"
    SyncNet(nOut=16, device="cpu").saveParameters(str(tmp_path / "other.model"))
    assert choose_settings(str(tmp_path / "other.model"), {})[0].model == "models.SyncNetModelFBank"


def test_identities_are_refused(network, track):
    with pytest.raises(UserError, match="has no identity heads"):
        network.__S__.forward_vid(get_frames(track[0], 5, 0), identity=True)
    for use in (
        lambda: embed(network, [track[1]], num_eval=1),
        lambda: network.embed([track[1]], num_eval=1),
    ):
        network.maxFrames = 5
        with pytest.raises(UserError, match="has no identity heads"):
            use()


def test_it_trains_for_lip_sync_alone():
    torch.manual_seed(0)
    model = SyncNet(model="models.SyncNetV2", nOut=8, device="cpu", learning_rate=0.01).train()
    video = torch.randint(0, 256, (1, 3, 6, 224, 224), dtype=torch.uint8)
    audio = torch.from_numpy(recipe.audio((CASE["seed"], "train"), 1, 6 * 640 + 240))
    total, _ = model(video, audio, 1.0, 0.0)
    total.backward()
    assert total.isfinite() and model.__S__.netcnnaud[0].weight.grad.any()
    with pytest.raises(UserError, match="has no identity heads"):
        model(video, audio, 1.0, 1.0)


# ---------------------------------------------------------------- distances and figures


@pytest.mark.parametrize("name", CASE["clips"])
def test_figures_follow_from_the_distances_as_in_the_original(name):
    expected = CASE["clips"][name]
    found = summarize(np.array([expected["mean_distances"]]), expected["frames"])
    assert found.offset == expected["offset"]
    assert found.lse_d == pytest.approx(expected["min_distance"], rel=1e-6)
    assert found.lse_c == pytest.approx(expected["confidence"], rel=1e-5)


@pytest.mark.parametrize("distance", [euclidean, chord])
@pytest.mark.parametrize("late", [-6, -1, 0, 3, 6])
def test_equal_vectors_at_a_known_shift(distance, late):
    """Lips i are sound i - late: the picture is `late` frames later."""
    windows, most = 40, 6
    draws = F.normalize(torch.randn(60, 32, generator=torch.Generator().manual_seed(2)))
    lips, sounds = draws[10 - late :][:windows], draws[10:][:windows]
    rows = [distance(*pair) for pair in beside_every_shift(lips.split(7), iter(sounds.split(11)), most)]
    distances = torch.cat(rows).numpy()
    assert distances.shape == (windows, 2 * most + 1)
    for i, k in ((0, 0), (0, -most), (5, 2), (windows - 1, 0), (windows - 1, most)):
        there = 0 <= i + k < windows
        nothing = 1.0 if distance is euclidean else 2**0.5
        expected = float((lips[i] - sounds[i + k]).norm()) if there else nothing
        assert distances[i, k + most] == pytest.approx(expected, abs=2e-3)

    found = summarize(distances, windows + 5)
    means = distances.astype(np.float64).mean(0)
    outside = abs(late) / windows * nothing  # as many windows have no sound at that shift
    assert found.offset == late and found.lse_d == pytest.approx(outside, abs=2e-3)
    assert found.lse_c == pytest.approx(np.median(means) - outside, abs=2e-3)
    assert found.confidences[windows // 2] == pytest.approx(np.median(means), abs=2e-3)


def test_frames_out_of_sync_have_a_low_confidence():
    distances = np.full((60, 31), 10.0)
    distances[:, 15] = 4
    distances[30:45, 15] = 11
    confidences = summarize(distances, 65).confidences
    assert (confidences[10:26] == 6).all() and (confidences[35:40] == -1).all()
    distances[20, 15] = 11  # a single frame does not count
    assert (summarize(distances, 65).confidences[10:26] == 6).all()


def test_memory_holds_only_the_sounds_that_are_needed():
    asked = []

    def sounds():
        for number in range(100):
            asked.append(number)
            yield torch.full((10, 4), float(number))

    for number, (_, beside) in enumerate(beside_every_shift(torch.zeros(1000, 4).split(20), sounds(), 15)):
        assert beside.untyped_storage().nbytes() <= (20 + 30 + 10) * 4 * 4
        assert len(asked) * 10 <= min(1000, 20 * (number + 1) + 15 + 10)


def test_a_long_sound_leaves_the_callers_precision_alone(monkeypatch):
    """Between two blocks of sound, distances are computed: without autocast, whatever the network's precision."""
    monkeypatch.setattr(embeddings, "BLOCK", 4)
    bf16 = SyncNet(model="tinyModel", nOut=4, device="cpu", precision="bf16")
    published = SyncNet(model="models.SyncNetV2", device="cpu", precision="bf16")
    samples = np.random.default_rng(0).integers(-999, 999, 640 * 14, np.int16)
    for sounds in (embeddings.voice_windows(bf16, samples), published_sound(published, samples, 6, 2)):
        found = [(torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()) for _ in sounds]
        assert found == [(False, False)] * 3


def test_coefficients_of_a_long_sound_are_those_of_the_whole(network, monkeypatch):
    monkeypatch.setattr(lip_sync, "COEFFICIENTS_AT_ONCE", 30)
    samples = recipe.audio((CASE["seed"], "long"), 1, 16000)[0].astype(np.int16)
    blocks = list(coefficient_blocks(network.__S__, samples, 95, network.device))
    assert [block.shape[3] for block in blocks] == [30, 30, 30, 5]
    np.testing.assert_allclose(torch.cat(blocks, 3)[0, 0].T, mfcc(samples, 16000)[:95], atol=1e-3)


def test_means_over_tracks_and_their_interval():
    figures = np.random.default_rng(3).normal([7, 5], [1, 2], (400, 2))
    mean = figures.mean(0)
    low, high = mean_interval(figures)
    expected = 1.96 * figures.std(0) / 20
    np.testing.assert_allclose(mean - low, expected, rtol=0.15)
    np.testing.assert_allclose(high - mean, expected, rtol=0.15)


# ---------------------------------------------------------------- networks of this program


@pytest.mark.parametrize("late", [-4, 0, 5])
def test_another_network_finds_the_offset_that_a_list_needs(clock, tmp_path, late):
    video, wav = str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")
    make_clip(video, 50, first=20)
    make_wav(wav, 50 * 640, first=(20 + late) * 640)
    found = lse(clock, video, wav, batch=8)
    assert found.offset == late + 1 == offset(clock, video, wav).frames
    assert len(found.mean_distances) == 31 and found.lse_c > 1 and found.frames == 50
    assert lse(clock, video, wav, batch=50).lse_c == pytest.approx(found.lse_c, abs=1e-6)


@pytest.mark.parametrize("edge", [-3, 3])
def test_another_network_is_searched_as_far_either_way(clock, tmp_path, edge):
    video, wav = str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")
    make_clip(video, 30, first=20)
    make_wav(wav, 30 * 640, first=(20 + edge - 1) * 640)
    for most in (3, 4):
        assert lse(clock, video, wav, most).offset == edge == offset(clock, video, wav, most).frames
    assert abs(lse(clock, video, wav, 2).offset) <= 2 and lse(clock, video, wav, 1).lse_d > 0.3


@pytest.mark.parametrize(
    ("frames", "samples", "message"),
    [
        (5, 6400, "a.mp4: 5 frames, lip sync needs 6"),
        (10, 5 * 640 + 600, "a.wav: 5 frames of sound, lip sync needs 6"),
        (10, 0, "a.wav: silent"),
    ],
)
def test_tracks_that_cannot_be_measured_are_named(tmp_path, frames, samples, message):
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    make_clip(str(tmp_path / "a.mp4"), frames)
    make_wav(str(tmp_path / "a.wav"), samples)
    with pytest.raises(MediaError, match=message):
        lse(network, str(tmp_path / "a.mp4"), str(tmp_path / "a.wav"))


def test_six_frames_are_enough(network, tmp_path):
    make_clip(str(tmp_path / "a.mp4"), 6)
    make_wav(str(tmp_path / "a.wav"), 6 * 640)
    assert len(lse(network, str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")).confidences) == 1
    tiny = SyncNet(model="tinyModel", nOut=8, device="cpu")
    assert lse(tiny, str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")).frames == 6


def test_each_network_has_its_own_confidence_of_a_face_in_sync():
    published = SyncNet("models.SyncNetV2", nOut=8, device="cpu")
    assert in_sync_confidence(published) == 3.0
    assert in_sync_confidence(SyncNet("tinyModel", nOut=8, device="cpu")) == 0.15
