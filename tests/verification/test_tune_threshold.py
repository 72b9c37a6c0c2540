"""tuneThreshold: the baseline's numbers, cases by hand, an independent formula, the command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tuneThreshold
from syncnet.support.errors import UserError
from syncnet.verification.score_files import has_labels, read_unlabeled
from syncnet.verification.speakers import count_speakers, speakers_of_trials
from tuneThreshold import (
    actual_dcf,
    bootstrap_difference,
    bootstrap_interval,
    eer_interpolated,
    error_rates,
    min_dcf,
    plot_det,
    read_scores,
    tuneThresholdfromScore,
)

ROOT = Path(__file__).resolve().parents[2]
ORACLE = json.loads((ROOT / "tests/oracle/thresholds.json").read_text())


def normal_trials(seed, n, shift, ties=False):
    """The oracle's recipe: 40 % target trials, unit normal scores `shift` apart."""
    r = np.random.RandomState(seed)
    labels = r.rand(n) < 0.4
    scores = r.randn(n) + shift * labels
    return (np.round(scores, 1) if ties else scores), labels.astype(int)


def write_scores(path, scores, labels):
    path.write_text("".join(f"{s!r} {k} a.wav b.wav\n" for s, k in zip(scores.tolist(), labels, strict=True)))
    return str(path)


