"""What a training run needs of its network: SyncNet, or what behaves like it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import nn

from models.checkpoints import Misfits
from training.epoch import EpochResult


class TrainableNetwork(Protocol):
    """The members of SyncNet (SyncNetDist.py) that are used here; see there."""

    device: torch.device
    steps_per_look: int
    __L__: nn.Module
    __optimizer__: torch.optim.Optimizer

    def run_epoch(
        self,
        loader: Iterable,
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

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
