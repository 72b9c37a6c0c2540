"""Train the two-stream network on talking-face clips, or evaluate a checkpoint on verification trials.

    python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --save_path data/exp01
    python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --initial_model data/voxsrc2020_baseline.model --eval

The first line trains on --train_list and goes on from the newest checkpoint in --save_path when there
is one. The second prints the equal error rate of a checkpoint on --test_list.
"""

import argparse
import os
import random
import sys
import time

import torch

from checkpoints import CheckpointError, epoch_checkpoints
from clipFiles import MediaError
from DatasetLoader import DatasetLoader
from SyncNetDist import PRECISIONS, SyncNet
from tuneThreshold import tuneThresholdfromScore
from verification import read_trials


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train SyncNet on talking-face clips, or evaluate it on speaker verification trials.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,  # a misspelt flag is an error, not another flag
    )
    positive, fraction = at_least(int, 1), at_least(float, 0)

    data = parser.add_argument_group("data")
    data.add_argument(
        "--train_list",
        default="data/dev.txt",
        help="clips to train on, made by makeFileList.py: lines `mp4path wavpath offset frames`",
    )
    data.add_argument(
        "--verify_list",
        default="data/test.txt",
        help="clips to validate on after every epoch, made the same way, of other people",
    )
    data.add_argument(
        "--maxFrames",
        type=positive,
        default=30,
        help="video frames (40 ms each) of a training or evaluation crop; the published model used 50. "
        "Longer crops identify better and cost memory and time in proportion",
    )
    data.add_argument(
        "--nBatchSize",
        type=positive,
        default=30,
        help="clips a batch. Every voice of a batch is a wrong answer for every other face, so this changes "
        "the identity loss, not only the speed; must be at least 2",
    )
    data.add_argument("--nTrainPerEpoch", type=positive, default=100000, help="training clips an epoch")
    data.add_argument("--nTestPerEpoch", type=positive, default=10000, help="validation clips an epoch")
    data.add_argument(
        "--nDataLoaderThread",
        type=positive,
        default=4,
        help="threads that decode clips; as many as cores, or fewer when the bar's `data wait` is near 0",
    )
    data.add_argument(
        "--allow_resize",
        action="store_true",
        help="scale videos that are not 224x224 instead of refusing them",
    )

    network = parser.add_argument_group("network")
    network.add_argument(
        "--model", default="models.SyncNetModelFBank", help="module in models/ that holds the network"
    )
    network.add_argument("--nOut", type=positive, default=1024, help="size of the embeddings")
    network.add_argument(
        "--temporal_stride",
        type=positive,
        default=1,
        help="frames from one embedding to the next; 2 halves the cost, as in the published model",
    )
    network.add_argument(
        "--initial_model",
        default="",
        help="checkpoint to start from, or to evaluate. In training, a checkpoint in --save_path wins over it",
    )

    training = parser.add_argument_group("training")
    training.add_argument("--max_epoch", type=positive, default=500, help="last epoch")
    training.add_argument(
        "--lr",
        type=fraction,
        default=0.0001,
        help="learning rate of SGD in the first epoch; 0.0001 is what the published model was trained with",
    )
    training.add_argument(
        "--lr_decay", type=fraction, default=0.95, help="the learning rate is multiplied by this every epoch"
    )
    training.add_argument(
        "--alphaC", type=fraction, default=1.0, help="weight of the content (sync) loss in training"
    )
    training.add_argument(
        "--alphaI", type=fraction, default=1.0, help="weight of the identity loss in training"
    )
    training.add_argument(
        "--seed", type=at_least(int, 0), default=0, help="same seed, same lists, same machine: the same run"
    )
    training.add_argument(
        "--save_path",
        default="./data/exp01",
        help="folder of the run: checkpoints in model/, scores.txt in result/; the same command goes on there",
    )

    evaluation = parser.add_argument_group("evaluation")
    evaluation.add_argument(
        "--eval", action="store_true", help="evaluate on --test_list instead of training; prints the EER last"
    )
    evaluation.add_argument(
        "--test_list",
        default="voxceleb/test_list.txt",
        help="trials: lines `label fileA fileB`, label 1 = same speaker",
    )
    evaluation.add_argument(
        "--test_path", default="voxceleb/voxceleb1", help="folder of the trials' wav files"
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", default=None, help="cpu, cuda, cuda:1 ...; by default a GPU if there is one"
    )
    machine.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp32: true float32. tf32: GPU matrix units with 10-bit mantissas. bf16: autocast, about half the "
        "memory and up to twice the speed or more; losses and the audio front end stay float32",
    )
    args = parser.parse_args(argv)
    if args.nBatchSize < 2 and not args.eval:
        parser.error("--nBatchSize must be at least 2: with one clip there is no other voice to tell apart")
    return args


