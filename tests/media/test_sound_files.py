"""Sound of any kind under any name is read exactly, and every remedy that is printed works."""

import contextlib
import os
import re
import shlex
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clipMaker import edit, frame_number, make_clip, make_sound, make_tracks, make_video, noise, shift
from scipy.io import wavfile

import convertAudio
import makeFileList
from DatasetLoader import loadWAV
from syncnet.media.clips import MediaError, read_list
from syncnet.media.open_media import has_sound
from syncnet.media.sound import clip_opening, decode_audio, decode_clip, decode_pieces
from syncnet.media.video import read_frames
from syncnet.media.wav import SilentError, WavFormatError, check_heard, open_wav, read_wav
from syncnet.tracks.track_sound import read_sound
from syncnet.verification.voices import check_wavs

ROOT = Path(__file__).resolve().parents[2]
SOUND = noise(1.2)
FRAMES = 30  # of video, as long as SOUND


def riff(
    data: bytes,
    tag: int = 1,
    bits: int = 16,
    channels: int = 1,
    rate: int = 16000,
    size: int | None = None,
    before: bytes = b"",
    extensible: bool = False,
) -> bytes:
    """A wav by the book. size: what the head declares; before: chunks ahead of the samples."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * block, block, bits)
    if extensible:
        form += struct.pack("<HHIH14s", 22, bits, 0, tag, b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71")
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + before
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


def rf64(data: bytes, size: int) -> bytes:
    """The same for more than 4 GB: the length is in a separate chunk."""
    plain = riff(data, size=0xFFFFFFFF)
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, len(plain) + 28, size, 0, 0)
    return b"RF64\xff\xff\xff\xffWAVE" + ds64 + plain[12:]


def mu_law(sample: np.ndarray) -> np.ndarray:
    """G.711 bytes of int16 samples, from the definition: sign, exponent, mantissa of the biased size."""
    size = np.minimum(np.abs(sample.astype(np.int32)) + 132, 32767)
    exponent = np.floor(np.log2(size)).astype(np.int32) - 7
    mantissa = size >> (exponent + 3) & 15
    return (~(np.where(sample < 0, 128, 0) | exponent << 4 | mantissa) & 255).astype(np.uint8)


def mu_law_value(code: np.ndarray) -> np.ndarray:
    code = ~code.astype(np.int32) & 255
    size = ((2 * (code & 15) + 33) << ((code >> 4 & 7) + 2)) - 132
    return np.where(code & 128, -size, size)


INT32 = SOUND.astype(np.int32) << 16
DATA = SOUND.tobytes()
LIST_CHUNK = b"LIST" + struct.pack("<I", 5) + b"abcde\0"  # of odd length, padded
MAPPED = {
    "plain": riff(DATA),
    "chunk ahead": riff(DATA, before=LIST_CHUNK),
    "chunk behind": riff(DATA) + LIST_CHUNK,
    "pipe, 0": riff(DATA, size=0),
    "pipe, ffmpeg": riff(DATA, size=0xFFFFFFFF, before=LIST_CHUNK),
    "pipe, sox": riff(DATA, size=0x7FFFF000),
    "pipe, arecord": riff(DATA, size=0x80000000),
}
UNUSUAL = {"extensible": riff(DATA, extensible=True), "rf64": rf64(DATA, len(DATA))}
DECODED = {
    "pcm_s24le": (
        riff((INT32 >> 8).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), bits=24),
        SOUND,
    ),
    "pcm_s24le, pipe": (
        riff((INT32 >> 8).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), bits=24, size=0),
        SOUND,
    ),
    "pcm_s32le": (riff(INT32.tobytes(), bits=32), SOUND),
    "pcm_f32le": (riff((SOUND / np.float32(32768)).tobytes(), tag=3, bits=32), SOUND),
    "pcm_f32le, extensible": (riff((SOUND / np.float32(32768)).tobytes(), 3, 32, extensible=True), SOUND),
    "pcm_f64le": (riff((SOUND / 32768).tobytes(), tag=3, bits=64), SOUND),
    "pcm_u8": (riff(((SOUND >> 8) + 128).astype(np.uint8).tobytes(), bits=8), SOUND >> 8 << 8),
    "pcm_mulaw": (riff(mu_law(SOUND).tobytes(), tag=7, bits=8), mu_law_value(mu_law(SOUND))),
}


@pytest.mark.parametrize("kind", MAPPED)
def test_wavs_that_need_no_decoder(tmp_path, kind):
    path = str(tmp_path / "a.wav")
    Path(path).write_bytes(MAPPED[kind])
    assert np.array_equal(open_wav(path), SOUND)
    assert np.array_equal(decode_audio(path), SOUND)
    out = np.zeros(100, np.float32)
    read_wav(path, len(SOUND) - 100, out)
    assert np.array_equal(out, SOUND[-100:])
    with pytest.raises(MediaError, match=f"has {len(SOUND)} samples"):
        read_wav(path, len(SOUND) - 99, out)
    assert np.array_equal(loadWAV(path, 40, start_frame=10)[0].numpy(), SOUND[1600 : 1600 + 6640])


@pytest.mark.parametrize("kind", DECODED)
def test_wavs_that_are_decoded(tmp_path, kind):
    path = str(tmp_path / "a.wav")
    content, expected = DECODED[kind]
    Path(path).write_bytes(content)
    assert np.array_equal(decode_audio(path), expected)
    named = re.split(",", kind)[0]
    with pytest.raises(WavFormatError, match=rf"16000 Hz, 1 channel\(s\), .*{named}.*expected 16000 Hz"):
        open_wav(path)
    with pytest.raises(WavFormatError, match=named):
        read_wav(path, 0, np.zeros(10, np.float32))


@pytest.mark.parametrize("kind", UNUSUAL)
def test_wavs_with_an_unusual_head(tmp_path, kind):
    """Python's own reader may not know it; then the file is decoded, or has to be converted for training."""
    path = str(tmp_path / "a.wav")
    Path(path).write_bytes(UNUSUAL[kind])
    assert np.array_equal(decode_audio(path), SOUND)
    with contextlib.suppress(WavFormatError):
        assert np.array_equal(open_wav(path), SOUND)


