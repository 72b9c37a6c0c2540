"""Convert the sound of sound and video files to the 16 kHz mono wavs that training reads.

    python convertAudio.py --src VOX2_PATH/dev/aac --dst VOX2_PATH/dev/wav

AAC decoders pad the end, so a plain ffmpeg call gives wavs that are up to 1.6 video frames too long, and
makeFileList.py then refuses a quarter of VoxCeleb2. This command's wavs are as long as the sound track declares, and
their first sample belongs to the first frame. After an interruption, the same command resumes. A source that is newer
than its wav is converted again.
"""

import syncnet  # noqa: F401  # isort: skip

import argparse
import os
import shlex
import sys
import time
from collections import Counter
from functools import cache, partial

from syncnet.support.commands import Parser, answer_flags, at_least, command
from syncnet.support.errors import UserError
from syncnet.support.parts import PART_HELP, PartRecords, part_of_all, shares
from syncnet.support.processes import available_cores, map_in_processes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        description="Convert the sound of all sound and video files in a folder to 16 kHz mono wavs that line "
        "up with the video. Finished files are kept, so the same command resumes after an interruption.",
        example=["python convertAudio.py --src VOX2_PATH/dev/aac --dst VOX2_PATH/dev/wav"],
    )
    parser.add_argument("--src", required=True, help="folder with the sound or video files, at any depth")
    parser.add_argument("--dst", required=True, help="folder for the wavs, with the same relative paths")
    parser.add_argument(
        "--nWorkers",
        type=at_least(int, 1),
        default=available_cores(),
        help="processes that convert files in parallel; default: one per core (%(default)s)",
    )
    parser.add_argument("--part", type=part_of_all, metavar="K/N", help=PART_HELP.format("report"))
    args = parser.parse_args(argv)
    if not os.path.isdir(args.src):
        where = shlex.quote(os.path.dirname(args.src) or ".")
        found = f"is a file; give its folder: --src {where}" if os.path.exists(args.src) else "no such folder"
        parser.error(f"--src {args.src}: {found}")
    return args


if __name__ == "__main__":
    answer_flags(parse_args)

import numpy as np

from syncnet.media.clips import MediaError
from syncnet.media.file_type import SOUND_FILES, VIDEO_FILES
from syncnet.media.find_files import find_files
from syncnet.media.open_media import open_media, sound_streams
from syncnet.media.sound import NoSoundError, clip_opening, decode_clip
from syncnet.media.wav import WavFormatError, open_wav, write_wav
from syncnet.support.files import check_output, remove_leftovers, replace_file
from syncnet.support.names import counted
from syncnet.support.progress import progress_bar

SOURCES = tuple(dict.fromkeys((".m4a", ".mp4", *SOUND_FILES, *VIDEO_FILES)))
SHOWN = 5  # problems that are printed
STATE = ".convertAudio"  # in --dst, with the results of finished parts
CHUNK = 8  # files per task of a worker: one takes only about 2 ms
MAX_ROUNDING = 8  # int16 steps by which two decoders may differ; more means another sound
CONVERTED, PRESENT, SILENT, FAILED = "converted", "up to date", "without a sound track", "failed"


def convert_file(folders: tuple[str, str], files: tuple[str, str]) -> tuple[str, str]:
    """Convert src/source to dst/target if needed. Returns (outcome, reason if it failed).

    folders: (src, dst); files: (source, target), relative to them.
    """
    source, target = (os.path.join(folder, file) for folder, file in zip(folders, files, strict=True))
    try:
        if os.path.exists(target):
            if same_folder(*folders):
                check_replaceable(target)
            if os.path.samefile(source, target) or is_converted(source, target):
                return PRESENT, ""
        changed = os.stat(source).st_mtime_ns
        sound = decode_clip(source)
        if os.stat(source).st_mtime_ns != changed:
            raise MediaError(
                f"{source}: changed while it was read; run this command again when it is complete"
            )
        write_wav(target, sound)
        date_after(target, changed)
    except NoSoundError as error:
        return SILENT, str(error)
    except MediaError as error:
        return FAILED, str(error)
    except OSError as error:
        what = f"{source}: cannot be read" if error.filename == source else f"{target}: cannot be written"
        return FAILED, f"{what} ({error.strerror})"
    except Exception as error:  # a file that crashes the decoder must not stop the others
        return FAILED, f"{source}: {type(error).__name__}: {error}"
    return CONVERTED, ""


