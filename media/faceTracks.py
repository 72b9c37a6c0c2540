"""From a part of a video to the files of its face tracks, in two passes: where the faces are, then their crops."""

import os
from dataclasses import dataclass

from media.clips import MediaError
from media.survey import Part, Survey
from media.timeline import VideoReader
from media.trackFiles import TrackVideo, track_text
from media.trackRule import PART, Rule
from media.tracks import Track, crop, smooth
from media.trackSound import Sound, has_sound, read_sound
from media.wav import write_wav


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
        shots=len(survey.builder.shot_starts),
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
