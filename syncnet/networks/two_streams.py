"""Shared by the networks in models/: the lip stream, the four heads, and the forward passes.

A network is a module, selected with --model, that defines SyncNetModel(nOut, stride): a TwoStreams with an audio
trunk and its features, or any nn.Module with the same forward_aud and forward_vid.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncnet.media.clips import LIP_FRAMES
from syncnet.networks.face_crop import crop_mouth
from syncnet.networks.interface import Streams
from syncnet.support.errors import UserError
from syncnet.support.remedies import NO_CONTENT, NO_IDENTITY

TRUNK_CHANNELS = 512


def num_embeddings(frames: int, stride: int) -> int:
    """Return T', the number of embeddings for T video frames."""
    return (frames - LIP_FRAMES) // stride + 1


def conv2d(cin: int, cout: int, kernel: tuple, stride: tuple = (1, 1), padding: tuple = (0, 0)) -> list:
    return [nn.Conv2d(cin, cout, kernel, stride, padding), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


class Conv3dAs2d(nn.Conv3d):
    """A 3-D convolution without padding in time, computed as a 2-D convolution with frames stacked as channels.

    Parameters and results equal those of nn.Conv3d, up to rounding. With only 3 channels per frame, 3-D kernels leave
    most of a matrix unit idle, and oneDNN's bfloat16 gradients for short clips were NaN on CPUs with AMX.
    """

    def forward(self, video: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T', H', W'); fastest in torch.channels_last_3d."""
        frames = video.transpose(1, 2)
        if (self.kernel_size[0], self.stride[0]) != (1, 1):  # unfold has a costly backward pass
            windows = frames.unfold(1, self.kernel_size[0], self.stride[0])  # (B, T', C, H, W, taps)
            pictures = windows.permute(0, 1, 3, 4, 2, 5).flatten(4)  # (B, T', H, W, C * taps)
            frames = pictures.permute(0, 1, 4, 2, 3)
        weight = self.weight.flatten(1, 2)
        found = F.conv2d(frames.flatten(0, 1), weight, self.bias, self.stride[1:], self.padding[1:])
        return found.unflatten(0, frames.shape[:2]).transpose(1, 2)


class MaxPool3dAs2d(nn.MaxPool3d):
    """Max pooling within each frame, computed in 2-D; the results equal those of nn.MaxPool3d."""

    def __init__(self, kernel: tuple, stride: tuple, padding: tuple = (0, 0, 0)):
        super().__init__(kernel, stride, padding)
        self.in_2d = kernel[1:], stride[1:], padding[1:]

    def forward(self, video: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C, T, H', W')."""
        pooled = F.max_pool2d(video.transpose(1, 2).flatten(0, 1), *self.in_2d)
        return pooled.unflatten(0, (video.shape[0], video.shape[2])).transpose(1, 2)


def conv3d(
    cin: int,
    cout: int,
    kernel: tuple,
    stride: tuple = (1, 1, 1),
    padding: tuple = (0, 0, 0),
    pool: nn.Module | None = None,
) -> list:
    """Convolution, batch norm, optional max pooling, ReLU.

    ReLU and max pooling commute, and pooling first needs fewer operations.
    """
    layers = [Conv3dAs2d(cin, cout, kernel, stride, padding), nn.BatchNorm3d(cout)]
    return [*layers, nn.ReLU(inplace=True)] if pool is None else [*layers, pool, nn.ReLU()]


def head(nOut: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(TRUNK_CHANNELS, TRUNK_CHANNELS, 1),
        nn.BatchNorm1d(TRUNK_CHANNELS),
        nn.ReLU(inplace=True),
        nn.Conv1d(TRUNK_CHANNELS, nOut, 1),
    )


def settings_of_heads(state: dict[str, Tensor]) -> dict[str, object]:
    """Return {"nOut": ...} for a state dict of TwoStreams, with any name prefix; {} for other networks."""
    sizes = {len(tensor) for name, tensor in state.items() if re.search(r"netf(caud|clip)\.3\.weight$", name)}
    return {"nOut": sizes.pop()} if len(sizes) == 1 else {}


def lip_trunk(stride: int) -> nn.Sequential:
    """Return the lip trunk, from pixels (B, 3, T, 224, 224) to (B, 512, T', 1, 1).

    It does not pad in time: 5 frames give the same output alone as in a longer video. The layers take and return 5-D
    tensors and have the parameters of 3-D layers, but compute in 2-D.
    """
    trunk = nn.Sequential(
        *conv3d(3, 96, (5, 7, 7), (stride, 2, 2), pool=MaxPool3dAs2d((1, 3, 3), (1, 2, 2))),
        *conv3d(
            96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1), pool=MaxPool3dAs2d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        ),
        *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
        *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
        *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1), pool=MaxPool3dAs2d((1, 3, 3), (1, 2, 2))),
        *conv3d(256, TRUNK_CHANNELS, (1, 6, 6)),
    )
    # Decoded frames, (B, T, H, W, 3), are already in this memory format.
    return in_layout(trunk, torch.channels_last_3d)


def in_layout(trunk: nn.Sequential, layout: torch.memory_format) -> nn.Sequential:
    """Convert the weights of a trunk to a memory format."""
    return trunk.to(memory_format=layout)  # type: ignore[call-overload, unused-ignore]  # until torch 2.14


def lip_features(trunk: nn.Sequential, video: Tensor, crop: str) -> Tensor:
    """Apply a lip trunk to video (B, 3, T, 224, 224) uint8 or float; returns (B, 512, T'). crop: "face" or "mouth".

    Pixels are converted to the dtype of the trunk's weights, or to that of autocast.
    """
    kind = video.device.type
    dtype = trunk.get_parameter("0.weight").dtype
    if torch.is_autocast_enabled(kind):
        # Integers up to 256 are exact in bfloat16.
        dtype = torch.get_autocast_dtype(kind)
    pixels = crop_mouth(video, dtype) if crop == "mouth" else video.to(dtype)
    return trunk(pixels).squeeze(4).squeeze(3)


def content_of(outputs: tuple[Tensor | None, Tensor | None]) -> Tensor:
    """Return the content in the output of forward_aud or forward_vid. Raises UserError if there is none."""
    if outputs[0] is None:
        raise UserError(NO_CONTENT)
    return outputs[0]


def identity_of(outputs: tuple[Tensor | None, Tensor | None]) -> Tensor:
    """Return the identity in the output of forward_aud or forward_vid. Raises UserError if there is none."""
    if outputs[1] is None:
        raise UserError(NO_IDENTITY)
    return outputs[1]


class TwoStreams(Streams):
    """A face and a voice stream, each a trunk with a content head and an identity head.

    netcnnaud: audio trunk, from features (B, 1, bands, 4T) to (B, 512, 1, T'). nOut: embedding size of all heads.
    stride: temporal stride; T video frames (40 ms each) and their T*640 + 240 audio samples give
    T' = (T - LIP_FRAMES) // stride + 1 embeddings, one every `stride` frames. The attribute crop is the part of a
    frame that the lip stream sees, "face" (the whole frame, the default) or "mouth" (see face_crop.py).
    The order of layers in each Sequential determines the names in a checkpoint.
    """

    def __init__(self, netcnnaud: nn.Sequential, nOut: int, stride: int):
        super().__init__()
        self.crop = "face"
        self.netcnnaud = netcnnaud
        self.netfcaud = head(nOut)  # audio content
        self.netfclip = head(nOut)  # video content
        self.netfcspk = head(nOut)  # audio identity
        self.netfcface = head(nOut)  # video identity
        self.netcnnlip = lip_trunk(stride)
        in_layout(self.netcnnaud, torch.channels_last)

    def features(self, audio: Tensor) -> Tensor:
        """Compute the input of the audio trunk, (B, 1, bands, 4T) float32.

        audio: (B, T*640 + 240), int16 scale.
        """
        raise NotImplementedError

    def forward_aud(
        self, audio: Tensor, content: bool = True, identity: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Voice stream. audio: (B, T*640 + 240), int16 scale. Returns (content, identity), each (B, nOut, T').

        content, identity: False skips that head and returns None for it.
        """
        trunk = self.netcnnaud(self.features(audio)).squeeze(2)
        return self.netfcaud(trunk) if content else None, self.netfcspk(trunk) if identity else None

    def forward_vid(
        self, video: Tensor, content: bool = True, identity: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Face stream. video: (B, 3, T, 224, 224) uint8 or float, BGR, 0..255, not normalized.

        Fastest as a permuted view of (B, T, 224, 224, 3). Returns (content, identity), each (B, nOut, T').
        content, identity: False skips that head and returns None for it.
        """
        trunk = lip_features(self.netcnnlip, video, self.crop)
        return self.netfclip(trunk) if content else None, self.netfcface(trunk) if identity else None
