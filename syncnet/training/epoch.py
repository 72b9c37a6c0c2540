"""Metrics of an epoch: collected after each step, shown on the progress bar, and averaged at the end."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from syncnet.compute import distributed
from syncnet.compute.device import DeviceBatches
from syncnet.compute.precision import gradient_not_finite
from syncnet.support.errors import UserError
from syncnet.support.progress import progress_bar

# Metrics of a step; NaN if a loss is not computed because its weight is 0.
PARTS = ("loss", "content_loss", "identity_loss", "content_top1", "identity_top1", "disentanglement_loss")
ACCURACIES = ("content_top1", "identity_top1")


class LossNotFinite(UserError, FloatingPointError):
    """The loss is NaN or infinite; the message names the batch."""


class GradientNotFinite(LossNotFinite):
    """The loss of the first step is finite but a gradient is not; the message names the weight."""

    def __init__(self, weight: str, loss: float, precision: str, device: torch.device):
        cause = f"PyTorch {torch.__version__} computes a gradient wrongly on {device}, or a layer of the network does"
        remedy = (
            "Check the layers of the network (--model), or use another version of PyTorch"
            if precision == "fp32"
            else "Use --precision fp32"
        )
        super().__init__(
            f"first step: the loss is {loss:g}, but the gradient of {weight} is not finite with --precision "
            f"{precision}. {cause}; a lower --lr does not help. No weight was changed. {remedy}"
        )


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Means over the steps of an epoch; top-1 accuracies and their chance levels are in percent.

    clips, seconds and data_wait (seconds spent waiting for batches) count only the steps since the run was started
    or resumed. Metrics that were not computed are NaN.
    """

    loss: float
    content_loss: float
    identity_loss: float
    content_top1: float
    identity_top1: float
    disentanglement_loss: float = math.nan
    content_chance: float = math.nan
    identity_chance: float = math.nan
    clips: int
    seconds: float
    data_wait: float
    rows: list[list[float]] = field(repr=False, default_factory=list)  # PARTS of each step, accuracies 0..1

    @property
    def clips_per_second(self) -> float:
        return self.clips / self.seconds

    @property
    def data_wait_percent(self) -> float:
        return 100 * self.data_wait / self.seconds

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}  content {shown(self.content_loss, '.4f')}  "
            f"identity {shown(self.identity_loss, '.4f')}  "
            + (
                ""
                if math.isnan(self.disentanglement_loss)
                else f"disentanglement {self.disentanglement_loss:.4f}  "
            )
            + f"sync top-1 {with_chance(self.content_top1, self.content_chance)}  "
            f"identity top-1 {with_chance(self.identity_top1, self.identity_chance)}  "
            f"{self.clips_per_second:.1f} clips/s  data wait {self.data_wait_percent:.0f}%"
        )


