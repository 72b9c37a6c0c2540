"""inferSyncNet.py embed and verify: vectors and scores of files, and what is kept of them."""

import errno
import gc
import itertools
import json
import os
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import make_clip, make_sound, make_wav, noise
from inferring import NETWORK, T, files_in, run
from scipy.io import wavfile
from scipy.signal import resample_poly

import inferSyncNet
import trainSyncNet
from DatasetLoader import get_frames, loadWAV
from inferSyncNet import embed, verify
from syncnet.inference import embeddings
from syncnet.media.clips import MediaError, read_list
from SyncNetDist import SyncNet


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


def test_a_bad_file_is_skipped_and_reported(checkpoint, voices, tmp_path, capsys):
    wavfile.write(tmp_path / "silent.wav", 16000, np.zeros(9000, np.int16))
    flags = ("--initial_model", checkpoint, "--device", "cpu", "--output", tmp_path / "v.npz")
    status, out, errors = run(capsys, "embed", tmp_path / "silent.wav", voices, *flags)
    assert status == 1 and len(errors) == 1 and "silent.wav: silent" in errors[0] and "4 files" in out
    with np.load(tmp_path / "v.npz") as found:
        assert len(found["files"]) == len(found["vectors"]) == 4


def test_two_inputs_with_the_same_vector_file_are_refused(checkpoint, voices, tmp_path, capsys):
    for name in ("a.wav", "a.flac"):
        shutil.copy(voices / "spk0/0.wav", tmp_path / name)
    flags = ("--initial_model", checkpoint, "--device", "cpu", "--output", tmp_path / "v")
    status, _, errors = run(capsys, "embed", *flags, tmp_path / "a.wav", tmp_path / "a.flac")
    assert status == 1 and "two inputs would have the same .npy" in errors[0]


# ---------------------------------------------------------------- written one by one, and resumed


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


@pytest.mark.parametrize(("output", "flags"), [("v.npz", ()), ("v", ("--per_crop",))])
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
def test_embed_recomputes_what_has_changed(network, checkpoint, many, computed, tmp_path, capsys, output):
    common = ("--initial_model", checkpoint, many, "--num_eval", 2, "--output", tmp_path / output)
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
    common = ("--initial_model", checkpoint, many, "--num_eval", 2, "--output", tmp_path / output)
    assert run(capsys, "embed", *common, "--precision", "bf16")[0] == 0
    del computed[:]
    assert run(capsys, "embed", *common, "--precision", "auto")[0] == 0 and computed == []


def test_a_damaged_or_missing_vector_is_recomputed(checkpoint, many, computed, tmp_path, capsys):
    common = ("--initial_model", checkpoint, many, "--num_eval", 2, "--output", tmp_path / "v")
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


def test_a_full_disk_is_reported_with_the_name_of_the_output(
    checkpoint, voices, tmp_path, capsys, monkeypatch
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    flags = ("--initial_model", checkpoint, "--device", "cpu", "--output", tmp_path / "x.npz")
    status, _, errors = run(capsys, "embed", voices, *flags)
    said = f"inferSyncNet.py: {tmp_path}/x.npz: No space left on device. "
    said += "Free some space, then run the same command again"
    assert status == 1 and errors == [said]


def test_memory_holds_no_crops_of_earlier_files(network, many, monkeypatch):
    """Of a file that is done, nothing is kept but its vector."""
    made = []
    real = network.identity_vectors

    def identity_vectors(crops, batch):
        made.append((weakref.ref(crops), weakref.ref(vectors := real(crops, batch))))
        return vectors

    monkeypatch.setattr(network, "identity_vectors", identity_vectors)
    paths = [str(path) for path in sorted(many.glob("*.wav"))]
    for number, _ in enumerate(embeddings.iter_embeddings(network, paths, num_eval=20)):
        gc.collect()
        assert all(crops() is None and vectors() is None for crops, vectors in made[:-1]), number
    assert len(made) > 3
    files, vectors = embed(network, paths)
    assert vectors.untyped_storage().nbytes() == len(files) * network.nOut * 4


# ---------------------------------------------------------------- refused networks, verify


@pytest.fixture(scope="module")
def lips(tmp_path_factory) -> Path:
    """A checkpoint of the lip-sync network, which has no identity heads."""
    path = tmp_path_factory.mktemp("lips") / "lips.model"
    SyncNet("models.SyncNetV2", nOut=16, device="cpu").saveParameters(str(path))
    return path


@pytest.mark.parametrize("command", ["embed", "verify", "match", "export", "--eval"])
def test_a_network_without_identities_is_refused_before_anything_is_read(
    clips, voices, lips, tmp_path, capsys, monkeypatch, command
):
    for name in ("voice_crops", "face_crops", "heard_sound"):
        monkeypatch.setattr(embeddings, name, lambda *_: pytest.fail("read"))
    flags = {
        "embed": (voices, "--output", tmp_path / "v.npz"),
        "verify": (voices / "spk0/0.wav", voices / "spk0/1.wav"),
        "match": (clips / "list.txt", "--ways", 2),
        "export": ("--stream", "voice", "--head", "identity", "--output", tmp_path / "x.onnx"),
        "--eval": ("--test_list", tmp_path / "none.txt", "--device", "cpu"),
    }
    main = trainSyncNet.main if command == "--eval" else inferSyncNet.main
    assert main([str(flag) for flag in (command, "--initial_model", lips, *flags[command])]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "no identity heads" in errors[0]


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
