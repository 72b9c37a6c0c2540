"""One pass over a video file with PyAV: what its packets say, and its pictures where they are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from syncnet.media.clips import FPS
from syncnet.media.open_video import FRAME
from syncnet.media.streams import DECODING_TIMES, tick

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VP8_SHOWN = 0x10  # bit of a VP8 frame's first byte; others only serve to predict from
CUT_OFF = 0.1  # seconds missing at the end, where the header has the length of the longest track only


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's name of the codec; PyAV has that of the decoder."""
    decoder = stream.codec_context.name
    return "av1" if decoder == "libdav1d" else decoder


def shape_of(picture: VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


class VideoPass:
    """One pass over a video: the packets, and the pictures that were decoded on the way."""

    def __init__(self, decode: bool, needs_picture: bool) -> None:
        self.decode = decode
        self.needs_picture = needs_picture
        self.picture: VideoFrame | None = None  # the first one
        self.interlaced = False
        self.changes = False  # of size or pixel format
        self.reordered = False  # do packets say that they are shown in another order than decoded?
        self._decoding_times = False  # are the time stamps those of decoding, in another order than shown?
        self._packets = 0
        self._hidden = False  # does an edit list hide packets?
        self._shown: list[int | None] = []  # time stamps of the packets that an edit list does not hide
        self._decoded: list[int | None] = []  # time stamps of pictures
        self._refused = 0  # packets by the decoder
        self._end = 0.0  # seconds
        self._broken = ""

    def at(self, container: InputContainer, stream: VideoStream) -> None:
        """Look at every packet. Where only the file as a whole has a length, the sound counts for it too."""
        import av

        streams = [stream] if stream.duration else [stream, *container.streams.audio]
        ends = {one.index: 0 for one in streams}
        vp8 = codec_name(stream) == "vp8"
        self._decoding_times = container.format.name in DECODING_TIMES
        try:
            for packet in container.demux(streams):
                shown = (
                    packet.size
                    and not packet.is_discard
                    and not (vp8 and memoryview(packet)[0] & VP8_SHOWN == 0)
                )
                stamp = packet.dts if packet.pts is None else packet.pts
                if shown and stamp is not None:
                    ends[packet.stream_index] = max(ends[packet.stream_index], stamp + (packet.duration or 0))
                if packet.stream is not stream:  # stream_index is 0 for what ends any stream
                    continue
                if packet.is_corrupt:
                    self._broken = f"frame {len(self._shown)} is cut off"
                if shown:
                    self._shown.append(stamp)
                self._packets += packet.size > 0
                self._hidden = self._hidden or packet.is_discard
                self.reordered = self.reordered or packet.pts != packet.dts
                if self.decode or (self.needs_picture and self.picture is None):
                    self._decode(packet)
        except av.error.FFmpegError as error:
            self._broken = f"broken after {len(self._shown)} frames ({error.strerror})"
        self._end = max(float(ends[one.index] * tick(one)) for one in streams)

    def _decode(self, packet: Packet) -> None:
        import av

        try:
            pictures = packet.decode()
        except av.error.FFmpegError:  # a picture too few is noticed afterwards
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

    def times(self, stream: VideoStream) -> tuple[float, np.ndarray]:
        """When the first picture is shown, and all of them after it: seconds, (frames,) float64 seconds."""
        # Pictures come in the order in which they are shown, packets in that in which they are decoded.
        in_order = self.decode and not self._decoding_times and None not in self._decoded
        stamps = self._decoded if in_order else self._shown
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) < len(stamps):  # a container without time stamps
            return 0.0, np.arange(len(stamps)) / float(stream.average_rate or FPS)
        if not known:
            return 0.0, np.empty(0)
        times = np.array(known if in_order else sorted(known), np.float64) * float(tick(stream))
        return float(times[0]), times - times[0]

    def _all_decoded(self, stream: VideoStream) -> bool:
        """Has every frame that is shown become a picture? Some codecs have packets that show nothing."""
        if len(self._decoded) == len(self._shown):
            return True
        decoded, shown = (
            [stamp for stamp in stamps if stamp is not None] for stamps in (self._decoded, self._shown)
        )
        without_stamp = len(decoded) < len(self._decoded) or len(shown) < len(self._shown)
        if self._refused or not decoded or without_stamp:
            return False
        ends = (min(decoded), max(decoded)) == (min(shown), max(shown))
        steps = np.diff(np.sort(decoded)) * float(tick(stream))
        return ends and bool((steps < 1.5 * FRAME).all())

    def missing(self, container: InputContainer, stream: VideoStream) -> str:
        """What of the file is not there, or ""."""
        found = len(self._shown)
        if self._broken or not found:
            return self._broken or "no frames in it"
        if self.decode and not self._all_decoded(stream):
            return f"{len(self._decoded)} frames can be decoded, {found} are in it"
        if stream.frames and self._packets >= stream.frames:
            return ""
        kind = container.format.name.split(",")[0]  # all of a demuxer's names, or the one it was asked for by
        if kind in ("mov", "mp4"):  # says when a track ends, edit lists considered
            if stream.duration:
                start = stream.start_time or 0
                if not stream.frames:  # a fragmented file, whose length may count from 0 all the same
                    start = min(0, start)
                # Where pictures begin late and are trimmed, the length counts from 0.
                ends = [float((first + stream.duration) * tick(stream)) for first in {start, min(start, 0)}]
                # The first picture may have been up before the trimmed part began: FFmpeg leaves it out.
                allowed = FRAME * 1.25 if self._hidden else FRAME / 2
                end = min(ends, key=lambda end: abs(end - self._end))
                if end - self._end > allowed:
                    return f"{found} frames found, it ends {end - self._end:.2f} s before its declared end"
        elif kind == "avi":  # counts frames, and one or two that stand for "as before"
            # Written into a pipe, it has a number that stands for "many".
            counted = stream.frames <= container.size
            if counted and stream.average_rate == FPS and stream.frames - self._packets > 2:
                return f"{self._packets} frames found, {stream.frames} declared"
        elif not stream.duration and container.duration:
            end = container.duration / 1e6
            if end - self._end > CUT_OFF:
                return f"{found} frames found, it ends {end - self._end:.2f} s before its declared end"
        return ""
