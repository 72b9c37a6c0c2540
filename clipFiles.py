"""What a talking-face clip is on disk: list lines, video frames, wav samples.

Everything that opens a clip goes through here, so that the format's numbers and its error messages
stand in one place. No torch: list making and audio conversion start fast.
"""

import contextlib
import itertools
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

# FFmpeg reads local files only (a crafted file may name addresses), and what is wrong with a file is
# said by MediaError, with its name, instead of by the decoder on stderr. Read when cv2 is imported.
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from scipy.io import wavfile  # noqa: E402

SAMPLE_RATE = 16000
FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
FRAME_SIZE = 224  # pixels a side, of VoxCeleb2's face tracks


class MediaError(ValueError):
    """A list line, video or wav that cannot be used; the message names the file and the remedy."""


class WavFormatError(MediaError):
    """A sound wav file, but not 16 kHz mono int16."""


@dataclass(frozen=True)
class Clip:
    """One list line. `offset`: audio-to-video offset in video frames; `frames`: video length."""

    video: str
    audio: str
    offset: int
    frames: int


def parse_list_line(line: str, where: str) -> Clip:
    """Read `mp4path wavpath offset frames`, separated by spaces, or by tabs where a path has spaces.

    `where` names the file and line in the error. Raises MediaError.
    """
    line = line.rstrip("\r\n")
    fields = line.split("\t") if "\t" in line else line.split()
    if len(fields) != 4:
        raise MediaError(
            f"{where}: found {len(fields)} fields, expected 4: mp4path wavpath offset frames "
            "(separated by tabs where a path contains a space). Make the list with makeFileList.py."
        )
    video, audio, offset, frames = fields
    try:
        clip = Clip(video, audio, int(offset), int(frames))
    except ValueError:
        raise MediaError(f"{where}: offset {offset!r} and frames {frames!r} must be whole numbers") from None
    if clip.frames <= 0 or not video or not audio:
        raise MediaError(f"{where}: needs two paths and a positive number of frames, found {line!r}")
    return clip


def format_list_line(clip: Clip) -> str:
    """The inverse of parse_list_line, without a line end. Raises MediaError for tabs and line ends."""
    if any(c in path for path in (clip.video, clip.audio) for c in "\t\r\n"):
        raise MediaError(f"{clip.video!r}: a path in a list cannot contain tabs or line ends; rename it")
    # str.split() splits at every kind of white space, so any of them asks for tabs.
    spaced = any(c.isspace() for c in clip.video + clip.audio)
    separator = "\t" if spaced else " "
    return separator.join((clip.video, clip.audio, str(clip.offset), str(clip.frames)))


def read_list(path: str) -> list[Clip]:
    """All clips of a list made by makeFileList.py. Raises MediaError naming file and line."""
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such list. Make it with makeFileList.py.")
    try:
        with open(path, encoding="utf-8") as lines:
            clips = [
                parse_list_line(line, f"{path}, line {number}")
                for number, line in enumerate(lines, 1)
                if line.strip()
            ]
    except UnicodeDecodeError as error:
        raise MediaError(f"{path}: not a text file ({error.reason} at byte {error.start})") from None
    if not clips:
        raise MediaError(f"{path}: the list is empty. Make it with makeFileList.py.")
    return clips


def find_files(folder: str, extensions: tuple[str, ...]) -> list[str]:
    """Paths, relative to `folder`, of all files with one of `extensions` (lower case), sorted as strings.

    Symbolic links are followed; one that leads back to a folder around it is left out. Raises OSError
    for a folder that cannot be read.
    """

    def stop(error: OSError) -> None:
        raise error

    top = os.path.abspath(folder)
    found = []
    real_paths = {top: (os.path.realpath(top),)}  # a folder -> real paths from the top down to itself
    for path, folders, files in os.walk(top, followlinks=True, onerror=stop):
        around = real_paths.pop(path)
        for name in list(folders):
            full = os.path.join(path, name)
            real = os.path.realpath(full) if os.path.islink(full) else os.path.join(around[-1], name)
            if real in around:
                folders.remove(name)
            else:
                real_paths[full] = (*around, real)
        prefix = "" if path == top else os.path.relpath(path, top) + os.sep
        found += [prefix + name for name in files if name.lower().endswith(extensions)]
    return sorted(found)


def open_video(path: str, decode: bool = True) -> cv2.VideoCapture:
    """Open a video with a single decoding thread (clips are decoded side by side instead).

    decode: False makes grab() step from packet to packet, which counts the frames without decoding.
    Raises MediaError. Release the result.
    """
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such video")
    # The absolute path cannot be mistaken for one of FFmpeg's protocols, such as "concat:".
    settings = [cv2.CAP_PROP_N_THREADS, 1] + ([] if decode else [cv2.CAP_PROP_FORMAT, -1])
    video = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, settings)
    if not video.isOpened():
        size = Path(path).stat().st_size
        raise MediaError(f"{path}: cannot be opened as a video ({size} bytes); broken, or no video in it")
    return video


