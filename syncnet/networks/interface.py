"""What is used of a network, whatever else it can do: of its two streams, and of the network around them."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from syncnet.networks.settings import Settings


class Streams(nn.Module):
    """What a SyncNetModel(nOut, stride) has: the face and the voice stream, and what the first sees of a frame.

    A network of your own need not be one by name: the same members do. Shapes as in TwoStreams.
    """

    crop: str  # "face" or "mouth"; not needed of one that sees whole faces only

    @abstractmethod
    def forward_aud(
        self, audio: Tensor, content: bool = True, identity: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Content and identity of voices; None for what is not asked for, or not there."""

    @abstractmethod
    def forward_vid(
        self, video: Tensor, content: bool = True, identity: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Content and identity of faces."""


class SoundWindows(Streams):
    """Streams that embed every window of sound by itself, as the published lip-sync network does."""

    mfcc: nn.Module

    @abstractmethod
    def embed_windows(self, windows: Tensor) -> Tensor:
        """Content of sound windows: MFCCs (N, 1, 13, 20) float32 to (N, nOut)."""


class Network(Protocol):
    """SyncNet, or what behaves like it for evaluation and inference: two streams on a device.

    `__S__` are the streams, `settings` what they were made with. has_content, has_identity: which heads they have.
    """

    __S__: Streams
    settings: Settings
    maxFrames: int
    nOut: int
    device: torch.device
    precision: str
    has_content: bool
    has_identity: bool

    def eval(self) -> nn.Module:
        """No dropout, running statistics."""

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass in the network's precision."""

    def identity_vectors(self, crops: Tensor, batch: int) -> Tensor:
        """A unit vector for each crop of voices or faces, (crops, nOut) float32 on the CPU."""

    def embed(self, files: list[str], num_eval: int = ..., print_interval: int = ...) -> Tensor:
        """A voice identity vector for each wav, (files, nOut) float32 on the CPU."""
