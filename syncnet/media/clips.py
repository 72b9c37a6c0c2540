"""Constants of the clip format, and lists of clips: `mp4path wavpath offset frames`. Does not import torch."""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from syncnet.support.errors import UserError
from syncnet.support.names import is_utf8, printable
from syncnet.support.tar_members import is_file

SAMPLE_RATE = 16000
FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
FRAME_SIZE = 224  # pixels per side of VoxCeleb2's face tracks
MARGIN = 4  # a clip is used for training if frames - |offset| >= maxFrames + MARGIN
LIP_FRAMES = 5  # per embedding
LEAST_BATCH = 2  # clips needed for a comparison
LEAST_FRAMES = LIP_FRAMES + MARGIN  # shortest clip that can be used for training
LOOKED_AT = 20  # paths of a list that are checked to see whether it was made in this folder


class MediaError(UserError):
    """A list line, video or wav cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One list line. offset: audio-to-video offset in video frames. frames: length of the video."""

    video: str
    audio: str
    offset: int
    frames: int

    @property
    def longest_crop(self) -> int:
        """The largest maxFrames for which the clip is used."""
        return self.frames - abs(self.offset) - MARGIN


def parse_list_line(line: str, where: str) -> Clip:
    """Parse `mp4path wavpath offset frames`, separated by spaces, or by tabs if a path contains spaces.

    where: file and line number for the error message. Raises MediaError.
    """
    fields = line.split("\t") if "\t" in line else line.split()
    if len(fields) != 4:
        raise MediaError(
            f"{where}: found {len(fields)} fields, expected 4: mp4path wavpath offset frames "
            "(separated by tabs where a path contains a space). Make the list with makeFileList.py."
        )
    video, audio, offset, frames = fields
    try:
        clip = Clip(video, audio, int(offset), int(frames))
    except ValueError:
        raise MediaError(f"{where}: offset {offset!r} and frames {frames!r} must be integers") from None
    if clip.frames <= 0 or not video or not audio:
        raise MediaError(f"{where}: needs two paths and a positive number of frames, found {line!r}")
    return clip


def format_list_line(clip: Clip) -> str:
    """The inverse of parse_list_line, without a line end. Raises MediaError if a path cannot be put in a list."""
    if any(c in path for path in (clip.video, clip.audio) for c in "\t\r\n"):
        raise MediaError(f"{clip.video!r}: a path in a list cannot contain tabs or line ends; rename it")
    if not is_utf8(clip.video + clip.audio):
        raise MediaError(f"{printable(clip.video)}: a path in a list must be UTF-8; rename it")
    # str.split() splits at any whitespace, so any whitespace in a path requires tabs.
    spaced = any(c.isspace() for c in clip.video + clip.audio)
    separator = "\t" if spaced else " "
    return separator.join((clip.video, clip.audio, str(clip.offset), str(clip.frames)))


def text_lines(path: str, remedy: str) -> Iterator[tuple[str, str]]:
    """Yield the non-blank lines of a UTF-8 text file: (file and line number for messages, line without its end).

    Raises MediaError, ending with `remedy`, if there is no such file or it is not text.
    """
    if os.path.isdir(path):
        raise MediaError(f"{path}: is a folder, expected a text file. {remedy}")
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such file. {remedy}")
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}, line {number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise MediaError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). {remedy}") from None


def read_list(path: str) -> list[Clip]:
    """Read the clips of a list made by makeFileList.py. Raises MediaError, naming the file and line."""
    clips = [
        parse_list_line(line, where) for where, line in text_lines(path, "Make it with makeFileList.py.")
    ]
    if not clips:
        raise MediaError(f"{path}: the list is empty. Make it with makeFileList.py.")
    return clips


def check_paths(path: str, named: Sequence[str], kind: str = "file") -> None:
    """Raise MediaError if the relative paths in a list do not exist, because it was made in another folder.

    path: the list. named: the paths in it. kind: what they name, for the message.
    """
    looked_at = named[:LOOKED_AT]
    if not looked_at or any(os.path.isabs(name) or is_file(name) for name in looked_at):
        return
    folder = os.path.dirname(os.path.abspath(path))
    while not any(is_file(os.path.join(folder, name)) for name in looked_at):
        if folder == os.path.dirname(folder):
            remedy = "Run the command there, or recreate the list"
            break
        folder = os.path.dirname(folder)
    else:
        remedy = f"Run the command there: cd {shlex.quote(folder)}"
    raise MediaError(
        f"{path}: its files are not here ({named[0]}: no such {kind}). The paths in a list are relative to the "
        f"folder in which it was made. {remedy}."
    )
