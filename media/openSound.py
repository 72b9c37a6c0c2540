"""A sound or video file as PyAV opens it for its sound: which files it takes for one, and why others are refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from media.clips import MediaError
from media.content import EMPTY, MP4, TEXT, UNKNOWN, content, get_again

if TYPE_CHECKING:
    from av.container import InputContainer

# FFmpeg's demuxers that may be used: each reads the one file that it is given.
DEMUXERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "asf", "flv"),
    *(
        "wav",
        "w64",
        "aiff",
        "au",
        "caf",
        "nistsphere",
        "flac",
        "ogg",
        "mp3",
        "aac",
        "ac3",
        "eac3",
        "amr",
        "wv",
    ),
)


def open_sound(path: str, kind: str | None = None) -> InputContainer:
    """Open a sound or video file by its content, whatever its name. Raises MediaError; close the result.

    kind: the content, where it is known already. Local files of the kinds in DEMUXERS only: a crafted file
    may be a playlist of other files or addresses.
    """
    import av  # here and below: whoever reads wavs alone does without it

    fault = f"{path}: cannot be opened: "
    try:
        kind = kind or content(path)
        if kind == EMPTY:
            raise MediaError(f"{fault}empty, 0 bytes; {get_again(path)}")
        if kind == TEXT:
            raise MediaError(f"{fault}a text file, neither sound nor video")
        options = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}
        # Asking every demuxer takes a while, so that VoxCeleb2's kind goes straight to its own.
        container = av.open(
            os.path.abspath(path),
            format="mp4" if kind == MP4 else None,
            container_options=options,
            metadata_errors="replace",
        )
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        if kind == UNKNOWN:
            raise MediaError(f"{fault}neither sound nor video of a kind that is known ({reason})") from None
        raise MediaError(f"{fault}{kind}, cut off or damaged ({reason}); {get_again(path)}") from None
    except OSError as error:
        raise MediaError(f"{fault}{error.strerror}") from None
    return container
