"""Train the two-stream network on talking-face clips, or evaluate a checkpoint on verification trials.

    python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --save_path data/exp01
    python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --initial_model data/voxsrc2020_baseline.model --eval
    torchrun --nproc_per_node 8 trainSyncNet.py --temporal_stride 2 --maxFrames 50 --nBatchSize 32 --save_path data/exp01

The first line trains on --train_list, resuming from the run in --save_path if there is one; the third does the same
with eight processes. The second prints the equal error rate of a checkpoint on --test_list. `train` below loops over
the epochs; SyncNetDist.py has the training step, DatasetLoader.py sampling and cropping, syncnet/networks/losses.py
the loss formulas, models/ the networks, and syncnet/training/flags.py the flags with their defaults.
"""  # noqa: E501

import syncnet  # noqa: F401  # isort: skip

import random
import signal
import sys
import time
from dataclasses import asdict

from syncnet.support.commands import answer_flags, command
from syncnet.training.flags import Flags, defaults, not_used, parse_args

if __name__ == "__main__":
    answer_flags(parse_args)  # before the slow imports

import torch

from syncnet.compute import distributed
from syncnet.compute.device import compute_deterministically, no_deterministic_way
from syncnet.compute.memory import keep_memory
from syncnet.compute.precision import slower_bf16
from syncnet.inference.accuracy import SyncTest
from syncnet.media.clips import check_paths
from syncnet.networks.output_check import require_identity
from syncnet.support.errors import UserError
from syncnet.support.files import check_output
from syncnet.training.decisions import (
    Decisions,
    decide_for_evaluation,
    decide_for_training,
    result_folder,
)
from syncnet.training.loaders import make_loaders
from syncnet.training.log import TrainingLog, peak_memory
from syncnet.training.preflight import check_batch_share, check_newest_state, check_tasks
from syncnet.training.resume import ResumableRun, SavedRun, decay_learning_rate
from syncnet.training.run_folder import run_folder
from syncnet.training.signals import Interrupted, stop_signals
from syncnet.training.state import same_draws, sync_from_rank_zero
from syncnet.verification.evaluation import TrialTest, evaluate_list
from syncnet.verification.normalization import read_cohort
from SyncNetDist import SyncNet


