"""What evaluation and inference use of a network, whatever else it can do. SyncNet is one."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.settings import Settings


class Network(Protocol):
    """The two streams `__S__` on a device, with the settings that they were made with."""

    __S__: Any  # a SyncNetModel: forward_aud and forward_vid
    settings: Settings
    maxFrames: int
    nOut: int
    device: torch.device
    precision: str

    def eval(self) -> nn.Module:
        """No dropout, running statistics."""

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass in the network's precision."""

    def identity_vectors(self, crops: Tensor, batch: int) -> Tensor:
        """A unit vector for each crop of voices or faces, (crops, nOut) float32 on the CPU."""

    def embed(self, files: list[str], num_eval: int = ..., print_interval: int = ...) -> Tensor:
        """A voice identity vector for each wav, (files, nOut) float32 on the CPU."""
