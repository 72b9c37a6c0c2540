"""One pass over a video file with PyAV, which reads its packets and optionally decodes its pictures."""

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from syncnet.media.clips import FPS
from syncnet.media.open_media import container_kind, tick
from syncnet.media.timeline import DECODING_TIMES

FRAME = 1 / FPS  # seconds
VP8_SHOWN = 0x10  # bit of a VP8 frame's first byte; frames without it are only references for others


def codec_name(stream: VideoStream) -> str:
    """Return FFmpeg's name of the codec; PyAV only has that of the decoder."""
    decoder = stream.codec_context.name
    return "av1" if decoder == "libdav1d" else decoder


def shape_of(picture: VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


class VideoPass:
    """The packets of a video, and the pictures decoded from them.

    decode: decode all pictures. needs_picture: decode at least the first one.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, decode: bool, needs_picture: bool
    ) -> None:
        self.stream = stream
        self.decode = decode
        self.picture: VideoFrame | None = None  # the first one
        self.interlaced = False
        self.changes = False  # size or pixel format changes
        self.reordered = False  # display order differs from decoding order, according to the packets
        self._kind = container_kind(container)
        self._packets = 0
        self._hidden = False  # an edit list hides packets
        self._shown: list[int | None] = []  # time stamps of the packets that no edit list hides
        self._decoded: list[int | None] = []  # time stamps of decoded pictures
        self._refused = 0  # packets rejected by the decoder
        self._end = 0  # time stamp after the last picture
        self._broken = ""
        vp8 = codec_name(stream) == "vp8"
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    self._broken = f"frame {len(self._shown)} is cut off"
                stamp = packet.dts if packet.pts is None else packet.pts
                if (
                    packet.size
                    and not packet.is_discard
                    and not (vp8 and memoryview(packet)[0] & VP8_SHOWN == 0)
                ):
                    self._shown.append(stamp)
                    self._end = max(self._end, (stamp or 0) + (packet.duration or 0))
                self._packets += packet.size > 0
                self._hidden = self._hidden or packet.is_discard
                self.reordered = self.reordered or packet.pts != packet.dts
                if decode or (needs_picture and self.picture is None):
                    self._decode(packet)
        except av.error.FFmpegError as error:
            self._broken = f"broken after {len(self._shown)} frames ({error.strerror})"

    def _decode(self, packet: Packet) -> None:
        try:
            pictures = packet.decode()
        except av.error.FFmpegError:  # _all_decoded() notices the missing picture
            self._refused += 1
        else:
            for picture in pictures:
                self.picture = self.picture or picture
                self.interlaced = self.interlaced or picture.interlaced_frame
                self._decoded.append(picture.pts)
                if shape_of(picture) != shape_of(self.picture):
                    self.changes = True
                if picture.is_corrupt:
                    self._broken = f"frame {len(self._decoded) - 1} is damaged"

    def times(self) -> tuple[float, np.ndarray]:
        """Return the time of the first picture in seconds, and all times relative to it, (frames,) float64."""
        # Pictures come in display order, packets in decoding order.
        in_order = self.decode and self._kind not in DECODING_TIMES and None not in self._decoded
        stamps = self._decoded if in_order else self._shown
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) < len(stamps):  # a container without time stamps
            return 0.0, np.arange(len(stamps)) / float(self.stream.average_rate or FPS)
        if not known:
            return 0.0, np.empty(0)
        times = np.array(known if in_order else sorted(known), np.float64) * float(tick(self.stream))
        return float(times[0]), times - times[0]

    def missing(self) -> str:
        """Describe the part of the file that is missing; "" if it is complete."""
        found = len(self._shown)
        if self._broken or not found:
            return self._broken or "no frames in it"
        if self.decode and not self._all_decoded():
            return f"{len(self._decoded)} of its {found} frames can be decoded"
        stream = self.stream
        # Only mp4 declares the end of its pictures. A truncated file of another kind is complete up to its end, as is
        # the audio converted from it.
        if self._kind != "mp4" or not stream.duration or (stream.frames and self._packets >= stream.frames):
            return ""
        start = stream.start_time or 0
        if not stream.frames:  # the length of a fragmented file may still count from 0
            start = min(0, start)
        # If the pictures start late and are trimmed, the length counts from 0.
        late = min((first + stream.duration - self._end for first in {start, min(start, 0)}), key=abs)
        seconds = float(late * tick(stream))
        # FFmpeg drops the first picture if it was already shown before the trimmed part began.
        if seconds > (FRAME * 1.25 if self._hidden else FRAME / 2):
            return f"{found} frames found, it ends {seconds:.2f} s before its declared end"
        return ""

    def _all_decoded(self) -> bool:
        """Return whether every shown frame was decoded. Some codecs have packets without a picture."""
        if len(self._decoded) == len(self._shown):
            return True
        decoded, shown = (
            [stamp for stamp in stamps if stamp is not None] for stamps in (self._decoded, self._shown)
        )
        without_stamp = len(decoded) < len(self._decoded) or len(shown) < len(self._shown)
        if self._refused or not decoded or without_stamp:
            return False
        ends = (min(decoded), max(decoded)) == (min(shown), max(shown))
        steps = np.diff(np.sort(decoded)) * float(tick(self.stream))
        return ends and bool((steps < 1.5 * FRAME).all())
