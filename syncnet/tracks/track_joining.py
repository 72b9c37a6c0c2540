"""Joins the tracks of the overlapping parts of a long video, as if it had been surveyed in one piece."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from syncnet.tracks.faces import Face
from syncnet.tracks.survey import Part, Survey
from syncnet.tracks.track_settings import MAX_GAP
from syncnet.tracks.tracks import MIN_OVERLAP, OpenTrack, Track, overlap


@dataclass(frozen=True)
class Stretch:
    """The survey of one part, in plain numbers so that it can be saved as JSON.

    begin: the slot at which it is joined to the stretch before; detections up to that slot only serve to match
    tracks. end: the slot after the last one with a picture. faces: number of detections. detections: for each track,
    rows of slot, confidence, left, top, right, bottom. sound: the slots sound[0] ... sound[1] - 1 have sound.
    """

    begin: int
    end: int
    faces: int
    shot_starts: list[int]
    detections: list[list[list[float]]]
    sound: tuple[int, int]

    @classmethod
    def of(cls, part: Part, survey: Survey, sound: tuple[int, int]) -> "Stretch":
        """The results for a part."""
        return cls(
            begin=part.begin,
            end=survey.end,
            faces=survey.faces,
            shot_starts=survey.builder.shot_starts,
            detections=[
                [
                    [slot, float(face.confidence), *map(float, face.box)]
                    for slot, face in sorted(track.faces.items())
                ]
                for track in survey.builder.closed
            ],
            sound=sound,
        )

    def tracks(self) -> list[dict[int, Face]]:
        """The faces of each track by slot, in order of slots."""
        return [
            {int(slot): Face(np.array(box), confidence) for slot, confidence, *box in rows}
            for rows in self.detections
        ]


def join(stretches: list[Stretch]) -> list[Track]:
    """The tracks of a whole video, by time; their shots are numbered over the whole video.

    stretches: in order of time. Up to and including its begin slot, the stretch before takes precedence. Both have
    surveyed the slots before it, so a track that crosses it normally has a detection there in common.
    """
    starts: list[int] = []
    tracks: list[dict[int, Face]] = []
    begins = [stretch.begin for stretch in stretches[1:]]
    for stretch, begin, stop in zip(stretches, [-1, *begins], [*begins, np.inf], strict=False):
        starts += [slot for slot in stretch.shot_starts if begin < slot <= stop]
        seen = ({slot: face for slot, face in track.items() if slot <= stop} for track in stretch.tracks())
        found = [track for track in seen if track]
        continued = _continued(tracks, found, begin, starts)
        for number, track in enumerate(found):
            later = {slot: face for slot, face in track.items() if slot > begin}
            if number in continued:
                continued[number].update(later)
            elif later:
                tracks.append(later)
    joined = [OpenTrack(faces).track(bisect_right(starts, next(iter(faces)))) for faces in tracks]
    return sorted(joined, key=lambda track: (track.first, *track.boxes[0]))


def _continued(
    tracks: list[dict[int, Face]], found: list[dict[int, Face]], begin: int, starts: list[int]
) -> dict[int, dict[int, Face]]:
    """Number of a found track -> the track before `begin` that it continues.

    The rule is that of the TrackBuilder: best overlap first, at most MAX_GAP slots between, within one shot. Tracks
    that have ended by `begin` take part, so that a successor in the same place does not continue another track.
    """
    pairs = []
    for track in tracks:
        last = next(reversed(track))
        if last < begin - MAX_GAP:
            continue
        for number, other in enumerate(found):
            slot = max((slot for slot in other if slot <= begin), default=next(iter(other)))
            same_shot = bisect_right(starts, last) == bisect_right(starts, slot)
            if same_shot and abs(slot - last) <= MAX_GAP:
                pairs.append((overlap(track[last].box, other[slot].box), slot, number, track))
    continued: dict[int, dict[int, Face]] = {}
    for shared, _, number, track in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:3])):
        if (
            shared > MIN_OVERLAP
            and number not in continued
            and not any(track is t for t in continued.values())
        ):
            continued[number] = track
    return continued
