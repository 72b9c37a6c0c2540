"""Evaluation with a trial list: its files, score normalization, cached embeddings, and tests during training."""

import csv
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import make_list, make_sound
from scipy.io import wavfile

import convertAudio
import trainSyncNet
from syncnet.media.clips import Clip, MediaError, format_list_line
from syncnet.support.version import VERSION
from syncnet.verification import evaluation, normalization
from syncnet.verification.normalization import as_norm, read_cohort
from syncnet.verification.rates import ABOUT_MIN_DCF
from syncnet.verification.scores import measure, score_vectors, write_scores
from syncnet.verification.trials import Trials, read_trials
from SyncNetDist import SyncNet
from tuneThreshold import min_dcf, read_scores, tuneThresholdfromScore

NETWORK = {"model": "tinyModel", "nOut": 8, "maxFrames": 6, "device": "cpu"}


@pytest.fixture(scope="module")
def voices(tmp_path_factory) -> Path:
    """Twelve noises of four speakers, each speaker with its own spectrum, and all their pairs."""
    folder = tmp_path_factory.mktemp("voices")
    draws = np.random.default_rng(0)
    names = []
    for k in range(12):
        tone = np.sin(np.arange(8000) * (0.05 + 0.1 * (k // 3)))
        wavfile.write(folder / f"{k}.wav", 16000, np.int16(6000 * tone + 5000 * draws.standard_normal(8000)))
        names.append(f"{k}.wav")
    pairs = [(i, j) for i in range(12) for j in range(i)]
    lines = [f"{int(i // 3 == j // 3)} {names[i]} {names[j]}\n" for i, j in pairs]
    (folder / "trials.txt").write_text("".join(lines))
    half = [line for line, (i, _) in zip(lines, pairs, strict=True) if i < 6]
    (folder / "half.txt").write_text("".join(half))
    (folder / "cohort.txt").write_text("".join(f"{k}.wav\n" for k in range(6, 12)))
    return folder


@pytest.fixture(scope="module")
def network() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet(**NETWORK)


def evaluate(network: SyncNet, voices: Path, result: Path, trials: str = "trials.txt", **more) -> dict:
    return evaluation.evaluate_list(network, str(voices / trials), str(voices), str(result), **more)


def strict(path: Path) -> dict:
    """A JSON file without Infinity or NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.draws
def test_files_and_figures(network, voices, tmp_path, capsys):
    network.saveParameters(str(tmp_path / "x.model"))
    report = evaluate(network, voices, tmp_path, checkpoint=str(tmp_path / "x.model"), settings={"seed": 3})
    trials = read_trials(str(voices / "trials.txt"))
    expected = network.score_trials(trials, str(voices))

    scores, labels = read_scores(str(tmp_path / "eval_scores.txt"))
    assert np.array_equal(scores.astype(np.float32), expected) and np.array_equal(labels, trials.labels)
    lines = [line.split() for line in (tmp_path / "eval_scores.txt").read_text().splitlines()]
    assert [" ".join(line[1:]) for line in lines] == (voices / "trials.txt").read_text().splitlines()

    eer = tuneThresholdfromScore(scores, labels, [])[1]
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == f"EER {eer:2.4f}" and out[0] == "66 trials, 12 of them with the same speaker, 12 files"
    found = strict(tmp_path / "eval.json")
    assert found == report and found["eer"] == eer and found["settings"] == {"seed": 3}
    assert found["version"] == VERSION
    assert (found["trials"], found["targets"], found["files"]) == (66, 12, 12)
    assert found["min_dcf_0.05"] == min_dcf(scores, labels, 0.05)[0]
    sha = hashlib.sha256((tmp_path / "x.model").read_bytes()).hexdigest()
    assert (
        found["checkpoint"]["sha256"] == sha and found["versions"]["torch"].split("+")[0] in torch.__version__
    )
    assert (tmp_path / "eval_det.png").read_bytes().startswith(b"\x89PNG")


def test_infinite_threshold_is_null_in_json():
    figures = measure(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1, 0, 1, 0]))
    assert figures["min_dcf_0.01"] == 1 and figures["min_dcf_0.01_threshold"] is None
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" ", "\t", 1).replace("\n1 ", "\n1\t").replace("\n0 ", "\n0\t"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\n\n"),
    ],
    ids=["crlf", "tabs", "tab after the label", "byte order mark", "empty lines"],
)
def test_formats_of_trial_lists(voices, tmp_path, change):
    changed = change((voices / "trials.txt").read_text())
    (tmp_path / "trials.txt").write_bytes(changed.encode())
    expected, found = read_trials(str(voices / "trials.txt")), read_trials(str(tmp_path / "trials.txt"))
    assert found.files == expected.files
    for name in ("first", "second", "labels"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    "form",
    ["{a} {b} {word}", "{word} {a} {b}", "{a}\t{b}\t{word}", "{a} {word} {b}", "{a} {b} {label}"],
)
@pytest.mark.parametrize("words", [("nontarget", "target"), ("imp", "TGT"), ("False", "True")])
def test_labels_may_be_words_in_any_column(voices, tmp_path, form, words):
    """Kaldi's trials are `fileA fileB target|nontarget`."""
    expected = read_trials(str(voices / "trials.txt"))
    lines = [line.split() for line in (voices / "trials.txt").read_text().splitlines()]
    text = "".join(form.format(a=a, b=b, label=k, word=words[int(k)]) + "\n" for k, a, b in lines)
    (tmp_path / "trials.txt").write_text(text)
    found = read_trials(str(tmp_path / "trials.txt"))
    assert found.files == expected.files
    for name in ("first", "second", "labels"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a b\n2 a b\n", "line 2: label '2', expected 1"),
        ("a b target\nc d target\ne f maybe\n", "line 3: label 'maybe', expected 1"),
        ("a b c\n", "line 1: label 'a', expected 1"),
        ("a b\n1 a b\n", "line 2: found 3 fields"),
        ("1 0 1\n0 1 2\n", None),  # files named 0, 1, 2
    ],
)
def test_wrong_labels_are_reported(tmp_path, text, message):
    (tmp_path / "trials.txt").write_text(text)
    if message:
        with pytest.raises(MediaError, match=message):
            read_trials(str(tmp_path / "trials.txt"))
    else:
        assert read_trials(str(tmp_path / "trials.txt")).labels.tolist() == [1, 0]


# ---------------------------------------------------------------- sound files of a list


KINDS = {
    ".flac": ("flac", "flac"),
    ".m4a": ("ipod", "aac"),
}


@pytest.fixture(scope="module")
def encoded(voices, tmp_path_factory) -> Path:
    """The voices in other file formats, with a folder and a trial list for each."""
    folder = tmp_path_factory.mktemp("encoded")
    for ending, (kind, codec) in KINDS.items():
        place = folder / ending[1:]
        place.mkdir()
        for wav in voices.glob("*.wav"):
            make_sound(
                str(place / wav.with_suffix(ending).name), wavfile.read(wav)[1], kind=kind, codec=codec
            )
        listed = (voices / "half.txt").read_text().replace(".wav", ending)
        (folder / f"{ending[1:]}.txt").write_text(listed)
    return folder


def scores_of(network, trials: Path, place: Path, result: Path, **more) -> list[str]:
    evaluation.evaluate_list(network, str(trials), str(place), str(result), num_eval=2, **more)
    return [line.split()[0] for line in (result / "eval_scores.txt").read_text().splitlines()]


def test_scores_of_flac_are_those_of_wav(network, voices, encoded, tmp_path):
    assert scores_of(network, encoded / "flac.txt", encoded / "flac", tmp_path / "a") == scores_of(
        network, voices / "half.txt", voices, tmp_path / "b"
    )
    test = evaluation.TrialTest(network, str(encoded / "flac.txt"), str(encoded / "flac"), 2)
    assert test.run() == evaluation.TrialTest(network, str(voices / "half.txt"), str(voices), 2).run()
    trials = read_trials(str(encoded / "flac.txt"))
    assert np.array_equal(
        network.score_trials(trials, str(encoded / "flac")),
        network.score_trials(read_trials(str(voices / "half.txt")), str(voices)),
    )


@pytest.mark.parametrize("ending", KINDS)
def test_a_list_works_before_and_after_conversion(network, encoded, ending, tmp_path):
    """x.flac is found as x.wav in the folder of convertAudio.py, also in a cohort; the scores are the same."""
    listed, place = encoded / f"{ending[1:]}.txt", encoded / ending[1:]
    (tmp_path / "cohort.txt").write_text("".join(f"{k}{ending}\n" for k in range(6, 12)))
    assert convertAudio.main([f"--src={place}", f"--dst={tmp_path}/16k", "--nWorkers=1"]) == 0
    both = []
    for number, folder in enumerate((place, tmp_path / "16k")):
        cohort = read_cohort(str(tmp_path / "cohort.txt"), str(folder))
        assert len(cohort) == 6
        both.append(scores_of(network, listed, folder, tmp_path / str(number), cohort=cohort, top_n=3))
        both[-1] += (tmp_path / str(number) / "eval_scores_asnorm.txt").read_text().split()
    assert both[0] == both[1]


def test_a_list_of_wavs_finds_downloaded_files(network, voices, encoded, tmp_path):
    """VoxCeleb2's trials name .wav or .m4a, whatever is on the disk; Kaldi's names have no extension."""
    assert scores_of(network, voices / "half.txt", encoded / "m4a", tmp_path / "a") == scores_of(
        network, encoded / "m4a.txt", encoded / "m4a", tmp_path / "b"
    )
    (tmp_path / "bare.txt").write_text((voices / "half.txt").read_text().replace(".wav", ""))
    assert scores_of(network, tmp_path / "bare.txt", voices, tmp_path / "c") == scores_of(
        network, voices / "half.txt", voices, tmp_path / "d"
    )


def test_damaged_sound_is_reported_before_training_with_tests(network, encoded, tmp_path):
    shutil.copytree(encoded / "flac", tmp_path / "flac")
    broken = tmp_path / "flac/3.flac"
    broken.write_bytes(broken.read_bytes()[:5000])
    with pytest.raises(MediaError, match=r"3.flac"):
        evaluation.TrialTest(network, str(encoded / "flac.txt"), str(tmp_path / "flac"), 2)


def test_a_wav_scp_is_a_table_of_utterances(network, voices, tmp_path, monkeypatch):
    """Paths relative to the current folder or to the wav.scp, or absolute; also with spaces."""
    expected = scores_of(network, voices / "half.txt", voices, tmp_path / "expected")
    lines = [line.split() for line in (voices / "half.txt").read_text().splitlines()]
    text = "".join(f"spk-{a[:-4]} spk-{b[:-4]} {('nontarget', 'target')[int(k)]}\n" for k, a, b in lines)
    (tmp_path / "trials").write_text(text)
    shutil.copytree(voices, tmp_path / "my wavs")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for number, form in enumerate(
        (f"{voices}/{{}}.wav", "my wavs/{}.wav", "../my wavs/{}.wav", "my wavs/{}.flac")
    ):
        table = "".join(f"spk-{k} {form.format(k)}\n" for k in range(6))
        (tmp_path / "wav.scp").write_text(table.replace(" ", "\t", 1) if number == 1 else table)
        found = scores_of(network, tmp_path / "trials", tmp_path / "wav.scp", tmp_path / str(number))
        assert found == expected
    (tmp_path / "cohort.txt").write_text("spk-4\nspk-5\n")
    assert list(read_cohort(str(tmp_path / "cohort.txt"), str(tmp_path / "wav.scp"))) == ["spk-4", "spk-5"]
    whole = read_cohort(str(tmp_path / "wav.scp"), "elsewhere")
    assert whole == {f"spk-{k}": f"{tmp_path}/my wavs/{k}.wav" for k in range(6)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a touch ran |\nb /b.wav\n", r"wav.scp, line 1: a is the output of a command, .* not run"),
        ("a /a.wav\nb\n", r"wav.scp, line 2: found 'b', expected `utterance path`"),
        ("a /a.wav\na /b.wav\n", r"wav.scp, line 2: a is /b.wav here, but was /a.wav before"),
        ("a /a.wav\n", r"wav.scp: has no line for b, of 2 in the list"),
        ("a /a.wav\nb /b.wav\n", r"wav.scp: none of its files exists \(/a.wav: no such file\)"),
        ("", r"wav.scp: is empty"),
    ],
)
def test_errors_in_a_wav_scp_are_reported(network, tmp_path, monkeypatch, table, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wav.scp").write_text(table)
    (tmp_path / "trials").write_text("a b target\na a nontarget\n")
    with pytest.raises(MediaError, match=message):
        evaluation.evaluate_list(network, "trials", "wav.scp", "result")
    assert not (tmp_path / "ran").exists()


def test_a_list_without_labels_gives_only_scores(network, voices, tmp_path, capsys):
    lines = [line[2:] for line in (voices / "trials.txt").read_text().splitlines()]
    (tmp_path / "blind.txt").write_text("\n".join(lines))
    report = evaluate(network, voices, tmp_path, trials=str(tmp_path / "blind.txt"))
    written = [line.split() for line in (tmp_path / "eval_scores.txt").read_text().splitlines()]
    assert [" ".join(fields[1:]) for fields in written] == lines
    expected = network.score_trials(read_trials(str(voices / "trials.txt")), str(voices))
    assert np.array_equal(np.array([fields[0] for fields in written], np.float32), expected)
    assert "eer" not in report and "EER" not in capsys.readouterr().out
    assert not (tmp_path / "eval_det.png").exists() and strict(tmp_path / "eval.json")["targets"] is None


@pytest.mark.parametrize("place", ["x.model", "closed/x.model"])
def test_results_of_a_given_checkpoint_are_written_beside_it(
    network, voices, tmp_path, monkeypatch, capsys, place
):
    """They do not go to the default --save_path, which is the training example's run."""
    monkeypatch.chdir(tmp_path)
    network.saveParameters(place)
    flags = "--eval --model tinyModel --device cpu --num_eval 2 --maxFrames 6 --nOut 8 "
    flags = (flags + f"--test_list {voices}/trials.txt --test_path {voices}").split()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and access(path, mode))
    assert trainSyncNet.main([*flags, "--initial_model", place]) == 0
    results = Path("x_eval" if "closed" in place else place.replace(".model", "_eval"))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("EER ") and float(last.split()[1]) == pytest.approx(
        strict(results / "eval.json")["eer"], abs=1e-4
    )
    assert trainSyncNet.main([*flags, "--untrained"]) == 0
    assert Path("untrained_eval/eval.json").exists() and not Path("data").exists()
    assert trainSyncNet.main([*flags, "--initial_model", place, "--save_path", "run"]) == 0
    assert sorted(path.name for path in Path("run").iterdir()) == ["result"]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_are_written_exactly(tmp_path, kind):
    trials = Trials(["a.wav", "b.wav"], np.array([0, 1]), np.array([1, 0]), np.array([1, 0]))
    scores = np.array([1 / 3, -2 / 7], kind)
    write_scores(str(tmp_path / "s.txt"), scores, trials)
    assert np.array_equal(read_scores(str(tmp_path / "s.txt"))[0].astype(kind), scores)


def test_names_with_spaces_are_written_with_tabs(tmp_path):
    trials = Trials(["a b.wav", "c.wav"], np.array([0, 1]), np.array([1, 0]), np.array([1, 0]))
    write_scores(str(tmp_path / "s.txt"), np.float32([0.5, 0.25]), trials)
    assert (tmp_path / "s.txt").read_text() == "0.5\t1\ta b.wav\tc.wav\n0.25\t0\tc.wav\ta b.wav\n"
    assert read_scores(str(tmp_path / "s.txt"))[0].tolist() == [0.5, 0.25]


@pytest.mark.parametrize("block", [1, 50, 2**24])
@pytest.mark.parametrize("top_n", [3, 7, 300])
def test_as_norm_is_the_formula(monkeypatch, block, top_n):
    monkeypatch.setattr(normalization, "COSINES_PER_BLOCK", block)
    draws = np.random.default_rng(1)
    vectors, cohort = draws.standard_normal((9, 16)), draws.standard_normal((20, 16))
    trials = Trials([str(n) for n in range(9)], draws.integers(9, size=40), draws.integers(9, size=40), None)
    vectors, cohort = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (vectors, cohort))
    tensors = torch.tensor(vectors).float(), torch.tensor(cohort).float()
    scores = score_vectors(tensors[0], trials)
    found = as_norm(scores, trials, *tensors, top_n)
    for score, e, t, normalised in zip(scores, trials.first, trials.second, found, strict=True):
        sides = []
        for utterance in (e, t):
            nearest = sorted((float(vectors[utterance] @ other) for other in cohort), reverse=True)[:top_n]
            sides.append((score - np.mean(nearest)) / np.std(nearest))
        assert normalised == pytest.approx(sum(sides) / 2, rel=1e-4, abs=1e-4)


