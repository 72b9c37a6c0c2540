"""The mp4 and txt of a face track, as in VoxCeleb2."""

from fractions import Fraction

import av
import numpy as np

from syncnet.media.clips import FPS, FRAME_SIZE, MediaError, text_lines
from syncnet.support.names import one_line
from syncnet.tracks.tracks import Track

# Nearly lossless for the network; a key frame every 250 as in VoxCeleb2. One thread, and no mbtree, whose vector code
# reads uninitialized memory, so that the same pictures give the same file.
ENCODING: dict[str, object] = {"preset": "veryfast", "crf": "16", "g": "250", "threads": "1", "mbtree": "0"}


class TrackVideo:
    """Writes an mp4 frame by frame: H.264, 224x224, 25 frames per second."""

    def __init__(self, path: str) -> None:
        self._container = av.open(path, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=FPS)
        self._stream.width = self._stream.height = FRAME_SIZE
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = ENCODING
        self._frames = 0

    def add(self, picture: np.ndarray) -> None:
        """picture: (224, 224, 3) uint8, BGR."""
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts, frame.time_base = self._frames, Fraction(1, FPS)
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def __enter__(self) -> "TrackVideo":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def track_text(identity: str, reference: str, track: Track, width: int, height: int) -> str:
    """The txt of a track: its offset, 0, the confidences, and one line per frame with its number and box.

    Frames are numbered from 1 at 25 per second of the source; x, y, width and height of the box are fractions of the
    source's picture, `width` by `height` pixels. FV Conf is the mean confidence of the face detector, as faces are
    not verified; ASD Conf is 0, as active-speaker detection is not run.
    """
    lines = [
        f"Identity  : \t{one_line(identity)}",
        f"Reference : \t{one_line(reference)}",
        "Offset    : \t0",
        f"FV Conf   : \t{track.confidence:.3f}\t(1)",
        "ASD Conf  : \t0.000",
        "",
        "FRAME \tX \tY \tW \tH ",
    ]
    scaled = track.boxes / np.array([width, height, width, height])
    for number, (left, top, right, bottom) in enumerate(scaled, track.first + 1):
        lines.append(f"{number:06d} \t{left:.3f} \t{top:.3f} \t{right - left:.3f} \t{bottom - top:.3f} ")
    return "\n".join(lines) + "\n"


def read_track_boxes(path: str) -> tuple[int, np.ndarray]:
    """The first slot and the boxes of a track's txt: (frames, 4) left, top, width, height as fractions.

    Raises MediaError, naming file and line.
    """
    first = 0
    boxes: list[list[float]] = []
    for where, line in text_lines(path, "Make the tracks with makeFaceTracks.py."):
        fields = line.split()
        if not boxes and not fields[0].isdigit():
            continue
        try:
            number, box = int(fields[0]), [float(field) for field in fields[1:]]
        except ValueError:
            number, box = 0, []
        if len(box) != 4 or not np.isfinite(box).all() or number < 1:
            raise MediaError(
                f"{where}: found {line!r:.80}, expected a frame's number and four numbers for its box"
            )
        if not boxes:
            first = number - 1
        if number - 1 != first + len(boxes):
            raise MediaError(f"{where}: frame {number} follows frame {first + len(boxes)}; expected no gaps")
        boxes.append(box)
    if not boxes:
        raise MediaError(f"{path}: no boxes in it; make the tracks with makeFaceTracks.py")
    return first, np.array(boxes)
