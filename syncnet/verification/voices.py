"""From utterances to one vector each, for speaker verification."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from syncnet.compute import distributed
from syncnet.media.crops import crop_samples, spread_crops
from syncnet.networks.interface import Network
from syncnet.networks.output_check import require_identity
from syncnet.support.progress import progress_bar
from syncnet.verification.utterances import check_wavs, read_utterance

Read = TypeVar("Read")

FILES_PER_BATCH = 4  # utterances embedded at once, num_eval crops each
READERS = 2  # threads that read utterances ahead


def embed_wavs(network: Network, files: list[str], num_eval: int, print_interval: int) -> Tensor:
    """One voice identity vector for each sound file; see SyncNet.embed."""
    require_identity(network)
    check_wavs(files, network.maxFrames)

    def read(file: str) -> Tensor:
        return spread_crops(file, read_utterance(file), crop_samples(network.maxFrames), num_eval)

    # Several processes share out the batches that a single one has: the same sums, bit by bit.
    batches = [files[i : i + FILES_PER_BATCH] for i in range(0, len(files), FILES_PER_BATCH)]
    mine = range(distributed.rank(), len(batches), distributed.processes())
    vectors = torch.zeros(len(files), network.nOut, dtype=torch.float32, device="cpu")
    with progress_bar(
        total=len(files), unit="file", desc="embed", miniters=print_interval, leave=False
    ) as bar:
        crops = read_ahead(read, [file for number in mine for file in batches[number]])
        for number in mine:
            batch = torch.cat(list(itertools.islice(crops, len(batches[number]))))
            made = network.identity_vectors(batch, len(batch)).unflatten(0, (-1, num_eval)).mean(1)
            first = number * FILES_PER_BATCH
            vectors[first : first + len(made)] = made
            bar.update(len(made) * distributed.processes())
    return distributed.total(vectors.to(network.device)).cpu()


def read_ahead(read: Callable[[str], Read], files: list[str]) -> Iterator[Read]:
    """read(file) for each file in order, a bounded number ahead in threads."""
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[Read]] = deque()
        for file in files:
            ahead.append(pool.submit(read, file))
            if len(ahead) > 2 * FILES_PER_BATCH:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
