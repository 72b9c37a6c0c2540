"""Find the face tracks of a video in a folder of makeFaceTracks.py, and draw them on it with their confidences."""

import csv
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from syncnet.inference.lip_sync import LipSync
from syncnet.media.clips import FPS, LIP_FRAMES, SAMPLE_RATE, SAMPLES_PER_FRAME, MediaError
from syncnet.media.clock import restarts
from syncnet.media.open_media import has_sound
from syncnet.media.timeline import VideoReader
from syncnet.support.files import replace_file
from syncnet.support.names import printable
from syncnet.tracks.track_folder import read_records
from syncnet.tracks.track_sound import read_sound

IN_SYNC, OUT_OF_SYNC, UNKNOWN = (60, 200, 60), (40, 40, 220), (160, 160, 160)  # BGR
SHADOW = (0, 0, 0)  # outline that keeps numbers readable on any background
FONT = cv2.FONT_HERSHEY_SIMPLEX
LINE = 1 / 250  # width, as a fraction of the picture's larger side
TEXT_HEIGHT = 1 / 24  # as a fraction of the picture's smaller side
SOUND_BLOCK = 1000  # slots of sound that are read at once
ENCODING = {"preset": "veryfast", "crf": "20", "threads": "1"}


@dataclass(frozen=True, eq=False)
class SeenFace:
    """A face track on the timeline of its source video, starting at slot `first` (see syncnet/media/timeline.py).

    boxes: (frames, 4) left, top, width and height as fractions of the picture. confidences: (frames,), NaN where not
    measured. speaks: (frames,) bool, True while the face speaks; None derives it from the confidences.
    """

    first: int
    boxes: np.ndarray
    confidences: np.ndarray
    speaks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)


class NoTracksError(MediaError):
    """A folder has no tracks of a video."""


def find_tracks(folder: str, video: str) -> list[str]:
    """The tracks of a video in a folder of makeFaceTracks.py: <name>/00001 ..., as in tracks.csv.

    The video is recognized by its size and modification time, which the folder records for each source, and by the
    end of its path. Raises MediaError, also for another video of the same name.
    """
    table = os.path.join(folder, "tracks.csv")
    source, above = os.path.dirname(video) or ".", os.path.dirname(folder.rstrip(os.sep)) or "."
    remedy = (
        f"Make the tracks: python makeFaceTracks.py --src {shlex.quote(source)} --dst {shlex.quote(folder)}"
    )
    if not os.path.isfile(video):
        raise MediaError(f"{video}: no such video")
    if not os.path.isfile(table):
        if os.path.isfile(os.path.join(above, "tracks.csv")):
            remedy = (
                f"The folder that makeFaceTracks.py wrote is the one above: --tracks {shlex.quote(above)}"
            )
        raise NoTracksError(f"{table}: no such file. {remedy}")
    with open(table, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"source", "track"} <= set(rows.fieldnames or ()):
            raise MediaError(f"{table}: has no columns `source` and `track`. {remedy}")
        tracks: dict[str, list[str]] = {}
        for row in rows:
            tracks.setdefault(row["source"], []).append(row["track"])
    parts = Path(os.path.abspath(video)).parts
    ends = {printable(os.path.join(*parts[-length:])) for length in range(1, len(parts))}
    if found := find_source(folder, video, tracks, ends):
        return tracks[found]
    why = os.path.join(folder, "no_tracks.txt")
    known = f"; {why} says why videos have none" if os.path.isfile(why) else ""
    raise NoTracksError(
        f"{video}: no track of it in {table} (of {len(tracks)} other videos){known}. {remedy}"
    )


def find_source(folder: str, video: str, sources: Iterable[str], ends: set[str]) -> str | None:
    """Find the source in tracks.csv that is this video; None if there is none.

    ends: all trailing parts of its path, as tracks.csv writes them. Warns if the match is uncertain. Raises
    MediaError for a video with the name of a source but another size.
    """
    try:
        records = {printable(record.source): record for record in read_records(folder).values()}
        recorded = {source: records[source].facts for source in sources if source in records}
    except (ValueError, TypeError):  # written by another version of this program
        recorded = {}
    found = os.stat(video)
    same_size = {source for source, (size, _) in recorded.items() if size == found.st_size}
    same = {source for source in same_size if recorded[source][1] == found.st_mtime_ns}
    if same & ends or len(same) == 1:  # in place, moved or renamed
        return max(same & ends or same, key=len)
    named = ends & set(sources)
    if not named:
        return None
    source = max(named & same_size or named, key=len)
    if source not in recorded:
        print(
            f"WARNING: {video}: taken for the source {source} by its name alone, since {folder} does not record the "
            "sizes of its sources",
            file=sys.stderr,
        )
    elif source not in same_size:
        raise MediaError(
            f"{video}: is not the video that the tracks in {folder} were made of: it has {found.st_size} bytes, the "
            f"source {source} had {recorded[source][0]}. Give that video, or run makeFaceTracks.py on this one"
        )
    else:
        print(
            f"WARNING: {video}: taken for the source {source} by name and size; its time of modification differs, as "
            "that of a copy does",
            file=sys.stderr,
        )
    return source


