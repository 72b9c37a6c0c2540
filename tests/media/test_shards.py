"""Clips in shards: the same bytes, names, speakers and results as the files that they were copied from."""

import csv
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import make_clip, make_txt, make_wav, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

import inferSyncNet
import makeFileList
import trainSyncNet
from DatasetLoader import DatasetLoader
from syncnet.inference.match import speakers_of_clips
from syncnet.inference.sources import find_sources
from syncnet.media.clips import Clip, MediaError, read_list
from syncnet.media.file_type import VIDEO_FILES
from syncnet.media.video import read_frames
from syncnet.media.wav import open_wav
from syncnet.support.errors import UserError
from syncnet.support.tar_members import flat_name, members_of, open_file, path_without_tar
from syncnet.verification.embedding_cache import find_recording
from syncnet.verification.evaluation import evaluate_list
from SyncNetDist import SyncNet

FRAMES, CLIPS, PER_SHARD = 20, 10, 4
NETWORK = ["--maxFrames", "6", "--nOut", "8", "--model", "tinyModel", "--device", "cpu"]


def make_corpus(root: Path) -> list[str]:
    """Clips of four people in VoxCeleb2's layout; the last video is broken. Returns their names, sorted."""
    names = sorted(f"id{k // 3:05d}/a_.b__{k % 2}/{k:05d}" for k in range(CLIPS))
    for k, name in enumerate(names):
        make_clip(str(root / f"mp4/{name}.mp4"), FRAMES, first=977 * k)
        make_wav(str(root / f"wav/{name}.wav"), FRAMES * 640, first=3001 * k)
        (root / f"txt/{name}.txt").parent.mkdir(parents=True, exist_ok=True)
        make_txt(str(root / f"txt/{name}.txt"), offset=k % 3 - 1)
    (root / f"mp4/{names[-1]}.mp4").write_bytes(b"")
    return names