def test_as_norm_beside_raw(network, voices, tmp_path, capsys, monkeypatch):
    drawn = {}
    monkeypatch.setattr("syncnet.verification.report.plot_det", lambda curves, _: drawn.update(curves))
    cohort = read_cohort(str(voices / "cohort.txt"), str(voices))
    report = evaluate(network, voices, tmp_path, trials="half.txt", cohort=cohort, top_n=4, num_eval=3)
    trials = read_trials(str(voices / "half.txt"))
    vectors = network.embed([str(voices / file) for file in trials.files], 3)
    others = network.embed(list(cohort.values()), 3)
    raw = score_vectors(vectors, trials)
    expected = as_norm(raw, trials, vectors, others, 4)
    assert read_scores(str(tmp_path / "eval_scores.txt"))[0] == pytest.approx(raw, abs=1e-6)
    normalised = read_scores(str(tmp_path / "eval_scores_asnorm.txt"))[0]
    assert normalised == pytest.approx(expected, abs=1e-4)
    assert [list(one[0]) for one in drawn.values()] == [
        list(raw),
        list(as_norm(raw, trials, vectors, others, 4)),
    ]
    eers = [tuneThresholdfromScore(s, trials.labels, [])[1] for s in (raw, normalised)]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("EER")]
    assert printed == [f"EER {eer:2.4f}" for eer in eers]
    assert [report["figures"][kind]["eer"] for kind in ("raw", "asnorm")] == eers and report["eer"] == eers[1]


