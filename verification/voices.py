"""From utterances to one vector each, for speaker verification."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from media.crops import check_length, crop_samples, spread_crops
from media.wav import WavFormatError, check_heard, open_wav
from models.interface import Network
from support import distributed
from support.progress import progress_bar

Read = TypeVar("Read")

FILES_PER_BATCH = 4  # utterances embedded at once, num_eval crops each
READERS = 2  # threads that read utterances ahead


def check_wavs(files: list[str], maxFrames: int, folder: str = "") -> None:
    """Raise MediaError for the first file that is no 16 kHz mono int16 wav longer than a crop, or is silent.

    folder: where all of them lie, for the message.
    """
    for file in files:
        try:
            samples = open_wav(file)
        except WavFormatError as error:
            raise (error.for_all_in(folder) if folder else error) from None
        check_length(file, len(samples), crop_samples(maxFrames))
        check_heard(file, samples)


def embed_wavs(network: Network, files: list[str], num_eval: int, print_interval: int) -> Tensor:
    """One voice identity vector a wav; see SyncNet.embed."""
    check_wavs(files, network.maxFrames)

    def read(file: str) -> Tensor:
        return spread_crops(file, open_wav(file), crop_samples(network.maxFrames), num_eval)

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
