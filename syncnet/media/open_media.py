"""Open audio and video files, and choose the streams to use; every command uses these rules."""

import re
from fractions import Fraction
from typing import Any

import av
from av import logging
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.frame import Frame
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from syncnet.media.clips import MediaError
from syncnet.media.file_type import EMPTY, MP4, RIFX, TEXT, UNKNOWN, get_again, sniff_content
from syncnet.support.tar_members import name_for_ffmpeg

# FFmpeg demuxers that read only the given file. Playlists, which refer to other files, are excluded.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,asf,mxf,ogg,nut,rm,dv,gxf,wtv,"
    "h264,hevc,ivf,obu,m4v,mpegvideo,wav,w64,aiff,au,caf,nistsphere,flac,mp3,aac,ac3,eac3,amr,wv,"
    "ape,dsf,dts,mpc,mpc8,sox,tak,tta,voc"
)
LOCAL_ONLY = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}  # a crafted file may contain URLs
SEARCH = "50000000"  # bytes and microseconds that FFmpeg may read to find all streams of an MPEG file
MICROSECOND = Fraction(1, 1_000_000)  # FFmpeg's internal time base
STILLS = ("mjpeg", "png", "apng", "bmp", "gif", "tiff", "webp", "jpegls")  # codecs of thumbnails
PQ, HLG = HDR_TRANSFERS = (16, 18)  # transfer functions of HDR, as numbered in ITU-T H.273
# Since version 17, PyAV starts one thread per core for every picture that it converts.
ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
UNKNOWN_CODEC = "its sound cannot be decoded here; convert it with a program that can play it"


class NotMediaError(MediaError):
    """A file is neither audio nor video, or its beginning is damaged. found: the message without the remedy."""

    def __init__(self, found: str, remedy: str = "") -> None:
        super().__init__(f"{found}; {remedy}" if remedy else found)
        self.found = found


def open_media(path: str, **options: str) -> InputContainer:
    """Open an audio or video file by content, regardless of its name. The caller closes the container.

    options: additional demuxer options for FFmpeg. Raises NotMediaError, or MediaError if the file cannot be read.
    """
    kind = UNKNOWN
    try:
        kind = sniff_content(path)
        if kind == EMPTY:
            raise NotMediaError(f"{path}: empty (0 bytes)", get_again(path))
        if kind == TEXT:
            raise NotMediaError(f"{path}: a text file, neither sound nor video")
        if kind == RIFX:  # FFmpeg decodes it to noise
            raise NotMediaError(f"{path}: a big-endian wav (RIFX)", "write it as a RIFF wav")
        # A title that is not UTF-8 must not keep a file from opening. PyAV 19 handles this itself.
        before_19 = int(av.__version__.split(".")[0]) < 19
        decoding: dict[str, Any] = {"metadata_errors": "surrogateescape"} if before_19 else {}
        with name_for_ffmpeg(path) as name:
            return av.open(
                name,
                format="mp4" if kind == MP4 else None,  # VoxCeleb2's; probing all demuxers takes a while
                # Container options only: PyAV before 16 crashes if streams that appear later get options.
                container_options={**LOCAL_ONLY, "analyzeduration": SEARCH, **options},
                **decoding,
            )
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        if kind == UNKNOWN:
            raise NotMediaError(f"{path}: neither sound nor video of a known kind ({reason})") from None
        raise NotMediaError(f"{path}: {kind}, cut off or damaged ({reason})", get_again(path)) from None
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened: {error.strerror}") from None


def tick(timed: Stream | Packet | Frame) -> Fraction:
    """Return the time base of a stream, packet or frame in seconds."""
    return timed.time_base or MICROSECOND


def container_kind(container: InputContainer) -> str:
    """Return FFmpeg's first name for the container format; "mp4" for mov, which is the same format."""
    kind = container.format.name.split(",")[0]
    return "mp4" if kind == "mov" else kind


def picture_stream(container: InputContainer) -> VideoStream | None:
    """Return the video stream to use: the default one, then the largest; None if there is none.

    Cover art and thumbnails are ignored. A still-image codec (as in Motion JPEG) or a stream without a decoder is
    chosen only if there is no other.
    """
    others = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & others]

    def rank(stream: VideoStream) -> tuple:
        context = stream.codec_context
        known = context is not None
        return (
            known,
            known and context.name not in STILLS,
            bool(stream.disposition & Disposition.default),
            context.width * context.height if known else 0,
        )

    return max(streams, key=rank, default=None)  # the first in case of a tie


def sound_streams(container: InputContainer) -> list[AudioStream]:
    """Return the audio streams that belong to the picture, in a player's order of preference.

    Only streams of the same program as the picture, default streams first. Streams without a decoder are returned
    only if there are no others.
    """
    picture = picture_stream(container)
    streams = list(container.streams.audio)
    if picture is not None and len(streams) > 1 and container.format.name == "mpegts":
        programs = [program for program in program_streams(container) if picture.index in program]
        related = [s for s in streams if any(s.index in program for program in programs)]
        streams = related or ([] if programs else streams)
    streams = [s for s in streams if can_be_decoded(s)] or streams
    return sorted(streams, key=lambda stream: not stream.disposition & Disposition.default)


def can_be_decoded(stream: Stream) -> bool:
    return stream.codec_context is not None


def has_sound(path: str) -> bool:
    """Return whether a file has audio. Raises MediaError if it does not open or its audio cannot be decoded."""
    with open_media(path) as container:
        streams = sound_streams(container)
        if streams and not can_be_decoded(streams[0]):
            raise MediaError(f"{path}: {UNKNOWN_CODEC}")
        return bool(streams)


def program_streams(container: InputContainer) -> list[set[int]]:
    """Return the stream indices of each program."""
    programs: list[set[int]] = []
    for line in _description(container).splitlines():
        if re.match(r"  Program \d", line):
            programs.append(set())
        elif line.startswith("  No Program"):
            break
        elif programs and (stream := re.match(r"  Stream #\d+:(\d+)", line)):
            programs[-1].add(int(stream[1]))
    return programs


def cropping(container: InputContainer, stream: VideoStream) -> tuple[int, int, int, int]:
    """Return the hidden columns at the left and right and the hidden rows at the top and bottom of a video stream.

    These come from the clean aperture of mp4 and mov, or the cropping of Matroska.
    """
    index = None
    for line in _description(container).splitlines():
        if found := re.match(r"  Stream #\d+:(\d+)", line):
            index = int(found[1])
        elif index == stream.index and (
            found := re.match(r"\s+Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", line, re.IGNORECASE)
        ):
            left, right, top, bottom = map(int, found.groups())
            return left, right, top, bottom
    return 0, 0, 0, 0


def _description(container: InputContainer) -> str:
    """Return FFmpeg's description of a file, with programs and side data that PyAV does not expose."""
    level = logging.get_level()
    logging.set_level(logging.INFO)
    try:
        described: Any = container  # not in PyAV's type hints
        return described.dumps_format()
    finally:
        logging.set_level(level)
