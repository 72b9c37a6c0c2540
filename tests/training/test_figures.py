"""Each figure that a run prints or writes, on cases worked out by hand."""

import csv
import errno
import json
import math
import sys

import pytest
import torch

from syncnet.compute.device import DeviceBatches
from syncnet.support.errors import UserError
from syncnet.training import epoch as trainingEpoch
from syncnet.training import log as trainingLog
from syncnet.training.epoch import PARTS, EpochResult, Figures
from syncnet.training.log import TrainingLog, peak_memory, score_line

ROWS = [[3.0, 2.0, 1.0, 0.25, 0.5, 0.125], [5.0, 3.0, 2.0, 0.75, 0.0, 0.375]]  # PARTS of two steps
NAN = math.nan
NO_IDENTITY = {"identity_loss": NAN, "identity_top1": NAN, "identity_chance": NAN}


def result(**changed) -> EpochResult:
    figures = {
        "loss": 4.0,
        "content_loss": 2.5,
        "identity_loss": 1.5,
        "content_top1": 50.0,
        "identity_top1": 25.0,
        "content_chance": 12.5,
        "identity_chance": 10.0,
        "clips": 60,
        "seconds": 8.0,
        "data_wait": 2.0,
    }
    return EpochResult(**figures | changed)


class Loader:
    """Batches of 10 clips, each of which takes 3 s by the test's clock to come."""

    batch_size, nFiles, maxQueueSize = 10, 45, 4

    def __init__(self, clock: list[float], batches: int):
        self.clock, self.batches = clock, batches

    def qsize(self) -> int:
        return 2

    def __iter__(self):
        for _ in range(self.batches):
            self.clock[0] += 3
            yield torch.zeros(1), torch.zeros(1)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_an_epoch_in_words():
    assert str(result()) == (
        "loss 4.0000  content 2.5000  identity 1.5000  sync top-1 50.00% (chance 12.50%)  "
        "identity top-1 25.00% (chance 10.00%)  7.5 clips/s  data wait 25%"
    )
    assert str(result(disentanglement_loss=0.25, **NO_IDENTITY)) == (
        "loss 4.0000  content 2.5000  identity -  disentanglement 0.2500  sync top-1 50.00% (chance 12.50%)  "
        "identity top-1 -  7.5 clips/s  data wait 25%"
    )
    assert "sync top-1 50.00%  identity top-1 25.00% (chance 10.00%)" in str(result(content_chance=NAN))


def test_an_epoch_without_identity_and_without_a_queue():
    class Plain:
        batch_size, nFiles = 10, 10

        def __iter__(self):
            return iter([(torch.zeros(1), torch.zeros(1))])

    figures = Figures(DeviceBatches(Plain(), torch.device("cpu")), [], "train", 1, learning_rate=0.1)
    with figures.bar, pytest.raises(UserError, match="10 clips, batch 10"):
        figures.result(num_embeddings=4)
    figures.add(torch.tensor([2.0, 2.0, NAN, 0.5, NAN, NAN]))
    assert figures.so_far().startswith(
        "loss 2.000 content 2.000 identity - sync top-1 50.0% identity top-1 - data wait"
    )
    assert "ahead" not in figures.so_far()
    found = figures.result(num_embeddings=4)
    assert (
        found.content_chance == 25 and math.isnan(found.identity_chance) and math.isnan(found.identity_loss)
    )
    figures.rows[0][PARTS.index("content_top1")] = NAN
    assert math.isnan(figures.result(num_embeddings=4).content_chance)


def test_the_figures_of_an_epoch(clock):
    """Two steps of ten clips after one that an earlier start did: 3 s of waiting and 2 of computing each."""
    batches = DeviceBatches(Loader(clock, 2), torch.device("cpu"))
    earlier = [1.0, 1.0, 0.0, 0.5, 0.25, 0.25]
    figures = Figures(batches, [earlier], "train", steps_per_fetch=1, learning_rate=0.1)
    assert (figures.bar.total, figures.bar.initial) == (40, 10)
    with figures.bar:
        for row, _ in zip(ROWS, batches, strict=True):
            clock[0] += 2
            figures.add(torch.tensor(row))
        assert figures.steps == 3 and figures.bar.n == 30
        assert figures.so_far() == (
            "loss 3.000 content 2.000 identity 1.000 sync top-1 50.0% identity top-1 25.0% data wait 60% "
            "batches ahead 2/4"
        )
        found = figures.result(num_embeddings=4)
    assert found.rows == [earlier, *ROWS]
    means = {part: getattr(found, part) for part in PARTS}
    assert list(means.values()) == [3.0, 2.0, 1.0, 50.0, 25.0, 0.25]
    assert (found.content_chance, found.identity_chance) == (25.0, 10.0)
    assert (found.clips, found.seconds, found.data_wait) == (20, 10.0, 6.0)
    assert (found.clips_per_second, found.data_wait_percent) == (2.0, 60.0)


def test_figures_are_fetched_every_steps_per_fetch_steps(clock):
    batches = DeviceBatches(Loader(clock, 4), torch.device("cpu"))
    figures = Figures(batches, [], "train", steps_per_fetch=3, learning_rate=0.1)
    with figures.bar:
        fetched = []
        for number in range(4):
            clock[0] += 1
            figures.add(torch.full((len(PARTS),), float(number)))
            fetched.append((len(figures.rows), figures.steps))
        assert fetched == [(0, 1), (0, 2), (3, 3), (3, 4)]
        assert [row[0] for row in figures.fetch()] == [0.0, 1.0, 2.0, 3.0]


