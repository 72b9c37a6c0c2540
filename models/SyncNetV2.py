"""The published lip-sync network, syncnet_v2.model: the trunks of the MFCC network, with content heads only.

Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV workshops 2016. Its weights are at
http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model; the metrics LSE-D and LSE-C
(syncnet/inference/lip_sync.py) are computed with them.
"""

import torch
from torch import Tensor, nn

from syncnet.networks.interface import SoundWindows
from syncnet.networks.mfcc import MFCC, MFCC_PER_FRAME, SOUND_WINDOW, mfcc_trunk
from syncnet.networks.two_streams import TRUNK_CHANNELS, in_layout, lip_features, lip_trunk
from syncnet.support.errors import UserError
from syncnet.support.remedies import NO_IDENTITY

PUBLISHED_OUT = 1024  # size of the published network's embeddings


class SyncNetModel(SoundWindows):
    """Content embeddings of video and audio, without identity; names and arithmetic as in the published network.

    nOut: embedding size. stride: frames between embeddings. The attribute crop is the part of a frame that the lip
    stream sees, "face" or "mouth"; the published weights were trained on faces.
    Each audio window passes through the trunk separately, as for the published results: the trunk pads in time, so
    neighboring windows would change its output.
    """

    def __init__(self, nOut: int = PUBLISHED_OUT, stride: int = 1):
        super().__init__()
        self.crop = "face"
        self.stride = stride
        self.netcnnaud = in_layout(mfcc_trunk(stride=1), torch.channels_last)
        self.netfcaud = dense_head(nOut)
        self.netcnnlip = lip_trunk(stride)
        self.netfclip = dense_head(nOut)
        self.mfcc = MFCC()

    def embed_windows(self, windows: Tensor) -> Tensor:
        """Return content embeddings of audio windows: MFCCs (N, 1, 13, 20) float32 to (N, nOut)."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))

    def forward_aud(
        self, audio: Tensor, content: bool = True, identity: bool = False
    ) -> tuple[Tensor | None, None]:
        """Voice stream. audio: (B, T*640 + 240), int16 scale. Returns (content, None).

        content: (B, nOut, T'), or None if content is False. Raises UserError if identity is requested.
        """
        refuse_identity(identity)
        if not content:
            return None, None
        windows = self.mfcc(audio).unfold(3, SOUND_WINDOW, MFCC_PER_FRAME * self.stride)  # (B, 1, 13, T', 20)
        windows = windows.permute(0, 3, 1, 2, 4)
        found = self.embed_windows(windows.flatten(0, 1))
        return found.unflatten(0, windows.shape[:2]).transpose(1, 2), None

    def forward_vid(
        self, video: Tensor, content: bool = True, identity: bool = False
    ) -> tuple[Tensor | None, None]:
        """Face stream. video: (B, 3, T, 224, 224) uint8 or float, BGR, 0..255. Returns (content, None).

        content: (B, nOut, T'), or None if content is False. Raises UserError if identity is requested.
        """
        refuse_identity(identity)
        if not content:
            return None, None
        features = lip_features(self.netcnnlip, video, self.crop).transpose(1, 2)  # (B, T', 512)
        found = self.netfclip(features.flatten(0, 1))
        return found.unflatten(0, features.shape[:2]).transpose(1, 2), None


def dense_head(nOut: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(TRUNK_CHANNELS, TRUNK_CHANNELS),
        nn.BatchNorm1d(TRUNK_CHANNELS),
        nn.ReLU(),
        nn.Linear(TRUNK_CHANNELS, nOut),
    )


def refuse_identity(wanted: bool) -> None:
    if wanted:
        raise UserError(NO_IDENTITY)
