"""The folder of a training run, --save_path: model/ and result/ in it, its lock, its checkpoints."""

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
    """Where a run writes: checkpoints to `model`, figures to `result`, the exact state to the file `state`."""

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
        """Remove all checkpoints but the newest `keep` (0: all stay) and that of the best epoch."""
        checkpoints = list(epoch_checkpoints(self.model).items())
        for epoch, path in checkpoints[:-keep] if keep else []:
            if epoch != best_epoch:
                os.remove(path)


@contextmanager
def run_folder(save_path: str, network: nn.Module) -> Iterator[RunFolder]:
    """Create a run's folders and lock them against a second run.

    The lock ends with the process, however it ends. Raises OSError, saying what to do, if another run has the lock
    or the disk has no room for a checkpoint and two states.
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
        # A checkpoint, and the previous state beside the state being written (weights and momenta each).
        needed = 5 * sum(tensor.nbytes for tensor in network.state_dict().values())
        free = shutil.disk_usage(save_path).free
        if free < needed:
            raise OSError(
                f"{save_path}: {free / 2**20:.0f} MiB free, a checkpoint and two training states "
                f"need {needed / 2**20:.0f} MiB. Make room, or use another --save_path."
            )
        distributed.wait_for_all()
        yield folder
