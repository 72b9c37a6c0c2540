"""inferSyncNet.py match: accuracy over all choices, its interval, and which clips take part."""

import itertools

import numpy as np
import pytest
import torch
from clipMaker import RAMP, frame_number
from inferring import NETWORK, run
from torch import nn

import inferSyncNet
from inferSyncNet import match
from syncnet.inference.match import Matching, matching_accuracy, speakers_of_clips
from syncnet.media.clips import Clip, format_list_line, read_list
from syncnet.support.errors import UserError
from SyncNetDist import SyncNet


@pytest.mark.parametrize("ways", [2, 3, 5])
def test_matching_accuracy_is_the_mean_over_all_draws(ways):
    draws = np.random.default_rng(0)
    speakers = ["a", "a", "b", "c", "d", "d", "e"]
    similarity = draws.standard_normal((7, 7)) + 0.7 * np.eye(7)
    won = []
    for row in range(7):
        others = [n for n in range(7) if speakers[n] != speakers[row]]
        sets = list(itertools.combinations(others, ways - 1))
        won.append(np.mean([all(similarity[row, n] < similarity[row, row] for n in wrong) for wrong in sets]))
    found = matching_accuracy(similarity, speakers, ways)
    assert found.accuracy == pytest.approx(100 * np.mean(won), abs=1e-6)
    assert found.low < found.accuracy < found.high


def test_matching_accuracy_at_its_ends():
    people = [str(n) for n in range(300)]
    assert matching_accuracy(np.eye(300), people, 10).accuracy == pytest.approx(100)
    assert (
        matching_accuracy(np.zeros((300, 300)), people, 2).accuracy == 0
    )  # what cannot be told is not found
    chance = matching_accuracy(np.random.default_rng(0).standard_normal((300, 300)), people, 10)
    draws = [
        matching_accuracy(np.random.default_rng(0).standard_normal((300, 300)), people, 10, seed)
        for seed in (0, 1)
    ]
    assert chance == draws[0] and chance.low != draws[1].low
    assert abs(chance.accuracy - 10) < 3 and 2 < chance.high - chance.low < 10
    assert matching_accuracy(np.eye(4), ["a", "a", "b", "b"], 3).accuracy == pytest.approx(100)
    with pytest.raises(ValueError, match="11-way matching: .* for 10 at most"):
        matching_accuracy(np.eye(10), people[:10], 11)


def test_the_interval_of_matching_accuracy_is_of_clips_not_of_speakers():
    """Five speakers lose their only clip, five win all of their 19: 95 % of clips, but half of the speakers."""
    speakers = [f"lost{n}" for n in range(5)] + [f"won{n}" for n in range(5) for _ in range(19)]
    similarity = np.eye(len(speakers))
    similarity[np.arange(5), np.arange(5)] = -1
    found = matching_accuracy(similarity, speakers, 2)
    assert found.accuracy == pytest.approx(95)
    assert found.low == pytest.approx(82.6, abs=1) and found.high == pytest.approx(98.7, abs=1)


def test_the_speaker_of_a_clip_is_its_folder():
    assert len(set(speakers_of_clips(["x/id1/a/1.mp4", "x/id1/b/2.mp4", "x/id2/a/1.mp4"]))) == 2
    assert speakers_of_clips(["x/1.mp4", "x/2.mp4"]) == ["x/1.mp4", "x/2.mp4"]


