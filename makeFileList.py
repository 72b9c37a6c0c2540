"""Make a list of the talking-face clips that can be trained on.

    python ./makeFileList.py --output data/dev.txt --mp4_dir VOX2_PATH/dev/mp4 \\
        --txt_dir VOX2_PATH/dev/txt --wav_dir VOX2_PATH/dev/wav

Every clip's video is decoded once to see that it is whole and as long as its sound. A clip that cannot
be used is left out, counted, and named with the reason in <output>.skipped.txt.
"""

import argparse
import contextlib
import glob
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import rooms  # noqa: F401
from support.commands import Parser, answer_flags, at_least, command
from support.processes import available_cores, map_in_processes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        description="Check every clip of a folder and list those that can be trained on. Clips that cannot "
        "are named, with the reason, in <output>.skipped.txt.",
        epilog="A list line is 'mp4path wavpath offset frames', with spaces between, or with tabs where a "
        "path contains white space.",
        example=[
            "python makeFileList.py --output data/dev.txt --mp4_dir VOX2_PATH/dev/mp4 "
            "--txt_dir VOX2_PATH/dev/txt --wav_dir VOX2_PATH/dev/wav"
        ],
    )
    parser.add_argument("--output", required=True, help="the list to write, such as data/dev.txt")
    parser.add_argument("--mp4_dir", required=True, help="folder of the face tracks, <any depth>/<clip>.mp4")
    parser.add_argument("--wav_dir", required=True, help="folder of the wavs, with the same relative paths")
    parser.add_argument("--txt_dir", help="folder of VoxCeleb2's txt files, with the same relative paths")
    parser.add_argument(
        "--no_txt", action="store_true", help="for your own clips, which have no txt: take offset 0 for all"
    )
    parser.add_argument(
        "--check",
        choices=("decode", "packets"),
        default="decode",
        help="decode: decode every frame, so that damaged pictures are noticed; packets: count the frames "
        "in the container, many times faster, the same list for intact files",
    )
    parser.add_argument(
        "--allow_resize",
        action="store_true",
        help="also list videos that are not 224x224; training needs the same flag to scale them",
    )
    parser.add_argument(
        "--nWorkers",
        type=at_least(int, 1),
        default=available_cores(),
        help="clips checked at the same time, a process each; default: one a core (%(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what an interrupted run has checked; clips whose files changed since are checked again",
    )
    args = parser.parse_args(argv)
    if not args.txt_dir and not args.no_txt:
        parser.error("--txt_dir is needed; for clips that have no txt, give --no_txt instead")
    for flag in ("mp4_dir", "wav_dir") if args.no_txt else ("mp4_dir", "wav_dir", "txt_dir"):
        folder = getattr(args, flag)
        if not os.path.isdir(folder):
            remedy = " Make the wavs with convertAudio.py." if flag == "wav_dir" else ""
            remedy = " For clips without txt, give --no_txt." if flag == "txt_dir" else remedy
            parser.error(f"--{flag} {folder}: no such folder.{remedy}")
        setattr(args, flag, folder.rstrip("/") or "/")
    return args


if __name__ == "__main__":
    answer_flags(parse_args)

import cv2
from tqdm import tqdm

from media.clips import (
    FPS,
    FRAME_SIZE,
    SAMPLES_PER_FRAME,
    Clip,
    MediaError,
    find_files,
    format_list_line,
)
from media.video import open_video
from media.wav import WavFormatError, open_wav
from support.files import remove_leftovers, replace_file

JOURNAL_VERSION = 1
MAX_DIFFERENCE = 1  # video frames between the ends of sound and video (as the 2020 baseline)
PADDED = 2  # frames; an excess up to here is what AAC decoders add
FPS_TOLERANCE = 0.01  # a video further off drifts by a frame within 100 s
VOXCELEB2_CLIPS = {"dev": 1_092_009, "test": 36_237}
VOXCELEB2_PATH = re.compile(r"id\d{5}/[\w-]{11}/\d{5}\.mp4")