def confidence_of_frames(found: LipSync | None, frames: int) -> np.ndarray:
    """The confidence of each frame of a track, (frames,): that of the window centered on it, or the nearest one.

    found: None for a track that could not be measured; its confidences are NaN.
    """
    if found is None:
        return np.full(frames, np.nan)
    middle = LIP_FRAMES // 2
    windows = found.confidences[:frames]
    return np.pad(windows, (middle, max(0, frames - middle - len(windows))), "edge")[:frames]


def draw_faces(picture: np.ndarray, slot: int, faces: Iterable[SeenFace], in_sync: float) -> None:
    """Draw the boxes and confidences of the faces at a slot into the picture.

    picture: (height, width, 3) uint8, BGR. in_sync: smallest confidence at which a face is green.
    """
    height, width = picture.shape[:2]
    line = max(2, round(max(height, width) * LINE))
    scale = cv2.getFontScaleFromHeight(FONT, max(8, round(min(height, width) * TEXT_HEIGHT)), line)
    for face in faces:
        if not face.first <= slot < face.first + len(face):
            continue
        confidence = face.confidences[slot - face.first]
        left, top, wide, high = face.boxes[slot - face.first] * (width, height, width, height)
        speaks = confidence >= in_sync if face.speaks is None else face.speaks[slot - face.first]
        color = UNKNOWN if np.isnan(confidence) else IN_SYNC if speaks else OUT_OF_SYNC
        corner, other = (round(left), round(top)), (round(left + wide), round(top + high))
        cv2.rectangle(picture, corner, other, color, line)
        if not np.isnan(confidence):
            place = (corner[0], max(corner[1] - 2 * line, round(min(height, width) * TEXT_HEIGHT) + line))
            for shade, thick in ((SHADOW, 3 * line), (color, line)):
                cv2.putText(picture, f"{confidence:.2f}", place, FONT, scale, shade, thick, cv2.LINE_AA)


def draw_video(
    video: str,
    faces: Sequence[SeenFace],
    output: str,
    in_sync: float,
    shown: Callable[[int, int | None], None] = lambda *_: None,
) -> int:
    """Write the mp4 `output`: the source `video` at 25 frames per second with its sound and the faces drawn on it.

    in_sync: see draw_faces. shown: called with (slots so far, slots that the file declares or None) after every slot.
    Returns the number of slots. Memory does not grow with the length of the video. Raises OSError, and MediaError,
    also if a face has slots beyond the end of the video.
    """
    with (
        VideoReader(video) as reader,
        replace_file(output, "wb") as file,
        av.open(file, "w", format="mp4") as container,
    ):
        slots, _ = reader.declared_slots()
        pictures = container.add_stream("libx264", rate=FPS, options=ENCODING)
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if has_sound(video) else None
        heard = _Sound(video, reader.first_time)
        end = 0
        for slot, frame in reader.slots():
            picture = reader.bgr(frame)
            if not end:
                height, width = (side // 2 * 2 for side in picture.shape[:2])  # H.264 needs even sizes
                pictures.height, pictures.width = height, width
            draw_faces(picture, slot, faces, in_sync)
            if picture.shape[:2] != (height, width):
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            encoded = av.VideoFrame.from_ndarray(picture, format="bgr24")
            encoded.pts, encoded.time_base = slot, Fraction(1, FPS)
            container.mux(pictures.encode(encoded))
            if sound is not None:
                container.mux(sound.encode(heard.until(slot)))
            end = slot + 1
            shown(end, slots)
        container.mux(pictures.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
        needed = max((face.first + len(face) for face in faces), default=0)
        if end < needed:
            raise MediaError(
                f"{video}: has {end} frames at 25 a second, its tracks reach to frame {needed}; is it the video that "
                "they were made of? If it has changed, run makeFaceTracks.py again"
            )
    return end


class _Sound:
    """Reads the sound of a video slot by slot."""

    def __init__(self, video: str, first_time: float) -> None:
        self._video, self._first_time = video, first_time
        self._seek = not restarts(video)
        self._block = np.empty(0, np.int16)  # sound from slot self._slot on
        self._slot = 0

    def until(self, slot: int) -> av.AudioFrame:
        """The sound from the end of the previous call to the end of this slot."""
        wanted = (slot + 1 - self._slot) * SAMPLES_PER_FRAME
        while len(self._block) < wanted:
            first = self._slot + len(self._block) // SAMPLES_PER_FRAME
            last = first + SOUND_BLOCK
            more = read_sound(self._video, self._first_time, first, last, self._seek).samples
            self._block = np.concatenate((self._block, more))
        frame = av.AudioFrame.from_ndarray(self._block[None, :wanted], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        frame.pts = self._slot * SAMPLES_PER_FRAME
        self._block = self._block[wanted:]
        self._slot = slot + 1
        return frame
