"""Files that are either complete or not there: written aside, flushed to disk, then renamed; and locked folders."""

import codecs
import contextlib
import errno
import hashlib
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from syncnet.support.errors import UserError
from syncnet.support.names import as_any_system

# What a file system answers that does not offer a call (some network and FUSE file systems).
NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOTTY}
# A folder may also be written to without being readable, and Windows opens none.
NOT_OPENED = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF}
WRITES_FAIL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
LONGEST_NAME = 255  # bytes; what file systems allow
_warned: set[str] = set()


def text_encoding(path: str) -> str:
    """UTF-8; or UTF-16 where a text file begins with its mark, as Windows PowerShell writes one. Raises OSError."""
    with open(path, "rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def file_hash(path: str) -> str:
    """SHA-256 of a file, as printed by sha256sum."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def warn_once(kind: str, message: str) -> None:
    """Print a warning to stderr: the first of its kind in the life of this process."""
    if kind not in _warned:
        _warned.add(kind)
        print(f"WARNING: {message}", file=sys.stderr, flush=True)


def partial_path(path: str) -> str:
    """The name under which this process writes what becomes `path`; see remove_leftovers."""
    folder, name = os.path.split(path)
    stamp = f".{os.getpid()}@{_host()}.part"
    if len(os.fsencode(name + stamp)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return os.path.join(folder, name + stamp)


def _host() -> str:
    return re.sub(r"[^\w.-]", "-", socket.gethostname())


@contextmanager
def replace_file(path: str, mode: str = "w", flush: bool = True) -> Iterator[IO]:
    """Open a file beside `path` for writing; on success it becomes `path`, on an error it is removed.

    mode: "w" (UTF-8 text, with escapes for what is none) or "wb". A reader sees the old file or the whole new one,
    never a part. Raises OSError (no room, no permission) with `path` untouched. Where the file system cannot be asked
    to write through to the disk, the file is made all the same, with a warning.
    flush: write through to the disk; without it, which is faster for many small files, a power failure may leave an
    incomplete file.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    part = partial_path(path)
    try:
        encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
        with open(part, mode, encoding=encoding, errors=errors) as file:
            yield file
            file.flush()
            if flush:
                _to_disk(file.fileno(), folder)
        os.replace(part, path)
    except BaseException as raised:
        if os.path.exists(part):
            os.remove(part)
        error = _refused_by_system(raised)
        if isinstance(error, OSError) and error.errno and error.filename in (None, part):
            error.filename, error.filename2 = path, None  # the name that the user knows
        if error is raised:
            raise
        raise error from None
    if flush:
        _folder_to_disk(folder)


def _refused_by_system(error: BaseException) -> BaseException:
    """The OSError of a failed write that a library, as torch.save does, hides behind one of its own; else `error`."""
    cause: BaseException | None = error
    while cause and not (isinstance(cause, OSError) and cause.errno in WRITES_FAIL):
        cause = cause.__cause__ or cause.__context__
    return cause or error


@contextmanager
def journal_at(path: str, mode: str = "a") -> Iterator[Callable[[str], None]]:
    """Open a file that grows by whole ASCII lines; yields what writes one. mode: "a", or "w" for a new file.

    Raises OSError with the name of the file, also where there is no more room.
    """
    with open(path, mode + "b", buffering=0) as file:

        def add(line: str) -> None:
            data = line.encode("ascii") + b"\n"
            try:
                written = file.write(data)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

        yield add


def check_output(flag: str, path: str, folder: bool = False) -> None:
    """Raise UserError unless a file can be written at `path`, or with `folder` files in that folder.

    For the start of a long computation; nothing is made. flag: names the path in the message.
    """
    wanted = "folder" if folder else "file"
    if not path:
        raise UserError(f"{flag}: is empty, needs the name of a {wanted}")
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(path)
        if folder and os.path.lexists(path) and not os.path.isdir(path):
            raise UserError(f"{flag} {path}: is a file, needs a folder")
        if not folder and os.path.isdir(path):
            raise UserError(f"{flag} {path}: is a folder, needs the name of a file")
        if not folder and os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{flag} {path}: is no ordinary file, and would be replaced by one")
        place = os.path.abspath(path)
        if not folder or not os.path.exists(place):
            place = os.path.dirname(place)
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            raise UserError(f"{flag} {path}: cannot be made, since {place} is no folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{flag} {path}: no permission to write in {place}")
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}") from None


def names_of_one_file(folder: str, names: Iterable[str]) -> dict[int, int]:
    """Of relative paths those that would be one file in `folder`: number of a name -> number of one before it.

    By name; and where the file system there does not tell them apart (macOS, exFAT), by case or by how accents stand.
    Makes no more than a trial folder, which is removed, and that only for names that are so alike. Raises OSError.
    """
    alike: dict[str, list[tuple[int, str]]] = {}
    found: dict[int, int] = {}
    for number, name in enumerate(names):
        others = alike.setdefault(as_any_system(name), [])
        for before, other in others:
            if other == name or _is_one_file(folder, other, name):
                found[number] = before
                break
        others.append((number, name))
    return found


def _is_one_file(folder: str, name: str, other: str) -> bool:
    """Are these names one in `folder`, or where that would be made?"""
    while not os.path.isdir(folder):
        folder = os.path.dirname(os.path.abspath(folder))
    with tempfile.TemporaryDirectory(prefix=".names-", dir=folder) as trial:
        made, asked = (trial + os.path.normpath(f"/{relative}") for relative in (name, other))
        os.makedirs(os.path.dirname(made), exist_ok=True)
        with open(made, "w"):
            return os.path.exists(asked)


def _to_disk(descriptor: int, folder: str, also: frozenset[int] = frozenset()) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED | also:
            raise
        _not_synced(folder, error)


def _folder_to_disk(folder: str) -> None:
    """A rename reaches the disk with its folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in NOT_OFFERED | NOT_OPENED:
            raise
        _not_synced(folder, error)
        return
    try:
        _to_disk(descriptor, folder, frozenset(NOT_OPENED))
    finally:
        os.close(descriptor)


def _not_synced(folder: str, error: OSError) -> None:
    warn_once(
        "fsync",
        f"{folder}: this file system does not confirm that files are on the disk ({error.strerror}); "
        "a power cut may lose the newest",
    )


@contextmanager
def lock_file(path: str, taken: str) -> Iterator[None]:
    """Hold a lock on `path`, which is made; it ends with the process, however that ends.

    Raises OSError with the message `taken` when another process holds it. Where the file system has no locks,
    goes on without one, with a warning.
    """
    import fcntl  # not on Windows

    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
                raise OSError(taken) from None
            if error.errno not in NOT_OFFERED:
                raise
            warn_once(
                "lock",
                f"{path}: this file system has no locks ({error.strerror}); "
                "make sure that no second run uses the same folder",
            )
        yield


def remove_leftovers(paths: Iterable[str]) -> None:
    """Remove those of `paths` that were left by a process of this machine that is gone.

    They are named by partial_path(). Files that another machine writes into a shared folder are kept: whether its
    process is still running cannot be seen from here.
    """
    for path in paths:
        stamp = re.search(r"\.(\d+)(?:@([^/]*))?\.part$", path)
        if stamp and stamp[2] in (None, _host()) and not _is_running(int(stamp[1])):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks only whether the process is there
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stat:
            # Z: ended, but not cleared away by its parent.
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, IndexError):
        return False
    except OSError:  # it is there and belongs to someone else, or the system has no /proc
        return True
