"""The jobs of makeFaceTracks.py for each source, their saved results, and why there is no track."""

import contextlib
import json
import math
import os
import re
import shutil
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import av
import cv2

from syncnet.media.clips import FPS, MediaError
from syncnet.media.file_type import VIDEO_FILES
from syncnet.media.find_files import find_files
from syncnet.media.open_media import NotMediaError
from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.support.names import as_any_system
from syncnet.tracks.face_tracks import (
    Found,
    Plan,
    group_tracks,
    plan_parts,
    select_tracks,
    survey_part,
    write_group,
)
from syncnet.tracks.survey import Part
from syncnet.tracks.track_joining import Stretch
from syncnet.tracks.track_settings import KINDS, PART, Rule, is_in
from syncnet.tracks.tracks import Track

# Extensions of unfinished downloads and temporary files.
UNFINISHED = (
    ".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".!qb", ".!ut", ".tmp", "~",
)  # fmt: skip
# A folder of such a name could be in the place of a track's file.
TRACK_FILE = re.compile(r"/\d{5}\.(mp4|wav|txt)$")
# Characters that a list cannot hold, and bytes that are not UTF-8.
NOT_LISTED = re.compile("[\ud800-\udfff\\t\\r\\n]")
NOTHING = Plan([], 0, None, False)
# How the reasons of videos begin in which no face was found, or none that is large and long enough.
NO_FACE = ("no face found", "faces smaller than", "shorter than")
EARLY_END = FPS // 2  # slots by which pictures may end before the declared end


@dataclass(eq=False)
class Source:
    """A file under --src and its progress.

    path: relative to --src. work: its temporary folder. name: of its folder of tracks. stretches, rows: results of
    its parts and of its groups of tracks, by number. waiting: number of results still missing. groups: number of
    groups. problems: what is wrong with the file. failed: the program failed on it.
    """

    path: str
    mark: str
    name: str
    work: str
    plan: Plan
    problems: list[str] = field(default_factory=list)
    stretches: dict[int, Stretch] = field(default_factory=dict)
    found: Found | None = None
    rows: dict[int, list[dict]] = field(default_factory=dict)
    groups: int = 0
    waiting: int = 0
    failed: bool = False

    def survey_jobs(self) -> list["Job"]:
        """The first pass over each part."""
        self.waiting = len(self.plan.parts)
        return [
            Job(self.path, number, part, os.path.join(self.work, f"part{number:05d}.json"))
            for number, part in enumerate(self.plan.parts)
        ]

    def write_jobs(self, rule: Rule) -> list["Job"]:
        """The second pass over each group of tracks, once the first pass is complete."""
        self.found = select_tracks([self.stretches[number] for number in sorted(self.stretches)], rule)
        divided = len(self.plan.parts) > 1
        groups = group_tracks(self.found.tracks, PART if divided else math.inf)
        self.groups = self.waiting = len(groups)
        self.stretches.clear()
        return [
            Job(
                self.path,
                number,
                replace(self.plan.parts[0], first=tracks[0].first if divided else 0),
                self.tracks_folder(number),
                self.name,
                tracks,
            )
            for number, tracks in enumerate(groups)
        ]

    def tracks_folder(self, number: int) -> str:
        """The temporary folder for the tracks of a group."""
        return os.path.join(self.work, f"tracks{number:05d}")


@dataclass(frozen=True, eq=False)
class Job:
    """The survey of a part, saved as the file `target`; or tracks to write to the folder `target`."""

    source: str
    number: int
    part: Part
    target: str
    identity: str = ""
    tracks: list[Track] | None = None

    def __str__(self) -> str:
        return self.source


@dataclass(frozen=True, eq=False)
class Done:
    """The outcome of a job: its result, a problem with the video, or the traceback of a fault of the program."""

    job: Job
    stretch: Stretch | None = None
    rows: list[dict] | None = None
    problem: str = ""
    fault: str = ""


def folder_names(paths: list[str], given: dict[str, str]) -> dict[str, str]:
    """Each source's folder of tracks: its path without the extension, or with it if that name is taken.

    given: the folders of sources that have one, including sources that no longer exist; they keep it.
    """
    names: dict[str, str] = {}
    taken = set(map(as_any_system, given.values()))
    for path in paths:
        full = NOT_LISTED.sub("_", path)
        name = given.get(path) or os.path.splitext(full)[0]
        while (as_any_system(name) in taken or TRACK_FILE.search(name)) and path not in given:
            name = full if name != full and as_any_system(full) not in taken else name + "_"
        taken.add(as_any_system(name))
        names[path] = name
    return names


