"""What PyAV leaves open: how a file is opened safely, and what its streams and frames say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from media.content import MP4

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.frame import Frame
    from av.packet import Packet
    from av.stream import Stream

Track = TypeVar("Track", bound="Stream")
DECODING_TIMES = ("avi",)  # containers that do not say when a packet is shown, only when it is decoded
MAX_RETURN = 1.0  # seconds; where times go back by more, another recording begins
MAX_JUMP = 3600.0  # seconds; where times go on by more, they are broken, or another recording begins
MAX_PADDING = 0.1  # seconds; a track of sound that ends earlier than declared by more than this is broken
MICROSECOND = Fraction(1, 1_000_000)  # FFmpeg's own time base


def open_local(path: str, demuxers: str, kind: str | None = None, **options: str) -> InputContainer:
    """Open a media file by its content, whatever its name, and no other file or address that it may name.

    demuxers: FFmpeg's names of those that may be used, with commas between them; each reads the one file that it is
    given. kind: the content, where it is known. options: further ones of the demuxer. Raises FFmpegError, OSError.
    Close the result.
    """
    import av  # whoever reads wavs alone does without it

    # A title that is not UTF-8 must not keep a file from opening. PyAV 19 does this by itself.
    before_19 = int(av.__version__.split(".")[0]) < 19
    decoding: dict[str, Any] = {"metadata_errors": "surrogateescape"} if before_19 else {}
    # Options of the container alone: PyAV before 16 crashes if streams that turn up later are to have them too.
    return av.open(
        os.path.abspath(path),  # cannot be mistaken for one of FFmpeg's protocols, such as "concat:"
        format="mp4" if kind == MP4 else None,  # VoxCeleb2's; asking every demuxer takes a while
        container_options={"protocol_whitelist": "file", "format_whitelist": demuxers, **options},
        **decoding,
    )


def tick(timed: Stream | Packet | Frame) -> Fraction:
    """Seconds that one step of the time stamps of a stream, packet or frame takes."""
    return timed.time_base or MICROSECOND


def played(tracks: Sequence[Track]) -> Track:
    """The one of several tracks that a player takes: the first that the file marks as default, or else the first.

    One that cannot be decoded is none of them, unless there is no other.
    """
    from av.stream import Disposition

    known = [track for track in tracks if can_be_decoded(track)] or tracks
    return next((track for track in known if track.disposition & Disposition.default), known[0])


def can_be_decoded(track: Stream) -> bool:
    return track.codec_context is not None
