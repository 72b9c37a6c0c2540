"""List the talking-face clips that can be used for training.

    python ./makeFileList.py --output data/dev.txt --mp4_dir VOX2_PATH/dev/mp4 \\
        --txt_dir VOX2_PATH/dev/txt --wav_dir VOX2_PATH/dev/wav

Each clip's video is decoded once to check that it is complete and as long as its sound. Clips that cannot be used are
skipped, counted, and listed with the reason in <output>.skipped.txt. --shards copies the listed clips into tar files,
which a shared file system reads much faster; --part shares the work among machines.
"""

import syncnet  # noqa: F401  # isort: skip

import argparse
import glob
import os
import re
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from syncnet.loading.two_lists import missing_tracks
from syncnet.support.commands import Parser, answer_flags, at_least, command
from syncnet.support.names import counted
from syncnet.support.parts import PART_HELP, PartRecords, part_of_all, shares
from syncnet.support.processes import available_cores, map_in_processes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        description="Check all clips in a folder and list those that can be used for training. The others are listed "
        "with the reason in <output>.skipped.txt.",
        epilog="A list line is 'mp4path wavpath offset frames', separated by spaces, or by tabs if a path contains "
        "whitespace.",
        example=[
            "python makeFileList.py --output data/dev.txt --mp4_dir VOX2_PATH/dev/mp4 "
            "--txt_dir VOX2_PATH/dev/txt --wav_dir VOX2_PATH/dev/wav"
        ],
    )
    parser.add_argument("--output", required=True, help="the list to write, such as data/dev.txt")
    parser.add_argument(
        "--mp4_dir",
        required=True,
        help="folder of the face tracks, <any depth>/<clip>.mp4, or .avi, .mkv, .mov, .webm, ...",
    )
    parser.add_argument("--wav_dir", required=True, help="folder of the wavs, with the same relative paths")
    parser.add_argument("--txt_dir", help="folder of VoxCeleb2's txt files, with the same relative paths")
    parser.add_argument(
        "--no_txt",
        action="store_true",
        help="use offset 0 for all clips: for your own clips, which have no txt",
    )
    parser.add_argument(
        "--check",
        choices=("decode", "packets"),
        default="decode",
        help="decode: decode every frame, which finds damaged frames, and interlaced frames after a progressive "
        "first one; packets: read only the packets, many times faster, with the same list for intact files",
    )
    parser.add_argument(
        "--allow_resize",
        action="store_true",
        help="also list videos that are not 224x224; training needs the same flag to scale them",
    )
    parser.add_argument(
        "--val_output",
        metavar="LIST",
        help="a second list, for validation: it gets the clips of --val_fraction of the people, and --output all "
        "other clips. A person is the first folder below --mp4_dir",
    )
    parser.add_argument(
        "--val_fraction",
        type=at_least(float, 0),
        default=0.1,
        help="fraction of the people for --val_output; the same people in every run",
    )
    parser.add_argument(
        "--nWorkers",
        type=at_least(int, 1),
        default=available_cores(),
        help="processes that check clips in parallel; default: one per core (%(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="reuse the results of an interrupted run with this --output and --check, whatever the other flags; "
        "videos that changed since are checked again",
    )
    parser.add_argument(
        "--shards",
        metavar="DIR",
        help="copy the listed clips into tar files in this folder, DIR/<output>-000000.tar ..., and list them there",
    )
    parser.add_argument(
        "--shard_clips",
        type=at_least(int, 1),
        default=1000,
        help="consecutive clips per tar file, counted before unusable ones are skipped",
    )
    parser.add_argument(
        "--part",
        type=part_of_all,
        metavar="K/N",
        help=PART_HELP.format("list"),
    )
    args = parser.parse_args(argv)
    if not args.txt_dir and not args.no_txt:
        parser.error("--txt_dir is required; for clips without txt, give --no_txt instead")
    for flag in ("mp4_dir", "wav_dir") if args.no_txt else ("mp4_dir", "wav_dir", "txt_dir"):
        folder = getattr(args, flag)
        if not os.path.isdir(folder):
            remedy = " Make the wavs with convertAudio.py." if flag == "wav_dir" else ""
            remedy = " For clips without txt, give --no_txt." if flag == "txt_dir" else remedy
            found = "is a file, expected a folder." if os.path.exists(folder) else f"no such folder.{remedy}"
            if flag == "mp4_dir" and (tracks := missing_tracks(folder)):
                found += f" {tracks}"
            parser.error(f"--{flag} {folder}: {found}")
        setattr(args, flag, folder.rstrip("/") or "/")
    if not 0 < args.val_fraction < 1:
        parser.error(f"--val_fraction {args.val_fraction}: expected a fraction between 0 and 1, such as 0.1")
    if args.val_output and os.path.abspath(args.val_output) == os.path.abspath(args.output):
        parser.error(f"--val_output {args.val_output}: is the same file as --output; give another name")
    return args


