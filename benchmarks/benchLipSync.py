"""Lip sync of a face track: windows in batches (syncnet/inference/lip_sync.py) against one window at a time.

    python benchmarks/benchLipSync.py [--device cuda] [--seconds 4]

Both read the same generated mp4 and wav, and give the same figures. The weights are random.
"""

import argparse
import os
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from common import machine, median_seconds, table
from scipy.io import wavfile

from clipMaker import make_clip, noise  # isort: skip
from DatasetLoader import get_frames
from syncnet.compute.memory import keep_memory
from syncnet.inference.lip_sync import LEAST_FRAMES, MAX_OFFSET, WINDOWS_AT_ONCE, LipSync, lse, summarize
from syncnet.networks.mfcc import MFCC_PER_FRAME, SOUND_WINDOW
from SyncNetDist import SyncNet


@torch.inference_mode()
def one_window_at_a_time(network: SyncNet, video: str, wav: str, frames: int) -> LipSync:
    """The figures of lse(), with a forward pass a window and a distance a pair."""
    network.eval()
    coefficients = network.__S__.mfcc(
        torch.from_numpy(wavfile.read(wav)[1].astype(np.float32))[None].to(network.device)
    )
    pixels = get_frames(video, frames, 0).to(network.device)
    windows = range(frames - LEAST_FRAMES + 1)
    lips = [network.__S__.forward_vid(pixels[:, :, i : i + 5])[0][..., 0] for i in windows]
    sounds = [
        network.__S__.embed_windows(coefficients[..., MFCC_PER_FRAME * i : MFCC_PER_FRAME * i + SOUND_WINDOW])
        for i in windows
    ]
    around = F.pad(torch.cat(sounds), (0, 0, MAX_OFFSET, MAX_OFFSET))
    shifts = range(2 * MAX_OFFSET + 1)
    rows = [[float(F.pairwise_distance(lips[i], around[i + k : i + k + 1])) for k in shifts] for i in windows]
    return summarize(np.array(rows), frames)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=4, help="length of the track (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, WINDOWS_AT_ONCE, 32, 64])
    args = parser.parse_args()
    keep_memory()  # as the commands do

    frames = round(args.seconds * 25)
    torch.manual_seed(0)
    network = SyncNet(model="models.SyncNetV2", device=args.device)
    with tempfile.TemporaryDirectory() as folder:
        video, wav = os.path.join(folder, "a.mp4"), os.path.join(folder, "a.wav")
        make_clip(video, frames)
        wavfile.write(wav, 16000, noise(args.seconds))
        literal = one_window_at_a_time(network, video, wav, frames)
        works = {"one at a time": lambda: one_window_at_a_time(network, video, wav, frames)}
        for batch in args.batches:
            found = lse(network, video, wav, batch=batch)
            np.testing.assert_allclose(found.mean_distances, literal.mean_distances, rtol=1e-4)
            works[f"{batch} at a time"] = lambda batch=batch: lse(network, video, wav, batch=batch)
        taken = median_seconds(works, args.repeats, args.device)
    print(machine(args.device))
    base = taken["one at a time"]
    table(
        f"Lip sync, a track of {frames} frames, fp32",
        ("windows", "tracks/s", "of one at a time"),
        [(name, 1 / seconds, base / seconds) for name, seconds in taken.items()],
    )


if __name__ == "__main__":
    main()
