"""What a talking-face clip is on disk: the numbers of its format, and list lines.

No torch: list making and audio conversion start fast.
"""

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from syncnet.media.tar_members import is_file
from syncnet.support.errors import UserError
from syncnet.support.names import is_utf8, printable

SAMPLE_RATE = 16000
FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
FRAME_SIZE = 224  # pixels a side, of VoxCeleb2's face tracks
MARGIN = 4  # a clip is trained on when frames - |offset| >= maxFrames + MARGIN
LEAST_CROP, LEAST_BATCH = 5, 2  # the frames that an embedding sees; a voice and another one
LEAST_FRAMES = LEAST_CROP + MARGIN  # of a clip that can be trained on

# Made by macOS, by NAS systems and by Windows; what has the name of a clip in there is none. Hidden folders (waste
# bins, snapshots, what git-annex keeps) are left out as well.
SYSTEM_FOLDERS = {
    *("__MACOSX", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN"),
    *("System Volume Information", "lost+found"),
}
LOOKED_AT = 20  # files of a list, to see whether it belongs here


class MediaError(UserError):
    """A list line, video or wav that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Clip:
    """One list line. `offset`: audio-to-video offset in video frames; `frames`: video length."""

    video: str
    audio: str
    offset: int
    frames: int

    @property
    def longest_crop(self) -> int:
        """The largest maxFrames at which the clip is trained on."""
        return self.frames - abs(self.offset) - MARGIN


class TooFewClips(MediaError):
    """A list that has less than a batch of clips to train on. found: the message without the remedy."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found} {remedy}")
        self.found = found


def sizes_that_fit(
    lists: Sequence[Sequence[Clip]], maxFrames: int, batch: int, multiple: int = 1
) -> tuple[int, int] | None:
    """(maxFrames, nBatchSize), at most those given, of which every list has a batch; None where there are none.

    The crop is shortened where a list has less than a batch of longer clips, so that most of it is used. multiple: a
    number that the batch has to be divided by.
    """
    lengths = [sorted((clip.longest_crop for clip in clips), reverse=True) for clips in lists]
    if not all(lengths):
        return None
    frames = min(maxFrames, *(longest[min(batch, len(longest)) - 1] for longest in lengths))
    clips = min(batch, *(sum(length >= frames for length in longest) for longest in lengths))
    clips -= clips % multiple
    return (frames, clips) if frames >= LEAST_CROP and clips >= LEAST_BATCH else None


def size_flags(sizes: tuple[int, int], usual: tuple[int, int]) -> str:
    """The flags of (maxFrames, nBatchSize) that differ from the usual ones, as they are typed."""
    named = zip(("--maxFrames", "--nBatchSize"), sizes, usual, strict=True)
    return " ".join(f"{flag} {size}" for flag, size, other in named if size != other)


def longer_lists(multiple: int = 1) -> str:
    """What to do about lists that are too short for any size."""
    least = f"{max(LEAST_BATCH, multiple)} clips of {LEAST_FRAMES} frames"
    return f"Use a longer list: training needs {least} at the least, in each list."


def sizes_remedy(lists: Sequence[Sequence[Clip]], maxFrames: int, batch: int, multiple: int = 1) -> str:
    """What to do about lists of which one has less than a batch of clips to train on. See sizes_that_fit."""
    sizes = sizes_that_fit(lists, maxFrames, batch, multiple)
    if sizes is None:
        return longer_lists(multiple)
    flags = size_flags(sizes, (maxFrames, batch))
    return f"Use a smaller --nBatchSize or --maxFrames ({flags} would do), or a longer list."


