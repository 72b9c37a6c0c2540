"""Interfaces of a network and its two streams: the members that the program uses."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from syncnet.networks.settings import Settings


class Streams(nn.Module):
    """A SyncNetModel(nOut, stride): a face and a voice stream. Shapes are as in TwoStreams.

    Your own network need not derive from this class; it only needs these members.
    """

    crop: str  # input of the face stream, "face" or "mouth"; optional for networks that only support "face"

    @abstractmethod
    def forward_aud(
        self, audio: Tensor, content: bool = True, identity: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return content and identity embeddings of voices; None for heads not requested or not in the network."""

    @abstractmethod
    def forward_vid(
        self, video: Tensor, content: bool = True, identity: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return content and identity embeddings of faces, likewise."""


class SoundWindows(Streams):
    """Streams that embed every audio window separately, like the published lip-sync network."""

    mfcc: nn.Module

    @abstractmethod
    def embed_windows(self, windows: Tensor) -> Tensor:
        """Return content embeddings of audio windows: MFCCs (N, 1, 13, 20) float32 to (N, nOut)."""


class Network(Protocol):
    """The interface of SyncNet for evaluation and inference: two streams on a device.

    `__S__`: the streams. settings: the settings they were built with. has_content, has_identity: which heads exist.
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
        """Set evaluation mode, as nn.Module.eval."""

    def autocast(self) -> AbstractContextManager:
        """Return the context manager for a forward pass in the network's precision."""

    def identity_vectors(self, crops: Tensor, batch: int) -> Tensor:
        """Return one unit vector per voice or face crop, (crops, nOut) float32 on the CPU."""

    def embed(self, files: list[str], num_eval: int = ..., print_interval: int = ...) -> Tensor:
        """Return one voice identity vector per wav, (files, nOut) float32 on the CPU."""
