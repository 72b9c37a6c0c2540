"""For the tests of inferSyncNet.py: run() calls a command in this process; a Clock tells which frame it is."""

import re
from pathlib import Path

import torch
from clipMaker import RAMP, frame_number
from torch import Tensor, nn

import inferSyncNet

T = 8
NETWORK = {"model": "tinyModel", "nOut": 8, "maxFrames": T, "temporal_stride": 2, "device": "cpu"}


def run(capsys, *args) -> tuple[int, str, list[str]]:
    """The command in this process: exit status, output, and the lines of its errors."""
    if "--initial_model" in args:  # tinyModel is no module of models/: a checkpoint cannot choose it
        args = (args[0], "--model", "tinyModel", *args[1:])
    status = inferSyncNet.main([str(arg) for arg in args])
    said = capsys.readouterr()
    bars = re.compile(r"[\w ]+: +\d+%\|")
    return status, said.out, [line for line in said.err.splitlines() if line.strip() and not bars.match(line)]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


class Clock(nn.Module):
    """Content embeddings that tell which frame it is, read from the numbers that clipMaker puts into clips."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))

    def content(self, numbers: list[int]) -> Tensor:
        return self.table[torch.tensor(numbers[:-4])].T[None]

    def forward_vid(self, video: Tensor) -> tuple[Tensor, None]:
        return self.content(
            [frame_number(picture.permute(1, 2, 0).numpy()) for picture in video[0].unbind(1)]
        ), None

    def forward_aud(self, audio: Tensor) -> tuple[Tensor, None]:
        starts = audio[0, :-240:640].numpy().astype(int) + RAMP // 2
        return self.content((starts // 640).tolist()), None
