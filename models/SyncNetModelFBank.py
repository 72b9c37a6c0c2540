"""The two-stream network of the 2020 baseline, with a 40-band log-mel front end.

Nagrani, Chung, Albanie, Zisserman, "Disentangled Speech Embeddings using Cross-Modal
Self-Supervision", ICASSP 2020.
"""

import torch
from torch import Tensor, nn

from syncnet.media.clips import SAMPLE_RATE
from syncnet.media.crops import HOP_LENGTH, WINDOW_LENGTH
from syncnet.networks.mel_spectrogram import MelSpectrogram
from syncnet.networks.two_streams import TRUNK_CHANNELS, TwoStreams, conv2d

N_MELS = 40


class SyncNetModel(TwoStreams):
    """TwoStreams with an audio trunk for log-mel bands, (B, 1, 40, 4T)."""

    def __init__(self, nOut: int = 1024, stride: int = 1):
        trunk = nn.Sequential(
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
        super().__init__(trunk, nOut, stride)
        self.instancenorm = nn.InstanceNorm1d(N_MELS)
        self.torchfb = MelSpectrogram(
            sample_rate=SAMPLE_RATE,
            n_fft=512,
            win_length=WINDOW_LENGTH,
            hop_length=HOP_LENGTH,
            f_min=0.0,
            f_max=8000.0,
            n_mels=N_MELS,
        )

    @torch.no_grad()
    def features(self, audio: Tensor) -> Tensor:
        """Compute log-mel features, (B, 1, 40, 4T), in the filterbank's dtype even under autocast.

        audio: (B, T*640 + 240) float, on the int16 scale (not divided by 32768).
        """
        with torch.autocast(audio.device.type, enabled=False):
            bands = self.torchfb(audio.to(next(self.torchfb.buffers()).dtype))
            logmel = torch.log(bands + 1e-6)
            # Half of the first and half of the last frame are padding.
            return self.instancenorm(logmel)[:, None, :, 1:-1]
