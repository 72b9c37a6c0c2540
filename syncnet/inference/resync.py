"""inferSyncNet.py resync: shift the sound of a video so that lips and sound are in sync."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from syncnet.inference.command_flags import (
    COMMAND,
    MODEL,
    PUBLISHED,
    LoadNetwork,
    Problems,
    add_max_offset,
    add_network,
)
from syncnet.inference.offset import Offset, offset
from syncnet.inference.videos import (
    MADE,
    FaceTrack,
    add_track_making,
    measure_each,
    track_rule,
    tracks_of_video,
)
from syncnet.media.clips import FPS, MediaError
from syncnet.support.commands import Parser
from syncnet.support.files import check_output
from syncnet.support.names import counted

HELP = (
    "Write a video with its sound shifted by the measured offset: the video stream is copied without re-encoding, "
    "the sound is shifted by whole samples and keeps its length. Nothing is written if no offset is found or the "
    "faces disagree."
)
EXAMPLE = [
    f"{COMMAND} resync {PUBLISHED} talk.mp4 --output talk_in_sync.mp4",
    f"{COMMAND} resync {MODEL} talk.mkv --output talk_in_sync.mkv",
]
AGREE = 1  # frames by which the offsets of a video's faces may differ


def add_flags(parser: Parser) -> None:
    add_network(parser)
    parser.add_argument("video", help="video in any format")
    parser.add_argument(
        "--output", required=True, metavar="VIDEO", help="video to write; its extension selects the format"
    )
    add_max_offset(parser)
    add_track_making(parser)


def common_offset(measured: Sequence[tuple[FaceTrack, Offset]], video: str) -> Offset:
    """The offset of a video: that of its most confident face track.

    Raises MediaError if no offset is found, or if those found differ by more than a frame.
    """
    found = sorted((m for m in measured if m[1].found == "yes"), key=lambda m: -m[1].confidence)
    if not found:
        best = max((one for _, one in measured), key=lambda one: one.confidence)
        raise MediaError(f"{video}: {best}; nothing is written")
    chosen = found[0][1]
    for track, other in found:
        if abs(other.frames - chosen.frames) > AGREE:
            raise MediaError(
                f"{video}: its faces disagree, nothing is written: {found[0][0]}: {chosen}; {track}: {other}"
            )
    return chosen


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    from syncnet.media.remux import format_of, move_sound

    format_of(args.output)
    check_output("--output", args.output)
    if os.path.exists(args.output) and os.path.samefile(args.output, args.video):
        raise MediaError(f"--output {args.output}: is the video itself; write to another file")
    rule = track_rule(args, MADE)
    network = load_network(args, every_frame=True)
    with tracks_of_video(args, rule, problems, made=False) as tracks:

        def measure(track: FaceTrack) -> Offset:
            return offset(network, track.clip, track.wav, args.max_offset)

        errors: list[MediaError] = []
        each = measure_each(tracks.tracks, measure, errors.append, "offset")
        measured = [(track, one) for track, one in each if one]
        if not measured:
            raise errors[0]
        found = common_offset(measured, args.video)
    print(f"{args.video}: {found} (of {counted(len(tracks.tracks), 'face track')})")
    move_sound(args.video, args.output, found.frames)
    way = "later" if found.frames > 0 else "earlier"
    moved = f"{abs(found.frames) * 1000 // FPS} ms {way}" if found.frames else "as it was, encoded again"
    print(f"{args.output}: its sound is {moved}")
