"""The right frames and samples, the same batches with any number of threads, and no silent failure."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import frame_number, make_clip, make_wav, sample_number
from scipy.io import wavfile

from DatasetLoader import DatasetLoader, get_frames, loadWAV
from syncnet.compute import distributed
from syncnet.loading.decoding import DecodingPool
from syncnet.media.clips import Clip, MediaError, format_list_line, read_list
from syncnet.media.wav import read_wav
from syncnet.support import files

FRAMES = 40
T = 10


def write_list(path, clips) -> str:
    path.write_text("".join(format_list_line(clip) + "\n" for clip in clips))
    return str(path)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    """Seven clips; frame i of clip k shows 1000 k + i, sample j of its wav holds 5000 k + j."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for k, offset in enumerate((0, -3, 4, 0, 1, -1, 2)):
        clip = Clip(str(folder / f"{k}.mp4"), str(folder / f"{k}.wav"), offset, FRAMES)
        make_clip(clip.video, FRAMES, first=1000 * k)
        make_wav(clip.audio, FRAMES * 640, first=5000 * k)
        made.append(clip)
    return made


@pytest.fixture
def clip_list(clips, tmp_path) -> str:
    return write_list(tmp_path / "list.txt", clips)


def contents(batch) -> list[tuple[int, int, int]]:
    """(clip, first frame, first sample) of each item, after checking that frames and samples are in a row."""
    video, audio = batch
    found = []
    for frames, samples in zip(video.permute(0, 2, 3, 4, 1).numpy(), audio.numpy(), strict=True):
        numbers = [frame_number(frame) for frame in frames]
        assert numbers == list(range(numbers[0], numbers[0] + T))
        k, first = divmod(numbers[0], 1000)
        assert (np.diff(samples) == 1).all()
        found.append((k, first, sample_number(samples[0]) - 5000 * k))
    return found


def loader(clip_list, threads=2, **settings) -> DatasetLoader:
    settings = {"nPerEpoch": 7, "nBatchSize": 2, "maxFrames": T} | settings
    return DatasetLoader(clip_list, nDataLoaderThread=threads, **settings)


@pytest.mark.parametrize("offset", [-3, 0, 4])
def test_first_and_last_start_of_each_offset(clips, clip_list, offset):
    clip = next(c for c in clips if c.offset == offset)
    reader = loader(clip_list)
    first, last = 2 - min(offset, 0), FRAMES - max(offset, 0) - (T + 2)
    drawn = {reader.draw_start(clip, 0, position) for position in range(2000)}
    assert drawn == set(range(first, last + 1))
    for start in (first, last):
        video, audio = np.empty((T, 224, 224, 3), np.uint8), np.empty(T * 640 + 240, np.float32)
        reader.read_clip(clip, start, video, audio)
        k = clips.index(clip)
        expected = range(1000 * k + start + offset - 1, 1000 * k + start + offset - 1 + T)
        assert [frame_number(frame) for frame in video] == list(expected)
        assert [sample_number(x) - 5000 * k for x in (audio[0], audio[-1])] == [
            start * 640,
            start * 640 + len(audio) - 1,
        ]


def test_an_epoch(clips, clip_list):
    reader = loader(clip_list)
    batches = list(reader)
    assert len(batches) == len(reader) == 3 and reader.batch_size == 2 and reader.nFiles == 7
    for video, audio in batches:
        assert video.shape == (2, 3, T, 224, 224) and video.dtype == torch.uint8
        assert video.is_contiguous(memory_format=torch.channels_last_3d)
        assert audio.shape == (2, T * 640 + 240) and audio.dtype == torch.float32
    items = [item for batch in batches for item in contents(batch)]
    assert len({k for k, _, _ in items}) == 6  # no clip twice
    for k, frame, sample in items:
        assert sample % 640 == 0 and frame == sample // 640 + clips[k].offset - 1