def run_command(*arguments):
    command = [sys.executable, str(ROOT / "tuneThreshold.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# The baseline's definition


@pytest.mark.parametrize("case", ORACLE, ids=lambda case: f"seed{case['seed']}")
def test_baseline_numbers(case):
    scores, labels = normal_trials(case["seed"], case["n"], case["shift"], case["ties"])
    tuned, eer, fpr, fnr = tuneThresholdfromScore(scores, labels, [1, 0.1])
    assert eer == pytest.approx(case["eer"], abs=1e-9)
    np.testing.assert_allclose(tuned, case["fa_1_01"], rtol=0, atol=1e-9)
    tuned, *_ = tuneThresholdfromScore(scores.tolist(), labels.tolist(), [5], [5, 2])
    np.testing.assert_allclose(tuned, case["fr5_fr2_fa5"], rtol=0, atol=1e-9)
    assert (fpr[0], fnr[0], fpr[-1], fnr[-1]) == (0, 100, 100, 0)


def test_the_eers_differ_on_a_coarse_curve():
    # One corner-to-corner stretch crosses the diagonal: the baseline reads the nearest corner.
    scores, labels = [3, 2, 2, 2, 2, 1], [1, 1, 1, 0, 0, 0]
    # Corners (FA, FR): (0, 1), (0, 2/3), (2/3, 0), (1, 0). The line between the middle two: FA = FR = 1/3.
    assert tuneThresholdfromScore(scores, labels, [1])[1] == pytest.approx(200 / 3)
    assert eer_interpolated(scores, labels) == pytest.approx((100 / 3, 2.5))


# Small cases by hand

SIX = ([6, 5, 4, 3, 2, 1], [1, 1, 0, 1, 0, 0])


def test_eer_by_hand():
    # At threshold 4: FA 1/3, FR 1/3.
    assert eer_interpolated(*SIX) == pytest.approx((100 / 3, 4))


@pytest.mark.parametrize(
    ("p_target", "value", "threshold"),
    [
        (0.5, 1 / 3, 5),  # FR 1/3, FA 0 at 5; FR 0, FA 1/3 at 3 costs the same: the higher threshold
        (0.05, 1 / 3, 5),  # 0.05/3 over 0.05; threshold 3 would cost 0.95/3 over 0.05
        (0.9, 1 / 3, 3),  # 0.1/3 over 0.1
    ],
)
def test_min_dcf_by_hand(p_target, value, threshold):
    assert min_dcf(*SIX, p_target) == pytest.approx((value, threshold))


def test_min_dcf_costs():
    # Ten times dearer misses: 10 * 0.5 * FR + 0.5 * FA over 0.5 is least at threshold 3.
    assert min_dcf(*SIX, 0.5, c_miss=10) == pytest.approx((1 / 3, 3))
    assert min_dcf(*SIX, 0.05, c_miss=19) == pytest.approx(min_dcf(*SIX, 0.5))


def test_perfect_and_reversed():
    scores, labels = [4, 3, 2, 1], [1, 1, 0, 0]
    assert eer_interpolated(scores, labels) == (0, 3)
    assert min_dcf(scores, labels, 0.01) == (0, 3)
    # The worst system is as good as the trivial decision: reject all, or (prior above a half) accept all.
    labels = [0, 0, 1, 1]
    assert eer_interpolated(scores, labels)[0] == 100
    assert min_dcf(scores, labels, 0.01) == (1, np.inf)
    assert min_dcf(scores, labels, 0.99) == (1, 1)


def test_equal_scores():
    assert eer_interpolated([7, 7, 7], [1, 0, 0]) == (50, 7)
    assert min_dcf([7, 7, 7], [1, 0, 0], 0.05) == (1, np.inf)


# Against counting, threshold by threshold


def counted_rates(scores, labels):
    thresholds = [np.inf, *sorted(set(scores), reverse=True)]
    fa, fr = [], []
    for t in thresholds:
        accepted = [s >= t for s in scores]
        fa.append(sum(a and not k for a, k in zip(accepted, labels, strict=True)) / labels.count(0))
        fr.append(sum(not a and k for a, k in zip(accepted, labels, strict=True)) / labels.count(1))
    return fa, fr, thresholds


def counted_eer(fa, fr):
    for i in range(1, len(fa)):
        if fr[i] <= fa[i]:
            # The crossing of the segment (fa, fr)[i-1] .. (fa, fr)[i] with the diagonal.
            (x0, x1), (y0, y1) = fa[i - 1 : i + 1], fr[i - 1 : i + 1]
            return (x1 * y0 - x0 * y1) / ((x1 - x0) - (y1 - y0))
    raise AssertionError("no crossing")


trial_lists = st.lists(
    st.tuples(st.integers(-6, 6).map(lambda v: v / 4), st.integers(0, 1)), min_size=2, max_size=40
).filter(lambda trials: len({label for _, label in trials}) == 2)


@settings(max_examples=150, deadline=None)
@given(trial_lists, st.floats(0.01, 0.99), st.floats(0.1, 10), st.floats(0.1, 10))
def test_against_counting(trials, p, c_miss, c_fa):
    scores, labels = map(list, zip(*trials, strict=True))
    fa, fr, thresholds = counted_rates(scores, labels)
    np.testing.assert_allclose(error_rates(scores, labels), (fa, fr, thresholds), atol=1e-12)

    eer, threshold = eer_interpolated(scores, labels)
    assert eer == pytest.approx(100 * counted_eer(fa, fr), abs=1e-9)
    assert min(scores) <= threshold <= max(scores)

    costs = [c_miss * p * y + c_fa * (1 - p) * x for x, y in zip(fa, fr, strict=True)]
    value, threshold = min_dcf(scores, labels, p, c_miss, c_fa)
    assert value == pytest.approx(min(costs) / min(c_miss * p, c_fa * (1 - p)))
    assert costs[thresholds.index(threshold)] == pytest.approx(min(costs))
    assert value <= 1 + 1e-12


@settings(max_examples=50, deadline=None)
@given(trial_lists)
def test_only_the_order_of_scores_matters(trials):
    scores, labels = map(np.array, zip(*trials, strict=True))
    other = np.exp(scores)
    assert eer_interpolated(scores, labels)[0] == eer_interpolated(other, labels)[0]
    assert min_dcf(scores, labels, 0.05)[0] == min_dcf(other, labels, 0.05)[0]
    assert tuneThresholdfromScore(scores, labels, [1])[1] == tuneThresholdfromScore(other, labels, [1])[1]
    # Swapping the roles of the two kinds mirrors the curve.
    assert eer_interpolated(-scores, 1 - labels)[0] == pytest.approx(eer_interpolated(scores, labels)[0])


# Bootstrap


@pytest.mark.parametrize("ties", [False, True])
def test_bootstrap_equals_one_resample_at_a_time(monkeypatch, ties):
    scores, labels = normal_trials(5, 60, 1.0, ties)
    drawn = []

    class Recorder:
        def __init__(self, seed):
            self.rng = np.random.RandomState(seed)

        def integers(self, high, size):
            drawn.append(self.rng.randint(high, size=size))
            return drawn[-1].copy()

    monkeypatch.setattr(np.random, "default_rng", Recorder)
    found = bootstrap_interval(scores, labels, (0.05, 0.2), resamples=40, progress=False)
    assert len(drawn) == 2
    kinds = [np.sort(scores[labels == k])[::-1] for k in (0, 1)]
    values = []
    for non_targets, targets in zip(*drawn, strict=True):
        again = np.concatenate([kinds[0][non_targets], kinds[1][targets]])
        kind = np.repeat([0, 1], [len(non_targets), len(targets)])
        values.append(
            [eer_interpolated(again, kind)[0], min_dcf(again, kind, 0.05)[0], min_dcf(again, kind, 0.2)[0]]
        )
    expected = np.percentile(values, [2.5, 97.5], axis=0).T
    assert list(found) == ["eer_interpolated", "min_dcf_0.05", "min_dcf_0.2"]
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-9)


def test_bootstrap_seed_and_order():
    scores, labels = normal_trials(6, 3000, 2.0)  # large enough to be drawn in more than one block
    first = bootstrap_interval(scores, labels, resamples=200, seed=3, progress=False)
    turned = bootstrap_interval(scores[::-1], labels[::-1], resamples=200, seed=3, progress=False)
    other = bootstrap_interval(scores, labels, resamples=200, seed=4, progress=False)
    assert first == turned != other
    low, high = first["eer_interpolated"]
    # Two normals two deviations apart: EER 15.87 %, and about 1 % standard error at this size.
    assert low < eer_interpolated(scores, labels)[0] < high
    assert 1 < high - low < 5
    trials = normal_trials(6, 50, 1.0)
    usual = bootstrap_interval(*trials, progress=False)
    assert usual == bootstrap_interval(*trials, (0.05, 0.01), 1000, 0, progress=False)
    assert usual != bootstrap_interval(*trials, (0.05, 0.01), 1001, 0, progress=False)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval(scores, labels, resamples=0)


def corpus(seed, speakers=10, files=6):
    """(scores, labels, name pairs) of all pairs of utterances; most of a score's variance is its speakers'."""
    r = np.random.default_rng(seed)
    names = [f"id{s:03d}/v{k % 2}/{k}.wav" for s in range(speakers) for k in range(files)]
    known = r.standard_normal(speakers)  # how well a speaker is known again, and taken for others
    first, second = np.triu_indices(len(names), 1)
    a, b = first // files, second // files
    labels = (a == b).astype(int)
    scores = np.where(labels, 2 + known[a], (known[a] + known[b]) / 2) + 0.5 * r.standard_normal(len(a))
    return scores, labels, [(names[i], names[j]) for i, j in zip(first, second, strict=True)]


def test_speakers_are_read_from_names():
    scores, labels, pairs = corpus(0)
    first, second = speakers_of_trials(pairs, labels)
    assert [(f"id{a:03d}", f"id{b:03d}") for a, b in zip(first, second, strict=True)] == [
        (a.split("/")[0], b.split("/")[0]) for a, b in pairs
    ]
    assert count_speakers((first, second)) == 10
    # The speaker is the folder that agrees with the labels, at any depth; names without folders show none.
    for form, known in (("/data/vox1/wav/{}", True), ("set/{}", True), ("{}", True), ("", False)):
        renamed = [tuple(form.format(n) if form else n.replace("/", "_") for n in pair) for pair in pairs]
        found = speakers_of_trials(renamed, labels)
        assert (found is not None) == known
        if known:
            assert np.array_equal(found[0], first) and np.array_equal(found[1], second)
    wrong = labels.copy()
    wrong[0] = 1 - wrong[0]
    assert speakers_of_trials(pairs, wrong) is None


def test_bootstrap_over_speakers_equals_one_resample_at_a_time(monkeypatch):
    """Compared with trials that are repeated as often as their speakers were drawn."""
    scores, labels, pairs = corpus(1, speakers=6, files=3)
    scores = np.round(scores, 1)  # with ties
    speakers = speakers_of_trials(pairs, labels)
    drawn, default_rng = [], np.random.default_rng

    class Recorder:
        def __init__(self, seed):
            self.rng = default_rng(seed)

        def integers(self, high, size):
            drawn.append(self.rng.integers(high, size=size))
            return drawn[-1]

    monkeypatch.setattr(np.random, "default_rng", Recorder)
    found = bootstrap_interval(scores, labels, (0.05, 0.2), resamples=30, progress=False, speakers=speakers)
    values = []
    for people in drawn:
        counts = np.bincount(people, minlength=6)
        a, b = (counts[side] for side in speakers)
        times = np.where(labels == 1, a, a * b)
        again, kind = np.repeat(scores, times), np.repeat(labels, times)
        if len(set(kind)) == 2:
            values.append(
                [eer_interpolated(again, kind)[0], *(min_dcf(again, kind, p)[0] for p in (0.05, 0.2))]
            )
    assert len(values) == 30
    np.testing.assert_allclose(list(found.values()), np.percentile(values, [2.5, 97.5], axis=0).T, atol=1e-9)


def test_draws_without_one_kind_of_trial_are_repeated():
    """Five speakers, the fewest, of whom only the first two have a non-target trial."""
    speakers = np.array([0, 1, 2, 3, 4, 0]), np.array([0, 1, 2, 3, 4, 1])
    scores, labels = [5, 4, 3, 1, 0, 2], [1, 1, 1, 1, 1, 0]
    found = bootstrap_interval(scores, labels, progress=False, speakers=speakers)
    assert np.isfinite(list(found.values())).all()


def test_output_says_what_was_drawn(tmp_path, capsys):
    scores, labels, pairs = corpus(2, speakers=8, files=3)
    texts = {"8 speakers": pairs, "trials": [(a.replace("/", "_"), b.replace("/", "_")) for a, b in pairs]}
    for words, names in texts.items():
        path = tmp_path / "s.txt"
        rows = zip(scores.tolist(), labels, names, strict=True)
        path.write_text("".join(f"{s!r} {k} {a} {b}\n" for s, k, (a, b) in rows))
        assert tuneThreshold.main([str(path), "--bootstrap", "20"]) == 0
        line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("intervals: 20 draws of"))
        assert line.endswith(f"  {words}")
    few = (labels >= 0) & np.array([max(a, b) < "id003" for a, b in pairs])
    rows = zip(scores[few].tolist(), labels[few], np.array(pairs)[few], strict=True)
    path.write_text("".join(f"{s!r} {k} {a} {b}\n" for s, k, (a, b) in rows))
    assert tuneThreshold.main([str(path), "--bootstrap", "20"]) == 0
    assert "trials (3 speakers are too few)" in (out := capsys.readouterr().out)
    assert "minDCF(P_target): C_miss = C_fa = 1; 1 = no better than a constant decision" in out
    with pytest.raises(UserError, match="3 speakers are too few"):
        bootstrap_interval(
            scores[few], labels[few], speakers=speakers_of_trials(np.array(pairs)[few].tolist(), labels[few])
        )