if __name__ == "__main__":
    answer_flags(parse_args)

from syncnet.loading.shards import blocks_of, write_shards
from syncnet.loading.two_lists import check_people, next_step, person, split_people
from syncnet.media.check_journal import CheckJournal, Fingerprint, Result
from syncnet.media.clip_check import (
    NO_TXT,
    NO_WAV,
    REMEDIES,
    Checked,
    CheckSettings,
    check_job,
    clip_paths,
    folder_that_fits,
    sharing_a_wav,
)
from syncnet.media.clips import Clip, MediaError, format_list_line
from syncnet.media.file_type import VIDEO_FILES
from syncnet.media.find_files import find_files
from syncnet.media.video_facts import EMPTY, FRAMES_MISSING, NOT_OPENED
from syncnet.media.wav import conversion_line, converted_folder
from syncnet.support.files import check_output, remove_leftovers, replace_file
from syncnet.support.progress import progress_bar
from syncnet.training.flags import defaults

SHOWN_FOLDERS = 5
VOXCELEB2_CLIPS = {"dev": 1_092_009, "test": 36_237}
VOXCELEB2_PATH = re.compile(r"id\d{5}/[\w-]{11}/\d{5}\.mp4")

# REMEDIES for clips of VoxCeleb2: its archives are complete.
VOXCELEB2_REMEDIES = {
    EMPTY: "download or unpack it again",
    NOT_OPENED: "cut off or damaged: download or unpack it again",
    FRAMES_MISSING: "fewer frames than the file declares: download or unpack it again",
    "sound up to 2 frames too long": "padding of an AAC decoder: make the wavs with convertAudio.py",
    "sound and video lengths different": "wav of another clip, or a broken wav: run convertAudio.py",
}


def check_all(
    clips: Sequence[str], resume: bool, settings: CheckSettings, journal: CheckJournal, workers: int
) -> Iterator[Checked]:
    """Yield check_job of all clips, in any order; each new result is in the journal before it is yielded.

    resume: reuse the results in the journal, which are kept either way.
    """
    real_paths: dict[str, str] = {}  # for clips being checked

    def jobs() -> Iterator[tuple[str, tuple[Fingerprint, Result] | None]]:
        for clip in clips:
            real_paths[clip], known = journal.take(os.path.join(settings.mp4_dir, clip))
            yield clip, known if resume else None

    chunk = 1 if settings.check == "decode" else 16  # reading packets takes only about 1 ms per clip
    with journal.open() as add:
        for checked in map_in_processes(partial(check_job, settings), jobs(), workers, chunk):
            real = real_paths.pop(checked.relative)
            if checked.found:
                add(real, *checked.found)
            yield checked