def test_the_number_of_threads_changes_nothing(clip_list):
    one, many = loader(clip_list, threads=1, seed=3), loader(clip_list, threads=5, seed=3)
    for _ in range(2):
        for a, b in zip(one, many, strict=True):
            assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_epochs_and_seeds_differ_and_can_be_chosen(clips, clip_list):
    reader = loader(clip_list)
    first, second = ([contents(batch) for batch in reader] for _ in range(2))
    assert first != second
    for number, batch in enumerate(second):
        assert [clips.index(clip) for clip in reader.clips_of(number)] == [k for k, _, _ in batch]
    reader.set_epoch(0)
    assert [contents(batch) for batch in reader] == first
    assert [contents(batch) for batch in loader(clip_list, seed=1)] != first


def test_validation_is_the_same_every_epoch(clip_list):
    reader = loader(clip_list, evalmode=True)
    first, second = ([contents(batch) for batch in reader] for _ in range(2))
    assert first == second


def test_an_epoch_has_only_full_batches(clip_list):
    assert len(list(loader(clip_list, nPerEpoch=5))) == 2


def test_short_clips_are_skipped(clips, tmp_path):
    enough = [Clip(c.video, c.audio, c.offset, T + 4 + abs(c.offset)) for c in clips[:4]]
    short = [Clip(c.video, c.audio, c.offset, T + 3 + abs(c.offset)) for c in clips[4:]]
    reader = loader(write_list(tmp_path / "l", enough + short))
    assert reader.clips == enough
    with pytest.raises(MediaError, match="4 of 7 clips .* less than one batch of 5"):
        loader(write_list(tmp_path / "l", enough + short), nBatchSize=5)


def test_batches_that_are_kept_are_not_overwritten(clip_list):
    reader = loader(clip_list, nPerEpoch=6, maxQueueSize=1)
    kept = [(video, audio, video.clone(), audio.clone()) for video, audio in reader]
    for _ in reader:
        pass
    assert all(torch.equal(a, c) and torch.equal(b, d) for a, b, c, d in kept)


def test_memory_is_reused(clip_list):
    reader = loader(clip_list, maxQueueSize=1)
    places = {video.data_ptr() for _ in range(4) for video, _ in reader}
    assert len(places) <= 3


