"""plainModel with batch norm and dropout: a network that draws random numbers in training."""

import plainModel
from torch import nn


class SyncNetModel(plainModel.SyncNetModel):
    def __init__(self, nOut: int = 8, stride: int = 1):
        super().__init__(nOut, stride)
        self.norm = nn.Sequential(nn.BatchNorm1d(nOut), nn.Dropout(0.5))
