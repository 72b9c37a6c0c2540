"""Dissolves, wipes and fades end tracks; movement, light and coding noise do not."""

import cv2
import numpy as np
import pytest
from videoMaker import face, make_video

from syncnet.tracks.face_tracks import plan_parts, select_tracks, survey_part
from syncnet.tracks.shots import is_cut, shot_picture
from syncnet.tracks.track_settings import Rule
from syncnet.tracks.transitions import ChangeFinder

BEFORE, AFTER = 30, 30  # slots of each shot alone
HEIGHT, WIDTH = 72, 128


def scene(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH + 60)) -> np.ndarray:
    """A picture with large and small structure: (height, width, 3) float64."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((*size, 3))
    for cells, strength in ((4, 120), (12, 60), (40, 25)):
        coarse = rng.uniform(-0.5, 0.5, (cells, cells * 2, 3)).astype(np.float32)
        picture += strength * cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + 120, 0, 255)


def moving(picture: np.ndarray, number: int) -> np.ndarray:
    """The scene as a handheld camera sees it at this slot."""
    shift = 10 + 2 * np.sin(number / 7)
    matrix = np.array([[1, 0, -shift], [0, 1, np.cos(number / 5)]])
    return cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)


def shown_of_second(kind: str, share: float) -> np.ndarray:
    """(HEIGHT, WIDTH, 1): how much of the second shot is in each pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    across = {
        "left": x / WIDTH, "right": 1 - x / WIDTH, "down": y / HEIGHT,
        "iris": np.hypot(x / WIDTH - 0.5, y / HEIGHT - 0.5) * 1.414,
    }  # fmt: skip
    mask = np.full((HEIGHT, WIDTH), share) if kind == "mix" else (across[kind] < share).astype(np.float64)
    return mask[..., None]