def write_trials(path, scores, labels, pairs):
    rows = zip(np.asarray(scores).tolist(), labels, pairs, strict=True)
    path.write_text("".join(f"{s!r} {k} {a} {b}\n" for s, k, (a, b) in rows))
    return str(path)


@pytest.mark.parametrize("systems", [1, 2])
def test_the_seed_of_the_command_is_used(tmp_path, capsys, monkeypatch, systems):
    """For the intervals of one system, and, by default, for those of the difference of two."""
    monkeypatch.setattr(tuneThreshold, "RESAMPLES", 30)
    paths = [write_trials(tmp_path / f"{k}.txt", *corpus(3 + k, speakers=8, files=3)) for k in range(systems)]
    resampled = ["--bootstrap", "30"] if systems == 1 else []
    printed = []
    for seed in (["--seed", "0"], [], ["--seed", "4"]):
        assert tuneThreshold.main([*paths, *resampled, *seed]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


# Two systems


@pytest.mark.parametrize("by_speaker", [True, False])
def test_a_difference_equals_one_resample_at_a_time(monkeypatch, by_speaker):
    """The same speakers, or trials, are drawn for both systems."""
    first, labels, pairs = corpus(4, speakers=6, files=3)
    second = np.round(first + np.random.default_rng(5).normal(scale=0.7, size=len(first)), 1)
    speakers = speakers_of_trials(pairs, labels) if by_speaker else None
    drawn, default_rng = [], np.random.default_rng

    class Recorder:
        def __init__(self, seed):
            self.rng = default_rng(seed)

        def integers(self, high, size):
            drawn.append(self.rng.integers(high, size=size))
            return drawn[-1]

    monkeypatch.setattr(np.random, "default_rng", Recorder)
    found = bootstrap_difference(first, second, labels, (0.05,), 20, progress=False, speakers=speakers)
    if by_speaker:
        counts = [np.bincount(people, minlength=6) for people in drawn]
        times = [np.where(labels == 1, n[speakers[0]], n[speakers[0]] * n[speakers[1]]) for n in counts]
        times = [n for n in times if n[labels == 1].any() and n[labels == 0].any()]
    else:
        kinds = [np.flatnonzero(labels == k) for k in (0, 1)]
        times = [
            np.bincount(np.concatenate([kinds[0][a], kinds[1][b]]), minlength=len(labels))
            for a, b in zip(*drawn, strict=True)
        ]
    assert len(times) == 20

    def figures(scores):
        again = [(np.repeat(scores, n), np.repeat(labels, n)) for n in times]
        return np.array([[eer_interpolated(*trials)[0], min_dcf(*trials, 0.05)[0]] for trials in again]).T

    expected = np.percentile(figures(second) - figures(first), [2.5, 97.5], axis=1).T
    measured = [
        eer_interpolated(second, labels)[0] - eer_interpolated(first, labels)[0],
        min_dcf(second, labels, 0.05)[0] - min_dcf(first, labels, 0.05)[0],
    ]
    assert list(found) == ["eer_interpolated", "min_dcf_0.05"]
    np.testing.assert_allclose([v[0] for v in found.values()], measured, atol=1e-9)
    np.testing.assert_allclose([v[1:] for v in found.values()], expected, atol=1e-9)


def test_a_paired_interval_is_more_sensitive_than_two_intervals():
    """One system is slightly worse on the same speakers: each interval contains both EERs."""
    scores, labels, pairs = corpus(7, speakers=20, files=4)
    worse = scores + np.random.default_rng(1).normal(scale=0.5, size=len(scores))
    speakers = speakers_of_trials(pairs, labels)
    _, low, high = bootstrap_difference(
        scores, worse, labels, resamples=200, progress=False, speakers=speakers
    )["eer_interpolated"]
    assert 0 < low < high
    alone = bootstrap_interval(scores, labels, resamples=200, progress=False, speakers=speakers)
    interval = alone["eer_interpolated"]
    assert interval[0] < eer_interpolated(worse, labels)[0] < interval[1]
    same = bootstrap_difference(scores, 2 * scores, labels, resamples=50, progress=False, speakers=speakers)
    assert set(same.values()) == {(0.0, 0.0, 0.0)}


def test_two_files_are_compared(tmp_path, capsys):
    scores, labels, pairs = corpus(6, speakers=20, files=2)
    draws = np.random.default_rng(2)
    worse, order = scores + draws.normal(scale=1.5, size=len(scores)), draws.permutation(len(scores))
    one = write_trials(tmp_path / "one.txt", scores, labels, pairs)
    turned = [pairs[n][:: draws.choice([-1, 1])] for n in order]  # in another order, some with files swapped
    two = write_trials(tmp_path / "two.txt", worse[order], labels[order], turned)
    assert tuneThreshold.main([one, two, "--plot", str(tmp_path / "det.png")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [one, two] and (tmp_path / "det.png").exists()
    head = out.index(f"{two} minus {one}, 95 % intervals of 1000 paired draws of 20 speakers:")
    cells = out[head + 1].split()
    expected = eer_interpolated(worse, labels)[0] - eer_interpolated(scores, labels)[0]
    assert cells[:3] == ["EER", "interpolated", "(%)"] and float(cells[3]) == pytest.approx(
        expected, abs=1e-4
    )
    assert 0 < float(cells[4]) < float(cells[6]) and cells[-1] == "differ"
    assert [line.split()[0] for line in out[head + 2 : head + 4]] == ["minDCF(0.05)", "minDCF(0.01)"]
    # --compare is equivalent; three files have two differences; --bootstrap 0 prints none.
    three = write_trials(tmp_path / "three.txt", scores, labels, pairs)
    assert tuneThreshold.main([one, three, "--compare", two, "--bootstrap", "20"]) == 0
    out = capsys.readouterr().out
    assert out.count("minus " + one) == 2
    assert "differ" not in out.partition(f"{three} minus")[2].partition(f"{two} minus")[0]  # 0 in all figures
    assert tuneThreshold.main([one, two, "--bootstrap", "0"]) == 0
    assert " minus " not in capsys.readouterr().out


def test_systems_of_different_trials_have_no_difference(tmp_path, capsys):
    scores, labels, pairs = corpus(6, speakers=6, files=2)
    one = write_trials(tmp_path / "one.txt", scores, labels, pairs)
    wrong = labels.copy()
    wrong[:3] = 1 - wrong[:3]
    for name, trials, reason in (
        ("fewer", (scores[1:], labels[1:], pairs[1:]), "different trials (66 and 65, 65 in common)"),
        (
            "others",
            (scores, labels, [("x/" + a, b) for a, b in pairs]),
            "different trials (66 and 66, 0 in common)",
        ),
        ("labels", (scores, wrong, pairs), "different labels in 3 trials"),
    ):
        other = write_trials(tmp_path / name, *trials)
        assert tuneThreshold.main([one, other]) == 0
        out, err = capsys.readouterr()
        assert " minus " not in out and reason in err and "EER (%)" in out
    (tmp_path / "bare").write_text(
        "".join(f"{s!r} {k}\n" for s, k in zip(scores.tolist(), labels, strict=True))
    )
    assert tuneThreshold.main([one, str(tmp_path / "bare")]) == 0
    assert "bare does not name the files of its trials" in capsys.readouterr().err


def test_repeated_trials_are_matched_in_their_order():
    one = [("a", "b"), ("c", "d"), ("a", "b"), ("b", "a")]
    other = [("d", "c"), ("b", "a"), ("a", "b"), ("a", "b")]
    assert tuneThreshold.in_order_of(one, other) == [1, 0, 2, 3]
    assert tuneThreshold.in_order_of(one, [*other[:3], ("d", "c")]) is None


def test_the_plot_names_the_eer_that_is_printed(tmp_path, monkeypatch, capsys):
    """On a coarse curve the interpolated EER differs."""
    from matplotlib.figure import Figure

    legends = []
    saved = Figure.savefig

    def note(self, *args, **more):
        legends.extend(text.get_text() for text in self.axes[0].get_legend().get_texts())
        return saved(self, *args, **more)

    monkeypatch.setattr(Figure, "savefig", note)
    scores, labels = np.array([3, 2, 2, 2, 2, 1]), np.array([1, 1, 1, 0, 0, 0])
    path = write_scores(tmp_path / "s.txt", scores, labels)
    (tmp_path / "other").mkdir()
    other = write_scores(tmp_path / "other/s.txt", scores, labels)
    plot = ["--plot", str(tmp_path / "det.png")]
    assert tuneThreshold.main([path, other, *plot]) == 0
    assert [text.split(":")[0] for text in legends[:2]] == [path, other]  # not both s.txt
    del legends[:]
    capsys.readouterr()
    assert tuneThreshold.main([path, *plot]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^EER \(%\) +66.6667$", out, re.M) and re.search(
        r"^EER interpolated \(%\) +33.3333$", out, re.M
    )
    assert legends[0].startswith("s.txt: EER 66.6667 %") and not any("33.3" in text for text in legends)


# Development and test trials


@pytest.mark.parametrize("form", ["{k} {a} {b}", "{a}\t{b}\t{word}", "{s} {k} {a} {b}"])
def test_a_split_has_no_common_speaker(tmp_path, capsys, form):
    scores, labels, pairs = corpus(7, speakers=9, files=3)
    words = ("nontarget", "target")
    lines = [
        form.format(k=k, a=a, b=b, s=s, word=words[k])
        for s, k, (a, b) in zip(scores.tolist(), labels, pairs, strict=True)
    ]
    path = tmp_path / "trials.txt"
    path.write_text("\n".join(lines) + "\n")
    assert tuneThreshold.main(["--split", str(path), "--seed", "3"]) == 0
    out = capsys.readouterr().out
    parts = [(tmp_path / f"trials_{name}.txt").read_text().splitlines() for name in ("dev", "test")]
    people = [set(re.findall(r"id\d+", "".join(part))) for part in parts]
    assert not people[0] & people[1] and sorted(map(len, people)) == [4, 5]
    kept = [n for n, line in enumerate(lines) if line in parts[0] or line in parts[1]]
    assert [lines[n] for n in kept] == [line for line in lines if line in {*parts[0], *parts[1]}]
    # No trial is dropped needlessly: all whose speakers are on one side are there.
    assert len(kept) == sum(
        len({a.split("/")[0], b.split("/")[0]} & people[0]) in (0, len({a.split("/")[0], b.split("/")[0]}))
        for a, b in pairs
    )
    assert f"dropped: {len(lines) - len(kept)} trials" in out
    targets = sum(labels[n] for n in kept if lines[n] in parts[0])
    assert f"trials_dev.txt: {len(parts[0])} trials, {targets} of them targets" in out

    before = [(tmp_path / f"trials_{name}.txt").read_bytes() for name in ("dev", "test")]
    assert tuneThreshold.main(["--split", str(path), "--seed", "3"]) == 0
    assert before == [(tmp_path / f"trials_{name}.txt").read_bytes() for name in ("dev", "test")]
    assert tuneThreshold.main([str(path), "--split", "--seed", "4", "--dev_fraction", "0.3"]) == 0
    assert before[0] != (tmp_path / "trials_dev.txt").read_bytes()
    assert "of 3 speakers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a.wav b.wav\n0 a.wav c.wav\n", "the speakers cannot be found in the names"),
        ("a/1.wav b/2.wav\na/1.wav a/3.wav\n", "has no labels"),
        (
            "1 a/1 a/2\n0 a/1 b/1\n1 b/1 b/2\n",
            "with 2 speakers, 1 of them for development, the development trials have 1",
        ),
        ("0.5 1\n0.6 0\n", "label"),
    ],
)
def test_lists_that_cannot_be_split(tmp_path, capsys, text, message):
    (tmp_path / "t.txt").write_text(text)
    assert tuneThreshold.main(["--split", str(tmp_path / "t.txt")]) == 1
    assert message in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(SystemExit):
        tuneThreshold.main(["--split", "a.txt", "b.txt"])
    assert "--split takes one file" in capsys.readouterr().err