def test_cohorts(voices, tmp_path, network):
    clips = [Clip(f"{k}.mp4", f"w/{k}.wav", 0, 50) for k in range(30)]
    (tmp_path / "clips.txt").write_text("".join(format_list_line(clip) + "\n" for clip in clips))
    everyone = read_cohort(str(tmp_path / "clips.txt"), "elsewhere")
    assert list(everyone.values()) == [clip.audio for clip in clips]
    drawn = [list(read_cohort(str(tmp_path / "clips.txt"), "", 5, seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 5
    assert [name for name in everyone if name in drawn[0]] == drawn[0]  # in the list's order
    with pytest.raises(MediaError, match=r"6 utterances of the cohort are in the trials"):
        cohort = read_cohort(str(voices / "cohort.txt"), str(voices))
        evaluate(network, voices, tmp_path, cohort=cohort)
    (tmp_path / "one.txt").write_text("0.wav\n")
    with pytest.raises(MediaError, match=r"one.txt: 1 utterances, a cohort needs at least 2"):
        read_cohort(str(tmp_path / "one.txt"), "")
    with pytest.raises(MediaError, match=r"none.txt: no such file. Lines are wav names"):
        read_cohort("none.txt", "")


def test_cached_embeddings(network, voices, tmp_path, monkeypatch):
    kept = str(tmp_path / "kept.npz")
    half = evaluate(network, voices, tmp_path / "a", trials="half.txt", save_to=kept)
    with np.load(kept) as arrays:
        assert arrays["files"].tolist()[:2] == ["1.wav", "0.wav"] and arrays["vectors"].shape == (6, 8)
    embedded = []
    embed = network.embed

    def note(files: list[str], *settings) -> torch.Tensor:
        embedded.extend(Path(file).name for file in files)
        return embed(files, *settings)

    monkeypatch.setattr(network, "embed", note)
    again = evaluate(network, voices, tmp_path / "b", trials="half.txt", load_from=kept)
    assert not embedded and again == half
    evaluate(network, voices, tmp_path / "c", load_from=kept)
    assert sorted(embedded) == sorted(f"{k}.wav" for k in range(6, 12))
    evaluate(network, voices, tmp_path / "d")
    assert [(tmp_path / n / "eval_scores.txt").read_text() for n in "ab"] * 1 == [
        (tmp_path / "a/eval_scores.txt").read_text()
    ] * 2
    pairs = [read_scores(str(tmp_path / n / "eval_scores.txt"))[0] for n in "cd"]
    assert pairs[0] == pytest.approx(pairs[1], abs=1e-5)

    with pytest.raises(MediaError, match=r"kept.npz: made with num_eval 10, this evaluation has 3"):
        evaluate(network, voices, tmp_path, load_from=kept, num_eval=3)
    with pytest.raises(MediaError, match=r"kept.npz: made with weights"):
        evaluate(SyncNet(**NETWORK), voices, tmp_path, load_from=kept)
    (tmp_path / "text.npz").write_text("nothing")
    with pytest.raises(MediaError, match=r"text.npz: not written by"):
        evaluate(network, voices, tmp_path, load_from=str(tmp_path / "text.npz"))


# ---------------------------------------------------------------- during training


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 6, 12)


def run(clip_list: Path, voices: Path, save_path: Path, *more) -> int:
    flags = (
        "--model tinyModel --nOut 8 --maxFrames 6 --nBatchSize 2 --device cpu --nDataLoaderThread 1 --lr 0.1 "
    )
    flags += f"--train_list {clip_list} --verify_list {clip_list} --save_path {save_path} "
    flags += f"--test_list {voices}/trials.txt --test_path {voices}"
    return trainSyncNet.main([*flags.split(), *map(str, more)])


def table(save_path: Path) -> list[dict[str, str]]:
    with open(save_path / "result/metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_tests_during_training(clip_list, voices, tmp_path, capsys):
    assert run(clip_list, voices, tmp_path / "plain", "--max_epoch", 4) == 0
    flags = ("--test_interval", 2, "--num_eval", 2)
    assert run(clip_list, voices, tmp_path / "exp", *flags, "--max_epoch", 3) == 0
    assert run(clip_list, voices, tmp_path / "exp", *flags, "--max_epoch", 4, "--keep", 1) == 0
    rows = table(tmp_path / "exp")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["eer"]) for row in rows] == [False, True, False, True]
    needed = "learning_rate clips_per_second data_wait_percent memory_mib eer min_dcf_0.05 min_dcf_0.01 wI bI wC bC"
    losses = [f"{s}_{part}" for s in ("train", "val") for part in ("content_loss", "identity_loss")]
    tops = [f"{s}_{part}" for s in ("train", "val") for part in ("content_top1", "identity_top1")]
    assert {*needed.split(), *losses, *tops} <= rows[0].keys()
    assert float(rows[0]["memory_mib"]) > 10

    best = min((rows[1], rows[3]), key=lambda row: float(row["eer"]))
    found = strict(tmp_path / "exp/result/best.json")
    assert found["epoch"] == int(best["epoch"]) and found["eer"] == float(best["eer"])
    assert {f"model{int(best['epoch']):09d}.model", "model000000004.model"} == {
        path.name for path in (tmp_path / "exp/model").iterdir()
    }
    # Testing does not change the run, and prints what --eval prints for the checkpoint.
    states = [
        torch.load(tmp_path / name / "model/model000000004.model", weights_only=True)
        for name in ("plain", "exp")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    capsys.readouterr()
    checkpoint = tmp_path / "exp" / found["checkpoint"]
    assert (
        run(clip_list, voices, tmp_path / "e", "--eval", "--num_eval", 2, "--initial_model", checkpoint) == 0
    )
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(found["eer"], abs=1e-3)


def test_best_checkpoint_is_kept(clip_list, voices, tmp_path, monkeypatch):
    eers = iter((20.0, 10.0, 30.0, 10.0))
    monkeypatch.setattr(evaluation.TrialTest, "run", lambda _: {"eer": next(eers), "min_dcf_0.05": 0.5})
    assert run(clip_list, voices, tmp_path, "--test_interval", 1, "--max_epoch", 4, "--keep", 1) == 0
    assert strict(tmp_path / "result/best.json") == {
        "epoch": 2, "checkpoint": "model/model000000002.model", "eer": 10.0, "min_dcf_0.05": 0.5
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "model000000002.model",
        "model000000004.model",
    ]


def test_best_epoch_is_dropped_when_it_is_trained_again(clip_list, voices, tmp_path):
    flags = ("--test_interval", 1, "--num_eval", 2)
    assert run(clip_list, voices, tmp_path, *flags, "--max_epoch", 1) == 0
    assert (tmp_path / "result/best.json").exists()
    (tmp_path / "training_state.pt").unlink()
    (tmp_path / "model/model000000001.model").unlink()
    assert run(clip_list, voices, tmp_path, "--max_epoch", 1) == 0
    assert not (tmp_path / "result/best.json").exists() and table(tmp_path)[0].get("eer") is None


def test_tensorboard_has_the_columns(clip_list, voices, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    flags = ("--tensorboard", "--test_interval", 2, "--num_eval", 2)
    assert run(clip_list, voices, tmp_path, *flags, "--max_epoch", 2) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "result/tensorboard"))
    events.Reload()
    rows = table(tmp_path)
    assert set(events.Tags()["scalars"]) == {name for row in rows for name in row if row[name]} - {"epoch"}
    for name in ("eer", "val_loss", "wI"):
        expected = {int(row["epoch"]): float(row[name]) for row in rows if row[name]}
        assert {e.step: e.value for e in events.Scalars(name)} == pytest.approx(expected, rel=1e-5)


def test_tensorboard_enabled_later_has_earlier_epochs(clip_list, voices, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for epochs, flags in (
        (2, ("--test_interval", 2, "--num_eval", 2)),
        (3, ("--tensorboard",)),
        (4, ("--tensorboard",)),
    ):
        assert run(clip_list, voices, tmp_path, *flags, "--max_epoch", epochs) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "result/tensorboard"))
    events.Reload()
    for name in ("eer", "val_loss"):
        expected = [(int(row["epoch"]), float(row[name])) for row in table(tmp_path) if row[name]]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert len(found) == len(expected) == (4 if name == "val_loss" else 1)
        assert np.array(found) == pytest.approx(np.array(expected), rel=1e-5)


