"""Train the two-stream network on talking-face clips, or evaluate a checkpoint on verification trials.

    python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --save_path data/exp01
    python trainSyncNet.py --temporal_stride 2 --maxFrames 50 --initial_model data/voxsrc2020_baseline.model --eval

The first line trains on --train_list and goes on from the newest checkpoint in --save_path when there
is one. The second prints the equal error rate of a checkpoint on --test_list.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

import rooms  # noqa: F401
from support.commands import answer_flags, command
from training.flags import defaults, parse_args

if __name__ == "__main__":
    answer_flags(parse_args)

import torch

from DatasetLoader import DatasetLoader
from models.checkpoints import (
    CheckpointError,
    UnreadableCheckpoint,
    choose_settings,
    epoch_checkpoints,
    needed_weights,
    read_checkpoint,
)
from support import distributed
from support.errors import UserError
from SyncNetDist import SyncNet
from training.log import TrainingLog, peak_memory
from training.state import (
    Interrupted,
    Position,
    binding_settings,
    changed_settings,
    follow_the_first,
    load_state,
    restore,
    run_folder,
    save_state,
    stop_signals,
)
from verification.report import TrialTest, check_trials, evaluate_list, read_cohort

STATE_FILE = "training_state.pt"  # in --save_path


def evaluate(network: SyncNet, args: argparse.Namespace, checkpoint: str | None) -> None:
    """Score --test_list; print the equal error rate last, and write the scores and figures to the run's result."""
    cohort = None
    if args.score_norm == "asnorm":
        folder = args.test_path if args.cohort_path is None else args.cohort_path
        cohort = read_cohort(args.cohort, folder, args.cohort_size, args.seed)
    evaluate_list(
        network,
        args.test_list,
        args.test_path,
        os.path.join(args.save_path, "result"),
        checkpoint=checkpoint,
        settings=vars(args),
        num_eval=args.num_eval,
        cohort=cohort,
        top_n=args.top_n,
        save_to=args.save_embeddings,
        load_from=args.load_embeddings,
    )


def load_newest(network: SyncNet, model_folder: str, strict: bool) -> int:
    """Load the newest checkpoint of a run that can be read. Returns its epoch, 0 where there is none.

    Raises UnreadableCheckpoint when there are checkpoints and none can be read.
    """
    unreadable = None
    for epoch, path in reversed(epoch_checkpoints(model_folder).items()):
        try:
            warn(path, network.loadParameters(path, strict=strict).lines())
        except UnreadableCheckpoint as error:
            print(f"WARNING: {error}. Trying the checkpoint before it.")
            unreadable = error
            continue
        return epoch
    if unreadable:
        raise unreadable
    return 0


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
        check_trials(args.test_list, args.test_path, args.maxFrames)
        raise UserError(
            f"--eval: no checkpoint in {folder}, and no --initial_model. Is --save_path right? "
            "(--untrained scores a network that has learnt nothing)"
        )
    return path


def newest_readable(model_folder: str) -> str | None:
    """The newest checkpoint of a run that is not damaged, None where there is no checkpoint at all.

    Raises UnreadableCheckpoint when there are some and all of them are damaged.
    """
    damaged = None
    for path in reversed(epoch_checkpoints(model_folder).values()):
        try:
            read_checkpoint(path)
        except UnreadableCheckpoint as error:
            print(f"WARNING: {error}. Trying the checkpoint before it.")
            damaged = error
        else:
            return path
    if damaged:
        raise damaged
    return None


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


