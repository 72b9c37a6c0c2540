"""A folder of face tracks: which sources are finished, and the tables and pictures that describe the tracks.

`<folder>/mp4/<name>/00001.mp4`, wav and txt likewise, where <name> is the source's path without its extension. The
tracks of a source are moved in when all of them are complete; then it gets a record, which marks it as finished.
Sources without a record are processed again.
"""

import contextlib
import csv
import glob
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

import cv2
import numpy as np

from syncnet.media.clips import FPS, MediaError
from syncnet.media.open_video import open_video
from syncnet.support.files import journal_at, lock_file, replace_file
from syncnet.support.names import one_line, printable
from syncnet.support.parts import Part
from syncnet.tracks.track_settings import KINDS, Rule

MARK = 1  # another number rebuilds everything
VERSION = 2  # of the program that made a record; version 1 divided tracks every 40 s
STATE = ".makeFaceTracks"
COLUMNS = (
    *("source", "track", "first_s", "last_s", "frames", "face_size", "found", "confidence", "shot"),
    "detector",
)
SHEET, SHEET_COLUMNS, CELL, CAPTION = 100, 10, 160, 18  # tracks, columns, pixels


@dataclass
class Record:
    """A finished source. mark: of its content and the settings. name: of its folder of tracks.

    tracks: each one's row of tracks.csv, and `sizes` of its mp4, wav and txt in bytes. reason: why there is none, or
    what is missing; else "". version: of the program that made it.
    """

    source: str
    mark: str
    name: str
    tracks: list[dict] = field(default_factory=list)
    reason: str = ""
    version: int = 1

    @property
    def facts(self) -> tuple[int, int]:
        """Size in bytes and modification time in ns of the source when its tracks were made."""
        size, changed = json.loads(self.mark)[1:3]
        return size, changed

    @property
    def line(self) -> str:
        """The source and the reason, as a line to print."""
        return one_line(f"{self.source}: {self.reason}")


def lines_without_tracks(unread: Iterable[MediaError], records: Iterable[Record]) -> list[str]:
    """Lines to print: folders that could not be read, then sources without a track or damaged."""
    return [one_line(str(error)) for error in unread] + [record.line for record in records if record.reason]


def mark_of(path: str, rule: Rule) -> str:
    """Size and modification time of a source, and the settings: its tracks are remade if any of these changes.

    Raises MediaError unless it is a file.
    """
    try:
        facts = os.stat(path)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(facts.st_mode):
        raise MediaError(f"{path}: not a file")
    return json.dumps([MARK, facts.st_size, facts.st_mtime_ns, rule.settings])


