from pathlib import Path

import pytest
import torch

from inferSyncNet import load
from SyncNetDist import SyncNet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "x.model"
    SyncNet(model="tinyModel", nOut=8, maxFrames=8, temporal_stride=2, device="cpu").saveParameters(str(path))
    return path


@pytest.fixture(scope="module")
def network(checkpoint) -> SyncNet:
    return load(str(checkpoint), device="cpu", model="tinyModel")