@cache
def same_folder(src: str, dst: str) -> bool:
    return os.path.realpath(src) == os.path.realpath(dst)


def check_replaceable(wav: str) -> None:
    """Raise MediaError for a wav among the sources that this command did not make: it may be an original."""
    try:
        open_wav(wav)
    except WavFormatError as error:
        raise MediaError(
            f"{wav}: {error.found}; not replaced by a 16 kHz wav of the same name, since it may be an "
            "original. Give another folder as --dst, or move it"
        ) from None
    except MediaError:
        pass  # broken: nothing to lose


def is_converted(source: str, target: str) -> bool:
    """Is `target` up to date? Raises MediaError for a broken source.

    It must be as new as the source, with the right format and exact length, and begin with the same sound, so that
    wavs of other files or programs are replaced.
    """
    if os.stat(target).st_mtime_ns < os.stat(source).st_mtime_ns:
        return False
    try:
        wav = open_wav(target)
    except MediaError:
        return False
    samples, opening = clip_opening(source)
    if len(wav) < len(opening) or (samples is not None and len(wav) != samples):
        return False
    difference = np.subtract(wav[: len(opening)], opening, dtype=np.int32)
    return not len(difference) or np.abs(difference).max() <= MAX_ROUNDING


def date_after(target: str, changed: int) -> None:
    """Date a wav after its source, in case another machine's clock dated the source in the future.

    changed: modification time of the source before it was read, in nanoseconds.
    """
    if os.stat(target).st_mtime_ns < changed:
        os.utime(target, ns=(changed, changed))


def find_jobs(src: str, dst: str | None = None) -> tuple[list[tuple[str, str]], list[str]]:
    """The (source, wav) pairs of a folder, as sorted relative paths, and why other files are not converted.

    dst: the folder of the wavs; wavs in it do not count as sources.
    """
    jobs: list[tuple[str, str]] = []
    problems: list[str] = []
    sources = find_files(src, SOURCES, lambda error: problems.append(str(error)))
    sources = without_results(sources, src, dst) if dst else sources
    taken: dict[str, str] = {}
    for source in sources:
        target = os.path.splitext(source)[0] + ".wav"
        other = taken.setdefault(target, source)
        if other != source:
            if not has_track(src, other):  # a video without sound does not compete with the sound beside it
                taken[target] = source
            elif has_track(src, source):
                path = os.path.join(src, source)
                problems.append(f"{path}: would give the same wav as {other}; rename one of them")
                continue
        jobs.append((source, target))
    return jobs, problems


def has_track(src: str, source: str) -> bool:
    """True if a source has a sound track, or cannot be opened, which is reported later."""
    try:
        with open_media(os.path.join(src, source)) as container:
            return bool(sound_streams(container))
    except MediaError:
        return True


def without_results(sources: list[str], src: str, dst: str) -> list[str]:
    """Remove the wavs that an earlier run made: all in dst, if it is inside src.

    If both are the same folder: those that share the name of another source.
    """
    top, made = os.path.realpath(src), os.path.realpath(dst)
    if top == made:
        others = {os.path.splitext(source)[0] for source in sources if not is_wav(source)}
        return [s for s in sources if not (is_wav(s) and os.path.splitext(s)[0] in others)]
    if top.startswith(os.path.join(made, "")):
        return sources

    @cache
    def is_made(folder: str) -> bool:
        return os.path.join(os.path.realpath(os.path.join(src, folder)), "").startswith(
            os.path.join(made, "")
        )

    return [source for source in sources if not (is_wav(source) and is_made(os.path.dirname(source)))]