def test_a_broken_clip_is_named(clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    shutil.copy(clips[0].video, broken)
    broken.write_bytes(broken.read_bytes()[:2000])
    bad = [*clips[:1], Clip(str(broken), clips[0].audio, 0, FRAMES)]
    reader = loader(write_list(tmp_path / "l", bad))
    before = threading.active_count()
    with pytest.raises(MediaError, match=r"broken\.mp4: cannot be opened as a video"):
        list(reader)
    assert threading.active_count() == before


def test_a_video_that_ends_early_is_named(clips, tmp_path):
    longer = [Clip(c.video, c.audio, c.offset, 500) for c in clips]
    reader = loader(write_list(tmp_path / "l", longer))
    with pytest.raises(MediaError, match=r"(mp4: ends after 40 frames|wav: has 25600 samples)"):
        list(reader)


@pytest.fixture
def partly_broken(clips, tmp_path) -> str:
    """The clips, with broken copies of two of them."""
    mixed = list(clips)
    for k, damage in ((1, b""), (4, None)):
        copy = tmp_path / f"broken{k}.mp4"
        copy.write_bytes(Path(clips[k].video).read_bytes()[:3000] if damage is None else damage)
        mixed[k] = Clip(str(copy), clips[k].audio, clips[k].offset, FRAMES)
    return write_list(tmp_path / "mixed.txt", mixed)


def test_broken_clips_are_replaced_and_logged_once(partly_broken, tmp_path):
    log = tmp_path / "bad_clips.txt"
    settings = {"max_bad": 0.9, "bad_log": str(log), "nBatchSize": 7}
    one, many = (loader(partly_broken, threads=n, **settings) for n in (1, 4))
    for _ in range(3):
        ((video, audio),), ((again, _),) = list(one), list(many)
        assert torch.equal(video, again) and len(video) == 7
        found = [k for k, _, _ in contents((video, audio))]
        assert 1 not in found and 4 not in found
        assert [clip.video for clip in one.clips_of(0)] == [clip.video for clip in many.clips_of(0)]
    lines = sorted(line.split("\t") for line in log.read_text().splitlines())
    assert [Path(video).name for video, _, _ in lines] == ["broken1.mp4", "broken4.mp4"]
    assert all("cannot be opened as a video" in reason for _, _, reason in lines)
    list(loader(partly_broken, **settings))  # a later start
    assert len(log.read_text().splitlines()) == 2


def test_too_many_broken_clips_stop_the_epoch(partly_broken):
    with pytest.raises(
        MediaError, match=r"2 clips of this epoch of 7 cannot be read, more than --max_bad 0.2"
    ):
        list(loader(partly_broken, nBatchSize=7, max_bad=0.2))


@pytest.fixture
def hanging(clips, monkeypatch) -> threading.Event:
    """Clip 3 hangs until this event is set. No other clip is given up, however busy the machine is."""
    slow, released = clips[3].video, threading.Event()
    read_real, give_up_real = DatasetLoader.read_clip, DecodingPool.give_up

    def read_clip(self, clip, start, video, audio):
        if clip.video == slow and not released.is_set():
            released.wait(60)
            video[:] = 0
        read_real(self, clip, start, video, audio)

    def give_up(pool):
        for task in pool.running.values():
            task.deadline = task.deadline if task.clip.video == slow else float("inf")
        give_up_real(pool)

    monkeypatch.setattr(DatasetLoader, "read_clip", read_clip)
    monkeypatch.setattr(DecodingPool, "give_up", give_up)
    return released


HANGING = {"nBatchSize": 7, "max_bad": 0.5, "decode_timeout": 0.2}


def test_a_decoder_that_hangs_is_given_up(clips, clip_list, hanging):
    reader = loader(clip_list, **HANGING)
    (batch,) = list(reader)
    hanging.set()  # its thread now writes into memory that no batch uses
    assert 3 not in [k for k, _, _ in contents(batch)]
    assert "took longer than 0.2 s" in reader.bad[clips[3]]


@pytest.mark.parametrize("evalmode", [False, True])
def test_a_clip_that_hung_is_skipped_from_the_next_epoch_on(clips, clip_list, hanging, evalmode):
    """Also by a loader that has `hung` from another one."""

    def epoch(reader: DatasetLoader, number: int) -> list:
        reader.set_epoch(number)
        return [contents(batch) for batch in reader]

    settings = HANGING | {"evalmode": evalmode}
    reader = loader(clip_list, **settings)
    first, second = epoch(reader, 0), epoch(reader, 1)
    ((video, since, position),) = reader.hung
    assert (video, since) == (clips[3].video, 0) and 3 not in [k for k, _, _ in first[0] + second[0]]
    hanging.set()
    resumed = loader(clip_list, **settings)
    resumed.hung = [(video, since, position)]
    assert epoch(resumed, 0) == first and epoch(resumed, 1) == second
    never = loader(clip_list, **settings)
    assert 3 in [k for k, _, _ in epoch(never, 0)[0]]


def test_lack_of_memory_is_not_blamed_on_the_clip(clip_list, monkeypatch):
    class error(Exception):  # noqa: N801, N818 (as cv2.error)
        pass

    def read_clip(*_):
        raise error("(-4:Insufficient memory) Failed to allocate 6220800 bytes")

    monkeypatch.setattr(DatasetLoader, "read_clip", read_clip)
    with pytest.raises(error):
        list(loader(clip_list, nBatchSize=7, max_bad=0.5))


def test_bad_clips_are_logged_where_the_folder_is_missing(partly_broken, tmp_path, monkeypatch, capsys):
    """As on a machine that does not share --save_path with the first one."""
    log = tmp_path / "run/result/bad_clips.txt"
    list(loader(partly_broken, nBatchSize=7, max_bad=0.5, bad_log=str(log)))
    assert len(log.read_text().splitlines()) == 2

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "makedirs", refuse)
    monkeypatch.setattr(files, "_warned", set())
    other = tmp_path / "other/bad_clips.txt"
    assert len(list(loader(partly_broken, nBatchSize=7, max_bad=0.5, bad_log=str(other)))) == 1
    assert f"WARNING: {other}: Permission denied" in capsys.readouterr().err


