"""Train the two-stream network on talking-face clips, or evaluate a checkpoint on verification trials.

    python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --save_path data/exp01
    python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --initial_model data/voxsrc2020_baseline.model --eval

The first line trains on --train_list and goes on from the newest checkpoint in --save_path when there
is one. The second prints the equal error rate of a checkpoint on --test_list.
"""

import syncnet  # noqa: F401  # isort: skip

import argparse
import os
import random
import signal
import sys
from dataclasses import asdict

from syncnet.support.commands import answer_flags, command
from syncnet.training.flags import Flags, defaults, not_used, parse_args

if __name__ == "__main__":
    answer_flags(parse_args)

import torch
from torch import nn

from syncnet.checkpoints.checkpoints import choose_settings, read_checkpoint
from syncnet.checkpoints.torch_files import CheckpointError, load_tensors
from syncnet.compute import distributed
from syncnet.compute.device import compute_deterministically, no_deterministic_way
from syncnet.compute.memory import keep_memory
from syncnet.compute.precision import slower_bf16
from syncnet.media.clips import check_paths
from syncnet.networks.choices import AUTO
from syncnet.networks.output_check import require_identity
from syncnet.networks.two_streams import LIP_FRAMES, num_embeddings
from syncnet.support.errors import UserError
from syncnet.support.files import check_output
from syncnet.training.run import TrainingRun, newest_readable
from syncnet.training.state import STATE_FILE, Interrupted, follow_the_first, run_folder, stop_signals
from syncnet.verification.embedding_cache import cached_settings
from syncnet.verification.evaluation import TrialTest, evaluate_list
from syncnet.verification.normalization import read_cohort
from syncnet.verification.trials import read_checked_trials
from SyncNetDist import SyncNet


def result_folder(args: Flags) -> str:
    """The folder for the results of --eval: that of the run in --save_path.

    Where a checkpoint is given, or none is wanted, and no --save_path: a folder named after the checkpoint and beside
    it (in the current folder where nothing can be written there), not that of a run which it is not of.
    """
    if args.save_path_given or not (args.initial_model or args.untrained):
        return os.path.join(args.save_path, "result")
    if args.untrained:
        return "untrained_eval"
    folder = os.path.splitext(args.initial_model)[0] + "_eval"
    writable = os.access(folder if os.path.isdir(folder) else os.path.dirname(folder) or os.curdir, os.W_OK)
    return folder if writable else os.path.basename(folder)


def evaluate(network: SyncNet, args: Flags, checkpoint: str | None) -> None:
    """Score --test_list; print the equal error rate last, and write the scores and figures to result_folder()."""
    cohort = None
    if args.score_norm == "asnorm":
        folder = args.test_path if args.cohort_path is None else args.cohort_path
        cohort = read_cohort(args.cohort, folder, args.cohort_size, args.seed)
        check_paths(args.cohort, [name for name, path in cohort.items() if name == path], "wav file")
    evaluate_list(
        network,
        args.test_list,
        args.test_path,
        result_folder(args),
        checkpoint=checkpoint,
        settings=vars(args),
        num_eval=args.num_eval,
        cohort=cohort,
        top_n=args.top_n,
        save_to=args.save_embeddings,
        load_from=args.load_embeddings,
    )


def checkpoint_to_evaluate(args: argparse.Namespace) -> str | None:
    """--initial_model, else the newest checkpoint in --save_path that can be read; None for --untrained.

    Raises UserError where there is none, after the trials have been looked at: what is wrong there is told first.
    """
    if args.untrained:
        return None
    if args.initial_model:
        return args.initial_model
    folder = os.path.join(args.save_path, "model")
    path = newest_readable(folder)
    if path is None:
        read_checked_trials(args.test_list, args.test_path, args.maxFrames)
        raise UserError(
            f"--eval: no checkpoint in {folder}, and no --initial_model. Is --save_path right? "
            "(--untrained scores a network that has learnt nothing)"
        )
    return path


def settings_to_train(args: argparse.Namespace) -> str | None:
    """The file whose settings a run with --initial_model takes where no flag says otherwise; None without one.

    Where --save_path holds a run, which wins over --initial_model, it is that run's own.
    """
    if not args.initial_model:
        return None
    state = os.path.join(args.save_path, STATE_FILE)
    try:
        read_checkpoint(state)
    except CheckpointError:  # none, or damaged: start_position tells
        return newest_readable(os.path.join(args.save_path, "model")) or args.initial_model
    return state