def start_position(
    network: SyncNet, args: argparse.Namespace, model_folder: str, settings: dict[str, str]
) -> Position:
    """Load what the run goes on from: its exact state, else its newest checkpoint, else --initial_model.

    Raises CheckpointError for a state with other settings, OSError where something cannot be read now.
    """
    state_file = os.path.join(args.save_path, STATE_FILE)
    checkpoints = epoch_checkpoints(model_folder)

    def agree(before: dict[str, str]) -> None:
        changed = changed_settings(before, settings, defaults())
        listed = "\n  ".join(changed)
        if changed and not args.force_resume:
            raise CheckpointError(
                f"{state_file}: the run was started with other settings; use those, another --save_path, "
                f"or --force_resume to go on all the same:\n  {listed}"
            )
        if changed:
            print(f"--force_resume: going on with other settings:\n  {listed}")

    state, damaged = None, None
    try:
        state = load_state(state_file, network, agree)
    except UnreadableCheckpoint as error:
        damaged = error
        print(f"WARNING: {error}. Going on from the newest checkpoint instead, without the momentum.")
    if args.initial_model and (state or damaged or checkpoints):
        print(
            f"--initial_model {args.initial_model} is not used: {args.save_path} holds a run, which goes on"
        )
    newest = max(checkpoints, default=0)
    if state and newest <= state["epoch"]:
        position = restore(state, network)
        print(f"Going on in epoch {position.epoch} after step {len(position.rows)} from {state_file}")
        return position
    if state:
        print(f"{state_file} is of epoch {state['epoch']}, older than the checkpoint of epoch {newest}")

    if epoch := load_newest(network, model_folder, strict=False):
        print(f"Going on after epoch {epoch} from {checkpoints[epoch]}, without the momentum")
        return Position(epoch + 1, [], random.getstate())
    if args.initial_model:
        misfits = network.loadParameters(args.initial_model)
        if len(misfits.lines(needed := needed_weights(network))) == len(needed):
            raise CheckpointError(
                f"{args.initial_model}: no weight of it fits the network; there is nothing to start from. "
                "Is it a checkpoint of SyncNet, and --model the network that it is of?"
            )
        warn(args.initial_model, misfits.lines())
        print(f"Starting from {args.initial_model}")
    return Position(1, [], random.getstate())


def warn(path: str, misfits: list[str]) -> None:
    if misfits:
        print(
            f"WARNING: {path}: {len(misfits)} names or shapes (listed above) do not fit; they keep their start values"
        )


def make_loaders(args: argparse.Namespace, network: SyncNet, result_folder: str) -> tuple[DatasetLoader, ...]:
    """The training and the validation loader."""
    return tuple(
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
            max_bad=args.max_bad,
            bad_log=os.path.join(result_folder, "bad_clips.txt"),
            decode_timeout=args.decode_timeout,
            share=(distributed.rank(), distributed.processes()),
        )
        for file_list, clips, evalmode in (
            (args.train_list, args.nTrainPerEpoch, False),
            (args.verify_list, args.nTestPerEpoch, True),
        )
    )