def report_journal(journal: CheckJournal, resume: bool) -> None:
    """Print how many results an interrupted run left, and whether they are reused."""
    videos = counted(journal.count, "video")
    if resume and not journal.count:
        print(f"--resume: {journal.path} has no results for --check {journal.check}; all clips are checked")
    elif resume:
        print(
            f"Resuming: {journal.path} has results for {videos}; videos that changed since are checked again"
        )
    elif journal.count:
        print(
            f"{journal.path}: an interrupted run checked {videos}. Without --resume they are checked again. To reuse "
            "these results, stop (Ctrl-C) and add --resume: nothing is lost"
        )


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write a text file completely or not at all. Raises OSError."""
    with replace_file(path) as file:
        for line in lines:
            file.write(line + "\n")


def write_lists(
    args: argparse.Namespace,
    argv: list[str] | None,
    settings: CheckSettings,
    clips: list[str],
    outcomes: dict[str, tuple],
    in_shards: dict[str, tuple[str, str]],
) -> None:
    """Write --output and, for a fraction of the people, --val_output; print the next command.

    outcomes: (offset, frames) by clip. in_shards: with --shards, the paths of each clip's video and wav there. Raises
    UserError for --val_output if all clips are of one person.
    """
    lists = {args.output: clips}
    if args.val_output:
        check_people(clips, args, argv)
        lists = split_people(clips, args.output, args.val_output, args.val_fraction)

    def clip_of(path: str) -> Clip:
        return Clip(*(in_shards.get(path) or clip_paths(settings, path)[:2]), *outcomes[path])

    for path, chosen in lists.items():
        write_lines(path, (format_list_line(clip_of(clip)) for clip in chosen))
        people = counted(len(set(map(person, chosen))), "person", "people")
        print(f"List: {path}" + f" ({counted(len(chosen), 'clip')} of {people})" * bool(args.val_output))
    if args.val_output:
        usual = defaults()
        frames, batch = usual["maxFrames"], usual["nBatchSize"]
        assert isinstance(frames, int) and isinstance(batch, int)
        print(next_step(args, argv, {clip: clip_of(clip) for clip in clips}, (frames, batch)))


def remedy(reason: str, clips: list[str]) -> str:
    """What to do about the clips that are skipped for a reason."""
    if reason in VOXCELEB2_REMEDIES and all(VOXCELEB2_PATH.fullmatch(clip) for clip in clips):
        return VOXCELEB2_REMEDIES[reason]
    return REMEDIES[reason]


def report(
    settings: CheckSettings, clips: list[str], skipped: dict[str, list[str]], reused: int, seconds: float
) -> None:
    """Print how many clips are listed and skipped, and what to do for each reason."""
    total, unusable_clips = len(clips), sum(map(len, skipped.values()))
    print(f"Clips found    {total:>9}   in {settings.mp4_dir}, {seconds:.0f} s")
    if reused:
        print(f"  kept         {reused:>9}   videos checked by the interrupted run")
    print(f"  listed       {total - unusable_clips:>9}   {100 * (total - unusable_clips) / total:.1f} %")
    print(f"  skipped      {unusable_clips:>9}")
    for reason, left in sorted(skipped.items(), key=lambda item: -len(item[1])):
        print(f"{len(left):>12} {reason}: {remedy(reason, left)}")
        of_all = reason in (NO_WAV, NO_TXT) and len(left) == total
        if of_all and (fits := folder_that_fits(settings, left[0], reason)):
            print(f"{'':13}The files are found with {fits}")
        if reason == "wav of another format":
            folder = settings.wav_dir
            print(f"{'':13}{conversion_line(folder)}, then --wav_dir {shlex.quote(converted_folder(folder))}")
    if all(VOXCELEB2_PATH.fullmatch(clip) for clip in clips):
        speakers = len({clip[:7] for clip in clips})
        parts = os.path.abspath(settings.mp4_dir).split(os.sep)
        part = "test" if "test" in parts or ("dev" not in parts and speakers <= 118) else "dev"
        expected = VOXCELEB2_CLIPS[part]
        if total >= expected / 100:  # else it is a sample, or another corpus in the same layout
            print(
                f"VoxCeleb2's {part} set has {expected:,} clips: {total:,} ({100 * total / expected:.1f} %) are "
                f"here, {total - unusable_clips:,} ({100 * (total - unusable_clips) / expected:.1f} %) are listed."
            )


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 (nothing to list), 130 (Ctrl-C)."""
    args = parse_args(argv)
    check_output("--output", args.output)
    if args.val_output:
        check_output("--val_output", args.val_output)
    txt_dir = None if args.no_txt else args.txt_dir
    settings = CheckSettings(args.mp4_dir, txt_dir, args.wav_dir, args.check, args.allow_resize)
    if args.shards:
        check_output("--shards", args.shards, folder=True)
        remove_leftovers(glob.glob(os.path.join(glob.escape(args.shards), "*.part")))
    begin = time.monotonic()
    os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
    remove_leftovers(glob.glob(glob.escape(args.output) + ".*.part"))
    unread: list[MediaError] = []
    clips = find_files(settings.mp4_dir, VIDEO_FILES, unread.append)
    if not clips:
        print(
            f"{settings.mp4_dir}: no .mp4 files in this folder or the folders in it, nor other videos "
            f"({' '.join(VIDEO_FILES[1:])})"
            + "".join(f"; {error}" for error in unread[:SHOWN_FOLDERS])
            + (f". {tracks}" if (tracks := missing_tracks(settings.mp4_dir)) else ""),
            file=sys.stderr,
        )
        return 1

    if args.val_output:
        check_people(clips, args, argv)  # before hours of checking
    share: Sequence[str] = clips
    records = None
    resume = args.resume or args.part is not None
    blocks = blocks_of(clips, args.shards, args.output, args.shard_clips) if args.shards else {}
    if args.part:
        parts = shares(clips, args.part)
        if args.shards:  # each part has whole shards
            groups, count = list(blocks.values()), args.part.count
            parts = [[clip for block in groups[part::count] for clip in block] for part in range(count)]
        asked = [*vars(settings).values(), args.shards, args.shard_clips]
        records = PartRecords(args.output + ".parts", args.part, parts, asked)
        records.remove()
        share = records.share
    journal = CheckJournal(records.path("journal") if records else args.output + ".journal", args.check)
    if args.resume or journal.count:
        report_journal(journal, resume)
    outcomes: dict[str, tuple] = {}
    in_shards: dict[str, tuple[str, str]] = {}
    reused, unusable = 0, 0
    shared = sharing_a_wav(clips)
    try:
        bar = progress_bar(total=len(share), unit="clip", smoothing=0.05, mininterval=0.5, dynamic_ncols=True)
        with bar:
            for checked in check_all(share, resume, settings, journal, args.nWorkers):
                clip, outcome = checked.relative, checked.outcome
                if clip in shared:
                    outcome = "two videos, one wav", os.path.join(settings.mp4_dir, clip)
                outcomes[clip] = outcome
                reused += checked.reused
                if outcome[0] in REMEDIES:
                    unusable += 1
                    bar.set_postfix(skipped=unusable, refresh=False)
                bar.update()
        if args.shards:
            mine = {clip for clip in share if outcomes[clip][0] not in REMEDIES}
            held = {shard: [clip for clip in block if clip in mine] for shard, block in blocks.items()}
            held = {shard: chosen for shard, chosen in held.items() if chosen}
            in_shards = write_shards(held, partial(clip_paths, settings), args.nWorkers)
    except KeyboardInterrupt:
        flag = "" if args.part else " with --resume"
        print(
            f"\nStopped after {len(outcomes)} of {len(share)} clips. To resume, run the same command{flag}."
        )
        return 130

    if records:
        records.write([outcomes, in_shards, reused])
        results, reused = records.results(), 0
        if results is None:
            print(records.progress(f"List: {args.output}"))
            return 0
        for part_outcomes, part_shards, part_reused in results:
            outcomes.update(part_outcomes)
            in_shards.update(part_shards)
            reused += part_reused
    unusable_clips = [clip for clip in clips if outcomes[clip][0] in REMEDIES]
    reasons = [": ".join(outcomes[clip]) for clip in unusable_clips]
    write_lines(args.output + ".skipped.txt", [*map(str, unread), *reasons])
    skipped = defaultdict(list)
    for clip in unusable_clips:
        skipped[outcomes[clip][0]].append(clip)
    report(settings, clips, skipped, reused, time.monotonic() - begin)
    if unread:
        print(f"Folders that cannot be read: {len(unread)}")
        for error in unread[:SHOWN_FOLDERS]:
            print(f"  {error}")
    if unusable_clips or unread:
        print(f"The skipped clips, with the reasons: {args.output}.skipped.txt")
    listed = [clip for clip in clips if outcomes[clip][0] not in REMEDIES]
    if listed:
        write_lists(args, argv, settings, listed, outcomes, in_shards)
    else:
        print(f"No clip can be used; {args.output} is not written.", file=sys.stderr)
    if records:
        records.remove_all()
    elif unused := journal.close():
        print(
            f"Kept {journal.path}: it has {counted(unused, 'result')} of an interrupted run that this run did not "
            "use (other videos, or another --check). Delete it if you do not need them"
        )
    return 0 if listed else 1


if __name__ == "__main__":
    sys.exit(main())
