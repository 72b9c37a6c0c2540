"""What would make training fail, or train nothing, checked before it starts."""

from torch import nn

from syncnet.compute import distributed
from syncnet.networks.two_streams import LIP_FRAMES, num_embeddings
from syncnet.support.errors import UserError
from syncnet.training.flags import Flags
from SyncNetDist import SyncNet


def check_batch_share(network: SyncNet, batch: int) -> None:
    """Raise UserError if the batch cannot be divided among the processes, or a share is too small for batch norm.

    That is one embedding of one clip, on CPUs; GPUs normalize over the whole batch.
    """
    distributed.check_batch(batch)
    settings, count = network.settings, distributed.processes()
    one_clip = batch == count > 1 and network.device.type == "cpu"
    one_embedding = num_embeddings(settings.maxFrames, settings.temporal_stride) == 1
    if one_clip and one_embedding and any(isinstance(module, nn.BatchNorm1d) for module in network.modules()):
        raise UserError(
            f"--nBatchSize {batch} gives each of {count} processes one clip, of which --maxFrames "
            f"{settings.maxFrames} at --temporal_stride {settings.temporal_stride} makes one embedding: nothing to "
            f"normalize by on a CPU; use --nBatchSize {2 * batch}, or --maxFrames "
            f"{LIP_FRAMES + settings.temporal_stride}"
        )


def check_tasks(network: SyncNet, args: Flags) -> None:
    """Raise UserError for a loss to be trained whose embeddings the network does not have."""
    for name, weight, available in (
        ("content", "alphaC", network.has_content),
        ("identity", "alphaI", network.has_identity),
    ):
        if vars(args)[weight] and not available:
            raise UserError(
                f"{args.model} has no {name} heads, and --{weight} {vars(args)[weight]:g} trains them. Use "
                f"--{weight} 0, or another --model or --initial_model"
            )