def precision_to_go_on_with(args: argparse.Namespace) -> str:
    """--precision; where it is auto, that of the run in --save_path, which goes on, or of --load_embeddings."""
    if args.precision != AUTO:
        return args.precision
    if args.eval:
        kept = cached_settings(args.load_embeddings).get("precision") if args.load_embeddings else None
        return kept if isinstance(kept, str) else AUTO
    state = os.path.join(args.save_path, STATE_FILE)
    if not os.path.exists(state):
        return AUTO
    try:
        held = load_tensors(state)
    except CheckpointError:  # start_position tells
        return AUTO
    flags = held.get("settings") if isinstance(held, dict) else None
    precision = flags.get("precision") if isinstance(flags, dict) else None
    return precision if isinstance(precision, str) else AUTO


def check_share(network: SyncNet, batch: int) -> None:
    """Raise UserError where a process's share of a batch does not do for its batch norms: one moment of one clip.

    On GPUs they normalise over the whole batch.
    """
    distributed.check_batch(batch)
    settings, count = network.settings, distributed.processes()
    one_clip = batch == count > 1 and network.device.type == "cpu"
    one_moment = num_embeddings(settings.maxFrames, settings.temporal_stride) == 1
    if one_clip and one_moment and any(isinstance(module, nn.BatchNorm1d) for module in network.modules()):
        raise UserError(
            f"--nBatchSize {batch} gives each of {count} processes one clip, of which --maxFrames "
            f"{settings.maxFrames} at --temporal_stride {settings.temporal_stride} has one moment: nothing to "
            f"normalise by on a CPU; use --nBatchSize {2 * batch}, or --maxFrames "
            f"{LIP_FRAMES + settings.temporal_stride}"
        )


def check_tasks(network: SyncNet, args: argparse.Namespace) -> None:
    """Raise UserError where a loss is to be trained whose embeddings the network does not have."""
    for name, weight, there in (
        ("content", "alphaC", network.has_content),
        ("identity", "alphaI", network.has_identity),
    ):
        if vars(args)[weight] and not there:
            raise UserError(
                f"{args.model} has no {name} heads, and --{weight} {vars(args)[weight]:g} trains them. Use "
                f"--{weight} 0, or another --model or --initial_model"
            )


def run(args: Flags) -> None:
    """What the flags ask for."""
    if args.eval:
        check_output("--eval", result_folder(args), folder=True)
    else:
        check_output("--save_path", args.save_path, folder=True)
    if args.save_embeddings:
        check_output("--save_embeddings", args.save_embeddings)
    keep_memory()
    args.precision = distributed.of_first(lambda: precision_to_go_on_with(args))
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    checkpoint = distributed.of_first(
        lambda: checkpoint_to_evaluate(args) if args.eval else settings_to_train(args)
    )
    settings, told = distributed.of_first(lambda: choose_settings(checkpoint, args.given))
    vars(args).update(asdict(settings))
    network = SyncNet(
        **asdict(settings),
        learning_rate=args.lr,
        device=args.device,
        precision=args.precision,
        compiled=args.compile,
    )
    args.precision = network.precision
    if network.precision_found:
        told.append(network.precision_found)
    elif network.precision == "bf16" and not args.eval:
        warning = distributed.of_first(lambda: slower_bf16(network.device))
        told += [warning] * bool(warning)
    for name, usual in defaults().items():
        if vars(args)[name] != usual:
            print(f"{name} {vars(args)[name]}")
    count = f", {distributed.processes()} processes" if distributed.processes() > 1 else ""
    print(f"running on {network.device}{count}, torch {torch.__version__}", flush=True)
    if line := distributed.several_without_torchrun():
        told.append(line)
    for line in told + not_used(args):
        print(line)
    if args.eval:
        require_identity(network)
        if checkpoint:
            distributed.of_first(lambda: network.loadParameters(checkpoint, strict=True))
        follow_the_first(network, {})
        print(f"Evaluating {checkpoint or 'an untrained network'}")
        evaluate(network, args, checkpoint)
        return
    check_share(network, args.nBatchSize)
    check_tasks(network, args)
    with run_folder(args.save_path, network) as folders, stop_signals() as stop:
        test = (
            TrialTest(network, args.test_list, args.test_path, args.num_eval).run
            if args.test_interval
            else None
        )
        TrainingRun(network, args, folders, stop, test).train()


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        if args.deterministic:
            compute_deterministically()
        args.device = distributed.setup(args.device)
        run(args)
        distributed.shutdown()
    except Interrupted as interruption:
        distributed.shutdown()
        print(f"Stopped by {interruption}; the state is saved. The same command resumes from here.")
        return 128 + interruption.number
    except KeyboardInterrupt:
        print("Stopped; there was nothing to save.")
        return 128 + signal.SIGINT
    except Exception as error:
        if not distributed.first_to_fail():
            return 1
        if distributed.lost_process(error):
            raise UserError(
                f"process {distributed.rank()}: the connection to another process is lost"
            ) from error
        if no_deterministic_way(error):
            raise UserError(f"--deterministic: {error}") from error
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
