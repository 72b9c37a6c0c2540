"""Find files by extension in a folder, at any depth, ignoring files that operating systems add."""

import os
from collections.abc import Callable, Sequence

from syncnet.media.clips import MediaError

# Created by macOS, NAS systems, Windows and Linux file systems.
SYSTEM_FOLDERS = {
    *("__MACOSX", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN"),
    *("System Volume Information", "lost+found"),
}


def find_files(
    folder: str, extensions: tuple[str, ...], unread: Callable[[MediaError], None] | None = None
) -> list[str]:
    """Return the paths, relative to `folder`, of all files with one of `extensions` (lower case), sorted as strings.

    Skips macOS's ._name files, system folders and hidden folders (.Trash-1000). Follows symbolic links, except those
    to a folder that contains them. unread: called for each subfolder that cannot be read. Raises OSError if `folder`
    itself cannot be read, or any subfolder if `unread` is None.
    """
    top = os.path.abspath(folder)

    def skip(error: OSError) -> None:
        if unread is None or error.filename == top:
            raise error
        inside = os.path.join(folder, os.path.relpath(error.filename, top))
        unread(MediaError(f"{inside}: this folder and its contents cannot be read ({error.strerror})"))

    found = []
    # Folder -> real paths from the top folder down to the folder itself.
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
    """Return the path of stem + ending in `folder`, with the ending in upper case if only that file exists."""
    path = os.path.join(folder, stem + ending)
    capitals = os.path.join(folder, stem + ending.upper())
    return capitals if not os.path.exists(path) and os.path.exists(capitals) else path


def folder_of_people(clips: Sequence[str]) -> str | None:
    """Return the deepest folder that contains all clips, relative like their paths; None for fewer than two clips.

    Each folder (or clip) directly below it counts as a person. If all clips are of one person, that is each video of
    the person; if all are of one video, each clip.
    """
    return os.path.commonpath([os.path.dirname(clip) for clip in clips]) if len(clips) > 1 else None