def changed_in(pictures: list[np.ndarray]) -> list[tuple[int, int]]:
    """First and last slots of the changes found in (height, width, 3) pictures, with some grain."""
    rng = np.random.default_rng(1)
    finder: ChangeFinder[None] = ChangeFinder()
    found = []
    for slot, picture in enumerate(pictures):
        grain = rng.normal(0, 3, picture.shape)
        finder.add(slot, shot_picture(np.clip(picture + grain, 0, 255).astype(np.uint8)))
        found += finder.lasting([])
    return [(first, last) for _, first, last in found + finder.end_shot()]


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        ("mix", 7),
        ("mix", 50),
        ("left", 12),
        ("right", 25),
        ("down", 7),
        ("iris", 12),
    ],
)
def test_a_dissolve_or_wipe_is_found_where_it_is(kind, length):
    a, b = scene(1), scene(2)
    pictures = []
    for slot in range(BEFORE + length + AFTER):
        share = np.clip((slot - BEFORE + 1) / (length + 1), 0, 1)
        mask = shown_of_second(kind, share)
        pictures.append(moving(a, slot) * (1 - mask) + moving(b, slot) * mask)
    ((first, last),) = changed_in(pictures)
    assert first == pytest.approx(BEFORE, abs=max(2, length // 8))
    assert last == pytest.approx(BEFORE + length - 1, abs=max(2, length // 8))


@pytest.mark.parametrize(("length", "color"), [(12, 0), (25, 255)])
def test_a_fade_through_a_color_is_found(length, color):
    a, b = scene(1), scene(2)
    pictures = []
    for slot in range(BEFORE + length + AFTER):
        share = np.clip((slot - BEFORE + 1) / (length + 1), 0, 1)
        shot, strength = (a, 1 - 2 * share) if share < 0.5 else (b, 2 * share - 1)
        pictures.append(color + (moving(shot, slot) - color) * strength)
    found = changed_in(pictures)
    assert found
    assert min(first for first, _ in found) == pytest.approx(BEFORE, abs=3)
    assert max(last for _, last in found) == pytest.approx(BEFORE + length - 1, abs=3)


def test_movement_and_light_are_no_change():
    a = scene(1, (HEIGHT, 700))
    still = moving(a, 0)
    pan = [cv2.warpAffine(a, np.array([[1.0, 0, -4 * k], [0, 1, 0]]), (WIDTH, HEIGHT)) for k in range(120)]
    zoom = [
        cv2.warpAffine(a, np.array([[1 + k / 60, 0, -10], [0, 1 + k / 60, -k / 2]]), (WIDTH, HEIGHT))
        for k in range(100)
    ]
    dimmed = [still * (1 - 0.7 * np.clip((k - 30) / 40, 0, 1)) for k in range(100)]
    flash = [np.full_like(still, 250) if 40 <= k < 45 else still for k in range(90)]
    glow = [still + (250 - still) * np.clip(1 - abs(k - 40) / 4, 0, 1) for k in range(90)]
    for pictures in (pan, zoom, dimmed, flash, glow):
        assert changed_in(pictures) == []


def test_the_hue_of_grayish_pixels_is_no_cut():
    """At low bit rates a key frame changes the hue of grayish pixels, by one or two levels of each color."""
    rng = np.random.default_rng(0)
    gray = np.repeat(scene(1)[:, :WIDTH].mean(2, keepdims=True), 3, 2)
    coded = []
    for _ in range(2):  # chroma noise in blocks, as one group of pictures keeps it
        noise = cv2.resize(rng.uniform(-5, 5, (9, 16, 3)).astype(np.float32), (WIDTH, HEIGHT))
        coded.append(shot_picture(np.clip(gray + noise, 0, 255).astype(np.uint8)))
    assert not is_cut([coded[0]] * 8, [coded[1]] * 8)


@pytest.mark.parametrize(
    ("before", "after", "cut"),
    [
        # Around the change of 16 are six of 2 and one of 14: five times their mean is more, five medians are less.
        ([100, 114, 116, 118, 120], [136, 138, 140, 142], False),
        ([120] * 5, [136, 138, 140, 142], True),
        ([100] * 3, [112] * 3, True),  # 12 is enough where nothing changes
        ([100] * 3, [111] * 3, False),
        ([100, 110], [137, 147], True),  # 27 is enough where 10 is usual
        ([100, 110], [136, 146], False),
        ([100, 114], [142, 156], True),  # and 28 where 14 is
        ([100], [127], True),  # nothing to compare it with
        ([100], [126], False),
        ([120, 100], [140, 140], False),  # 40, but the picture before is within 27 of those after
        ([110, 90], [130, 130], False),
        ([125, 105], [122, 122], False),
    ],
)
def test_cuts_of_plain_pictures(before, after, cut):
    """Values of gray; a change is the difference of two of them."""
    assert (
        is_cut(*([np.full((20, 20, 3), value, np.uint8) for value in side] for side in (before, after)))
        == cut
    )


def test_shot_pictures_are_means_of_nine_pixels():
    picture = np.zeros((7, 7, 3), np.uint8)
    picture[3, 3] = 90
    assert np.argwhere(shot_picture(picture)[..., 0] == 10).tolist() == [
        [y, x] for y in (2, 3, 4) for x in (2, 3, 4)
    ]


@pytest.mark.parametrize("kind", ["mix", "left"])
def test_a_track_does_not_change_from_one_person_to_another(tmp_path, kind):
    """Also where the two share a background, so that only a part of the picture changes."""
    side, left, top, length = 112, 100, 30, 13
    people = [face(side), np.ascontiguousarray(face(side)[:, ::-1, ::-1])]
    y, x = np.mgrid[:side, :side]

    def draw(picture, number):
        picture[:] = 100
        share = np.clip((number - 29) / (length + 1), 0, 1)
        mask = np.full((side, side), share) if kind == "mix" else (x / side < share)
        mixed = people[0] * (1.0 - mask[..., None]) + people[1] * mask[..., None]
        picture[top : top + side, left : left + side] = mixed.round()

    path = str(tmp_path / "a.mp4")
    make_video(path, np.arange(30 + length + 30) / 25, size=(320, 180), flash=None, draw=draw, rate=16000)
    rule = Rule(detect_every=5, min_frames=20, min_face=60)
    (part,) = plan_parts(path).parts
    one, other = select_tracks([survey_part(part, rule)], rule).tracks
    assert one.first == 0 and 25 <= one.end <= 32
    assert 41 <= other.first <= 52 and other.end == 60 + length
