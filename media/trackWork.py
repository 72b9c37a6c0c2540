"""What makeFaceTracks.py does with a source and its parts, and how it tells what came of them."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass

import cv2

from media.clips import FPS, MediaError, find_files
from media.content import VIDEO_FILES
from media.faceTracks import Found, Plan, make_tracks, plan_parts
from media.survey import Part
from media.timeline import NoVideoError
from media.trackRule import KINDS, PART, Rule, is_in
from support.files import replace_file
from support.names import as_any_system

# A file of another name that is no video is left out without a word.
VIDEO_NAMES = (
    *VIDEO_FILES,
    *(".divx", ".dv", ".f4v", ".gxf", ".m1v", ".m2v", ".mxf", ".nut", ".ogm", ".rm", ".rmvb", ".vob", ".wtv"),
)
# What programs call a file that they have not finished.
UNFINISHED = (
    ".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".!qb", ".!ut", ".tmp", "~",
)  # fmt: skip
# A folder of such a name would stand where a track may have to.
TRACK_FILE = re.compile(r"/\d{5}\.(mp4|wav|txt)$")
# Of a name: what no list can have, and bytes that are not UTF-8.
NOT_LISTED = re.compile("[\ud800-\udfff\\t\\r\\n]")
NOTHING = Plan([], None, False)
EARLY_END = FPS // 2  # slots that pictures may end before the file says so


@dataclass
class Source:
    """A file under --src. path: relative to it. name: of its folder of tracks. found: what came of its parts."""

    path: str
    mark: str
    name: str
    plan: Plan
    found: dict[int, Found]
    problems: list[str]

    @property
    def seconds(self) -> float:
        """Its length, as far as it is known before."""
        return (self.plan.slots or PART) / FPS


def folder_names(paths: list[str], given: dict[str, str]) -> dict[str, str]:
    """Each source's folder of tracks: its path without the extension, or with it where another has that already.

    given: the folders of sources that have one, also of some that are no longer there; they keep it.
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


def plan(src: str, path: str) -> tuple[str, Plan, str]:
    """(path, its parts, or the reason why there are none; "" for a file that nobody would take for a video)."""
    try:
        return path, plan_parts(os.path.join(src, path)), ""
    except NoVideoError as error:
        return path, NOTHING, str(error) if path.lower().endswith(VIDEO_NAMES) else ""
    except MediaError as error:
        return path, NOTHING, str(error)
    except Exception as error:  # a file that breaks the decoder in a new way must not stop the others
        return path, NOTHING, f"{os.path.join(src, path)}: {type(error).__name__}: {error}"


def work_on_part(rule: Rule, job: tuple[str, int, Part, str, str]) -> tuple[str, int, Found | None, str]:
    """Make the tracks of a part unless they are there: (source, number of the part, what was found, or the reason).

    job: source, number, part, folder to make them in, identity. Raises OSError when they cannot be written.
    """
    source, number, part, folder, identity = job
    cv2.setNumThreads(1)  # the cores work on other parts
    finished = os.path.join(folder, "found.json")
    try:
        with open(finished, encoding="ascii") as file:
            found = Found(**json.load(file))
        stems = [os.path.join(folder, f"{n:05d}") for n in range(1, len(found.tracks) + 1)]
        if all(os.path.exists(f"{stem}.{kind}") for stem in stems for kind in KINDS):
            return source, number, found, ""
    except (OSError, ValueError, TypeError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    try:
        found = make_tracks(part, rule, folder, identity)
    except MediaError as error:
        return source, number, None, str(error)
    except OSError as error:
        if error.filename is None:
            raise
        raise OSError(error.errno, f"cannot be written ({error.strerror})", error.filename) from None
    except Exception as error:
        return source, number, None, f"{part.path}: {type(error).__name__}: {error}"
    with replace_file(finished) as file:
        json.dump(asdict(found), file)
    return source, number, found, ""


def reason_for(source: Source, rule: Rule) -> str:
    """Why a source has no track, or what of it is missing; "" where nothing is."""
    found = list(source.found.values())
    if source.problems:
        return source.problems[0]
    end = max((part.end for part in found), default=0)
    broken = ""
    if any(part.jumps_back for part in found):
        broken = f"broken at {end / FPS:.2f} s, where its time stamps begin anew"
    elif source.plan.sure and source.plan.slots is not None and end < source.plan.slots - EARLY_END:
        broken = f"broken at {end / FPS:.2f} s of {source.plan.slots / FPS:.2f} s"
    if any(part.tracks for part in found):
        return f"{broken}; tracks up to there only" if broken else ""
    largest = max((part.largest for part in found), default=0.0)
    longest = max((part.longest for part in found), default=0)
    heard = max((part.heard for part in found), default=0)
    if end == 0:
        why = "no picture can be decoded"
    elif not any(part.faces for part in found) or largest == 0:
        why = f"no face found (of {rule.min_face} pixels or more, as --min_face asks)"
    elif longest == 0:
        why = f"faces smaller than --min_face {rule.min_face}: up to {largest:.0f} pixels"
    elif longest < rule.min_frames:
        why = f"shorter than --min_frames {rule.min_frames}: the longest face track has {longest} frames"
    elif heard >= rule.min_frames:
        why = "its sound is silence: all samples are the same"
    else:
        why = (
            f"shorter than --min_frames {rule.min_frames}: of a face track of {longest} frames, "
            f"{heard} have both picture and sound"
        )
    return f"{broken}; {why}" if broken else why


def sources_in(src: str, dst: str, unread: Callable[[MediaError], None]) -> tuple[str, list[str]]:
    """(folder, paths relative to it) of all files in src, sorted; without those in dst, which may lie inside src, and
    without unfinished downloads.

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
