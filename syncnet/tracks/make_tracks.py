"""Makes the face tracks of videos: plans each, surveys it in parts, writes its tracks in groups, records it."""

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from syncnet.media.clips import FPS, MediaError
from syncnet.support.errors import UserError
from syncnet.support.processes import map_in_processes
from syncnet.support.progress import progress_bar
from syncnet.tracks.survey import DETECTORS
from syncnet.tracks.track_folder import VERSION, Record, TrackFolder, mark_of
from syncnet.tracks.track_jobs import (
    NOTHING,
    Done,
    Job,
    Source,
    folder_names,
    plan,
    reason_for,
    work_on,
)
from syncnet.tracks.track_settings import MIN_FACE, Rule

SURVEYED = 0.8  # share of the first pass in the total time


class Jobs:
    """An iterator over the jobs of all sources, to which jobs can be added; added ones come first."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._surveys = (job for source in sources for job in source.survey_jobs() if not source.failed)
        self._added: deque[Job] = deque()

    def add(self, jobs: Iterable[Job]) -> None:
        self._added.extend(jobs)

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        return self._added.popleft() if self._added else next(self._surveys)


class Run:
    """One run over the videos `paths`, relative to the folder src: its jobs and their outcomes.

    folder: of the tracks, locked. workers: processes. share: those of `paths` to work on; default: all.
    """

    def __init__(
        self,
        src: str,
        paths: list[str],
        folder: TrackFolder,
        rule: Rule,
        workers: int,
        share: list[str] | None = None,
    ) -> None:
        self.src, self.paths, self.folder, self.rule, self.workers = src, paths, folder, rule, workers
        self.share = paths if share is None else share
        self.sources: dict[str, Source] = {}
        self.failed: list[str] = []  # sources on which the program failed
        self.kept = self.changed = self.others = 0

    def plan(self) -> None:
        """Find the videos that are not finished, and plan their parts."""
        names = folder_names(self.paths, {path: record.name for path, record in self.folder.records.items()})
        marks: dict[str, str] = {}
        for path in self.share:
            try:
                marks[path] = mark_of(os.path.join(self.src, path), self.rule)
            except MediaError as error:
                self._finish(Source(path, "", names[path], "", NOTHING, [str(error)]))
        todo = [path for path in marks if not self.folder.is_finished(path, marks[path], names[path])]
        self.kept = len(marks) - len(todo)
        self.changed = sum(path in self.folder.records for path in todo)
        work = {path: self.folder.work(path, marks[path]) for path in todo}
        self.folder.clear_work(but=work.values())
        bar = progress_bar(total=len(todo), unit=" files", desc="checking files", dynamic_ncols=True)
        with bar:
            for path, planned, reason, fault in map_in_processes(
                partial(plan, self.src, self.rule), todo, self.workers, 4
            ):
                bar.update()
                source = Source(path, marks[path], names[path], work[path], planned)
                if fault:
                    self._fail(source, fault)
                elif planned.parts:
                    self.sources[path] = source
                elif reason:
                    source.problems.append(reason)
                    self._finish(source)
                else:
                    self.others += 1

    def work(self) -> None:
        """Make the tracks. Once all parts of a source are surveyed, its tracks are written."""
        total, done = sum(source.plan.length for source in self.sources.values()) / FPS, 0.0
        jobs = Jobs(self.sources[path] for path in sorted(self.sources))
        bar = progress_bar(total=round(total), unit=" s of video", smoothing=0.05, dynamic_ncols=True)
        with bar:
            for result in map_in_processes(partial(work_on, self.rule), jobs, self.workers):
                done += self._take(result, jobs)
                bar.update(round(done) - bar.n)
                bar.set_postfix(tracks=self.folder.tracks)

    def _take(self, result: Done, jobs: Jobs) -> float:
        """Process the outcome of a job; returns the seconds of video that it accounts for."""
        source, job = self.sources[result.job.source], result.job
        if source.failed:
            return 0.0
        if result.fault:
            self._fail(source, result.fault)
            return 0.0
        if result.problem:
            source.problems.append(result.problem)
        if result.stretch is not None:
            source.stretches[job.number] = result.stretch
        if result.rows is not None:
            source.rows[job.number] = result.rows
        source.waiting -= 1
        share = (1 - SURVEYED) / source.groups if job.tracks else SURVEYED / len(source.plan.parts)
        if source.waiting == 0 and job.tracks is None:
            jobs.add(source.write_jobs(self.rule))
            share += 0.0 if source.waiting else 1 - SURVEYED
        if source.waiting == 0:
            self._finish(source)
        return share * source.plan.length / FPS

    def _finish(self, source: Source) -> None:
        made = [(source.tracks_folder(number), source.rows[number]) for number in sorted(source.rows)]
        record = Record(source.path, source.mark, source.name, reason=self._reason(source), version=VERSION)
        self.folder.finish(record, made)
        source.found = None
        if source.work:
            shutil.rmtree(source.work, ignore_errors=True)

    def _fail(self, source: Source, fault: str) -> None:
        source.failed = True
        self.failed.append(source.path)
        self.folder.report_fault(source.path, fault)

    def _reason(self, source: Source) -> str:
        reason = reason_for(source, self.rule)
        return reason.removeprefix(os.path.join(self.src, source.path) + ": ")


def make_tracks(src: str, paths: list[str], dst: str, rule: Rule, workers: int) -> dict[str, Record]:
    """Make the face tracks of the videos src/path in the folder dst, as makeFaceTracks.py does; keeps finished ones.

    Returns a record for each path. Raises UserError, also if the program fails on a video, and OSError.
    """
    folder = TrackFolder(dst)
    with folder.in_use(f"{dst}: another run is using it; wait for it to end, or give another folder"):
        run = Run(src, paths, folder, rule, workers)
        try:
            run.plan()
            run.work()
        finally:
            folder.write_tables()
    if run.failed:
        with open(folder.errors, encoding="utf-8") as file:
            raise UserError(f"{os.path.join(src, run.failed[0])}: this program failed on it: {file.read()}")
    return {path: folder.records.get(path) or Record(path, "", "", reason="not a video") for path in paths}


def read_detector(flag: str | None) -> tuple[str, bytes | None]:
    """The detector of --face_detector, `NAME`, `NAME:FILE`, or `FILE` (of YuNet), and the content of the file.

    Raises UserError for a file that cannot be read, or is none of the detector's.
    """
    name, _, path = (flag or "mtcnn").partition(":")
    if name not in DETECTORS:
        name, path = "yunet", flag or ""
    try:
        weights = Path(path).read_bytes() if path else None
        DETECTORS[name](MIN_FACE, weights)
    except OSError as error:
        raise UserError(f"--face_detector {flag}: cannot be read ({error.strerror})") from None
    except UserError as error:
        raise UserError(f"--face_detector {flag}: {error}") from None
    return name, weights
