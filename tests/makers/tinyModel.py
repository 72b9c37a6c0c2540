"""A network with the interface of models/ that takes milliseconds: for tests of what is around it."""

import torch
from torch import nn

from syncnet.networks.face_crop import crop_mouth

EVERY = 32  # pixels


class SyncNetModel(nn.Module):
    def __init__(self, nOut: int = 8, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.crop = "face"
        self.voice = nn.Conv1d(640, nOut, 5, stride)
        self.face = nn.Conv1d(3 * (224 // EVERY) ** 2, nOut, 5, stride)
        self.norm = nn.BatchNorm1d(nOut)
        self.heads = nn.ModuleList(nn.Conv1d(nOut, nOut, 1) for _ in range(4))

    def forward_aud(self, audio: torch.Tensor, content: bool = True, identity: bool = True) -> tuple:
        samples = audio[:, : audio.shape[1] // 640 * 640] / 32768
        trunk = self.norm(self.voice(samples.unflatten(1, (-1, 640)).transpose(1, 2)))
        return self.heads[0](trunk) if content else None, self.heads[1](trunk) if identity else None

    def forward_vid(self, video: torch.Tensor, content: bool = True, identity: bool = True) -> tuple:
        video = crop_mouth(video) if self.crop == "mouth" else video
        pixels = video[..., ::EVERY, ::EVERY].float().permute(0, 1, 3, 4, 2).flatten(1, 3) / 255
        trunk = self.norm(self.face(pixels))
        return self.heads[2](trunk) if content else None, self.heads[3](trunk) if identity else None
