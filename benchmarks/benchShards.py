"""Clips as files against clips in shards, on a file system that answers at once and on one that answers late.

    python benchmarks/benchShards.py --list data/dev.txt             # T = 50, batch 30
    python benchmarks/benchShards.py --list data/dev.txt --clips 2000 --delay_ms 5 --threads 1 8

Copies of the list's first clips are made in a folder of its own, once as files and once as shards, so that one epoch
draws each of --clips once. The loader reads an epoch of each, in turns, each time in a new process: cold (the files'
pages are dropped from the page cache with posix_fadvise), warm, and warm with a delay of --delay_ms before every open
and every read of them, as a network file system answers. The delay, and the count of calls, come from a library that
is compiled here (cc) and preloaded, so that FFmpeg's calls count as well. Reports clips a second, and opens and reads
per clip; two epochs are compared bit by bit.
"""

import argparse
import ctypes
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time

from common import ROOT, machine, table

from DatasetLoader import DatasetLoader
from syncnet.compute.memory import keep_memory
from syncnet.loading.shards import write_shard
from syncnet.media.clips import Clip, format_list_line, read_list

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>
#include <sys/stat.h>
atomic_long opens, reads;
static char watched[65536];
static void wait_a_little(void) {
    const char *ms = getenv("SLOW_MS");
    double s = (ms ? atof(ms) : 0) / 1e3;
    struct timespec t = {(time_t)s, (long)((s - (long)s) * 1e9)};
    if (s > 0) nanosleep(&t, 0);
}
static int opened(int fd, const char *path) {
    const char *folder = getenv("SLOW_FOLDER");
    if (fd >= 0 && fd < 65536) {
        watched[fd] = folder && !strncmp(path, folder, strlen(folder));
        if (watched[fd]) { opens++; wait_a_little(); }
    }
    return fd;
}
#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
    return opened(((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode), path); }
#define OPENAT(name) int name(int at, const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
    return opened(((int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name))(at, path, flags, mode), path); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)
static void before_read(int fd) { if (fd >= 0 && fd < 65536 && watched[fd]) { reads++; wait_a_little(); } }
ssize_t read(int fd, void *to, size_t n) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "read");
    before_read(fd); return real(fd, to, n); }
#define PREAD(name) ssize_t name(int fd, void *to, size_t n, off_t at) { \
    static ssize_t (*real)(int, void *, size_t, off_t); if (!real) real = dlsym(RTLD_NEXT, #name); \
    before_read(fd); return real(fd, to, n, at); }
PREAD(pread) PREAD(pread64)
int close(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "close");
    if (fd >= 0 && fd < 65536) watched[fd] = 0;
    return real(fd); }
