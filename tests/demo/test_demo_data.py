"""makeDemoData.py: layout, formats, determinism, and a picture that follows the sound at the stated offset."""

import hashlib
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import makeDemoData
from syncnet.demo.face import DrawnFace
from syncnet.demo.voice import Identity, speak
from syncnet.media.clips import FRAME_SIZE, SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.media.wav import open_wav
from syncnet.support.errors import UserError

FRAMES = 60
SIZES = ["--speakers", "5", "--val_speakers", "2", "--test_speakers", "2", "--utterances", "3"]
SIZES += ["--seconds", str(FRAMES / 25), "--seed", "3"]


def make(out: Path, *flags: str) -> Path:
    makeDemoData.make_corpus(makeDemoData.parse_args(["--out", str(out), *SIZES, *flags]))
    return out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("demo") / "corpus", "--nWorkers", "1")


def clips(corpus: Path) -> list[tuple[Path, Path, Path]]:
    """(mp4, wav, txt) of every clip."""
    found = sorted(corpus.glob("*/mp4/*/*/*.mp4"))
    parts = [(path.relative_to(corpus).parts[0], *path.with_suffix("").parts[-3:]) for path in found]
    return [
        (corpus / group / "mp4" / name / ref / f"{utt}.mp4",
         corpus / group / "wav" / name / ref / f"{utt}.wav",
         corpus / group / "txt" / name / ref / f"{utt}.txt")
        for group, name, ref, utt in parts
    ]  # fmt: skip


