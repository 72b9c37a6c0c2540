"""Atomic writes (to a temporary file, flushed to disk, then renamed), locks and journals."""

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

# Errors of fsync on some network file systems.
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
MAX_NAME = 255  # bytes; limit of common file systems
_warned: set[str] = set()


def file_hash(path: str) -> str:
    """Return the SHA-256 of a file, as printed by sha256sum."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def warn_once(kind: str, message: str) -> None:
    """Print a warning to stderr if it is the first of its kind in this process."""
    if kind not in _warned:
        _warned.add(kind)
        print(f"WARNING: {message}", file=sys.stderr, flush=True)


def partial_path(path: str) -> str:
    """Return the name of the temporary file for writing `path` in this process; see remove_leftovers."""
    folder, name = os.path.split(path)
    host = re.sub(r"[^\w.-]", "-", socket.gethostname())
    suffix = f".{os.getpid()}@{host}.part"
    if len(os.fsencode(name + suffix)) > MAX_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return os.path.join(folder, name + suffix)


@contextmanager
def replace_file(path: str, mode: str = "w", flush: bool = True) -> Iterator[IO]:
    """Open a temporary file for writing; it is renamed to `path` on success and removed on an error.

    mode: "w" (UTF-8 text; invalid characters are escaped) or "wb". Readers see the old file or the complete new one.
    flush: flush to disk. False is faster for many small files, but a power failure may leave an incomplete file.
    Raises OSError (disk full, no permission) and leaves `path` unchanged.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    part = partial_path(path)
    try:
        encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
        with contextlib.ExitStack() as locked:  # keeps the lock until the file is renamed
            with open(part, mode, encoding=encoding, errors=errors) as file:
                locked.callback(os.close, os.dup(file.fileno()))
                with contextlib.suppress(OSError):  # no locks on this file system: leftovers are not removed
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
            error.filename, error.filename2 = path, None  # the user does not know the temporary name
        if error is raised:
            raise
        raise error from None
    if flush:
        with contextlib.suppress(OSError):  # flush the rename, if the folder can be read and synced
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
    """Return the OSError of a failed write behind a library's own error (as in torch.save), otherwise `error`."""
    cause: BaseException | None = error
    while cause and not (isinstance(cause, OSError) and cause.errno in WRITE_ERRORS):
        cause = cause.__cause__ or cause.__context__
    return cause or error


@contextmanager
def journal_at(path: str, mode: str = "a") -> Iterator[Callable[[str], None]]:
    """Open a journal and yield a function that appends one ASCII line. mode: "a", or "w" to start over.

    A line is written as a whole. Raises OSError with the file name, including when the disk is full.
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
    """Raise UserError unless the file `path` can be written, or files in it if `folder` is set.

    To be called before a long computation; creates nothing. flag: name of the flag, for the message.
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
    """Create `path` and lock it until the context ends. Raises OSError(taken) if another process holds the lock.

    shared: take a shared lock. On a file system without locks, prints a warning instead.
    """
    with open(path, "a+") as file:  # NFS can lock only files opened for reading and writing
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise OSError(taken) from None
        except OSError as error:
            warn_once("lock", f"{path}: {error.strerror}; make sure that no second run uses the same folder")
        yield


def remove_leftovers(paths: Iterable[str]) -> None:
    """Remove the temporary files among `paths` that killed processes left behind; see partial_path.

    A file that is still being written is locked; the lock ends with its process, on any machine.
    """
    is_partial = re.compile(r"\.\d+(@[^/]*)?\.part$").search  # earlier versions did not add the host
    for path in filter(is_partial, paths):
        with contextlib.suppress(OSError), open(path, "r+b") as file:  # locked, or gone meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.remove(path)
