"""Turn the sound of .m4a and .mp4 files into the 16 kHz mono wavs that training reads.

    python convertAudio.py --src VOX2_PATH/dev/aac --dst VOX2_PATH/dev/wav

AAC decoders pad the tail, so a plain ffmpeg call gives wavs that are up to 1.6 video frames too long,
and the list maker then refuses a quarter of VoxCeleb2. Here a wav is as long as the sound track says
it is, and its first sample belongs to the first picture. Interrupted in any way, the same command goes on.
"""

import argparse
import contextlib
import errno
import os
import struct
import sys
import time
from collections import Counter
from functools import partial

import av
import numpy as np
from tqdm import tqdm

from media.clips import (
    SAMPLE_RATE,
    MediaError,
    find_files,
    open_wav,
)
from support.files import remove_leftovers, replace_file
from support.processes import available_cores, map_in_processes

SOURCES = (".m4a", ".mp4")
# Further kinds that decode_audio reads, by file name; any other name is taken for an mp4.
FORMATS = {".wav": "wav", ".flac": "flac", ".mp3": "mp3", ".ogg": "ogg"}
CHUNK = 8  # files handed to a worker at a time: one takes only about 2 ms
MAX_DRIFT = 0.02  # seconds; timestamps may be this coarse, a larger step is a gap in the sound
MAX_PADDING = 0.1  # seconds; a track that ends earlier than declared by more than this is broken
CONVERTED, PRESENT, SILENT, FAILED = "converted", "already there", "without a sound track", "failed"


