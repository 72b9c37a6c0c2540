"""A list for training and one for validation, by people: --val_output of makeFileList.py, and what to run next."""

import argparse
import hashlib
import os
import shlex

from syncnet.loading.sizes import longer_lists, size_flags, sizes_that_fit
from syncnet.media.clips import LEAST_BATCH, LEAST_FRAMES, Clip
from syncnet.media.find_files import folder_of_people
from syncnet.support.commands import retyped
from syncnet.support.errors import UserError
from syncnet.support.names import counted

FRACTIONS_TRIED = 100  # values of --val_fraction


def person(clip: str) -> str:
    """The person in a clip, by its path below --mp4_dir: the first folder, or the clip itself if it is in none."""
    return clip.split(os.sep)[0]


def split_people(clips: list[str], output: str, val_output: str, fraction: float) -> dict[str, list[str]]:
    """The clips for training and for validation, by the path of their list; no person appears in both.

    clips: of at least two people. A hash of their names decides who is used for validation.
    """
    people = sorted(set(map(person, clips)), key=lambda name: hashlib.sha256(name.encode()).digest())
    validating = set(people[: min(max(1, round(fraction * len(people))), len(people) - 1)])
    return {
        output: [clip for clip in clips if person(clip) not in validating],
        val_output: [clip for clip in clips if person(clip) in validating],
    }


def check_people(clips: list[str], args: argparse.Namespace, argv: list[str] | None) -> None:
    """Raise UserError, with the command to use instead, unless the clips are of at least two people."""
    people = set(map(person, clips))
    if len(people) > 1:
        return
    raise UserError(
        f"--val_output {args.val_output}: all clips are in the folder {people.pop()}, as one person's; training and "
        "validation need different people, each in a separate folder below --mp4_dir"
        + (f". {tracks}" if (tracks := missing_tracks(args.mp4_dir)) else "")
        + f". {other_videos(clips, args, argv)}"
    )


def other_videos(clips: list[str], args: argparse.Namespace, argv: list[str] | None) -> str:
    """How to validate on other videos of the only person in these clips."""
    folder = folder_of_people(clips)
    if len(clips) < 2 * LEAST_BATCH or not folder:
        return (
            f"Add videos: each list needs at least {LEAST_BATCH} clips, and both together have {len(clips)}"
        )
    kinds = ("mp4", "wav") if args.no_txt else ("mp4", "wav", "txt")
    folders = {f"{kind}_dir": os.path.join(getattr(args, f"{kind}_dir"), folder) for kind in kinds}
    return (
        "To validate on other clips of the same person (train with --alphaI 0: voice identity cannot be learned from "
        f"one person alone), run: {retyped('makeFileList.py', argv, **folders)}"
    )


def missing_tracks(mp4_dir: str) -> str:
    """How many videos makeFaceTracks.py made no tracks of; "" if it made them of all, or did not make mp4_dir."""
    path = os.path.join(os.path.dirname(os.path.abspath(mp4_dir)), "no_tracks.txt")
    if os.path.basename(os.path.abspath(mp4_dir)) != "mp4" or not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    short = sum("--min_frames" in line for line in lines)
    found = (
        f"makeFaceTracks.py made no face track of {counted(len(lines), 'video')}; see {os.path.relpath(path)}"
    )
    if not short:
        return found
    remedy = f"The same makeFaceTracks.py command with --min_frames {LEAST_FRAMES} makes shorter tracks too"
    return f"{found}: {short} are too short. {remedy}"


def next_step(
    args: argparse.Namespace, argv: list[str] | None, clips: dict[str, Clip], usual: tuple[int, int]
) -> str:
    """A line with the command that trains on the two lists, with sizes that suit them; or what to run instead.

    clips: all that are listed, by path below --mp4_dir. usual: maxFrames and nBatchSize of training.
    """

    def sizes_with(fraction: float) -> tuple[int, int] | None:
        lists = split_people(list(clips), args.output, args.val_output, fraction).values()
        return sizes_that_fit([[clips[clip] for clip in chosen] for chosen in lists], *usual)

    if sizes := sizes_with(args.val_fraction):
        flags = {"train_list": args.output, "verify_list": args.val_output}
        flags["save_path"] = os.path.splitext(args.output)[0]
        words = [f"--{flag} {shlex.quote(path)}" for flag, path in flags.items()]
        words += ["--allow_resize"] * args.allow_resize + [size_flags(sizes, usual)]
        return f"Next: python trainSyncNet.py {' '.join(filter(None, words))}"
    remedy = f"Not enough to train on yet. {longer_lists()}"
    people = len(set(map(person, clips)))
    wanted = sorted(range(1, people), key=lambda count: abs(count - args.val_fraction * people))
    for fraction in (float(f"{count / people:.4g}") for count in wanted[:FRACTIONS_TRIED]):
        if sizes_with(fraction):
            return f"{remedy} Or run: {retyped('makeFileList.py', argv, val_fraction=fraction)}"
    return remedy