# Wrong input


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, np.nan, 0.2], [0, 1, 1], "1 of 3 scores are not finite, the first at index 1"),
        ([0.1, np.inf], [0, 1], "not finite"),
        ([0.1, 0.2], [0, 1, 1], "expected one of each per trial"),
        ([[0.1, 0.2]], [[0, 1]], "expected one of each per trial"),
        ([], [], "no trials"),
        ([0.1, 0.2], [1, 1], "all 2 trials are target trials"),
        ([0.1, 0.2], [0, 0], "all 2 trials are non-target trials"),
        ([0.1, 0.2], [0, 2], "label .*2.* at index 1, expected 0 or 1"),
        ([0.1, 0.2], [0, -1], "expected 0 or 1"),
    ],
)
def test_wrong_trials(scores, labels, message):
    for measure in (
        lambda: tuneThresholdfromScore(scores, labels, [1]),
        lambda: eer_interpolated(scores, labels),
        lambda: min_dcf(scores, labels, 0.05),
        lambda: bootstrap_interval(scores, labels, resamples=2, progress=False),
        lambda: plot_det({"one": (scores, labels)}, "never.png"),
    ):
        with pytest.raises(ValueError, match=message):
            measure()


@pytest.mark.parametrize("dcf", [min_dcf, actual_dcf])
@pytest.mark.parametrize(
    "wrong",
    [
        {"p_target": 0},
        {"p_target": 1},
        {"c_miss": 0},
        {"c_fa": 0},
        {"c_fa": -1},
        {"c_miss": np.inf},
        {"c_fa": np.inf},
    ],
)
def test_wrong_costs(dcf, wrong):
    with pytest.raises(ValueError, match="p_target"):
        dcf(*SIX, **{"p_target": 0.1} | wrong)