def plan(src: str, rule: Rule, path: str) -> tuple[str, Plan, str, str]:
    """(path, its plan, why there is none, traceback of a fault of the program).

    Both texts are empty for a file that is not a video by its name either.
    """
    try:
        return path, plan_parts(os.path.join(src, path), rule.detect_every), "", ""
    except NotMediaError as error:
        return path, NOTHING, error.found if path.lower().endswith(VIDEO_FILES) else "", ""
    except (MediaError, av.error.FFmpegError) as error:
        return path, NOTHING, _problem(os.path.join(src, path), error), ""
    except Exception:
        return path, NOTHING, "", traceback.format_exc()


def work_on(rule: Rule, job: Job) -> Done:
    """Do a job, unless an interrupted run has done it. Raises OSError if its results cannot be written."""
    cv2.setNumThreads(1)  # the other cores work on other parts
    try:
        if job.tracks is None:
            return Done(job, stretch=_survey(rule, job))
        return Done(job, rows=_write(job, job.tracks))
    except MediaError as error:
        return Done(job, problem=str(error))
    except UserError:
        raise
    except OSError as error:
        if error.filename is None:
            raise
        raise OSError(error.errno, f"cannot be written ({error.strerror})", error.filename) from None
    except av.error.FFmpegError as error:
        return Done(job, problem=_problem(job.part.path, error))
    except Exception:
        return Done(job, fault=traceback.format_exc())


def _problem(path: str, error: MediaError | av.error.FFmpegError) -> str:
    if isinstance(error, MediaError):
        return str(error)
    return f"{path}: cannot be decoded ({error.strerror or type(error).__name__})"


def _survey(rule: Rule, job: Job) -> Stretch:
    span = [job.part.first, job.part.last, job.part.begin]
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with open(job.target, encoding="ascii") as file:
            saved = json.load(file)
        if saved["span"] == span:
            return Stretch(**saved["stretch"])
    stretch = survey_part(job.part, rule)
    with replace_file(job.target) as file:
        json.dump({"span": span, "stretch": asdict(stretch)}, file)
    return stretch


def _write(job: Job, tracks: list[Track]) -> list[dict]:
    spans = [[track.first, track.end] for track in tracks]
    finished = os.path.join(job.target, "tracks.json")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with open(finished, encoding="ascii") as file:
            saved = json.load(file)
        stems = [os.path.join(job.target, f"{n:05d}") for n in range(1, len(saved["rows"]) + 1)]
        if saved["spans"] == spans and all(
            os.path.exists(f"{stem}.{kind}") for stem in stems for kind in KINDS
        ):
            return saved["rows"]
    shutil.rmtree(job.target, ignore_errors=True)
    rows = write_group(job.part, tracks, job.target, job.identity)
    with replace_file(finished) as file:
        json.dump({"spans": spans, "rows": rows}, file)
    return rows


def reason_for(source: Source, rule: Rule) -> str:
    """Why a source has no track, or what part of it is missing; else ""."""
    found = source.found
    if source.problems or found is None:
        return source.problems[0]
    broken = ""
    if source.plan.sure and source.plan.declared is not None and found.end < source.plan.declared - EARLY_END:
        broken = f"broken at {found.end / FPS:.2f} s of {source.plan.declared / FPS:.2f} s"
    if any(source.rows.values()):
        return f"{broken}; tracks up to there only" if broken else ""
    if found.end == 0:
        why = "no picture can be decoded"
    elif not found.faces or found.largest == 0:
        why = f"no face found (of {rule.min_face} pixels or more, as --min_face asks)"
    elif found.longest == 0:
        why = f"faces smaller than --min_face {rule.min_face}: up to {found.largest:.0f} pixels"
    elif found.longest < rule.min_frames:
        why = (
            f"shorter than --min_frames {rule.min_frames}: the longest face track has {found.longest} frames"
        )
    elif found.heard >= rule.min_frames:
        why = "its sound is silence: all samples are the same"
    else:
        why = (
            f"shorter than --min_frames {rule.min_frames}: of a face track of {found.longest} frames, "
            f"{found.heard} have both picture and sound"
        )
    return f"{broken}; {why}" if broken else why


def sources_in(src: str, dst: str, unread: Callable[[MediaError], None]) -> tuple[str, list[str]]:
    """(folder, sorted paths relative to it) of all files in src, except those in dst, which may lie inside src, and
    unfinished downloads.

    src: a folder, or a single file. unread: see find_files.
    """
    if os.path.isfile(src):
        return os.path.dirname(src), [os.path.basename(src)]
    found = [path for path in find_files(src, ("",), unread) if not path.lower().endswith(UNFINISHED)]
    top, tracks = os.path.realpath(src), os.path.realpath(dst)
    if not is_in(tracks, top):
        return src, found
    inside = os.path.relpath(tracks, top) + os.sep
    return src, [path for path in found if not path.startswith(inside)]