class TrackFolder:
    """The folder at `path`, which is created. Raises OSError.

    part: the part of the work that this run does; None: all of it. records: by source, of all that were ever
    finished. tracks: number of their tracks.
    """

    def __init__(self, path: str, part: Part | None = None) -> None:
        self.path, self.part = path, part
        self.errors = os.path.join(path, "errors.txt")
        self._state = os.path.join(path, STATE)
        name = f"-{part.number}-of-{part.count}" if part else ""
        self._journal = os.path.join(self._state, f"finished{name}.jsonl")
        self._work = os.path.join(self._state, f"work{name}")
        self._locks = ("lock", f"lock{name}") if part else ("lock",)
        self.parts = os.path.join(self._state, "parts")
        os.makedirs(self._state, exist_ok=True)
        self.records: dict[str, Record] = {}
        self.tracks = 0

    @contextlib.contextmanager
    def in_use(self, taken: str) -> Iterator[None]:
        """Lock the folder against a second run, and read its records. Raises OSError with the message `taken`.

        Runs of several parts share the folder.
        """
        with contextlib.ExitStack() as held:
            for name in self._locks:
                shared = self.part is not None and name == "lock"
                held.enter_context(lock_file(os.path.join(self._state, name), taken, shared))
            self.read()
            yield

    def read(self) -> None:
        """Read the records of all parts."""
        self.records = read_records(self.path)
        self.tracks = sum(len(record.tracks) for record in self.records.values())

    def work(self, source: str, mark: str) -> str:
        """The temporary folder for the tracks of a source."""
        key = hashlib.sha256(os.fsencode(source) + mark.encode() + bytes([VERSION])).hexdigest()[:24]
        return os.path.join(self._work, key)

    def is_finished(self, source: str, mark: str, name: str) -> bool:
        """Is this source finished under this name, with all files of its tracks present and complete?

        A source for which an earlier version gave a reason is tried again.
        """
        record = self.records.get(source)
        if record is None or (record.mark, record.name) != (mark, name):
            return False
        if record.reason and record.version < VERSION:
            return False
        for number, track in enumerate(record.tracks, 1):
            for kind, size in zip(KINDS, track["sizes"], strict=True):
                try:
                    if os.stat(self._file(kind, name, number)).st_size != size:
                        return False
                except OSError:
                    return False
        return True

    def finish(self, record: Record, made: list[tuple[str, list[dict]]]) -> None:
        """Move tracks into the folder, numbered in this order, and record the source as finished.

        made: temporary folders, and the rows of tracks.csv of the tracks in them.
        """
        before = self.records.pop(record.source, None)
        self._remove_tracks(record.name)
        for folder, rows in made:
            for number, track in enumerate(rows, 1):
                stem = os.path.join(folder, f"{number:05d}")
                sizes = []
                for kind in KINDS:
                    target = self._file(kind, record.name, len(record.tracks) + 1)
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    os.replace(f"{stem}.{kind}", target)
                    sizes.append(os.stat(target).st_size)
                record.tracks.append({**track, "sizes": sizes})
        self.records[record.source] = record
        self.tracks += len(record.tracks) - (len(before.tracks) if before else 0)
        with journal_at(self._journal) as add:
            add(json.dumps(asdict(record)))

    def report_fault(self, source: str, fault: str) -> None:
        """Append the traceback of a fault of the program to errors.txt; the source stays unfinished."""
        with open(self.errors, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{one_line(source)}\n{fault}\n")
        record = self.records.get(source)
        if record is not None and not record.tracks:
            del self.records[source]

    def _remove_tracks(self, name: str) -> None:
        """Remove the numbered files of a folder of tracks; folders in it belong to other sources."""
        for kind in KINDS:
            folder = os.path.join(self.path, kind, name)
            for file in os.listdir(folder) if os.path.isdir(folder) else ():
                if re.fullmatch(r"\d{5}\." + kind, file):
                    os.remove(os.path.join(folder, file))
            if self.part is None:  # else another part may be about to use its parents
                with contextlib.suppress(OSError):  # not empty
                    os.removedirs(folder)

    def clear_work(self, but: Iterable[str] = ()) -> None:
        """Remove temporary folders except these."""
        kept = {os.path.basename(folder) for folder in but}
        for name in os.listdir(self._work) if os.path.isdir(self._work) else ():
            if name not in kept:
                shutil.rmtree(os.path.join(self._work, name), ignore_errors=True)

    def write_tables(self, unread: Iterable[MediaError] = ()) -> None:
        """Write tracks.csv, tracks.png and no_tracks.txt.

        unread: folders of sources that could not be read; they come first in no_tracks.txt.
        """
        records = [self.records[source] for source in sorted(self.records)]
        if self.part is None:
            with replace_file(self._journal) as file:  # one line for each, the newest
                file.writelines(json.dumps(asdict(record)) + "\n" for record in records)
            self._remove_parts()
        with replace_file(os.path.join(self.path, "tracks.csv")) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for record in records:
                table.writerows(_rows(record))
        reasons = lines_without_tracks(unread, records)
        self._write_or_remove("no_tracks.txt", "".join(line + "\n" for line in reasons).encode())
        self._write_or_remove("tracks.png", self._contact_sheet(records))

    def _remove_parts(self) -> None:
        """Remove the files of finished parts, once their records are in the common journal."""
        for path in glob.glob(os.path.join(glob.escape(self._state), "*-of-*")):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.remove(path)

    def _write_or_remove(self, name: str, content: bytes) -> None:
        path = os.path.join(self.path, name)
        if content:
            with replace_file(path, "wb") as file:
                file.write(content)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    def _contact_sheet(self, records: list[Record]) -> bytes:
        """A png with the middle frames of up to SHEET tracks, evenly spread over all; b"" without tracks."""
        tracks = [(r.name, number) for r in records for number in range(1, len(r.tracks) + 1)]
        chosen = np.linspace(0, len(tracks) - 1, min(SHEET, len(tracks))).round().astype(int)
        if not len(chosen):
            return b""
        rows = -(-len(chosen) // SHEET_COLUMNS)
        sheet = np.full((rows * (CELL + CAPTION), min(len(chosen), SHEET_COLUMNS) * CELL, 3), 255, np.uint8)
        for place, index in enumerate(chosen):
            name, number = tracks[index]
            top, left = place // SHEET_COLUMNS * (CELL + CAPTION), place % SHEET_COLUMNS * CELL
            with contextlib.suppress(MediaError):
                picture = _middle_frame(self._file("mp4", name, number))
                cell = cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_AREA)
                sheet[top : top + CELL, left : left + CELL] = cell
            caption = f"{name}/{number:05d}".encode("ascii", "replace").decode()[-26:]
            corner = (left + 2, top + CELL + 13)
            cv2.putText(sheet, caption, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.32, (0, 0, 0), 1, cv2.LINE_AA)
        return cv2.imencode(".png", sheet)[1].tobytes()

    def _file(self, kind: str, name: str, number: int) -> str:
        return os.path.join(self.path, kind, name, f"{number:05d}.{kind}")


def read_records(folder: str) -> dict[str, Record]:
    """The records of a folder of face tracks, by source. Incomplete lines are ignored. Raises OSError."""
    records = {}
    journals = glob.glob(os.path.join(glob.escape(folder), STATE, "finished*.jsonl"))
    for journal in sorted(journals, key=os.path.getmtime):
        with open(journal, encoding="ascii", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError):
                    record = Record(**json.loads(line))
                    records[record.source] = record
    return records


def _rows(record: Record) -> Iterable[tuple]:
    detector = json.loads(record.mark)[-1].get("detector", "mtcnn") if record.tracks else ""
    for number, track in enumerate(record.tracks, 1):
        yield (
            printable(record.source),
            printable(f"{record.name}/{number:05d}"),
            f"{track['first'] / FPS:.2f}",
            f"{(track['first'] + track['frames']) / FPS:.2f}",
            track["frames"],
            track["size"],
            track["found"],
            track["confidence"],
            track["shot"],
            detector,
        )


def _middle_frame(path: str) -> np.ndarray:
    video = open_video(path)
    try:
        for _ in range(int(video.get(cv2.CAP_PROP_FRAME_COUNT)) // 2):
            video.grab()
        ok, picture = video.read()
        if not ok:
            raise MediaError(f"{path}: no frame in its middle")
        return picture
    finally:
        video.release()
