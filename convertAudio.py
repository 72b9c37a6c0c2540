"""Turn the sound of .m4a and .mp4 files into the 16 kHz mono wavs that training reads.

    python convertAudio.py --src VOX2_PATH/dev/aac --dst VOX2_PATH/dev/wav

AAC decoders pad the tail, so a plain ffmpeg call gives wavs that are up to 1.6 video frames too long,
and the list maker then refuses a quarter of VoxCeleb2. Here a wav is as long as the sound track says
it is, and its first sample belongs to the first picture. Interrupted in any way, the same command goes on.
"""

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from functools import partial

import rooms  # noqa: F401
from support.commands import Parser, answer_flags, at_least, command
from support.errors import UserError
from support.processes import available_cores, map_in_processes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        description="Convert the sound of all .m4a and .mp4 files in a folder to 16 kHz mono wavs that line "
        "up with the video. Finished files are kept, so the same command goes on after an interruption.",
        example=["python convertAudio.py --src VOX2_PATH/dev/aac --dst VOX2_PATH/dev/wav"],
    )
    parser.add_argument("--src", required=True, help="folder with the .m4a or .mp4 files, at any depth")
    parser.add_argument("--dst", required=True, help="folder for the wavs, which get the same relative paths")
    parser.add_argument(
        "--nWorkers",
        type=at_least(int, 1),
        default=available_cores(),
        help="files converted at the same time, a process each; default: one a core (%(default)s)",
    )
    args = parser.parse_args(argv)
    if not os.path.isdir(args.src):
        parser.error(f"--src {args.src}: no such folder")
    return args


if __name__ == "__main__":
    answer_flags(parse_args)

from tqdm import tqdm

from media.clips import MediaError, find_files
from media.sound import decode_container, open_sound, timeline
from media.wav import open_wav, write_wav
from support.files import remove_leftovers, replace_file

SOURCES = (".m4a", ".mp4")
CHUNK = 8  # files handed to a worker at a time: one takes only about 2 ms
CONVERTED, PRESENT, SILENT, FAILED = "converted", "already there", "without a sound track", "failed"


def convert_file(folders: tuple[str, str], files: tuple[str, str]) -> tuple[str, str]:
    """Convert src/source to dst/target unless that is done: (what came of it, the reason if it failed).

    folders: (src, dst); files: (source, target), relative to them. An existing wav counts as done when it
    has the format and the exact length that this source gives, so wavs made by other means are replaced.
    """
    source, target = (os.path.join(folder, file) for folder, file in zip(folders, files, strict=True))
    try:
        with open_sound(source) as container:
            if not container.streams.audio:
                return SILENT, f"{source}: no sound track"
            samples = timeline(container)[1]
            if os.path.exists(target):
                with contextlib.suppress(MediaError):
                    if len(open_wav(target)) == samples or samples is None:
                        return PRESENT, ""
            sound = decode_container(container, source)
        write_wav(target, sound)
    except MediaError as error:
        return FAILED, str(error)
    except OSError as error:
        return FAILED, f"{target}: cannot be written ({error.strerror})"
    except Exception as error:  # a file that breaks the decoder in a new way must not stop the others
        return FAILED, f"{source}: {type(error).__name__}: {error}"
    return CONVERTED, ""


def plan(src: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The (source, wav) pairs of a folder, relative paths, sorted; and what is wrong with the others."""
    jobs, problems, taken = [], [], {}
    for source in find_files(src, SOURCES):  # sorted: .m4a comes before .mp4
        target = os.path.splitext(source)[0] + ".wav"
        if target in taken:
            problems.append(f"{os.path.join(src, source)}: would become the same wav as {taken[target]}")
        else:
            taken[target] = source
            jobs.append((source, target))
    return jobs, problems


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 (some file failed, or none had sound), 130 (Ctrl-C)."""
    args = parse_args(argv)
    begin = time.monotonic()
    jobs, problems = plan(args.src)
    if os.path.isdir(args.dst):
        remove_leftovers(os.path.join(args.dst, path) for path in find_files(args.dst, (".part",)))
    if not jobs:
        raise UserError(f"{args.src}: no .m4a or .mp4 files in this folder or the folders in it")
    counts = Counter({FAILED: len(problems)})
    without_sound = []
    try:
        work = partial(convert_file, (args.src, args.dst))
        bar = tqdm(total=len(jobs), unit="file", smoothing=0.05, dynamic_ncols=True)
        with bar:
            for outcome, reason in map_in_processes(work, jobs, args.nWorkers, CHUNK):
                counts[outcome] += 1
                bar.update()
                if outcome == FAILED:
                    problems.append(reason)
                    bar.set_postfix(failed=counts[FAILED])
                elif outcome == SILENT:
                    without_sound.append(reason)
    except KeyboardInterrupt:
        print(
            f"\nStopped at {sum(counts.values())} of {len(jobs)} files. The same command goes on from here."
        )
        return 130

    print(f"{len(jobs)} files in {args.src}, {time.monotonic() - begin:.0f} s")
    for outcome in (CONVERTED, PRESENT, SILENT, FAILED):
        print(f"  {outcome:24}{counts[outcome]:>9}")
    report = os.path.join(args.dst, "not_converted.txt")
    if problems or without_sound:
        with replace_file(report) as file:
            for line in sorted(problems) + sorted(without_sound):
                file.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
        print(f"What was not converted, and why: {report}")
        for line in sorted(problems)[:5]:
            print(f"  {line}")
    elif os.path.exists(report):
        os.remove(report)
    if not counts[CONVERTED] + counts[PRESENT]:
        print(f"No file in {args.src} gave a wav.")
        return 1
    return 1 if counts[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
