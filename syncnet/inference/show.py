"""inferSyncNet.py show: draw the face tracks of a video on it, green where a face speaks in sync, else red."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from syncnet.inference.command_flags import (
    COMMAND,
    PUBLISHED,
    LoadNetwork,
    Problems,
    add_network,
    add_windows,
)
from syncnet.inference.defaults import MAX_OFFSET, WINDOWS_AT_ONCE
from syncnet.inference.lse import HEADER, line_of
from syncnet.inference.videos import (
    MADE,
    FaceTrack,
    add_track_making,
    is_rule_given,
    measure_each,
    track_rule,
    tracks_of_video,
)
from syncnet.media.clips import MediaError
from syncnet.support.commands import Parser
from syncnet.support.files import check_output
from syncnet.support.names import counted
from syncnet.support.progress import progress_bar
from syncnet.tracks.track_settings import KINDS, Rule

if TYPE_CHECKING:
    from syncnet.inference.embeddings import Skip
    from syncnet.inference.lip_sync import LipSync
    from syncnet.networks.interface import Network

HELP = "Draw the face tracks of a video on it, each with its confidence: green where it speaks in sync, else red."
EXAMPLE = [
    f"{COMMAND} show {PUBLISHED} --video my_videos/talk.mp4 --output seen.mp4",
    f"{COMMAND} show {PUBLISHED} --tracks my_tracks --video my_videos/talk.mp4 --output seen.mp4",
]


def add_flags(parser: Parser) -> None:
    add_network(parser)
    add_windows(parser)
    parser.add_argument(
        "--video", required=True, help="the source video of the tracks, in any format and size"
    )
    parser.add_argument(
        "--output", required=True, metavar="MP4", help="the video to write, at 25 frames per second"
    )
    parser.add_argument(
        "--in_sync",
        type=float,
        metavar="CONFIDENCE",
        help="smallest confidence of a frame with a green box; by default 3 with syncnet_v2.model, else 0.15",
    )
    add_track_making(parser)


def show(
    network: Network,
    tracks: str,
    video: str,
    output: str,
    in_sync: float | None = None,
    max_offset: int = MAX_OFFSET,
    batch: int = WINDOWS_AT_ONCE,
    skip: Skip | None = None,
) -> list[tuple[str, LipSync | None]]:
    """Measure the tracks that makeFaceTracks.py made from a video, and draw them on it, into the mp4 `output`.

    tracks: folder that makeFaceTracks.py wrote. in_sync: smallest confidence of a frame with a green box; None: the
    usual one of the network. skip: called with the error of each track that cannot be measured, which then has a gray
    box; if None, the error is raised. For the other arguments, see lse(). Returns each track's mp4 and its lip sync,
    None if not measured. Raises MediaError, OSError.
    """
    from syncnet.inference.drawing import SeenFace, confidence_of_frames, draw_video, find_tracks
    from syncnet.inference.lip_sync import in_sync_confidence, lse
    from syncnet.tracks.track_files import read_track_boxes

    found_tracks = []
    for name in find_tracks(tracks, video):
        mp4, wav, txt = (os.path.join(tracks, kind, f"{name}.{kind}") for kind in KINDS)
        found_tracks.append(FaceTrack(mp4, wav, name, video, boxes=txt))
    if os.path.exists(output) and os.path.samefile(output, video):
        raise MediaError(f"{output}: is the source video itself; write to another file")

    def measure(track: FaceTrack) -> LipSync:
        return lse(network, track.clip, track.wav, max_offset, batch)

    def stop(error: MediaError) -> None:
        raise error

    measured, faces = [], []
    for track, found in measure_each(found_tracks, measure, skip or stop):
        first, boxes = read_track_boxes(track.boxes)
        measured.append((track.clip, found))
        faces.append(SeenFace(first, boxes, confidence_of_frames(found, len(boxes))))
    threshold = in_sync_confidence(network) if in_sync is None else in_sync
    with progress_bar(unit="frame", desc="drawing", leave=False) as bar:

        def shown(slots: int, declared: int | None) -> None:
            bar.total = declared
            bar.update(slots - bar.n)

        draw_video(video, faces, output, threshold, shown)
    return measured


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    check_output("--output", args.output)
    rule = track_rule(args, MADE)
    network = load_network(args, every_frame=True)
    with tracks_folder(args, rule, problems) as folder:
        measured = show(
            network,
            folder,
            args.video,
            args.output,
            args.in_sync,
            args.max_offset,
            args.nBatchSize,
            problems,
        )
    print(HEADER)
    for clip, found in measured:
        if found:
            print(line_of(clip, found))
    print(f"{args.output}: {args.video} with {counted(len(measured), 'face track')}")


@contextlib.contextmanager
def tracks_folder(args: argparse.Namespace, rule: Rule, problems: Problems) -> Iterator[str]:
    """The folder with the face tracks of --video, which are made if they are missing. Raises MediaError."""
    from syncnet.inference.drawing import NoTracksError, find_tracks

    above = os.path.dirname((args.tracks or "").rstrip(os.sep))
    if args.tracks and not is_rule_given(args):
        try:
            find_tracks(args.tracks, args.video)
        except NoTracksError:
            if above and os.path.isfile(os.path.join(above, "tracks.csv")):
                raise
        else:
            yield args.tracks
            return
    with tracks_of_video(args, rule, problems) as tracks:
        yield tracks.folder
