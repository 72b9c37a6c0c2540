"""plainModel with batch norm, in a run whose second process cannot read the folder that UNREADABLE names."""

import builtins
import errno
import os

import plainModel
from torch import nn


class SyncNetModel(plainModel.SyncNetModel):
    def __init__(self, nOut: int = 8, stride: int = 1):
        super().__init__(nOut, stride)
        self.norm = nn.BatchNorm1d(nOut)


if os.environ.get("RANK") == "1" and "UNREADABLE" in os.environ:

    def call_without(real):
        def call(path, *args, **kwargs):
            if os.environ["UNREADABLE"] in str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        return call

    builtins.open, os.listdir, os.stat = map(call_without, (open, os.listdir, os.stat))
