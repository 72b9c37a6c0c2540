"""Make face tracks of any videos: cropped to the face, 25 frames per second, each with its sound.

    python makeFaceTracks.py --src my_videos --dst my_tracks

The tracks are in VoxCeleb2's layout, my_tracks/mp4, wav and txt, ready for makeFileList.py. my_tracks/tracks.csv
lists them, tracks.png shows one face per track (have a look), and no_tracks.txt says why other videos have none.
After an interruption, the same command resumes.
"""

import syncnet  # noqa: F401  # isort: skip

import argparse
import os
import re
import shlex
import sys

from syncnet.support.commands import Parser, answer_flags, command, retyped
from syncnet.support.errors import UserError
from syncnet.support.parts import PART_HELP, PartRecords, part_of_all, shares
from syncnet.support.processes import available_cores
from syncnet.tracks.track_settings import KINDS, MAX_GAP, MIN_FACE, PART, Rule, is_in


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        description="Find the faces in all videos of a folder and write each as a face track with its sound, as "
        "in VoxCeleb2. Finished videos are kept, so the same command resumes after an interruption.",
        example=["python makeFaceTracks.py --src my_videos --dst my_tracks"],
    )
    parser.add_argument(
        "--src", required=True, help="folder with videos of any kind, at any depth; or one video"
    )
    parser.add_argument(
        "--dst",
        required=True,
        help="folder for the tracks, as mp4, wav and txt, and for tables of them",
    )
    parser.add_argument(
        "--nWorkers",
        type=int,
        default=available_cores(),
        help="processes for videos and parts of long videos; default: one per core (%(default)s)",
    )
    parser.add_argument(
        "--detect_every",
        type=int,
        default=5,
        help=f"detect faces in one of this many frames, at 25 per second, at most {MAX_GAP}; a lower number follows "
        "quick movements better and takes longer",
    )
    parser.add_argument(
        "--min_frames",
        type=int,
        default=34,
        help=f"skip shorter tracks, at most {PART}; training needs clips of at least --maxFrames + 4 frames "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--min_face",
        type=int,
        default=60,
        help=f"skip faces whose larger side has fewer pixels in the video, at least {MIN_FACE}",
    )
    parser.add_argument(
        "--face_detector",
        metavar="FILE.onnx",
        help="weights of YuNet, a much faster face detector (docs/data.md says where to download them); "
        "default: MTCNN, which requirements.txt installs. NAME or NAME:FILE: one of your own (CONTRIBUTING.md)",
    )
    parser.add_argument("--part", type=part_of_all, metavar="K/N", help=PART_HELP.format("tables"))
    args = parser.parse_args(argv)
    for flag, least, most in (
        ("nWorkers", 1, 1000),
        ("detect_every", 1, MAX_GAP),
        ("min_frames", 1, PART),
        ("min_face", MIN_FACE, 10000),
    ):
        if not least <= getattr(args, flag) <= most:
            parser.error(f"--{flag} {getattr(args, flag)}: expected {least} to {most}")
    if not os.path.exists(args.src):
        parser.error(f"--src {args.src}: no such folder, and no such video")
    if not os.path.isdir(args.src) and not os.path.isfile(args.src):
        parser.error(f"--src {args.src}: neither a folder nor an ordinary file")
    src, dst = os.path.realpath(args.src), os.path.realpath(args.dst)
    if src == dst or any(is_in(src, os.path.join(dst, kind)) for kind in KINDS):
        parser.error(f"--dst {args.dst}: its tracks would become videos of --src; give another folder")
    return args


if __name__ == "__main__":
    answer_flags(parse_args)

import time
from collections.abc import Iterable

from syncnet.media.clips import FPS, LEAST_FRAMES, MediaError
from syncnet.media.find_files import folder_of_people
from syncnet.support.files import check_output
from syncnet.support.names import counted, one_line
from syncnet.tracks.make_tracks import Run, read_detector
from syncnet.tracks.track_folder import VERSION, TrackFolder, lines_without_tracks
from syncnet.tracks.track_jobs import sources_in

SHOWN_REASONS = 5


