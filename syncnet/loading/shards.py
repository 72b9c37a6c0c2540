"""Shards: clips copied into uncompressed tars, so that a shared file system holds thousands of files, not millions.

A shard holds clips in list order, each video followed by its wav, with WebDataset's naming: id__ref__utt.mp4,
id__ref__utt.wav. Shards are written atomically. Each begins with a hash of the names, sizes and modification times of
its files, so a run that resumes recognizes finished shards without reading them.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Sequence
from functools import partial

from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.support.processes import map_in_processes
from syncnet.support.progress import progress_bar
from syncnet.support.tar_members import BLOCK, Member, flat_name

END = bytes(2 * BLOCK)  # end-of-archive marker of a tar


def blocks_of(clips: Sequence[str], folder: str, output: str, size: int) -> dict[str, Sequence[str]]:
    """Assign `size` consecutive clips to each shard: <folder>/<name of output>-000000.tar, ...-000001.tar, ..."""
    name = os.path.splitext(os.path.basename(output))[0]
    starts = range(0, len(clips), size)
    return {
        os.path.join(folder, f"{name}-{number:06d}.tar"): clips[start : start + size]
        for number, start in enumerate(starts)
    }


def write_shards(
    shards: dict[str, list[str]], find: Callable[[str], tuple[str, str, str | None]], workers: int
) -> dict[str, tuple[str, str]]:
    """Write the shards that do not exist yet. Returns the paths of each clip's video and wav in its shard.

    shards: shard path -> its clips. find: returns the (video, wav, txt) paths of a clip; called in the processes that
    write. Raises OSError, UserError; see write_shard.
    """
    total = sum(map(len, shards.values()))
    paths: dict[str, tuple[str, str]] = {}
    bar = progress_bar(total=total, unit="clip", desc="shards", smoothing=0.05, dynamic_ncols=True)
    with bar:
        for members in map_in_processes(partial(_write_clips, find), shards.items(), workers):
            paths.update(members)
            bar.update(len(members))
    return paths


def _write_clips(
    find: Callable[[str], tuple[str, str, str | None]], job: tuple[str, list[str]]
) -> dict[str, tuple[str, str]]:
    shard, clips = job
    files = []
    for clip in clips:
        video, wav, _ = find(clip)
        files += [(clip, video), (os.path.splitext(clip)[0] + os.path.splitext(wav)[1].lower(), wav)]
    members = write_shard(shard, files)
    pairs = zip(members[::2], members[1::2], strict=True)
    return dict(zip(clips, pairs, strict=True))


def write_shard(path: str, files: Sequence[tuple[str, str]]) -> list[str]:
    """Copy files into a tar at `path`, unless it already holds them. Returns their paths as members of the tar.

    files: (name with folders, file to copy) of each. Raises OSError, and UserError if a file changes while copied
    or two files would have the same name in the tar.
    """
    headers, members, times = [], [], []
    sources: dict[str, str] = {}
    for name, source in files:
        header = tarfile.TarInfo(flat_name(name))
        facts = os.stat(source)
        header.size, header.mtime = facts.st_size, int(facts.st_mtime)
        times.append(facts.st_mtime_ns)
        if (other := sources.setdefault(header.name, source)) != source:
            raise UserError(f"{source}: would be {header.name} in {path}, as {other}; rename one of them")
        headers.append(header)
    blocks = [header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") for header in headers]
    contents = hashlib.sha256(b"".join(blocks) + str(times).encode()).hexdigest()
    top = tarfile.TarInfo.create_pax_global_header({"comment": contents})
    place = len(top)
    for (name, _), header, block in zip(files, headers, blocks, strict=True):
        place += len(block)
        members.append(str(Member(path, name, place, header.size)))
        place += -(-header.size // BLOCK) * BLOCK
    if not _has(path, top, place + len(END)):
        with replace_file(path, "wb") as shard:
            shard.write(top)
            for (_, source), header, block in zip(files, headers, blocks, strict=True):
                with open(source, "rb") as file:
                    content = file.read()
                if len(content) != header.size:
                    raise UserError(f"{source}: has changed while it was copied; run the same command again")
                shard.write(block + content + bytes(-header.size % BLOCK))
            shard.write(END)
    return members


def _has(path: str, top: bytes, size: int) -> bool:
    """Return whether there is a shard of this size that begins with `top`."""
    if not os.path.isfile(path) or os.path.getsize(path) != size:
        return False
    with open(path, "rb") as shard:
        return shard.read(len(top)) == top
