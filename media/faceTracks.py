"""From a part of a video to the files of its face tracks, in two passes: where the faces are, then their crops."""

import os
from dataclasses import dataclass, replace
from itertools import pairwise

import av
import numpy as np

from media.clips import MediaError
from media.faces import Face, FaceDetector
from media.shots import FLASH, SHOT_WIDTH, is_cut, shot_picture
from media.timeline import VideoReader
from media.trackFiles import TrackVideo, track_text
from media.trackRule import PART, Rule
from media.tracks import ABOVE, BELOW, BESIDE, OpenTrack, Track, TrackBuilder, crop, smooth
from media.trackSound import Sound, has_sound, read_sound
from media.wav import write_wav

MIN_REGION = 4  # pixels a side of a crop in a shot picture; smaller ones are not compared


@dataclass(frozen=True)
class Part:
    """The slots first ... last - 1 of a video (last None: to its end), whose first picture is at first_time."""

    path: str
    first_time: float
    first: int
    last: int | None


@dataclass(frozen=True)
class Found:
    """What came of a part: of each track, in the order of its files, what tracks.csv says; and the reasons for none.

    end: the slot after the last one with a picture. jumps_back: the time stamps begin anew there. faces: how many
    were found, of all sizes; largest: of a track before it was judged, in pixels; longest: slots, of a track that is
    large enough; heard: slots of it with sound.
    """

    tracks: list[dict]
    end: int
    jumps_back: bool
    shots: int
    faces: int
    largest: float
    longest: int
    heard: int


@dataclass
class _View:
    slot: int
    frame: av.VideoFrame
    small: np.ndarray  # shot picture
    scale: float  # of the shot picture


@dataclass(frozen=True)
class Plan:
    """The parts in which a video is worked on. slots: its declared length, or None; sure: that of its pictures."""

    parts: list[Part]
    slots: int | None
    sure: bool


def plan_parts(path: str) -> Plan:
    """Plan the work on a video. Raises MediaError: no pictures, no sound, or broken at its beginning."""
    if not has_sound(path):
        raise MediaError(f"{path}: no sound in it")
    with VideoReader(path) as reader:
        slots, sure = reader.declared_slots()
        starts = list(range(0, slots or 1, PART))
        if len(starts) > 1 and not reader.can_seek(starts[1:]):
            starts = [0]
        ends: list[int | None] = [*starts[1:], None]
        parts = [Part(path, reader.first_time, *span) for span in zip(starts, ends, strict=True)]
        return Plan(parts, slots, sure)


def make_tracks(part: Part, rule: Rule, folder: str, identity: str) -> Found:
    """Write the tracks of a part as folder/00001.mp4, .wav and .txt, and so on. Raises MediaError, OSError."""
    os.makedirs(folder, exist_ok=True)
    with VideoReader(part.path, part.first_time) as reader:
        survey = Survey(reader, rule)
        survey.run(part)
        found = survey.builder.finished
        end = survey.end
        sound = read_sound(part.path, part.first_time, part.first, max(part.first + 1, end))
        large = [track for track in found if track.size >= rule.min_face]
        heard = [track.part(sound.begin, sound.end) for track in large]
        tracks = sorted(
            (
                track
                for track in heard
                if len(track) >= rule.min_frames and sound.is_heard(track.first, track.end)
            ),
            key=lambda track: (track.first, *track.boxes[0]),
        )
        write_tracks(reader, part, tracks, sound, folder, identity)
    return Found(
        tracks=[
            {
                "first": track.first,
                "frames": len(track),
                "size": round(track.size, 1),
                "found": track.found,
                "confidence": round(track.confidence, 3),
                "shot": track.shot,
            }
            for track in tracks
        ],
        end=end,
        jumps_back=reader.ends_at is not None,
        shots=survey.builder.shot,
        faces=survey.faces,
        largest=max((track.size for track in found), default=0.0),
        longest=max(map(len, large), default=0),
        heard=max(map(len, heard), default=0),
    )


def write_tracks(
    reader: VideoReader, part: Part, tracks: list[Track], sound: Sound, folder: str, identity: str
) -> None:
    """The second pass: folder/00001.mp4, .wav and .txt of the first track, and so on. Raises OSError."""
    if not tracks:
        return
    width, height = _write_videos(reader, part, tracks, folder)
    for number, track in enumerate(tracks, 1):
        stem = os.path.join(folder, f"{number:05d}")
        write_wav(stem + ".wav", sound.part(track.first, track.end))
        with open(stem + ".txt", "w", encoding="utf-8") as file:
            file.write(track_text(identity, os.path.basename(part.path), track, width, height))


