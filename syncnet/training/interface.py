"""What a training run needs of its network: SyncNet, or what behaves like it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from syncnet.checkpoints.weights import Misfits
from syncnet.compute.device import BatchLoader
from syncnet.training.epoch import EpochResult


class TrainableNetwork(Protocol):
    """The members of SyncNet (SyncNetDist.py) that are used here; see there."""

    device: torch.device
    steps_per_look: int

    @property
    def __L__(self) -> nn.Module: ...

    @property
    def __optimizer__(self) -> torch.optim.Optimizer: ...

    @property
    def __scheduler__(self) -> torch.optim.lr_scheduler.LRScheduler | None: ...

    def run_epoch(
        self,
        loader: BatchLoader,
        evalmode: bool = False,
        alpC: float = 1.0,
        alpI: float = 1.0,
        alpD: float = 0.0,
        rows: Iterable[list[float]] = (),
        after_step: Callable[[int, Callable[[], list]], None] | None = None,
    ) -> EpochResult: ...

    def updateLearningRate(self, alpha: float) -> list[float]: ...

    def saveParameters(self, path: str) -> None: ...

    def loadParameters(self, path: str, strict: bool = False) -> Misfits: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
