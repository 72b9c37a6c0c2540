"""Which files of a folder, at any depth, count: by extension, without what systems put beside them."""

import os
from collections.abc import Callable, Sequence

from syncnet.media.clips import MediaError

# Made by macOS, NAS systems and Windows.
SYSTEM_FOLDERS = {
    *("__MACOSX", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN"),
    *("System Volume Information", "lost+found"),
}


def find_files(
    folder: str, extensions: tuple[str, ...], unread: Callable[[MediaError], None] | None = None
) -> list[str]:
    """Paths, relative to `folder`, of all files with one of `extensions` (lower case), sorted as strings.

    Skips macOS's ._name files, system folders and hidden folders (.Trash-1000). Follows symbolic links, except those
    that lead back to a folder around them. unread: called for each subfolder that cannot be read. Raises OSError for
    `folder` itself, and without `unread` for subfolders too.
    """
    top = os.path.abspath(folder)

    def skip(error: OSError) -> None:
        if unread is None or error.filename == top:
            raise error
        inside = os.path.join(folder, os.path.relpath(error.filename, top))
        unread(MediaError(f"{inside}: this folder and its contents cannot be read ({error.strerror})"))

    found = []
    # A folder -> real paths from the top down to itself.
    real_paths: dict[str, tuple[str, ...]] = {top: (os.path.realpath(top),)}
    for path, folders, files in os.walk(top, followlinks=True, onerror=skip):
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


def beside(folder: str, stem: str, ending: str) -> str:
    """The path of stem + ending in `folder`; with the ending in capitals if only that file exists."""
    path = os.path.join(folder, stem + ending)
    capitals = os.path.join(folder, stem + ending.upper())
    return capitals if not os.path.exists(path) and os.path.exists(capitals) else path


def folder_of_people(clips: Sequence[str]) -> str | None:
    """The deepest folder around all clips, relative as their paths are; None for fewer than two clips.

    Below it, each folder (or clip) counts as a person: with clips of one person only, each video of that person, or
    each clip of the only video.
    """
    return os.path.commonpath([os.path.dirname(clip) for clip in clips]) if len(clips) > 1 else None
