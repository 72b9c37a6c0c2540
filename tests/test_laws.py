"""What holds for any input: crops lie inside, slots follow each other, parts are the whole, scores are symmetric."""

import numpy as np
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from videoMaker import make_video

from DatasetLoader import DatasetLoader
from syncnet.media.clips import MARGIN, SAMPLES_PER_FRAME, Clip, format_list_line
from syncnet.media.crops import crop_starts
from syncnet.media.timeline import VideoReader
from syncnet.support.parts import Part, shares
from syncnet.verification.scores import score_vectors
from syncnet.verification.trials import Trials

quick = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.integers(1, 500), st.integers(0, 500), st.integers(2, 20))
@quick
def test_crops_are_spread_from_the_first_to_the_last_sample(length, more, crops):
    starts = crop_starts(length + more, length, crops)
    assert (starts[0], starts[-1], len(starts)) == (0, more, crops)
    assert starts == sorted(starts)
    assert max(np.diff(starts)) - min(np.diff(starts)) <= 1


@given(st.integers(5, 60), st.integers(-15, 15), st.integers(0, 50), st.integers(1, 9), st.integers(0, 99))
@quick
def test_a_crop_of_training_lies_inside_its_clip(tmp_path, crop, offset, more, epoch, position):
    """Picture and sound, which are as far apart as the offset says, and the sound of 15 ms beyond the crop."""
    frames = crop + abs(offset) + MARGIN + more
    clip = Clip("/v.mp4", "/v.wav", offset, frames)
    (tmp_path / "list.txt").write_text(2 * f"{format_list_line(clip)}\n")
    start = DatasetLoader(str(tmp_path / "list.txt"), 2, 2, crop, 1).draw_start(clip, epoch, position)
    assert start + offset - 1 >= 0 and start + offset - 1 + crop <= frames
    assert (
        start >= 0
        and start * SAMPLES_PER_FRAME + crop * SAMPLES_PER_FRAME + 240 <= frames * SAMPLES_PER_FRAME
    )


@given(st.lists(st.floats(0.001, 0.3), min_size=2, max_size=12), st.floats(0, 5))
@example([0.25, 0.25, 0.25, 0.28125], 0.0)  # B-frames: the second packet is shown a second after the third
@settings(quick, max_examples=12)
def test_slots_follow_each_other_whatever_the_time_stamps(tmp_path, gaps, start):
    """Neither holes nor doubles, from the first picture to the last one."""
    times = np.round(np.concatenate([[0.0], np.cumsum(gaps)]), 3)
    path = str(tmp_path / "a.mkv")
    make_video(
        path, times, size=(64, 64), flash=None, sound_from=None, format="matroska", start=round(start, 3)
    )
    with VideoReader(path) as reader:
        slots = [slot for slot, _ in reader.slots()]
    assert slots == list(range(len(slots)))
    assert len(slots) >= int(times[-1] * 25)


@given(st.sets(st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=8)), st.integers(1, 9))
@quick
def test_each_file_is_in_one_part(names, count):
    """Each file is in one part, whatever other files there are and whichever part asks."""
    found = shares(sorted(names), Part(1, count))
    assert sorted(name for share in found for name in share) == sorted(names)
    assert found == shares(sorted(names), Part(count, count))
    fewer = shares(sorted(names)[::2], Part(1, count))
    assert all(set(few) <= set(share) for few, share in zip(fewer, found, strict=True))


@given(st.integers(2, 6), st.integers(1, 9), st.integers(0, 99))
@quick
def test_scores_are_symmetric(files, size, seed):
    vectors = torch.randn(files, size, generator=torch.Generator().manual_seed(seed))
    first, second = np.triu_indices(files)
    names = [str(k) for k in range(files)]
    one, other = (
        score_vectors(vectors.clone(), Trials(names, a, b, None))
        for a, b in ((first, second), (second, first))
    )
    np.testing.assert_array_equal(one, other)