def test_a_decoder_that_raises_is_a_broken_clip(clips, clip_list, monkeypatch):
    real = DatasetLoader.read_clip

    def read_clip(self, clip, *rest):
        if clip.video == clips[2].video:
            raise RuntimeError("inside the decoder")
        real(self, clip, *rest)

    monkeypatch.setattr(DatasetLoader, "read_clip", read_clip)
    reader = loader(clip_list, nBatchSize=7, max_bad=0.5)
    assert 2 not in [k for k, _, _ in contents(*list(reader))]
    assert reader.bad[clips[2]].endswith("2.mp4: RuntimeError: inside the decoder")
    with pytest.raises(MediaError, match="inside the decoder"):
        list(loader(clip_list, nBatchSize=7))


def test_a_clip_that_is_readable_in_part_is_replaced_elsewhere(clips, clip_list, monkeypatch):
    """A batch has the same content when read alone, after any earlier ones, and with any number of threads."""
    real = DatasetLoader.read_clip

    def read_clip(self, clip, start, *rest):
        if clip.video == clips[2].video and start > 12:
            raise MediaError("cut off")
        real(self, clip, start, *rest)

    monkeypatch.setattr(DatasetLoader, "read_clip", read_clip)

    def epochs(reader, *which) -> list:
        found = []
        for epoch in which:
            reader.set_epoch(epoch)
            found.append([contents(batch) for batch in reader])
        return found

    settings = {"nBatchSize": 7, "max_bad": 5.0}
    in_one_go = epochs(loader(clip_list, 1, **settings), *range(6))
    assert {len([k for batch in epoch for k, _, _ in batch if k == 2]) for epoch in in_one_go} >= {0, 1}
    assert [epochs(loader(clip_list, 3, **settings), epoch)[0] for epoch in range(6)] == in_one_go


def test_processes_count_their_broken_clips_together(partly_broken, monkeypatch):
    """As many may be replaced as in a single process, in any of the shares, and not one more."""
    counted = []

    def add_one(_name: str, here: int) -> int:
        counted.append(here)
        return len(counted)

    monkeypatch.setattr(distributed, "add_one", add_one)

    def read_in_shares(count: int, allowed: float) -> None:
        counted.clear()
        settings = {"nBatchSize": 6, "nPerEpoch": 6, "max_bad": allowed / 6, "seed": 3}
        for number in range(count):
            list(loader(partly_broken, threads=1, share=(number, count), **settings))

    read_in_shares(1, 100)
    most = len(counted)
    assert most >= 2
    read_in_shares(3, most)
    assert len(counted) == most and counted[-1] < most
    with pytest.raises(MediaError, match=f"{most} clips of this epoch of 6 cannot be read"):
        read_in_shares(3, most - 0.5)


@pytest.mark.parametrize("count", [2, 3])
def test_shares_make_the_batches_of_a_single_process(clip_list, count):
    shares = [loader(clip_list, nBatchSize=6, share=(number, count)) for number in range(count)]
    for whole, *parts in zip(loader(clip_list, nBatchSize=6), *shares, strict=True):
        for i in range(2):
            assert torch.equal(whole[i], torch.cat([part[i] for part in parts]))


def test_an_epoch_can_resume_after_some_batches(clip_list):
    reader = loader(clip_list)
    whole, following = ([contents(batch) for batch in reader] for _ in range(2))
    reader.set_epoch(0, first_batch=2)
    assert [contents(batch) for batch in reader] == whole[2:]
    assert [contents(batch) for batch in reader] == following