def train(network: SyncNet, args: argparse.Namespace, folders: tuple[str, str], stop: list[int]) -> None:
    """Epochs of training and validation; after each, a checkpoint, the log and the state to go on from."""
    model_folder, result_folder = folders
    train_loader, verify_loader = make_loaders(args, network, result_folder)
    if left_out := verify_loader.nFiles % args.nBatchSize:
        print(
            f"{args.verify_list}: validation is on {verify_loader.nFiles - left_out} clips; the other {left_out} "
            f"do not fill a batch of {args.nBatchSize} (--nBatchSize)"
        )
    lists = {"train_list": args.train_list, "verify_list": args.verify_list}
    settings = binding_settings(vars(args), lists)
    position = distributed.of_first(lambda: start_position(network, args, model_folder, settings))
    follow_the_first(network, settings)
    random.setstate(position.random_state)
    rate = args.lr
    for _ in range(1, position.epoch):
        rate = max(network.updateLearningRate(args.lr_decay))
    test = TrialTest(network, args.test_list, args.test_path, args.num_eval) if args.test_interval else None
    log = None
    if distributed.is_main():
        log = TrainingLog(result_folder, vars(args), position.epoch, args.tensorboard)
    state_file = os.path.join(args.save_path, STATE_FILE)

    def save(position: Position) -> None:
        if distributed.is_main():
            save_state(state_file, network, position, settings)

    def stop_asked(step: int = 0) -> bool:
        """Has a signal come, here or in another process? All have to stop at the same step, and ask there."""
        return step % network.steps_per_look == 0 and distributed.any_of(bool(stop), network.device)

    def stop_at(position: Position) -> None:
        save(position)
        raise Interrupted(stop[0] if stop else signal.SIGTERM)

    if position.epoch > args.max_epoch:
        print(f"Nothing to do: {args.save_path} has all {args.max_epoch} epochs (--max_epoch)")
    for epoch in range(position.epoch, args.max_epoch + 1):
        print(time.strftime("%Y-%m-%d %H:%M:%S"), f"epoch {epoch}, learning rate {rate:g}", flush=True)

        def after_step(step: int, rows: Callable[[], list], epoch: int = epoch) -> None:
            stopping = stop_asked(step)
            if stopping or (args.save_steps and step % args.save_steps == 0):
                here = Position(epoch, rows(), random.getstate())
                if stopping:
                    stop_at(here)
                save(here)

        rows = position.rows if epoch == position.epoch else []
        train_loader.set_epoch(epoch - 1, first_batch=len(rows))
        learnt = network.run_epoch(
            train_loader,
            alpC=args.alphaC,
            alpI=args.alphaI,
            alpD=args.alphaD,
            rows=rows,
            after_step=after_step,
        )
        trained = Position(epoch, learnt.rows, random.getstate())
        if stop_asked():
            stop_at(trained)

        def after_check(step: int, _: Callable[[], list], trained: Position = trained) -> None:
            if stop_asked(step):
                stop_at(trained)

        checked = network.run_epoch(
            verify_loader,
            evalmode=True,
            # Every part that is trained counts fully, as in the 2020 baseline, whatever its weight in training.
            alpC=float(args.alphaC > 0),
            alpI=float(args.alphaI > 0),
            alpD=float(args.alphaD > 0),
            after_step=after_check,
        )
        if stop_asked():
            stop_at(trained)
        for name, result in (("train", learnt), ("validation", checked)):
            print(f"  {name:10s} {result}")
        epoch_rate, rate = rate, max(network.updateLearningRate(args.lr_decay))
        more = scales(network) | peak_memory(network.device)
        if test and epoch % args.test_interval == 0:
            save(trained)  # a test may take long
            more |= test.run()
        after = Position(epoch + 1, [], random.getstate())
        if distributed.is_main():
            network.saveParameters(os.path.join(model_folder, f"model{epoch:09d}.model"))
            line = log.add(epoch, epoch_rate, learnt, checked, more)
            print(f"{line} (TACC, VACC: identity top-1 in percent)", flush=True)
            save(after)
            for number in list(epoch_checkpoints(model_folder))[: -args.keep] if args.keep else []:
                if number != log.best_epoch:
                    os.remove(epoch_checkpoints(model_folder)[number])
        if epoch < args.max_epoch and stop_asked():
            stop_at(after)


def scales(network: SyncNet) -> dict[str, float]:
    """The learned scales and biases of the losses."""
    return {name: parameter.item() for name, parameter in network.__L__.named_parameters()}


def run(args: argparse.Namespace) -> None:
    """What the flags ask for."""
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
    for name, usual in defaults().items():
        if vars(args)[name] != usual:
            print(f"{name} {vars(args)[name]}")
    count = f", {distributed.processes()} processes" if distributed.processes() > 1 else ""
    print(f"running on {network.device}{count}, torch {torch.__version__}", flush=True)
    for line in told:
        print(line)
    if args.eval:
        if checkpoint:
            distributed.of_first(lambda: network.loadParameters(checkpoint, strict=True))
            follow_the_first(network, {})
        print(f"Evaluating {checkpoint or 'an untrained network'}")
        evaluate(network, args, checkpoint)
        return
    distributed.check_batch(args.nBatchSize)
    with run_folder(args.save_path, network) as folders, stop_signals() as stop:
        train(network, args, folders, stop)


@command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        args.device = distributed.setup(args.device)
        run(args)
        distributed.shutdown()
    except Interrupted as interruption:
        distributed.shutdown()
        print(f"Stopped by {interruption}; the state is saved. The same command goes on from here.")
        return 128 + interruption.number
    except KeyboardInterrupt:
        print("Stopped; nothing was under way that had to be saved.")
        return 128 + signal.SIGINT
    except Exception:
        if not distributed.first_to_fail():
            return 1
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
