"""Voice identity vectors of utterances, for speaker verification; several processes share the files."""

import torch
from torch import Tensor

from syncnet.compute import distributed
from syncnet.media.clips import MediaError
from syncnet.media.crops import crop_samples, spread_crops
from syncnet.networks.embedder import embed_files
from syncnet.networks.interface import Network
from syncnet.networks.output_check import require_identity
from syncnet.support.progress import progress_bar
from syncnet.verification.utterances import check_wavs, read_utterance

FILES_PER_BATCH = 4  # utterances embedded at once, num_eval crops each


def embed_wavs(network: Network, files: list[str], num_eval: int, print_interval: int) -> Tensor:
    """One voice identity vector for each sound file; see SyncNet.embed."""
    require_identity(network)
    check_wavs(files, network.maxFrames)

    def read(file: str) -> Tensor:
        return spread_crops(file, read_utterance(file), crop_samples(network.maxFrames), num_eval)

    # Each process takes every n-th batch of a single-process run, so that all sums are bit-identical.
    rank, processes = distributed.rank(), distributed.processes()
    share = [n for n in range(len(files)) if n // FILES_PER_BATCH % processes == rank]
    embedded = embed_files(network, [files[n] for n in share], read, num_eval, FILES_PER_BATCH * num_eval)
    vectors = torch.zeros(len(files), network.nOut, dtype=torch.float32, device="cpu")
    with progress_bar(
        total=len(files), unit="file", desc="embed", miniters=print_interval, leave=False
    ) as bar:
        for n, (_, crops) in zip(share, embedded, strict=True):
            if isinstance(crops, MediaError):
                raise crops
            vectors[n] = crops.mean(0)
            bar.update(processes)
    return distributed.total(vectors.to(network.device)).cpu()
