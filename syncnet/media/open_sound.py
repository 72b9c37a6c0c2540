"""A sound or video file as PyAV opens it for its sound: which files it takes for one, and why others are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncnet.media.clips import MediaError
from syncnet.media.file_type import EMPTY, TEXT, UNKNOWN, content, get_again
from syncnet.media.streams import open_local

if TYPE_CHECKING:
    from av.container import InputContainer

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

    kind: the content, where it is known already.
    """
    import av  # here and below: whoever reads wavs alone does without it

    fault = f"{path}: cannot be opened: "
    try:
        kind = kind or content(path)
        if kind == EMPTY:
            raise MediaError(f"{fault}empty, 0 bytes; {get_again(path)}")
        if kind == TEXT:
            raise MediaError(f"{fault}a text file, neither sound nor video")
        return open_local(path, ",".join(DEMUXERS), kind)
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        if kind == UNKNOWN:
            raise MediaError(f"{fault}neither sound nor video of a kind that is known ({reason})") from None
        raise MediaError(f"{fault}{kind}, cut off or damaged ({reason}); {get_again(path)}") from None
    except OSError as error:
        raise MediaError(f"{fault}{error.strerror}") from None