# Files and the command


def test_read_scores(tmp_path):
    path = tmp_path / "scores.txt"
    path.write_bytes(b"\xef\xbb\xbf0.5 1 a/\xff.wav b.wav\r\n\r\n-1e-3\t0\r\n")
    scores, labels = read_scores(str(path))
    np.testing.assert_array_equal(scores, [0.5, -0.001])
    np.testing.assert_array_equal(labels, [1, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1 0\nmuch 1\n", "line 2: score 'much' is not a number"),
        ("0.1 0\n\nnan 1\n", "line 3: score 'nan' is not a finite number"),
        ("0.1 0\n0.2 2\n", "line 2: label '2', expected 0 or 1"),
        ("1 a.wav b.wav\n", "line 1: 3 fields, expected"),
        ("0.1 1\n0.2 1\n", "scores.txt: all 2 trials are target trials"),
        ("", "scores.txt: no trials"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    path = tmp_path / "scores.txt"
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        read_scores(str(path))
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


def test_score_files_without_labels(tmp_path):
    path = tmp_path / "s.txt"
    for line, labeled in (
        ("0.5 1 a.wav", True),
        ("0.5 a.wav 1", False),
        ("0.5 1", True),
        ("0.5\ta b\tc", False),
    ):
        path.write_text(line + "\n")
        assert has_labels(str(path)) == labeled
    path.write_text("0.5 a b\n\nmuch a b\n")
    with pytest.raises(UserError, match=f"{path}, line 3: score 'much'"):
        read_unlabeled(str(path))


def test_command(tmp_path):
    one = write_scores(tmp_path / "one.txt", *normal_trials(1, 500, 1.0))
    two = write_scores(tmp_path / "two.txt", *normal_trials(2, 5000, 2.0))
    picture = tmp_path / "new" / "det.png"
    done = run_command(one, "--compare", two, "--plot", picture, "--bootstrap", 50, "--target_fa", 5, 1)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split() == [one, two]
    table = [line.split("  ") for line in lines]
    rows = {cells[0] or cells[1]: [c.strip() for c in cells[1:] if c.strip()] for cells in table}
    assert rows["trials"] == ["500", "5000"]
    assert rows["EER (%)"] == [f"{case['eer']:2.4f}" for case in ORACLE[:2]]
    assert rows["EER interpolated (%)"] == ["34.0314", "15.2838"]
    assert rows["minDCF(0.05)"] == ["0.9254", "0.8294"]
    assert "minDCF(0.01)" in rows
    assert done.stdout.count("95 % interval") == 3
    assert rows["threshold for FA 5 %"] == [f"{case['fr5_fr2_fa5'][2][0]:.6g}" for case in ORACLE[:2]]
    assert len({len(line) for line in [header, *lines[:-1]]}) == 1  # aligned
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in picture.parent.iterdir()] == ["det.png"]


def test_command_errors(tmp_path, capsys):
    good = write_scores(tmp_path / "good.txt", *normal_trials(1, 50, 1.0))
    bad = tmp_path / "bad.txt"
    bad.write_text("0.1 0\nmuch 1\n")
    assert tuneThreshold.main([str(bad)]) == 1
    assert capsys.readouterr().err == f"tuneThreshold.py: {bad}, line 2: score 'much' is not a number\n"
    for arguments in (["--compare", str(tmp_path / "none.txt")], ["--plot", str(tmp_path)]):
        assert tuneThreshold.main([good, *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert arguments[1] in line


@pytest.mark.parametrize("option", [["--target_fa", "101"], ["--bootstrap", "-1"], ["--seed", "-1"]])
def test_command_wrong_flags(capsys, option):
    with pytest.raises(SystemExit) as ended:
        tuneThreshold.main(["scores.txt", *option])
    assert ended.value.code == 2
    assert option[0] in capsys.readouterr().err


# The picture


def test_det_axes_are_normal_deviates(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    saved = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), saved(self, *a, **k))[1]
    )
    path = tmp_path / "det.png"
    plot_det({"normals": normal_trials(7, 20000, 2.0), "perfect": ([2, 1], [1, 0])}, str(path))
    (axes,) = figures[0].axes
    curve = next(line for line in axes.lines if line.get_label().startswith("normals"))
    x, y = curve.get_data()
    # Equal-variance normals 2 apart are the straight line x + y = -2 on normal-deviate axes.
    middle = (np.abs(x + 1) < 1) & (np.abs(y + 1) < 1)
    assert middle.sum() > 1000
    assert np.abs(x + y + 2)[middle].max() < 0.15
    assert np.isfinite(x).all() and np.isfinite(y).all()
    # Three marks a system, all inside the picture.
    marks = [line.get_data() for line in axes.lines if line.get_marker() in ("o", "s", "D")]
    assert len(marks) == 6
    for limits, values in zip((axes.get_xlim(), axes.get_ylim()), np.array(marks)[..., 0].T, strict=True):
        assert (limits[0] <= values).all() and (values <= limits[1]).all()
    ticks = dict(zip((t.get_text() for t in axes.get_xticklabels()), axes.get_xticks(), strict=True))
    assert ticks["1"] == pytest.approx(-2.3263479)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_failed_plot_leaves_no_partial_file(tmp_path):
    trials = normal_trials(1, 50, 1.0)
    with pytest.raises(ValueError, match="second: all 2 trials"):
        plot_det({"first": trials, "second": ([1, 2], [1, 1])}, str(tmp_path / "det.png"))
    with pytest.raises(ValueError, match="no systems"):
        plot_det({}, str(tmp_path / "det.png"))
    assert not list(tmp_path.iterdir())
