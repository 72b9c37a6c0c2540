"""Mel-frequency cepstral coefficients, and the audio trunk for them that two networks share.

The coefficients equal those of the python_speech_features package with its defaults; Davis and Mermelstein,
"Comparison of parametric representations for monosyllabic word recognition in continuously spoken sentences", IEEE
TASSP 28(4), 1980.
"""

import math

import torch
from torch import Tensor, nn

from syncnet.media.clips import LIP_FRAMES, SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.media.crops import HOP_LENGTH, WINDOW_LENGTH
from syncnet.networks.two_streams import TRUNK_CHANNELS, conv2d

MFCC_PER_FRAME = SAMPLES_PER_FRAME // HOP_LENGTH  # 4 per video frame
SOUND_WINDOW = LIP_FRAMES * MFCC_PER_FRAME  # MFCC frames in an audio window, which is as long as a lip window
PRE_EMPHASIS = 0.97
N_FFT = 512
N_MELS = 26
N_MFCC = 13
LIFTER = 22
SILENCE = torch.finfo(torch.float64).eps  # replaces energies of exactly 0, to keep the log finite


def mfcc_trunk(stride: int) -> nn.Sequential:
    """Return the audio trunk, from MFCCs (B, 1, 13, 4T) to (B, 512, 1, T'). It pads in time."""
    return nn.Sequential(
        *conv2d(1, 64, (3, 3), padding=(1, 1)),
        nn.MaxPool2d((1, 1)),  # no operation; keeps the indices of the following layers
        *conv2d(64, 192, (3, 3), padding=(1, 1)),
        nn.MaxPool2d((3, 3), (1, 2)),
        *conv2d(192, 384, (3, 3), padding=(1, 1)),
        *conv2d(384, 256, (3, 3), padding=(1, 1)),
        *conv2d(256, 256, (3, 3), padding=(1, 1)),
        nn.MaxPool2d((3, 3), (2, 2)),
        *conv2d(256, TRUNK_CHANNELS, (5, 4), (1, stride)),
    )


class MFCC(nn.Module):
    """MFCCs of audio on the int16 scale, with rectangular windows; no gradient; float64 even under autocast."""

    filters: Tensor
    cosines: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Constants, which do not belong in a checkpoint.
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.register_buffer("cosines", lifted_cosines(), persistent=False)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        """(B, samples), at least WINDOW_LENGTH, to (B, 1, 13, frames) float32, one frame per HOP_LENGTH samples.

        Coefficient 0 is the log energy of the frame.
        """
        with torch.autocast(audio.device.type, enabled=False):
            audio = audio.double()
            sharp = torch.cat((audio[:, :1], audio[:, 1:] - PRE_EMPHASIS * audio[:, :-1]), 1)
            frames = sharp.unfold(1, WINDOW_LENGTH, HOP_LENGTH)
            power = torch.fft.rfft(frames, N_FFT).abs().square() / N_FFT
            coefficients = log(power @ self.filters.T) @ self.cosines.T
            coefficients[..., 0] = log(power.sum(2))
            return coefficients.float().transpose(1, 2)[:, None].contiguous()


def log(energy: Tensor) -> Tensor:
    return energy.masked_fill(energy == 0, SILENCE).log()


def mel_filters() -> Tensor:
    """Return 26 triangular filters with corners at FFT bins evenly spaced in mel, 0..8000 Hz: (26, 257) float64."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (torch.linspace(0, top, N_MELS + 2, dtype=torch.float64) / 2595) - 1)
    left, peak, right = torch.floor((N_FFT + 1) * hertz / SAMPLE_RATE).unfold(0, 3, 1).T[:, :, None]
    bins = torch.arange(N_FFT // 2 + 1)
    return torch.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)).clamp(min=0)


def lifted_cosines() -> Tensor:
    """Return the first 13 rows of the orthonormal 26-point DCT-II, multiplied by the lifter: (13, 26) float64."""
    row = torch.arange(N_MFCC, dtype=torch.float64)[:, None]
    column = torch.arange(N_MELS, dtype=torch.float64)
    cosines = torch.cos(math.pi / N_MELS * row * (column + 0.5)) * math.sqrt(2 / N_MELS)
    cosines[0] /= math.sqrt(2)
    return cosines * (1 + LIFTER / 2 * torch.sin(math.pi * row / LIFTER))
