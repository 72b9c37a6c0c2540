"""convertAudio.py: no sample is shifted, and an interrupted run resumes."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from clipMaker import make_clip, make_sound, noise, shift

import convertAudio
from convertAudio import main
from syncnet.media.clips import MediaError
from syncnet.media.sound import decode_audio
from syncnet.media.wav import open_wav
from syncnet.support.files import replace_file

SCRIPT = Path(__file__).resolve().parents[2] / "convertAudio.py"


def at_16k(sound: np.ndarray) -> np.ndarray:
    """2.4 s at any rate, resampled exactly (through the spectrum) to 16 kHz."""
    spectrum = np.fft.rfft(sound)[: 38400 // 2 + 1]
    return np.fft.irfft(np.pad(spectrum, (0, 38400 // 2 + 1 - len(spectrum))), 38400) * 38400 / len(sound)


def convert(src: Path, dst: Path, *more: str) -> int:
    return main(["--src", str(src), "--dst", str(dst), "--nWorkers", "1", *more])


@pytest.mark.parametrize("rate", [16000, 8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_rate_and_layout_stays_in_place(tmp_path, rate, channels):
    sound = noise(2.4, rate)
    make_sound(str(tmp_path / "a.m4a"), sound if channels == 1 else np.stack([sound, sound]), rate)
    heard, expected = decode_audio(str(tmp_path / "a.m4a")), at_16k(sound)
    assert heard.dtype == np.int16
    assert len(heard) == 38400
    assert shift(heard, expected) == 0
    assert np.corrcoef(heard, expected)[0, 1] > 0.99


def test_both_channels_are_heard(tmp_path):
    left = noise(2.4)
    make_sound(str(tmp_path / "a.m4a"), np.stack([left, np.zeros_like(left)]))
    heard = decode_audio(str(tmp_path / "a.m4a"))
    assert np.corrcoef(heard, left)[0, 1] > 0.99
    assert heard.std() == pytest.approx(left.std() / 2, rel=0.05)  # the mean of the channels


# The decoder gives 38,912 samples of each: the encoder works in blocks of 1024.
@pytest.mark.parametrize("samples", [38400, 38400 - 1008, 38400 - 512, 38400 + 16])
def test_a_wav_has_the_declared_length(tmp_path, samples):
    sound = noise(samples / 16000)
    make_clip(str(tmp_path / "a.mp4"), 60, sound=sound)
    heard = decode_audio(str(tmp_path / "a.mp4"))
    assert len(heard) == samples
    assert shift(heard, sound) == 0


def test_the_last_samples_come_out_of_the_resampler(tmp_path):
    sound = noise(104 * 1024 / 44100, 44100)  # whole blocks, so that the decoder adds no tail to cut
    make_sound(str(tmp_path / "a.m4a"), sound, 44100)
    heard = decode_audio(str(tmp_path / "a.m4a"))
    end = len(sound) * 16000 // 44100
    assert len(heard) == pytest.approx(end, abs=8)  # the file declares its length in milliseconds
    assert np.abs(heard[end - 10 : end]).min() > 0


@pytest.mark.parametrize(("delay", "late"), [(1600, 1600), (16000, 16000), (-1600, -1600)])
def test_sound_that_starts_late_or_early(tmp_path, delay, late):
    make_clip(str(tmp_path / "a.mp4"), 60, sound=noise(2.4), sound_delay=delay)
    make_sound(str(tmp_path / "a.m4a"), noise(2.4), delay=delay)
    for name in ("a.mp4", "a.m4a"):
        heard = decode_audio(str(tmp_path / name))
        assert len(heard) == 38400 + late
        assert shift(heard, noise(2.4)) == late


def test_the_wav_begins_with_the_first_picture(tmp_path):
    make_clip(str(tmp_path / "a.mp4"), 60, sound=noise(2.4), picture_delay=5)
    heard = decode_audio(str(tmp_path / "a.mp4"))
    assert shift(heard, noise(2.4)) == -5 * 640
    assert len(heard) == 38400 - 5 * 640


def test_a_gap_in_the_sound_stays_a_gap(tmp_path):
    make_sound(str(tmp_path / "whole.m4a"), noise(2.4))
    with (
        av.open(str(tmp_path / "whole.m4a")) as whole,
        av.open(str(tmp_path / "gap.m4a"), "w", format="ipod") as gap,
    ):
        stream = gap.add_stream_from_template(whole.streams.audio[0])
        for number, packet in enumerate(p for p in whole.demux() if p.size):
            packet.stream = stream
            if number >= 20:  # from here on half a second late
                packet.pts, packet.dts = packet.pts + 8000, packet.dts + 8000
            gap.mux(packet)
    heard = decode_audio(str(tmp_path / "gap.m4a"))
    assert shift(heard[:16000], noise(2.4)[:16000]) == 0
    assert shift(heard[30000:], noise(2.4)[20000:]) == 20000 + 8000 - 30000
    assert not heard[21000:26000].any()


@pytest.mark.parametrize(
    ("kind", "codec", "rate", "alike"),
    [
        ("flac", "flac", 16000, 1),
        ("flac", "flac", 44100, 0.999),
        ("mp3", "libmp3lame", 16000, 0.99),
        ("mp3", "libmp3lame", 44100, 0.99),
        ("ogg", "libopus", 48000, 0.99),
        ("ogg", "flac", 16000, 1),
        ("wav", "pcm_s24le", 44100, 0.999),
    ],
)
def test_other_kinds_of_sound(tmp_path, kind, codec, rate, alike):
    path = str(tmp_path / f"a.{kind}")
    sound = noise(2.4, rate)
    make_sound(path, np.stack([sound, sound]) if rate == 44100 else sound, rate, kind=kind, codec=codec)
    heard, expected = decode_audio(path), at_16k(sound)
    assert abs(len(heard) - len(expected)) <= 160
    assert shift(heard, expected) == 0
    both = min(len(heard), len(expected))
    assert np.corrcoef(heard[:both], expected[:both])[0, 1] >= alike - 1e-9


def test_a_track_without_declared_end_is_used_whole(tmp_path, monkeypatch):
    make_sound(str(tmp_path / "a.m4a"), noise(2.4))
    monkeypatch.setattr("syncnet.media.sound.declared_end", lambda *_: None)
    heard = decode_audio(str(tmp_path / "a.m4a"))
    # 39 blocks of 1024, less the encoder's first; FFmpeg 9 leaves the padding out by itself.
    assert len(heard) in (38912, 38400)
    assert shift(heard, noise(2.4)) == 0


def test_broken_files_are_named_and_the_others_converted(tmp_path, capsys):
    src, dst = tmp_path / "src", tmp_path / "dst"
    make_sound(str(src / "id1/a b/good.m4a"), noise(2.4))
    make_clip(str(src / "id1/deep/er/sound.MP4"), 60, sound=noise(2.4))
    make_clip(str(src / "silent.mp4"), 10)
    make_clip(str(src / "cut.mp4"), 60, sound=noise(2.4), faststart=True)
    (src / "cut.mp4").write_bytes((src / "cut.mp4").read_bytes()[:-16000])
    (src / "empty.m4a").write_bytes(b"")
    (src / "text.m4a").write_text("#EXTM3U\n/etc/hosts\n")
    shutil.copy(src / "id1/a b/good.m4a", src / "twice.m4a")
    make_clip(str(src / "twice.mp4"), 60, sound=noise(2.4))

    assert convert(src, dst) == 1
    wavs = sorted(str(path.relative_to(dst)) for path in dst.rglob("*.wav"))
    assert wavs == ["id1/a b/good.wav", "id1/deep/er/sound.wav", "twice.wav"]
    assert all(len(open_wav(str(dst / wav))) == 38400 for wav in wavs)
    named = (dst / "not_converted.txt").read_text()
    for name in ("silent.mp4: no sound", "cut.mp4: ", "empty.m4a: ", "text.m4a: ", "twice.mp4: would give"):
        assert str(src / name.split(":")[0]) + ":" + name.split(":")[1] in named
    printed = capsys.readouterr().out.split()
    assert printed[printed.index("converted") + 1] == "3"
    assert printed[printed.index("failed") + 1] == "4"

    for name in ("cut.mp4", "empty.m4a", "text.m4a", "twice.mp4", "silent.mp4"):
        (src / name).unlink()
    assert convert(src, dst) == 0  # nothing to complain about any more
    assert not (dst / "not_converted.txt").exists()
    printed = capsys.readouterr().out.split()
    assert printed[printed.index("date") + 1] == "3"


def test_only_complete_wavs_of_the_right_length_are_kept(tmp_path):
    make_sound(str(tmp_path / "a.m4a"), noise(2.4))
    assert convert(tmp_path, tmp_path) == 0
    right = (tmp_path / "a.wav").read_bytes()
    # Cut off; as long as a plain decoder makes it; not a wav.
    for wrong in (
        right[:-1000],
        right[:40] + (38912 * 2).to_bytes(4, "little") + right[44:] + bytes(1024),
        b"x",
    ):
        (tmp_path / "a.wav").write_bytes(wrong)
        assert convert(tmp_path, tmp_path) == 0
        assert (tmp_path / "a.wav").read_bytes() == right
    before = os.stat(tmp_path / "a.wav").st_mtime_ns
    assert convert(tmp_path, tmp_path) == 0
    assert os.stat(tmp_path / "a.wav").st_mtime_ns == before


def test_bad_arguments_and_missing_files(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        convert(tmp_path / "nowhere", tmp_path)
    assert stop.value.code == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert convert(tmp_path, tmp_path) == 1
    assert "no .m4a or .mp4" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("x")
    assert convert(tmp_path, tmp_path) == 1 and "found: 1 .txt" in capsys.readouterr().err
    with pytest.raises(MediaError, match="cannot be opened"):
        decode_audio(str(tmp_path / "missing.m4a"))
    make_clip(str(tmp_path / "silent.mp4"), 10)
    with pytest.raises(MediaError, match="no sound track"):
        decode_audio(str(tmp_path / "silent.mp4"))
    assert convert(tmp_path, tmp_path) == 1  # no file gave a wav


def test_the_folder_of_a_file_given_as_source_is_named(tmp_path, monkeypatch, capsys):
    make_sound(str(tmp_path / "a b/x.wav"), noise(0.5), 44100)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["--src", "a b/x.wav", "--dst", "out"])
    folder = shlex.split(capsys.readouterr().err.split("give its folder: ")[1])[1]
    assert convert(Path(folder), Path("out")) == 0 and "1 file in a b" in capsys.readouterr().out


def test_a_missing_source_is_reported(tmp_path):
    (tmp_path / "a.m4a").symlink_to(tmp_path / "moved.m4a")
    assert convert(tmp_path, tmp_path / "dst") == 1
    printed = (tmp_path / "dst/not_converted.txt").read_text()
    assert printed == f"{tmp_path}/a.m4a: cannot be read (No such file or directory)\n"


def make_many(folder: Path, count: int) -> None:
    make_sound(str(folder / "0/0.m4a"), noise(2.4))
    for number in range(1, count):
        (folder / str(number)).mkdir()
        os.link(folder / "0/0.m4a", folder / f"{number}/{number}.m4a")


def start(src: Path, dst: Path) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), "--src", str(src), "--dst", str(dst), "--nWorkers", "2"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for_wavs(process: subprocess.Popen, dst: Path, count: int) -> None:
    while process.poll() is None and sum(1 for _ in dst.glob("*/*.wav")) < count:
        time.sleep(0.002)
    assert process.poll() is None, process.stdout.read()


def test_a_killed_run_resumes(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "dst"
    make_many(src, 400)
    process = start(src, dst)
    wait_for_wavs(process, dst, 20)
    process.kill()
    process.communicate(timeout=300)  # ends only when the workers, who hold the pipe too, have ended
    done = {path: path.stat().st_mtime_ns for path in dst.rglob("*.wav")}
    assert 20 <= len(done) < 400
    (dst / "7").mkdir(exist_ok=True)
    (dst / f"7/7.wav.{process.pid}.part").write_bytes(b"half")

    with replace_file(str(dst / "7/other.wav"), "wb"):  # by a process that is running: this one
        again = start(src, dst)
        printed = again.communicate(timeout=300)[0].split()
    assert again.returncode == 0
    assert printed[printed.index("date") + 1] == str(len(done))
    assert {path: path.stat().st_mtime_ns for path in done} == done  # nothing done twice
    assert (dst / "7/other.wav").exists() and not list(dst.rglob("*.part"))
    expected = decode_audio(str(src / "0/0.m4a"))
    for number in range(400):
        assert np.array_equal(open_wav(str(dst / f"{number}/{number}.wav")), expected)


@pytest.mark.parametrize("wavs", [0, 10])
def test_ctrl_c_prints_how_to_resume(tmp_path, wavs):
    make_many(tmp_path / "src", 1500)
    process = start(tmp_path / "src", tmp_path / "dst")
    wait_for_wavs(process, tmp_path / "dst", wavs)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while children.exists() and len(children.read_text().split()) < 3:  # two workers, a resource tracker
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the workers too
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 130
    assert "The same command resumes from here." in printed
    assert "Traceback" not in printed
    assert not list((tmp_path / "dst").rglob("*.part"))


def test_a_source_that_changes_while_it_is_read(tmp_path, monkeypatch, capsys):
    """Its wav would be that of both, and as new as the file."""
    source, real = tmp_path / "src/a.m4a", convertAudio.decode_clip
    make_sound(str(source), noise(1.2))

    def copied_meanwhile(path: str) -> np.ndarray:
        sound = real(path)
        make_sound(str(source), noise(1.2, seed=1))
        os.utime(source, (2e9, 2e9))
        return sound

    monkeypatch.setattr(convertAudio, "decode_clip", copied_meanwhile)
    assert convert(tmp_path / "src", tmp_path / "dst") == 1
    assert "a.m4a: changed while it was read; run this command again" in capsys.readouterr().out
    monkeypatch.undo()
    assert convert(tmp_path / "src", tmp_path / "dst") == 0
    assert shift(open_wav(str(tmp_path / "dst/a.wav")), noise(1.2, seed=1)) == 0


def test_a_folder_that_cannot_be_read_is_reported_and_skipped(tmp_path, closed, capsys):
    for name in ("a/1.m4a", "b/2.m4a", "b/c/3.m4a", "d/4.m4a"):
        make_sound(str(tmp_path / "src" / name), noise(0.5))
    closed(tmp_path / "src/b")
    assert convert(tmp_path / "src", tmp_path / "dst") == 1
    printed = f"{tmp_path}/src/b: this folder and its contents cannot be read (Permission denied)"
    out = capsys.readouterr().out
    assert re.search(r"converted +2\n", out) and re.search(r"failed +1\n", out) and f"  {printed}\n" in out
    assert (tmp_path / "dst/not_converted.txt").read_text() == f"{printed}\n"
    assert sorted(path.name for path in (tmp_path / "dst").rglob("*.wav")) == ["1.wav", "4.wav"]
    closed(tmp_path / "src/a")
    closed(tmp_path / "src/d")
    assert convert(tmp_path / "src", tmp_path / "dst") == 1
    error = capsys.readouterr().err
    assert "no .m4a or .mp4 files in this folder" in error and printed in error


def test_names_that_differ_in_case_are_two_wavs(tmp_path):
    for seed, name in enumerate(("id/a.m4a", "id/A.m4a")):
        make_sound(str(tmp_path / name), noise(0.5, seed=seed))
    if len(os.listdir(tmp_path / "id")) < 2:
        pytest.skip("the names of this disk ignore case")
    assert convert(tmp_path, tmp_path / "dst") == 0
    for name in ("id/a", "id/A"):
        expected = decode_audio(f"{tmp_path}/{name}.m4a")
        assert np.array_equal(open_wav(f"{tmp_path}/dst/{name}.wav"), expected)
