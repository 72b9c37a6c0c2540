"""The frames of an MP3 file, which may hold more than sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from syncnet.media.streams import MAX_PADDING, tick

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer

ID3 = b"ID3"  # http://id3.org/id3v2.4.0-structure: 10 bytes, the last four the size of what follows, 7 bits each
TAGS = (ID3, b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # the others reach to the next frame
LONGEST = max(map(len, TAGS))


def mp3_frames(container: InputContainer, sound: AudioStream) -> Iterator[av.AudioFrame]:
    """The decoded frames, one behind the other, as players play them.

    Tags, of which a file that was put together from several has some in its middle, and whatever stands ahead of the
    first frame or behind the last are no sound, and take no time. Raises FFmpegError for a broken file: between its
    frames, or where it ends earlier than its head and its size say.
    """
    import av

    fault: av.error.FFmpegError | None = None
    end: float | None = None  # of the frames so far, in seconds
    left_out, tag_end = 0, 0
    for packet in container.demux(sound):
        head, place = bytes(packet)[:LONGEST], tag_end if packet.pos is None else packet.pos
        if head.startswith(ID3):
            tag_end = place + 10 + int("0" + "".join(f"{byte & 127:07b}" for byte in head[6:10]), 2)
        frames: list[av.AudioFrame] = []
        is_sound = place >= tag_end and not head.startswith(TAGS)
        if is_sound:
            try:
                frames = sound.decode(packet)
            except av.error.FFmpegError as error:
                fault, is_sound = fault or error, False
        if not is_sound:
            left_out += packet.duration or 0
        for frame in frames:
            if fault and end is not None:
                raise fault
            fault = None
            if frame.pts is not None:
                frame.pts -= left_out
            end = (frame.time or 0.0) + frame.samples / frame.sample_rate
            yield frame
    declared = float(((sound.start_time or 0) + (sound.duration or 0)) * tick(sound))
    if fault and (end is None or end < declared - MAX_PADDING):
        raise fault
