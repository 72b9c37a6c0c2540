"""A training run: where it goes on, its epochs, and what it keeps after each."""

import argparse
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial

from DatasetLoader import DatasetLoader
from syncnet.checkpoints.checkpoints import epoch_checkpoints, read_checkpoint
from syncnet.checkpoints.torch_files import CheckpointError, UnreadableCheckpoint
from syncnet.checkpoints.weights import needed_weights
from syncnet.compute import distributed
from syncnet.loading.sizes import TooFewClips, sizes_remedy
from syncnet.media.clips import MediaError, read_list
from syncnet.training.epoch import EpochResult
from syncnet.training.flags import defaults
from syncnet.training.interface import TrainableNetwork
from syncnet.training.log import TrainingLog, peak_memory
from syncnet.training.state import (
    STATE_FILE,
    Interrupted,
    Position,
    binding_settings,
    changed_settings,
    follow_the_first,
    kinds_of_steps,
    load_state,
    position_now,
    restore,
    same_steps,
    save_state,
)


class TrainingRun:
    """Epochs of training and validation; after each, a checkpoint, the log and the state to go on from.

    network: SyncNet. args: of flags.py. folders: (model, result), see run_folder. stop: the signals that
    came, see stop_signals. test: called after every --test_interval epochs, gives further figures by name.
    Making one loads what the run goes on from.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        args: argparse.Namespace,
        folders: tuple[str, str],
        stop: list[int],
        test: Callable[[], dict[str, float]] | None = None,
    ):
        self.network, self.args, self.stop, self.test = network, args, stop, test
        self.model_folder, result_folder = folders
        self.state_file = os.path.join(args.save_path, STATE_FILE)
        pin_memory = network.device.type == "cuda"
        self.train_loader, self.verify_loader = make_loaders(args, result_folder, pin_memory)
        if left_out := self.verify_loader.nFiles % args.nBatchSize:
            print(
                f"{args.verify_list}: validation is on {self.verify_loader.nFiles - left_out} clips; the other "
                f"{left_out} do not fill a batch of {args.nBatchSize} (--nBatchSize)"
            )
        self.loaders = {"train_list": self.train_loader, "verify_list": self.verify_loader}
        lists = {name: getattr(args, name) for name in self.loaders}
        self.settings = binding_settings(vars(args), lists) | kinds_of_steps(network)
        if augmentation := self.train_loader.augmentation:
            self.settings |= augmentation.fingerprints()
            for folder in augmentation.folders:
                print(folder)
        self.position = distributed.of_first(
            lambda: start_position(network, args, self.model_folder, self.settings)
        )
        follow_the_first(network, self.settings)
        self.position.draw_from_here(network.device)
        for name, loader in self.loaders.items():
            loader.hung = [(video, epoch, place) for video, epoch, place in self.position.hung.get(name, ())]
        self.log = None
        if distributed.is_main():
            self.log = TrainingLog(result_folder, vars(args), self.position.epoch, args.tensorboard)

    def train(self) -> None:
        """Train up to --max_epoch. Raises Interrupted when a signal has come and the state is saved.

        The state is saved before what comes after an epoch is written, and again when all of it is: a run that is
        killed between two writes repeats them when it resumes.
        """
        for loader in self.loaders.values():
            loader.check_paths()
        first, last = self.position.epoch, self.args.max_epoch
        if first > last:
            print(f"Nothing to do: {self.args.save_path} has all {last} epochs (--max_epoch)")
        for epoch in range(first, last + 1):
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            print(f"{now} epoch {epoch}, learning rate {learning_rate(self.network):g}", flush=True)
            learnt = self.learn(epoch, self.position.rows if epoch == first else [])
            trained = position_now(epoch, learnt.rows, self.network.device)
            self.save(trained)
            self.stop_if_asked()
            checked = self.check(trained)
            self.stop_if_asked()
            for name, result in (("train", learnt), ("validation", checked)):
                print(f"  {name:10s} {result}")
            self.keep(trained, learnt, checked)
            if epoch < last:
                self.stop_if_asked()
        if first <= last and self.log:
            print(f"Done: {self.checkpoint_of(last)}; curves: {self.log.curves}; figures: {self.log.metrics}")

    def learn(self, epoch: int, rows: list[list[float]]) -> EpochResult:
        """Train for an epoch, of which `rows` are done."""
        self.train_loader.set_epoch(epoch - 1, first_batch=len(rows))
        return self.network.run_epoch(
            self.train_loader,
            alpC=self.args.alphaC,
            alpI=self.args.alphaI,
            alpD=self.args.alphaD,
            rows=rows,
            after_step=partial(self.after_training_step, epoch),
        )

    def check(self, trained: Position) -> EpochResult:
        """Validate. Every part that is trained counts fully, as in the 2020 baseline, whatever its weight.

        It draws the same in every epoch, and takes nothing from what training draws.
        """
        random.seed(self.args.seed)
        self.verify_loader.set_epoch(trained.epoch - 1)
        try:
            return self.network.run_epoch(
                self.verify_loader,
                evalmode=True,
                alpC=float(self.args.alphaC > 0),
                alpI=float(self.args.alphaI > 0),
                alpD=float(self.args.alphaD > 0),
                after_step=lambda step, _: self.stop_if_asked(step),
            )
        finally:
            trained.draw_from_here(self.network.device)

    def after_training_step(self, epoch: int, step: int, rows: Callable[[], list[list[float]]]) -> None:
        stopping = self.stop_asked(step)
        if stopping or (self.args.save_steps and step % self.args.save_steps == 0):
            self.save(position_now(epoch, rows(), self.network.device))
        if stopping:
            raise self.interrupted()

    def keep(self, trained: Position, learnt: EpochResult, checked: EpochResult) -> None:
        """What comes after an epoch: the trial list's figures, the checkpoint, the log, the state."""
        epoch, args = trained.epoch, self.args
        more = scales(self.network) | peak_memory(self.network.device)
        if self.test and epoch % args.test_interval == 0:
            more |= self.test()
        if self.log:
            self.network.saveParameters(self.checkpoint_of(epoch))
            line = self.log.add(epoch, learning_rate(self.network), learnt, checked, more)
            print(f"{line} (TACC, VACC: identity top-1 in percent)", flush=True)
            checkpoints = list(epoch_checkpoints(self.model_folder).items())
            for number, path in checkpoints[: -args.keep] if args.keep else []:
                if number != self.log.best_epoch:
                    os.remove(path)
        decay_learning_rate(self.network, args)
        self.save(position_now(epoch + 1, [], self.network.device))

    def checkpoint_of(self, epoch: int) -> str:
        return os.path.join(self.model_folder, f"model{epoch:09d}.model")

    def save(self, position: Position) -> None:
        """Save the state. All processes must call this at the same step."""
        for name, loader in self.loaders.items():
            loader.hung = position.hung[name] = distributed.union(loader.hung)
        if distributed.is_main():
            save_state(self.state_file, self.network, position, self.settings)

    def stop_asked(self, step: int = 0) -> bool:
        """Has a signal come, here or in another process? All have to stop at the same step, and ask there."""
        looking = step % self.network.steps_per_look == 0
        return looking and distributed.any_of(bool(self.stop), self.network.device)

    def stop_if_asked(self, step: int = 0) -> None:
        """Raise Interrupted when a signal has come; the state must be saved already."""
        if self.stop_asked(step):
            raise self.interrupted()

    def interrupted(self) -> Interrupted:
        return Interrupted(self.stop[0] if self.stop else signal.SIGTERM)


