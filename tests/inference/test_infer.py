"""inferSyncNet.py: embeddings, pair scores, offsets and matching, as functions and as a command."""

import csv
import errno
import gc
import itertools
import json
import os
import re
import shutil
import statistics
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import RAMP, frame_number, make_clip, make_sound, make_txt, make_wav, noise
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import nn

import inferSyncNet
import trainSyncNet
from DatasetLoader import DatasetLoader, get_frames, loadWAV
from inferSyncNet import embed, match, offset, verify
from syncnet.inference import embeddings as clipEmbeddings
from syncnet.inference.match import Matching, matching_accuracy, speakers_of_clips
from syncnet.inference.offset import Offset, find_offset
from syncnet.inference.sources import find_sources, with_wavs
from syncnet.media.clips import Clip, MediaError, format_list_line, read_list
from syncnet.media.file_type import SOUND_FILES, VIDEO_FILES
from syncnet.support.errors import UserError
from SyncNetDist import SyncNet

T = 8
NETWORK = {"model": "tinyModel", "nOut": 8, "maxFrames": T, "temporal_stride": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def network() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet(**NETWORK)


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "x.model"
    network.saveParameters(str(path))
    return path


@pytest.fixture(scope="module")
def voices(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    for k in range(4):
        os.makedirs(folder / f"spk{k // 2}", exist_ok=True)
        wavfile.write(folder / f"spk{k // 2}/{k}.wav", 16000, noise(0.5 + 0.1 * k, seed=k))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Eight clips of four people in VoxCeleb2's layout and their list; no sound track."""
    folder = tmp_path_factory.mktemp("clips")
    lines = []
    for k in range(8):
        name = f"id{k // 2}/video/{k}"
        clip = Clip(str(folder / f"mp4/{name}.mp4"), str(folder / f"wav/{name}.wav"), 0, 30)
        make_clip(clip.video, 30, first=977 * k)
        make_wav(clip.audio, 30 * 640 + 100, first=3001 * k)
        lines.append(format_list_line(clip) + "\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder


def run(capsys, *args) -> tuple[int, str, list[str]]:
    """The command in this process: exit status, output, and the lines of its errors."""
    if "--initial_model" in args:  # tinyModel is no module of models/: a checkpoint cannot choose it
        args = (args[0], "--model", "tinyModel", *args[1:])
    status = inferSyncNet.main([str(arg) for arg in args])
    said = capsys.readouterr()
    bars = re.compile(r"\w+: +\d+%\|")
    return status, said.out, [line for line in said.err.splitlines() if line.strip() and not bars.match(line)]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


# ---------------------------------------------------------------- embed and verify


@pytest.mark.parametrize("num_eval", [1, 3, 10])
def test_verify_gives_the_score_of_eval(network, voices, tmp_path, num_eval):
    paths = [str(voices / name) for name in ("spk0/0.wav", "spk0/1.wav", "spk1/3.wav")]
    pairs = list(itertools.combinations(paths, 2))
    (tmp_path / "trials.txt").write_text("".join(f"1 {a} {b}\n" for a, b in pairs))
    expected, _ = network.evaluateFromListSave(str(tmp_path / "trials.txt"), num_eval=num_eval)
    for (a, b), score in zip(pairs, expected, strict=True):
        for batch in (1, 100):
            assert verify(network, a, b, num_eval, batch) == pytest.approx(score, abs=1e-6)


def test_embeddings(network, voices):
    paths = [str(path) for path in sorted(voices.rglob("*.wav"))]
    files, vectors = embed(network, paths)
    assert files == paths and vectors.shape == (4, 8) and vectors.dtype == torch.float32
    assert vectors.norm(dim=1) == pytest.approx(np.ones(4), abs=1e-6)
    crops = embed(network, paths, per_crop=True, batch=3)[1]
    mean = crops.mean(1)
    assert torch.allclose(vectors, mean / mean.norm(dim=1, keepdim=True), atol=1e-6)
    with torch.inference_mode():  # the definition, one file at a time
        for path, found in zip(paths, crops, strict=True):
            identity = network.__S__.forward_aud(loadWAV(path, 4 * T, evalmode=True))[1].mean(2)
            assert torch.allclose(found, identity / identity.norm(dim=1, keepdim=True), atol=1e-6)


def test_crops_of_several_files_are_computed_at_once(network, voices, tmp_path, monkeypatch):
    paths = [str(path) for path in sorted(voices.rglob("*.wav"))]
    expected = embed(network, paths, num_eval=2, batch=2)[1]
    broken = str(tmp_path / "not_there.wav")
    batches, skipped = [], []
    forward = network.__S__.forward_aud
    monkeypatch.setattr(
        network.__S__, "forward_aud", lambda audio: (batches.append(len(audio)), forward(audio))[1]
    )
    files, vectors = embed(network, [paths[0], broken, *paths[1:]], num_eval=2, batch=6, skip=skipped.append)
    assert batches == [6, 2] and files == paths and len(skipped) == 1
    assert torch.allclose(vectors, expected, atol=1e-6)
    nothing = embed(network, [broken], num_eval=2, skip=skipped.append)
    assert nothing[0] == [] and nothing[1].shape == (0, 8)
    assert embed(network, [broken], num_eval=2, per_crop=True, skip=skipped.append)[1].shape == (0, 2, 8)


def test_other_formats_are_decoded_in_memory(network, voices, tmp_path):
    rate, samples = wavfile.read(voices / "spk1/3.wav")
    original = embed(network, [str(voices / "spk1/3.wav")])[1]
    high = resample_poly(samples.astype(float), 441, 160).round().astype(np.int16)
    wavfile.write(tmp_path / "stereo.wav", 44100, np.stack([high, high], 1))
    wavfile.write(tmp_path / "float.wav", rate, samples.astype(np.float32) / 32768)
    make_sound(str(tmp_path / "a.m4a"), samples)
    make_clip(str(tmp_path / "b.mp4"), 20, sound=samples)
    before = files_in(tmp_path)
    for name, least in (("stereo.wav", 0.999), ("float.wav", 0.99999), ("a.m4a", 0.98), ("b.mp4", 0.98)):
        assert float(embed(network, [str(tmp_path / name)])[1] @ original.T) > least, name
    assert files_in(tmp_path) == before


def test_face_embeddings(network, clips, tmp_path):
    paths = [clip.video for clip in read_list(str(clips / "list.txt"))[:2]]
    crops = embed(network, paths, face=True, num_eval=12, per_crop=True)[1]
    with torch.inference_mode():
        for path, found in zip(paths, crops, strict=True):
            for start, vector in zip(range(0, 23, 2), found, strict=True):  # 30 frames, crops of 8
                identity = network.__S__.forward_vid(get_frames(path, T, start))[1].mean(2)[0]
                assert torch.allclose(vector, identity / identity.norm(), atol=1e-5)
    one_by_one = embed(network, paths, face=True, num_eval=3, batch=1)[1]
    assert torch.allclose(one_by_one, embed(network, paths, face=True, num_eval=3)[1], atol=1e-5)
    few = embed(network, paths, face=True, num_eval=1, per_crop=True)[1]  # decoded crop by crop
    assert torch.allclose(few[:, 0], crops[:, 0], atol=1e-5)

    make_clip(str(tmp_path / "small.mp4"), 20, size=160)
    with pytest.raises(MediaError, match="160x160"):
        embed(network, [str(tmp_path / "small.mp4")], face=True)
    assert embed(network, [str(tmp_path / "small.mp4")], face=True, allow_resize=True)[1].shape == (1, 8)


@pytest.mark.parametrize("output", ["v.npz", "v"])
def test_faces_voices_and_crops_of_one_video_are_not_confused(network, checkpoint, tmp_path, capsys, output):
    video = str(tmp_path / "a.mp4")
    make_clip(video, 20, sound=noise(0.8))
    common = ("--initial_model", checkpoint, video, "--num_eval", 2, "--output", tmp_path / output)
    for flags in ({}, {"face": True}, {"face": True, "per_crop": True}):
        assert run(capsys, "embed", *common, *(f"--{flag}" for flag in flags))[0] == 0
        expected = embed(network, [video], num_eval=2, **flags)[1][0].numpy()
        np.testing.assert_allclose(embedded(tmp_path / output)["a"], expected, atol=1e-5)


def test_embed_command(network, checkpoint, voices, clips, tmp_path, capsys):
    common = ("--initial_model", checkpoint, "--device", "cpu")  # the rest is in the checkpoint
    paths = [str(path) for path in sorted(voices.rglob("*.wav"))]
    expected = embed(network, paths)[1].numpy()
    assert run(capsys, "embed", *common, voices, "--output", tmp_path / "v.npz")[0] == 0
    with np.load(tmp_path / "v.npz") as found:
        assert found["files"].tolist() == paths and np.allclose(found["vectors"], expected, atol=1e-5)
    assert run(capsys, "embed", *common, voices, "--output", tmp_path / "v")[0] == 0
    assert np.allclose(np.load(tmp_path / "v/spk1/2.npy"), expected[2], atol=1e-5)

    (tmp_path / "paths.txt").write_text(f"{paths[3]}\n{paths[0]}\r\n{paths[3]}\n")
    status = run(
        capsys, "embed", *common, tmp_path / "paths.txt", "--output", tmp_path / "w.npz", "--per_crop"
    )[0]
    with np.load(tmp_path / "w.npz") as found:
        assert status == 0 and found["files"].tolist() == [paths[3], paths[0]]
        assert found["vectors"].shape == (2, 10, 8)

    listed = read_list(str(clips / "list.txt"))
    for flag, kind in (((), "audio"), (("--face", "--num_eval", 2), "video")):
        flags = (*flag, "--output", tmp_path / "l.npz")
        assert run(capsys, "embed", *common, clips / "list.txt", *flags)[0] == 0
        with np.load(tmp_path / "l.npz") as found:
            assert found["files"].tolist() == [getattr(clip, kind) for clip in listed]


def test_vectors_of_a_list_stay_in_the_folder(checkpoint, voices, tmp_path, capsys, monkeypatch):
    """Wherever the list's paths lead: absolute ones, and those of folders beside."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "beside.wav").write_bytes((voices / "spk0/0.wav").read_bytes())
    Path("list.txt").write_text(f"{voices}/spk0/1.wav\n../beside.wav\n")
    before = files_in(voices) + files_in(tmp_path)
    flags = ("--initial_model", checkpoint, "--device", "cpu", "--output", "out", "--num_eval", 1)
    assert run(capsys, "embed", "list.txt", *flags)[0] == 0
    made = [path for path in files_in(Path("out")) if path.endswith(".npy")]
    assert made == sorted(["out/beside.npy", f"out{voices}/spk0/1.npy"])
    assert [
        path for path in files_in(voices) + files_in(tmp_path) if f"{tmp_path}/here/out" not in path
    ] == before


def test_a_bad_file_is_left_out_and_told(checkpoint, voices, tmp_path, capsys):
    wavfile.write(tmp_path / "silent.wav", 16000, np.zeros(9000, np.int16))
    flags = ("--initial_model", checkpoint, "--device", "cpu", "--output", tmp_path / "v.npz")
    status, out, errors = run(capsys, "embed", tmp_path / "silent.wav", voices, *flags)
    assert status == 1 and len(errors) == 1 and "silent.wav: silent" in errors[0] and "4 files" in out
    with np.load(tmp_path / "v.npz") as found:
        assert len(found["files"]) == len(found["vectors"]) == 4


# ---------------------------------------------------------------- embed: written one by one, and resumed


@pytest.fixture
def many(tmp_path) -> Path:
    """Nine recordings, embedded four at a time."""
    for k in range(9):
        make_wav(str(tmp_path / f"in/{k}.wav"), 12000, first=977 * k)
    return tmp_path / "in"


def embedded(output: Path) -> dict[str, np.ndarray]:
    """The embeddings of a finished output by the number of their recording."""
    if output.is_dir():
        return {path.stem: np.load(path) for path in output.rglob("*.npy")}
    with np.load(output) as kept:
        return dict(zip((Path(file).stem for file in kept["files"]), kept["vectors"], strict=True))


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many crops each batch had."""
    batches: list[int] = []
    real = SyncNet.identity_vectors

    def identity_vectors(self, crops, batch):
        batches.append(len(crops))
        return real(self, crops, batch)

    monkeypatch.setattr(SyncNet, "identity_vectors", identity_vectors)
    return batches


@pytest.mark.parametrize("output", ["v.npz", "v"])
@pytest.mark.parametrize("flags", [(), ("--per_crop",)])
def test_embed_resumes_after_ctrl_c(checkpoint, many, computed, tmp_path, capsys, monkeypatch, output, flags):
    common = ("--initial_model", checkpoint, "--device", "cpu", many, *flags, "--output")
    assert run(capsys, "embed", *common, tmp_path / "whole.npz")[0] == 0
    expected = embedded(tmp_path / "whole.npz")
    assert computed == [40, 40, 10]
    real = SyncNet.identity_vectors

    def stopped(self, crops, batch):
        if len(computed) == 5:
            raise KeyboardInterrupt
        return real(self, crops, batch)

    monkeypatch.setattr(SyncNet, "identity_vectors", stopped)
    status, _, errors = run(capsys, "embed", *common, tmp_path / output)
    assert status == 130 and f"{output}: 8 of 9 files are embedded; the same command resumes" in errors[0]
    assert (tmp_path / output).exists() == (output == "v")
    if output == "v":
        assert len(embedded(tmp_path / "v")) == 8
    monkeypatch.setattr(SyncNet, "identity_vectors", real)
    status, out, _ = run(capsys, "embed", *common, tmp_path / output)
    assert status == 0 and "8 of 9 files are embedded already" in out and computed[-1] == 10
    found = embedded(tmp_path / output)
    assert found.keys() == expected.keys() and len(found) == 9
    for name, vector in found.items():
        np.testing.assert_array_equal(vector, expected[name])
    assert not [path for path in files_in(tmp_path) if "unfinished" in path or path.endswith(".part")]
    count = len(computed)
    status, out, _ = run(capsys, "embed", *common, tmp_path / output)
    assert status == 0 and "9 of 9 files are embedded already" in out and len(computed) == count


@pytest.mark.parametrize("output", ["v.npz", "v"])
def test_embed_computes_again_what_has_changed(network, checkpoint, many, computed, tmp_path, capsys, output):
    common = (
        "--initial_model",
        checkpoint,
        "--device",
        "cpu",
        many,
        "--num_eval",
        2,
        "--output",
        tmp_path / output,
    )
    assert run(capsys, "embed", *common)[0] == 0
    make_wav(str(many / "3.wav"), 12000, first=20000)  # another recording of the same length
    del computed[:]
    status, out, errors = run(capsys, "embed", *common)
    assert status == 0 and computed == [2] and "8 of 9 files" in out
    assert "computed again: 1 of recordings that have changed" in errors[0]
    expected = embed(network, [str(many / "3.wav")], num_eval=2)[1][0].numpy()
    np.testing.assert_allclose(embedded(tmp_path / output)["3"], expected, atol=1e-6)

    for flags, words in (
        (("--num_eval", 3), "num_eval 2 (now 3)"),
        (("--num_eval", 3, "--maxFrames", 7), f"maxFrames {T} (now 7)"),
        (("--num_eval", 3, "--precision", "bf16"), "precision fp32 (now bf16)"),
    ):
        del computed[:]
        status, out, errors = run(capsys, "embed", *common, *flags)
        assert status == 0 and sum(computed) == 27 and any(words in line for line in errors), words
        assert any("computed again: 9 made with" in line for line in errors)
    torch.manual_seed(9)
    SyncNet(**NETWORK).saveParameters(str(tmp_path / "other.model"))
    del computed[:]
    status, _, errors = run(capsys, "embed", *common, "--initial_model", tmp_path / "other.model")
    assert status == 0 and sum(computed) == 18 and "9 made with checkpoint " in errors[0]


@pytest.mark.parametrize("output", ["v.npz", "v"])
def test_auto_resumes_with_the_precision_of_the_first_run(
    checkpoint, many, computed, tmp_path, capsys, output
):
    common = (
        "--initial_model",
        checkpoint,
        "--device",
        "cpu",
        many,
        "--num_eval",
        2,
        "--output",
        tmp_path / output,
    )
    assert run(capsys, "embed", *common, "--precision", "bf16")[0] == 0
    del computed[:]
    assert run(capsys, "embed", *common, "--precision", "auto")[0] == 0 and computed == []


def test_a_vector_that_was_damaged_or_removed_is_computed_again(checkpoint, many, computed, tmp_path, capsys):
    common = (
        "--initial_model",
        checkpoint,
        "--device",
        "cpu",
        many,
        "--num_eval",
        2,
        "--output",
        tmp_path / "v",
    )
    assert run(capsys, "embed", *common)[0] == 0
    expected = embedded(tmp_path / "v")
    (tmp_path / "v/2.npy").unlink()
    data = (tmp_path / "v/5.npy").read_bytes()
    (tmp_path / "v/5.npy").write_bytes(data[:-4])  # a power failure
    (tmp_path / "v/7.npy").write_bytes(data)  # that of another
    with open(tmp_path / "v/.embed.jsonl", "a") as journal:
        journal.write('{"file": "8.npy", "reco')  # the line that was being written
    del computed[:]
    status, _, errors = run(capsys, "embed", *common)
    assert status == 0 and computed == [6] and "3 whose .npy is missing or has changed" in errors[0]
    for name, vector in embedded(tmp_path / "v").items():
        np.testing.assert_allclose(vector, expected[name], atol=1e-6)
    del computed[:]
    assert run(capsys, "embed", *common)[0] == 0 and computed == []


@pytest.mark.parametrize("output", ["v.npz", "v"])
def test_a_full_disk_keeps_what_is_embedded(checkpoint, many, tmp_path, capsys, monkeypatch, output):
    common = ("--initial_model", checkpoint, "--device", "cpu", many, "--output", tmp_path / output)
    with monkeypatch.context() as patch:
        real, calls = os.replace, itertools.count()

        def full(*args, **_):
            if output == "v.npz" or next(calls) == 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args)

        patch.setattr(*((os, "replace") if output == "v" else (np, "savez")), full)
        status, _, errors = run(capsys, "embed", *common)
    assert status == 1 and len(errors) == 1 and "No space left on device" in errors[0]
    assert (
        not [path for path in files_in(tmp_path) if path.endswith(".part")]
        and not (tmp_path / "v.npz").exists()
    )
    status, out, _ = run(capsys, "embed", *common)
    there = 5 if output == "v" else 9
    assert status == 0 and f"{there} of 9 files are embedded already" in out
    assert len(embedded(tmp_path / output)) == 9


def test_memory_holds_no_crops_of_earlier_files(network, many, monkeypatch):
    """Of a file that is done, nothing is kept but its vector."""
    made = []
    real = network.identity_vectors

    def identity_vectors(crops, batch):
        made.append((weakref.ref(crops), weakref.ref(vectors := real(crops, batch))))
        return vectors

    monkeypatch.setattr(network, "identity_vectors", identity_vectors)
    paths = [str(path) for path in sorted(many.glob("*.wav"))]
    for number, _ in enumerate(clipEmbeddings.iter_embeddings(network, paths, num_eval=20)):
        gc.collect()
        assert all(crops() is None and vectors() is None for crops, vectors in made[:-1]), number
    assert len(made) > 3
    files, vectors = embed(network, paths)
    assert vectors.untyped_storage().nbytes() == len(files) * network.nOut * 4


def test_evaluation_refuses_a_network_without_identities_before_it_reads_a_list(tmp_path, capsys):
    path = tmp_path / "lips.model"
    SyncNet("models.SyncNetV2", nOut=16, device="cpu").saveParameters(str(path))
    flags = f"--eval --initial_model {path} --test_list {tmp_path}/none.txt --device cpu"
    assert trainSyncNet.main(flags.split()) == 1
    assert "no identity heads" in capsys.readouterr().err
    with pytest.raises(UserError, match="no identity heads"):
        SyncNet("models.SyncNetV2", nOut=16, device="cpu").embed(["none.wav"])


@pytest.mark.parametrize("command", ["embed", "verify", "match", "export"])
def test_a_network_without_identities_is_refused_before_anything_is_read(
    clips, voices, tmp_path, capsys, monkeypatch, command
):
    path = tmp_path / "lips.model"
    SyncNet("models.SyncNetV2", nOut=16, device="cpu").saveParameters(str(path))
    for name in ("voice_crops", "face_crops", "heard_sound"):
        monkeypatch.setattr(clipEmbeddings, name, lambda *_: pytest.fail("read"))
    flags = {
        "embed": (voices, "--output", tmp_path / "v.npz"),
        "verify": (voices / "spk0/0.wav", voices / "spk0/1.wav"),
        "match": (clips / "list.txt", "--ways", 2),
        "export": ("--stream", "voice", "--head", "identity", "--output", tmp_path / "x.onnx"),
    }
    given = [command, "--initial_model", path, *flags[command]]
    status = inferSyncNet.main([str(flag) for flag in given])
    errors = capsys.readouterr().err.strip().splitlines()
    assert status == 1 and len(errors) == 1 and "no identity heads" in errors[0]


def test_verify_command_and_thresholds(checkpoint, voices, tmp_path, capsys):
    pair = ("--initial_model", checkpoint, "--device", "cpu", voices / "spk0/0.wav", voices / "spk0/1.wav")
    score = float(run(capsys, "verify", *pair)[1].split()[1])
    assert "same speaker" in run(capsys, "verify", *pair, "--threshold", score - 0.01)[1]
    assert "different speakers" in run(capsys, "verify", *pair, "--threshold", score + 0.01)[1]

    same = run(capsys, "verify", *pair[:-1], pair[-2])[1].splitlines()
    assert float(same[0].split()[1]) < 1 and same[1].startswith("(a file with itself")
    (tmp_path / "trials.txt").write_text(
        "1 spk0/0.wav spk0/1.wav\n0 spk0/0.wav spk1/3.wav\n0 spk0/1.wav spk1/2.wav\n"
    )
    flags = ["--model", "tinyModel", "--nOut", 8, "--maxFrames", T, "--temporal_stride", 2, "--device", "cpu"]
    flags += ["--test_list", tmp_path / "trials.txt", "--test_path", voices, "--save_path", tmp_path / "exp"]
    flags += ["--eval", "--initial_model", checkpoint]
    assert trainSyncNet.main([str(flag) for flag in flags]) == 0
    capsys.readouterr()
    report = tmp_path / "exp/result/eval.json"
    threshold = json.loads(report.read_text())["figures"]["raw"]["eer_threshold"]
    status, out, _ = run(capsys, "verify", *pair, "--threshold", report)
    verdict = "same speaker" if score >= threshold else "different speakers"
    assert status == 0 and out.splitlines()[1] == f"{verdict} (threshold {threshold:.6f})"
    status, _, errors = run(capsys, "verify", *pair, "--threshold", report, "--num_eval", 3)
    assert status == 1 and "its threshold does not fit" in errors[0]
    status, _, errors = run(capsys, "verify", *pair, "--threshold", "high")
    assert status == 1 and "neither a number nor an eval.json" in errors[0]
    for flags, words in (
        (("--temporal_stride", 1), "made with temporal_stride 2 (here 1)"),
        (("--maxFrames", 7), f"made with maxFrames {T} (here 7)"),
        (("--temporal_stride", 1, "--num_eval", 3), "temporal_stride 2 (here 1), num_eval 10 (here 3)"),
    ):
        status, out, errors = run(capsys, "verify", *pair, "--threshold", report, *flags)
        assert status == 1 and words in errors[-1] and "its threshold does not fit" in errors[-1]
        assert f"{flags[0]} {flags[1]} is given" in errors[0] and "score" not in out
    status, out, errors = run(capsys, "verify", *pair, "--threshold", report, "--precision", "bf16")
    assert status == 0 and "threshold" in out and "made with --precision fp32" in errors[-1]
    torch.manual_seed(5)
    other = tmp_path / "other.model"
    SyncNet(**NETWORK).saveParameters(str(other))
    pair = ("--initial_model", other, *pair[2:])
    status, _, errors = run(capsys, "verify", *pair, "--threshold", report)
    assert status == 1 and f"made with another checkpoint, {checkpoint}" in errors[0]
    report.write_text(json.dumps({"checkpoint": None, "maxFrames": 8, "num_eval": 10, "figures": {}}))
    status, _, errors = run(capsys, "verify", *pair, "--threshold", report)
    assert status == 1 and "not an eval.json of labeled trials written by this version" in errors[0]


# ---------------------------------------------------------------- offset


class Clock(nn.Module):
    """Content embeddings that tell which frame it is, read from the numbers that clipMaker puts into clips."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))

    def content(self, numbers: list[int]) -> torch.Tensor:
        return self.table[torch.tensor(numbers[:-4])].T[None]

    def forward_vid(self, video: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.content(
            [frame_number(picture.permute(1, 2, 0).numpy()) for picture in video[0].unbind(1)]
        ), None

    def forward_aud(self, audio: torch.Tensor) -> tuple[torch.Tensor, None]:
        starts = audio[0, :-240:640].numpy().astype(int) + RAMP // 2
        return self.content((starts // 640).tolist()), None


@pytest.fixture(scope="module")
def clock() -> SyncNet:
    network = SyncNet(**NETWORK | {"temporal_stride": 1})
    network.__S__ = Clock()
    return network


@pytest.mark.parametrize("late", [-8, -3, 0, 1, 8])
@pytest.mark.parametrize("block", [7, 250])
def test_offset_is_what_the_loader_needs(clock, tmp_path, monkeypatch, late, block):
    monkeypatch.setattr(clipEmbeddings, "BLOCK", block)
    video, wav = str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")
    make_clip(video, 50, first=20)
    make_wav(wav, 50 * 640, first=(20 + late) * 640)
    found = offset(clock, video, wav)
    assert found.confidence > 0.5 and found.milliseconds == 40 * found.frames
    # With this offset in a list line, the loader's pictures and sounds show the same numbers.
    (tmp_path / "list.txt").write_text(format_list_line(Clip(video, wav, found.frames, 50)))
    pictures, sounds = next(iter(DatasetLoader(str(tmp_path / "list.txt"), 1, 1, T, 1)))
    shown = [frame_number(picture.permute(1, 2, 0).numpy()) for picture in pictures[0].unbind(1)]
    heard = (sounds[0, :-240:640].numpy().astype(int) + RAMP // 2) // 640
    assert shown == heard.tolist()


def test_offset_of_short_overlaps():
    draws = torch.nn.functional.normalize(torch.randn(60, 32, generator=torch.Generator().manual_seed(1)))
    for true in (-15, -1, 0, 4, 15):
        first = max(0, true - 1), max(0, 1 - true)  # the picture is so much later
        found = find_offset(draws[first[1] : 40 + first[1]], draws[first[0] : 40 + first[0]])
        assert found.frames == true and found.similarity.max() == pytest.approx(1, abs=1e-5)
    with pytest.raises(
        ValueError, match=r"29 frames of picture and sound, --max_offset 15 needs 30; .* 14 or"
    ):
        find_offset(draws[:25], draws)
    assert find_offset(draws[:25], draws, 14).shifts[-1] == 14
    with pytest.raises(ValueError, match="leave this clip out"):
        find_offset(draws[:11], draws)


def test_only_what_a_user_can_mend_is_told_in_one_line(network, clips, monkeypatch):
    clip = read_list(str(clips / "list.txt"))[0]

    def fail(*_, **__):
        raise ValueError("a fault of the program")

    monkeypatch.setattr("syncnet.inference.embeddings.face_content", fail)
    with pytest.raises(ValueError, match="a fault of the program") as raised:
        offset(network, clip.video, clip.audio)
    assert not isinstance(raised.value, UserError)


def test_confidence_is_the_peak_less_the_median():
    heights = np.random.default_rng(0).uniform(0, 0.3, 60) ** 2
    heights[33] = 0.9
    audio = torch.tensor(np.stack([heights, np.sqrt(1 - heights**2)], 1))
    video = torch.tensor([[1.0, 0.0]] * 40, dtype=torch.float64)  # its cosine with sound a is heights[a]
    found = find_offset(video, audio, max_offset=4)
    means = []
    for shift in range(-4, 5):
        pairs = [heights[v - shift + 1] for v in range(40) if 0 <= v - shift + 1 < 60]
        means.append(sum(pairs) / len(pairs))
    assert found.similarity == pytest.approx(means)
    assert found.frames == int(np.argmax(means)) - 4
    assert found.confidence == pytest.approx(max(means) - statistics.median(means))
    assert abs(statistics.median(means) - statistics.mean(means)) > 1e-5


def curve(*heights: float) -> Offset:
    half = len(heights) // 2
    shifts = np.arange(-half, half + 1)
    confidence = max(heights) - np.median(heights)
    return Offset(int(shifts[np.argmax(heights)]), confidence, shifts, np.array(heights))


def test_what_counts_as_found():
    others = [0.0, 0.2] * 6  # the median of all is 0.2: the peak is wide
    peak = [0.2, 0.2, 0.2]
    for height, verdict in ((0.41, "yes"), (0.39, "no")):
        one = curve(*others, *peak, height, *peak, *others)
        assert one.found == verdict and one.confidence == pytest.approx(height - 0.2)
    assert str(one) == "no offset found, confidence 0.190 where 0.2 is needed: the best is 0 frames"
    assert "the picture is in step with the sound" in str(curve(*others, *peak, 0.9, *peak, *others))
    periodic = curve(*[0.4, -0.4] * 6, 0.9, *[-0.4, 0.4] * 6)  # as talking at an even pace gives
    assert periodic.found == "yes"
    edge = curve(0.9, *peak, *others, 0.2)
    assert edge.found == "edge" and "may lie beyond it" in str(edge) and "the picture is" not in str(edge)


def test_nothing_is_found_where_nothing_is():
    verdicts = []
    for seed in range(100):
        draws = torch.Generator().manual_seed(seed)
        video, audio = (torch.nn.functional.normalize(torch.randn(90, 32, generator=draws)) for _ in range(2))
        verdicts.append(find_offset(video, audio).found)
        assert find_offset(video[1:], video).found == "yes"
    assert "yes" not in verdicts


def test_offset_command_says_where_nothing_was_found(clock, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    lines = []
    for k, first in enumerate((30, 80)):  # the second has the sound of another time
        clip = Clip(str(tmp_path / f"{k}.mp4"), str(tmp_path / f"{k}.wav"), 1, 40)
        make_clip(clip.video, 40, first=30)
        make_wav(clip.audio, 40 * 640, first=first * 640)
        lines.append(format_list_line(clip) + "\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    flags = ("--initial_model", checkpoint, "--csv", tmp_path / "t.csv", "--write_list", tmp_path / "new.txt")
    status, out, _ = run(capsys, "offset", tmp_path / "list.txt", *flags)
    with open(tmp_path / "t.csv", newline="") as file:
        good, bad = csv.DictReader(file)
    assert status == 0 and good["found"] == "yes" and bad["found"] in ("no", "edge")
    assert [line.split()[3:4] for line in out.splitlines()[1:3]] == [["yes"], [bad["found"]]]
    assert "in 1 of 2 clips no offset was found" in out and "of 1 clips, 1 are as listed" in out
    assert "new.txt: 1 of 2 clips (1 left out because no offset was found)" in out
    assert (tmp_path / "new.txt").read_text() == lines[0]
    out = run(capsys, "offset", tmp_path / "1.mp4", "--wav", tmp_path / "1.wav", *flags[:2])[1]
    assert "no offset found" in out and "the picture is" not in out


def test_no_list_is_written_where_no_clip_is_left(clock, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    clip = Clip(str(tmp_path / "a.mp4"), str(tmp_path / "a.wav"), 1, 40)
    make_clip(clip.video, 40, first=30)
    make_wav(clip.audio, 40 * 640, first=80 * 640)  # the sound of another time
    (tmp_path / "list.txt").write_text(format_list_line(clip) + "\n")
    (tmp_path / "new.txt").write_text("of an earlier run\n")
    flags = ("--initial_model", checkpoint, "--csv", tmp_path / "t.csv", "--write_list", tmp_path / "new.txt")
    status, _, errors = run(capsys, "offset", tmp_path / "list.txt", *flags)
    assert status == 1 and "of 1 clips, 1 in which no offset was found" in errors[0]
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2
    make_clip(clip.video, 10)  # too short for --max_offset
    status, _, errors = run(capsys, "offset", tmp_path / "list.txt", *flags)
    assert status == 1 and len(errors) == 2
    assert "needs" in errors[0] and "new.txt: not written, none of the 1 clips can be measured" in errors[1]
    assert (tmp_path / "new.txt").read_text() == "of an earlier run\n"


def test_offset_is_the_same_whatever_the_stride(network, checkpoint, clips):
    clip = read_list(str(clips / "list.txt"))[0]
    assert network.settings.temporal_stride == 2
    dense = inferSyncNet.load(checkpoint, "cpu", model="tinyModel", temporal_stride=1)
    expected = offset(dense, clip.video, clip.audio, max_offset=1)
    for sparse in (network, inferSyncNet.load(checkpoint, "cpu", model="tinyModel")):
        assert np.array_equal(
            offset(sparse, clip.video, clip.audio, max_offset=1).similarity, expected.similarity
        )
        assert sparse.settings.temporal_stride == 2
    with pytest.raises(TypeError, match="temporalstride"):
        inferSyncNet.load(checkpoint, model="tinyModel", temporalstride=1)


def test_offset_command(clock, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    expected = {}
    for k, late in enumerate((-5, 0, 4)):
        make_clip(str(tmp_path / f"mp4/{k}.mp4"), 40, first=30)
        make_wav(str(tmp_path / f"wav/{k}.wav"), 40 * 640, first=(30 + late) * 640)
        expected[str(tmp_path / f"mp4/{k}.mp4")] = late + 1
    make_clip(str(tmp_path / "mp4/3.mp4"), 40)  # has no wav
    flags = ("--initial_model", checkpoint, "--wav", tmp_path / "wav", "--plot", tmp_path / "p.png")
    flags += ("--csv", tmp_path / "t.csv", "--write_list", tmp_path / "new.txt")
    status, out, errors = run(capsys, "offset", tmp_path / "mp4", *flags)
    assert status == 1 and len(errors) == 1 and "3.wav: no such file" in errors[0]
    assert {clip.video: clip.offset for clip in read_list(str(tmp_path / "new.txt"))} == expected
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "t.csv", newline="") as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    assert {name: int(row["offset"]) for name, row in rows.items()} == expected
    assert all(int(row["milliseconds"]) == 40 * int(row["offset"]) for row in rows.values())

    # A list keeps its own number of frames.
    right = [Clip(c.video, c.audio, c.offset, 38) for c in read_list(str(tmp_path / "new.txt"))]
    wrong = [Clip(c.video, c.audio, c.offset + (c.offset > 0), 38) for c in right]
    (tmp_path / "old.txt").write_text("".join(format_list_line(clip) + "\n" for clip in wrong))
    flags = ("--initial_model", checkpoint, "--write_list", tmp_path / "checked.txt")
    status, out, errors = run(capsys, "offset", tmp_path / "old.txt", *flags, "--csv", tmp_path / "t.csv")
    assert status == 0 and "of 3 clips, 1 are as listed, 3 within a frame" in out
    assert read_list(str(tmp_path / "checked.txt")) == right
    with open(tmp_path / "t.csv", newline="") as file:
        assert [int(row["listed"]) for row in csv.DictReader(file)] == [clip.offset for clip in wrong]
    for limits, counts in (
        (("--min_confidence", 2), "of 3 clips, 3 with less confidence than --min_confidence 2"),
        (("--max_shift", 0), "of 3 clips, 3 further apart than --max_shift 0"),
    ):
        status, _, errors = run(capsys, "offset", tmp_path / "old.txt", *flags, *limits)
        assert status == 1 and len(errors) == 1 and "checked.txt: not written, no clip is left" in errors[0]
        assert counts in errors[0] and read_list(str(tmp_path / "checked.txt")) == right

    one = (tmp_path / "mp4/2.mp4", "--wav", tmp_path / "wav/2.wav", "--initial_model", checkpoint)
    status, out, _ = run(capsys, "offset", *one, "--plot", tmp_path / "one.png")
    assert status == 0 and "offset 5 frames (200 ms)" in out and "5 frames later than the sound" in out
    for flag, value in (("--min_confidence", 0.5), ("--max_shift", 0)):
        status, again, errors = run(capsys, "offset", *one, flag, value)
        assert status == 0 and again == out and "not used" in errors[0]


def test_vectors_that_would_be_one_file_are_told(checkpoint, voices, tmp_path, capsys):
    for name in ("a.wav", "a.flac"):
        shutil.copy(voices / "spk0/0.wav", tmp_path / name)
    flags = ("--initial_model", checkpoint, "--device", "cpu", "--output", tmp_path / "v")
    status, _, errors = run(capsys, "embed", *flags, tmp_path / "a.wav", tmp_path / "a.flac")
    assert status == 1 and "two inputs would have the same .npy" in errors[0]


def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_embedded(
    checkpoint, voices, tmp_path, closed, capsys
):
    closed(voices / "spk1")
    flags = ("--initial_model", checkpoint, "--device", "cpu", "--output", tmp_path / "v.npz")
    status, _, errors = run(capsys, "embed", *flags, voices)
    assert (
        status == 1
        and len(errors) == 1
        and f"{voices}/spk1: this folder and its contents cannot be read" in errors[0]
    )
    with np.load(tmp_path / "v.npz") as found:
        assert {Path(file).parent.name for file in found["files"]} == {"spk0"}


# ---------------------------------------------------------------- match


@pytest.mark.parametrize("ways", [2, 3, 5])
def test_matching_accuracy_is_the_mean_over_all_draws(ways):
    draws = np.random.default_rng(0)
    speakers = ["a", "a", "b", "c", "d", "d", "e"]
    similarity = draws.standard_normal((7, 7)) + 0.7 * np.eye(7)
    won = []
    for row in range(7):
        others = [n for n in range(7) if speakers[n] != speakers[row]]
        sets = list(itertools.combinations(others, ways - 1))
        won.append(np.mean([all(similarity[row, n] < similarity[row, row] for n in wrong) for wrong in sets]))
    found = matching_accuracy(similarity, speakers, ways)
    assert found.accuracy == pytest.approx(100 * np.mean(won), abs=1e-6)
    assert found.low < found.accuracy < found.high


def test_matching_accuracy_at_its_ends():
    people = [str(n) for n in range(300)]
    assert matching_accuracy(np.eye(300), people, 10).accuracy == pytest.approx(100)
    assert (
        matching_accuracy(np.zeros((300, 300)), people, 2).accuracy == 0
    )  # what cannot be told is not found
    chance = matching_accuracy(np.random.default_rng(0).standard_normal((300, 300)), people, 10)
    assert abs(chance.accuracy - 10) < 3 and 2 < chance.high - chance.low < 10
    with pytest.raises(ValueError, match="11-way matching: .* for 10 at most"):
        matching_accuracy(np.eye(10), people[:10], 11)


def test_the_interval_of_matching_accuracy_is_of_clips_not_of_speakers():
    """Five speakers lose their only clip, five win all of their 19: 95 % of clips, but half of the speakers."""
    speakers = [f"lost{n}" for n in range(5)] + [f"won{n}" for n in range(5) for _ in range(19)]
    similarity = np.eye(len(speakers))
    similarity[np.arange(5), np.arange(5)] = -1
    found = matching_accuracy(similarity, speakers, 2)
    assert found.accuracy == pytest.approx(95)
    assert found.low == pytest.approx(82.6, abs=1) and found.high == pytest.approx(98.7, abs=1)


def test_speakers():
    assert len(set(speakers_of_clips(["x/id1/a/1.mp4", "x/id1/b/2.mp4", "x/id2/a/1.mp4"]))) == 2
    assert speakers_of_clips(["x/1.mp4", "x/2.mp4"]) == ["x/1.mp4", "x/2.mp4"]


class Familiar(nn.Module):
    """Identity embeddings that tell the person of a clip of the fixture, in face and voice alike."""

    def forward_vid(self, video: torch.Tensor) -> tuple[None, torch.Tensor]:
        people = [frame_number(clip[:, 0].permute(1, 2, 0).numpy()) // 977 // 2 for clip in video]
        return None, torch.eye(8)[torch.tensor(people)][..., None]

    def forward_aud(self, audio: torch.Tensor) -> tuple[None, torch.Tensor]:
        people = ((audio[:, 0].long() + RAMP // 2) // 3001 // 2).clamp(max=7)
        return None, torch.eye(8)[people][..., None]


def test_match(clips, checkpoint, capsys, monkeypatch):
    network = SyncNet(**NETWORK)
    network.__S__ = Familiar()
    listed = read_list(str(clips / "list.txt"))
    there, back, speakers = match(network, listed, ways=(2, 4), num_eval=1)
    assert [m.accuracy for m in there + back] == pytest.approx([100] * 4) and len(set(speakers)) == 4
    swapped = [Clip(a.video, b.audio, 0, 30) for a, b in zip(listed, listed[2:] + listed[:2], strict=True)]
    assert match(network, swapped, ways=(4,), num_eval=1)[0][0].accuracy == 0

    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: network)
    flags = ("--initial_model", checkpoint, "--ways", 2, 3, "--num_eval", 1)
    status, out, _ = run(capsys, "match", clips / "list.txt", *flags)
    assert status == 0 and "8 clips of 4 speakers" in out
    assert [line.split()[:3] for line in out.splitlines()[-2:]] == [
        ["2", "50.00", "100.00"],
        ["3", "33.33", "100.00"],
    ]


def test_match_tells_too_few_speakers_before_it_embeds(clips, monkeypatch):
    monkeypatch.setattr("syncnet.inference.embeddings.embed", None)
    listed = read_list(str(clips / "list.txt"))
    with pytest.raises(UserError, match="10-way matching: .* for 7 at most, of 8 clips of 4 speakers"):
        match(None, listed)
    with pytest.raises(UserError, match="1 clips of 1 speakers: nothing to tell apart"):
        match(None, listed[:1], ways=(2,))


def test_match_leaves_out_clips_without_a_face_or_a_voice(clips):
    network = SyncNet(**NETWORK)
    network.__S__ = Familiar()
    listed = read_list(str(clips / "list.txt"))
    listed[2] = Clip("none.mp4", listed[2].audio, 0, 30)
    listed[5] = Clip(listed[5].video, "none.wav", 0, 30)
    skipped = []
    there, back, speakers = match(network, listed, ways=(2,), num_eval=1, skip=skipped.append)
    assert len(speakers) == 6 and len(skipped) == 2 and there[0].accuracy == back[0].accuracy == 100


def test_match_embeds_faces_and_voices_alike(monkeypatch):
    """With the same crops and batches; it does not search the files for each clip."""
    looks, asked = [], []

    class Files(list):
        def __iter__(self):
            looks.append(1)
            return super().__iter__()

    def embedded(_, files, *settings, skip):
        asked.append((*settings, skip))
        return Files(files), torch.nn.functional.one_hot(torch.arange(len(files))).float()

    monkeypatch.setattr("syncnet.inference.embeddings.embed", embedded)
    many = [Clip(f"x/id{n // 2}/v/{n}.mp4", f"{n}.wav", 0, 30) for n in range(60)]
    found = match(None, many, ways=(2,), num_eval=7, batch=5, allow_resize=True, skip=print)
    assert found[0][0].accuracy == 100 and len(looks) <= 4
    assert asked == [(False, 7, False, 5, print), (True, 7, False, 5, True, print)]


def test_match_prints_faces_first(clips, checkpoint, capsys, monkeypatch):
    figures = ([Matching(2, 60, 50, 70)], [Matching(2, 90, 80, 95)], ["a", "b"])
    monkeypatch.setattr("syncnet.inference.match.match", lambda *_: figures)
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: None)
    status, out, _ = run(capsys, "match", clips / "list.txt", "--initial_model", checkpoint)
    titles, row = out.splitlines()[-2:]
    assert status == 0 and titles.index("face finds voice") < titles.index("voice finds face")
    assert row.split() == ["2", "50.00", "60.00", "(50.00", "-", "70.00)", "90.00", "(80.00", "-", "95.00)"]


def test_a_list_read_in_another_folder_says_so(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inferSyncNet, "load_network", None)
    (tmp_path / "home/data").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    (tmp_path / "home/clips").symlink_to(clips)
    names = [f"clips/mp4/id{k}/video/{2 * k}.mp4" for k in range(2)]
    lines = [f"{name} {name.replace('mp4', 'wav')} 0 30\n" for name in names]
    text = tmp_path / "home/data/list.txt"
    text.write_text("".join(lines))
    monkeypatch.chdir(tmp_path / "away")
    for command in (
        ["embed", "--output", "x.npz"],
        ["embed", "--face", "--output", "x.npz"],
        ["offset"],
        ["match"],
    ):
        status, _, (line,) = run(capsys, *command, text, "--initial_model", "x")
        assert status == 1 and "The paths in a list are relative to the folder in which it was made" in line
        assert line.endswith(f"cd {tmp_path}/home.") and f"{text}: its files are not here (clips/" in line
    with pytest.raises(MediaError, match=f"cd {tmp_path}/home"):
        next(iter(DatasetLoader(str(text), 2, 2, 16, 1)))
    text.rename(tmp_path / "away/list.txt")
    assert "Run the command there, or make" in run(capsys, "offset", "list.txt", "--initial_model", "x")[2][0]
    monkeypatch.chdir(tmp_path / "home")
    assert len(find_sources(["../away/list.txt"], (".mp4",))) == 2


# ---------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("embed {clips}/wav --output {there}/folder.npz", "--output {there}/folder.npz: is a folder"),
        ("embed {clips}/wav --output {there}/file", "--output {there}/file: is a file, needs a folder"),
        ("embed {clips}/wav --output {there}/file/x.npz", "--output {there}/file/x.npz: cannot be created"),
        ("offset {clips}/list.txt --plot {there}/folder", "--plot {there}/folder: is a folder"),
        ("offset {clips}/list.txt --csv {there}/file/x.csv", "--csv {there}/file/x.csv: cannot be created"),
        (
            "offset {clips}/list.txt --write_list {there}/closed/x",
            "--write_list {there}/closed/x: no permission",
        ),
        ("offset {clips}/list.txt --csv /dev/null", "--csv /dev/null: is not a regular file"),
    ],
)
def test_outputs_are_checked_before_anything_is_computed(
    clips, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.setattr(inferSyncNet, "load_network", None)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("closed") and access(path, mode)
    )
    for folder in ("folder", "folder.npz", "closed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").write_text("kept")
    given = arguments.format(clips=clips, there=tmp_path).split()
    before = files_in(tmp_path)
    status, out, errors = run(capsys, *given, "--initial_model", "x")
    assert status == 1 and out == "" and len(errors) == 1
    assert errors[0].startswith("inferSyncNet.py: " + message.format(there=tmp_path))
    assert files_in(tmp_path) == before


def test_a_full_disk_is_told_with_the_name_that_was_given(checkpoint, voices, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    flags = ("--initial_model", checkpoint, "--device", "cpu", "--output", tmp_path / "x.npz")
    status, _, errors = run(capsys, "embed", voices, *flags)
    said = f"inferSyncNet.py: {tmp_path}/x.npz: No space left on device. Make room, then run the same command again"
    assert status == 1 and errors == [said]


# ---------------------------------------------------------------- bad input


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    wavfile.write(folder / "silent.wav", 16000, np.zeros(32000, np.int16))
    make_wav(str(folder / "short.wav"), T * 640)
    make_wav(str(folder / "good.wav"), 40 * 640)
    make_clip(str(folder / "small.mp4"), 40, size=160)
    make_clip(str(folder / "mute.mp4"), 40)
    make_clip(str(folder / "fast.mp4"), 40, fps=30)
    make_clip(str(folder / "brief.mp4"), 12)
    make_txt(str(folder / "clip.txt"))
    (folder / "broken.mp4").write_bytes(b"nothing")
    (folder / "broken.m4a").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("verify {bad}/silent.wav {bad}/good.wav", "silent.wav: silent, all 32000 samples are the same"),
        ("verify {bad}/good.wav {bad}/short.wav", "short.wav: Audio clip is too short: 5120 samples"),
        ("verify {bad}/none.wav {bad}/good.wav", "none.wav: no such file"),
        ("verify {bad}/good.wav {bad}/broken.m4a", "broken.m4a: a text file, neither sound nor video"),
        ("verify {bad}/good.wav {bad}/good.wav --nOut 16", "weights of the network do not fit"),
        ("verify {bad}/good.wav {bad}/good.wav --model models.None", "has no SyncNetModel"),
        ("verify {bad}/good.wav {bad}/good.wav --initial_model {bad}/none", "none: no such"),
        ("verify {bad}/good.wav {bad}/good.wav --initial_model {bad}/good.wav", "good.wav: not loaded"),
        ("offset {bad}/mute.mp4", "mute.mp4: no sound track (--wav gives a clip its sound)"),
        ("offset {bad}/mute.mp4 --wav {bad}/silent.wav", "silent.wav: silent"),
        (
            "offset {bad}/fast.mp4 --wav {bad}/good.wav --allow_resize",
            "fast.mp4: 30 frames per second, expected 25",
        ),
        ("offset {bad}/brief.mp4 --wav {bad}/good.wav", "brief.mp4: 12 frames of picture and sound"),
        ("offset {bad}/broken.mp4 --wav {bad}/good.wav", "broken.mp4: a text file, neither sound nor video"),
        ("offset {bad}/mute.mp4 --write_list x.txt", "--write_list: a list names a wav for every clip"),
        (
            "offset {bad}/mute.mp4 {bad}/fast.mp4 --wav {bad}/good.wav",
            "2 clips need a folder with their wavs",
        ),
        ("embed {bad}/small.mp4 --face --output {bad}/x.npz", "small.mp4: frames are 160x160"),
        ("embed {bad}/silent.wav --output {bad}/x.npz", "silent.wav: silent"),
        ("embed {bad}/nothing --output {bad}/x.npz", "nothing: no such file. Give folders, lists, or files"),
        ("embed {bad}/clip.txt --output {bad}/x.npz", "clip.txt, line 1: found 2 fields, expected 4"),
        ("match {bad}/nothing", "nothing: no such file. Give folders, lists, or files"),
    ],
)
def test_bad_input_is_told_in_one_line(bad, checkpoint, capsys, arguments, message):
    given = [argument.format(bad=bad) for argument in arguments.split()]
    if "--initial_model" not in given:
        given += ["--initial_model", str(checkpoint)]
    status, out, errors = run(capsys, *given, "--device", "cpu")
    assert status == 1 and out == "" and len(errors) == 1 and message in errors[0], errors
    assert not (bad / "x.npz").exists()


def test_the_wav_of_a_track_is_named_where_it_lies(checkpoint, tmp_path, capsys):
    """A clip without sound in it, in VoxCeleb2's folders: what is printed can be typed."""
    video = str(tmp_path / "mp4/a/b.mp4")
    make_clip(video, 40)
    make_wav(str(tmp_path / "wav/a/b.wav"), 40 * 640)
    flags = ("--initial_model", checkpoint, "--max_offset", 1)
    for given in (video, tmp_path):
        status, _, errors = run(capsys, "offset", given, *flags)
        wav, videos, wavs = re.search(
            r"sound: --wav (\S+), or of all (\S+) --wav (\S+)\)", errors[0]
        ).groups()
        assert status == 1
    assert run(capsys, "offset", video, *flags, "--wav", wav)[0] == 0
    assert run(capsys, "offset", videos, *flags, "--wav", wavs)[0] == 0


@pytest.mark.parametrize("command", ["embed", "verify", "offset", "match"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        inferSyncNet.main([command, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and "--device" in said and "--initial_model" in said


def test_a_trial_list_is_told_from_a_list_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("trials.txt").write_text("1 a/x.wav b/y.wav\n0 a/x.wav c/z.wav\n")
    with pytest.raises(MediaError, match=r"trials.txt, line 1: is a trial .*--test_list"):
        find_sources(["trials.txt"], (".wav",))
    Path("1 my own.wav").write_text("")
    Path("files.txt").write_text("1 my own.wav\n")
    assert [source.path for source in find_sources(["files.txt"], (".wav",))] == ["1 my own.wav"]


def test_a_folder_of_videos_has_voices(tmp_path, monkeypatch):
    for name in ("a.mp4", "b/c.MP4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [source.path for source in find_sources(["."], SOUND_FILES)] == ["./a.mp4", "./b/c.MP4"]
    (tmp_path / "d.wav").touch()
    assert [source.path for source in find_sources(["."], SOUND_FILES)] == ["./d.wav"]


def test_a_video_beside_several_sounds(tmp_path):
    """A list may give a video another's sound, to see how they do not fit; the same pair counts once."""
    pairs = [("a.mp4", "a.wav"), ("a.mp4", "b.wav"), ("b.mp4", "b.wav"), ("a.mp4", "a.wav")]
    path = tmp_path / "pairs.txt"
    path.write_text("".join(f"{tmp_path / video} {tmp_path / wav} 0 30\n" for video, wav in pairs))
    for video, _ in pairs:
        (tmp_path / video).touch()
    found = with_wavs(find_sources([str(path)], VIDEO_FILES, with_sound=True), None)
    named = [(Path(source.path).name, Path(wav).name) for source, wav in found]
    assert named == pairs[:3]
    assert [Path(source.path).name for source in find_sources([str(path)], VIDEO_FILES)] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("form", ["{root}/mp4/{clip}.mp4", "mp4/{clip}.mp4", "{root}/./x/../mp4/{clip}.mp4"])
@pytest.mark.parametrize("line", ["{video}", "{video} nowhere.wav 0 30"])
def test_a_folder_of_wavs_for_a_list(tmp_path, monkeypatch, form, line):
    """Whether its paths are absolute or start in the current folder."""
    clips = ["id1/r/1", "id1/r/2", "id2/r/1"]
    (tmp_path / "x").mkdir()
    for clip in clips:
        for kind in ("mp4", "wav"):
            (tmp_path / kind / clip).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{kind}/{clip}.{kind}").touch()
    videos = [form.format(root=tmp_path, clip=clip) for clip in clips]
    (tmp_path / "list.txt").write_text("".join(line.format(video=video) + "\n" for video in videos))
    monkeypatch.chdir(tmp_path)
    for folder in ("wav", str(tmp_path / "wav")):
        found = with_wavs(find_sources(["list.txt"], VIDEO_FILES), folder)
        assert [(source.path, wav) for source, wav in found] == [
            (video, f"{folder}/{clip}.wav") for video, clip in zip(videos, clips, strict=True)
        ]
    # Of a folder that is given, paths are taken from there, as before; a list beside it changes nothing in that.
    found = with_wavs(find_sources(["mp4", "list.txt"], VIDEO_FILES), "wav")
    assert {wav for _, wav in found} == {f"wav/{clip}.wav" for clip in clips}


def test_two_clips_of_a_list_do_not_share_a_wav(tmp_path):
    """They are alike from some folder on, where the wavs of one of them are."""
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav/1.wav").touch()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.mp4").touch()
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a/1.mp4\n{tmp_path}/b/1.mp4\n")
    with pytest.raises(MediaError, match=r"wav/1.wav would be the sound of both .*a/1.mp4 and .*b/1.mp4"):
        with_wavs(find_sources([str(tmp_path / "list.txt")], VIDEO_FILES), str(tmp_path / "wav"))


def test_a_wav_scp_is_a_list_of_sounds(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "wav.scp").write_text(f"id1-a {tmp_path}/a.wav\nid1-b a.flac\n")
    found = find_sources([str(tmp_path / "wav.scp")], SOUND_FILES)
    assert [(source.path, source.name) for source in found] == [(f"{tmp_path}/a.wav", "id1-a")]
    (tmp_path / "wav.scp").write_text("id1-a sox a.flac -t wav - |\n")
    with pytest.raises(MediaError, match=r"wav.scp, line 1: id1-a is the output of a command"):
        find_sources([str(tmp_path / "wav.scp")], SOUND_FILES)


def test_a_list_of_sounds_finds_what_was_converted(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.flac\n")
    found = find_sources([str(tmp_path / "list.txt")], SOUND_FILES)
    assert [source.path for source in found] == [f"{tmp_path}/a.wav"]


def test_a_file_that_is_given_twice_counts_once(tmp_path, monkeypatch):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("b.wav\n")
    monkeypatch.chdir(tmp_path)
    given = ["a.wav", "./a.wav", ".", str(tmp_path), "list.txt"]
    assert [source.path for source in find_sources(given, SOUND_FILES)] == ["a.wav", "./b.wav"]


def test_a_folder_given_as_a_file(network, tmp_path):
    with pytest.raises(MediaError, match="is a folder, needs a file"):
        verify(network, str(tmp_path), str(tmp_path))
