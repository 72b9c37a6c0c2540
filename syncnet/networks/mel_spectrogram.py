"""`MelSpectrogram`: torchaudio's if it can be loaded, otherwise an equivalent in plain PyTorch.

torchaudio is in maintenance mode, and its binaries do not load with every version of PyTorch. Both classes have the
same arguments, buffers, checkpoint names (`spectrogram.window`, `mel_scale.fb`) and output.
"""

import math

import torch
from torch import Tensor, nn

from syncnet.support.version import torchaudio_error


class Spectrogram(nn.Module):
    """Power spectra with a Hann window. n_fft, win_length, hop_length: in samples."""

    window: Tensor

    def __init__(self, n_fft: int, win_length: int, hop_length: int):
        super().__init__()
        self.n_fft, self.win_length, self.hop_length = n_fft, win_length, hop_length
        self.register_buffer("window", torch.hann_window(win_length))

    def forward(self, audio: Tensor) -> Tensor:
        """(B, samples) float32 to (B, n_fft // 2 + 1, 1 + samples // hop_length) float32.

        Frames are centered at multiples of hop_length; the audio is reflect-padded.
        """
        spectra = torch.stft(
            audio,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return spectra.abs().square()


class MelScale(nn.Module):
    """Triangular filters on a power spectrum, of equal width on HTK's mel scale."""

    fb: Tensor

    def __init__(self, sample_rate: int, n_fft: int, f_min: float, f_max: float, n_mels: int):
        super().__init__()
        self.register_buffer("fb", mel_filters(sample_rate, n_fft, f_min, f_max, n_mels))

    def forward(self, power: Tensor) -> Tensor:
        """(B, n_fft // 2 + 1, frames) float32 to (B, n_mels, frames) float32."""
        return (power.mT @ self.fb).mT


class PlainMelSpectrogram(nn.Module):
    """Mel bands of power spectra, like torchaudio.transforms.MelSpectrogram with its defaults (mel_scale="htk").

    sample_rate, f_min, f_max: in Hz. n_fft, win_length, hop_length: in samples.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        win_length: int,
        hop_length: int,
        f_min: float,
        f_max: float,
        n_mels: int,
    ):
        super().__init__()
        self.spectrogram = Spectrogram(n_fft, win_length, hop_length)
        self.mel_scale = MelScale(sample_rate, n_fft, f_min, f_max, n_mels)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, samples) float32 to (B, n_mels, 1 + samples // hop_length) float32."""
        return self.mel_scale(self.spectrogram(audio))


def mel_filters(sample_rate: int, n_fft: int, f_min: float, f_max: float, n_mels: int) -> Tensor:
    """Return the weight of each frequency bin in each band, (n_fft // 2 + 1, n_mels) float32.

    Band m rises from 0 at corner m to 1 at corner m + 1 and falls to 0 at corner m + 2; the n_mels + 2 corners are
    equally spaced in mel = 2595 log10(1 + Hz / 700), as in HTK. Computed in float32, as in torchaudio: with float64,
    the sixth digit of the weights would differ from published checkpoints.
    """
    low, high = (2595.0 * math.log10(1.0 + frequency / 700.0) for frequency in (f_min, f_max))
    corners = 700.0 * (10.0 ** (torch.linspace(low, high, n_mels + 2) / 2595.0) - 1.0)
    bins = torch.linspace(0, sample_rate // 2, n_fft // 2 + 1)[:, None]
    left, center, right = corners[:-2], corners[1:-1], corners[2:]
    rise = (bins - left) / (center - left)
    fall = (right - bins) / (right - center)
    return torch.minimum(rise, fall).clamp(min=0.0)


def choose() -> type[nn.Module]:
    """Return the class to use in this environment."""
    if torchaudio_error() is not None:
        return PlainMelSpectrogram
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram


MelSpectrogram = choose()
