"""Split clips by person into a training and a validation list: --val_output of makeFileList.py."""

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

FRACTIONS_TRIED = 100  # values of --val_fraction to try


def person(clip: str) -> str:
    """Return the person in a clip: the first folder in its path below --mp4_dir, or the clip itself."""
    return clip.split(os.sep)[0]


def split_people(clips: list[str], output: str, val_output: str, fraction: float) -> dict[str, list[str]]:
    """Split clips into {output: training clips, val_output: validation clips}; no person appears in both lists.

    clips: of at least two people. Hashes of the people's names decide who is used for validation.
    """
    people = sorted(set(map(person, clips)), key=lambda name: hashlib.sha256(name.encode()).digest())
    validating = set(people[: min(max(1, round(fraction * len(people))), len(people) - 1)])
    return {
        output: [clip for clip in clips if person(clip) not in validating],
        val_output: [clip for clip in clips if person(clip) in validating],
    }


def check_people(clips: list[str], args: argparse.Namespace, argv: list[str] | None) -> None:
    """Raise UserError, with a command to use instead, unless there are clips of at least two people."""
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
    """Return how to validate on other videos of the same person, if all clips are of one person."""
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
    """Return a message about videos without face tracks; "" if there are none or makeFaceTracks.py was not used."""
    path = os.path.join(os.path.dirname(os.path.abspath(mp4_dir)), "no_tracks.txt")
    if os.path.basename(os.path.abspath(mp4_dir)) != "mp4" or not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    short = sum("--min_frames" in line for line in lines)
    found = f"makeFaceTracks.py found no face track in {counted(len(lines), 'video')}; see {os.path.relpath(path)}"
    if not short:
        return found
    remedy = f"The same makeFaceTracks.py command with --min_frames {LEAST_FRAMES} makes shorter tracks too"
    return f"{found}. Too short: {short}. {remedy}"


def next_step(
    args: argparse.Namespace, argv: list[str] | None, clips: dict[str, Clip], usual: tuple[int, int]
) -> str:
    """Return a line with the command that trains on the two lists, with sizes that fit, or with what to run instead.

    clips: all listed clips, by path below --mp4_dir. usual: default maxFrames and nBatchSize of training.
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
