"""Write the results of a training run to save_path/result.

The files are scores.txt (as in the 2020 baseline), metrics.csv, curves.png, best.json if trials were scored, and
TensorBoard scalars on request.
"""

import csv
import json
import math
import os
import re
import resource
import sys
from typing import TYPE_CHECKING

import torch

from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.training.epoch import PARTS, EpochResult, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def score_line(epoch: int, rate: float, trained: EpochResult, validated: EpochResult) -> str:
    """Format an epoch's line in scores.txt, as in the 2020 baseline; `-` for metrics that were not computed."""
    return (
        f"IT {epoch}, LR {rate:f}, TACC {shown(trained.identity_top1, '2.2f')}, TLOSS {trained.loss:f}, "
        f"VACC {shown(validated.identity_top1, '2.2f')}, VLOSS {validated.loss:f}"
    )


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return peak memory so far in MiB: of tensors on a GPU, otherwise of this process."""
    if device.type == "cuda":
        return {"gpu_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    unit = 1 if sys.platform == "darwin" else 1024  # bytes per unit of ru_maxrss
    return {"memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}


def lines_of(path: str) -> list[str]:
    """Read the lines of a text file; [] if it does not exist. Raises OSError if it is temporarily unreadable."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def renamed(row: dict[str, str]) -> dict[str, str]:
    """Rename columns of metrics.csv from earlier versions, which wrote confusion_loss for disentanglement_loss."""
    return {name.replace("confusion_loss", "disentanglement_loss"): value for name, value in row.items()}


