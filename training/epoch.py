"""The figures of an epoch, and how they read."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

# Figures of a step; nan where a loss is not computed because its weight is 0.
PARTS = ("loss", "content_loss", "identity_loss", "content_top1", "identity_top1", "confusion_loss")


@dataclass(frozen=True)
class EpochResult:
    """Means over the steps of an epoch; top-1 accuracies in percent.

    clips, seconds and data_wait (seconds for which batches were waited for) are of this start's part of
    an epoch that was interrupted. What was not computed is nan.
    """

    loss: float
    content_loss: float
    identity_loss: float
    content_top1: float
    identity_top1: float
    clips: int
    seconds: float
    data_wait: float
    rows: list[list[float]] = field(repr=False, default_factory=list)  # PARTS of each step, accuracies 0..1
    confusion_loss: float = math.nan

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}  content {shown(self.content_loss, '.4f')}  "
            f"identity {shown(self.identity_loss, '.4f')}  "
            + ("" if math.isnan(self.confusion_loss) else f"confusion {self.confusion_loss:.4f}  ")
            + f"sync top-1 {shown(self.content_top1, '.2f', '%')}  "
            f"identity top-1 {shown(self.identity_top1, '.2f', '%')}  "
            f"{self.clips / self.seconds:.1f} clips/s  data wait {100 * self.data_wait / self.seconds:.0f}%"
        )


def batches_ahead(loader: Iterable) -> str:
    """How many batches wait decoded, in words, for loaders that say."""
    return f" batches ahead {loader.qsize()}/{loader.maxQueueSize}" if hasattr(loader, "qsize") else ""


def shown(value: float, form: str, unit: str = "") -> str:
    """A figure in words: `-` where it was not computed."""
    return "-" if math.isnan(value) else f"{value:{form}}{unit}"