# Why a clip is left out -> what to do about it.
REMEDIES = {
    "txt missing": "unpack the txt archive into --txt_dir; for clips that have none: --no_txt",
    "txt without an offset": "line 3 must read 'Offset : <number>'; unpack the txt archive again",
    "wav missing": "make the wavs with convertAudio.py; check --wav_dir",
    "wav broken": "delete it and run convertAudio.py again",
    "wav of another format": "training needs 16 kHz mono int16: run convertAudio.py",
    "mp4 empty": "download or unpack it again",
    "mp4 cannot be opened": "cut off or damaged: download or unpack it again",
    "mp4 without video": "the file has no video stream",
    "not 25 frames a second": "convert it: ffmpeg -i in.mp4 -r 25 out.mp4, then convertAudio.py again",
    "not 224x224": "crop the face to 224x224, or scale any size with --allow_resize",
    "frames missing": "fewer or more frames than the file declares: download or unpack it again",
    "sound up to 2 frames too long": "padding of an AAC decoder: make the wavs with convertAudio.py",
    "sound and video lengths different": "wav of another clip, or a broken one: run convertAudio.py",
    "name cannot stand in a list": "rename it: no tabs or line ends, and UTF-8 only",
}


@dataclass(frozen=True)
class Settings:
    """What decides whether a clip is listed. The folders carry no trailing slash."""

    mp4_dir: str
    txt_dir: str | None  # None: offset 0
    wav_dir: str
    check: str  # "decode" or "packets"
    allow_resize: bool


class SkipClip(Exception):
    """A clip that is left out: a key of REMEDIES, and the details."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)


def clip_paths(settings: Settings, relative: str) -> tuple[str, str, str | None]:
    """(mp4, wav, txt) of a clip, whose mp4 has this path relative to mp4_dir."""
    stem = os.path.splitext(relative)[0]
    txt = os.path.join(settings.txt_dir, stem + ".txt") if settings.txt_dir else None
    return os.path.join(settings.mp4_dir, relative), os.path.join(settings.wav_dir, stem + ".wav"), txt


def read_offset(path: str) -> int:
    """The audio-to-video offset in video frames, from line 3 of a VoxCeleb2 txt. Raises SkipClip."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [file.readline(1000) for _ in range(3)]
    except OSError as error:
        raise SkipClip("txt missing", f"{path}: {error.strerror}") from None
    fields = lines[2].split()  # Offset : -3
    try:
        if fields[0] != "Offset":
            raise ValueError
        return int(fields[2])
    except (IndexError, ValueError):
        detail = f"{path}, line 3: found {lines[2].strip()!r}, expected 'Offset : <number>'"
        raise SkipClip("txt without an offset", detail) from None


def wav_samples(path: str) -> int:
    """The length of a wav that training can read. Raises SkipClip."""
    if not os.path.isfile(path):
        raise SkipClip("wav missing", f"{path}: no such file")
    try:
        return len(open_wav(path))
    except WavFormatError as error:
        raise SkipClip("wav of another format", str(error)) from None
    except MediaError as error:
        raise SkipClip("wav broken", str(error)) from None


def check_lengths(samples: int, frames: int, path: str) -> None:
    """Raise SkipClip unless sound and video end within MAX_DIFFERENCE frames of each other."""
    excess = samples / SAMPLES_PER_FRAME - frames
    if abs(excess) > MAX_DIFFERENCE:
        padded = 0 < excess <= PADDED
        reason = "sound up to 2 frames too long" if padded else "sound and video lengths different"
        detail = f"{path}: sound {samples / SAMPLES_PER_FRAME:.2f}, video {frames} frames long"
        raise SkipClip(reason, detail)


def explain_unopened(path: str, error: MediaError) -> SkipClip:
    """Why OpenCV did not open a video, as a SkipClip to raise."""
    import av  # here, because a broken video is rare and an import in every worker is not

    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return SkipClip("mp4 empty", f"{path}: 0 bytes")
    with contextlib.suppress(av.error.FFmpegError, OSError):
        options = {"protocol_whitelist": "file"}
        with av.open(os.path.abspath(path), format="mp4", options=options) as container:
            if not container.streams.video:
                return SkipClip("mp4 without video", f"{path}: no video stream in it")
    return SkipClip("mp4 cannot be opened", str(error))


