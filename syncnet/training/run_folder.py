"""The folder of a training run, --save_path, with model/ and result/, its lock and its checkpoints."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from syncnet.checkpoints.checkpoints import epoch_checkpoints
from syncnet.compute import distributed
from syncnet.support.files import lock_file, remove_leftovers


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run: folders `model` (checkpoints) and `result` (metrics), and file `state` (exact state)."""

    path: str

    @property
    def model(self) -> str:
        return os.path.join(self.path, "model")

    @property
    def result(self) -> str:
        return os.path.join(self.path, "result")

    @property
    def state(self) -> str:
        return os.path.join(self.path, "training_state.pt")

    def checkpoint(self, epoch: int) -> str:
        return os.path.join(self.model, f"model{epoch:09d}.model")

    def remove_old_checkpoints(self, keep: int, best_epoch: int | None) -> None:
        """Remove all checkpoints except the newest `keep` (0: keep all) and that of the best epoch."""
        checkpoints = list(epoch_checkpoints(self.model).items())
        for epoch, path in checkpoints[:-keep] if keep else []:
            if epoch != best_epoch:
                os.remove(path)


@contextmanager
def run_folder(save_path: str, network: nn.Module) -> Iterator[RunFolder]:
    """Create a run's folders and lock them against a second run.

    The lock ends with the process, even if it is killed. Raises OSError, with a remedy, if another run holds the lock
    or the disk lacks space for a checkpoint and two states.
    """
    folder = RunFolder(save_path)
    if not distributed.is_main():
        distributed.wait_for_all()
        yield folder
        return
    for path in (folder.model, folder.result):
        os.makedirs(path, exist_ok=True)
    taken = f"{save_path}: another run is using it. Stop that one, or use another --save_path."
    with lock_file(os.path.join(save_path, "lock"), taken):
        for path in (save_path, folder.model, folder.result):
            remove_leftovers(glob.glob(os.path.join(glob.escape(path), "*.part")))
        # A checkpoint, the previous state, and the state being written (weights and momenta in each state).
        needed = 5 * sum(tensor.nbytes for tensor in network.state_dict().values())
        free = shutil.disk_usage(save_path).free
        if free < needed:
            raise OSError(
                f"{save_path}: {free / 2**20:.0f} MiB free, a checkpoint and two training states "
                f"need {needed / 2**20:.0f} MiB. Free some space, or use another --save_path."
            )
        distributed.wait_for_all()
        yield folder