def test_leaving_an_epoch_early_ends_the_threads(clip_list):
    before = threading.active_count()
    batches = iter(loader(clip_list, threads=3))
    next(batches)
    assert threading.active_count() == before + 3
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("batch", "threads", "asked", "ahead"),
    [(2, 1, 1, 1), (2, 2, 2, 2), (1, 2, 3, 3), (1, 3, 1, 3), (2, 3, 1, 2)],
)
def test_the_number_of_batches_decoded_ahead(clip_list, monkeypatch, batch, threads, asked, ahead):
    """maxQueueSize beside the one in use, and more where the threads would have less than a clip each."""
    sent = []
    real = DecodingPool.send
    monkeypatch.setattr(DecodingPool, "send", lambda pool, batch: (sent.append(batch), real(pool, batch)))
    reader = loader(clip_list, threads=threads, nBatchSize=batch, maxQueueSize=asked)
    assert reader.maxQueueSize == ahead
    batches = iter(reader)
    for in_use in range(len(reader)):
        next(batches)
        assert len(sent) == min(in_use + 1 + ahead, len(reader))
        deadline = time.monotonic() + 60
        while reader.qsize() < len(sent) - in_use - 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert reader.qsize() == len(sent) - in_use - 1
    assert next(batches, None) is None


def test_every_thread_has_a_clip_although_batches_are_small(clip_list, monkeypatch):
    """Reading continues only when all five threads read at once."""
    together, real, started = threading.Barrier(5, timeout=60), DatasetLoader.read_clip, []

    def read_clip(self, *args):
        started.append(1)
        if len(started) <= 5:
            together.wait()
        real(self, *args)

    monkeypatch.setattr(DatasetLoader, "read_clip", read_clip)
    assert len(list(loader(clip_list, threads=5, nBatchSize=2))) == 3


def test_closing_waits_for_all_threads_together(monkeypatch):
    clock = [1000.0]

    class Hanging:
        def join(self, timeout: float) -> None:
            clock[0] += timeout

    pool = DecodingPool(0, 60.0, None, None, None)
    pool.threads = [Hanging() for _ in range(8)]
    monkeypatch.setattr("syncnet.loading.decoding.time.monotonic", lambda: clock[0])
    pool.close()
    assert clock[0] == 1060


def test_data_wait_is_the_time_spent_waiting_for_batches(clip_list, monkeypatch):
    """A clock that only advances while waiting: three batches, 2 s each."""
    clock = [0.0]
    real = DecodingPool.wait_for

    def wait_for(pool, batch):
        real(pool, batch)
        clock[0] += 2

    monkeypatch.setattr(DecodingPool, "wait_for", wait_for)
    monkeypatch.setattr("DatasetLoader.time.perf_counter", lambda: clock[0])
    reader = loader(clip_list)
    for _ in range(2):
        for _ in reader:
            clock[0] += 5  # computing does not count
        assert reader.data_wait == 6


def test_frames_of_another_size(tmp_path):
    clip = Clip(str(tmp_path / "small.mp4"), str(tmp_path / "small.wav"), 0, FRAMES)
    make_clip(clip.video, FRAMES, size=160)
    make_wav(clip.audio, FRAMES * 640)
    small = write_list(tmp_path / "l", [clip, clip])
    with pytest.raises(MediaError, match="frames are 160x160"):
        list(loader(small))
    ((video, _),) = loader(small, allow_resize=True)
    first = frame_number(video[0, :, 0].permute(1, 2, 0).numpy())
    assert frame_number(video[0, :, -1].permute(1, 2, 0).numpy()) == first + T - 1


def test_get_frames(clips):
    frames = get_frames(clips[2].video, max_frames=3, start_frame=30)
    assert frames.shape == (1, 3, 3, 224, 224) and frames.dtype == torch.float32
    assert [frame_number(f.numpy()) for f in frames[0].permute(1, 2, 3, 0)] == [2030, 2031, 2032]