def list_clips(root: Path, output: Path, *more: object) -> int:
    folders = [f"--{kind}_dir={root / kind}" for kind in ("mp4", "wav", "txt")]
    return makeFileList.main([f"--output={output}", *folders, "--nWorkers=1", *map(str, more)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A corpus, and the lists of it: files.txt, and dev.txt with its shards in the folder shards."""
    root = tmp_path_factory.mktemp("corpus")
    make_corpus(root)
    assert list_clips(root, root / "files.txt") == 0
    assert list_clips(root, root / "dev.txt", "--shards", root / "shards", "--shard_clips", PER_SHARD) == 0
    return root


def both(corpus: Path) -> list[tuple[Clip, Clip]]:
    """Each clip as a file and in its shard."""
    return list(zip(*(read_list(str(corpus / name)) for name in ("files.txt", "dev.txt")), strict=True))


# Names of clips, by folder; two may become one in a tar, where slashes are underscores.
names = st.text("aB1 ._-é日", min_size=1, max_size=5).filter(lambda n: n[0] not in "._" and n.strip() == n)
clip_names = st.sets(st.lists(names, min_size=1, max_size=3).map("/".join), min_size=1, max_size=7)


@given(clip_names, st.sets(st.integers(0, 6)), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_shards_hold_any_clips_in_the_order_of_the_list(corpus, stems, broken, per_shard):
    file = read_list(str(corpus / "files.txt"))[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = sorted(f"{stem}.mp4" for stem in stems)
        for number, name in enumerate(found):
            for kind, source in (("mp4", file.video), ("wav", file.audio)):
                path = root / kind / f"{name[:-4]}.{kind}"
                path.parent.mkdir(parents=True, exist_ok=True)
                content = b"broken" if number in broken else Path(source).read_bytes()
                # All differ; the lengths of some are multiples of a tar's 512 bytes.
                path.write_bytes(content + bytes([number]) * (-len(content) % 512 + number % 3))
        flags = [f"--{kind}_dir={root / kind}" for kind in ("mp4", "wav")] + ["--no_txt", "--check=packets"]
        more = ["--nWorkers=1", f"--output={root / 'dev.txt'}", f"--shards={root / 'shards'}"]
        status = makeFileList.main([*flags, *more, f"--shard_clips={per_shard}"])
        usable = [number for number in range(len(found)) if number not in broken]
        in_tar = [(number // per_shard, flat_name(found[number])) for number in usable]
        assert status == (0 if usable and len(set(in_tar)) == len(in_tar) else 1)
        members = read_list(str(root / "dev.txt")) if status == 0 else []
        for member, number in zip(members, usable if members else [], strict=True):
            shard, name = root / f"shards/dev-{number // per_shard:06d}.tar", found[number]
            assert member.video.startswith(f"{shard}/{name}#")
            assert member.audio.startswith(f"{shard}/{name[:-4]}.wav#")
            assert open_file(member.video).read() == (root / "mp4" / name).read_bytes()
            assert open_file(member.audio).read() == (root / f"wav/{name[:-4]}.wav").read_bytes()


def test_a_list_names_the_members_of_shards(corpus):
    assert sorted(os.listdir(corpus / "shards")) == [f"dev-{number:06d}.tar" for number in range(3)]
    pairs = both(corpus)
    assert len(pairs) == CLIPS - 1
    for number, (file, member) in enumerate(pairs):
        shard = corpus / f"shards/dev-{number // PER_SHARD:06d}.tar"
        for kind, path, stored in (("mp4", file.video, member.video), ("wav", file.audio, member.audio)):
            name = os.path.relpath(path, corpus / kind)
            found = re.fullmatch(rf"{re.escape(str(shard))}/{re.escape(name)}#(\d+)\+(\d+)", stored)
            first, size = map(int, found.groups())
            assert shard.read_bytes()[first : first + size] == Path(path).read_bytes()
        assert (file.offset, file.frames) == (member.offset, member.frames)


def test_members_are_complete_although_reads_are_short(corpus, monkeypatch):
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, place: real(file, min(size, 1000), place))
    for file, member in both(corpus):
        assert open_file(member.audio).read() == Path(file.audio).read_bytes()


def test_shards_are_tars_for_tar_and_for_webdataset(corpus, tmp_path):
    samples: dict[str, dict[str, bytes]] = defaultdict(dict)
    for shard in sorted((corpus / "shards").iterdir()):
        with tarfile.open(shard, "r|") as stream:  # as WebDataset reads one, from its beginning to its end
            for header in stream:
                key, kind = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", header.name).groups()
                samples[key][kind] = stream.extractfile(header).read()
        subprocess.run(["tar", "xf", shard, "-C", tmp_path], check=True)
    assert len(samples) == CLIPS - 1
    for file, _ in both(corpus):
        key = (
            os.path.relpath(file.video, corpus / "mp4")
            .removesuffix(".mp4")
            .replace("/", "__")
            .replace(".", "_")
        )
        assert samples[key] == {"mp4": Path(file.video).read_bytes(), "wav": Path(file.audio).read_bytes()}
        assert (tmp_path / f"{key}.mp4").read_bytes() == Path(file.video).read_bytes()
        assert (tmp_path / f"{key}.wav").stat().st_mtime == int(Path(file.audio).stat().st_mtime)


def test_names_and_speakers_stay(corpus):
    files, members = zip(*both(corpus), strict=True)
    folders = [speakers_of_clips([clip.video for clip in clips]) for clips in (files, members)]
    assert [folders[0].index(one) for one in folders[0]] == [folders[1].index(one) for one in folders[1]]
    sources = find_sources([str(corpus / "dev.txt")], VIDEO_FILES, with_sound=True)
    expected = [str(corpus / "shards" / os.path.relpath(clip.video, corpus / "mp4")) for clip in files]
    assert [f"/{source.name}" for source in sources] == expected
    assert path_without_tar("x.tar/a.mp4") == "x.tar/a.mp4"  # no range: a file


@pytest.fixture(scope="module")
def trained(corpus) -> list[Path]:
    """Runs of the two lists, in a process of one thread."""
    folders = [corpus / "run_files", corpus / "run_shards"]
    torch.set_num_threads(1)
    for name, folder in zip(("files.txt", "dev.txt"), folders, strict=True):
        lists = [f"--train_list={corpus / name}", f"--verify_list={corpus / name}", f"--save_path={folder}"]
        more = ["--nBatchSize=4", "--max_epoch=2", "--nDataLoaderThread=3", "--lr=0.01"]
        assert trainSyncNet.main([*NETWORK, *lists, *more]) == 0
    return folders


def test_training_from_shards_is_the_run_from_files(trained):
    weights = [torch.load(folder / "model/model000000002.model", weights_only=True) for folder in trained]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    scores = [(folder / "result/scores.txt").read_text() for folder in trained]
    figures = [[line for line in text.splitlines() if line.startswith("IT")] for text in scores]
    assert figures[0] == figures[1] and len(figures[0]) == 2


def test_a_run_from_shards_resumes(corpus, trained, tmp_path, stopped_at):
    lists = [f"--train_list={corpus / 'dev.txt'}", f"--verify_list={corpus / 'dev.txt'}"]
    more = ["--nBatchSize=4", "--max_epoch=2", "--nDataLoaderThread=1", "--lr=0.01", "--save_steps=1"]
    command = [*NETWORK, *lists, *more, f"--save_path={tmp_path / 'run'}"]
    with stopped_at(2):
        assert trainSyncNet.main(command) == 1
    assert trainSyncNet.main(command) == 0
    weights = [
        torch.load(folder / "model/model000000002.model", weights_only=True)
        for folder in (trained[1], tmp_path / "run")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("command", ["offset", "lse", "match", "embed", "embed --face"])
def test_inference_reads_lists_of_shards(corpus, trained, tmp_path, capsys, command):
    found = []
    for name in ("files.txt", "dev.txt"):
        output = {
            "offset": ["--csv", tmp_path / f"{name}.csv", "--max_offset", 3],
            "lse": ["--csv", tmp_path / f"{name}.csv", "--max_offset", 3],
            "match": ["--ways", 2],
            "embed": ["--output", tmp_path / f"{name}.npz"],
        }[command.split()[0]]
        flags = ["--initial_model", trained[0] / "model/model000000002.model", *NETWORK, *output]
        status = inferSyncNet.main([*command.split(), str(corpus / name), *map(str, flags)])
        printed = capsys.readouterr().out
        assert status == 0, printed
        if command == "match":
            found.append(printed)
        elif command.startswith("embed"):
            with np.load(tmp_path / f"{name}.npz") as kept:
                found.append((len(kept["files"]), kept["vectors"].tolist()))
        else:
            with open(tmp_path / f"{name}.csv") as table:
                found.append([[v for k, v in row.items() if "/" not in v] for row in csv.DictReader(table)])
    assert found[0] == found[1] and found[0]


def test_a_second_run_keeps_the_shards_that_have_not_changed(tmp_path):
    names = make_corpus(tmp_path)
    output, shards = tmp_path / "out/dev.txt", tmp_path / "shards"
    flags = ("--shards", shards, "--shard_clips", PER_SHARD)
    assert list_clips(tmp_path, output, *flags) == 0
    before, text = {path: path.stat().st_ino for path in shards.iterdir()}, output.read_text()
    (shards / "dev-000000.tar.123@node.part").write_bytes(b"left by a run that was killed")
    os.truncate(shards / "dev-000002.tar", (shards / "dev-000002.tar").stat().st_size - 600)
    changed = tmp_path / f"wav/{names[5]}.wav"  # in the second shard: same size, changed within a second
    second, part = divmod(changed.stat().st_mtime_ns, 10**9)
    make_wav(str(changed), FRAMES * 640, first=7)
    os.utime(changed, ns=(0, second * 10**9 + (part + 5 * 10**8) % 10**9))
    assert list_clips(tmp_path, output, *flags) == 0
    assert {path.suffix for path in shards.iterdir()} == {".tar"}
    kept = [path.name for path, inode in before.items() if path.stat().st_ino == inode]
    assert kept == ["dev-000000.tar"]
    assert output.read_text() == text
    for member, name in zip(read_list(str(output)), names, strict=False):
        assert open_file(member.audio).read() == (tmp_path / f"wav/{name}.wav").read_bytes()
    shutil.rmtree(shards)
    assert list_clips(tmp_path, tmp_path / "again/dev.txt", *flags) == 0
    assert (tmp_path / "again/dev.txt").read_text() == text


def test_no_incomplete_shard_is_left(corpus, tmp_path, monkeypatch):
    real, shrunk = os.stat, read_list(str(corpus / "files.txt"))[6].audio

    def stat(path, *args, **options):
        facts = real(path, *args, **options)
        if str(path) != shrunk:
            return facts
        return os.stat_result((*facts[:6], facts.st_size + 1, *facts[7:10]))

    monkeypatch.setattr(os, "stat", stat)
    flags = ("--shards", tmp_path / "shards", "--shard_clips", PER_SHARD)
    assert list_clips(corpus, tmp_path / "dev.txt", *flags) == 1
    assert os.listdir(tmp_path / "shards") == ["dev-000000.tar"] and not (tmp_path / "dev.txt").exists()


def test_clips_that_would_have_the_same_name_are_refused(tmp_path):
    for name in ("id1/a__b/1", "id1__a/b/1"):
        make_clip(str(tmp_path / f"mp4/{name}.mp4"), FRAMES)
        make_wav(str(tmp_path / f"wav/{name}.wav"), FRAMES * 640)
    flags = ["--mp4_dir", tmp_path / "mp4", "--wav_dir", tmp_path / "wav", "--no_txt", "--nWorkers", 1]
    flags += ["--output", tmp_path / "dev.txt", "--shards", tmp_path / "shards"]
    assert makeFileList.main(list(map(str, flags))) == 1
    assert not (tmp_path / "shards").exists()


def change(shard: Path, how: str) -> str:
    """Change a shard in place; returns what an error says of it."""
    data = shard.read_bytes()
    if how == "cut off":
        shard.write_bytes(data[:2000])
        return "the tar is cut off after 2000 bytes"
    if how == "missing":
        shard.unlink()
        return "no such"
    with tarfile.open(shard) as archive:
        first = archive.getmembers()[0]
    if how == "other clip":  # of the same size, at the same place
        at = first.offset_data - 512
        first.name = "id00099__x__00000.mp4"
        shard.write_bytes(data[:at] + first.tobuf(tarfile.GNU_FORMAT) + data[at + 512 :])
        return "the tar has id00099__x__00000.mp4 of"
    shard.write_bytes(data[512:])  # everything has moved
    return "the tar has no file there; it has changed since this list was made"


@pytest.mark.parametrize("how", ["cut off", "missing", "other clip", "moved"])
def test_reading_from_a_changed_shard_is_an_error(corpus, tmp_path, how):
    clip = read_list(str(corpus / "dev.txt"))[0]
    shard = Path(shutil.copy(corpus / "shards/dev-000000.tar", tmp_path))
    moved = str(tmp_path) + clip.video.removeprefix(str(corpus / "shards"))
    frames = np.empty((3, 224, 224, 3), np.uint8)
    read_frames(moved, 2, frames)
    said = change(shard, how)
    with pytest.raises(MediaError, match=f"dev-000000.tar.*00000.mp4#.*{said}"):
        read_frames(moved, 2, frames)
    if how in ("cut off", "moved"):
        wav = str(tmp_path) + clip.audio.removeprefix(str(corpus / "shards"))
        with pytest.raises(MediaError, match=r"dev-000000.tar.*00000.wav#.* \(the tar has "):
            open_wav(wav)


@pytest.mark.parametrize("where", ["512+999999999999999", "99999999999999999+5", "0+5", "512+0"])
def test_a_range_of_bytes_that_makes_no_sense(corpus, where):
    path = re.sub(r"#.*", f"#{where}", read_list(str(corpus / "dev.txt"))[0].audio)
    with pytest.raises(MediaError, match=r"dev-000000.tar/.*: cannot be read|the tar has"):
        open_wav(path)


def test_a_range_of_another_size_than_the_member(corpus):
    path, _, size = read_list(str(corpus / "dev.txt"))[0].audio.rpartition("+")
    with pytest.raises(MediaError, match="the tar has "):
        open_wav(f"{path}+{int(size) - 2}")


def test_clips_of_a_damaged_shard_are_replaced_and_logged(corpus, tmp_path):
    shutil.copytree(corpus / "shards", tmp_path / "shards")
    text = (corpus / "dev.txt").read_text().replace(str(corpus), str(tmp_path))
    (tmp_path / "dev.txt").write_text(text)
    os.truncate(tmp_path / "shards/dev-000001.tar", 2000)
    log = tmp_path / "bad_clips.txt"
    loader = DatasetLoader(str(tmp_path / "dev.txt"), 9, 3, 6, 2, max_bad=1.0, bad_log=str(log))
    assert len(list(loader)) == 3
    logged = log.read_text().splitlines()
    assert len(logged) == PER_SHARD and all("dev-000001.tar" in line for line in logged)
    with pytest.raises(MediaError, match=r"dev-000001.tar"):
        list(DatasetLoader(str(tmp_path / "dev.txt"), 9, 3, 6, 2))


# ---------------------------------------------------------------- trials


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> Path:
    """Wavs and a trial list; trials.tar holds the wavs with their folders, flat.tar as shards have them."""
    root = tmp_path_factory.mktemp("trials")
    names = [f"id{k // 2}/video/{k}.wav" for k in range(6)]
    for k, name in enumerate(names):
        (root / "wav" / name).parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(root / "wav" / name, 16000, noise(1.0, seed=k))
    pairs = [(a, b) for b in range(6) for a in range(b)]
    lines = [f"{int(a // 2 == b // 2)} {names[a]} {names[b]}\n" for a, b in pairs]
    (root / "trials.txt").write_text("".join(lines))
    subprocess.run(["tar", "cf", root / "trials.tar", "-C", root / "wav", "."], check=True)
    with tarfile.open(root / "flat.tar", "w") as archive:
        for name in names:
            archive.add(root / "wav" / name, name.replace("/", "__"))
    return root


def test_trials_in_a_tar(trials, tmp_path):
    network = SyncNet(maxFrames=6, nOut=8, model="tinyModel", device="cpu")
    scores = []
    for place in ("wav", "trials.tar", "flat.tar"):
        kept = str(tmp_path / f"{place}.npz")
        for more in ({"save_to": kept}, {"load_from": kept}):
            result = str(tmp_path / place)
            evaluate_list(
                network, str(trials / "trials.txt"), str(trials / place), result, num_eval=2, **more
            )
            scores.append((tmp_path / place / "eval_scores.txt").read_text())
    assert len(set(scores)) == 1


def test_a_tar_without_the_wavs_of_a_trial_list(trials, tmp_path):
    network = SyncNet(maxFrames=6, nOut=8, model="tinyModel", device="cpu")
    subprocess.run(["tar", "cf", tmp_path / "up.tar", "-C", trials, "wav"], check=True)
    with pytest.raises(MediaError, match=r"up.tar: has none of the wavs that .*, such as id0/video/0.wav"):
        evaluate_list(network, str(trials / "trials.txt"), str(tmp_path / "up.tar"), str(tmp_path))
    subprocess.run(["tar", "czf", tmp_path / "zip.tar", "-C", trials / "wav", "."], check=True)
    with pytest.raises(OSError, match="not an uncompressed tar"):
        evaluate_list(network, str(trials / "trials.txt"), str(tmp_path / "zip.tar"), str(tmp_path))


def test_kept_embeddings_belong_to_the_member_of_a_tar(corpus, tmp_path):
    shard = Path(shutil.copy(corpus / "shards/dev-000000.tar", tmp_path))
    member = read_list(str(corpus / "dev.txt"))[0].audio
    path = str(tmp_path) + member.removeprefix(str(corpus / "shards"))
    before = find_recording(path)
    assert before.path == os.path.realpath(shard) + member.partition(".tar")[2]
    os.utime(shard, ns=(1, 1))
    assert find_recording(path) != before
    with pytest.raises(MediaError, match="no such"):
        find_recording(f"{tmp_path}/none.tar/a.wav#512+100")


def test_long_and_foreign_names(tmp_path):
    from syncnet.loading.shards import write_shard

    (tmp_path / "a").write_bytes(b"12345")
    name = f"{'ö' * 60}/{'y' * 90}.z/1.mp4"
    members = write_shard(
        str(tmp_path / "x.tar"), [(name, str(tmp_path / "a")), ("b.mp4", str(tmp_path / "a"))]
    )
    assert [open_file(member).read() for member in members] == [b"12345"] * 2
    with pytest.raises(UserError, match="would be b.mp4"):
        write_shard(
            str(tmp_path / "y.tar"), [("b.mp4", str(tmp_path / "a")), ("b.mp4", str(tmp_path / "x.tar"))]
        )


def test_a_wav_of_another_format_in_a_tar_is_converted_before_it_is_packed(tmp_path):
    wavfile.write(tmp_path / "a.wav", 44100, noise(1.2, 44100))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "a.wav", "id1/a.wav")
    with pytest.raises(MediaError, match=rf"44100 Hz.*Unpack {tmp_path}/x.tar, convert"):
        open_wav(members_of(str(tmp_path / "x.tar"))["id1__a.wav"])
