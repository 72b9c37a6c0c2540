"""Check, before training starts, for conditions that would make it fail or train nothing."""

import contextlib
import os
import socket

from torch import nn

from syncnet.checkpoints.torch_files import CheckpointError
from syncnet.compute import distributed
from syncnet.media.clips import LIP_FRAMES
from syncnet.networks.two_streams import num_embeddings
from syncnet.support.errors import UserError
from syncnet.training.flags import Flags
from syncnet.training.resume import SavedRun
from syncnet.training.state import read_state
from SyncNetDist import SyncNet


def check_batch_share(network: SyncNet, batch: int) -> None:
    """Raise UserError if the batch cannot be divided among the processes, or a share is too small for batch norm.

    A share is too small if it is one embedding of one clip on a CPU; GPUs normalize over the whole batch.
    """
    distributed.check_batch(batch)
    settings, count = network.settings, distributed.processes()
    one_clip = batch == count > 1 and network.device.type == "cpu"
    one_embedding = num_embeddings(settings.maxFrames, settings.temporal_stride) == 1
    if one_clip and one_embedding and any(isinstance(module, nn.BatchNorm1d) for module in network.modules()):
        raise UserError(
            f"--nBatchSize {batch} gives each of {count} processes one clip, with one embedding at --maxFrames "
            f"{settings.maxFrames} --temporal_stride {settings.temporal_stride}: batch norm on a CPU needs more; "
            f"use --nBatchSize {2 * batch}, or --maxFrames "
            f"{LIP_FRAMES + settings.temporal_stride}"
        )


def check_tasks(network: SyncNet, args: Flags) -> None:
    """Raise UserError if the network lacks the heads for a loss with a nonzero weight."""
    for name, weight, available in (
        ("content", "alphaC", network.has_content),
        ("identity", "alphaI", network.has_identity),
    ):
        if vars(args)[weight] and not available:
            raise UserError(
                f"{args.model} has no {name} heads, and --{weight} {vars(args)[weight]:g} trains them. Use "
                f"--{weight} 0, or another --model or --initial_model"
            )


def check_newest_state(saved: SavedRun) -> None:
    """Raise UserError if another machine's --save_path holds a newer state than that of rank 0, which decides.

    This happens if the folder is not shared and rank 0 is now on another machine. Without this check, the run would
    restart from an older state or from the beginning. All processes must call this.
    """
    if distributed.processes() == 1:
        return
    state = saved.state
    if not distributed.is_main() and os.environ.get("LOCAL_RANK") == "0":
        with contextlib.suppress(CheckpointError, OSError):
            state = read_state(saved.folder.state)
    found = (state["epoch"], len(state["rows"])) if state else (0, 0)
    everywhere = distributed.union([(*found, -distributed.rank(), socket.gethostname())])
    epoch, steps, rank, host = everywhere[-1]
    if rank:
        before, done, _, first = next(place for place in everywhere if place[2] == 0)
        has = f"is in epoch {before} after step {done}" if before else "has no state"
        raise UserError(
            f"{saved.folder.state}: the run is in epoch {epoch} after step {steps} on {host} (process {-rank}), and "
            f"{has} on {first} (process 0), which decides where to resume. --save_path must be a folder that all "
            f"machines share; or copy it from {host} to {first}"
        )