def test_load_wav(clips):
    crop = loadWAV(clips[1].audio, 40, start_frame=7)
    assert crop.shape == (1, 40 * 160 + 240) and crop.dtype == torch.float32
    assert sample_number(crop[0, 0]) == 5000 + 7 * 160
    crops = loadWAV(clips[1].audio, 40, evalmode=True, num_eval=4)
    spare = FRAMES * 640 - (40 * 160 + 240)
    starts = [int(start) for start in np.linspace(0, spare, 4)]
    assert [sample_number(c[0]) - 5000 for c in crops] == starts


def test_results_are_float32_on_the_cpu_with_any_defaults_of_the_caller(clips, clip_list):
    with torch.device("meta"):
        torch.set_default_dtype(torch.float64)
        try:
            read = [loadWAV(clips[0].audio, 20, evalmode=evalmode) for evalmode in (False, True)]
            read.append(get_frames(clips[0].video, 2))
            batches = list(loader(clip_list))
        finally:
            torch.set_default_dtype(torch.float32)
    read += [audio for _, audio in batches]
    assert {(tensor.dtype, tensor.device.type) for tensor in read} == {(torch.float32, "cpu")}
    assert len([contents(batch) for batch in batches]) == 3


def test_wrong_wavs(tmp_path):
    def wav(rate=16000, shape=(9000,), dtype=np.int16) -> str:
        wavfile.write(tmp_path / "x.wav", rate, np.zeros(shape, dtype))
        return str(tmp_path / "x.wav")

    with pytest.raises(MediaError, match="x.wav: 8000 Hz.*convertAudio"):
        loadWAV(wav(rate=8000), 40)
    with pytest.raises(MediaError, match="2 channel"):
        loadWAV(wav(shape=(9000, 2)), 40)
    with pytest.raises(MediaError, match="pcm_f32le"):
        loadWAV(wav(dtype=np.float32), 40)
    with pytest.raises(MediaError, match="Audio clip is too short: 6640 samples"):
        loadWAV(wav(shape=(6640,)), 40)
    assert loadWAV(wav(shape=(6641,)), 40).shape == (1, 6640)
    with pytest.raises(MediaError, match="no such wav"):
        loadWAV(str(tmp_path / "missing.wav"), 40)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "x.wav").read_bytes()[:5000])
    with pytest.raises(MediaError, match="cut.wav"):
        loadWAV(str(tmp_path / "cut.wav"), 20)
    (tmp_path / "noise.wav").write_bytes(b"RIFF" + bytes(range(256)))
    with pytest.raises(MediaError, match="noise.wav"):
        loadWAV(str(tmp_path / "noise.wav"), 20)


def test_parts_of_wavs(tmp_path):
    samples = np.arange(-4000, 4000, dtype=np.int16)
    wavfile.write(tmp_path / "plain.wav", 16000, samples)
    path = str(tmp_path / "plain.wav")
    for kind in (np.float32, np.int16):
        out = np.empty(500, kind)
        for first in (0, 123, 7500):
            read_wav(path, first, out)
            assert np.array_equal(out, samples[first : first + 500])
        for first in (-1, 7501, 9000):
            with pytest.raises(MediaError, match=f"has 8000 samples, {first} to {first + 500}"):
                read_wav(path, first, out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        (b"", "the list is empty"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"a.mp4 a.wav 0\n", "line 1: found 3 fields"),
        (b"a.mp4 a.wav 0 50\n\nb.mp4 b.wav x 50\n", "line 3: offset 'x'"),
        (b"a.mp4 a.wav 0 0\n", "positive number of frames"),
    ],
)
def test_broken_lists(tmp_path, text, message):
    if text is not None:
        (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(MediaError, match=message):
        read_list(str(tmp_path / "list.txt"))
