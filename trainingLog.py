"""What a training run keeps for people: scores.txt, metrics.csv and curves.png in save_path/result."""

import csv
import os
import re

from matplotlib.figure import Figure

from safeFiles import replace_file
from SyncNetDist import PARTS, EpochResult


def score_line(epoch: int, rate: float, learnt: EpochResult, checked: EpochResult) -> str:
    """An epoch in one line of scores.txt, as the 2020 baseline writes it."""
    return (
        f"IT {epoch}, LR {rate:f}, TACC {learnt.identity_top1:2.2f}, TLOSS {learnt.loss:f}, "
        f"VACC {checked.identity_top1:2.2f}, VLOSS {checked.loss:f}"
    )


class TrainingLog:
    """The files of a run's result folder; each is complete or not there, whenever the run ends.

    settings: written to scores.txt, a `name value` line each, at every start. first_epoch: the epoch that
    this start begins with; what an earlier start wrote of it and of later ones is dropped.
    """

    def __init__(self, folder: str, settings: dict[str, object], first_epoch: int):
        self.scores = os.path.join(folder, "scores.txt")
        self.metrics = os.path.join(folder, "metrics.csv")
        self.curves = os.path.join(folder, "curves.png")
        self.rows: list[dict[str, str]] = []
        self.lines: list[str] = []
        if os.path.exists(self.scores):
            with open(self.scores, encoding="utf-8") as file:
                for line in file.read().splitlines():
                    epoch = re.match(r"IT (\d+),", line)
                    if not epoch or int(epoch[1]) < first_epoch:
                        self.lines.append(line)
        if os.path.exists(self.metrics):
            with open(self.metrics, encoding="utf-8", newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < first_epoch]
        self.lines += [f"{name} {value}" for name, value in settings.items()]
        self._write_scores()

    def add(
        self,
        epoch: int,
        rate: float,
        learnt: EpochResult,
        checked: EpochResult,
        more: dict[str, float],
    ) -> str:
        """Add an epoch to all three files; `more`: further columns. Returns its line of scores.txt."""
        row: dict[str, float] = {"epoch": epoch, "learning_rate": rate}
        for part in PARTS:
            row[f"train_{part}"] = getattr(learnt, part)
            row[f"val_{part}"] = getattr(checked, part)
        row["clips_per_second"] = learnt.clips / learnt.seconds
        row["data_wait_percent"] = 100 * learnt.data_wait / learnt.seconds
        self.rows.append({name: f"{value:.7g}" for name, value in (row | more).items()})
        self.lines.append(score_line(epoch, rate, learnt, checked))
        self._write_scores()
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replace_file(self.metrics) as file:
            table = csv.DictWriter(file, names, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)
        self._draw()
        return self.lines[-1]

    def _write_scores(self) -> None:
        with replace_file(self.scores) as file:
            file.writelines(line + "\n" for line in self.lines)

    def _draw(self) -> None:
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        panels = figure.subplots(1, 3)
        epochs = [int(row["epoch"]) for row in self.rows]
        for panel, title, parts in (
            (panels[0], "loss", ("content_loss", "identity_loss")),
            (panels[1], "top-1 accuracy (%)", ("content_top1", "identity_top1")),
        ):
            for colour, part in zip(("tab:blue", "tab:orange"), parts, strict=True):
                for style, split in (("--", "train"), ("-", "val")):
                    values = [float(row[f"{split}_{part}"]) for row in self.rows]
                    name = f"{part.split('_')[0]}, {'validation' if split == 'val' else split}"
                    panel.plot(epochs, values, style, color=colour, label=name, marker=".", markersize=4)
            panel.set_title(title)
        tested = [row for row in self.rows if row.get("eer")]
        if tested:
            values = [float(row["eer"]) for row in tested]
            panels[2].plot(
                [int(row["epoch"]) for row in tested], values, "-o", color="tab:green", markersize=4
            )
            panels[2].set_title("EER on the trial list (%)")
        else:
            rates = [float(row["learning_rate"]) for row in self.rows]
            panels[2].plot(epochs, rates, "-", color="tab:gray", marker=".", markersize=4)
            panels[2].set_title("learning rate")
        for panel in panels:
            panel.set_xlabel("epoch")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.grid(alpha=0.3)
            panel.set_ylim(bottom=0)
        panels[0].legend(fontsize=8)
        with replace_file(self.curves, "wb") as file:
            figure.savefig(file, format="png", dpi=110)
