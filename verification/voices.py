"""Speaker verification from one vector an utterance: embeddings, trial lists and their scores."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from DatasetLoader import WINDOW_TAIL, check_length, loadWAV
from media.clips import SAMPLES_PER_FRAME, MediaError, text_lines
from media.wav import WavFormatError, check_heard, open_wav
from models.losses import unit
from models.twoStreams import identity_of
from support import distributed
from support.progress import progress_bar

if TYPE_CHECKING:
    from SyncNetDist import SyncNet

FEATURES_PER_FRAME = 4  # audio feature frames a video frame
FILES_PER_BATCH = 4  # utterances embedded at once, num_eval crops each
READERS = 2  # threads that read utterances ahead

TRIALS_PER_BLOCK = 512  # scored at once: few enough to stay in the processor's cache


@dataclass(frozen=True)
class Trials:
    """A trial list: trial i compares files[first[i]] with files[second[i]].

    labels: (N,) int, 1 = same speaker, 0 = different; None for a list without labels.
    files: the distinct names, in order of first appearance.
    """

    files: list[str]
    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray | None


def read_trials(path: str) -> Trials:
    """Read `label fileA fileB` or `fileA fileB` lines, separated by white space or tabs.

    Raises MediaError naming file and line.
    """
    index: dict[str, int] = {}
    pairs, labels = [], []
    for where, line in text_lines(path, "Lines are `label fileA fileB`."):
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) == 2 and fields[0] in ("0", "1"):  # a tab after the label alone
            fields = line.split()
        if not pairs:
            width = len(fields)
        if len(fields) not in (2, 3) or len(fields) != width or not all(fields):
            raise MediaError(
                f"{where}: found {len(fields)} fields, expected "
                "`label fileA fileB` (or `fileA fileB` in every line)"
            )
        if width == 3 and fields[0] not in ("0", "1"):
            raise MediaError(f"{where}: label {fields[0]!r}, expected 1 (same speaker) or 0")
        if width == 3:
            labels.append(int(fields[0]))
        pairs.append([index.setdefault(name, len(index)) for name in fields[-2:]])
    if not pairs:
        raise MediaError(f"{path}: the trial list is empty")
    first, second = np.array(pairs).T
    return Trials(list(index), first, second, np.array(labels) if labels else None)


def score_trials(vectors: Tensor, trials: Trials) -> np.ndarray:
    """Scores of all trials: the dot products of their vectors, (N,) float32.

    vectors: (files, nOut) float32, each the mean of the unit vectors of a file's crops. The mean of
    the 10 x 10 cosine similarities of the 2020 baseline is exactly this dot product.
    """
    first, second = torch.from_numpy(trials.first), torch.from_numpy(trials.second)
    blocks = [
        vectors[a].mul_(vectors[b]).sum(1)
        for a, b in zip(first.split(TRIALS_PER_BLOCK), second.split(TRIALS_PER_BLOCK), strict=True)
    ]
    return torch.cat(blocks).numpy()


def check_wavs(files: list[str], maxFrames: int, folder: str = "") -> None:
    """Raise MediaError for the first file that is no 16 kHz mono int16 wav longer than a crop, or is silent.

    folder: where all of them lie, for the message.
    """
    for file in files:
        try:
            samples = open_wav(file)
        except WavFormatError as error:
            raise (error.for_all_in(folder) if folder else error) from None
        check_length(file, len(samples), maxFrames * SAMPLES_PER_FRAME + WINDOW_TAIL)
        check_heard(file, samples)


@torch.inference_mode()
def embed_wavs(network: "SyncNet", files: list[str], num_eval: int, print_interval: int) -> Tensor:
    """One voice identity vector a wav; see SyncNet.embed."""
    features = network.maxFrames * FEATURES_PER_FRAME
    check_wavs(files, network.maxFrames)
    network.eval()

    def read(file: str) -> Tensor:
        return loadWAV(file, features, evalmode=True, num_eval=num_eval)

    # Several processes share out the batches that a single one has: the same sums, bit by bit.
    batches = [files[i : i + FILES_PER_BATCH] for i in range(0, len(files), FILES_PER_BATCH)]
    mine = range(distributed.rank(), len(batches), distributed.processes())
    vectors = torch.zeros(len(files), network.nOut)
    with progress_bar(
        total=len(files), unit="file", desc="embed", miniters=print_interval, leave=False
    ) as bar:
        crops = read_ahead(read, [file for number in mine for file in batches[number]])
        for number in mine:
            batch = list(itertools.islice(crops, len(batches[number])))
            with network.autocast():
                identity = identity_of(network.__S__.forward_aud(torch.cat(batch).to(network.device)))
            mean = unit(identity.float().mean(2)).unflatten(0, (len(batch), num_eval)).mean(1)
            first = number * FILES_PER_BATCH
            vectors[first : first + len(batch)] = mean.cpu()
            bar.update(len(batch) * distributed.processes())
    return distributed.total(vectors.to(network.device)).cpu()


def read_ahead(read: Callable[[str], Tensor], files: list[str]) -> Iterator[Tensor]:
    """read(file) for each file in order, a bounded number ahead in threads."""
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque = deque()
        for file in files:
            ahead.append(pool.submit(read, file))
            if len(ahead) > 2 * FILES_PER_BATCH:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