def check_clip(settings: Settings, relative: str) -> tuple[int, int]:
    """(offset, frames) of a clip that can be used. Raises SkipClip."""
    mp4, wav, txt = clip_paths(settings, relative)
    try:
        format_list_line(Clip(mp4, wav, 0, 1)).encode("utf-8")
    except (MediaError, UnicodeEncodeError) as error:
        raise SkipClip("name cannot stand in a list", f"{mp4!r}: {error}") from None
    offset = read_offset(txt) if txt else 0
    samples = wav_samples(wav)
    try:
        video = open_video(mp4, decode=settings.check == "decode")
    except MediaError as error:
        raise explain_unopened(mp4, error) from None
    try:
        fps = video.get(cv2.CAP_PROP_FPS)
        if abs(fps - FPS) > FPS_TOLERANCE:
            raise SkipClip("not 25 frames a second", f"{mp4}: {fps:g} frames a second")
        size = tuple(int(video.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if size != (FRAME_SIZE, FRAME_SIZE) and not settings.allow_resize:
            raise SkipClip("not 224x224", f"{mp4}: {size[0]}x{size[1]} pixels")
        declared = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        # Ahead of the decoding, which takes nearly all of the time; the order does not change the list.
        check_lengths(samples, declared, wav)
        frames = 0
        while video.grab():  # decodes a frame (or reads a packet), and makes no image of it
            frames += 1
    finally:
        video.release()
    if frames != declared or frames == 0:
        raise SkipClip("frames missing", f"{mp4}: {frames} frames found, {declared} declared")
    return offset, frames


def signature(settings: Settings, relative: str) -> str:
    """Size and time of change of a clip's files: another one means that the clip is checked again."""
    marks = []
    for path in clip_paths(settings, relative):
        try:
            facts = os.stat(path) if path else None
        except OSError:
            facts = None
        marks.append(f"{facts.st_size}:{facts.st_mtime_ns}" if facts else "-")
    return " ".join(marks)


def check_job(settings: Settings, job: tuple[str, list | None]) -> tuple[str, list, bool]:
    """Check a clip unless the journal's entry for it still holds: (relative path, entry, is it new).

    An entry is [signature, offset, frames] or [signature, reason, detail].
    """
    relative, known = job
    mark = signature(settings, relative)
    if known and known[0] == mark:
        return relative, known, False
    try:
        result = check_clip(settings, relative)
    except SkipClip as skip:
        result = skip.args
    except (OSError, cv2.error) as error:
        result = "mp4 cannot be opened", f"{clip_paths(settings, relative)[0]}: {error}"
    return relative, [mark, *result], True


def read_journal(path: str, settings: Settings) -> dict[str, list]:
    """What an interrupted run with the same settings has found: relative path -> entry.

    A line that was cut off, or is damaged, does not count; it is removed from the end of the file.
    """
    entries = {}
    try:
        with open(path, "r+b") as file:
            head = [JOURNAL_VERSION, asdict(settings)]
            whole = 0
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    found = json.loads(line)
                    if number == 0:
                        if found != head:
                            return {}
                    else:
                        entries[found[0]] = found[1]
                except (ValueError, LookupError, TypeError):
                    if number == 0:
                        return {}
            file.truncate(whole)
    except FileNotFoundError:
        pass
    return entries


def check_all(
    clips: list[str], known: dict[str, list], settings: Settings, journal: str, workers: int
) -> Iterator[tuple[str, list, bool]]:
    """check_job for all clips, in any order; each new entry is in the journal before it is yielded."""
    jobs = ((clip, known.get(clip)) for clip in clips)
    chunk = 1 if settings.check == "decode" else 16  # counting packets takes only about 1 ms a clip
    with open(journal, "a" if known else "w", encoding="ascii") as file:
        if not known:
            file.write(json.dumps([JOURNAL_VERSION, asdict(settings)]) + "\n")
        for clip, entry, new in map_in_processes(partial(check_job, settings), jobs, workers, chunk):
            if new:
                file.write(json.dumps([clip, entry]) + "\n")
                file.flush()
            yield clip, entry, new


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write a text file whole or not at all. Raises OSError."""
    with replace_file(path) as file:
        for line in lines:
            file.write(line.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def report(settings: Settings, clips: list[str], skipped: Counter, again: int, seconds: float) -> None:
    """Print what became of the clips, and what to do about those that were left out."""
    total, left_out = len(clips), sum(skipped.values())
    print(f"Clips found    {total:>9}   in {settings.mp4_dir}, {seconds:.0f} s")
    if again:
        print(f"  kept         {again:>9}   from the interrupted run")
    print(f"  listed       {total - left_out:>9}   {100 * (total - left_out) / total:.1f} %")
    print(f"  skipped      {left_out:>9}")
    for reason, count in skipped.most_common():
        print(f"{count:>12} {reason}: {REMEDIES[reason]}")
    if all(VOXCELEB2_PATH.fullmatch(clip) for clip in clips):
        speakers = len({clip[:7] for clip in clips})
        parts = os.path.abspath(settings.mp4_dir).split(os.sep)
        part = "test" if "test" in parts or ("dev" not in parts and speakers <= 118) else "dev"
        expected = VOXCELEB2_CLIPS[part]
        if total >= expected / 100:  # or else it is a sample, or another corpus in the same layout
            print(
                f"VoxCeleb2's {part} set has {expected:,} clips: {total:,} ({100 * total / expected:.1f} %) are "
                f"here, {total - left_out:,} ({100 * (total - left_out) / expected:.1f} %) are listed."
            )


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 (nothing to list), 130 (Ctrl-C)."""
    args = parse_args(argv)
    txt_dir = None if args.no_txt else args.txt_dir
    settings = Settings(args.mp4_dir, txt_dir, args.wav_dir, args.check, args.allow_resize)
    begin = time.monotonic()
    os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
    remove_leftovers(glob.glob(glob.escape(args.output) + ".*.part"))
    clips = find_files(settings.mp4_dir, (".mp4",))
    if not clips:
        print(f"{settings.mp4_dir}: no .mp4 files in this folder or the folders in it", file=sys.stderr)
        return 1

    journal = args.output + ".journal"
    if os.path.exists(journal) and not args.resume:
        print(f"Starting over; --resume would keep what the interrupted run has in {journal}")
    known = read_journal(journal, settings) if args.resume else {}
    entries: dict[str, list] = {}
    again, skipped = 0, Counter()
    try:
        bar = tqdm(total=len(clips), unit="clip", smoothing=0.05, mininterval=0.5, dynamic_ncols=True)
        with bar:
            for clip, entry, new in check_all(clips, known, settings, journal, args.nWorkers):
                entries[clip] = entry
                again += not new
                if entry[1] in REMEDIES:
                    skipped[entry[1]] += 1
                    bar.set_postfix(skipped=sum(skipped.values()), refresh=False)
                bar.update()
    except KeyboardInterrupt:
        print(f"\nStopped at {len(entries)} of {len(clips)} clips. Go on with the same command and --resume.")
        return 130

    left_out = [clip for clip in clips if entries[clip][1] in REMEDIES]
    write_lines(
        args.output + ".skipped.txt", (f"{entries[clip][1]}: {entries[clip][2]}" for clip in left_out)
    )
    report(settings, clips, skipped, again, time.monotonic() - begin)
    if left_out:
        print(f"The skipped clips, each with its reason: {args.output}.skipped.txt")
    if len(left_out) < len(clips):
        lines = (
            format_list_line(Clip(*clip_paths(settings, clip)[:2], *entries[clip][1:]))
            for clip in clips
            if entries[clip][1] not in REMEDIES
        )
        write_lines(args.output, lines)
        print(f"List: {args.output}")
    else:
        print(f"No clip can be used; {args.output} is not written.", file=sys.stderr)
    os.remove(journal)
    return 0 if len(left_out) < len(clips) else 1


if __name__ == "__main__":
    sys.exit(main())