def duration(seconds: float) -> str:
    """A length of time in a suitable unit."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def shorter_tracks(reasons: Iterable[str], argv: list[str] | None) -> str:
    """The command that also makes the tracks that are too short for --min_frames, given the reasons of videos."""
    lengths = [
        int(number) for reason in reasons for number in re.findall(r"(\d+) (?:have both|frames$)", reason)
    ]
    if usable := [length for length in lengths if length >= LEAST_FRAMES]:
        return f": {retyped('makeFaceTracks.py', argv, min_frames=min(usable))}"
    return f"; but training needs clips of at least {LEAST_FRAMES} frames, and these have fewer"


def report(
    run: Run, unread: list[MediaError], args: argparse.Namespace, argv: list[str] | None, took: float
) -> bool:
    """Print the outcome and the next command. Returns whether there is a track. Raises UserError without a video.

    unread: folders that could not be read. argv: of main(). took: seconds.
    """
    records = run.folder.records
    found = [records[path] for path in run.paths if path in records]
    gone = records.keys() - set(run.paths)
    tracks = [track for record in records.values() for track in record.tracks]
    seconds = sum(track["frames"] for track in tracks) / FPS
    without = sum(not record.tracks for record in found)
    if not found and not run.failed:
        where = "folder or the folders in it" if os.path.isdir(args.src) else "file"
        unreadable = "".join(f"; {error}" for error in unread[:SHOWN_REASONS])
        raise UserError(f"{args.src}: no videos in this {where}{unreadable}")
    print(f"{counted(len(found) + len(run.failed), 'video')} in {args.src}, {took:.0f} s")
    print(f"  finished before  {run.kept:>9}")
    if old := sum(record.version < VERSION for record in found):
        print(
            f"  by an old version{old:>9}   which divided tracks every 40 s; for new ones, give a new --dst"
        )
    if run.changed:
        print(f"  made again       {run.changed:>9}   the videos, the flags or this program have changed")
    print(f"  with a track     {len(found) - without:>9}")
    print(f"  without          {without:>9}")
    if gone:
        print(f"  no longer exist  {len(gone):>9}   their tracks are kept")
    print(f"  tracks           {len(tracks):>9}   {duration(seconds)}")
    if unread:
        print(f"  folders not read {len(unread):>9}")
    if run.others:
        print(f"  other files      {run.others:>9}   skipped")
    if run.failed:
        print(f"  not finished     {len(run.failed):>9}   this program failed on them")
        print(f"Tracebacks, for a report to the authors: {run.folder.errors}")
        print("The other videos are finished. The same command tries these again:")
        for path in run.failed[:SHOWN_REASONS]:
            print(f"  {one_line(path)}")
    reasons = lines_without_tracks(unread, found)
    if reasons:
        print(
            f"Videos without a track or damaged, with the reasons: {os.path.join(args.dst, 'no_tracks.txt')}"
        )
        for line in reasons[:SHOWN_REASONS]:
            print(f"  {line}")
        if len(reasons) > SHOWN_REASONS:
            print(f"  ... and {len(reasons) - SHOWN_REASONS} more")
    if any("--min_frames" in reason for reason in reasons):
        print(
            f"A --min_frames below {args.min_frames} also makes shorter tracks{shorter_tracks(reasons, argv)}"
        )
    if not tracks:
        print(f"No video in {args.src} gave a track.")
        return False
    print(f"One face per track, to look at: {os.path.join(args.dst, 'tracks.png')}")
    clips = [
        os.path.join(record.name, str(n)) for record in records.values() for n in range(len(record.tracks))
    ]
    folder = folder_of_people(clips)
    if folder:
        print(
            f"All tracks are in the folder {folder}, as one person's: the next command validates on other clips of "
            "the same person. Train with --alphaI 0: voice identity cannot be learned from one person alone"
        )
    folders = {kind: os.path.join(args.dst, kind, *([folder] if folder else [])) for kind in KINDS}
    flags = " ".join(f"--{kind}_dir {shlex.quote(path)}" for kind, path in folders.items())
    lists = "--output data/mine.txt" + " --val_output data/mine_val.txt" * (folder is not None)
    print(f"Next: python makeFileList.py {lists} {flags}")
    return True


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 (no track, or the program failed on a video), 130 (Ctrl-C)."""
    args = parse_args(argv)
    detector, weights = read_detector(args.face_detector)
    check_output("--dst", args.dst, folder=True)
    begin = time.monotonic()
    folder = TrackFolder(args.dst, args.part)
    with folder.in_use(
        f"--dst {args.dst}: another run is using it; wait for it to end, or give another folder"
    ):
        unread: list[MediaError] = []
        src, paths = sources_in(args.src, args.dst, unread.append)
        rule = Rule(args.detect_every, args.min_frames, args.min_face, detector, weights)
        parts = None
        if args.part:
            parts = PartRecords(folder.parts, args.part, shares(paths, args.part), rule.settings)
            parts.remove()
        run = Run(src, paths, folder, rule, args.nWorkers, parts.share if parts else None)
        try:
            run.plan()
            run.work()
        except KeyboardInterrupt:
            if not parts:
                folder.write_tables(unread)
            print("\nStopped. The same command resumes from here.")
            return 130
        folder.clear_work(but=(run.sources[path].work for path in run.failed if path in run.sources))
        if parts:
            parts.write([run.kept, run.changed, run.others, run.failed])
            if (results := parts.results()) is None:
                print(
                    f"{counted(len(run.share), 'file')} of part {args.part}, {time.monotonic() - begin:.0f} s"
                )
                print(parts.progress(f"Tracks: {args.dst}"))
                return 1 if run.failed else 0
            folder.read()
            run.kept, run.changed, run.others = (sum(result[n] for result in results) for n in range(3))
            run.failed = [path for result in results for path in result[3]]
        folder.write_tables(unread)
        if parts:
            parts.remove_all()
    return 0 if report(run, unread, args, argv, time.monotonic() - begin) and not run.failed else 1


if __name__ == "__main__":
    sys.exit(main())