class Figures:
    """Collects the metrics of an epoch and shows them on a progress bar.

    batches: the batches of the epoch. rows: PARTS of the steps already done. steps_per_fetch: steps between transfers
    of metrics from the device, for which the host has to wait. learning_rate, precision: for messages.
    """

    def __init__(
        self,
        batches: DeviceBatches,
        rows: Iterable[list[float]],
        description: str,
        steps_per_fetch: int,
        learning_rate: float,
        precision: str = "fp32",
    ):
        self.batches = batches
        self.loader = batches.loader
        self.rows = [list(row) for row in rows]
        self.done_before = len(self.rows)
        self.steps_per_fetch = steps_per_fetch
        self.learning_rate = learning_rate
        self.precision = precision
        self.pending: list[Tensor] = []  # on the device
        self.started = time.perf_counter()
        self.bar = progress_bar(
            total=self.loader.nFiles // self.loader.batch_size * self.loader.batch_size,
            initial=self.done_before * self.loader.batch_size,
            unit="clip",
            desc=description,
            leave=False,
        )

    def add(self, row: Tensor) -> None:
        """Add the metrics of a step, (len(PARTS),) on the device."""
        self.pending.append(row)
        if len(self.pending) == self.steps_per_fetch:
            self.fetch()

    @property
    def steps(self) -> int:
        return len(self.rows) + len(self.pending)

    def fetch(self) -> list[list[float]]:
        """Return the rows of all steps so far. Raises LossNotFinite. All processes must call it at the same step."""
        if self.pending:
            # Content metrics are of this process's clips, identity metrics of all clips: the mean is right for both.
            fetched = (distributed.total(torch.stack(self.pending)) / distributed.processes()).tolist()
            self.pending.clear()
            for row in fetched:
                self.rows.append(row)
                self.check_finite()
            self.bar.update(len(fetched) * self.loader.batch_size)
            self.bar.set_postfix_str(self.so_far(), refresh=False)
        return self.rows

    def check_finite(self) -> None:
        """Raise LossNotFinite, naming the batch, if the loss of the latest step is not finite."""
        loss, content, identity = self.rows[-1][:3]
        if math.isfinite(loss):
            return
        step = len(self.rows)
        clips = self.loader.clips_of(step - 1) if hasattr(self.loader, "clips_of") else []
        raise LossNotFinite(
            f"step {step}: the loss is {loss} (content {content}, identity {identity}) at learning rate "
            f"{self.learning_rate:g}. Use a lower --lr"
            + (f", try --precision fp32 instead of {self.precision}" if self.precision != "fp32" else "")
            + ", or look at the clips of the batch"
            + "".join(f"\n  {clip.video} {clip.audio}" for clip in clips)
        )

    def so_far(self) -> str:
        """Format the means so far for the progress bar."""
        mean = dict(zip(PARTS, np.mean(self.rows, 0).tolist(), strict=True))
        waited = 100 * self.batches.waited / (time.perf_counter() - self.started)
        ahead = ""
        if hasattr(self.loader, "qsize") and hasattr(self.loader, "maxQueueSize"):
            ahead = f" batches ahead {self.loader.qsize()}/{self.loader.maxQueueSize}"
        return (
            f"loss {mean['loss']:.3f} content {shown(mean['content_loss'], '.3f')} "
            f"identity {shown(mean['identity_loss'], '.3f')} "
            f"sync top-1 {shown(100 * mean['content_top1'], '.1f', '%')} "
            f"identity top-1 {shown(100 * mean['identity_top1'], '.1f', '%')} data wait {waited:.0f}%{ahead}"
        )

    def result(self, num_embeddings: int) -> EpochResult:
        """Return the result of the epoch. num_embeddings: T', the number of choices in the content task.

        Raises UserError if there was no step.
        """
        if not self.fetch():
            size = self.loader.batch_size
            raise UserError(f"the loader returned no batch: {self.loader.nFiles} clips, batch {size}")
        means = dict(zip(PARTS, np.mean(self.rows, 0).tolist(), strict=True))
        means |= {name: 100 * means[name] for name in ACCURACIES}
        return EpochResult(
            **means,
            content_chance=math.nan if math.isnan(means["content_top1"]) else 100 / num_embeddings,
            identity_chance=math.nan if math.isnan(means["identity_top1"]) else 100 / self.loader.batch_size,
            clips=(len(self.rows) - self.done_before) * self.loader.batch_size,
            seconds=time.perf_counter() - self.started,
            data_wait=self.batches.waited,
            rows=self.rows,
        )


def refuse_gradients_not_finite(
    network: nn.Module, total: Tensor, precision: str, device: torch.device
) -> None:
    """Raise GradientNotFinite if a gradient is not finite although the total loss is.

    If the loss is not finite, Figures reports it with its batch. All processes have the same gradients.
    """
    found = gradient_not_finite(network)
    if found and not distributed.any_of(not math.isfinite(total.item()), device):
        raise GradientNotFinite(found, total.item(), precision, device)


def with_chance(accuracy: float, chance: float) -> str:
    """Format a top-1 accuracy in percent with its chance level."""
    guessing = "" if math.isnan(accuracy) or math.isnan(chance) else f" (chance {chance:.2f}%)"
    return shown(accuracy, ".2f", "%") + guessing


def shown(value: float, form: str, unit: str = "") -> str:
    """Format a metric; `-` if it was not computed."""
    return "-" if math.isnan(value) else f"{value:{form}}{unit}"
