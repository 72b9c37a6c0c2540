"""Resume a run from its exact state, else from its newest checkpoint, else start from --initial_model."""

from collections.abc import Callable

from DatasetLoader import DatasetLoader
from syncnet.checkpoints.checkpoints import epoch_checkpoints, read_checkpoint
from syncnet.checkpoints.torch_files import CheckpointError, UnreadableCheckpoint
from syncnet.checkpoints.weights import needed_weights
from syncnet.compute import distributed
from syncnet.loading.augment import LEVELS
from syncnet.training.flags import Flags, defaults
from syncnet.training.run_folder import RunFolder
from syncnet.training.signals import StopRequest
from syncnet.training.state import (
    CLASSES_2020,
    ResumeState,
    binding_settings,
    fit_state,
    optimizer_classes,
    read_state,
    restore,
    same_steps,
    save_state,
    sync_from_rank_zero,
)
from SyncNetDist import SyncNet


class SavedRun:
    """What --save_path holds from an earlier start. Only rank 0 reads the state, once.

    state: the result of read_state; None if there is no state, if it is damaged, or on other ranks. damaged: why it
    could not be read. Raises CheckpointError for a state from a newer version, OSError.
    """

    def __init__(self, save_path: str):
        self.folder = RunFolder(save_path)
        self.state: dict | None = None
        self.damaged: UnreadableCheckpoint | None = None
        if distributed.is_main():
            try:
                self.state = read_state(self.folder.state)
            except UnreadableCheckpoint as error:
                self.damaged = error

    @property
    def settings(self) -> dict[str, str]:
        """The settings recorded in the state, as text; {} without a state."""
        return self.state["settings"] if self.state else {}


class ResumableRun:
    """Saves the exact state of a run, and resumes it, in all processes together.

    loaders: by the name of the flag of their list. The state includes settings and hashes of the lists; a run is not
    resumed if these have changed.
    """

    def __init__(self, network: SyncNet, args: Flags, folder: RunFolder, loaders: dict[str, DatasetLoader]):
        self.network, self.args, self.folder, self.loaders = network, args, folder, loaders
        lists = {name: getattr(args, name) for name in loaders}
        self.settings = binding_settings(vars(args), lists) | optimizer_classes(network)
        if augmentation := loaders["train_list"].augmentation:
            self.settings |= augmentation.fingerprints()

    def resume(self, saved: SavedRun) -> ResumeState:
        """Load weights, optimizer and random state. Returns the position at which the run continues.

        Raises CheckpointError if the settings have changed.
        """
        state = distributed.on_rank_zero(lambda: start_state(self.network, self.args, saved, self.settings))
        saved.state = None  # frees its copy of the weights and the optimizer state
        sync_from_rank_zero(self.network, self.settings)
        state.set_generators(self.network.device)
        for name, loader in self.loaders.items():
            loader.hung = [(video, epoch, place) for video, epoch, place in state.hung.get(name, ())]
        return state

    def save(self, epoch: int, rows: list[list[float]]) -> None:
        """Save the state at this step. All processes must call this at the same step.

        epoch: the current epoch. rows: metrics of its finished steps.
        """
        state = ResumeState.now(epoch, rows, self.network.device)
        for name, loader in self.loaders.items():
            loader.hung = state.hung[name] = distributed.union(loader.hung)
        if distributed.is_main():
            save_state(self.folder.state, self.network, state, self.settings)

    def saves_during(self, epoch: int, request: StopRequest) -> Callable[[int, Callable[[], list]], None]:
        """Return a function to call after each training step, which saves every --save_steps and before stopping."""

        def after_step(step: int, rows: Callable[[], list[list[float]]]) -> None:
            stopping = request.requested(step)
            if stopping or (self.args.save_steps and step % self.args.save_steps == 0):
                self.save(epoch, rows())
            if stopping:
                request.stop()

        return after_step


def start_state(network: SyncNet, args: Flags, saved: SavedRun, settings: dict[str, str]) -> ResumeState:
    """Load the exact state of a run, else its newest checkpoint, else --initial_model, and print which."""
    checkpoints = epoch_checkpoints(saved.folder.model)
    if saved.damaged:
        print(f"WARNING: {saved.damaged}. Resuming from the newest checkpoint instead, without the momentum.")
    if saved.state:
        check_settings(saved, settings, args.force_resume)
    if args.initial_model and (saved.state or saved.damaged or checkpoints):
        print(
            f"--initial_model {args.initial_model} is not used: {args.save_path} holds a run, which resumes"
        )
    newest = max(checkpoints, default=0)
    if saved.state and newest <= saved.state["epoch"]:
        return resume_from_state(network, args, saved)
    if saved.state:
        print(
            f"{saved.folder.state} is of epoch {saved.state['epoch']}, older than the checkpoint of epoch {newest}"
        )
    if path := newest_readable(saved.folder.model):
        epoch = next(number for number, checkpoint in checkpoints.items() if checkpoint == path)
        return resume_from_checkpoint(network, args, path, epoch)
    if args.initial_model:
        load_initial_model(network, args.initial_model)
    return ResumeState.now(1, [], network.device)


