"""Clips in shards against the same clips as files, on a fast and on a slow file system.

    python benchmarks/benchShards.py --list data/dev.txt             # T = 50, batch 30
    python benchmarks/benchShards.py --list data/dev.txt --clips 2000 --delay_ms 5 --threads 1 8

Copies of the list's first clips are made in a separate folder, once as files and once as shards, so that one epoch
draws each of --clips once. The loader reads an epoch of each, alternating: cold (posix_fadvise drops the files' pages
from the page cache), warm, and with a delay of --delay_ms before every open and every read, as on a network file
system. A small library, compiled here with cc and preloaded, delays and counts the calls, including FFmpeg's. Reports
clips per second, CPU time, and opens and reads per clip; the batches are compared bit by bit.
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

from common import machine, table

from DatasetLoader import DatasetLoader
from syncnet.compute.memory import keep_memory
from syncnet.loading.shards import write_shard
from syncnet.media.clips import Clip, format_list_line, read_list

COUNTED = ("opens", "reads", "bytes")
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
atomic_long opens, reads, bytes;
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
static int is_watched(int fd) { return fd >= 0 && fd < 65536 && watched[fd]; }
static ssize_t has_read(int fd, ssize_t n) {
    if (is_watched(fd)) { reads++; bytes += n > 0 ? n : 0; wait_a_little(); }
    return n; }
ssize_t read(int fd, void *to, size_t n) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "read");
    return has_read(fd, real(fd, to, n)); }
#define PREAD(name) ssize_t name(int fd, void *to, size_t n, off_t at) { \
    static ssize_t (*real)(int, void *, size_t, off_t); if (!real) real = dlsym(RTLD_NEXT, #name); \
    return has_read(fd, real(fd, to, n, at)); }
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


def load(loader: DatasetLoader, counts: list[ctypes.c_long], delay: float) -> tuple[list[float], str]:
    """Read an epoch with a delay in ms before each open and read.

    Returns [clips/s, ms of processor time per clip, COUNTED per clip], and a hash of all batches.
    """
    os.environ["SLOW_MS"] = str(delay)
    before, content = [count.value for count in counts], hashlib.sha256()
    loader.set_epoch(0)
    waited, used = 0.0, time.process_time()
    started = time.perf_counter()
    for video, audio in loader:
        waited += time.perf_counter() - started
        content.update(video.permute(0, 2, 3, 4, 1).numpy())
        content.update(audio.numpy())
        del video, audio
        started = time.perf_counter()
    clips = len(loader) * loader.batch_size
    calls = [(count.value - value) / clips for count, value in zip(counts, before, strict=True)]
    return [clips / waited, 1e3 * (time.process_time() - used) / clips, *calls], content.hexdigest()


def compare(args: argparse.Namespace, data: str) -> None:
    """Make the corpus in the folder `data`, read it in all ways, and print the table."""
    keep_memory()
    clips = [clip for clip in read_list(args.list) if clip.longest_crop >= args.maxFrames]
    lists = make_corpus(data, clips, args.clips, args.shard_clips)
    counts = [ctypes.c_long.in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), name) for name in COUNTED]
    rows, hashes = [], set()
    for threads in args.threads:
        loaders = {
            kind: DatasetLoader(path, args.clips, args.batch, args.maxFrames, threads)
            for kind, path in lists.items()
        }
        for state, delay in (("cold", 0.0), ("warm", 0.0), (f"{args.delay_ms:g} ms per call", args.delay_ms)):
            found: dict[str, list[list[float]]] = {kind: [] for kind in loaders}
            for _ in range(args.repeats):
                for kind, loader in loaders.items():
                    if state == "cold":
                        drop_pages(os.path.join(data, kind))
                    figures, content = load(loader, counts, delay)
                    found[kind].append(figures)
                    hashes.add(content)
            files, shards = (
                [statistics.median(column) for column in zip(*figures, strict=True)]
                for figures in found.values()
            )
            pairs = zip(files, shards, strict=True)
            rows.append((threads, state, *(f"{one:.3g} / {other:.3g}" for one, other in pairs)))
    print(machine())
    table(
        f"Files / shards, T = {args.maxFrames}, {args.clips} clips",
        (
            "threads",
            "file system",
            "clips/s",
            "CPU time, ms per clip",
            *(f"{name} per clip" for name in COUNTED),
        ),
        rows,
    )
    print(f"\nAll epochs {'are the same, bit by bit' if len(hashes) == 1 else 'DIFFER'}")


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
    args = parser.parse_args()
    if data := os.environ.get("SLOW_FOLDER"):
        compare(args, data)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        shim, source = os.path.join(folder, "slow.so"), os.path.join(folder, "slow.c")
        with open(source, "w") as file:
            file.write(SHIM)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        preloaded = {"LD_PRELOAD": shim, "SLOW_FOLDER": os.path.join(folder, "data")}
        subprocess.run([sys.executable, *sys.argv], check=True, env=os.environ | preloaded)


if __name__ == "__main__":
    main()
