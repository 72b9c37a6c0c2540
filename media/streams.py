"""What PyAV leaves open of the streams and frames of a file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from av.frame import Frame
    from av.packet import Packet
    from av.stream import Stream

Track = TypeVar("Track", bound="Stream")
DECODING_TIMES = ("avi",)  # containers that do not say when a packet is shown, only when it is decoded
MAX_RETURN = 1.0  # seconds; where times go back by more, another recording begins
MAX_JUMP = 3600.0  # seconds; where times go on by more, they are broken, or another recording begins
MICROSECOND = Fraction(1, 1_000_000)  # FFmpeg's own time base


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