def check_settings(saved: SavedRun, settings: dict[str, str], force: bool) -> None:
    """Raise CheckpointError if the run was started with other settings; with force, only print the changes."""
    if not (changed := changed_settings(saved.settings, settings, defaults())):
        return
    listed = "\n  ".join(changed)
    if not force:
        raise CheckpointError(
            f"{saved.folder.state}: the run was started with other settings; use those, another --save_path, "
            f"or --force_resume to resume anyway:\n  {listed}"
        )
    print(f"--force_resume: resuming with other settings:\n  {listed}")


def resume_from_state(network: SyncNet, args: Flags, saved: SavedRun) -> ResumeState:
    """Restore the exact state. Raises CheckpointError if it belongs to another network."""
    assert saved.state is not None
    fitted = fit_state(saved.folder.state, saved.state, network)
    position = restore(fitted, network)
    print(f"Resuming in epoch {position.epoch} after step {len(position.rows)} from {saved.folder.state}")
    same = same_steps(fitted, network)
    if not same:
        print("--force_resume: the optimizer and its scheduler start from scratch")
    if fitted["version"] == 1 or not same:
        decay_learning_rate(network, args, epochs=position.epoch - 1)
    elif (before := float(saved.settings.get("lr", args.lr))) != args.lr:
        held = network.learning_rate
        change_learning_rate(network, before, args.lr)
        print(
            f"--lr {args.lr:g}: the learning rate is {network.learning_rate:g} in epoch {position.epoch}, where "
            f"--lr {before:g} had reached {held:g}"
        )
    return position


def resume_from_checkpoint(network: SyncNet, args: Flags, path: str, epoch: int) -> ResumeState:
    """Load the weights of an epoch; the optimizer starts from scratch, with the learning rate after that epoch."""
    warn_of_misfits(path, network.loadParameters(path).lines())
    print(f"Resuming after epoch {epoch} from {path}, without the momentum")
    decay_learning_rate(network, args, epochs=epoch)
    return ResumeState.now(epoch + 1, [], network.device)


def load_initial_model(network: SyncNet, path: str) -> None:
    """Load the weights of a checkpoint that fit. Raises CheckpointError if none fits."""
    misfits = network.loadParameters(path)
    if len(misfits.lines(needed := needed_weights(network))) == len(needed):
        raise CheckpointError(
            f"{path}: none of its weights fit the network, so there is nothing to start from. "
            "Is it a SyncNet checkpoint, and does --model name its network?"
        )
    warn_of_misfits(path, misfits.lines())
    print(f"Starting from {path}")


def warn_of_misfits(path: str, misfits: list[str]) -> None:
    if misfits:
        print(
            f"WARNING: {path}: {len(misfits)} names or shapes (listed above) do not fit; these keep their initial "
            "values"
        )


def newest_readable(model_folder: str) -> str | None:
    """Return the path of a run's newest checkpoint that is not damaged, or None if there are no checkpoints.

    Raises UnreadableCheckpoint if all checkpoints are damaged.
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


def decay_learning_rate(network: SyncNet, args: Flags, epochs: int = 1) -> None:
    """Step the learning rate schedule (--lr_decay after each epoch) by a number of epochs."""
    for _ in range(epochs):
        network.updateLearningRate(args.lr_decay)


def change_learning_rate(network: SyncNet, before: float, now: float) -> None:
    """Set the learning rate to what it would be if --lr had been `now` from the start instead of `before`."""
    for group in network.__optimizer__.param_groups:
        for name in {"lr", "initial_lr"} & group.keys():
            group[name] = group[name] * now / before if before else now
    scheduler = network.__scheduler__
    if scheduler and hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [rate * now / before if before else now for rate in scheduler.base_lrs]


# Why a setting may have changed, if that is not obvious.
CHANGED_BY = {
    "content of --augment_noise": " (names and sizes of the files, and the level of each, which the names of their "
    f"folders decide, including that of the given folder: {LEVELS}. If you renamed the folder, restore its name)"
}


def changed_settings(old: dict[str, str], new: dict[str, str], defaults: dict[str, object]) -> list[str]:
    """Return one line per setting that differs. Settings missing from an older state had their default values."""
    old = CLASSES_2020 | {name: str(defaults[name]) for name in new if name in defaults} | old
    return [
        f"{name}: {old.get(name, 'not set')} then, {new.get(name, 'not set')} now{CHANGED_BY.get(name, '')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
