"""tinyModel without batch norm: several processes on a CPU then compute exactly what one does.

With FAIL_IN=rank:step in the environment, that process raises at that training step; with KILL_IN, it is killed
there, unless torchrun has restarted it.
"""

import os
import signal

import tinyModel
import torch
from torch import nn

from syncnet.support.errors import UserError


class SyncNetModel(tinyModel.SyncNetModel):
    def __init__(self, nOut: int = 8, stride: int = 1):
        super().__init__(nOut, stride)
        self.norm = nn.Identity()
        self.passes = 0

    def forward_aud(self, audio: torch.Tensor, **heads) -> tuple[torch.Tensor, torch.Tensor]:
        self.passes += self.training
        rank, step = os.environ.get("FAIL_IN", "-1:0").split(":")
        if self.training and os.environ.get("RANK", "0") == rank and self.passes == int(step):
            raise UserError("broken on purpose")
        rank, step = os.environ.get("KILL_IN", "-1:0").split(":")
        here = (os.environ.get("RANK"), os.environ.get("TORCHELASTIC_RESTART_COUNT")) == (rank, "0")
        if here and self.training and self.passes == int(step):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward_aud(audio, **heads)
