"""Files that are either complete or absent: written beside, flushed to disk, then renamed. Locks and journals."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from syncnet.support.errors import UserError

UNSUPPORTED = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}  # fsync on some network file systems
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
MAX_NAME = 255  # bytes; the limit of file systems
_warned: set[str] = set()


def file_hash(path: str) -> str:
    """SHA-256 of a file, as printed by sha256sum."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def warn_once(kind: str, message: str) -> None:
    """Print a warning to stderr, if it is the first of its kind in this process."""
    if kind not in _warned:
        _warned.add(kind)
        print(f"WARNING: {message}", file=sys.stderr, flush=True)


def partial_path(path: str) -> str:
    """The temporary name under which this process writes `path`; see remove_leftovers."""
    folder, name = os.path.split(path)
    host = re.sub(r"[^\w.-]", "-", socket.gethostname())
    suffix = f".{os.getpid()}@{host}.part"
    if len(os.fsencode(name + suffix)) > MAX_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return os.path.join(folder, name + suffix)


@contextmanager
def replace_file(path: str, mode: str = "w", flush: bool = True) -> Iterator[IO]:
    """Open a temporary file for writing; on success it becomes `path`, on an error it is removed.

    mode: "w" (UTF-8 text; invalid characters are escaped) or "wb". Readers see the old file or the complete new one.
    flush: write through to the disk. Without it, which is faster for many small files, a power failure may leave an
    incomplete file. Raises OSError (disk full, no permission) with `path` untouched.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    part = partial_path(path)
    try:
        encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
        with contextlib.ExitStack() as locked:  # until it has its name
            with open(part, mode, encoding=encoding, errors=errors) as file:
                locked.callback(os.close, os.dup(file.fileno()))
                with contextlib.suppress(OSError):  # a file system without locks, where leftovers are kept
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield file
                file.flush()
                if flush:
                    _sync(file.fileno())
            os.replace(part, path)
    except BaseException as raised:
        if os.path.exists(part):
            os.remove(part)
        error = _write_error(raised)
        if isinstance(error, OSError) and error.errno and error.filename in (None, part):
            error.filename, error.filename2 = path, None  # the name that the user knows
        if error is raised:
            raise
        raise error from None
    if flush:
        with contextlib.suppress(OSError):  # the rename; a folder that cannot be read or synced is no error
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _write_error(error: BaseException) -> BaseException:
    """The OSError of a failed write that a library, such as torch.save, hides behind its own; otherwise `error`."""
    cause: BaseException | None = error
    while cause and not (isinstance(cause, OSError) and cause.errno in WRITE_ERRORS):
        cause = cause.__cause__ or cause.__context__
    return cause or error


@contextmanager
def journal_at(path: str, mode: str = "a") -> Iterator[Callable[[str], None]]:
    """Open a file that grows by whole ASCII lines; yields a function that adds one. mode: "a", or "w" to start over.

    Raises OSError with the file name, also when the disk is full.
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

    For the start of a long computation; creates nothing. flag: names the path in the message.
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
            raise UserError(f"{flag} {path}: is not a regular file, and would be replaced by one")
        place = os.path.abspath(path)
        if not folder or not os.path.exists(place):
            place = os.path.dirname(place)
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            raise UserError(f"{flag} {path}: cannot be created, since {place} is not a folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{flag} {path}: no permission to write in {place}")
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}") from None


@contextmanager
def lock_file(path: str, taken: str, shared: bool = False) -> Iterator[None]:
    """Create `path` and lock it until the process ends. Raises OSError(taken) if another process holds the lock.

    shared: hold it together with others that share it. On a file system without locks, a warning takes its place.
    """
    with open(path, "a+") as file:  # NFS locks only what may be read and written
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise OSError(taken) from None
        except OSError as error:
            warn_once("lock", f"{path}: {error.strerror}; make sure that no second run uses the same folder")
        yield


def remove_leftovers(paths: Iterable[str]) -> None:
    """Remove those of `paths` that a killed process left behind while it wrote them; see partial_path.

    A file that is being written is locked, and the lock ends with the process, on whichever machine it runs.
    """
    for path in filter(
        re.compile(r"\.\d+(@[^/]*)?\.part$").search, paths
    ):  # earlier versions did not add the host
        with contextlib.suppress(OSError), open(path, "r+b") as file:  # locked, or gone meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.remove(path)
