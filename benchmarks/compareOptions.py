"""One short run for each option on the demo corpus, and what its embeddings learned: two tables.

    python makeDemoData.py --out data/demo --speakers 160
    for part in dev test; do
        python makeFileList.py --output data/demo/$part.txt --mp4_dir data/demo/$part/mp4 \\
            --txt_dir data/demo/$part/txt --wav_dir data/demo/$part/wav
    done
    python benchmarks/compareOptions.py --data data/demo --save_path data/options

trainSyncNet.py runs each, with the same clips, starts and number of steps; the same command resumes a run that was
stopped. The people in the validation list and the trials are not in the training list. Each figure is from one short
run: differences of a few percent are chance.

The probes give each kind of embedding the other kind's task, without training for it: the identity top-1 of content
embeddings, and the sync top-1 of identity embeddings. Chance level means disentangled.
"""

import argparse
import os
import random
import subprocess
import sys

import numpy as np
import torch
from common import ROOT, machine, table

from DatasetLoader import DatasetLoader
from syncnet.networks.losses import content_logits, identity_logits, matching
from syncnet.verification.trials import read_trials
from SyncNetDist import SyncNet
from tuneThreshold import tuneThresholdfromScore

OPTIONS = {
    "default": {},
    "--alphaI 0": {"alphaI": 0},
    "--alphaC 0": {"alphaC": 0},
    "--alphaD 1": {"alphaD": 1},
    "--crop mouth": {"crop": "mouth"},
    "MFCC": {"model": "models.SyncNetModelMFCC"},
    "--distance euclidean": {"distance": "euclidean"},
}
CONSTRUCTED = ("model", "crop", "distance")  # flags that are arguments of SyncNet as well
MOMENTS_PROBED = 10  # random time steps of the identity task, for each batch


def flags_of_runs(description: str, save_path: str) -> argparse.ArgumentParser:
    """A parser of the flags with which train makes its runs. save_path: where they go by default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="data/demo", help="folder of makeDemoData.py, with dev.txt and test.txt"
    )
    parser.add_argument("--save_path", default=save_path, help="folder of the runs")
    parser.add_argument("--device", default=None)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--maxFrames", type=int, default=16)
    parser.add_argument("--temporal_stride", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--clips", type=int, default=10**9, help="training clips an epoch")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def train(args: argparse.Namespace, name: str, options: dict[str, object]) -> str:
    """Train with an option, or go on with it. Returns the checkpoint."""
    folder = os.path.join(args.save_path, "".join(filter(str.isalnum, name)))
    flags = {
        "maxFrames": args.maxFrames, "temporal_stride": args.temporal_stride, "nBatchSize": args.batch,
        "precision": args.precision, "lr": args.lr, "max_epoch": args.epochs, "nTrainPerEpoch": args.clips,
        "train_list": f"{args.data}/dev.txt", "verify_list": f"{args.data}/test.txt", "save_path": folder,
        "nDataLoaderThread": args.threads, **options,
    }  # fmt: skip
    if args.device:
        flags["device"] = args.device
    command = [f"{ROOT}/trainSyncNet.py"]
    for flag, value in flags.items():
        command += [f"--{flag}", str(value)]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return os.path.join(folder, f"model/model{args.epochs:09d}.model")


def untrained_network(args: argparse.Namespace, **settings: object) -> SyncNet:
    """The network that the runs of these flags begin with."""
    return SyncNet(
        maxFrames=args.maxFrames,
        temporal_stride=args.temporal_stride,
        device=args.device,
        precision=args.precision,
        **settings,
    )


@torch.inference_mode()
def measure(args: argparse.Namespace, network: SyncNet) -> dict[str, float]:
    """Accuracies of both kinds of embedding in both tasks and the EER, all in percent, by cosine."""
    network.eval()
    loader = DatasetLoader(
        f"{args.data}/test.txt", 10**9, args.batch, args.maxFrames, args.threads, evalmode=True
    )
    one, draws, found = torch.ones((), device=network.device), random.Random(0), []
    for video, audio in loader:
        content_aud, identity_aud, content_vid, identity_vid = network.embeddings(
            video.to(network.device), audio.to(network.device)
        )
        row = []
        for kind_vid, kind_aud in ((content_vid, content_aud), (identity_vid, identity_aud)):
            row.append(matching(content_logits(kind_vid, kind_aud, one, 0 * one))[1].item())
            moments = [draws.randrange(kind_vid.shape[2]) for _ in range(MOMENTS_PROBED)]
            voices = kind_aud.float().mean(2)
            tops = [
                matching(identity_logits(kind_vid[:, :, moment], voices, one, 0 * one))[1].item()
                for moment in moments
            ]
            row.append(np.mean(tops))
        found.append(row)
    names = ("sync of content", "identity of content", "sync of identity", "identity of identity")
    figures = dict(zip(names, (100 * np.mean(found, 0)).tolist(), strict=True))
    trials = read_trials(f"{args.data}/test_list.txt")
    scores = network.score_trials(trials, f"{args.data}/voxceleb1")
    figures["EER"] = tuneThresholdfromScore(scores, trials.labels, [1])[1]
    return figures


def main() -> None:
    parser = flags_of_runs(__doc__, "data/options")
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    args = parser.parse_args()

    rows, probes = [], []
    untrained = {"untrained": None}
    for name, options in (untrained | {name: OPTIONS[name] for name in args.only}).items():
        torch.manual_seed(0)
        settings = {key: value for key, value in (options or {}).items() if key in CONSTRUCTED}
        network = untrained_network(args, **settings)
        if options is not None:
            network.loadParameters(train(args, name, options), strict=True)
        figures = measure(args, network)
        trained = {
            kind: not options or options.get(flag) != 0 for kind, flag in (("C", "alphaC"), ("I", "alphaI"))
        }
        rows.append(
            (
                name,
                figures["sync of content"] if trained["C"] else "-",
                figures["identity of identity"] if trained["I"] else "-",
                figures["EER"] if trained["I"] else "-",
            )
        )
        if all(trained.values()):
            probes.append((name, figures["identity of content"], figures["sync of identity"]))
        print(f"{name}: {figures}", flush=True)
    moments = (args.maxFrames - 5) // args.temporal_stride + 1
    print(machine(args.device or "cpu"))
    title = (
        f"{args.epochs} epochs, T = {args.maxFrames}, batch {args.batch}, "
        f"learning rate {args.lr:g}, {args.precision}"
    )
    chance = (100 / moments, 100 / args.batch)
    table(
        f"{title}; unseen identities, percent",
        ("", "sync top-1", "identity top-1", "EER"),
        [("chance", *chance, 50.0), *rows],
    )
    table(
        "Probes of disentanglement, percent: nearer to chance is better",
        ("", "identity top-1 of content", "sync top-1 of identity"),
        [("chance", chance[1], chance[0]), *probes],
    )


if __name__ == "__main__":
    main()