def test_missing_tensorboard_is_reported_before_training(clip_list, voices, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run(clip_list, voices, tmp_path, "--tensorboard", "--max_epoch", 1) == 1
    assert "pip install tensorboard" in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "model").iterdir())


def test_flags_without_effect_are_reported(clip_list, voices, tmp_path, capsys):
    """They are only reported; the run starts."""

    def told(*more) -> list[str]:
        assert run(clip_list, voices, tmp_path, "--max_epoch", 1, *more) == 0
        return [
            line for line in capsys.readouterr().out.splitlines() if line.startswith(("not used", "--alphaI"))
        ]

    flags = (
        "--score_norm",
        "asnorm",
        "--cohort",
        voices / "cohort.txt",
        "--load_embeddings",
        tmp_path / "x.npz",
    )
    assert told(*flags, "--num_eval", 3) == [
        "not used: --test_list, --test_path, --num_eval, for --eval and --test_interval",
        "not used: --load_embeddings, --score_norm, --cohort, for --eval only (--test_interval gives raw scores)",
    ]
    assert told("--test_interval", 1) == []
    assert told("--test_interval", 1, "--eval", "--lr", 3) == []
    assert told("--eval", "--top_n", 7, "--compile") == [
        "not used: --top_n, for --score_norm asnorm",
        "not used: --compile, for training only",
    ]