class Familiar(nn.Module):
    """Identity embeddings that tell the person of a clip of the fixture, in face and voice alike."""

    def forward_vid(self, video: torch.Tensor) -> tuple[None, torch.Tensor]:
        people = [frame_number(clip[:, 0].permute(1, 2, 0).numpy()) // 977 // 2 for clip in video]
        return None, torch.eye(8)[torch.tensor(people)][..., None]

    def forward_aud(self, audio: torch.Tensor) -> tuple[None, torch.Tensor]:
        people = ((audio[:, 0].long() + RAMP // 2) // 3001 // 2).clamp(max=7)
        return None, torch.eye(8)[people][..., None]


def test_match(clips, checkpoint, capsys, monkeypatch):
    network = SyncNet(**NETWORK)
    network.__S__ = Familiar()
    listed = read_list(str(clips / "list.txt"))
    there, back, speakers = match(network, listed, ways=(2, 4), num_eval=1)
    assert [m.accuracy for m in there + back] == pytest.approx([100] * 4) and len(set(speakers)) == 4
    swapped = [Clip(a.video, b.audio, 0, 30) for a, b in zip(listed, listed[2:] + listed[:2], strict=True)]
    assert match(network, swapped, ways=(4,), num_eval=1)[0][0].accuracy == 0

    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: network)
    flags = ("--initial_model", checkpoint, "--ways", 2, 3, "--num_eval", 1)
    status, out, _ = run(capsys, "match", clips / "list.txt", *flags)
    assert status == 0 and "8 clips of 4 speakers" in out
    assert [line.split()[:3] for line in out.splitlines()[-2:]] == [
        ["2", "50.00", "100.00"],
        ["3", "33.33", "100.00"],
    ]


def test_too_few_speakers_are_reported_before_anything_is_embedded(clips, monkeypatch):
    monkeypatch.setattr("syncnet.inference.embeddings.embed", None)
    listed = read_list(str(clips / "list.txt"))
    with pytest.raises(UserError, match="10-way matching: .* for 7 at most, of 8 clips of 4 speakers"):
        match(None, listed)
    with pytest.raises(UserError, match="1 clips of 1 speakers: nothing to tell apart"):
        match(None, listed[:1], ways=(2,))


def test_match_skips_clips_without_a_face_or_a_voice(clips, checkpoint, tmp_path, capsys, monkeypatch):
    network = SyncNet(**NETWORK)
    network.__S__ = Familiar()
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: network)
    for name in ("none.mp4", "none.wav"):
        (tmp_path / name).write_bytes(b"nothing")
    listed = read_list(str(clips / "list.txt"))
    listed[2] = Clip(str(tmp_path / "none.mp4"), listed[2].audio, 0, 30)
    listed[5] = Clip(listed[5].video, str(tmp_path / "none.wav"), 0, 30)
    (tmp_path / "list.txt").write_text("".join(format_list_line(clip) + "\n" for clip in listed))
    flags = ("--initial_model", checkpoint, "--ways", 2, "--num_eval", 1)
    status, out, errors = run(capsys, "match", tmp_path / "list.txt", *flags)
    assert status == 1 and len(errors) == 2 and out.startswith("6 clips of 4 speakers")
    assert out.split()[-8::4] == ["100.00", "100.00"]


def test_match_embeds_faces_and_voices_alike(monkeypatch):
    """With the same crops and batches; it does not search the files for each clip."""
    looks, asked = [], []

    class Files(list):
        def __iter__(self):
            looks.append(1)
            return super().__iter__()

    def embedded(_, files, *settings, skip):
        asked.append((*settings, skip))
        return Files(files), torch.nn.functional.one_hot(torch.arange(len(files))).float()

    monkeypatch.setattr("syncnet.inference.embeddings.embed", embedded)
    many = [Clip(f"x/id{n // 2}/v/{n}.mp4", f"{n}.wav", 0, 30) for n in range(60)]
    found = match(None, many, ways=(2,), num_eval=7, batch=5, allow_resize=True, skip=print)
    assert found[0][0].accuracy == 100 and len(looks) <= 4
    assert asked == [(False, 7, False, 5, print), (True, 7, False, 5, True, print)]


def test_match_prints_faces_first(clips, checkpoint, capsys, monkeypatch):
    figures = ([Matching(2, 60, 50, 70)], [Matching(2, 90, 80, 95)], ["a", "b"])
    monkeypatch.setattr("syncnet.inference.match.match", lambda *_: figures)
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: None)
    status, out, _ = run(capsys, "match", clips / "list.txt", "--initial_model", checkpoint)
    titles, row = out.splitlines()[-2:]
    assert status == 0 and titles.index("face finds voice") < titles.index("voice finds face")
    assert row.split() == ["2", "50.00", "60.00", "(50.00", "-", "70.00)", "90.00", "(80.00", "-", "95.00)"]