def decay_learning_rate(network: TrainableNetwork, args: argparse.Namespace) -> None:
    """The schedule of the learning rate over epochs: what happens to it after each. There is no other place."""
    network.updateLearningRate(args.lr_decay)


def learning_rate(network: TrainableNetwork) -> float:
    """The learning rate of the next step; of several parameter groups, the highest."""
    return max(float(group["lr"]) for group in network.__optimizer__.param_groups)


def change_learning_rate(network: TrainableNetwork, before: float, now: float) -> None:
    """Make the learning rate what it would be if --lr had been `now` from the start instead of `before`."""
    for group in network.__optimizer__.param_groups:
        for name in {"lr", "initial_lr"} & group.keys():
            group[name] = group[name] * now / before if before else now
    scheduler = network.__scheduler__
    if scheduler and hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [rate * now / before if before else now for rate in scheduler.base_lrs]


def start_position(
    network: TrainableNetwork, args: argparse.Namespace, model_folder: str, settings: dict[str, str]
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
        if not same_steps(state, network):
            print("--force_resume: the optimizer and its scheduler start anew")
        if state["version"] == 1 or not same_steps(state, network):
            for _ in range(1, position.epoch):
                decay_learning_rate(network, args)
        elif (before := float(state["settings"].get("lr", args.lr))) != args.lr:
            held = learning_rate(network)
            change_learning_rate(network, before, args.lr)
            print(
                f"--lr {args.lr:g}: the learning rate is {learning_rate(network):g} in epoch {position.epoch}, where "
                f"--lr {before:g} had come to {held:g}"
            )
        return position
    if state:
        print(f"{state_file} is of epoch {state['epoch']}, older than the checkpoint of epoch {newest}")

    if path := newest_readable(model_folder):
        warn(path, network.loadParameters(path).lines())
        epoch = next(number for number, checkpoint in checkpoints.items() if checkpoint == path)
        print(f"Going on after epoch {epoch} from {path}, without the momentum")
        for _ in range(epoch):
            decay_learning_rate(network, args)
        return position_now(epoch + 1, [], network.device)
    if args.initial_model:
        misfits = network.loadParameters(args.initial_model)
        if len(misfits.lines(needed := needed_weights(network))) == len(needed):
            raise CheckpointError(
                f"{args.initial_model}: no weight of it fits the network; there is nothing to start from. "
                "Is it a checkpoint of SyncNet, and --model the network that it is of?"
            )
        warn(args.initial_model, misfits.lines())
        print(f"Starting from {args.initial_model}")
    return position_now(1, [], network.device)


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


def warn(path: str, misfits: list[str]) -> None:
    if misfits:
        print(
            f"WARNING: {path}: {len(misfits)} names or shapes (listed above) do not fit; they keep their start values"
        )


def make_loaders(args: argparse.Namespace, result_folder: str, pin_memory: bool) -> tuple[DatasetLoader, ...]:
    """The training and the validation loader. Raises MediaError, with the flag that names the list."""

    def make(flag: str, clips: int) -> DatasetLoader:
        file_list = getattr(args, flag)
        try:
            return DatasetLoader(
                file_list,
                clips,
                args.nBatchSize,
                args.maxFrames,
                args.nDataLoaderThread,
                evalmode=flag == "verify_list",
                seed=args.seed,
                pin_memory=pin_memory,
                allow_resize=args.allow_resize,
                max_bad=args.max_bad,
                bad_log=os.path.join(result_folder, "bad_clips.txt"),
                decode_timeout=args.decode_timeout,
                share=(distributed.rank(), distributed.processes()),
                augment_noise=args.augment_noise,
                augment_rir=args.augment_rir,
                augment_prob=args.augment_prob,
                flip=args.flip,
            )
        except TooFewClips as error:
            lists = [read_list(path) for path in (args.train_list, args.verify_list)]
            remedy = sizes_remedy(lists, args.maxFrames, args.nBatchSize, distributed.processes())
            raise MediaError(f"--{flag} {error.found} {remedy}") from None
        except MediaError as error:
            if not str(error).startswith(file_list):
                raise
            raise MediaError(f"--{flag} {error}") from None

    return make("train_list", args.nTrainPerEpoch), make("verify_list", args.nTestPerEpoch)


def scales(network: TrainableNetwork) -> dict[str, float]:
    """The learned scales and biases of the losses."""
    return {name: parameter.item() for name, parameter in network.__L__.named_parameters()}
