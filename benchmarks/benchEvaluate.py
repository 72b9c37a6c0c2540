"""Evaluation: embedding against a matrix product, and scoring trial lists of VoxCeleb1's sizes.

    python benchmarks/benchEvaluate.py [--device cuda] [--trials voxceleb/test_list.txt] [--short 1000]

Embedding is measured end to end on generated wavs (10 crops each, T = 50, temporal stride 2). --short N compares
`inferSyncNet.py embed` with `--eval` on N short wavs. Scoring starts from finished embeddings: of --trials, if given,
and of random trials of VoxCeleb1-E's size.
"""

import argparse
import os
import resource
import tempfile

import numpy as np
import torch
from common import convolution_operations, machine, matrix_product, median_seconds, seconds, table
from scipy.io import wavfile

from syncnet.compute.memory import keep_memory
from syncnet.inference.embeddings import embed
from syncnet.verification.scores import score_vectors
from syncnet.verification.trials import Trials, read_trials
from SyncNetDist import SyncNet

SIZES = {"VoxCeleb1-O": (4708, 37611), "VoxCeleb1-E": (145160, 579818)}  # files, trials


def random_trials(files: int, trials: int) -> Trials:
    draws = np.random.default_rng(0)
    pairs = draws.integers(files, size=(2, trials))
    return Trials([""] * files, pairs[0], pairs[1], None)


def make_wavs(folder: str, count: int, samples: int) -> list[str]:
    draws = np.random.default_rng(0)
    files = [os.path.join(folder, f"{i}.wav") for i in range(count)]
    for file in files:
        wavfile.write(file, 16000, (3000 * draws.standard_normal(samples)).astype(np.int16))
    return files


def compare_short(count: int, device: str, repeats: int) -> None:
    """embed, which takes any file, and --eval's, which takes wavs of one kind; crops of 0.8 s out of 1.2 s."""
    network = SyncNet(maxFrames=20, temporal_stride=2, device=device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = make_wavs(folder, count, 19200)
        for crops in (1, 10):
            works = {
                "--eval": lambda n=crops: network.embed(files, n),
                "embed": lambda n=crops: embed(network, files, num_eval=n),
            }
            taken = median_seconds(works, repeats, device)
            rows.append((crops, *(count / t for t in taken.values()), taken["--eval"] / taken["embed"]))
    title = f"{count} wavs of 1.2 s, T = 20, temporal stride 2, files/s"
    table(title, ("crops per file", "--eval", "embed", "ratio"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--trials", help="a trial list to score too")
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--short", type=int, default=0, help="short wavs to compare embed with --eval on")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    keep_memory()  # as the commands do

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = make_wavs(folder, args.files, 8 * 16000)
        for precision in args.precisions:
            network = SyncNet(maxFrames=50, temporal_stride=2, device=args.device, precision=precision)
            operations = convolution_operations(
                network.__S__, lambda n=network: n.embed(files), training=False
            )
            product, product_operations = matrix_product(
                torch.bfloat16 if precision == "bf16" else torch.float32, args.device
            )
            taken = median_seconds(
                {"embed": lambda n=network: n.embed(files), "product": product}, args.repeats, args.device
            )
            rate, limit = operations / taken["embed"], product_operations / taken["product"]
            rows.append((precision, args.files / taken["embed"], rate / 1e12, limit / 1e12, rate / limit))
    print(machine(args.device))
    table(
        "Embedding, 10 crops per file, T = 50, temporal stride 2",
        ("", "files/s", "TFLOP/s", "matrix product", "ratio"),
        rows,
    )

    if args.short:
        compare_short(args.short, args.device, args.repeats)

    lists = {name: random_trials(*size) for name, size in SIZES.items()}
    if args.trials:
        lists[os.path.basename(args.trials)] = read_trials(args.trials)
    rows = []
    for name, trials in lists.items():
        vectors = torch.randn(len(trials.files), 1024)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken = min(seconds(lambda t=trials, v=vectors: score_vectors(v, t)) for _ in range(args.repeats))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
        rows.append((name, len(trials.first), len(trials.files), taken, len(trials.first) / taken, grown))
        del vectors
    table(
        "Scoring, given the embeddings",
        ("", "trials", "files", "seconds", "trials/s", "memory growth, MiB"),
        rows,
    )


if __name__ == "__main__":
    main()
