"""The 2020 baseline's second network, with an audio trunk for 13 mel-frequency cepstral coefficients.

The lip stream and the heads are the same as in the first network (two_streams.py).
"""

from torch import Tensor

from syncnet.networks.mfcc import MFCC, mfcc_trunk
from syncnet.networks.two_streams import TwoStreams


class SyncNetModel(TwoStreams):
    """TwoStreams with an audio trunk for MFCCs, (B, 1, 13, 4T)."""

    def __init__(self, nOut: int = 1024, stride: int = 1):
        super().__init__(mfcc_trunk(stride), nOut, stride)
        self.mfcc = MFCC()

    def features(self, audio: Tensor) -> Tensor:
        """Compute MFCCs, (B, 1, 13, 4T) float32.

        audio: (B, T*640 + 240) float, on the int16 scale (not divided by 32768).
        """
        return self.mfcc(audio)