def is_wav(name: str) -> bool:
    return name.lower().endswith(".wav")


def nothing_found(src: str) -> str:
    """The message for a folder without any source: what was searched for, and what was found."""
    unread: list[MediaError] = []
    others = Counter(
        os.path.splitext(name)[1].lower() or name for name in find_files(src, ("",), unread.append)
    )
    there = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5)) or "no files at all"
    kinds = " ".join(kind for kind in SOURCES if kind not in (".m4a", ".mp4"))
    return (
        f"{src}: no .m4a or .mp4 files in this folder or the folders in it, nor any of {kinds}; "
        f"found: {there}" + "".join(f"; {error}" for error in unread[:SHOWN])
    )


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 (a file failed, or none had sound), 130 (Ctrl-C)."""
    args = parse_args(argv)
    check_output("--dst", args.dst, folder=True)
    begin = time.monotonic()
    jobs, problems = find_jobs(args.src, args.dst)
    if os.path.isdir(args.dst):
        left = find_files(args.dst, (".part",), lambda _: None)
        remove_leftovers(os.path.join(args.dst, path) for path in left)
    if not jobs:
        raise UserError(nothing_found(args.src))
    parts, share = None, jobs
    if args.part:
        sources = [source for source, _ in jobs]
        parts = PartRecords(os.path.join(args.dst, STATE), args.part, shares(sources, args.part), None)
        parts.remove()
        mine = set(parts.share)
        share = [job for job in jobs if job[0] in mine]
    counts: Counter[str] = Counter()
    failed: list[str] = []
    without_sound: list[str] = []
    try:
        work = partial(convert_file, (args.src, args.dst))
        bar = progress_bar(total=len(share), unit="file", smoothing=0.05, dynamic_ncols=True)
        with bar:
            for outcome, reason in map_in_processes(work, share, args.nWorkers, CHUNK):
                counts[outcome] += 1
                bar.update()
                if outcome == FAILED:
                    failed.append(reason)
                    bar.set_postfix(failed=counts[FAILED])
                elif outcome == SILENT:
                    without_sound.append(reason)
    except KeyboardInterrupt:
        print(
            f"\nStopped after {sum(counts.values())} of {len(share)} files. The same command resumes from here."
        )
        return 130

    if parts:
        parts.write([counts, failed, without_sound])
        if (results := parts.results()) is None:
            print(f"{counted(len(share), 'file')} of part {args.part}, {time.monotonic() - begin:.0f} s")
            print(parts.progress(f"Wavs: {args.dst}"))
            return 1 if failed else 0
        counts = sum((Counter(found) for found, *_ in results), Counter())
        failed, without_sound = ([line for result in results for line in result[kind]] for kind in (1, 2))
    counts[FAILED] += len(problems)
    problems += failed
    print(f"{counted(len(jobs), 'file')} in {args.src}, {time.monotonic() - begin:.0f} s")
    for outcome in (CONVERTED, PRESENT, SILENT, FAILED):
        print(f"  {outcome:24}{counts[outcome]:>9}")
    report = os.path.join(args.dst, "not_converted.txt")
    if problems or without_sound:
        with replace_file(report) as file:
            for line in sorted(problems) + sorted(without_sound):
                file.write(line + "\n")
        print(f"Files that were not converted, with the reasons: {report}")
        for line in sorted(problems)[:SHOWN]:
            print(f"  {line}")
    elif os.path.exists(report):
        os.remove(report)
    if parts:
        parts.remove_all()
    if not counts[CONVERTED] + counts[PRESENT]:
        print(f"No file in {args.src} could be converted.")
        return 1
    return 1 if counts[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