"""


def make_corpus(folder: str, clips: list[Clip], count: int, per_shard: int) -> dict[str, str]:
    """Lists of the same clips, as files and in shards."""
    files, stored = [], []
    for number in range(count):
        clip = clips[number % len(clips)]
        paths = []
        for source in (clip.video, clip.audio):
            path = os.path.join(folder, "files", f"id{number // 100:05d}", f"{number:07d}")
            path += os.path.splitext(source)[1]
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(source, "rb") as original, open(path, "wb") as copy:
                copy.write(original.read())
            paths.append(path)
        files.append(Clip(*paths, clip.offset, clip.frames))
    for first in range(0, count, per_shard):
        chosen = files[first : first + per_shard]
        pairs = [
            (os.path.relpath(path, os.path.join(folder, "files")), path)
            for clip in chosen
            for path in (clip.video, clip.audio)
        ]
        members = write_shard(os.path.join(folder, "shards", f"dev-{first // per_shard:06d}.tar"), pairs)
        for number, clip in enumerate(chosen):
            stored.append(Clip(members[2 * number], members[2 * number + 1], clip.offset, clip.frames))
    lists = {}
    for name, listed in (("files", files), ("shards", stored)):
        lists[name] = os.path.join(folder, f"{name}.txt")
        with open(lists[name], "w") as file:
            file.writelines(format_list_line(clip) + "\n" for clip in listed)
    return lists


def drop_pages(folder: str) -> None:
    """Take the files of a folder out of the page cache, as far as the system does it."""
    os.sync()
    for path, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(path, name), os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def load(args: argparse.Namespace) -> None:
    """In a process of its own: read an epoch; print seconds, clips, opens, reads and a hash of all batches."""
    keep_memory()
    loader = DatasetLoader(args.list, args.clips, args.batch, args.maxFrames, args.load)
    counts = [
        ctypes.c_long.in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), name) for name in ("opens", "reads")
    ]
    before = [count.value for count in counts]
    content = hashlib.sha256()
    taken = 0.0
    started = time.perf_counter()
    for video, audio in loader:
        taken += time.perf_counter() - started
        content.update(video.permute(0, 2, 3, 4, 1).numpy())
        content.update(audio.numpy())
        started = time.perf_counter()
    used = [count.value - value for count, value in zip(counts, before, strict=True)]
    print(taken, len(loader) * loader.batch_size, *used, content.hexdigest())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", required=True)
    parser.add_argument("--folder", help="where the copies are made; default: a temporary folder")
    parser.add_argument("--maxFrames", type=int, default=50)
    parser.add_argument("--batch", type=int, default=30)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--shard_clips", type=int, default=100)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--delay_ms", type=float, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--load", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        load(args)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        shim = os.path.join(folder, "slow.so")
        source = os.path.join(folder, "slow.c")
        with open(source, "w") as file:
            file.write(SHIM)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        data = os.path.join(folder, "data")
        clips = [clip for clip in read_list(args.list) if clip.longest_crop >= args.maxFrames]
        lists = make_corpus(data, clips, args.clips, args.shard_clips)
        rows, hashes = [], set()

        def pass_over(kind: str, threads: int, delay: float) -> list[float]:
            options = ["--list", lists[kind], "--load", threads, "--maxFrames", args.maxFrames]
            options += ["--batch", args.batch, "--clips", args.clips]
            environment = {"LD_PRELOAD": shim, "SLOW_FOLDER": os.path.join(data, kind), "SLOW_MS": str(delay)}
            done = subprocess.run(
                [sys.executable, os.path.join(ROOT, "benchmarks", "benchShards.py"), *map(str, options)],
                capture_output=True, text=True, check=True, env=os.environ | environment,
            )  # fmt: skip
            *figures, content = done.stdout.split()
            hashes.add(content)
            seconds, read, opens, reads = map(float, figures)
            return [read / seconds, opens / read, reads / read]

        for threads in args.threads:
            for state, delay in (
                ("cold", 0.0),
                ("warm", 0.0),
                (f"{args.delay_ms:g} ms a call", args.delay_ms),
            ):
                found: dict[str, list[list[float]]] = {"files": [], "shards": []}
                for _ in range(args.repeats):
                    for kind, figures in found.items():
                        if state == "cold":
                            drop_pages(os.path.join(data, kind))
                        figures.append(pass_over(kind, threads, delay))
                both = [
                    [statistics.median(column) for column in zip(*rs, strict=True)] for rs in found.values()
                ]
                (files, *of_files), (shards, *of_shards) = both
                rows.append((threads, state, files, shards, shards / files, *of_files, *of_shards))
        print(machine())
        table(
            f"Files and shards, T = {args.maxFrames}, batch {args.batch}, {args.clips} clips",
            ("threads", "file system", "files, clips/s", "shards, clips/s", "ratio")
            + ("opens per clip, files", "reads, files", "opens, shards", "reads, shards"),
            rows,
        )
        print(f"\nAll epochs {'the same, bit by bit' if len(hashes) == 1 else 'DIFFER'}")


if __name__ == "__main__":
    main()
