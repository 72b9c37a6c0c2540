"""tinyModel with dropout: a network that draws random numbers in training."""

import tinyModel
from torch import nn


class SyncNetModel(tinyModel.SyncNetModel):
    def __init__(self, nOut: int = 8, stride: int = 1):
        super().__init__(nOut, stride)
        self.norm = nn.Sequential(self.norm, nn.Dropout(0.5))