def open_sound(path: str) -> av.container.InputContainer:
    """Open a media file with a sound track. Raises MediaError; close the result."""
    try:
        # Local files of this kind only: a crafted file may be a playlist of other files or addresses.
        kind = FORMATS.get(os.path.splitext(path)[1].lower(), "mp4")
        return av.open(os.path.abspath(path), format=kind, options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        size = os.path.getsize(path) if os.path.exists(path) else 0
        reason = error.strerror or type(error).__name__
        raise MediaError(f"{path}: cannot be opened ({reason}; {size} bytes); download it again") from None


def timeline(container: av.container.InputContainer) -> tuple[float, int | None]:
    """Where the wav lies on the file's clock: (time of its first sample in seconds, samples).

    The wav begins with the first picture, or at time 0 where there is no video, and ends where the sound
    track says it ends. samples is None where the track does not say.
    """
    sound = container.streams.audio[0]
    pictures = container.streams.video
    if container.format.name == "mp3":
        # It starts late by the encoder's delay, which the decoder leaves out; its length is often a guess.
        return (sound.start_time or 0) * float(sound.time_base), None
    origin = (pictures[0].start_time or 0) * float(pictures[0].time_base) if pictures else 0.0
    if sound.duration is None:
        return origin, None
    end = ((sound.start_time or 0) + sound.duration) * float(sound.time_base)
    return origin, max(0, round((end - origin) * SAMPLE_RATE))


def decode_audio(path: str) -> np.ndarray:
    """The first sound track of a media file, in step with its pictures: (samples,) int16, 16 kHz mono.

    Sample i is heard i / 16000 s after the first picture appears. The encoder's priming, edit lists, a
    late or early start and gaps are accounted for by the frames' time stamps; the tail is cut, or filled
    with silence for at most MAX_PADDING, to the declared duration. Raises MediaError.
    """
    with open_sound(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: no sound track")
        return _decode(container, path)


def _decode(container: av.container.InputContainer, path: str) -> np.ndarray:
    origin, samples = timeline(container)
    pieces = _pieces(container, path)
    end = max((round((start - origin) * SAMPLE_RATE) + len(piece) for start, piece in pieces), default=0)
    if samples is None:
        samples = max(0, end)
    if samples == 0 or end < samples - MAX_PADDING * SAMPLE_RATE:
        raise MediaError(
            f"{path}: sound ends after {max(0, end) / SAMPLE_RATE:.2f} s of the {samples / SAMPLE_RATE:.2f} s "
            "it declares; download it again"
        )
    if len(pieces) == 1 and pieces[0][0] == origin and end >= samples:
        return pieces[0][1][:samples]  # nearly always
    wav = np.zeros(samples, np.int16)
    for start, piece in pieces:
        first = round((start - origin) * SAMPLE_RATE)
        piece = piece[max(0, -first) : max(0, samples - first)]
        first = max(0, first)
        wav[first : first + len(piece)] = piece
    return wav


def _pieces(container: av.container.InputContainer, path: str) -> list[tuple[float, np.ndarray]]:
    """Decode to runs of sound without a gap: [(start in seconds, 16 kHz mono int16), ...]."""
    runs: list[_Run] = []
    due, kind = 0.0, None
    try:
        for frame in container.decode(audio=0):
            time_stamp = due if frame.pts is None else frame.time
            frame_kind = (frame.sample_rate, frame.layout.name, frame.format.name)
            if frame_kind != kind or abs(time_stamp - due) > MAX_DRIFT:
                runs.append(_Run(time_stamp, plain=frame_kind == (SAMPLE_RATE, "mono", "fltp")))
                due, kind = time_stamp, frame_kind
            runs[-1].add(frame)
            due += frame.samples / frame.sample_rate
    except av.error.FFmpegError as error:
        raise MediaError(f"{path}: broken {due:.2f} s into the sound ({error.strerror})") from None
    return [(run.start, run.samples()) for run in runs]


class _Run:
    """Decoded frames of one kind without a gap, on their way to 16 kHz mono int16.

    start: seconds. plain: they are 16 kHz mono float already, as VoxCeleb2's are; then they are rounded
    here, as FFmpeg rounds them, in half the time that its filter graph takes.
    """

    def __init__(self, start: float, plain: bool) -> None:
        self.start = start
        self.parts: list[bytes] = []  # float32 or, out of the resampler, int16
        self.resampler = None if plain else av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def add(self, frame: av.AudioFrame) -> None:
        if self.resampler is None:
            # Copied, because a decoder that gets its frames back does not allocate new ones.
            self.parts.append(bytes(frame.planes[0])[: 4 * frame.samples])
        else:
            frame.pts = None  # the resampler counts samples; steps within MAX_DRIFT are no gaps
            self._resample(frame)

    def samples(self) -> np.ndarray:
        if self.resampler is None:
            sound = np.frombuffer(bytearray().join(self.parts), np.float32)
            sound *= 32768
            return np.clip(np.rint(sound, out=sound), -32768, 32767, out=sound).astype(np.int16)
        self._resample(None)  # brings out what the resampler still holds
        return np.frombuffer(b"".join(self.parts), np.int16)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        for part in self.resampler.resample(frame):
            self.parts.append(bytes(part.planes[0])[: 2 * part.samples])


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
            sound = _decode(container, source)
        write_wav(target, sound)
    except MediaError as error:
        return FAILED, str(error)
    except OSError as error:
        return FAILED, f"{target}: cannot be written ({error.strerror})"
    except Exception as error:  # a file that breaks the decoder in a new way must not stop the others
        return FAILED, f"{source}: {type(error).__name__}: {error}"
    return CONVERTED, ""


def write_wav(path: str, sound: np.ndarray) -> None:
    """Write (samples,) int16 at 16 kHz aside, then rename: `path` is whole or not there. Raises OSError.

    Unlike replace_file, this does not wait for the disk, which would take longer than the conversion:
    if the machine loses power, a wav that did not reach the disk is too short, and is made again.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    aside = f"{path}.{os.getpid()}.part"  # as remove_leftovers expects
    try:
        with open(aside, "wb", buffering=0) as file:
            form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
            head = struct.pack("<4sI4s", b"RIFF", 36 + sound.nbytes, b"WAVE") + form
            file.write(head + struct.pack("<4sI", b"data", sound.nbytes))
            if file.write(sound.astype("<i2", copy=False)) != sound.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(aside)
        raise


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


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 (some file failed, or none had sound), 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(
        description="Convert the sound of all .m4a and .mp4 files in a folder to 16 kHz mono wavs that line "
        "up with the video. Finished files are kept, so the same command goes on after an interruption."
    )
    parser.add_argument("--src", required=True, help="folder with the .m4a or .mp4 files, at any depth")
    parser.add_argument("--dst", required=True, help="folder for the wavs, which get the same relative paths")
    parser.add_argument(
        "--nWorkers",
        type=int,
        default=available_cores(),
        help="files converted at the same time, a process each; default: one a core (%(default)s)",
    )
    args = parser.parse_args(arguments)
    if args.nWorkers < 1:
        parser.error(f"--nWorkers {args.nWorkers}: needs at least 1")
    if not os.path.isdir(args.src):
        parser.error(f"--src {args.src}: no such folder")

    begin = time.monotonic()
    try:
        jobs, problems = plan(args.src)
        if os.path.isdir(args.dst):
            remove_leftovers(os.path.join(args.dst, path) for path in find_files(args.dst, (".part",)))
    except OSError as error:
        sys.exit(f"{error.filename}: cannot be read ({error.strerror})")
    if not jobs:
        sys.exit(f"{args.src}: no .m4a or .mp4 files in this folder or the folders in it")
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
    except RuntimeError as error:
        sys.exit(f"convertAudio.py: {error}")

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
