"""inferSyncNet.py match: face-voice matching, a test of what the identity loss learns."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from syncnet.inference.command_flags import (
    COMMAND,
    MODEL,
    LoadNetwork,
    Problems,
    add_crops,
    add_network,
    add_resize,
)
from syncnet.inference.defaults import NUM_EVAL, WAYS
from syncnet.inference.protocols import mean_interval
from syncnet.media.clips import Clip, MediaError
from syncnet.media.file_type import VIDEO_FILES
from syncnet.support.commands import Parser, at_least
from syncnet.support.errors import UserError
from syncnet.support.tar_members import path_without_tar

if TYPE_CHECKING:
    from syncnet.inference.embeddings import Skip
    from syncnet.networks.interface import Network

HELP = "Face-voice matching: how often does a face pick its own voice among others, and a voice its own face?"
EXAMPLE = [f"{COMMAND} match {MODEL} data/test.txt --ways 2 10"]


def add_flags(parser: Parser) -> None:
    add_network(parser)
    add_crops(parser)
    add_resize(parser)
    parser.add_argument(
        "list", help="list of clips made by makeFileList.py; <id> in <id>/<ref>/<utt>.mp4 is the speaker"
    )
    parser.add_argument(
        "--ways",
        type=at_least(int, 2),
        nargs="+",
        default=list(WAYS),
        help="number of candidates; 2: one right, one wrong",
    )


@dataclass(frozen=True)
class Matching:
    """Accuracy, in percent, of picking the right one of `ways` candidates, with its 95 % interval."""

    ways: int
    accuracy: float
    low: float
    high: float


def match(
    network: Network,
    clips: Sequence[Clip],
    ways: Sequence[int] = WAYS,
    num_eval: int = NUM_EVAL,
    batch: int | None = None,
    allow_resize: bool = False,
    skip: Skip | None = None,
) -> tuple[list[Matching], list[Matching], list[str]]:
    """How often a face picks its own voice among those of N - 1 other people, and a voice its own face.

    ways: the values of N. For the other arguments, see embed. Returns (face to voice, voice to face, speaker of each
    clip used); see matching_accuracy. Raises MediaError, and UserError for too few speakers, before anything is
    computed if the list has too few.
    """
    import torch

    from syncnet.inference.embeddings import embed

    check_ways(speakers_of_clips([clip.video for clip in clips]), ways)
    heard, voices = embed(network, [c.audio for c in clips], False, num_eval, False, batch, skip=skip)
    voice = dict(zip(heard, voices, strict=True))
    clips = [clip for clip in clips if clip.audio in voice]
    seen, faces = embed(
        network, [c.video for c in clips], True, num_eval, False, batch, allow_resize, skip=skip
    )
    usable = set(seen)
    clips = [clip for clip in clips if clip.video in usable]
    speakers = speakers_of_clips([clip.video for clip in clips])
    check_ways(speakers, ways)
    similarity = (faces @ torch.stack([voice[clip.audio] for clip in clips]).T).numpy()
    there, back = ([matching_accuracy(s, speakers, n) for n in ways] for s in (similarity, similarity.T))
    return there, back, speakers


def speakers_of_clips(videos: Sequence[str]) -> list[str]:
    """The speaker of each video: the folder two levels up, <id> in <id>/<ref>/<utt>.mp4.

    If all videos share that folder, each is its own speaker.
    """
    folders = [os.path.dirname(os.path.dirname(os.path.abspath(path_without_tar(v)))) for v in videos]
    return list(videos) if len(set(folders)) == 1 else folders


def check_ways(speakers: Sequence[str], ways: Sequence[int]) -> None:
    """Raise UserError unless every clip has ways - 1 clips of other speakers to be compared with.

    speakers: one per clip.
    """
    counts = Counter(speakers)
    if len(counts) < 2:
        raise UserError(f"{len(speakers)} clips of {len(counts)} speakers: nothing to tell apart")
    most = len(speakers) - max(counts.values()) + 1
    for count in ways:
        if not 2 <= count <= most:
            raise UserError(
                f"{count}-way matching: there are clips of other speakers for {most} at most, "
                f"of {len(speakers)} clips of {len(counts)} speakers (--ways)"
            )


def matching_accuracy(similarity: np.ndarray, speakers: Sequence[str], ways: int, seed: int = 0) -> Matching:
    """N-way accuracy, averaged exactly over all sets of ways - 1 wrong clips of other speakers.

    similarity: (clips, clips); row i and column i belong together. If b of the m columns of other speakers are at
    least as similar as the right one, a row is matched with probability C(m - b, ways - 1) / C(m, ways - 1), that of
    drawing none of them. The interval is a bootstrap over speakers, since clips of a speaker are not independent.
    Raises UserError if there are too few clips of other speakers.
    """
    from scipy.special import gammaln

    check_ways(speakers, [ways])
    names, index = np.unique(speakers, return_inverse=True)
    other = index[:, None] != index
    columns = other.sum(1)
    better = (other & (similarity >= np.diagonal(similarity)[:, None])).sum(1)
    left = columns - better

    def log_choose(n: np.ndarray) -> np.ndarray:
        return gammaln(n + 1) - gammaln(np.maximum(n - ways + 1, 0) + 1)

    won = np.where(left >= ways - 1, np.exp(log_choose(left) - log_choose(columns)), 0.0)
    totals, counts = np.bincount(index, won), np.bincount(index)
    low, high = mean_interval((totals / counts)[:, None], counts, seed)
    return Matching(ways, 100 * float(won.mean()), 100 * float(low[0]), 100 * float(high[0]))


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    from syncnet.inference.sources import find_sources

    sources = find_sources([args.list], VIDEO_FILES, with_sound=True)
    clips = [source.clip for source in sources if source.clip]
    if len(clips) < len(sources):
        raise MediaError(
            f"{args.list}: needs lines `mp4path wavpath offset frames`, made by makeFileList.py from the face "
            "tracks that makeFaceTracks.py makes of videos"
        )
    network = load_network(args)
    there, back, speakers = match(
        network, clips, args.ways, args.num_eval, args.nBatchSize, args.allow_resize, problems
    )
    print(f"{len(speakers)} clips of {len(set(speakers))} speakers; accuracy in %, with the 95 % interval")
    print("ways  chance  face finds voice        voice finds face")
    for one, other in zip(there, back, strict=True):
        cells = [f"{m.accuracy:6.2f} ({m.low:.2f} - {m.high:.2f})" for m in (one, other)]
        print(f"{one.ways:4d}  {100 / one.ways:6.2f}  {cells[0]:<22}  {cells[1]}")