def train(network: SyncNet, args: Flags, saved: SavedRun) -> None:
    """Train, validate and save, epoch by epoch up to --max_epoch, from where the run in --save_path stopped.

    saved: the state that an earlier run left there. Raises Interrupted after a signal, once the state is saved.
    """
    check_batch_share(network, args.nBatchSize)
    check_tasks(network, args)
    with (
        run_folder(args.save_path, network) as folder,
        stop_signals(network.device, network.steps_per_fetch) as stop,
    ):
        tests: list[TrialTest | SyncTest] = []
        if args.test_interval and (args.alphaI or not args.test_sync):
            tests.append(TrialTest(network, args.test_list, args.test_path, args.num_eval))
        train_loader, verify_loader = make_loaders(args, folder.result, network.device)
        if args.test_interval and args.test_sync:
            tests.append(SyncTest(network, verify_loader.clips, args.test_sync, args.allow_resize))
        run = ResumableRun(network, args, folder, {"train_list": train_loader, "verify_list": verify_loader})
        start = run.resume(saved)
        log = None
        if distributed.is_main():
            log = TrainingLog(folder.result, vars(args), start.epoch, args.tensorboard)
        train_loader.check_paths()
        verify_loader.check_paths()
        if start.epoch > args.max_epoch:
            print(f"Nothing to do: {args.save_path} has all {args.max_epoch} epochs (--max_epoch)")
            return

        for epoch in range(start.epoch, args.max_epoch + 1):
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            print(f"{now} epoch {epoch}, learning rate {network.learning_rate:g}", flush=True)

            # Train, starting after the last finished step.
            rows = start.rows if epoch == start.epoch else []
            train_loader.set_epoch(epoch - 1, first_batch=len(rows))
            trained = network.run_epoch(
                train_loader,
                alpC=args.alphaC,
                alpI=args.alphaI,
                alpD=args.alphaD,
                rows=rows,
                after_step=run.saves_during(epoch, stop),
            )
            run.save(epoch, trained.rows)
            stop.stop_if_requested()

            # Validate (each trained loss has weight 1), test (trials, sync), write checkpoint and log. Random draws
            # here, such as those of packages on import, do not affect training.
            verify_loader.set_epoch(epoch - 1)
            with same_draws(args.seed, network.device):
                validated = network.run_epoch(
                    verify_loader,
                    evalmode=True,
                    alpC=float(args.alphaC > 0),
                    alpI=float(args.alphaI > 0),
                    alpD=float(args.alphaD > 0),
                    after_step=lambda step, _: stop.stop_if_requested(step),
                )
                stop.stop_if_requested()
                print(f"  {'train':10s} {trained}\n  {'validation':10s} {validated}")
                figures = {name: scale.item() for name, scale in network.__L__.named_parameters()}
                figures |= peak_memory(network.device)
                if tests and epoch % args.test_interval == 0:
                    for test in tests:
                        figures |= test.run()
                if log:
                    network.saveParameters(folder.checkpoint(epoch))
                    line = log.add(epoch, network.learning_rate, trained, validated, figures)
                    print(f"{line} (TACC, VACC: identity top-1 in percent)", flush=True)
                    folder.remove_old_checkpoints(args.keep, log.best_epoch)

            # Save the state for the next epoch last: a run that is killed before that repeats these writes.
            decay_learning_rate(network, args)
            run.save(epoch + 1, [])
            if epoch < args.max_epoch:
                stop.stop_if_requested()
        if log:
            print(f"Done: {folder.checkpoint(epoch)}; curves: {log.curves}; figures: {log.metrics}")


def evaluate(network: SyncNet, args: Flags, checkpoint: str | None) -> None:
    """Score --test_list, and write scores and figures to result_folder(). The equal error rate is printed last.

    checkpoint: None for an untrained network.
    """
    require_identity(network)
    if checkpoint:
        distributed.on_rank_zero(lambda: network.loadParameters(checkpoint, strict=True))
    sync_from_rank_zero(network, {})
    print(f"Evaluating {checkpoint or 'an untrained network'}")
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


def run(args: Flags) -> None:
    """Choose the settings, the same for all processes; build the network, and train or evaluate it."""
    check_output(
        "--eval" if args.eval else "--save_path",
        result_folder(args) if args.eval else args.save_path,
        folder=True,
    )
    if args.save_embeddings:
        check_output("--save_embeddings", args.save_embeddings)
    keep_memory()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    saved = None if args.eval else SavedRun(args.save_path)
    if saved:
        check_newest_state(saved)
    decided: Decisions = distributed.on_rank_zero(
        lambda: decide_for_training(args, saved) if saved else decide_for_evaluation(args)
    )
    network = SyncNet(
        **asdict(decided.settings),
        learning_rate=args.lr,
        device=args.device,
        precision=decided.precision,
        compiled=args.compile,
    )
    notes = [*decided.notes, network.precision_note]
    if args.precision == "bf16" and not (network.precision_note or args.eval):
        notes.append(distributed.on_rank_zero(lambda: slower_bf16(network.device)))
    args = args.replaced(**asdict(network.settings), precision=network.precision)
    notes += [distributed.several_without_torchrun(), *not_used(args)]

    for name, default in defaults().items():
        if vars(args)[name] != default:
            print(f"{name} {vars(args)[name]}")
    count = f", {distributed.processes()} processes" if distributed.processes() > 1 else ""
    print(f"running on {network.device}{count}, torch {torch.__version__}", flush=True)
    for note in filter(None, notes):
        print(note)
    if saved:
        train(network, args, saved)
    else:
        evaluate(network, args, decided.checkpoint)


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        if args.deterministic:
            compute_deterministically()
        run(args.replaced(device=distributed.setup(args.device)))
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