def test_a_big_endian_wav_is_not_taken_for_noise(tmp_path):
    head = b"RIFX" + b"\0\0\0\0WAVEfmt " + struct.pack(">IHHIIHH", 16, 1, 1, 44100, 32000, 2, 16)
    (tmp_path / "a.wav").write_bytes(
        head + b"data" + struct.pack(">I", len(DATA)) + SOUND.astype(">i2").tobytes()
    )
    for read in (decode_audio, open_wav):
        with pytest.raises(MediaError, match=r"a big-endian wav \(RIFX\)"):
            read(str(tmp_path / "a.wav"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.wav", riff(DATA)[:-1000], "cut off: 18700 of 19200 samples"),
        ("a.wav", riff(DATA, size=500_000), "cut off"),
        ("a.wav", riff(DATA)[:40], "cut off or damaged|no sound in it|empty"),
        ("a.wav", b"RIFF\0\0\0\0WAVEdata\x04\0\0\0abcd", "cut off or damaged|no sound in it|empty"),
        ("a.wav", b"", r"empty \(0 bytes\)"),
        ("a.wav", b"not a sound\n", "a text file"),
        ("a.wav", bytes(range(256)) * 20, "not a wav|neither sound nor video"),
        ("a.mp4", b"", r"empty \(0 bytes\)"),
        ("a.m4a", "Grüße\n".encode(), "a text file, neither sound nor video"),
        ("a.mp3", bytes(5000), "neither sound nor video"),
    ],
)
def test_the_message_for_a_file_without_sound(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (decode_audio, open_wav) if name == "a.wav" else (decode_audio,):
        with pytest.raises(MediaError, match=words) as error:
            read(str(path))
        assert not re.search("mmap|delete|download|convertAudio", str(error.value))
        assert str(path) in str(error.value)


def test_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    (tmp_path / "b.wav").mkdir()
    for name in ("a.wav", "b.wav"):
        with pytest.raises(MediaError, match=f"{name}: cannot be opened: not a file"):
            decode_audio(str(tmp_path / name))


def test_a_damaged_head_is_read_or_refused(tmp_path):
    path = str(tmp_path / "a.wav")
    draw = np.random.default_rng(0)
    good = rf64(DATA[:200], 200), riff(DATA[:200], before=LIST_CHUNK), riff(DATA[:200], extensible=True)
    for attempt in range(600):
        wav = bytearray(good[attempt % 3])
        for _ in range(draw.integers(1, 4)):
            wav[draw.integers(4 if attempt % 2 else 12, len(wav) - 200)] = draw.integers(256)
        Path(path).write_bytes(wav[: draw.integers(1, len(wav) + 1)] if attempt % 5 == 0 else wav)
        with contextlib.suppress(MediaError):
            assert len(open_wav(path)) <= 130


def test_downloading_again_is_advised_for_voxceleb2_only(tmp_path):
    make_sound(str(tmp_path / "a.m4a"), SOUND)
    own = tmp_path / "a.m4a"
    voxceleb2 = tmp_path / "id00012/21Uxsk56VDQ/00001.m4a"
    voxceleb2.parent.mkdir(parents=True)
    own.write_bytes(own.read_bytes()[:4000])
    shutil.copy(own, voxceleb2)
    with pytest.raises(MediaError, match="MP4, cut off or damaged .*copy it again"):
        decode_audio(str(own))
    with pytest.raises(MediaError, match="MP4, cut off or damaged .*download or unpack it again"):
        decode_audio(str(voxceleb2))


@pytest.mark.parametrize("name", ["a.mp4", "a.wav"])
@pytest.mark.parametrize(
    ("kind", "codec", "alike"),
    [
        ("matroska", "aac", 0.99),
        ("mpegts", "aac", 0.99),
        ("avi", "pcm_s16le", 1),
        ("wav", "pcm_s16le", 1),
        ("flac", "flac", 1),
        ("ogg", "flac", 1),
        ("mov", "pcm_s16be", 1),
        ("w64", "pcm_s16le", 1),
        ("aiff", "pcm_s16be", 1),
        ("au", "pcm_s16be", 1),
        ("caf", "pcm_s16le", 1),
        ("adts", "aac", 0.99),
        ("mp3", "libmp3lame", 0.99),
    ],
)
def test_the_content_of_a_file_decides_its_kind(tmp_path, name, kind, codec, alike):
    path = str(tmp_path / name)
    make_sound(path, SOUND, kind=kind, codec=codec)
    heard = decode_audio(path)
    late = shift(heard, SOUND)
    assert late in (
        (0, 1024) if kind in ("adts", "mpegts") else (0,)
    )  # ADTS does not say what its encoder put ahead
    both = min(len(heard) - late, len(SOUND))
    assert both > len(SOUND) - 200
    assert np.corrcoef(heard[late : late + both], SOUND[:both])[0, 1] >= alike - 1e-9
    if kind != "wav":
        with pytest.raises(MediaError, match=r"16000 Hz, 1 channel\(s\), .* in .*; expected 16000 Hz"):
            open_wav(path)


def test_a_playlist_is_not_followed(tmp_path):
    """Under any name: of files beside it, or of addresses."""
    wavfile.write(tmp_path / "s.wav", 16000, SOUND)
    lists = {
        "concat": "ffconcat version 1.0\nfile s.wav\n",
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\ns.wav\n#EXT-X-ENDLIST\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"/>',
    }
    for text in lists.values():
        for name in ("a.mp4", "a.m4a", "a.wav", "a.m3u8", "a.ffconcat", "a.mp3", "a.ts"):
            for end in ("", "\0" * 600):  # with bytes behind it, it is no text file any more
                (tmp_path / name).write_bytes((text + end).encode())
                with pytest.raises(MediaError, match="a text file|neither sound nor video"):
                    decode_audio(str(tmp_path / name))
    (tmp_path / "a.mp4").write_text(lists["concat"])
    with av.open(str(tmp_path / "a.mp4"), format="concat", options={"safe": "0"}) as followed:
        assert followed.streams.audio  # what would have been


def convert(src: Path, dst: Path) -> int:
    return convertAudio.main(["--src", str(src), "--dst", str(dst), "--nWorkers", "1"])


def list_clips(folder: Path, wavs: Path, *more: str) -> int:
    flags = [
        f"--output={folder / 'list'}",
        f"--mp4_dir={folder}",
        f"--wav_dir={wavs}",
        "--no_txt",
        "--nWorkers=1",
    ]
    return makeFileList.main([*flags, *more])


def test_convert_takes_every_kind_at_any_depth(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "dst"
    for name, kind, codec in (
        ("a.flac", "flac", "flac"),
        ("b/c.OGG", "ogg", "flac"),
        ("d.wv.mkv", "matroska", "pcm_s16le"),
        ("e.avi", "avi", "pcm_s16le"),
        ("f.mov", "mov", "pcm_s16be"),
        ("g.aiff", "aiff", "pcm_s16be"),
    ):
        make_sound(str(src / name), SOUND, kind=kind, codec=codec)
    wavfile.write(src / "h.WAV", 16000, SOUND)
    (src / "i.wav").write_bytes(DECODED["pcm_f32le"][0])
    (src / "._a.flac").write_bytes(b"\0\5\x16\7")
    (src / "@eaDir").mkdir()
    (src / "@eaDir/a.flac").write_bytes(b"x")
    assert convert(src, dst) == 0
    wavs = sorted(str(path.relative_to(dst)) for path in dst.rglob("*") if path.is_file())
    assert wavs == ["a.wav", "b/c.wav", "d.wv.wav", "e.wav", "f.wav", "g.wav", "h.wav", "i.wav"]
    for wav in wavs:
        assert np.array_equal(open_wav(str(dst / wav)), SOUND), wav


def test_a_wav_is_never_converted_onto_itself(tmp_path, capsys):
    wavfile.write(tmp_path / "right.wav", 16000, SOUND)
    wavfile.write(tmp_path / "cd.wav", 44100, noise(1.2, 44100))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert convert(tmp_path, tmp_path) == 1
    printed = capsys.readouterr().out
    assert "cd.wav: 44100 Hz" in printed and "Give another folder as --dst" in printed
    (tmp_path / "not_converted.txt").unlink()
    (tmp_path / "linked").symlink_to(tmp_path)
    assert convert(tmp_path, tmp_path / "linked") == 1
    assert {path: path.read_bytes() for path in before} == before
    make_sound(str(tmp_path / "cd.flac"), SOUND, kind="flac", codec="flac")  # nor is an original replaced
    assert convert(tmp_path, tmp_path) == 1
    assert {path: path.read_bytes() for path in before} == before


def test_existing_results_are_not_sources(tmp_path):
    make_sound(str(tmp_path / "x/a.flac"), SOUND, kind="flac", codec="flac")
    (tmp_path / "x/b.wav").write_bytes(DECODED["pcm_s24le"][0])
    (tmp_path / "link").mkdir()
    for dst in (tmp_path / "wav", tmp_path / "link"):
        for _ in range(3):
            assert convert(tmp_path, tmp_path / "wav") == 0
            wavs = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav"))
            assert wavs == ["wav/x/a.wav", "wav/x/b.wav", "x/b.wav"], dst


def test_a_source_that_has_changed_is_converted_again(tmp_path):
    src, dst, wav = tmp_path / "src", tmp_path / "dst", tmp_path / "dst/a.wav"
    make_clip(str(src / "a.mp4"), FRAMES, sound=SOUND)
    assert convert(src, dst) == 0
    first = wav.read_bytes()
    other = noise(1.2, seed=1)
    make_clip(str(src / "a.mp4"), FRAMES, sound=other)
    for age in (1, -1):  # newer than its wav; and from an archive, which is older but has other sound
        changed = wav.stat().st_mtime + age * 100
        wav.write_bytes(first)
        os.utime(wav, (changed - age * 100,) * 2)
        os.utime(src / "a.mp4", (changed, changed))
        assert convert(src, dst) == 0
        assert shift(open_wav(str(wav)), other) == 0 and wav.read_bytes() != first
        again = wav.stat().st_mtime_ns
        assert convert(src, dst) == 0
        assert wav.stat().st_mtime_ns == again  # kept, even where the source is from the future


def pad(seconds: float) -> np.ndarray:
    return noise(seconds, seed=2)


@pytest.mark.parametrize(
    ("frames", "seconds", "late", "picture_late", "length"),
    [
        (30, 1.2, 0, 0, 19200),
        (30, 1.23, 0, 0, 19680),  # within a frame: as declared
        (30, 1.17, 0, 0, 18720),
        (30, 1.26, 0, 0, 19200),  # cut
        (30, 2.2, 0, 0, 19200),
        (30, 1.2, 960, 0, 19200),  # late sound
        (30, 1.14, 0, 0, 19200),  # filled, as after a cut with -c:a copy
        (30, 1.0, 0, 0, 19200),
        (30, 1.2, 0, 5, 19200),  # late pictures
        (30, 0.8, 0, 0, 12800),  # much too short: reported, not padded
    ],
)
def test_wavs_end_with_their_pictures(tmp_path, frames, seconds, late, picture_late, length):
    sound = pad(seconds)
    path = str(tmp_path / "a.mp4")
    make_clip(path, frames, sound=sound, sound_delay=late, picture_delay=picture_late)
    assert convert(tmp_path, tmp_path / "wav") == 0
    wav = open_wav(str(tmp_path / "wav/a.wav"))
    assert abs(len(wav) - length) <= 16  # mp4 stores lengths in milliseconds
    assert shift(wav, sound) == late - 640 * picture_late
    fits = abs(len(wav) / 640 - frames) <= 1
    assert list_clips(tmp_path, tmp_path / "wav") == (0 if fits else 1)
    before = os.stat(tmp_path / "wav/a.wav").st_mtime_ns
    assert convert(tmp_path, tmp_path / "wav") == 0
    assert os.stat(tmp_path / "wav/a.wav").st_mtime_ns == before  # kept


@pytest.mark.parametrize("early", [0, 8])
def test_fragments_behind_an_edit_list(tmp_path, early):
    """Trimmed by `early` frames, which FFmpeg shows nevertheless, but without their sound; never out of sync."""
    path = str(tmp_path / "a.mp4")
    moments = [moment - early for moment in range(FRAMES)]
    how = {"options": {"g": "4"}, "muxing": {"movflags": "frag_keyframe+delay_moov"}}
    make_video(path, moments, sound=SOUND, sound_delay=-640 * early, **how)
    assert convert(tmp_path, tmp_path / "wav") == 0
    assert list_clips(tmp_path, tmp_path / "wav") == 0
    (clip,) = read_list(str(tmp_path / "list"))
    picture = np.zeros((1, 224, 224, 3), np.uint8)
    read_frames(clip.video, 0, picture)
    wav = open_wav(clip.audio)
    assert abs(len(wav) - 640 * clip.frames) <= 16
    assert abs(shift(wav[640 * early :], SOUND) + 640 * (frame_number(picture[0]) + early)) <= 8
    assert clip_opening(path)[0] == len(wav)


@pytest.mark.parametrize(
    ("segments", "shown"),
    [
        ([(0.43, 0.21)], range(6, 16)),  # trimmed at both ends, between two pictures
        ([(0.4, None), (0.6, 0.2)], range(5, 20)),  # late, and trimmed
    ],
)
def test_edit_lists(tmp_path, segments, shown):
    path = tmp_path / "a.mp4"
    make_video(str(path), range(FRAMES), sound=SOUND, options={"g": "10"})
    edit(path, segments)
    assert convert(tmp_path, tmp_path / "wav") == 0
    wav = open_wav(str(tmp_path / "wav/a.wav"))
    for check in ("decode", "packets"):
        assert list_clips(tmp_path, tmp_path / "wav", f"--check={check}") == 0
        (clip,) = read_list(str(tmp_path / "list"))
        assert clip.frames == len(shown) and abs(len(wav) - 640 * clip.frames) <= 640
    pictures = np.zeros((len(shown), 224, 224, 3), np.uint8)
    read_frames(str(path), 0, pictures)
    assert [frame_number(picture) for picture in pictures] == list(shown)
    assert (
        abs(shift(wav[:5120], SOUND) + 640 * shown[0]) <= 640
    )  # FFmpeg has a picture begin where it was cut
    last = wav[-5120:]
    assert abs(shift(last, SOUND) + 640 * (shown[-1] + 1) - len(last)) <= 640


def test_a_single_picture_does_not_shorten_the_sound(tmp_path):
    make_sound(str(tmp_path / "a.m4a"), SOUND)
    make_clip(str(tmp_path / "one.mp4"), 1, sound=SOUND)
    assert (
        len(decode_clip(str(tmp_path / "a.m4a"))) == len(decode_clip(str(tmp_path / "one.mp4"))) == len(SOUND)
    )


@pytest.mark.parametrize("value", [0, 7, -32768])
def test_digital_silence_is_refused_everywhere(tmp_path, value):
    make_clip(str(tmp_path / "a.mp4"), FRAMES)
    wavfile.write(tmp_path / "a.wav", 16000, np.full(FRAMES * 640, value, np.int16))
    path = str(tmp_path / "a.wav")
    for refused in (
        lambda: check_heard(path, open_wav(path)),
        lambda: loadWAV(path, 40, evalmode=True),
        lambda: check_wavs([path], 10),
    ):
        with pytest.raises(SilentError, match=f"a.wav: silent, all {FRAMES * 640} samples are the same"):
            refused()
    assert list_clips(tmp_path, tmp_path) == 1
    assert "silent: " in (tmp_path / "list.skipped.txt").read_text()
    heard = np.full(FRAMES * 640, value, np.int16)
    heard[-1] += 1  # heard, if only at its very end
    check_heard(path, heard)


@pytest.mark.parametrize("folder", ["voices", "."])
def test_the_remedy_for_a_wav_of_another_format_works(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    top = tmp_path / folder
    for name in ("id1/cd.wav", "id2/good.wav"):
        make_clip(str(top / name).replace(".wav", ".mp4"), FRAMES)
    wavfile.write(top / "id1/cd.wav", 44100, noise(1.2, 44100))
    wavfile.write(top / "id2/good.wav", 16000, SOUND)
    files = [f"{folder}/id1/cd.wav", f"{folder}/id2/good.wav"]

    with pytest.raises(WavFormatError) as error:
        check_wavs(files, 10, folder)
    moved = re.search(r"give (\S+) instead of (\S+)", str(error.value))
    for path in top.rglob("*.mp4"):
        path.rename(tmp_path / (path.name + ".aside"))
    line = re.search(r"python convertAudio\.py (--src .+? --dst \S+?)(?=[, ]|$)", str(error.value))[1]
    assert convertAudio.main([*shlex.split(line), "--nWorkers=1"]) == 0
    check_wavs([file.replace(moved[2], moved[1], 1) for file in files], 10, moved[1])


def test_the_remedy_that_makeFileList_prints_works(tmp_path, capsys):
    for name in ("id1/a", "id2/b"):
        make_clip(str(tmp_path / f"mp4/{name}.mp4"), FRAMES)
    (tmp_path / "my wavs/id1").mkdir(parents=True)
    (tmp_path / "my wavs/id2").mkdir()
    wavfile.write(tmp_path / "my wavs/id1/a.wav", 44100, noise(1.2, 44100))
    (tmp_path / "my wavs/id2/b.wav").write_bytes(DECODED["pcm_s24le, pipe"][0])
    assert list_clips(tmp_path / "mp4", tmp_path / "my wavs") == 1
    printed = capsys.readouterr().out
    assert "2 wav of another format: " in printed
    line, folder = re.search(r"python convertAudio\.py (--src .*), then --wav_dir (.*)", printed).groups()
    assert convertAudio.main([*shlex.split(line), "--nWorkers=1"]) == 0
    assert list_clips(tmp_path / "mp4", Path(*shlex.split(folder))) == 0
    assert len(read_list(str(tmp_path / "mp4/list"))) == 2


def test_a_broken_wav_is_replaced_by_the_same_command(tmp_path, capsys):
    make_clip(str(tmp_path / "a.mp4"), FRAMES, sound=SOUND)
    assert convert(tmp_path, tmp_path / "wav") == 0
    wav = tmp_path / "wav/a.wav"
    right = wav.read_bytes()
    wav.write_bytes(right[:-5000])
    assert list_clips(tmp_path, tmp_path / "wav") == 1
    assert "wav broken: cut off, damaged, or not a wav: run convertAudio.py again" in capsys.readouterr().out
    assert convert(tmp_path, tmp_path / "wav") == 0
    assert wav.read_bytes() == right
    assert list_clips(tmp_path, tmp_path / "wav") == 0


def test_time_stamps_that_jump_by_hours(tmp_path):
    """Another recording: its sound follows at once, and not behind hours of silence."""
    path = str(tmp_path / "jump.mka")
    with av.open(path, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for begin in (0, 3000 * 3600 * 16):
            frame = av.AudioFrame.from_ndarray(SOUND[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, begin, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.array_equal(decode_audio(path), np.tile(SOUND, 2))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floats_on_the_scale_of_integers_are_refused(tmp_path, kind):
    """They would be clipped to noise."""
    path = str(tmp_path / "a.wav")
    wavfile.write(path, 16000, SOUND.astype(kind))
    with pytest.raises(MediaError, match=r"a.wav: float samples up to \d+ at 0.00 s.* divided by 32768"):
        decode_audio(path)
    sound = (SOUND / 32768).astype(kind)
    wavfile.write(path, 16000, sound * 2)  # loud, and clipped as by a player
    assert np.abs(decode_audio(path).astype(int)).max() == 32768
    sound[5000] = np.nan
    wavfile.write(path, 16000, sound)
    with pytest.raises(MediaError, match=r"float samples up to nan at 0.\d+ s"):
        decode_audio(path)


def test_names_as_long_as_they_can_be(tmp_path):
    name = "ü" * 125 + ".flac"
    make_sound(str(tmp_path / "src" / name), SOUND, kind="flac", codec="flac")
    assert convert(tmp_path / "src", tmp_path / "dst") == 0
    assert [path.name for path in (tmp_path / "dst").iterdir()] == ["ü" * 125 + ".wav"]


def test_the_default_track_is_used(tmp_path):
    """Of several default tracks or none, the first."""
    path = str(tmp_path / "two.mkv")
    other = noise(1.2, seed=5)
    for default, expected in (((), SOUND), ((1,), other), ((0, 1), SOUND)):
        make_tracks(path, [SOUND, other], defaults=default, default_mode="passthrough")
        assert np.array_equal(decode_audio(path), expected), default
        assert np.array_equal(read_sound(path, 0.0, 0, 30).samples, expected), default
        opening = clip_opening(path)[1]
        assert np.array_equal(opening, expected[: len(opening)]) and len(opening), default


def test_sound_of_an_unknown_kind(tmp_path):
    """It is not broken, so that another copy would not help; and it is not taken where there is another track."""
    path = tmp_path / "clip.mkv"
    make_tracks(str(path), [SOUND, SOUND], codecs=["flac", "pcm_s16le"])
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_WHAT"))
    assert np.array_equal(decode_audio(str(path)), SOUND)
    path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    for read in (decode_audio, clip_opening, has_sound):
        with pytest.raises(MediaError, match="clip.mkv: its sound cannot be decoded here") as refused:
            read(str(path))
        assert "copy it again" not in str(refused.value)


# ---------------------------------------------------------------- MP3 files


def id3(size: int) -> bytes:
    """A tag of `size` bytes behind its head; further in, it looks like a frame of sound."""
    body = b"TIT2\0\0\0\x06\0\0\x03title".ljust(size - 4, b"\0") + b"\xff\xf3\xa8\xc0"
    return b"ID3\x04\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + body


@pytest.fixture(scope="module")
def plain_mp3(tmp_path_factory) -> tuple[bytes, np.ndarray]:
    """An MP3 file's frames without a tag, and what is heard of them."""
    path = tmp_path_factory.mktemp("mp3") / "a.mp3"
    make_sound(str(path), SOUND, kind="mp3", codec="libmp3lame")
    data = path.read_bytes()
    size = int("".join(f"{byte:07b}" for byte in data[6:10]), 2)
    return data[10 + size :], decode_audio(str(path))


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (b"", b""),
        (id3(500) + id3(800), b""),
        (id3(90_000) + id3(300) + id3(70_000), b""),
        (b"", b"TAG" + bytes(125)),
    ],
)
def test_tags_around_an_mp3_are_ignored(tmp_path, plain_mp3, before, behind):
    frames, expected = plain_mp3
    (tmp_path / "a.mp3").write_bytes(before + frames + behind)
    assert np.array_equal(decode_audio(str(tmp_path / "a.mp3")), expected)


JUNK = bytes(byte & 127 for byte in np.random.default_rng(1).bytes(90_000))  # no head of a frame in it


def test_an_mp3_that_is_broken_in_its_middle_is_refused(tmp_path, plain_mp3):
    frames, _ = plain_mp3
    half = len(frames) // 2
    for middle in (JUNK[:300] + frames[half + 300 :], JUNK[:3000] + frames[half:], bytes(len(frames) - half)):
        (tmp_path / "a.mp3").write_bytes(frames[:half] + middle)
        with pytest.raises(MediaError, match=r"cannot be decoded 0\.\d\d s into the sound"):
            decode_audio(str(tmp_path / "a.mp3"))


def test_samples_beyond_full_scale_are_clipped():
    frame = av.AudioFrame.from_ndarray(np.array([[1.5, -1.5, 0.5, -0.25]], np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
    ((start, samples),) = decode_pieces([frame], "x.m4a")
    assert start == 0 and samples.tolist() == [32767, -32768, 16384, -8192]
