"""From a video to the files of its face tracks, in two passes: find the faces, then write their crops.

A long video is divided into parts that begin at key frames. The parts are surveyed in parallel, their tracks are
joined (syncnet/tracks/track_joining.py), selected over the whole video, and written in groups.
"""

import os
from collections import deque
from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from syncnet.media.clips import FPS
from syncnet.media.open_media import has_sound, tick
from syncnet.media.timeline import MIDDLE, VideoReader
from syncnet.media.wav import write_wav
from syncnet.tracks.survey import AHEAD, DETECTORS, WARM_UP, Part, Survey
from syncnet.tracks.track_files import TrackVideo, track_text
from syncnet.tracks.track_joining import Stretch, join
from syncnet.tracks.track_settings import PART, Rule
from syncnet.tracks.track_sound import Sound, no_sound, read_sound
from syncnet.tracks.tracks import Track, crop, smooth

SURVEY_PART = 2 * PART  # slots at least; parts overlap, so shorter ones take more time in total
SOUND_LENGTH = 15 * PART  # slots of sound in memory at once, if the file allows it
TRIED_SEEKS = 8  # places where a video may be divided that are tried; each takes decoding a picture
FOUND = (
    0.6  # share of a track's looked-at frames in which its face must be found; hands are found now and then
)


@dataclass(frozen=True)
class Plan:
    """The parts in which a video is surveyed.

    length: slots, by its packets. declared: slots, by its header, or None. sure: the declared length is that of the
    pictures.
    """

    parts: list[Part]
    length: int
    declared: int | None
    sure: bool


