"""The two-stream network of the 2020 baseline, with a 40-band log-mel front end.

Nagrani, Chung, Albanie, Zisserman, "Disentangled Speech Embeddings using Cross-Modal
Self-Supervision", ICASSP 2020. The order of the layers inside each Sequential fixes the names in a
checkpoint. Another network is another file in this folder, chosen with --model: a module with
SyncNetModel(nOut, stride), forward_aud and forward_vid.
"""

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

SAMPLE_RATE = 16000
N_MELS = 40
TRUNK_CHANNELS = 512


def conv2d(cin: int, cout: int, kernel: tuple, stride: tuple = (1, 1), padding: tuple = (0, 0)) -> list:
    return [nn.Conv2d(cin, cout, kernel, stride, padding), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


def conv3d(cin: int, cout: int, kernel: tuple, stride: tuple = (1, 1, 1), padding: tuple = (0, 0, 0)) -> list:
    return [nn.Conv3d(cin, cout, kernel, stride, padding), nn.BatchNorm3d(cout), nn.ReLU(inplace=True)]


def head(nOut: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(TRUNK_CHANNELS, TRUNK_CHANNELS, 1),
        nn.BatchNorm1d(TRUNK_CHANNELS),
        nn.ReLU(inplace=True),
        nn.Conv1d(TRUNK_CHANNELS, nOut, 1),
    )


class SyncNetModel(nn.Module):
    """Face and voice streams: a trunk each, and on each trunk a content and an identity head.

    nOut: size of the four embeddings. stride: temporal stride; T video frames (40 ms each) and their
    T*640 + 240 audio samples give T' = (T - 5) // stride + 1 embeddings, one every `stride` frames.
    """

    def __init__(self, nOut: int = 1024, stride: int = 1):
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *conv2d(1, 96, (5, 7), padding=(2, 2)),
            nn.MaxPool2d((1, 3), (1, 2)),
            *conv2d(96, 256, (5, 5), (2, 1), (1, 1)),
            nn.MaxPool2d((3, 3), (2, 1)),
            *conv2d(256, 384, (3, 3), padding=(1, 1)),
            *conv2d(384, 256, (3, 3), padding=(1, 1)),
            *conv2d(256, 256, (3, 3), padding=(1, 1)),
            nn.MaxPool2d((3, 3), (2, 2)),
            *conv2d(256, TRUNK_CHANNELS, (4, 1), (1, stride)),
        )
        self.netfcaud = head(nOut)  # audio content
        self.netfclip = head(nOut)  # video content
        self.netfcspk = head(nOut)  # audio identity
        self.netfcface = head(nOut)  # video identity
        self.netcnnlip = nn.Sequential(
            *conv3d(3, 96, (5, 7, 7), (stride, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *conv3d(256, TRUNK_CHANNELS, (1, 6, 6)),
        )
        # Frames arrive as (B, T, H, W, 3), which is this layout already: nothing is rearranged.
        self.netcnnlip.to(memory_format=torch.channels_last_3d)
        self.netcnnaud.to(memory_format=torch.channels_last)

        self.instancenorm = nn.InstanceNorm1d(N_MELS)
        self.torchfb = MelSpectrogram(
            sample_rate=SAMPLE_RATE,
            n_fft=512,
            win_length=400,
            hop_length=160,
            f_min=0.0,
            f_max=8000.0,
            n_mels=N_MELS,
        )

    @torch.no_grad()
    def features(self, audio: Tensor) -> Tensor:
        """Log-mel input of the audio trunk, float32 whatever the autocast: (B, 1, 40, 4T).

        audio: (B, T*640 + 240) float, on the int16 scale (not divided by 32768).
        """
        with torch.autocast(audio.device.type, enabled=False):
            logmel = torch.log(self.torchfb(audio.float()) + 1e-6)
            # The first and last frame are half padding.
            return self.instancenorm(logmel)[:, None, :, 1:-1]

    def forward_aud(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Voice stream. audio: (B, T*640 + 240), int16 scale. Returns (content, identity), (B, nOut, T')."""
        trunk = self.netcnnaud(self.features(audio)).squeeze(2)
        return self.netfcaud(trunk), self.netfcspk(trunk)

    def forward_vid(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Face stream. video: (B, 3, T, 224, 224) uint8 or float, BGR, 0..255, neither scaled nor centred.

        Fastest as a permuted view of (B, T, 224, 224, 3). Returns (content, identity), (B, nOut, T').
        """
        kind = video.device.type
        # Whole numbers up to 256 are exact in bfloat16: no detour through float32 under autocast.
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        trunk = self.netcnnlip(video.to(dtype)).squeeze(4).squeeze(3)
        return self.netfclip(trunk), self.netfcface(trunk)