class TrainingLog:
    """Writes the files in a run's result folder; all except the TensorBoard events are replaced atomically.

    settings: written to scores.txt, one `name value` line each; after resuming, only those that have changed.
    first_epoch: first epoch to be trained; entries of an earlier start for this and later epochs are dropped.
    tensorboard: also write the columns of metrics.csv as scalars to the folder tensorboard; if that is new, including
    earlier epochs. Raises UserError if the tensorboard package is not installed.
    """

    def __init__(self, folder: str, settings: dict[str, object], first_epoch: int, tensorboard: bool = False):
        self.writer, switched_on_later = None, False
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UserError(f"--tensorboard: {error}; install it with: pip install tensorboard") from None
            scalars = os.path.join(folder, "tensorboard")
            switched_on_later = not os.path.isdir(scalars)
            self.writer = SummaryWriter(scalars, purge_step=first_epoch)
        self.best = os.path.join(folder, "best.json")
        self.scores = os.path.join(folder, "scores.txt")
        self.metrics = os.path.join(folder, "metrics.csv")
        self.curves = os.path.join(folder, "curves.png")
        epochs = [(line, re.match(r"IT (\d+),", line)) for line in lines_of(self.scores)]
        self.lines = [line for line, epoch in epochs if not epoch or int(epoch[1]) < first_epoch]
        table = csv.DictReader(lines_of(self.metrics))
        self.rows = [renamed(row) for row in table if int(row["epoch"]) < first_epoch]
        for row in self.rows if switched_on_later else []:
            self._write_scalars(int(row["epoch"]), {name: float(row[name] or "nan") for name in row})
        written = dict(line.partition(" ")[::2] for line in self.lines)  # latest value of each setting
        self.lines += [
            f"{name} {value}" for name, value in settings.items() if written.get(name) != f"{value}"
        ]
        self._write_scores()
        self._write_best()

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the lowest EER, the earliest in case of a tie; None if no trials were scored."""
        tested = [row for row in self.rows if row.get("eer")]
        return int(min(tested, key=lambda row: float(row["eer"]))["epoch"]) if tested else None

    def add(
        self,
        epoch: int,
        rate: float,
        trained: EpochResult,
        validated: EpochResult,
        more: dict[str, float],
    ) -> str:
        """Add an epoch to all files. more: additional columns. Returns its line in scores.txt."""
        row: dict[str, float] = {"epoch": epoch, "learning_rate": rate}
        for part in PARTS:
            row[f"train_{part}"] = getattr(trained, part)
            row[f"val_{part}"] = getattr(validated, part)
        row["content_top1_chance"], row["identity_top1_chance"] = (
            validated.content_chance,
            validated.identity_chance,
        )
        row["clips_per_second"] = trained.clips_per_second
        row["data_wait_percent"] = trained.data_wait_percent
        self.rows.append(
            {name: "" if math.isnan(value) else f"{value:.7g}" for name, value in (row | more).items()}
        )
        self.lines.append(score_line(epoch, rate, trained, validated))
        self._write_scores()
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replace_file(self.metrics) as file:
            table = csv.DictWriter(file, names, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)
        self._write_best()
        with replace_file(self.curves, "wb") as file:
            self.drawn().savefig(file, format="png", dpi=110)
        self._write_scalars(epoch, row | more)
        return self.lines[-1]

    def _write_scalars(self, epoch: int, row: dict[str, float]) -> None:
        if self.writer:
            for name, value in row.items():
                if name != "epoch" and not math.isnan(value):
                    self.writer.add_scalar(name, value, epoch)
            self.writer.flush()

    def _write_scores(self) -> None:
        with replace_file(self.scores) as file:
            file.writelines(line + "\n" for line in self.lines)

    def _write_best(self) -> None:
        """Write best.json: epoch, checkpoint (relative to save_path) and metrics of the lowest EER so far."""
        if self.best_epoch is None:
            if os.path.exists(self.best):
                os.remove(self.best)  # from epochs that will be trained again
            return
        row = next(row for row in self.rows if int(row["epoch"]) == self.best_epoch)
        found = {"epoch": self.best_epoch, "checkpoint": f"model/model{self.best_epoch:09d}.model"}
        found |= {name: float(row[name]) for name in row if name == "eer" or name.startswith("min_dcf")}
        with replace_file(self.best) as file:
            json.dump(found, file, indent=2)

    def drawn(self) -> "Figure":
        """Plot all epochs so far: losses and accuracies with their chance levels, and EER or learning rate."""
        from matplotlib.figure import Figure  # slow to import, and used only here
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(11, 3.6), layout="constrained")
        panels = figure.subplots(1, 3)
        epochs = [int(row["epoch"]) for row in self.rows]
        for panel, title, figures in ((panels[0], "loss", "loss"), (panels[1], "top-1 accuracy (%)", "top1")):
            for color, task in (("tab:blue", "content"), ("tab:orange", "identity")):
                for split, name, style in (("train", "training", "--x"), ("val", "validation", "-o")):
                    values = [float(row.get(f"{split}_{task}_{figures}") or "nan") for row in self.rows]
                    if not all(map(math.isnan, values)):  # all NaN if the task is not trained
                        panel.plot(epochs, values, style, color=color, label=f"{task}, {name}", markersize=4)
                if chance := float(self.rows[-1].get(f"{task}_top1_chance") or 0):
                    ways = round(100 / chance)
                    guess, name = (chance, "chance") if figures == "top1" else (math.log(ways), f"log {ways}")
                    panel.axhline(guess, color=color, linestyle=":", label=f"{task}, {name}")
            panel.set_title(title)
            panel.legend(fontsize=8)
        if synced := [row for row in self.rows if row.get("sync_accuracy_5")]:
            values = [float(row["sync_accuracy_5"]) for row in synced]
            at = [int(row["epoch"]) for row in synced]
            panels[1].plot(
                at, values, "-s", color="tab:purple", label="sync accuracy, 5 frames", markersize=4
            )
            panels[1].legend(fontsize=8)
        tested = [row for row in self.rows if row.get("eer")]
        if tested:
            eers = [float(row["eer"]) for row in tested]
            panels[2].plot([int(row["epoch"]) for row in tested], eers, "-o", color="tab:green", markersize=4)
            label = f"epoch {self.best_epoch}: {min(eers):.2f}"
            panels[2].plot([self.best_epoch], [min(eers)], "*", color="tab:red", markersize=12, label=label)
            panels[2].legend(fontsize=8)
            panels[2].set_xlim(panels[0].get_xlim())
            panels[2].set_title("EER on the trial list (%)")
        else:
            rates = [float(row["learning_rate"]) for row in self.rows]
            panels[2].plot(epochs, rates, "-o", color="tab:gray", markersize=4)
            panels[2].set_title("learning rate")
        for panel in panels:
            panel.set_xlabel("epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            panel.grid(alpha=0.3)
        for panel in panels[1:]:
            panel.set_ylim(bottom=0)
        return figure