def test_a_test_of_an_untrained_identity(clip_list, voices, tmp_path, capsys):
    flags = ("--max_epoch", 1, "--alphaI", 0, "--test_interval", 1, "--num_eval", 2)
    assert run(clip_list, voices, tmp_path / "tiny", *flags) == 0
    assert "--alphaI 0 does not train the voice identity" in capsys.readouterr().out
    published = (*flags, "--model", "models.SyncNetV2")
    assert run(clip_list, voices, tmp_path / "published", *published) == 1
    said = capsys.readouterr()
    assert "this network has no identity heads" in said.err and "epoch 1, " not in said.out


def test_trials_are_checked_before_training(clip_list, voices, tmp_path, capsys):
    (tmp_path / "bad.txt").write_text("1 0.wav none.wav\n0 0.wav 5.wav\n")
    flags = ("--test_interval", 1, "--test_list", tmp_path / "bad.txt")
    assert run(clip_list, voices, tmp_path / "exp", *flags, "--max_epoch", 1) == 1
    assert "none.wav: no such wav file" in capsys.readouterr().err
    assert not list((tmp_path / "exp/model").iterdir())


# ---------------------------------------------------------------- one recording, one identity


def numbered(folder: Path, draws: int, names: int = 6) -> Path:
    """Noises 0.wav, 1.wav ... that differ for every `draws`."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(draws)
    for k in range(names):
        tone = np.sin(np.arange(8000) * random.uniform(0.05, 0.6))
        wavfile.write(folder / f"{k}.wav", 16000, np.int16(6000 * tone + 4000 * random.standard_normal(8000)))
    return folder


def all_pairs(path: Path, names: int = 6) -> Path:
    lines = [f"{int(i // 2 == j // 2)} {i}.wav {j}.wav\n" for i in range(names) for j in range(i)]
    path.write_text("".join(lines))
    return path


def raw_scores(folder: Path) -> np.ndarray:
    return read_scores(str(folder / "eval_scores.txt"))[0]


def test_a_cohort_with_the_same_names_in_another_folder(network, tmp_path):
    """Trials and cohort are both 0.wav, 1.wav ..., in two folders."""
    a, b, trials = numbered(tmp_path / "a", 1), numbered(tmp_path / "b", 2), all_pairs(tmp_path / "t.txt")
    (tmp_path / "cohort.txt").write_text("".join(f"{k}.wav\n" for k in range(6)))
    cohort = read_cohort(str(tmp_path / "cohort.txt"), str(b))
    kept = str(tmp_path / "kept.npz")
    evaluation.evaluate_list(network, str(trials), str(a), str(tmp_path / "plain"))
    for more in ({"save_to": kept}, {"load_from": kept}):
        evaluation.evaluate_list(
            network, str(trials), str(a), str(tmp_path / "x"), cohort=cohort, top_n=3, **more
        )
        assert raw_scores(tmp_path / "x") == pytest.approx(raw_scores(tmp_path / "plain"), abs=1e-6)
        vectors = network.embed([str(a / f"{k}.wav") for k in range(6)])
        listed = read_trials(str(trials))
        order = [int(file[0]) for file in listed.files]
        others = network.embed(list(cohort.values()))
        expected = as_norm(raw_scores(tmp_path / "x"), listed, vectors[order], others, 3)
        normalised = read_scores(str(tmp_path / "x/eval_scores_asnorm.txt"))[0]
        assert normalised == pytest.approx(expected, abs=1e-3)


def test_an_overlap_is_found_under_any_name(network, tmp_path):
    a, trials = numbered(tmp_path / "a", 1), all_pairs(tmp_path / "t.txt")
    (tmp_path / "link").symlink_to(a)
    cohort = {"x": str(tmp_path / "link/3.wav"), "y": str(tmp_path / "a/../a/4.wav")}
    with pytest.raises(MediaError, match=r"2 utterances of the cohort are in the trials .*a/3.wav"):
        evaluation.evaluate_list(network, str(trials), str(a), str(tmp_path / "r"), cohort=cohort)


def test_a_recording_counts_once_in_the_cohort(network, tmp_path):
    """Otherwise a second name or a link would count twice among the nearest."""
    a, b, trials = numbered(tmp_path / "a", 1), numbered(tmp_path / "b", 2), all_pairs(tmp_path / "t.txt")
    (tmp_path / "link").symlink_to(b)
    cohort = {f"{k}.wav": str(b / f"{k}.wav") for k in range(4)}
    again = {
        f"{place}/{k}.wav": str(tmp_path / f"{place}/{k}.wav")
        for place in ("link", "a/../b")
        for k in range(3)
    }
    scores = []
    for number, others in enumerate((cohort, cohort | again)):
        report = evaluation.evaluate_list(
            network, str(trials), str(a), str(tmp_path / str(number)), cohort=others, top_n=3
        )
        assert report["cohort"] == 4
        scores.append((tmp_path / str(number) / "eval_scores_asnorm.txt").read_text())
    assert scores[0] == scores[1]
    one = {name: path for name, path in (cohort | again).items() if path.endswith("0.wav")}
    with pytest.raises(MediaError, match=r"the cohort's 3 utterances are one recording"):
        evaluation.evaluate_list(network, str(trials), str(a), str(tmp_path / "one"), cohort=one)


def test_cached_vectors_need_the_same_files(network, tmp_path, capsys):
    a, b, trials = numbered(tmp_path / "a", 1), numbered(tmp_path / "b", 2), all_pairs(tmp_path / "t.txt")
    kept = str(tmp_path / "kept.npz")

    def scores_of(folder: Path, place: str, **more: object) -> np.ndarray:
        evaluation.evaluate_list(network, str(trials), str(folder), str(tmp_path / place), **more)
        return raw_scores(tmp_path / place)

    of_a, of_b = scores_of(a, "a1", save_to=kept), scores_of(b, "b1")
    assert not np.allclose(of_a, of_b, atol=1e-3)
    # The same names in another folder are other recordings; a link to the folder is not another folder.
    assert scores_of(b, "b2", load_from=kept) == pytest.approx(of_b, abs=1e-5)
    assert "0 of 6 embeddings from" in capsys.readouterr().out
    (tmp_path / "link").symlink_to(a)
    assert scores_of(tmp_path / "link", "a2", load_from=kept) == pytest.approx(of_a, abs=1e-6)
    assert "6 of 6 embeddings from" in capsys.readouterr().out
    # A file of the same size and time with other sound is reported and embedded again.
    before = (a / "2.wav").stat()
    (a / "2.wav").write_bytes((b / "2.wav").read_bytes())
    os.utime(a / "2.wav", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (a / "2.wav").stat().st_size == before.st_size
    changed = scores_of(a, "a3", load_from=kept)
    assert (
        "5 of 6 embeddings from" in (out := capsys.readouterr().out) and "1 files have changed since" in out
    )
    assert changed == pytest.approx(scores_of(a, "a4"), abs=1e-5)


@pytest.mark.parametrize("other", [{"temporal_stride": 2}, {"crop": "mouth"}, {"precision": "bf16"}])
def test_cached_vectors_need_the_same_settings(network, voices, tmp_path, other):
    kept = str(tmp_path / "kept.npz")
    evaluate(network, voices, tmp_path / "a", trials="half.txt", save_to=kept)
    changed = SyncNet(**NETWORK | other)
    changed.load_state_dict(network.state_dict())
    name, value = next(iter(other.items()))
    with pytest.raises(MediaError, match=rf"kept.npz: made with {name} \w+, this evaluation has {value}"):
        evaluate(changed, voices, tmp_path / "b", trials="half.txt", load_from=kept)


def test_precision_auto_follows_the_cached_vectors(clip_list, voices, tmp_path, capsys, monkeypatch):
    """The measurement may give another result next time; the same command must still work."""
    kept = tmp_path / "kept.npz"
    flags = ("--eval", "--untrained", "--num_eval", 2, "--precision", "auto")
    monkeypatch.setattr("syncnet.compute.precision.faster_precision", lambda _: ("bf16", "it won"))
    assert run(clip_list, voices, tmp_path, *flags, "--save_embeddings", kept) == 0
    capsys.readouterr()
    monkeypatch.setattr("syncnet.compute.precision.faster_precision", lambda _: ("fp32", "it won"))
    assert run(clip_list, voices, tmp_path, *flags, "--load_embeddings", kept) == 0
    assert "12 of 12 embeddings from" in capsys.readouterr().out
    kept.write_bytes(b"nothing")
    assert run(clip_list, voices, tmp_path, *flags, "--load_embeddings", kept) == 1
    assert "not written by --save_embeddings" in capsys.readouterr().err


def test_vectors_of_another_program(network, voices, tmp_path):
    kept = str(tmp_path / "kept.npz")
    np.savez(kept, files=["0.wav"], vectors=np.zeros((1, 8), np.float32))  # as of inferSyncNet.py embed
    with pytest.raises(MediaError, match="not written by --save_embeddings"):
        evaluate(network, voices, tmp_path / "a", load_from=kept)


def test_silence_is_reported_before_anything_is_computed(network, tmp_path, monkeypatch):
    a, trials = numbered(tmp_path / "a", 1), all_pairs(tmp_path / "t.txt")
    wavfile.write(a / "4.wav", 16000, np.zeros(8000, np.int16))
    monkeypatch.setattr(network, "identity_vectors", lambda *_: pytest.fail("computed"))
    for use in (
        lambda: evaluation.evaluate_list(network, str(trials), str(a), str(tmp_path / "r")),
        lambda: network.evaluateFromListSave(str(trials), test_path=str(a)),
        lambda: evaluation.TrialTest(network, str(trials), str(a)),
    ):
        with pytest.raises(MediaError, match=r"a/4.wav: silent"):
            use()


# ---------------------------------------------------------------- results of several lists


def test_results_of_different_lists_are_separate(network, voices, tmp_path, capsys):
    """Another list never replaces results; the same list does, and reports what it replaces."""
    paths = [str(tmp_path / name) for name in ("one.model", "two.model")]
    other = SyncNet(**NETWORK)
    network.saveParameters(paths[0])
    other.saveParameters(paths[1])
    result = tmp_path / "result"
    evaluate(network, voices, result, checkpoint=paths[0])
    first = strict(result / "eval.json")
    listed = (voices / "trials.txt").read_bytes()
    assert first["trial_list"]["path"] == str(voices / "trials.txt")
    assert first["trial_list"]["sha256"] == hashlib.sha256(listed).hexdigest()
    names = {path.name for path in result.iterdir()}

    capsys.readouterr()
    evaluate(network, voices, result, trials="half.txt", checkpoint=paths[0])
    assert "is for other trials and is left unchanged" in (out := capsys.readouterr().out)
    assert f"In {result}/eval_half: eval_scores.txt, eval_det.png, eval.json" in out
    assert strict(result / "eval.json") == first
    assert strict(result / "eval_half/eval.json")["trials"] == 15
    # Another list of that name, and the same list with other wavs, have places of their own too.
    (tmp_path / "half.txt").write_text((voices / "half.txt").read_text().replace("0.wav", "6.wav"))
    evaluate(network, voices, result, trials=str(tmp_path / "half.txt"), checkpoint=paths[0])
    wavs = tmp_path / "wavs"
    shutil.copytree(voices, wavs)
    evaluation.evaluate_list(network, str(voices / "half.txt"), str(wavs), str(result), checkpoint=paths[0])
    places = sorted(str(path.relative_to(result)) for path in result.rglob("eval.json"))
    assert len(places) == 4 and places[0] == "eval.json" and places[1].startswith("eval_half/")

    # A list that was only moved is the same list.
    capsys.readouterr()
    (tmp_path / "renamed.txt").write_bytes(listed)
    report = evaluate(other, voices, result, trials=str(tmp_path / "renamed.txt"), checkpoint=paths[1])
    assert f"Replacing the results of {paths[0]} on these trials" in capsys.readouterr().out
    assert strict(result / "eval.json") == report and {path.name for path in result.glob("eval*")} >= names
    evaluate(other, voices, result, checkpoint=paths[1])
    assert "Replacing" not in capsys.readouterr().out
    # Nothing remains of a replaced evaluation.
    (result / "eval_scores_asnorm.txt").write_text("old")
    evaluate(other, voices, result, checkpoint=paths[1], num_eval=3)
    assert "with other settings" in capsys.readouterr().out
    assert not (result / "eval_scores_asnorm.txt").exists()


def test_a_test_during_training_takes_its_crops_and_explains_min_dcf_once(
    network, voices, tmp_path, capsys, monkeypatch
):
    evaluate(network, voices, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines.index(ABOUT_MIN_DCF) == len(lines) - 3
    crops, embed = [], network.embed
    monkeypatch.setattr(network, "embed", lambda files, count: crops.append(count) or embed(files, count))
    test = evaluation.TrialTest(network, str(voices / "trials.txt"), str(voices), 2)
    test.run()
    test.run()
    assert crops == [2, 2]
    said = [ABOUT_MIN_DCF in line for line in capsys.readouterr().out.splitlines() if "minDCF" in line]
    assert said == [True, False]