def read_frames(path: str, first: int, out: np.ndarray, allow_resize: bool = False) -> None:
    """Decode len(out) consecutive frames of `path`, from frame number `first` (0-based), into `out`.

    out: (T, FRAME_SIZE, FRAME_SIZE, 3) uint8, C-contiguous, filled in OpenCV's BGR order.
    allow_resize: scale frames of another size instead of refusing them.
    Raises MediaError when the video does not open, ends early or has frames of another size.
    """
    video = open_video(path)
    try:
        # Grabbing decodes in order, so it is exact whatever the key frames; it only skips the
        # conversion to BGR. VoxCeleb2 has a key frame every 250 frames: seeking would not be faster.
        for number in range(first):
            if not video.grab():
                raise MediaError(f"{path}: ends after {number} frames, frame {first} was asked for")
        for number, slot in enumerate(out, first):
            ok, frame = video.read(slot)
            if not ok:
                raise MediaError(
                    f"{path}: ends after {number} frames, {first + len(out)} were expected; "
                    "make the list again with makeFileList.py"
                )
            if frame.shape != slot.shape:
                if not allow_resize:
                    raise MediaError(
                        f"{path}: frames are {frame.shape[1]}x{frame.shape[0]}, "
                        f"expected a {FRAME_SIZE}x{FRAME_SIZE} face track (--allow_resize scales them)"
                    )
                cv2.resize(frame, (FRAME_SIZE, FRAME_SIZE), dst=slot, interpolation=cv2.INTER_AREA)
    finally:
        video.release()


def open_wav(path: str) -> np.ndarray:
    """The samples of a 16 kHz mono int16 wav, mapped, not read: (samples,) int16.

    Raises MediaError for a file that is missing, broken or of another format.
    """
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such wav file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks other than audio are fine
            rate, samples = wavfile.read(path, mmap=True)
    except Exception as error:  # scipy raises many kinds on a damaged header
        raise MediaError(f"{path}: not a readable wav file ({error})") from None
    if rate != SAMPLE_RATE or samples.ndim != 1 or samples.dtype != np.int16:
        channels = samples.shape[1] if samples.ndim == 2 else 1
        raise WavFormatError(
            f"{path}: {rate} Hz, {channels} channel(s), {samples.dtype}; "
            f"expected {SAMPLE_RATE} Hz, 1 channel, int16. Convert it with convertAudio.py."
        )
    return samples


def remove_leftovers(paths: Iterable[str]) -> None:
    """Remove those of `paths` that replace_file() left behind in a process that was killed since."""
    for path in paths:
        stamp = re.search(r"\.(\d+)\.part$", path)
        if stamp and not _is_running(int(stamp[1])):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks only whether the process is there
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stat:
            return (
                stat.read().rpartition(")")[2].split()[0] != "Z"
            )  # ended, but not cleared away by its parent
    except (ProcessLookupError, IndexError):
        return False
    except OSError:  # it is there and belongs to someone else, or the system has no /proc
        return True


def available_cores() -> int:
    """Processor cores that this process may use: on a shared machine fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, chunk: int = 1
) -> Iterator[Any]:
    """Yield function(item) for all items, in the order in which they are done, from `workers` processes.

    function: importable by name (or a functools.partial of such). chunk: items handed over at a time,
    for work so short that the hand-over would count. With one worker everything is done in this process.
    Leaving early (Ctrl-C) waits for the items in hand. The workers end when this process is killed.
    Raises what `function` raises, and RuntimeError when a worker dies.
    """
    if workers == 1:
        yield from map(function, items)
        return
    source = iter(items)
    running: dict[Future, list] = {}
    # Spawned, not forked: a fork copies the locks of threads that do not exist in the copy.
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
        try:
            while True:
                # Three hand-overs a worker keep all of them busy without queueing a million items.
                while len(running) < 3 * workers and (batch := list(itertools.islice(source, chunk))):
                    with _ctrl_c_held_back():
                        running[pool.submit(_map, function, batch)] = batch
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield from done.result()
                    del running[done]
        except BrokenProcessPool:
            suspects = [str(item) for batch in running.values() for item in batch]
            raise RuntimeError(
                "a worker process died (killed, out of memory, or a file that crashes the decoder). "
                f"It was at one of: {', '.join(suspects[:20])}. Run again, with a smaller --nWorkers."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _map(function: Callable[[Any], Any], batch: list) -> list:
    return [function(item) for item in batch]


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """For starting worker processes: Ctrl-C waits until it is done, and they themselves never see one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []
    # The mask is what the workers inherit; the handler is for a signal that another thread takes.
    handler = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if pressed and callable(handler):
        handler(signal.SIGINT, None)


def _end_with_parent() -> None:
    """In a worker: end at once when the main process is gone, even by SIGKILL."""

    def watch() -> None:
        connection.wait([parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
