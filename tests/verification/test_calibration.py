"""Calibration: log-likelihood ratios, Cllr, the actual DCF, and the two commands that create and use them."""

import itertools
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import noise
from scipy.io import wavfile
from scipy.optimize import minimize
from scipy.special import expit

import inferSyncNet
import tuneThreshold
from inferSyncNet import load
from syncnet.support.errors import UserError
from syncnet.verification.calibration import FEW_TRIALS, Calibration, calibration_doubts, posterior
from syncnet.verification.evaluation import evaluate_list
from SyncNetDist import SyncNet
from tuneThreshold import actual_dcf, calibrate, cllr, min_cllr, min_dcf

T = 8


def gaussian_llrs(seed: int, trials: int = 4000, distance: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Perfectly calibrated LLRs: normal with variance 2m around m (targets) and -m (others); and labels."""
    draws = np.random.default_rng(seed)
    labels = (np.arange(trials) % 4 == 0).astype(int)
    return draws.normal(np.where(labels == 1, distance, -distance), math.sqrt(2 * distance)), labels


def test_ratios_are_exact_whatever_the_scores_are():
    found = Calibration(2.0, 1.0).llr(np.float32([1 / 3]))
    assert found.dtype == np.float64 and found[0] == 2.0 * float(np.float32(1 / 3)) + 1.0


def test_a_calibration_keeps_its_prior():
    llrs, labels = gaussian_llrs(0)
    assert calibrate(llrs, labels, p_target=0.3).p_target == 0.3
    for wrong in (0, 1):
        with pytest.raises(UserError, match="p_target"):
            calibrate(llrs, labels, p_target=wrong)


def test_so_many_trials_are_enough():
    scores = np.arange(2.0 * FEW_TRIALS)
    labels = (np.arange(2 * FEW_TRIALS) < FEW_TRIALS).astype(int)
    assert calibration_doubts(scores, labels, None) == []
    assert len(calibration_doubts(scores[1:], labels[1:], None)) == 1


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("llrs", "value"),
    [
        ([0, 0, 0, 0], 1),  # no information
        ([math.log(3), 0, -math.log(3), 0], (math.log2(4 / 3) + 1) / 2),
        ([math.log(3)] * 4, (math.log2(4 / 3) + math.log2(4)) / 2),
        ([-700, -700, 700, 700], 700 / math.log(2)),  # confidently wrong, without overflow
        ([1e4, 1e4, -1e4, -1e4], 0),
    ],
)
def test_cllr_by_hand(llrs, value):
    assert cllr(llrs, [1, 1, 0, 0]) == pytest.approx(value, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("scores", "labels", "value"),
    [
        ([4, 3, 2, 1], [1, 1, 0, 0], 0),
        ([1, 2, 3, 4], [1, 1, 0, 0], 1),  # all pooled
        ([5, 5, 5, 5], [1, 0, 1, 0], 1),  # equal scores are one
        # Pools {1: 0}, {2, 3: one of two}, {4: 1}: LLRs -inf, 0, inf.
        ([1, 2, 3, 4], [0, 1, 0, 1], 0.5),
        # Pools {1: 0}, {2: two of three}: with prior odds of 1 the LLR there is log 2.
        ([1, 2, 2, 2, 1], [0, 1, 1, 0, 0], None),
        ([1, 2, 2, 2], [1, 1, 0, 0], 1),  # pools {1, 2: two of four, each trial counting once}
    ],
)
def test_min_cllr_by_hand(scores, labels, value):
    if value is None:  # 2 targets, 3 others: odds 2/3; share 2/3: odds 2, LLR log 3
        value = (math.log2(1 + 1 / 3) + math.log2(1 + 3) / 3) / 2
    warnings.simplefilter("error")  # of infinite LLRs
    assert min_cllr(scores, labels) == pytest.approx(value, abs=1e-12)
    assert min_cllr(np.array(scores) * 1e-18, labels) == pytest.approx(value, abs=1e-12)


def test_min_cllr_is_the_minimum_over_monotonic_llrs():
    scores, labels = np.array([0, 1, 2, 3, 4, 5]), np.array([0, 0, 1, 0, 1, 1])
    grid = np.linspace(-8, 8, 9)
    least = min(cllr(np.array(steps), labels) for steps in itertools.combinations_with_replacement(grid, 6))
    assert min_cllr(scores, labels) <= least < min_cllr(scores, labels) + 0.01


def test_actual_dcf_by_hand():
    llrs, labels = [math.log(19) + 0.01, 1, math.log(19), 0, -1], [1, 1, 0, 0, 0]
    assert actual_dcf(llrs, labels, 0.05) == pytest.approx((0.5 + 19 / 3, math.log(19)))
    assert actual_dcf(llrs, labels, 0.5) == pytest.approx((2 / 3, 0))
    assert actual_dcf(llrs, labels, 0.05, c_miss=19)[0] == pytest.approx(2 / 3)
    assert actual_dcf([9, 9, -9, -9, -9], labels, 0.01)[0] == 0
    with pytest.raises(UserError, match="expected 0 < p_target < 1"):
        actual_dcf(llrs, labels, 1)


@pytest.mark.parametrize("prior", [0.05, 0.5, 0.99])
def test_posterior_is_bayes_rule(prior):
    for likelihood in (1e-3, 0.5, 40.0):
        expected = likelihood * prior / (likelihood * prior + 1 - prior)
        assert posterior(math.log(likelihood), prior) == pytest.approx(expected, rel=1e-12)
    assert posterior(-1e4, prior) == 0 and posterior(1e4, prior) == 1


# ---------------------------------------------------------------- fit


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.02, 0.7), (1e-7, -3e-6), (500, 1e4)])
def test_calibration_undoes_shift_and_scale(scale, shift):
    dev, dev_labels = gaussian_llrs(1)
    llrs, labels = gaussian_llrs(2)
    calibration = calibrate(dev * scale + shift, dev_labels)
    assert calibration.slope * scale == pytest.approx(1, abs=0.1)
    found = calibration.llr(llrs * scale + shift)
    assert found == pytest.approx(llrs, abs=0.6)
    least = min_cllr(llrs, labels)
    assert least < cllr(found, labels) < least + 0.03
    assert actual_dcf(found, labels, 0.05)[0] < min_dcf(llrs, labels, 0.05)[0] + 0.05
    assert cllr(llrs * scale + shift, labels) > least + 0.2 or scale == 1


@pytest.mark.parametrize("p_target", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_the_minimum_of_the_weighted_loss(seed, p_target):
    draws = np.random.default_rng(seed)
    scores, labels = draws.normal(size=60) * 3 + 5, draws.integers(0, 2, 60)
    scores += 2 * labels
    found = calibrate(scores, labels, p_target)

    def loss(unknowns):
        odds = p_target / (1 - p_target)
        p = np.clip(expit(unknowns[0] * scores + unknowns[1] + math.log(odds)), 1e-300, 1)
        return -(p_target * np.log(p[labels == 1]).mean() + (1 - p_target) * np.log1p(-p[labels == 0]).mean())

    independent = minimize(loss, [0.1, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    assert [found.slope, found.offset] == pytest.approx(independent.x, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([4, 3, 2, 1], "separated without error"),
        ([3, 2, 2, 1], "separated without error"),
        ([2, 2, 2, 2], r"all 4 scores are equal \(2\)"),
        ([1, 2, 3, 4], "do not score higher"),
        ([1, 3, 2, 4], "do not score higher"),
        ([1, math.nan, 2, 4], "not finite"),
    ],
)
def test_scores_that_cannot_be_calibrated(scores, message):
    with pytest.raises(UserError, match=message):
        calibrate(scores, [1, 1, 0, 0])


@pytest.mark.parametrize("label", [0, 1])
def test_a_single_trial_of_a_kind_is_refused(label):
    scores, labels = gaussian_llrs(3, 400)
    scores, labels = np.append(scores[labels != label], 0.1), np.append(labels[labels != label], label)
    with pytest.raises(UserError, match=rf"1 {'target' if label else 'non-target'} trial among \d+ trials"):
        calibrate(scores, labels)


def test_one_error_in_many_is_enough_to_fit():
    scores = np.concatenate([np.linspace(0, 1, 500), np.linspace(1.5, 3, 500), [-0.5]])
    labels = np.concatenate([np.zeros(500), np.ones(501)]).astype(int)
    found = calibrate(scores, labels)
    assert 0 < found.slope < 1e3 and cllr(found.llr(scores), labels) < 0.2


# ---------------------------------------------------------------- tuneThreshold.py


def write(path: Path, scores: np.ndarray, labels: np.ndarray | None, names: str = " a/{}.wav b.wav") -> Path:
    kept = [""] * len(scores) if labels is None else [f" {label}" for label in labels]
    lines = [f"{s:.17g}{label}{names.format(n)}\n" for n, (s, label) in enumerate(zip(scores, kept))]  # noqa: B905
    path.write_text("".join(lines))
    return path


def run(capsys, *args) -> tuple[int, str, str]:
    status = tuneThreshold.main([str(arg) for arg in args])
    return (status, *capsys.readouterr())


def test_calibrate_command(tmp_path, capsys):
    dev, labels = gaussian_llrs(1, 400)
    llrs, _ = gaussian_llrs(2, 400)
    dev_scores = write(tmp_path / "dev.txt", dev / 50 + 0.3, labels)
    scores = write(tmp_path / "test.txt", llrs / 50 + 0.3, labels)
    scores.write_text("\n" + scores.read_text().replace("a/3.wav", "a/\u00e9.wav"))
    status, out, err = run(capsys, "--calibrate", dev_scores, scores)
    assert status == 0 and err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cal.json",
        "dev.txt",
        "test.txt",
        "test_llr.txt",
    ]
    calibration = calibrate(dev / 50 + 0.3, labels)
    found, found_labels, pairs = tuneThreshold.read_scored_trials(str(tmp_path / "test_llr.txt"))
    assert found == pytest.approx(calibration.llr(llrs / 50 + 0.3), rel=1e-12)
    assert found_labels.tolist() == labels.tolist() and pairs[3] == ("a/\u00e9.wav", "b.wav")
    kept = json.loads((tmp_path / "cal.json").read_text())
    assert kept["calibration"] == {"slope": calibration.slope, "offset": calibration.offset, "p_target": 0.05}
    assert kept["scores"] is None and "no eval.json" in out
    rows = {line[:22].strip(): line[22:].split() for line in out.splitlines()}
    for name, of in (
        ("Cllr (bits)", cllr),
        ("minimum Cllr (bits)", min_cllr),
        ("actual DCF(0.05)", lambda *trials: actual_dcf(*trials, 0.05)[0]),
        ("minDCF(0.05)", lambda *trials: min_dcf(*trials, 0.05)[0]),
    ):
        expected = [of(values, labels) for values in (llrs / 50 + 0.3, found)]
        assert [float(value) for value in rows[name]] == pytest.approx(expected, abs=6e-5), name

    status, out, _ = run(capsys, tmp_path / "test_llr.txt", "--llr")
    assert status == 0 and "Cllr (bits)" in out
    assert "Cllr" not in run(capsys, tmp_path / "test_llr.txt")[1]
    status, out, _ = run(capsys, "--calibrate", dev_scores, dev_scores, "--calibration", tmp_path / "x.json")
    assert status == 0 and "too optimistic" in out and (tmp_path / "x.json").exists()


def test_doubtful_calibrations_are_reported(tmp_path, capsys):
    """Few trials of a kind, few speakers, few distinct scores, speakers who are also tested."""
    draws = np.random.default_rng(0)

    def trials(
        name: str, speakers: list[int], files: int, targets: int | None = None, digits: int = 9
    ) -> Path:
        names = [(f"id{s}/{k}.wav", s) for s in speakers for k in range(files)]
        pairs = list(itertools.combinations(names, 2))
        labels = np.array([int(a[1] == b[1]) for a, b in pairs])
        chosen = np.ones(len(pairs), bool)
        if targets is not None:
            chosen[np.flatnonzero(labels)[targets:]] = False
        scores = np.round(draws.normal(1.5 * labels), digits)
        rows = zip(scores, labels, pairs, chosen, strict=True)
        text = "".join(f"{s!r} {k} {a[0]} {b[0]}\n" for s, k, (a, b), use in rows if use)
        (tmp_path / name).write_text(text.replace("np.float64(", "").replace(")", ""))
        return tmp_path / name

    scores = trials("test.txt", list(range(20, 30)), 4)
    for dev, words in (
        (trials("good.txt", list(range(10)), 5), None),
        (trials("targets.txt", list(range(10)), 5, targets=7), "only 7 target trials"),
        (trials("others.txt", [0, 1], 4), "only 16 non-target trials"),
        (trials("speakers.txt", [0, 1, 2], 10), "target trials of only 3 speakers"),
        (trials("coarse.txt", list(range(10)), 5, digits=0), "distinct scores in 1225 trials"),
        (trials("shared.txt", [*range(10), 25], 5), "share 1 speaker (id25 ...)"),
    ):
        status, out, _ = run(capsys, scores, "--calibrate", dev)
        warnings = [line for line in out.splitlines() if line.startswith("WARNING")]
        assert status == 0 and (any(words in line for line in warnings) if words else not warnings), (
            dev,
            out,
        )


def test_scores_without_labels_can_be_calibrated(tmp_path, capsys):
    dev, labels = gaussian_llrs(1, 200)
    dev_scores = write(tmp_path / "dev.txt", dev, labels)
    for name, names in (("spaces.txt", " a/{}.wav b.wav"), ("tabs.txt", "\ta/{} x.wav\tb.wav")):
        scores = write(tmp_path / name, dev, None, names)
        status, out, _ = run(capsys, "--calibrate", dev_scores, scores, "--llr_output", tmp_path / "out.txt")
        assert status == 0 and "200 log-likelihood ratios" in out and "EER" not in out
        lines = (tmp_path / "out.txt").read_text().splitlines()
        assert float(lines[7].split()[0]) == pytest.approx(calibrate(dev, labels).llr(dev[7]))
        assert lines[7].endswith(names.format(7))
    status, _, err = run(capsys, "--calibrate", dev_scores, scores, "--compare", dev_scores)
    assert status == 1 and "has no labels" in err


def test_calibrate_command_errors(tmp_path, capsys):
    dev, labels = gaussian_llrs(1, 200)
    dev_scores = write(tmp_path / "dev.txt", dev, labels)
    scores = write(tmp_path / "test.txt", dev, labels)
    apart = write(tmp_path / "apart.txt", np.array([2, 1]), np.array([1, 0]))
    before = sorted(tmp_path.iterdir())
    for more, words in (
        ((scores, "--calibrate", apart), "apart.txt: all 2 trials are separated"),
        ((scores, "--calibrate", tmp_path / "none"), "none: No such file"),
        ((scores, "--calibrate", dev_scores, "--llr_output", scores), "--llr_output {}: is an input"),
        ((scores, "--calibrate", dev_scores, "--calibration", dev_scores), "is an input"),
        ((scores, "--calibrate", dev_scores, "--calibration", tmp_path), "--calibration {}: is a folder"),
    ):
        status, out, err = run(capsys, *more)
        assert status == 1 and out == "" and err.count("\n") == 1
        assert words.format(more[-1]) in err, err
    assert sorted(tmp_path.iterdir()) == before
    for flag in ("--llr_output", "--calibration"):
        with pytest.raises(SystemExit):
            tuneThreshold.main([str(scores), flag, "x"])
        assert f"{flag} needs --calibrate" in capsys.readouterr().err


# ---------------------------------------------------------------- verify


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """Two checkpoints, each evaluated on the same trials with and without as-norm, and the voices."""
    folder = tmp_path_factory.mktemp("evaluated")
    for k in range(12):
        wavfile.write(folder / f"{k}.wav", 16000, noise(0.6, seed=k))
    pairs = list(itertools.combinations(range(8), 2))
    lines = [f"{int((i + j) % 3 == 0)} {i}.wav {j}.wav\n" for i, j in pairs]
    (folder / "trials.txt").write_text("".join(lines))
    cohort = {f"{k}.wav": str(folder / f"{k}.wav") for k in range(8, 12)}
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        network = SyncNet(model="tinyModel", nOut=8, maxFrames=T, device="cpu")
        path = str(folder / f"{name}.model")
        network.saveParameters(path)
        trials = (str(folder / "trials.txt"), str(folder), str(folder / name))
        evaluate_list(network, *trials, checkpoint=path, settings={"top_n": 3}, cohort=cohort, top_n=3)
    return folder


def upside(folder: Path) -> None:
    """Change the labels of an evaluation, and its eval.json, so that all targets but one score higher."""
    for name, kind in (("eval_scores.txt", "raw"), ("eval_scores_asnorm.txt", "asnorm")):
        fields = [line.split() for line in (folder / name).read_text().splitlines()]
        order = np.argsort([float(field[0]) for field in fields])
        labels = np.zeros(len(fields), int)
        labels[order[len(fields) // 2 :]] = 1
        labels[order[0]], labels[order[-1]] = 1, 0
        lines = [" ".join([f[0], str(label), *f[2:]]) + "\n" for f, label in zip(fields, labels, strict=True)]
        (folder / name).write_text("".join(lines))
        report = json.loads((folder / "eval.json").read_text())
        scores = [float(field[0]) for field in fields]
        report["figures"][kind]["eer"] = tuneThreshold.tuneThresholdfromScore(scores, labels, [])[1]
        (folder / "eval.json").write_text(json.dumps(report))


def test_verify_with_a_calibration(evaluated, tmp_path, capsys, monkeypatch):
    upside(evaluated / "a")
    upside(evaluated / "b")
    raw, normalised = (evaluated / "a" / name for name in ("eval_scores.txt", "eval_scores_asnorm.txt"))
    assert run(capsys, "--calibrate", raw, raw)[0] == 0
    kept = json.loads((evaluated / "a/cal.json").read_text())
    report = json.loads((evaluated / "a/eval.json").read_text())
    assert kept["scores"]["kind"] == "raw"
    assert all(kept["scores"][name] == report[name] for name in ("checkpoint", "evaluated_with", "precision"))

    def verify(*more: object, checkpoint: str = "a") -> tuple[int, list[str], str]:
        flags = [
            "--model",
            "tinyModel",
            "--device",
            "cpu",
            "--initial_model",
            evaluated / f"{checkpoint}.model",
        ]
        given = ["verify", *flags, evaluated / "0.wav", evaluated / "1.wav", *more]
        status = inferSyncNet.main([str(arg) for arg in given])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err

    cal = evaluated / "a/cal.json"
    slope, offset = kept["calibration"]["slope"], kept["calibration"]["offset"]
    assert len(verify()[1]) == 1
    for flags, prior in (((), 0.05), (("--prior", "0.5"), 0.5)):
        status, (score, ratio, probability), _ = verify("--calibration", cal, *flags)
        llr = slope * float(score.split()[1]) + offset
        assert status == 0 and float(ratio.split()[2]) == pytest.approx(llr, abs=1e-5 * slope)
        assert probability.endswith(f"(prior {prior:g})")
        assert float(probability.split()[5]) == pytest.approx(posterior(llr, prior), rel=1e-3 * max(1, slope))

    for more, words in (
        (("--num_eval", 3), "made with num_eval 10 (here 3); its calibration does not fit"),
        (("--maxFrames", T - 1), f"made with maxFrames {T} (here {T - 1}); its calibration does not fit"),
    ):
        status, out, error = verify("--calibration", cal, *more)
        assert status == 1 and out == [] and words in error
    status, out, error = verify("--calibration", cal, checkpoint="b")
    assert status == 1 and out == [] and "made with another checkpoint" in error
    status, out, error = verify("--calibration", cal, "--precision", "bf16")
    assert status == 0 and "made with --precision fp32" in error
    monkeypatch.setattr("syncnet.compute.precision.faster_precision", lambda _: ("fp32", "it won"))
    status, out, error = verify("--calibration", cal, "--precision", "auto")  # which is fp32, and the same
    assert status == 0 and "made with" not in error

    assert run(capsys, "--calibrate", normalised, normalised)[0] == 0
    status, out, error = verify("--calibration", evaluated / "a/cal_asnorm.json")
    assert status == 1 and out == [] and "fitted to asnorm scores, but verify gives raw ones" in error
    kept = json.loads((evaluated / "a/cal_asnorm.json").read_text())["scores"]
    assert (kept["kind"], kept["cohort"], kept["top_n"]) == ("asnorm", 4, 3)

    # Scores of another kind or checkpoint do not fit this calibration; copies elsewhere have no provenance.
    status, _, error = run(capsys, "--calibrate", raw, normalised)
    assert status == 1 and "kind of scores asnorm" in error
    status, _, error = run(capsys, "--calibrate", raw, evaluated / "b/eval_scores.txt")
    assert status == 1 and "made with checkpoint" in error
    copy = tmp_path / "eval_scores.txt"
    copy.write_text(raw.read_text())
    assert run(capsys, "--calibrate", copy, raw, "--llr_output", tmp_path / "x.txt")[0] == 0
    status, out, error = verify("--calibration", tmp_path / "cal.json")
    assert status == 1 and out == [] and "does not say which checkpoint" in error
    (tmp_path / "eval.json").write_text((evaluated / "a/eval.json").read_text())
    copy.write_text(
        "".join(raw.read_text().splitlines(keepends=True)[:-1])
    )  # other scores than its eval.json's
    assert run(capsys, "--calibrate", copy, raw, "--llr_output", tmp_path / "x.txt")[0] == 0
    assert json.loads((tmp_path / "cal.json").read_text())["scores"] is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"calibration": {"slope": 1, "offset": 0, "p_target": 0.05}}',
        '{"calibration": {"slope": NaN, "offset": 0, "p_target": 0.05}, "scores": null}',
        '{"calibration": {"slope": -1, "offset": 0, "p_target": 0.05}, "scores": null}',
        '{"calibration": {"slope": 1}, "scores": null}',
        '{"calibration": {"slope": 1, "offset": 0, "p_target": 0.05}, "scores": {"kind": "raw"}}',
        '{"calibration": {"slope": 1, "offset": 0, "p_target": 0.05}, "scores": {"kind": []}}',
    ],
)
def test_files_that_are_not_calibrations(evaluated, tmp_path, capsys, content):
    (tmp_path / "cal.json").write_text(content)
    flags = ["--model", "tinyModel", "--device", "cpu", "--initial_model", str(evaluated / "a.model")]
    given = [*flags, str(evaluated / "0.wav"), str(evaluated / "1.wav")]
    assert inferSyncNet.main(["verify", *given, "--calibration", str(tmp_path / "cal.json")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "cal.json: not a calibration; create it with tuneThreshold.py --calibrate" in err


def test_a_calibration_of_normalized_scores_needs_the_same_cohort(evaluated, tmp_path, capsys):
    """A different cohort of the same size changes the scores; the same one under other names does not."""
    path, trials = evaluated / "a.model", (str(evaluated / "trials.txt"), str(evaluated))
    same = {f"again/{k}.wav": str(evaluated / "." / f"{k}.wav") for k in (11, 9, 10, 8)}
    for k in range(4):
        wavfile.write(tmp_path / f"{k}.wav", 16000, noise(0.6, seed=20 + k))
    other = {f"{k}.wav": str(tmp_path / f"{k}.wav") for k in range(4)}
    network = load(str(path), "cpu", model="tinyModel")
    upside(evaluated / "a")
    for name, cohort in (("same", same), ("other", other)):
        folder = tmp_path / name
        evaluate_list(
            network, *trials, str(folder), checkpoint=str(path), settings={"top_n": 3}, cohort=cohort, top_n=3
        )
        line = ("--calibrate", evaluated / "a/eval_scores_asnorm.txt", folder / "eval_scores_asnorm.txt")
        status, _, error = run(capsys, *line, "--calibration", tmp_path / f"{name}.json")
        assert status == (0 if name == "same" else 1), error
    assert "recordings of the cohort" in error
    report = json.loads((folder / "eval.json").read_text())
    del report["cohort_recordings"]  # of an earlier version, which did not note them
    (folder / "eval.json").write_text(json.dumps(report))
    assert run(capsys, *line, "--calibration", tmp_path / "old.json")[0] == 0


def test_scores_with_other_precision_or_crops_are_reported(evaluated, tmp_path, capsys):
    path, trials = evaluated / "a.model", (str(evaluated / "trials.txt"), str(evaluated))
    upside(evaluated / "a")
    raw = evaluated / "a/eval_scores.txt"
    for precision, num_eval in (("bf16", 10), ("fp32", 3)):
        network = load(str(path), "cpu", model="tinyModel", precision=precision)
        evaluate_list(network, *trials, str(tmp_path / precision), checkpoint=str(path), num_eval=num_eval)
    capsys.readouterr()
    kept = ("--calibration", tmp_path / "cal.json")
    status, _, error = run(capsys, "--calibrate", raw, raw, *kept)
    assert status == 0 and error == ""
    status, _, error = run(capsys, "--calibrate", raw, tmp_path / "bf16/eval_scores.txt", *kept)
    words = f"bf16/eval_scores.txt: made with --precision bf16, {raw} with fp32; they differ slightly\n"
    assert status == 0 and error.endswith(words) and error.count("\n") == 1
    status, _, error = run(capsys, "--calibrate", raw, tmp_path / "fp32/eval_scores.txt", *kept)
    assert status == 1 and f"made with num_eval 3 ({raw}: 10)" in error


@pytest.mark.parametrize("prior", ["0", "1", "-0.1", "nan", "much"])
def test_wrong_priors(capsys, prior):
    given = ["verify", "--initial_model", "x", "a.wav", "b.wav"]
    with pytest.raises(SystemExit):
        inferSyncNet.main([*given, "--calibration", "cal.json", f"--prior={prior}"])
    assert "--prior" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        inferSyncNet.main([*given, "--prior", "0.5"])
    assert "--prior goes with --calibration" in capsys.readouterr().err
