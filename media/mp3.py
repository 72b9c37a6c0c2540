"""The frames of an MP3 file, which may hold more than sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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
    first frame are no sound, and take no time. Raises FFmpegError where it is broken, or has no frame.
    """
    import av

    fault: av.error.FFmpegError | None = None
    heard = False
    left_out, tag_end = 0, 0
    for packet in container.demux(sound):
        head, place = bytes(packet)[:LONGEST], packet.pos or 0
        if head.startswith(ID3):
            tag_end = place + 10 + int("".join(f"{byte & 127:07b}" for byte in head[6:10]), 2)
        is_sound = place >= tag_end and not head.startswith(TAGS)
        frames: list[av.AudioFrame] = []
        if is_sound:
            try:
                frames = sound.decode(packet)
            except av.error.FFmpegError as error:
                if heard:
                    raise
                fault, is_sound = error, False
        if not is_sound:
            left_out += packet.duration or 0
        for frame in frames:
            heard = True
            if frame.pts is not None:
                frame.pts -= left_out
            yield frame
    if fault and not heard:
        raise fault
