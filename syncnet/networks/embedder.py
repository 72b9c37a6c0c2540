"""Compute identity embeddings of files, with crops prefetched in threads and embedded in batches."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from syncnet.media.clips import MediaError
from syncnet.networks.interface import Network

Read = TypeVar("Read")

READERS = 2  # threads
FILES_AHEAD = 8


def embed_files(
    network: Network,
    files: Sequence[str],
    read: Callable[[str], Tensor],
    num_eval: int,
    batch: int,
) -> Iterator[tuple[str, Tensor | MediaError]]:
    """Yield each file with the unit-length embeddings of its crops, (num_eval, nOut), as soon as they are computed.

    read: returns the crops of a file, voices or faces as for SyncNet.identity_vectors. batch: crops per forward pass;
    a batch may combine several files. If read raises MediaError, the file is yielded with the error instead.
    Memory use is limited to the crops of one batch and of FILES_AHEAD files.
    """

    def try_read(path: str) -> Tensor | MediaError:
        try:
            return read(path)
        except MediaError as error:
            return error

    waiting: list[tuple[str, Tensor]] = []

    def compute() -> Iterator[tuple[str, Tensor]]:
        paths, crops = zip(*waiting, strict=True)
        waiting.clear()
        vectors = network.identity_vectors(torch.cat(crops), batch)
        del crops
        yield from zip(paths, vectors.unflatten(0, (-1, num_eval)), strict=True)

    for path, crops in zip(files, read_ahead(try_read, files), strict=True):
        if isinstance(crops, MediaError):
            yield path, crops
            continue
        waiting.append((path, crops))
        if len(waiting) * num_eval >= batch:
            yield from compute()
    if waiting:
        yield from compute()


def read_ahead(read: Callable[[str], Read], files: Sequence[str]) -> Iterator[Read]:
    """Yield read(file) for each file in order, reading up to FILES_AHEAD files ahead in threads."""
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[Read]] = deque()
        for file in files:
            ahead.append(pool.submit(read, file))
            if len(ahead) > FILES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
