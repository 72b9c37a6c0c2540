"""The members of a network, and of its two streams, that the program uses."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from syncnet.networks.settings import Settings


class Streams(nn.Module):
    """A SyncNetModel(nOut, stride): a face and a voice stream. Shapes as in TwoStreams.

    Your own network need not derive from this class; it only needs these members.
    """

    crop: str  # what the face stream sees, "face" or "mouth"; optional for networks that only see whole faces

    @abstractmethod
    def forward_aud(
        self, audio: Tensor, content: bool = True, identity: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Content and identity of voices; None for a head that is not requested or does not exist."""

    @abstractmethod
    def forward_vid(
        self, video: Tensor, content: bool = True, identity: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Content and identity of faces."""


class SoundWindows(Streams):
    """Streams that embed every window of sound separately, like the published lip-sync network."""

    mfcc: nn.Module

    @abstractmethod
    def embed_windows(self, windows: Tensor) -> Tensor:
        """Content of sound windows: MFCCs (N, 1, 13, 20) float32 to (N, nOut)."""


class Network(Protocol):
    """SyncNet as evaluation and inference use it: two streams on a device.

    `__S__`: the streams. settings: those they were built with. has_content, has_identity: the heads that exist.
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
        """Evaluation mode: no dropout, running statistics."""

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass in the network's precision."""

    def identity_vectors(self, crops: Tensor, batch: int) -> Tensor:
        """One unit vector per crop of voices or faces, (crops, nOut) float32 on the CPU."""

    def embed(self, files: list[str], num_eval: int = ..., print_interval: int = ...) -> Tensor:
        """One voice identity vector per wav, (files, nOut) float32 on the CPU."""
