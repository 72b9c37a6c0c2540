"""Read members of uncompressed tars like files, by paths that need no index: x.tar/id1/ref/00001.mp4#1536+238114.

The path holds the tar, the member's name, and its byte range in the tar: first byte and number of bytes. Every
function that opens a file by its path also opens these, with one read of that range. The member's header, just before
the range, is read with it and must have the same name and size, so a list that does not match its tar is an error and
never yields another clip.
"""

from __future__ import annotations

import errno
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import BinaryIO, NamedTuple

from syncnet.support.names import is_utf8

BLOCK = tarfile.BLOCKSIZE  # 512 bytes: size of a header, and unit of padding
LONGEST = tarfile.LENGTH_NAME  # bytes of a name in a header; longer names are truncated there
TAR = ".tar"
MEMBER = re.compile(r"(.+\.tar)/(.+)#(\d+)\+(\d+)", re.DOTALL)


class Member(NamedTuple):
    """A file in a tar. name: with folders. first, size: byte range of its content in the tar."""

    tar: str
    name: str
    first: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}#{self.first}+{self.size}"


def member_of(path: str) -> Member | None:
    """Parse the path of a member; returns None for the path of a file."""
    found = MEMBER.fullmatch(path)
    return Member(found[1], found[2], int(found[3]), int(found[4])) if found else None


def flat_name(name: str) -> str:
    """Return a member's name in WebDataset's form, without folders and with one dot: id__ref__utt.mp4."""
    stem, ending = os.path.splitext(os.path.normpath(name).replace(os.sep, "__"))
    return stem.replace(".", "_") + ending


def path_without_tar(path: str) -> str:
    """Return a member's path without its tar: dir/id1/ref/00001.mp4 for dir/x.tar/id1/ref/00001.mp4#1536+238114.

    Names and speakers are derived from this path, so a speaker may be in several tars. Paths of files are unchanged.
    """
    member = member_of(path)
    return os.path.join(os.path.dirname(member.tar), member.name) if member else path


def is_file(path: str) -> bool:
    """Return whether a file exists, or for a member, its tar."""
    member = member_of(path)
    return os.path.isfile(member.tar if member else path)


def file_size(path: str) -> int:
    """Return the size of a file or a member in bytes. Raises OSError."""
    member = member_of(path)
    return member.size if member else os.path.getsize(path)


def open_file(path: str) -> BinaryIO:
    """Open a file, or a member as an unnamed file in memory. Raises OSError, including if the tar has changed."""
    member = member_of(path)
    if member is None:
        return open(path, "rb")
    content = memoryview(read_member(member))
    file = _in_memory()
    while content:
        content = content[file.write(content) :]
    file.seek(0)
    return file


def read_member(member: Member) -> bytes:
    """Read a member. Raises OSError if the tar is missing or truncated, or has something else at that position."""
    descriptor = os.open(member.tar, os.O_RDONLY)
    try:
        start, data = member.first - BLOCK, b""
        wanted = BLOCK + member.size
        end = min(wanted, os.fstat(descriptor).st_size - start)
        while len(data) < end and (more := os.pread(descriptor, end - len(data), start + len(data))):
            data += more
    finally:
        os.close(descriptor)
    try:
        header = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "surrogateescape")
        found = f"{header.name} of {header.size} bytes" if header.isreg() else "no file"
        same = header.isreg() and header.size == member.size and _same_name(header.name, member.name)
    except tarfile.HeaderError:
        found, same = "no file", False
    if not same:
        raise OSError(
            errno.ESTALE, f"the tar has {found} there; it has changed since this list was made", str(member)
        )
    if len(data) < wanted:
        raise OSError(errno.EIO, f"the tar is cut off after {start + len(data)} bytes", str(member))
    return data[BLOCK:]


def _same_name(found: str, wanted: str) -> bool:
    """Return whether a header's name matches; it may be truncated there, and have lost non-ASCII characters."""
    header, name = (flat_name(text).replace(".", "_").encode("ascii", "replace") for text in (found, wanted))
    return header == name or (len(os.fsencode(found)) >= LONGEST and name.startswith(header[:LONGEST]))


def _in_memory() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("member"), "w+b", buffering=0)  # noqa: SIM115 (the caller closes it)
    return tempfile.TemporaryFile(buffering=0)  # macOS


@contextmanager
def name_for_ffmpeg(path: str) -> Iterator[str]:
    """Yield a path by which FFmpeg and OpenCV can open a file inside the context. Raises OSError.

    The path is absolute, so FFmpeg cannot mistake it for a protocol such as "concat:". For a member, and for a name
    that is not UTF-8, which would crash OpenCV, it is that of an open file descriptor.
    """
    absolute = os.path.abspath(path)
    if member_of(path) is None and is_utf8(absolute):
        yield absolute
        return
    with open_file(path) as file:
        yield f"/dev/fd/{file.fileno()}"


@cache
def members_of(tar: str) -> dict[str, str]:
    """Return {flat name: path} of all members of a tar; reads one header per member. Raises OSError."""
    try:
        with tarfile.open(tar, "r:") as archive:
            files = [header for header in archive if header.isreg() and not header.issparse()]
    except tarfile.TarError as error:
        raise OSError(errno.EINVAL, f"not an uncompressed tar ({error})", tar) from None
    named = [(os.path.normpath(header.name), header) for header in files]
    return {flat_name(name): str(Member(tar, name, h.offset_data, h.size)) for name, h in named}