def parse_list_line(line: str, where: str) -> Clip:
    """Read `mp4path wavpath offset frames`, separated by spaces, or by tabs where a path has spaces.

    `where` names the file and line in the error. Raises MediaError.
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
        raise MediaError(f"{where}: offset {offset!r} and frames {frames!r} must be whole numbers") from None
    if clip.frames <= 0 or not video or not audio:
        raise MediaError(f"{where}: needs two paths and a positive number of frames, found {line!r}")
    return clip


def format_list_line(clip: Clip) -> str:
    """The inverse of parse_list_line, without a line end. Raises MediaError for a path that no list can have."""
    if any(c in path for path in (clip.video, clip.audio) for c in "\t\r\n"):
        raise MediaError(f"{clip.video!r}: a path in a list cannot contain tabs or line ends; rename it")
    if not is_utf8(clip.video + clip.audio):
        raise MediaError(f"{printable(clip.video)}: a path in a list has to be UTF-8; rename it")
    # str.split() splits at every kind of white space, so any of them asks for tabs.
    spaced = any(c.isspace() for c in clip.video + clip.audio)
    separator = "\t" if spaced else " "
    return separator.join((clip.video, clip.audio, str(clip.offset), str(clip.frames)))


def text_lines(path: str, remedy: str) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank: (file and line number for messages, line without its end).

    Raises MediaError, with the remedy, when there is no such file or no text in it.
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
        raise MediaError(
            f"{path}: not a text file ({error.reason} at byte {error.start}). {remedy}"
        ) from None


def read_list(path: str) -> list[Clip]:
    """All clips of a list made by makeFileList.py. Raises MediaError naming file and line."""
    clips = [
        parse_list_line(line, where) for where, line in text_lines(path, "Make it with makeFileList.py.")
    ]
    if not clips:
        raise MediaError(f"{path}: the list is empty. Make it with makeFileList.py.")
    return clips


def check_paths(path: str, named: Sequence[str], kind: str = "file") -> None:
    """Raise MediaError when the relative paths in the list `path` lead nowhere: it was made in another folder.

    named: the paths; kind: what they are, for the message.
    """
    looked_at = named[:LOOKED_AT]
    if not looked_at or any(os.path.isabs(name) or is_file(name) for name in looked_at):
        return
    folder = os.path.dirname(os.path.abspath(path))
    while not any(is_file(os.path.join(folder, name)) for name in looked_at):
        if folder == os.path.dirname(folder):
            remedy = "Run the command there, or make the list again"
            break
        folder = os.path.dirname(folder)
    else:
        remedy = f"Run the command there: cd {shlex.quote(folder)}"
    raise MediaError(
        f"{path}: its files are not here ({named[0]}: no such {kind}). The paths in a list start at the folder in "
        f"which it was made. {remedy}."
    )


def folder_of_people(clips: Sequence[str]) -> str | None:
    """The folder, relative as the clips' paths are, in which the first parts of these differ; "" for their own.

    There each first part (a folder, or a clip) is a person: with clips of one person only, each of that person's
    videos counts as one, or each clip of the only video. None for fewer than two clips.
    """
    if len(clips) < 2:
        return None
    return os.path.commonpath([os.path.dirname(clip) for clip in clips])


def find_files(
    folder: str, extensions: tuple[str, ...], unread: Callable[[MediaError], None] | None = None
) -> list[str]:
    """Paths, relative to `folder`, of all files with one of `extensions` (lower case), sorted as strings.

    What systems put beside files (macOS's ._name, a NAS's @eaDir) and hidden folders (.Trash-1000) are left out.
    Symbolic links are followed; one that leads back to a folder around it is left out. unread: told of each folder
    inside that cannot be read, and is left out. Raises OSError for `folder` itself, and without `unread` for those
    too.
    """
    top = os.path.abspath(folder)

    def leave_out(error: OSError) -> None:
        if unread is None or error.filename == top:
            raise error
        inside = os.path.join(folder, os.path.relpath(error.filename, top))
        unread(MediaError(f"{inside}: this folder cannot be read ({error.strerror}), nor what is in it"))

    found = []
    # A folder -> real paths from the top down to itself.
    real_paths: dict[str, tuple[str, ...]] = {top: (os.path.realpath(top),)}
    for path, folders, files in os.walk(top, followlinks=True, onerror=leave_out):
        around = real_paths.pop(path)
        folders[:] = [name for name in folders if name not in SYSTEM_FOLDERS and not name.startswith(".")]
        for name in list(folders):
            full = os.path.join(path, name)
            real = os.path.realpath(full) if os.path.islink(full) else os.path.join(around[-1], name)
            if real in around:
                folders.remove(name)
            else:
                real_paths[full] = (*around, real)
        prefix = "" if path == top else os.path.relpath(path, top) + os.sep
        found += [
            prefix + name for name in files if name.lower().endswith(extensions) and not name.startswith("._")
        ]
    return sorted(found)


def find_among_others(
    folder: str,
    extensions: tuple[str, ...],
    other_extensions: tuple[str, ...],
    unread: Callable[[MediaError], None] | None = None,
) -> tuple[list[str], str]:
    """find_files; and in words that there are files with other_extensions, which are not looked at ("" for none)."""
    found = find_files(folder, extensions + other_extensions, unread)
    others = [path for path in found if path.lower().endswith(other_extensions)]
    if not others:
        return found, ""
    kinds = ", ".join(sorted({os.path.splitext(path)[1] for path in others}))
    told = f"Not looked at: {len(others)} files of other kinds ({kinds}), such as {others[0]}"
    return [path for path in found if not path.lower().endswith(other_extensions)], told


def beside(folder: str, stem: str, ending: str) -> str:
    """The file of that name in `folder`, with its ending in capitals where only that is there."""
    path = os.path.join(folder, stem + ending)
    capitals = os.path.join(folder, stem + ending.upper())
    return capitals if not os.path.exists(path) and os.path.exists(capitals) else path
