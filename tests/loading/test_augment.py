"""Augmentation: levels and places to the sample, the same draws with any number of threads, off by default."""

import copy
import math
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import make_clip, make_list, make_sound, make_wav, noise, sample_number
from scipy import signal
from scipy.io import wavfile

import trainSyncNet
from DatasetLoader import DatasetLoader
from syncnet.loading.augment import Augmentation, SoundFolder, add_noise, first_channel, reverberate
from syncnet.media.sound import decode_audio
from syncnet.support.errors import UserError
from syncnet.training.flags import parse_args
from syncnet.training.loaders import make_loaders

T = 6
SAMPLES = T * 640 + 240
TONES = {"noise/free-sound": 500, "music/fma": 1000, "speech/librivox": 2000, "elsewhere": 4000}  # Hz
RANGES = {500: (0, 15), 1000: (5, 15), 2000: (13, 20), 4000: (5, 15)}  # dB


def tone(path: Path, frequency: float, samples: int = 16000, loudness: float = 1000.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = loudness * np.sin(2 * np.pi * frequency * np.arange(samples) / 16000)
    wavfile.write(path, 16000, np.round(wave).astype(np.int16))


@pytest.fixture(scope="module")
def noises(tmp_path_factory) -> Path:
    """MUSAN's layout, one tone a folder, in loudnesses that differ; texts beside it as there."""
    folder = tmp_path_factory.mktemp("noises") / "musan"
    for k, (name, frequency) in enumerate(TONES.items()):
        tone(folder / name / f"{k}.wav", frequency, loudness=300 * (k + 1))
        (folder / name / "LICENSE").write_text("free")
    return folder


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rooms")
    for k in range(3):
        make_room(folder / f"{k}.wav", seed=k)
    return folder


def make_room(path: Path, seed: int = 0, direct: int = 40, samples: int = 3000) -> np.ndarray:
    """Write a response with its direct sound at sample `direct` and a tail that fades; as int16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tail = np.random.default_rng(seed).standard_normal(samples) * np.exp(-np.arange(samples) / 400)
    response = np.where(np.arange(samples) > direct, 3000 * tail, 0)
    response[direct] = 30000
    wavfile.write(path, 16000, response.round().astype(np.int16))
    return response.round()


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 8, 14)


def loader(clip_list, threads=2, **settings) -> DatasetLoader:
    settings = {"nPerEpoch": 8, "nBatchSize": 2, "maxFrames": T} | settings
    return DatasetLoader(str(clip_list), nDataLoaderThread=threads, **settings)


@pytest.fixture
def everything(noises, rooms) -> dict:
    return {"augment_noise": str(noises), "augment_rir": str(rooms), "augment_prob": 0.8, "flip": True}


def batches(reader, epochs: int = 1) -> list:
    return [(video.clone(), audio.clone()) for _ in range(epochs) for video, audio in reader]


def same(some: list, others: list) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


# --- noise


def speech(seed: int = 0, samples: int = SAMPLES) -> np.ndarray:
    return (2000 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def decibels(of: np.ndarray, over: np.ndarray) -> float:
    return 10 * math.log10((of.astype(float) ** 2).sum() / (over.astype(float) ** 2).sum())


def test_signal_to_noise_ratios_are_as_drawn(noises):
    found = {frequency: [] for frequency in RANGES}
    augmentation = Augmentation(noise=str(noises), probability=1)
    for k in range(500):
        clean = speech(k)
        noisy = clean.copy()
        augmentation.change(np.random.default_rng(k), np.empty(0), noisy)
        added = noisy - clean
        spectrum = np.abs(np.fft.rfft(added * np.hanning(SAMPLES)))
        frequency = min(RANGES, key=lambda f: abs(f - spectrum.argmax() * 16000 / SAMPLES))
        found[frequency].append(decibels(clean, added))
    for frequency, (low, high) in RANGES.items():
        ratios = found[frequency]
        assert len(ratios) > 80
        assert low - 0.01 < min(ratios) < low + 1 and high - 1 < max(ratios) < high + 0.01
        assert abs(np.mean(ratios) - (low + high) / 2) < 1.5


@pytest.mark.parametrize("snr", [-3.0, 0.0, 12.5])
def test_a_ratio_is_met(snr):
    clean, added = speech(1), np.full(SAMPLES, 7.0, np.float32)
    noisy = clean.copy()
    add_noise(noisy, added, snr)
    assert noisy.dtype == np.float32 and decibels(clean, noisy - clean) == pytest.approx(snr, abs=1e-3)
    assert np.ptp(noisy - clean) < 0.01  # the noise is scaled, nothing else


def test_the_folder_that_is_given_may_be_one_of_musan(noises):
    folder = SoundFolder("--augment_noise", str(noises / "speech"), False, decode_audio)
    assert [(sound.name, sound.snrs) for sound in folder.sounds] == [("librivox/2.wav", (13, 20))]


def test_inner_folder_names_take_precedence_over_the_given_one(tmp_path):
    for name in ("noise/a.wav", "other/b.wav"):
        tone(tmp_path / "Speech" / name, 300)
    folder = SoundFolder("--augment_noise", str(tmp_path / "Speech"), False, decode_audio)
    assert [sound.snrs for sound in folder.sounds] == [(0, 15), (13, 20)]


def test_a_fingerprint_covers_names_sizes_and_levels(noises, tmp_path):
    def fingerprint(folder: Path) -> str:
        return Augmentation(noise=str(folder)).fingerprints()["content of --augment_noise"]

    copy = tmp_path / "elsewhere"
    shutil.copytree(noises, copy)
    assert fingerprint(copy) == fingerprint(noises)
    tone(copy / "noise/free-sound/0.wav", 500, samples=16001)
    longer = fingerprint(copy)
    (copy / "music").rename(copy / "tunes")
    renamed = fingerprint(copy)
    copy.rename(tmp_path / "speech")
    assert len({fingerprint(noises), longer, renamed, fingerprint(tmp_path / "speech")}) == 4


def test_the_name_of_a_folder_of_rooms_does_not_matter(rooms, tmp_path):
    found = set()
    for name in ("rooms", "noise", "music"):
        shutil.copytree(rooms, tmp_path / name)
        found.add(Augmentation(rir=str(tmp_path / name)).fingerprints()["content of --augment_rir"])
    assert len(found) == 1


def test_only_a_segment_of_a_long_wav_is_read(tmp_path, monkeypatch):
    make_wav(str(tmp_path / "long.wav"), 60000)
    folder = SoundFolder("--augment_noise", str(tmp_path), False, None)  # without a decoder
    (sound,) = folder.sounds
    monkeypatch.setattr(SoundFolder, "read", None)
    firsts = []
    for k in range(200):
        stretch = folder.read_segment(sound, np.random.default_rng(k), 5000)
        assert stretch.dtype == np.float32 and (np.diff(stretch) == 1).all() and len(stretch) == 5000
        firsts.append(sample_number(stretch[0]))
    assert min(firsts) < 2000 and max(firsts) > 53000


def test_segments_of_a_decoded_sound_differ(tmp_path):
    make_sound(str(tmp_path / "long.flac"), noise(3.0), kind="flac", codec="flac")
    folder = SoundFolder("--augment_noise", str(tmp_path), False, decode_audio)
    (sound,) = folder.sounds
    whole = noise(3.0).astype(np.float32)
    firsts = set()
    for k in range(20):
        segment = folder.read_segment(sound, np.random.default_rng(k), 5000)
        (first,) = (
            n for n in np.flatnonzero(whole == segment[0]) if np.array_equal(whole[n : n + 5000], segment)
        )
        firsts.add(first)
    assert len(firsts) == 20 and min(firsts) < 12000 < 30000 < max(firsts)


def test_a_short_sound_is_repeated_from_a_random_sample_on(tmp_path):
    make_wav(str(tmp_path / "short.wav"), 700)
    folder = SoundFolder("--augment_noise", str(tmp_path), False, None)
    firsts = set()
    for k in range(20):
        segment = folder.read_segment(folder.sounds[0], np.random.default_rng(k), 3000)
        numbers = np.array([sample_number(x) for x in segment])
        assert set(np.diff(numbers)) == {1, -699} and len(numbers) == 3000
        firsts.add(numbers[0])
    assert min(firsts) < 150 and max(firsts) > 550


def test_noises_of_any_kind(tmp_path):
    sound = noise(1.5)
    stereo = np.stack([noise(1.5, 44100), noise(1.5, 44100)])
    wavfile.write(tmp_path / "stereo.wav", 44100, stereo.T)
    make_sound(str(tmp_path / "a.m4a"), sound)
    make_sound(str(tmp_path / "b.FLAC"), sound, kind="flac", codec="flac")
    make_sound(str(tmp_path / "named_wrongly.wav"), sound, kind="ogg", codec="libopus")
    make_clip(str(tmp_path / "c.mp4"), 38, sound=sound)
    folder = SoundFolder("--augment_noise", str(tmp_path), False, decode_audio)
    assert len(folder.sounds) == 5
    for k, drawn in enumerate(folder.sounds):
        stretch = folder.read_segment(drawn, np.random.default_rng(k), 16000)
        assert len(stretch) == 16000 and stretch.dtype == np.float32
        assert np.isin(stretch, decode_audio(str(tmp_path / drawn.name))).all()
        assert 2000 < np.sqrt((stretch**2).mean()) < 10000


def test_few_decoded_sounds_are_kept(tmp_path, monkeypatch):
    decoded = []

    def decode(path: str) -> np.ndarray:
        decoded.append(Path(path).name)
        return np.ones(100, np.int16) * np.arange(100)

    for k in range(3):
        (tmp_path / f"{k}.mp3").write_bytes(b"ID3")
    monkeypatch.setattr("syncnet.loading.augment.CACHE_SIZE", 2 * 800)
    folder = SoundFolder("--augment_noise", str(tmp_path), False, decode)
    for k in (0, 1, 0, 2, 0, 1):
        folder.read(folder.sounds[k])
    assert decoded == ["0.mp3", "1.mp3", "2.mp3", "1.mp3"]


def test_broken_and_silent_sounds_are_skipped(tmp_path, clip_list, capsys):
    tone(tmp_path / "good.wav", 700)
    wavfile.write(tmp_path / "silent.wav", 16000, np.zeros(9000, np.int16))
    (tmp_path / "broken.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:500])
    (tmp_path / "text.mp3").write_text("no sound")
    on = loader(clip_list, augment_noise=str(tmp_path), augment_prob=1.0)
    plain = batches(loader(clip_list), 3)
    for (_, clean), (_, noisy) in zip(plain, batches(on, 3), strict=True):
        assert all(not torch.equal(a, b) for a, b in zip(clean, noisy, strict=True))
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and all(line.startswith("WARNING: --augment_noise: ") for line in warnings)
    assert any("broken.wav: cut off" in line for line in warnings)
    assert any("text.mp3" in line and "a text file" in line for line in warnings)
    assert not on.bad  # nothing is wrong with the clips


def test_a_silent_clip_is_unchanged(noises, rooms):
    augmentation = Augmentation(str(noises), str(rooms), 1)
    for k in range(20):
        silence = np.zeros(SAMPLES, np.float32)
        augmentation.change(np.random.default_rng(k), np.empty(0), silence)
        assert not silence.any()


# --- rooms


@pytest.mark.parametrize("direct", [0, 40, 2000, SAMPLES + 500])
def test_convolution_is_that_of_scipy(tmp_path, direct):
    response = make_room(tmp_path / "room.wav", direct=direct, samples=direct + 3000)
    if direct:
        response[direct // 2] = -9000  # something before the direct sound
    clean = speech()
    heard = clean.copy()
    reverberate(heard, response)
    expected = signal.convolve(clean.astype(float), response, method="direct")[direct : direct + SAMPLES]
    expected *= np.sqrt((clean.astype(float) ** 2).sum() / (expected**2).sum())
    assert heard.dtype == np.float32
    assert np.abs(heard - expected).max() < 1e-5 * np.abs(expected).max()
    assert decibels(heard, clean) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 8, 16])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_the_first_microphone_is_used_at_full_precision(tmp_path, channels, kind):
    response = np.zeros((900, channels), kind)
    response[30, 0], response[500, 0] = (20000, 1) if kind is np.int16 else (2.5, 1e-6)
    response[100:, 1:] = 7
    wavfile.write(tmp_path / "room.wav", 16000, response)
    folder = SoundFolder("--augment_rir", str(tmp_path), True, first_channel)
    found = folder.read(folder.sounds[0])
    assert found.argmax() == 30 and list(found.nonzero()[0]) == [30, 500]
    assert found[500] / found[30] == pytest.approx(5e-5 if kind is np.int16 else 4e-7, rel=1e-4)


def test_responses_at_another_rate(tmp_path):
    response = np.zeros(48000, np.float32)
    response[4800] = 0.5
    wavfile.write(tmp_path / "room.wav", 48000, response)
    assert first_channel(str(tmp_path / "room.wav")).argmax() == 1600


def test_rirs_noises_has_both_kinds(tmp_path):
    top = tmp_path / "RIRS_NOISES"
    responses = [
        "real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_near_angla.wav",
        "simulated_rirs/largeroom/Room001/Room001-00001.wav",
    ]
    others = [
        "pointsource_noises/noise-free-sound-0000.wav",
        "real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav",
    ]
    for name in (*responses, *others):
        make_room(top / name)
    rooms = SoundFolder("--augment_rir", str(top), True, first_channel)
    noises = SoundFolder("--augment_noise", str(top), False, decode_audio)
    assert [sound.name for sound in rooms.sounds] == responses
    assert [sound.name for sound in noises.sounds] == others
    assert "2 files of the other kind of RIRS_NOISES are skipped" in str(rooms) and "2 at 5 to 15 dB" in str(
        noises
    )
    inside = SoundFolder("--augment_rir", str(top / "real_rirs_isotropic_noises"), True, first_channel)
    assert len(inside.sounds) == 1
    with pytest.raises(
        UserError, match="no room impulse responses .*1 files are of the other kind of RIRS_NOISES"
    ):
        SoundFolder("--augment_rir", str(top / "pointsource_noises"), True, first_channel)


# --- the loader


def test_threads_and_processes_do_not_change_the_draws(clip_list, everything):
    one = batches(loader(clip_list, threads=1, nBatchSize=4, **everything), 2)
    assert same(one, batches(loader(clip_list, threads=4, nBatchSize=4, **everything), 2))
    shares = [
        batches(loader(clip_list, threads=3, nBatchSize=4, share=(n, 2), **everything), 2) for n in range(2)
    ]
    joined = [
        tuple(torch.cat(parts) for parts in zip(*halves, strict=True)) for halves in zip(*shares, strict=True)
    ]
    assert same(one, joined)
    assert not same(one[:2], one[2:])
    assert not same(one[:2], batches(loader(clip_list, nBatchSize=4, seed=1, **everything)))


def test_an_epoch_resumes_with_the_same_draws(clip_list, everything):
    reader = loader(clip_list, **everything)
    whole = batches(reader)
    reader.set_epoch(0, first_batch=3)
    assert same(batches(reader), whole[3:])


def test_replacements_do_not_depend_on_the_threads(clip_list, everything, tmp_path):
    lines = clip_list.read_text().splitlines(keepends=True)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    lines[2] = f"{broken} {lines[2].split()[1]} 0 14\n"
    (tmp_path / "list.txt").write_text("".join(lines))
    settings = everything | {"max_bad": 0.9}
    one, many = (batches(loader(tmp_path / "list.txt", n, **settings), 2) for n in (1, 4))
    assert same(one, many)


def test_draws_differ_by_clip_epoch_and_seed(clip_list, everything, monkeypatch):
    drawn = []
    monkeypatch.setattr(DatasetLoader, "read_clip", lambda *_: None)
    for seed in (0, 1):
        reader = loader(clip_list, seed=seed, **everything)
        reader.augmentation.change = lambda draws, *_: drawn.append(draws.random())
        assert len(list(reader) + list(reader)) == 8
    assert len(set(drawn)) == len(drawn) == 32


def test_half_of_the_clips_are_flipped_and_otherwise_unchanged(clip_list):
    plain, flipped = batches(loader(clip_list), 4), batches(loader(clip_list, flip=True), 4)
    mirrored = []
    for (video, audio), (changed, heard) in zip(plain, flipped, strict=True):
        assert torch.equal(audio, heard)
        for before, after in zip(video, changed, strict=True):
            mirrored.append(torch.equal(after, before.flip(-1)))
            assert mirrored[-1] or torch.equal(after, before)
    assert 8 <= sum(mirrored) <= 24 and len(mirrored) == 32


def test_the_requested_fraction_is_changed_and_the_others_stay_bit_identical(clip_list, noises, rooms):
    plain = batches(loader(clip_list), 6)
    for share in (0.0, 0.6, 1.0):
        on = loader(clip_list, augment_noise=str(noises), augment_rir=str(rooms), augment_prob=share)
        changed = 0
        for (video, audio), (seen, heard) in zip(plain, batches(on, 6), strict=True):
            assert torch.equal(video, seen) and heard.dtype == torch.float32
            changed += sum(not torch.equal(a, b) for a, b in zip(audio, heard, strict=True))
        assert abs(changed / 48 - share) < 0.15 and (share == 0.6 or changed == 48 * share)


def test_flips_noises_and_rooms_are_drawn_independently(noises, rooms, monkeypatch):
    """Flipped or not, with a noise, a room or neither: each of these six in a sixth of the clips."""
    calls, found = [], Counter()
    for name in ("add_noise", "reverberate", "flip_frames"):
        monkeypatch.setattr(f"syncnet.loading.augment.{name}", lambda *_, name=name: calls.append(name))
    augmentation = Augmentation(str(noises), str(rooms), 2 / 3, flip=True)
    for k in range(600):
        calls.clear()
        augmentation.change(np.random.default_rng(k), np.empty(0), speech())
        found[tuple(calls)] += 1
    assert len(found) == 6 and min(found.values()) > 70 and max(found.values()) < 130


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
def test_a_copied_loader_draws_the_same(clip_list, everything, copied):
    original = loader(clip_list, **everything)
    other = copied(original)
    assert same(batches(original), batches(other))


def test_augmentation_is_off_by_default_and_in_validation(clip_list, everything):
    assert loader(clip_list).augmentation is None
    plain = batches(loader(clip_list, evalmode=True))
    on = loader(clip_list, evalmode=True, **everything)
    assert on.augmentation is None and same(plain, batches(on))


def test_the_command_validates_without_augmentation(clip_list, everything, tmp_path):
    lists = ["--train_list", str(clip_list), "--verify_list", str(clip_list), "--maxFrames", str(T)]
    flags = [f"--{name}={value}" for name, value in everything.items() if name != "flip"]
    args = parse_args([*lists, "--nBatchSize", "2", "--flip", *flags])
    train, verify = make_loaders(args, str(tmp_path), torch.device("cpu"))
    assert verify.augmentation is None and train.augmentation.flip and len(train.augmentation.folders) == 2
    assert same(batches(verify), batches(loader(clip_list, evalmode=True)))


# --- folders and flags that cannot be used


def test_folders_without_sound(tmp_path, clip_list):
    def refused(folder: Path, message: str) -> None:
        for flag in ("augment_noise", "augment_rir"):
            with pytest.raises(UserError, match=f"--{flag} {folder}: {message}"):
                loader(clip_list, **{flag: str(folder)})

    refused(tmp_path / "away", "no such folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("nothing")
    refused(empty, "no (noises|room impulse responses) in this folder")
    (empty / "a.wav").write_text("a text, not a sound")
    wavfile.write(empty / "b.wav", 16000, np.zeros(1000, np.int16))
    refused(empty, "none of its 2 sound files can be used.*\n.*a.wav.*\n.*b.wav: silent")
    tone(empty / "c.wav", 300)
    assert loader(clip_list, augment_noise=str(empty)).augmentation


def test_values_that_are_not_finite(tmp_path):
    wavfile.write(tmp_path / "a.wav", 16000, np.array([0, 1, math.nan, 0] * 100, np.float32))
    with pytest.raises(UserError, match="values that are not finite"):
        SoundFolder("--augment_rir", str(tmp_path), True, first_channel)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--augment_noise", "x", "--augment_prob", "1.5"], "from 0 to 1"),
        (["--augment_prob", "0.3"], "--augment_prob is for --augment_noise and --augment_rir"),
    ],
)
def test_wrong_flags(flags, message, capsys):
    with pytest.raises(SystemExit):
        parse_args(flags)
    assert message in capsys.readouterr().err


def test_wrong_share(clip_list, noises):
    with pytest.raises(UserError, match="augment_prob 2"):
        loader(clip_list, augment_noise=str(noises), augment_prob=2)


# --- a run


def run(capsys, clip_list, save_path, *more) -> tuple[int, str, str]:
    flags = f"--maxFrames {T} --nBatchSize 2 --nOut 8 --model tinyModel --device cpu --lr 0.01 --save_steps 1"
    lists = ("--train_list", clip_list, "--verify_list", clip_list, "--save_path", save_path)
    status = trainSyncNet.main([str(x) for x in (*flags.split(), *lists, *more)])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.usefixtures("one_thread")
def test_a_run_resumes_exactly(clip_list, noises, rooms, tmp_path, capsys, stopped_at):
    """Stopped after a step of the second epoch, resumed with other threads and with a folder moved."""
    moved = tmp_path / "moved" / "musan"
    shutil.copytree(noises, moved)
    share = ("--augment_prob", 0.8, "--flip", "--max_epoch", 2)
    flags = ("--augment_noise", noises, "--augment_rir", rooms, *share)
    status, out, _ = run(capsys, clip_list, tmp_path / "whole", *flags)
    assert status == 0 and f"--augment_rir {rooms}: 3 files\n" in out
    assert f"--augment_noise {noises}: 4 files, 1 at 0 to 15 dB, 2 at 5 to 15 dB, 1 at 13 to 20 dB" in out

    with stopped_at(10):  # four steps of training, four of validation, one of training
        assert run(capsys, clip_list, tmp_path / "halves", *flags)[0] == 1
    again = ("--augment_noise", moved, "--augment_rir", rooms, *share, "--nDataLoaderThread", 1)
    status, out, err = run(capsys, clip_list, tmp_path / "halves", *again)
    assert status == 0 and "Resuming in epoch 2 after step 1" in out, err
    assert run(capsys, clip_list, tmp_path / "plain", "--max_epoch", 2)[0] == 0
    whole, halves, plain = (
        torch.load(tmp_path / folder / "model/model000000002.model", weights_only=True)
        for folder in ("whole", "halves", "plain")
    )
    assert all(torch.equal(tensor, halves[name]) for name, tensor in whole.items())
    assert not all(torch.equal(tensor, plain[name]) for name, tensor in whole.items())


def test_a_run_refuses_other_augmentation(clip_list, noises, rooms, tmp_path, capsys):
    mine = tmp_path / "mine"
    shutil.copytree(rooms, mine)
    assert run(capsys, clip_list, tmp_path / "run", "--augment_rir", mine, "--max_epoch", 1)[0] == 0
    make_room(mine / "new.wav", seed=9)
    changed = ("--augment_rir", mine, "--augment_noise", noises, "--augment_prob", 0.9, "--flip")
    status, _, err = run(capsys, clip_list, tmp_path / "run", *changed)
    assert status == 1
    for line in (
        "augment_prob: 0.6 then, 0.9 now",
        "flip: False then, True now",
        "content of --augment_noise: not set then, ",
        "content of --augment_rir: ",
    ):
        assert line in err
    status, _, err = run(capsys, clip_list, tmp_path / "run", "--max_epoch", 2)
    assert status == 1 and err.count(" then, ") == 1 and "not set now" in err


def test_a_renamed_noise_folder_is_refused_with_the_reason(clip_list, tmp_path, capsys):
    tone(tmp_path / "noise/a.wav", 300)
    flags = ("--augment_noise", tmp_path / "noise")
    status, out, _ = run(capsys, clip_list, tmp_path / "run", *flags, "--max_epoch", 1)
    assert status == 0 and "1 at 0 to 15 dB (by folder name: noise: 0 to 15 dB; music" in out
    (tmp_path / "noise").rename(tmp_path / "elsewhere")
    flags = ("--augment_noise", tmp_path / "elsewhere")
    status, out, err = run(capsys, clip_list, tmp_path / "run", *flags, "--max_epoch", 2)
    assert status == 1 and "1 at 5 to 15 dB" in out
    assert "other names: 5 to 15 dB. If you renamed the folder, restore its name" in err


def test_a_state_of_a_version_without_augmentation_resumes_without(clip_list, noises, tmp_path, capsys):
    assert run(capsys, clip_list, tmp_path / "run", "--max_epoch", 1)[0] == 0
    path = tmp_path / "run/training_state.pt"
    state = torch.load(path, weights_only=True)
    assert not any("content of --augment" in name for name in state["settings"])
    for name in ("augment_prob", "flip"):
        del state["settings"][name]
    torch.save(state, path)
    status, _, err = run(capsys, clip_list, tmp_path / "run", "--augment_noise", noises, "--max_epoch", 2)
    assert status == 1 and err.count(" then, ") == 1 and "content of --augment_noise: not set then" in err
    status, out, err = run(capsys, clip_list, tmp_path / "run", "--max_epoch", 2)
    assert status == 0 and "Resuming in epoch 2 after step 0" in out, err
