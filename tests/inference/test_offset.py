"""inferSyncNet.py offset: found as the loader needs it, written to tables and lists."""

import argparse
import csv
import statistics

import numpy as np
import pytest
import torch
from clipMaker import RAMP, frame_number, make_clip, make_wav
from inferring import T, run
from matplotlib.figure import Figure

import inferSyncNet
from DatasetLoader import DatasetLoader
from inferSyncNet import offset
from syncnet.inference import embeddings
from syncnet.inference.offset import Offset, find_offset, plot_offsets, reason_to_skip
from syncnet.media.clips import Clip, format_list_line, read_list
from syncnet.support.errors import UserError


@pytest.mark.parametrize(("late", "block"), [(-8, 7), (-3, 250), (0, 7), (1, 250), (8, 7)])
def test_offset_is_what_the_loader_needs(clock, tmp_path, monkeypatch, late, block):
    monkeypatch.setattr(embeddings, "BLOCK", block)
    video, wav = str(tmp_path / "a.mp4"), str(tmp_path / "a.wav")
    make_clip(video, 50, first=20)
    make_wav(wav, 50 * 640, first=(20 + late) * 640)
    found = offset(clock, video, wav)
    assert found.confidence > 0.5 and found.milliseconds == 40 * found.frames
    # With this offset in a list line, the loader's pictures and sounds show the same numbers.
    (tmp_path / "list.txt").write_text(format_list_line(Clip(video, wav, found.frames, 50)))
    pictures, sounds = next(iter(DatasetLoader(str(tmp_path / "list.txt"), 1, 1, T, 1)))
    shown = [frame_number(picture.permute(1, 2, 0).numpy()) for picture in pictures[0].unbind(1)]
    heard = (sounds[0, :-240:640].numpy().astype(int) + RAMP // 2) // 640
    assert shown == heard.tolist()


def test_offset_of_short_overlaps():
    draws = torch.nn.functional.normalize(torch.randn(60, 32, generator=torch.Generator().manual_seed(1)))
    for true in (-15, -1, 0, 4, 15):
        first = max(0, true - 1), max(0, 1 - true)  # the picture is so much later
        found = find_offset(draws[first[1] : 40 + first[1]], draws[first[0] : 40 + first[0]])
        assert found.frames == true and found.similarity.max() == pytest.approx(1, abs=1e-5)
    with pytest.raises(
        ValueError, match=r"29 frames of picture and sound, --max_offset 15 needs 30; .* 14 or"
    ):
        find_offset(draws[:25], draws)
    assert find_offset(draws[:25], draws, 14).shifts[-1] == 14
    with pytest.raises(ValueError, match="skip this clip"):
        find_offset(draws[:11], draws)


def test_an_error_of_the_program_keeps_its_type(network, clips, monkeypatch):
    clip = read_list(str(clips / "list.txt"))[0]

    def fail(*_, **__):
        raise ValueError("a fault of the program")

    monkeypatch.setattr("syncnet.inference.embeddings.face_content", fail)
    with pytest.raises(ValueError, match="a fault of the program") as raised:
        offset(network, clip.video, clip.audio)
    assert not isinstance(raised.value, UserError)


def test_confidence_is_the_peak_less_the_median():
    heights = np.random.default_rng(0).uniform(0, 0.3, 60) ** 2
    heights[33] = 0.9
    audio = torch.tensor(np.stack([heights, np.sqrt(1 - heights**2)], 1))
    video = torch.tensor([[1.0, 0.0]] * 40, dtype=torch.float64)  # its cosine with sound a is heights[a]
    found = find_offset(video, audio, max_offset=4)
    means = []
    for shift in range(-4, 5):
        pairs = [heights[v - shift + 1] for v in range(40) if 0 <= v - shift + 1 < 60]
        means.append(sum(pairs) / len(pairs))
    assert found.similarity == pytest.approx(means)
    assert found.frames == int(np.argmax(means)) - 4
    assert found.confidence == pytest.approx(max(means) - statistics.median(means))
    assert abs(statistics.median(means) - statistics.mean(means)) > 1e-5


def curve(*heights: float) -> Offset:
    half = len(heights) // 2
    shifts = np.arange(-half, half + 1)
    confidence = max(heights) - np.median(heights)
    return Offset(int(shifts[np.argmax(heights)]), confidence, shifts, np.array(heights))


def test_what_counts_as_found():
    others = [0.0, 0.2] * 6  # the median of all is 0.2: the peak is wide
    peak = [0.2, 0.2, 0.2]
    for height, verdict in ((0.41, "yes"), (0.39, "no")):
        one = curve(*others, *peak, height, *peak, *others)
        assert one.found == verdict and one.confidence == pytest.approx(height - 0.2)
    assert str(one) == "no offset found, confidence 0.190 where 0.2 is needed: the best is 0 frames"
    assert "the picture is in step with the sound" in str(curve(*others, *peak, 0.9, *peak, *others))
    periodic = curve(*[0.4, -0.4] * 6, 0.9, *[-0.4, 0.4] * 6)  # as talking at an even pace gives
    assert periodic.found == "yes"
    edge = curve(0.9, *peak, *others, 0.2)
    assert edge.found == "edge" and "may lie beyond it" in str(edge) and "the picture is" not in str(edge)


def test_nothing_is_found_where_nothing_is():
    verdicts = []
    for seed in range(100):
        draws = torch.Generator().manual_seed(seed)
        video, audio = (torch.nn.functional.normalize(torch.randn(90, 32, generator=draws)) for _ in range(2))
        verdicts.append(find_offset(video, audio).found)
        assert find_offset(video[1:], video).found == "yes"
    assert "yes" not in verdicts


@pytest.mark.parametrize(
    ("frames", "confidence", "least", "most", "reason"),
    [
        (-3, 0.4, 0.0, None, ""),
        (15, 0.4, 0.0, None, "no offset was found"),  # at the edge
        (3, 0.19, 0.0, None, "no offset was found"),
        (3, 0.4, 0.4, None, ""),
        (3, 0.39, 0.4, None, "--min_confidence 0.4"),
        (-3, 0.4, 0.0, 3, ""),
        (-4, 0.4, 0.0, 3, "--max_shift 3"),
        (1, 0.4, 0.0, 0, "--max_shift 0"),
    ],
)
def test_clips_that_are_not_in_the_checked_list(frames, confidence, least, most, reason):
    shifts = np.arange(-15, 16)
    args = argparse.Namespace(min_confidence=least, max_shift=most)
    found = reason_to_skip(Offset(frames, confidence, shifts, shifts * 0.0), args)
    assert reason in found and bool(found) == bool(reason)


def test_the_plots_show_what_was_found(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    late, none = curve(0.1, 0.2, 0.3, 0.9, 0.4), curve(0.4, 0.3, 0.2, 0.5, 0.4)
    for found in ([("x/id1/a/1.mp4", late)], [("1", late), ("2", none), ("3", none)]):
        plot_offsets(found, str(tmp_path / "x.png"))
    (axes,), (table, _) = (figure.axes for figure in figures)
    similarity, peak, median, offset_line = (line.get_xydata().tolist() for line in axes.lines)
    assert similarity == [[-2, 0.1], [-1, 0.2], [0, 0.3], [1, 0.9], [2, 0.4]] and peak == [[1, 0.9]]
    assert median[0][1] == 0.3 and offset_line[0][0] == 1
    assert axes.get_title() == "id1/a/1.mp4\noffset 1 frames (40 ms), confidence 0.600"
    assert table.images[0].get_extent() == [-2.5, 2.5, 3.5, 0.5]
    assert table.lines[0].get_xydata().tolist() == [[1, 1], [1, 2], [1, 3]]
    assert axes.get_xlabel() == table.get_xlabel() != "" and "3 clips" in table.get_title()


def test_offset_command_reports_clips_without_an_offset(clock, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    lines = []
    for k, first in enumerate((30, 80, 80)):  # the others have the sound of another time
        clip = Clip(str(tmp_path / f"{k}.mp4"), str(tmp_path / f"{k}.wav"), 1, 40)
        make_clip(clip.video, 40, first=30)
        make_wav(clip.audio, 40 * 640, first=first * 640)
        lines.append(format_list_line(clip) + "\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    flags = ("--initial_model", checkpoint, "--csv", tmp_path / "t.csv", "--write_list", tmp_path / "new.txt")
    status, out, _ = run(capsys, "offset", tmp_path / "list.txt", *flags)
    with open(tmp_path / "t.csv", newline="") as file:
        good, bad, _ = csv.DictReader(file)
    assert status == 0 and good["found"] == "yes" and bad["found"] in ("no", "edge")
    assert [line.split()[3:4] for line in out.splitlines()[1:4]] == [["yes"], *[[bad["found"]]] * 2]
    assert (
        "in 2 of 3 clips no offset was found" in out
        and "to move the sound" not in out
        and "of 1 clips, 1 are as listed" in out
    )
    assert "new.txt: 1 of 3 clips (2 skipped because no offset was found)" in out
    assert (tmp_path / "new.txt").read_text() == lines[0]
    out = run(capsys, "offset", tmp_path / "1.mp4", "--wav", tmp_path / "1.wav", *flags[:2])[1]
    assert "no offset found" in out and "the picture is" not in out


def test_no_list_is_written_if_no_clip_is_left(clock, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    clip = Clip(str(tmp_path / "a.mp4"), str(tmp_path / "a.wav"), 1, 40)
    make_clip(clip.video, 40, first=30)
    make_wav(clip.audio, 40 * 640, first=80 * 640)  # the sound of another time
    (tmp_path / "list.txt").write_text(format_list_line(clip) + "\n")
    (tmp_path / "new.txt").write_text("of an earlier run\n")
    flags = ("--initial_model", checkpoint, "--csv", tmp_path / "t.csv", "--write_list", tmp_path / "new.txt")
    status, _, errors = run(capsys, "offset", tmp_path / "list.txt", *flags)
    assert status == 1 and "of 1 clips, 1 in which no offset was found" in errors[0]
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2
    make_clip(clip.video, 10)  # too short for --max_offset
    status, _, errors = run(capsys, "offset", tmp_path / "list.txt", *flags)
    assert status == 1 and len(errors) == 2
    assert "needs" in errors[0] and "new.txt: not written, none of the 1 clips can be measured" in errors[1]
    assert (tmp_path / "new.txt").read_text() == "of an earlier run\n"


def test_the_offset_does_not_depend_on_the_stride(network, checkpoint, clips):
    clip = read_list(str(clips / "list.txt"))[0]
    assert network.settings.temporal_stride == 2
    dense = inferSyncNet.load(checkpoint, "cpu", model="tinyModel", temporal_stride=1)
    expected = offset(dense, clip.video, clip.audio, max_offset=1)
    for sparse in (network, inferSyncNet.load(checkpoint, "cpu", model="tinyModel")):
        assert np.array_equal(
            offset(sparse, clip.video, clip.audio, max_offset=1).similarity, expected.similarity
        )
        assert sparse.settings.temporal_stride == 2
    with pytest.raises(TypeError, match="temporalstride"):
        inferSyncNet.load(checkpoint, model="tinyModel", temporalstride=1)


def test_offset_command(clock, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    expected = {}
    for k, late in enumerate((-5, 0, 4)):
        make_clip(str(tmp_path / f"mp4/{k}.mp4"), 40, first=30)
        make_wav(str(tmp_path / f"wav/{k}.wav"), 40 * 640, first=(30 + late) * 640)
        expected[str(tmp_path / f"mp4/{k}.mp4")] = late + 1
    make_clip(str(tmp_path / "mp4/3.mp4"), 40)  # has no wav
    flags = ("--initial_model", checkpoint, "--wav", tmp_path / "wav", "--plot", tmp_path / "p.png")
    flags += ("--csv", tmp_path / "t.csv", "--write_list", tmp_path / "new.txt")
    status, out, errors = run(capsys, "offset", tmp_path / "mp4", *flags)
    assert status == 1 and len(errors) == 1 and "3.wav: no such file" in errors[0]
    assert {clip.video: clip.offset for clip in read_list(str(tmp_path / "new.txt"))} == expected
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "t.csv", newline="") as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    assert {name: int(row["offset"]) for name, row in rows.items()} == expected
    assert all(int(row["milliseconds"]) == 40 * int(row["offset"]) for row in rows.values())

    # A list keeps its own number of frames.
    right = [Clip(c.video, c.audio, c.offset, 38) for c in read_list(str(tmp_path / "new.txt"))]
    wrong = [Clip(c.video, c.audio, c.offset + (c.offset > 0), 38) for c in right]
    (tmp_path / "old.txt").write_text("".join(format_list_line(clip) + "\n" for clip in wrong))
    flags = ("--initial_model", checkpoint, "--write_list", tmp_path / "checked.txt")
    status, out, errors = run(capsys, "offset", tmp_path / "old.txt", *flags, "--csv", tmp_path / "t.csv")
    assert status == 0 and "of 3 clips, 1 are as listed, 3 within a frame" in out
    assert read_list(str(tmp_path / "checked.txt")) == right
    with open(tmp_path / "t.csv", newline="") as file:
        assert [int(row["listed"]) for row in csv.DictReader(file)] == [clip.offset for clip in wrong]
    for limits, counts in (
        (("--min_confidence", 2), "of 3 clips, 3 with less confidence than --min_confidence 2"),
        (("--max_shift", 0), "of 3 clips, 3 further apart than --max_shift 0"),
    ):
        status, _, errors = run(capsys, "offset", tmp_path / "old.txt", *flags, *limits)
        assert status == 1 and len(errors) == 1 and "checked.txt: not written, no clip is left" in errors[0]
        assert counts in errors[0] and read_list(str(tmp_path / "checked.txt")) == right

    one = (tmp_path / "mp4/2.mp4", "--wav", tmp_path / "wav/2.wav", "--initial_model", checkpoint)
    status, out, _ = run(capsys, "offset", *one, "--plot", tmp_path / "one.png")
    assert status == 0 and "offset 5 frames (200 ms)" in out and "5 frames later than the sound" in out
    for flag, value in (("--min_confidence", 0.5), ("--max_shift", 0)):
        status, again, errors = run(capsys, "offset", *one, flag, value)
        assert status == 0 and again == out and "not used" in errors[0]