def _write_videos(reader: VideoReader, part: Part, tracks: list[Track], folder: str) -> tuple[int, int]:
    """Returns the displayed width and height of the source's pictures."""
    last = max(track.end for track in tracks)
    steady = [smooth(track.boxes) for track in tracks]
    videos: dict[int, TrackVideo] = {}
    shape = (1, 1)
    try:
        for slot, frame in reader.slots(part.first, last):
            picture = None
            for number, track in enumerate(tracks):
                if not track.first <= slot < track.end:
                    continue
                if picture is None:
                    picture = reader.bgr(frame)
                    shape = picture.shape[1::-1]
                if number not in videos:
                    videos[number] = TrackVideo(os.path.join(folder, f"{number + 1:05d}.mp4"))
                videos[number].add(crop(picture, *steady[number][slot - track.first]))
                if slot == track.end - 1:
                    videos.pop(number).close()
    finally:
        for video in videos.values():
            video.close()
    return shape


class _FaceFinder:
    """The faces in the pictures that are held, each looked for once. count: of all that were found."""

    def __init__(self, reader: VideoReader, min_face: int, views: list[_View]) -> None:
        self.count = 0
        self._reader = reader
        self._detector = FaceDetector(min_face)
        self._views = views
        self._found: dict[int, list[Face]] = {}  # by slot

    def find(self, slot: int) -> list[Face]:
        if slot not in self._found:
            view = next(v for v in self._views if v.slot == slot)
            picture = self._reader.bgr(view.frame, self._detector.scale)
            self._found[slot] = self._detector.find(picture)
            self.count += len(self._found[slot])
        return self._found[slot]

    def forget(self, slot: int) -> None:
        self._found.pop(slot, None)


class Survey:
    """The first pass: the shots and face tracks of a part. Only a few pictures are held at a time.

    Nothing that it holds leads back to it, so that it goes, pictures and all, as soon as it is let go of.
    """

    def __init__(self, reader: VideoReader, rule: Rule) -> None:
        self.reader = reader
        self.rule = rule
        self.end = 0
        self._views: list[_View] = []  # around the present one
        self._finder = _FaceFinder(reader, rule.min_face, self._views)
        self.builder = TrackBuilder(self._finder.find)

    @property
    def faces(self) -> int:
        """Faces found so far."""
        return self._finder.count

    def run(self, part: Part) -> None:
        self.end = part.first
        ahead = 0  # views that are not worked on yet
        for slot, frame in self.reader.slots(part.first, part.last):
            self._views.append(self._view(slot, frame))
            ahead += 1
            self.end = slot + 1
            if ahead > FLASH:
                self._step(len(self._views) - ahead)
                ahead -= 1
                self._forget(ahead)
        for left in range(ahead, 0, -1):
            self._step(len(self._views) - left)
        if self._views:
            self.builder.end_shot(self._views[-1].slot)

    def _view(self, slot: int, frame: av.VideoFrame) -> _View:
        if self._views and self._views[-1].frame is frame:
            return replace(self._views[-1], slot=slot)
        scale = min(1.0, SHOT_WIDTH / frame.width)
        return _View(slot, frame, shot_picture(self.reader.bgr(frame, scale)), scale)

    def _forget(self, ahead: int) -> None:
        keep = ahead + 1 + max(FLASH, self.rule.detect_every)
        for view in self._views[:-keep]:
            self._finder.forget(view.slot)
        del self._views[:-keep]

    def _step(self, index: int) -> None:
        view = self._views[index]
        before, after = self._neighbours(index)
        if not before or is_cut([v.small for v in before], [v.small for v in after]):
            if index > 0:
                self.builder.end_shot(self._views[index - 1].slot)
            self.builder.begin_shot(view.slot)
            self.builder.look(view.slot)
            return
        cut = [track for track in self.builder.open if self._is_cut_there(track, before, after)]
        if cut:
            self.builder.cut(cut, view.slot)
        elif view.slot % self.rule.detect_every == 0:
            self.builder.look(view.slot)

    def _neighbours(self, index: int) -> tuple[list[_View], list[_View]]:
        """Views before the one at `index`, and from it on, that follow each other in time and are of one size."""
        broken = [
            second
            for second, (a, b) in enumerate(pairwise(self._views), 1)
            if b.slot != a.slot + 1 or a.small.shape != b.small.shape or b.slot % PART == 0
        ]
        begin = max((place for place in broken if place <= index), default=0)
        end = min((place for place in broken if place > index), default=len(self._views))
        return self._views[begin:index], self._views[index:end]

    def _is_cut_there(self, track: OpenTrack, before: list[_View], after: list[_View]) -> bool:
        """Is there a cut in the crop of this track, though there is none in the picture?

        Another face on the same background, for example.
        """
        left, top, right, bottom = track.box * before[-1].scale
        x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
        rows = slice(max(0, int(y - ABOVE * half)), max(0, int(y + BELOW * half)))
        columns = slice(max(0, int(x - BESIDE * half)), max(0, int(x + BESIDE * half)))
        if min(before[-1].small[rows, columns].shape[:2]) < MIN_REGION:
            return False
        return is_cut([v.small[rows, columns] for v in before], [v.small[rows, columns] for v in after])