def at_least(kind: type, least: float) -> type:
    """An argparse type: a finite number not below `least`."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a number of at least {least}")
        return value

    number.__name__ = kind.__name__
    return number


def evaluate(network: SyncNet, args: argparse.Namespace) -> None:
    """Score --test_list and print the equal error rate."""
    trials = read_trials(args.test_list)
    if trials.labels is None or len(set(trials.labels)) < 2:
        raise MediaError(
            f"{args.test_list}: an EER needs trials of the same speaker (label 1) and of different ones (label 0)"
        )
    scores = network.score_trials(trials, args.test_path)
    print(
        f"{len(scores)} trials, {trials.labels.sum()} of them with the same speaker, {len(trials.files)} files"
    )
    eer = tuneThresholdfromScore(scores, trials.labels, [1, 0.1])[1]
    print(f"EER {eer:2.4f}")


def start_weights(network: SyncNet, args: argparse.Namespace, model_folder: str) -> int:
    """Load the weights that the flags ask for. Returns the first epoch to train (1 for a new run)."""
    newest = list(epoch_checkpoints(model_folder).items())[-1:]
    if args.eval and args.initial_model:
        network.loadParameters(args.initial_model, strict=True)
        print(f"Evaluating {args.initial_model}")
    elif newest:
        epoch, path = newest[0]
        misfits = network.loadParameters(path, strict=args.eval)
        warn(path, misfits.lines())
        print(f"Evaluating {path}" if args.eval else f"Going on after epoch {epoch} from {path}")
        if args.initial_model:
            print(f"--initial_model {args.initial_model} is not used: {model_folder} holds checkpoints")
        return epoch + 1
    elif args.initial_model:
        misfits = network.loadParameters(args.initial_model)
        warn(args.initial_model, misfits.lines())
        print(f"Starting from {args.initial_model}")
    elif args.eval:
        print(f"No --initial_model, and no checkpoint in {model_folder}: evaluating an untrained network")
    return 1


def warn(path: str, misfits: list[str]) -> None:
    if misfits:
        print(
            f"WARNING: {path}: {len(misfits)} names or shapes (listed above) do not fit and keep their start values"
        )


def train(network: SyncNet, args: argparse.Namespace, first_epoch: int, folders: tuple[str, str]) -> None:
    """Epochs of training and validation, each with a line in scores.txt and a checkpoint."""
    model_folder, result_folder = folders
    loaders = [
        DatasetLoader(
            file_list,
            clips,
            args.nBatchSize,
            args.maxFrames,
            args.nDataLoaderThread,
            evalmode=evalmode,
            seed=args.seed,
            pin_memory=network.device.type == "cuda",
            allow_resize=args.allow_resize,
        )
        for file_list, clips, evalmode in (
            (args.train_list, args.nTrainPerEpoch, False),
            (args.verify_list, args.nTestPerEpoch, True),
        )
    ]
    train_loader, verify_loader = loaders
    rate = args.lr
    for _ in range(1, first_epoch):
        rate = max(network.updateLearningRate(args.lr_decay))

    with open(os.path.join(result_folder, "scores.txt"), "a", encoding="utf-8") as scores:
        for name, value in vars(args).items():
            scores.write(f"{name} {value}\n")
        scores.flush()
        for epoch in range(first_epoch, args.max_epoch + 1):
            print(time.strftime("%Y-%m-%d %H:%M:%S"), f"epoch {epoch}, learning rate {rate:g}", flush=True)
            train_loader.set_epoch(epoch - 1)
            learnt = network.run_epoch(train_loader, alpC=args.alphaC, alpI=args.alphaI)
            checked = network.run_epoch(verify_loader, evalmode=True)
            for name, result in (("train", learnt), ("validation", checked)):
                print(
                    f"  {name:10s} loss {result.loss:.4f}  content {result.content_loss:.4f}  "
                    f"identity {result.identity_loss:.4f}  sync top-1 {result.content_top1:.2f}%  "
                    f"identity top-1 {result.identity_top1:.2f}%  {result.clips / result.seconds:.1f} clips/s  "
                    f"data wait {100 * result.data_wait / result.seconds:.0f}%"
                )
            line = (
                f"IT {epoch}, LR {rate:f}, TACC {learnt.identity_top1:2.2f}, TLOSS {learnt.loss:f}, "
                f"VACC {checked.identity_top1:2.2f}, VLOSS {checked.loss:f}"
            )
            network.saveParameters(os.path.join(model_folder, f"model{epoch:09d}.model"))
            scores.write(line + "\n")
            scores.flush()
            print(line, flush=True)
            rate = max(network.updateLearningRate(args.lr_decay))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    model_folder, result_folder = (os.path.join(args.save_path, name) for name in ("model", "result"))
    try:
        network = SyncNet(
            model=args.model,
            nOut=args.nOut,
            maxFrames=args.maxFrames,
            learning_rate=args.lr,
            temporal_stride=args.temporal_stride,
            device=args.device,
            precision=args.precision,
        )
        for name, value in vars(args).items():
            print(f"{name} {value}")
        print(f"running on {network.device}, torch {torch.__version__}", flush=True)
        first_epoch = start_weights(network, args, model_folder)
        if args.eval:
            evaluate(network, args)
        else:
            os.makedirs(model_folder, exist_ok=True)
            os.makedirs(result_folder, exist_ok=True)
            train(network, args, first_epoch, (model_folder, result_folder))
    except (MediaError, CheckpointError, FloatingPointError, ValueError, OSError) as error:
        print(f"trainSyncNet.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