def plan_parts(path: str, detect_every: int = 1) -> Plan:
    """Plan the work on a video. Raises MediaError without pictures or sound, or if its beginning is damaged."""
    if not has_sound(path):
        raise no_sound(path)
    with VideoReader(path) as reader:
        keys, length = key_frames(reader)
        restarts = reader.clock.restarts > 0
        if not reader.can_seek(keys[:: -max(1, len(keys) // TRIED_SEEKS)]):
            keys = []
        begins = [ceil((key + WARM_UP) / detect_every) * detect_every for key in keys]
        ends = [begin + AHEAD for begin in begins]
        parts = [
            Part(path, reader.first_time, *span, restarts=restarts)
            for span in zip([0, *keys], [*ends, None], [0, *begins], strict=True)
        ]
        return Plan(parts, length, *reader.declared_slots())


def key_frames(reader: VideoReader) -> tuple[list[int], int]:
    """The slots of key frames that divide a video into parts of SURVEY_PART slots or more; and its length in slots.

    Takes one pass over the packets, without decoding. A video whose time stamps restart is not divided.
    """
    keys = [0]
    unit = float(tick(reader.stream))
    end = reader.first_time
    for packet in reader.packets():
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            continue
        time = stamp * unit
        end = max(end, time + (packet.duration or 0) * unit)
        slot = ceil((time - reader.first_time) * FPS - MIDDLE)
        if packet.is_keyframe and slot - keys[-1] >= SURVEY_PART:
            keys.append(slot)
    length = max(1, round((end - reader.first_time) * FPS))
    if length - keys[-1] < SURVEY_PART // 4:
        keys.pop()
    return [] if reader.clock.restarts else keys[1:], length


def survey_part(part: Part, rule: Rule) -> Stretch:
    """The first pass. Raises MediaError."""
    with VideoReader(part.path, part.first_time) as reader:
        survey = Survey(reader, rule)
        survey.run(part)
        heard = []
        if survey.builder.closed:
            step = survey.end if part.restarts else SOUND_LENGTH
            for first in range(part.begin, survey.end, step):
                sound = _sound(part, first, min(first + step, survey.end))
                heard += [(sound.begin, sound.end)] if sound.begin < sound.end else []
        return Stretch.of(part, survey, (heard[0][0], heard[-1][1]) if heard else (0, 0))


def _sound(part: Part, first: int, last: int) -> Sound:
    return read_sound(part.path, part.first_time, first, last, seek=not part.restarts)


@dataclass(frozen=True, eq=False)
class Found:
    """The tracks to write, in order; and what explains why there are none.

    end: the slot after the last one with a picture. faces: number of detections of all sizes. largest: size of the
    largest face track, in pixels. longest: slots of the longest one that is large enough. heard: the same, counting
    only slots with sound.
    """

    tracks: list[Track]
    end: int
    faces: int
    largest: float
    longest: int
    heard: int


def select_tracks(stretches: list[Stretch], rule: Rule) -> Found:
    """Join the tracks of all parts of a video and select those that are large, long, and have sound.

    Tracks of low confidence, or found only now and then, are not faces (hands, for example). A track longer than PART
    is divided evenly if settings.divide is set, because training reads files from their beginning.
    """
    typical = DETECTORS[rule.detector].typical
    tracks = [
        track
        for track in join(stretches)
        if track.typical >= typical and track.found * rule.detect_every >= FOUND * len(track)
    ]
    large = [track for track in tracks if track.size >= rule.min_face]
    spans = [stretch.sound for stretch in stretches if stretch.sound[0] < stretch.sound[1]]
    begin, end = min((b for b, _ in spans), default=0), max((e for _, e in spans), default=0)
    heard = [track.part(begin, end) for track in large]
    pieces = []
    for track in heard:
        most = ceil(len(track) / PART) if rule.divide else 1
        count = min(most, len(track) // rule.min_frames)
        edges = [track.first + len(track) * n // max(1, count) for n in range(count + 1)]
        pieces += [track.part(*edge) for edge in zip(edges, edges[1:], strict=False)]
    return Found(
        tracks=sorted(pieces, key=lambda track: (track.first, *track.boxes[0])),
        end=max((stretch.end for stretch in stretches), default=0),
        faces=sum(stretch.faces for stretch in stretches),
        largest=max((track.size for track in tracks), default=0.0),
        longest=max(map(len, large), default=0),
        heard=max(map(len, heard), default=0),
    )


def group_tracks(tracks: list[Track], length: float) -> list[list[Track]]:
    """Successive tracks in groups of those that begin within `length` slots."""
    groups: list[list[Track]] = []
    for track in tracks:
        if not groups or track.first >= groups[-1][0].first + length:
            groups.append([])
        groups[-1].append(track)
    return groups


def write_group(part: Part, tracks: list[Track], folder: str, identity: str) -> list[dict]:
    """The second pass: write the tracks that are not silent as folder/00001.mp4, .wav and .txt, and so on.

    part: where to start reading the video. Returns the row of tracks.csv of each. Raises MediaError, OSError.
    """
    os.makedirs(folder, exist_ok=True)
    heard: list[Track] = []
    for number, group in enumerate(group_tracks(tracks, inf if part.restarts else SOUND_LENGTH)):
        first = group[0].first if number else part.first
        sound = _sound(part, first, max(track.end for track in group))
        for track in group:
            if sound.is_heard(track.first, track.end):
                heard.append(track)
                write_wav(_stem(folder, len(heard)) + ".wav", sound.part(track.first, track.end))
    if heard:
        with VideoReader(part.path, part.first_time) as reader:
            write_tracks(reader, part, heard, folder, identity)
    return [
        {
            "first": track.first,
            "frames": len(track),
            "size": round(track.size, 1),
            "found": track.found,
            "confidence": round(track.confidence, 3),
            "shot": track.shot,
        }
        for track in heard
    ]


def write_tracks(reader: VideoReader, part: Part, tracks: list[Track], folder: str, identity: str) -> None:
    """Write folder/00001.mp4 and .txt of the first track, and so on, in order of time. Raises OSError.

    Reads the video once, from part.first to the end of the last track.
    """
    last = max(track.end for track in tracks)
    waiting = deque(enumerate(tracks, 1))
    videos: dict[int, tuple[Track, np.ndarray, TrackVideo]] = {}
    try:
        for slot, frame in reader.slots(part.first, last):
            if not videos and slot < waiting[0][1].first:
                continue
            picture = reader.bgr(frame)
            height, width = picture.shape[:2]
            while waiting and waiting[0][1].first <= slot:
                number, track = waiting.popleft()
                text = track_text(identity, os.path.basename(part.path), track, width, height)
                with open(_stem(folder, number) + ".txt", "w", encoding="utf-8") as file:
                    file.write(text)
                videos[number] = track, smooth(track.boxes), TrackVideo(_stem(folder, number) + ".mp4")
            for number, (track, steady, video) in list(videos.items()):
                video.add(crop(picture, *steady[slot - track.first]))
                if slot == track.end - 1:
                    videos.pop(number)[2].close()
    finally:
        for _, _, video in videos.values():
            video.close()


def _stem(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number:05d}")