def digests(corpus: Path, *suffixes: str) -> dict[str, str]:
    return {
        str(path.relative_to(corpus)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(corpus.rglob("*"))
        if path.suffix in suffixes
    }


def read_offset(txt: Path) -> int:
    return int(txt.read_text().split("\n")[2].split()[2])


def test_layout_and_groups(corpus):
    made = clips(corpus)
    assert len(made) == 7
    assert all(path.is_file() for clip in made for path in clip)
    speakers = [
        {path.name for path in (corpus / folder).iterdir()} for folder in ("dev/mp4", "test/mp4", "voxceleb1")
    ]
    assert [len(group) for group in speakers] == [5, 2, 2]
    assert len(set.union(*speakers)) == 9
    assert not [path for path in corpus.rglob("*") if path.suffix == ".part"]


def test_txt_is_as_voxceleb2(corpus):
    offsets = []
    for mp4, _, txt in clips(corpus):
        lines = txt.read_text().split("\n")
        assert lines[0] == f"Identity  : \t{mp4.parts[-3]}"
        assert lines[1] == f"Reference : \t{mp4.parts[-2]}"
        assert lines[2].startswith("Offset    : \t")
        assert lines[5:7] == ["", "FRAME \tX \tY \tW \tH "]
        boxes = [line.split() for line in lines[7:-1]]
        assert [int(box[0]) for box in boxes] == list(range(1, FRAMES + 1))
        assert all(0 <= float(value) <= 1 for box in boxes for value in box[1:])
        offsets.append(read_offset(txt))
    assert 0 in offsets
    assert any(offset > 0 for offset in offsets)
    assert any(offset < 0 for offset in offsets)


def test_video_is_as_voxceleb2(corpus):
    for mp4, _, _ in clips(corpus):
        with av.open(str(mp4)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            assert (context.name, context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 25)
            assert (context.width, context.height) == (FRAME_SIZE, FRAME_SIZE)
            packets = [packet for packet in container.demux(stream) if packet.size]
            assert [packet.is_keyframe for packet in packets] == [True] + [False] * (FRAMES - 1)
            shown = [packet.pts for packet in packets]
            assert shown != sorted(shown), "without B-frames packets are stored in the order shown"
        video = cv2.VideoCapture(str(mp4))
        decoded = 0
        while video.grab():
            decoded += 1
        assert decoded == video.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES


def test_a_long_video_has_a_key_frame_every_250(tmp_path):
    image = np.zeros((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    path = tmp_path / "long.mp4"
    makeDemoData.write_mp4(str(path), (image + (n // 10 % 2) * 200 for n in range(260)))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = sorted(
        round(float(packet.pts * packet.time_base) * 25) for packet in packets if packet.is_keyframe
    )
    assert keys == [0, 250]


def test_wavs(corpus):
    for _, wav, _ in clips(corpus):
        samples = open_wav(str(wav))
        assert len(samples) == FRAMES * SAMPLES_PER_FRAME
        assert 1000 < np.std(samples) < 8000
        assert np.abs(samples.astype(int)).max() < 32767, "clipped"
    held_out = sorted((corpus / "voxceleb1").glob("*/*/*.wav"))
    assert len(held_out) == 2 * 3
    assert all(len(open_wav(str(wav))) > 50 * SAMPLES_PER_FRAME + 240 for wav in held_out)


def test_trials_are_balanced_and_true(corpus):
    trials = [line.split() for line in (corpus / "test_list.txt").read_text().splitlines()]
    assert sorted(label for label, _, _ in trials) == ["0"] * 6 + ["1"] * 6
    assert len({(a, b) for _, a, b in trials}) == len(trials)
    for label, a, b in trials:
        assert (corpus / "voxceleb1" / a).is_file()
        assert (corpus / "voxceleb1" / b).is_file()
        assert a != b
        assert (a.split("/")[0] == b.split("/")[0]) == (label == "1")


def mouth_area(mp4: Path) -> np.ndarray:
    """Dark pixels in the lower half of every frame: the open mouth."""
    video, areas = cv2.VideoCapture(str(mp4)), []
    while (frame := video.read()[1]) is not None:
        areas.append((frame[FRAME_SIZE // 2 :].max(axis=2) < 50).sum())
    return np.array(areas, float)


def loudness(wav: Path) -> np.ndarray:
    """Level of the voice, without the hiss, during each video frame."""
    low = np.convolve(open_wav(str(wav)), np.ones(8) / 8, mode="same")
    return np.sqrt((low.reshape(-1, SAMPLES_PER_FRAME) ** 2).mean(axis=1))


def test_mouth_follows_voice_at_the_stated_offset(corpus):
    for mp4, wav, txt in clips(corpus):
        area, level = mouth_area(mp4), loudness(wav)
        # Picture of frame f + lag against sound of frame f.
        match = {
            lag: np.corrcoef(area[max(lag, 0) : FRAMES + min(lag, 0)], level[max(-lag, 0) : FRAMES - max(lag, 0)])
            for lag in range(-5, 6)
        }  # fmt: skip
        best = max(match, key=lambda lag: match[lag][0, 1])
        assert best == read_offset(txt)
        assert match[best][0, 1] > 0.5


def test_a_bigger_head_has_a_lower_voice():
    """What a network can learn: the four numbers of an identity show in the face and in the sound."""

    def render(**changed) -> tuple[np.ndarray, np.ndarray]:
        identity = Identity(*[0.5] * 4)._replace(**changed)
        samples = speak(identity, 50, np.random.default_rng(1)).samples
        power = np.abs(np.fft.rfft(samples)) ** 2
        return DrawnFace(identity, np.random.default_rng(1)).draw(0.0, 0.5, 0.5).astype(float), power

    def centroid(power: np.ndarray, low: float = 0, high: float = 4000) -> float:
        hertz = np.linspace(0, SAMPLE_RATE / 2, len(power))
        band = (hertz >= low) & (hertz < high)
        return np.sum(hertz[band] * power[band]) / np.sum(power[band])

    def skin_and_hair(image: np.ndarray) -> int:
        return (np.abs(image - image[2, 2]).max(axis=2) > 60).sum()

    small, big = render(size=0.1), render(size=0.9)
    assert skin_and_hair(big[0]) > 1.2 * skin_and_hair(small[0])
    assert centroid(big[1], 4000, 8000) < centroid(small[1], 4000, 8000)
    low, high = render(pitch=0.1), render(pitch=0.9)
    assert (high[0][4, 4] - low[0][4, 4])[2] > 100, "the background goes from blue to orange"
    assert low[1][:300].sum() / low[1].sum() > 10 * high[1][:300].sum() / high[1].sum(), "below 150 Hz"
    dark, bright = render(brightness=0.1), render(brightness=0.9)
    assert bright[0].mean() > dark[0].mean() + 10
    assert centroid(bright[1]) > centroid(dark[1])


def test_same_seed_same_corpus_whatever_the_workers(corpus, tmp_path):
    again = make(tmp_path / "again", "--nWorkers", "2")
    assert digests(again, ".wav", ".txt", ".mp4") == digests(corpus, ".wav", ".txt", ".mp4")


def test_another_seed_is_another_corpus(corpus, tmp_path):
    other = make(tmp_path / "other", "--nWorkers", "1", "--seed", "4")
    before, after = digests(corpus, ".wav"), digests(other, ".wav")
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_run_again_restores_what_was_damaged(corpus, tmp_path, capsys):
    out = shutil.copytree(corpus, tmp_path / "again")
    damaged, _, _ = clips(out)[0]
    damaged.write_bytes(b"half a clip")
    make(out, "--nWorkers", "1")
    assert "13 of 13 clips and recordings exist" in capsys.readouterr().out
    assert digests(out, ".wav", ".txt", ".mp4") == digests(corpus, ".wav", ".txt", ".mp4")


def test_clips_of_other_sizes_are_not_mixed_in(tmp_path):
    stranger = tmp_path / "dev/mp4/id00099/video000000/00001.mp4"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"")
    with pytest.raises(UserError, match="id00099.*Delete the folder"):
        make(tmp_path, "--nWorkers", "1")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [stranger]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seconds", "0.5"], "--seconds 0.5"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--seconds", "100"], "expected 1 to 60"),
        (["--speakers", "0"], "--speakers: found 0, needs at least 1"),
        (["--test_speakers", "1"], "--test_speakers: found 1, needs at least 2"),
        (["--nWorkers", "0"], "--nWorkers: found 0"),
        (["--speakers", "20000"], "at most 10000"),
        (["--speaker", "5"], "unrecognized"),
    ],
)
def test_flags_out_of_range(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit):
        makeDemoData.parse_args(["--out", str(tmp_path), *flags])
    assert message in capsys.readouterr().err


def test_out_that_cannot_be_written_is_one_message(tmp_path, capsys):
    (tmp_path / "dev").write_text("")
    assert makeDemoData.main(["--out", str(tmp_path), "--nWorkers", "1", *SIZES]) == 1
    assert f"makeDemoData.py: --out {tmp_path}: cannot write the corpus there: " in capsys.readouterr().err
