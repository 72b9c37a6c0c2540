import os
from pathlib import Path

import pytest
import torch
from clipMaker import make_clip, make_wav, noise
from inferring import NETWORK, Clock
from scipy.io import wavfile

from inferSyncNet import load
from syncnet.media.clips import Clip, format_list_line
from SyncNetDist import SyncNet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "x.model"
    SyncNet(**NETWORK).saveParameters(str(path))
    return path


@pytest.fixture(scope="module")
def network(checkpoint) -> SyncNet:
    return load(str(checkpoint), device="cpu", model="tinyModel")


@pytest.fixture(scope="module")
def voices(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    for k in range(4):
        os.makedirs(folder / f"spk{k // 2}", exist_ok=True)
        wavfile.write(folder / f"spk{k // 2}/{k}.wav", 16000, noise(0.5 + 0.1 * k, seed=k))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Eight clips of four people in VoxCeleb2's layout and their list; no sound track."""
    folder = tmp_path_factory.mktemp("clips")
    lines = []
    for k in range(8):
        name = f"id{k // 2}/video/{k}"
        clip = Clip(str(folder / f"mp4/{name}.mp4"), str(folder / f"wav/{name}.wav"), 0, 30)
        make_clip(clip.video, 30, first=977 * k)
        make_wav(clip.audio, 30 * 640 + 100, first=3001 * k)
        lines.append(format_list_line(clip) + "\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def clock() -> SyncNet:
    network = SyncNet(**NETWORK | {"temporal_stride": 1})
    network.__S__ = Clock()
    return network