def test_a_loss_that_is_not_finite_names_its_step(clock):
    batches = DeviceBatches(Loader(clock, 2), torch.device("cpu"))
    figures = Figures(batches, [ROWS[0]], "train", steps_per_fetch=2, learning_rate=0.1)
    with figures.bar:
        figures.add(torch.tensor(ROWS[1]))
        message = "step 3: the loss is nan .content 2.0, identity 1.0. at learning rate 0.1"
        with pytest.raises(trainingEpoch.LossNotFinite, match=message):
            figures.add(torch.tensor([NAN, 2.0, 1.0, 0.0, 0.0, 0.0]))


def test_the_line_of_scores():
    line = score_line(7, 0.00025, result(), result(identity_top1=NAN, loss=1.25))
    assert line == "IT 7, LR 0.000250, TACC 25.00, TLOSS 4.000000, VACC -, VLOSS 1.250000"


def test_the_row_of_metrics(tmp_path):
    log = TrainingLog(str(tmp_path), {"lr": 0.5}, 1)
    checked = result(loss=1.0, clips=1, data_wait=1.0, content_top1=75.0, disentanglement_loss=2.0)
    log.add(3, 0.5, result(), checked, {"eer": 9.5})
    with open(tmp_path / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "epoch": "3", "learning_rate": "0.5",
        "train_loss": "4", "val_loss": "1", "train_content_loss": "2.5", "val_content_loss": "2.5",
        "train_identity_loss": "1.5", "val_identity_loss": "1.5", "train_content_top1": "50",
        "val_content_top1": "75", "train_identity_top1": "25", "val_identity_top1": "25",
        "train_disentanglement_loss": "", "val_disentanglement_loss": "2",
        "content_top1_chance": "12.5", "identity_top1_chance": "10",
        "clips_per_second": "7.5", "data_wait_percent": "25", "eer": "9.5",
    }  # fmt: skip


def test_metrics_of_an_earlier_version_are_continued(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,learning_rate,train_loss,val_loss,train_confusion_loss,val_confusion_loss,val_content_top1\n"
        "1,0.5,3,4,0.75,0.25,50\n2,0.4,1,1,1,1,50\n"
    )
    log = TrainingLog(str(tmp_path), {}, 2)
    log.add(2, 0.25, result(), result(disentanglement_loss=2.0), {})
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"] and "val_confusion_loss" not in rows[0]
    assert [row["train_disentanglement_loss"] for row in rows] == ["0.75", ""]
    assert [row["val_disentanglement_loss"] for row in rows] == ["0.25", "2"]


def test_an_unreadable_log_is_not_overwritten(tmp_path, monkeypatch):
    (tmp_path / "scores.txt").write_text("IT 1, LR 0.500000\nIT 2, LR 0.250000\n")
    assert TrainingLog(str(tmp_path), {}, 2).lines == ["IT 1, LR 0.500000"]

    def refuse(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(OSError, match="Input/output"):
            TrainingLog(str(tmp_path), {}, 2)
    assert (tmp_path / "scores.txt").read_text() == "IT 1, LR 0.500000\n"


def test_the_best_epoch_has_the_lowest_number(tmp_path):
    log = TrainingLog(str(tmp_path), {}, 1)
    for epoch, eer in enumerate((9.5, 10.2, 9.5), 1):
        log.add(epoch, 0.5, result(), result(), {"eer": eer})
    assert log.best_epoch == 1


@pytest.mark.draws
def test_the_curves(tmp_path):
    log = TrainingLog(str(tmp_path), {}, 1)
    log.add(1, 0.5, result(), result(identity_top1=30.0), {})
    figure = log.drawn()
    losses, accuracies, rates = figure.axes
    lines = {line.get_label(): line for line in accuracies.get_lines()}
    assert list(lines["content, chance"].get_ydata()) == [12.5, 12.5]
    assert list(lines["identity, chance"].get_ydata()) == [10.0, 10.0]
    assert list(lines["identity, training"].get_ydata()) == [25.0]
    assert list(lines["identity, validation"].get_ydata()) == [30.0]
    assert lines["identity, training"].get_marker() != lines["identity, validation"].get_marker()
    guesses = {
        line.get_label(): line.get_ydata()[0] for line in losses.get_lines() if "log" in line.get_label()
    }
    assert guesses == pytest.approx({"content, log 8": math.log(8), "identity, log 10": math.log(10)})
    for axes in figure.axes:  # one epoch: no ticks between whole epochs
        low, high = axes.get_xlim()
        assert [tick for tick in axes.xaxis.get_major_locator()() if low <= tick <= high] == [1.0]
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    log.add(2, 0.25, result(), result(), {"eer": 20.0, "min_dcf_0.05": 0.5})
    log.add(3, 0.25, result(), result(), {"eer": 10.0, "min_dcf_0.05": 0.25})
    best = {"epoch": 3, "checkpoint": "model/model000000003.model", "eer": 10.0, "min_dcf_0.05": 0.25}
    assert json.loads((tmp_path / "best.json").read_text()) == best
    sync_only = TrainingLog(str(tmp_path / "sync"), {}, 1)
    sync_only.add(1, 0.5, result(**NO_IDENTITY), result(**NO_IDENTITY), {})
    for axes in sync_only.drawn().axes:
        assert not any("identity" in line.get_label() for line in axes.get_lines())
    assert log.best_epoch == 3 and log.drawn().axes[2].get_title() == "EER on the trial list (%)"


def test_peak_memory_is_in_mib(monkeypatch):
    usage = type("Usage", (), {"ru_maxrss": 3 * 2**20})  # KiB on Linux, bytes on macOS
    monkeypatch.setattr(trainingLog.resource, "getrusage", lambda _: usage)
    for system, expected in (("linux", 3 * 1024), ("darwin", 3)):
        monkeypatch.setattr(sys, "platform", system)
        assert peak_memory(torch.device("cpu")) == {"memory_mib": expected}
