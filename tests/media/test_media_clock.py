"""Files with unusual streams: which picture and sound are used, and that they stay in sync."""

import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from clipMaker import make_clip, make_sound, make_tracks, noise, shift
from test_face_tracks_clock import HALF_FRAME, TONE_ONSET, whole_picture_track
from videoMaker import BRIGHT, DARK, click_time, flash_time, make_video

import convertAudio
from syncnet.media.clips import MediaError
from syncnet.media.hdr import sdr_picture
from syncnet.media.open_media import HLG, PQ
from syncnet.media.open_video import OPTIONS, open_video
from syncnet.media.sound import decode_audio, decode_clip
from syncnet.media.timeline import VideoReader
from syncnet.media.video_facts import HDR, OTHER_STREAM, VideoError, probe
from syncnet.tracks.face_tracks import plan_parts
from syncnet.tracks.track_sound import read_sound

PACKET = 188  # bytes of an MPEG transport stream


def at_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16000)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = rate
    return np.concatenate([part.to_ndarray()[0] for one in (frame, None) for part in resampler.resample(one)])


def heard_ratio(heard: np.ndarray, original: np.ndarray) -> tuple[int, float]:
    """The lag of `heard` in samples, and how alike the two are there, 0 to 1."""
    lag = shift(heard, original)
    size = min(len(heard) - max(lag, 0), len(original) + min(lag, 0))
    one = heard[max(lag, 0) :][:size].astype(float)
    other = original[max(-lag, 0) :][:size].astype(float)
    return lag, float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize(
    ("kind", "codec", "rate"),
    [("flv", "aac", 44100), ("matroska", "libopus", 48000), ("mpegts", "mp2", 48000), ("flv", "mp3", 44100)],
)
@pytest.mark.parametrize("stamps", ["exact", "jitter", "grid", "gap"])
def test_sound_with_coarse_time_stamps(tmp_path, kind, codec, rate, stamps):
    """As a live stream has them: packets are stamped late, or with the time of a picture."""
    sound, gap = noise(6, rate=rate), 0.5
    rng, latest = np.random.default_rng(2), 0
    path = str(tmp_path / "a")
    with av.open(path, "w", format=kind) as container:
        track = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for number, packet in enumerate([*track.encode(frame), *track.encode(None)]):
            time = float(packet.pts * packet.time_base) + 1.0
            if stamps == "jitter":
                time += rng.uniform(-0.009, 0.009)
            elif stamps == "grid":
                time = np.floor(time / 0.04) * 0.04
            elif stamps == "gap" and number >= 100:
                time += gap
            latest = max(latest + 1, round(time / packet.time_base))  # muxers want them to rise
            packet.pts = packet.dts = latest
            container.mux(packet)
    heard, expected = decode_audio(path), at_16k(sound, rate)
    if stamps == "gap":
        begin = 24000  # behind the silence before the sound
        place = begin + int(np.argmax(np.convolve(heard[begin:] == 0, np.ones(6400), "valid") == 6400))
        assert heard[begin:place].any()
        lag, alike = heard_ratio(heard[place + 7500 :], expected)
        first_lag, first_alike = heard_ratio(heard[begin : place - 500], expected)
        assert min(alike, first_alike) > 0.93
        assert abs((place + 7500 + lag) - (begin + first_lag) - 16000 * gap) < 48
        return
    lag, alike = heard_ratio(heard, expected)
    assert alike > 0.93
    origin = {"flv": 16000, "matroska": 16000, "mpegts": 0}[kind]
    assert abs(lag - origin) < 16000 * 0.04  # an encoder's delay, and half a grid


@pytest.mark.parametrize("drift", [-0.004, 0.004])
def test_sound_that_drifts_is_stretched(tmp_path, drift):
    """A sound card that is slow: its samples last longer than they should, and no silence is inserted."""
    sound, path = noise(20), str(tmp_path / "a.mkv")
    with av.open(path, "w") as container:
        track = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for first in range(0, len(sound), 320):
            frame = av.AudioFrame.from_ndarray(sound[None, first : first + 320], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = round(first * (1 + drift))
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    heard = decode_audio(path)
    assert len(heard) == pytest.approx(len(sound) * (1 + drift), abs=200)
    assert (heard[1000:-1000] == 0).mean() < 0.002
    for second in (1, 10, 18):
        place = round(second * 16000 * (1 + drift))
        piece = heard[place : place + 240].astype(float)
        near = sound[second * 16000 - 400 : second * 16000 + 640].astype(float)
        lag = int(np.correlate(near, piece, "valid").argmax())
        assert abs(lag - 400) < 0.012 * 16000
        assert np.corrcoef(piece, near[lag : lag + 240])[0, 1] > 0.85


@pytest.mark.parametrize("how", ["-", "late sound", "other start", "wrap", "vob"])
def test_joined_recordings_stay_in_sync(tmp_path, how):
    """Files joined with cat: nothing of the second recording is lost, and each has its own sound at its pictures."""
    kind = {"format": "mpegts", "codec": "mpeg2video"}
    if how == "vob":
        kind = {"format": "vob", "codec": "mpeg2video", "sound_codec": "ac3", "rate": 48000}
    late = 0.3 if how == "late sound" else 0.0
    starts = {"other start": (900.0, 3.0), "wrap": (2**33 / 90000 - 2.0, 1.0)}.get(how, (2.0, 2.0))
    for number, (start, flash) in enumerate(zip(starts, (1.0, 1.6), strict=True)):
        make_video(
            str(tmp_path / f"{number}"), np.arange(75) / 25, start=start, flash=flash, sound_from=late, **kind
        )
    joined = tmp_path / "a video"
    joined.write_bytes((tmp_path / "0").read_bytes() + (tmp_path / "1").read_bytes())
    pictures, samples = whole_picture_track(joined, tmp_path / "out")
    assert 146 <= len(pictures) + round(25 * late) <= 160
    for half in (slice(0, 75 - round(25 * late)), slice(75 - round(25 * late), None)):
        flash = flash_time(pictures[half])
        click = click_time(samples[half.start * 640 : half.stop and half.stop * 640])
        assert 0.5 < click < 2
        assert abs(flash - click) <= HALF_FRAME + TONE_ONSET
    wav = decode_clip(str(joined))
    assert len(wav) / 640 == pytest.approx(150, abs=10)
    with VideoReader(str(joined)) as reader:
        pictures = np.array([reader.bgr(frame)[::8, ::8] for _, frame in reader.slots()])
    for half in (slice(0, 75), slice(75, None)):
        click = click_time(wav[half.start * 640 : half.stop and half.stop * 640])
        assert abs(flash_time(pictures[half]) - click) <= HALF_FRAME + TONE_ONSET
    assert len(plan_parts(str(joined)).parts) == 1


def two_programs(one: bytes, other: bytes) -> bytes:
    """A transport stream of two, whose streams, programs and tables have different numbers."""

    def entries(data: bytes) -> bytes:
        start = next(k for k in range(0, len(data), PACKET) if data[k + 1] & 0x1F == 0 and data[k + 2] == 0)
        return data[start + 13 : start + 17]  # of the only program in the PAT

    table = b"\0" + struct.pack(">H", 0xB000 | 17) + b"\0\1\xc1\0\0" + entries(one) + entries(other)
    table += struct.pack(">I", mpeg_crc(table))
    pat = (b"\x47\x40\0\x10\0" + table).ljust(PACKET, b"\xff")
    streams = [
        [
            data[k : k + PACKET]
            for k in range(0, len(data), PACKET)
            if data[k + 1] & 0x1F or data[k + 2] > 0x11
        ]
        for data in (one, other)
    ]
    order = sorted(
        (n / len(packets), number, packet)
        for number, packets in enumerate(streams)
        for n, packet in enumerate(packets)
    )
    return pat + b"".join(packet for _, _, packet in order)


def mpeg_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


@pytest.mark.parametrize("radio_first", [True, False])
def test_sound_and_picture_are_of_the_same_program(tmp_path, radio_first):
    numbers = {"mpegts_service_id": "2", "mpegts_pmt_start_pid": "0x1100", "mpegts_start_pid": "0x200"}
    make_video(str(tmp_path / "tv.ts"), np.arange(50) / 25, format="mpegts", container_options=numbers)
    make_sound(str(tmp_path / "radio.ts"), noise(2), kind="mpegts", codec="mp2")
    parts = [(tmp_path / name).read_bytes() for name in ("radio.ts", "tv.ts")]
    source = tmp_path / "a video"
    source.write_bytes(two_programs(*(parts if radio_first else parts[::-1])))
    with av.open(str(source)) as container:
        assert len(container.streams.audio) == 2
    pictures, samples = whole_picture_track(source, tmp_path / "out")
    assert abs(flash_time(pictures) - click_time(samples)) <= HALF_FRAME + TONE_ONSET
    assert abs(click_time(decode_clip(str(source))) - 1.0) < 0.05


@pytest.mark.parametrize("kind", [("mp4", "aac"), ("mp3", "mp3"), ("wav", "pcm_s16le"), ("flac", "flac")])
@pytest.mark.parametrize("gain", [-1.0, -0.8, -0.3, 0.0, 0.5, 1.0])
def test_channels_that_cancel_each_other(tmp_path, kind, gain):
    left = noise(2)
    right = np.rint(left * gain).astype(np.int16)
    path = str(tmp_path / "a")
    channels = [right, left] if gain == -0.8 else [left, right]  # then the louder one is the second
    make_sound(path, np.array(channels), kind=kind[0], codec=kind[1])
    heard = decode_audio(path)
    lag, alike = heard_ratio(heard, left)
    level = np.sqrt((heard.astype(float) ** 2).mean() / (left.astype(float) ** 2).mean())
    # A noise that is the difference of channels, AAC replaces by another noise.
    assert abs(lag) < 1200 and (alike > 0.98 or (kind[1], gain) == ("aac", -1.0))
    assert level == pytest.approx(1.0 if gain <= -0.8 else (1 + gain) / 2, rel=0.15)


@pytest.mark.parametrize("kind", ["matroska", "mpegts", "mp4"])
def test_a_silent_track_before_one_that_is_heard(tmp_path, kind):
    path, sound = str(tmp_path / "a"), noise(2)
    make_tracks(path, [sound * 0, sound, noise(2, seed=9)], kind=kind, codecs=["mp2"] * 3)
    heard = decode_audio(path)
    assert heard_ratio(heard, sound)[1] > 0.95
    assert heard_ratio(read_sound(path, 0.0, 0, 40).samples, sound)[1] > 0.95


@pytest.mark.parametrize("silent", ["one channel", "all but the last 2 seconds"])
def test_a_track_that_is_silent_in_part_is_used(tmp_path, silent):
    path, sound = str(tmp_path / "a.mkv"), noise(2)
    if silent == "one channel":
        first = np.array([sound * 0, sound])
        expected = sound / 2  # the mean of the channels
    else:
        first = expected = np.concatenate([np.zeros(20 * 16000, np.int16), sound])
    make_tracks(path, [first, noise(first.shape[-1] / 16000, seed=9)])
    assert np.abs(decode_audio(path) - expected).max() <= 1


@pytest.mark.parametrize("name", ["001.mp4", "001.avi"])  # after and before 001.m4a
def test_a_video_without_sound_beside_its_sound(tmp_path, name):
    src, dst = tmp_path / "src", tmp_path / "dst"
    make_clip(str(src / name), 30)
    make_sound(str(src / "001.m4a"), noise(1.2))
    with pytest.raises(
        MediaError, match=r"no sound in it; if 001.m4a is its sound.*ffmpeg -i .*001.m4a -map"
    ):
        plan_parts(str(src / name))
    assert convertAudio.main(["--src", str(src), "--dst", str(dst), "--nWorkers", "1"]) == 0
    assert (dst / "001.wav").exists()
    make_clip(str(src / "001.mkv"), 30, sound=noise(1.2))  # a rival
    assert convertAudio.main(["--src", str(src), "--dst", str(dst), "--nWorkers", "1"]) == 1


def test_pictures_whose_aspect_changes(tmp_path):
    """Each picture has its own; here a broadcast that turns from 4:3 to 16:9."""
    for number, aspect in enumerate((Fraction(16, 15), Fraction(64, 45))):
        make_video(
            str(tmp_path / f"{number}"), np.arange(50) / 25, size=(720, 576), aspect=aspect, start=2.0 + 2 * number,
            format="mpegts", codec="mpeg2video", flash=None, options={"g": "10", "bf": "2"},
        )  # fmt: skip
    joined = tmp_path / "a.ts"
    joined.write_bytes((tmp_path / "0").read_bytes() + (tmp_path / "1").read_bytes())
    with VideoReader(str(joined)) as reader:
        widths = {slot: reader.bgr(frame, 0.25).shape[1] for slot, frame in reader.slots()}
        again = {slot: reader.bgr(frame, 0.25).shape[1] for slot, frame in reader.slots(20)}
    assert [widths[slot] for slot in (0, 25, 47)] == [192] * 3
    assert [widths[slot] for slot in (52, 75, 98)] == [256] * 3
    assert all(again[slot] == widths[slot] for slot in range(20, 99))


def add_clean_aperture(data: bytes, width: int, height: int, right: int, down: int) -> bytes:
    """An mp4 whose moov is at its end, with a clean aperture, off the middle by so many pixels."""
    box = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, right, 1, down, 1)
    data = bytearray(data)
    place, end = 0, len(data)
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while data[place + 4 : place + 8] != name:
            place += int.from_bytes(data[place : place + 4], "big")
        size = int.from_bytes(data[place : place + 4], "big")
        data[place : place + 4] = (size + len(box)).to_bytes(4, "big")
        end = place + size
        place += {b"stsd": 16}.get(name, 8)
    data[end:end] = box
    return bytes(data)


@pytest.mark.parametrize("rotation", [None, 90])
def test_the_clean_aperture(tmp_path, rotation):
    def border(picture: np.ndarray, _: int) -> None:
        picture[:, :40] = picture[:, 200:] = picture[:16] = 0

    source = tmp_path / "a.mp4"
    make_video(str(source), np.arange(10) / 25, flash=None, draw=border, rotation=rotation)
    source.write_bytes(add_clean_aperture(source.read_bytes(), 160, 224, -40, 8))
    with VideoReader(str(source)) as reader:
        frame = next(reader.slots())[1]
        for scale in (1.0, 0.5):
            picture = reader.bgr(frame, scale)
            expected = (round(224 * scale), round(160 * scale))
            assert picture.shape[:2] == (expected if rotation is None else expected[::-1])
            assert np.abs(picture[2:-2, 2:-2].astype(int) - DARK).max() < 12


@pytest.mark.parametrize("begin", [-10.7, -10.05, -10.0])
def test_a_trim_between_two_pictures(tmp_path, begin):
    """The picture before the first one that is shown stays up from time 0 on; FFmpeg stamps the next one 0."""
    source = tmp_path / "a video"
    times = (begin + np.arange(60)) / 25
    make_video(
        str(source),
        times,
        sound_from=times[0],
        flash=1.0,
        container_options={"avoid_negative_ts": "disabled"},
    )
    pictures, samples = whole_picture_track(source, tmp_path / "out")
    late = flash_time(pictures) - click_time(samples)
    assert abs(late) <= HALF_FRAME + TONE_ONSET
    with VideoReader(str(source)) as reader:
        first_bright = next(
            f.time for _, f in reader.slots() if reader.bgr(f, 0.1).mean() > (DARK + BRIGHT) / 2
        )
        first = reader.first_time
    assert first_bright == pytest.approx(times[times >= 1.0 - 1e-6][0], abs=0.002)
    assert click_time(decode_clip(str(source))) == pytest.approx(first_bright - first, abs=0.003)


def test_a_thumbnail_as_first_video_stream(tmp_path):
    """Players show the video; OpenCV, with which clips are read, would show the thumbnail."""
    path = str(tmp_path / "a.mkv")
    with av.open(path, "w") as container:
        thumbnail = container.add_stream("mjpeg", rate=25)
        thumbnail.pix_fmt = "yuvj420p"
        video = container.add_stream("libx264", rate=25)
        video.pix_fmt = "yuv420p"
        thumbnail.width = thumbnail.height = video.width = video.height = 224
        for stream, frames in ((thumbnail, 1), (video, 30)):
            for number in range(frames):
                grey = np.full((224, 224, 3), 5 * number, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="bgr24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        assert len(list(reader.slots())) == 30
    with pytest.raises(VideoError, match="players show video stream 1") as refused:
        probe(path)
    assert refused.value.reason == OTHER_STREAM


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_hdr_is_converted_to_sdr(tmp_path, transfer):
    """A grey of 25 cd/m2 is as bright as SDR's at a quarter of its white, 100 cd/m2."""
    light = 25.0
    if transfer == HLG:
        scene = (light / 1000) ** (1 / 1.2)
        signal = (
            np.sqrt(3 * scene)
            if scene <= 1 / 12
            else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073
        )
    else:
        power = (light / 10000) ** (2610 / 16384)
        signal = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    expected = 255 * 0.25 ** (1 / 2.4)
    grey = np.full((64, 64, 3), round(65535 * signal), np.uint16)
    frame = av.VideoFrame.from_ndarray(grey, format="rgb48le")
    assert np.abs(sdr_picture(frame, (32, 48), transfer, 9).astype(float) - expected).max() < 3
    path = str(tmp_path / "a.mkv")
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p10le"
        video.codec_context.color_trc, video.codec_context.color_primaries = transfer, 9
        for number in range(10):
            coded = frame.reformat(format="yuv420p10le", dst_colorspace="itu709")
            coded.pts, coded.time_base = number, Fraction(1, 25)
            container.mux(video.encode(coded))
        container.mux(video.encode(None))
    with VideoReader(path) as reader:
        shown = reader.bgr(next(reader.slots())[1])
    assert np.abs(shown.astype(float) - expected).max() < 6
    with pytest.raises(VideoError) as refused:
        probe(path).check(allow_resize=True)
    assert refused.value.reason == HDR


@pytest.mark.parametrize(
    "given", ["rtsp_transport;udp", "", "nonsense|a;b;c", "protocol_whitelist;file,http"]
)
def test_opencv_follows_no_playlist_with_any_setting_of_the_user(tmp_path, monkeypatch, given):
    monkeypatch.setenv(OPTIONS, given)
    make_clip(str(tmp_path / "a.mp4"), 10)
    open_video(str(tmp_path / "a.mp4")).release()
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        open_video(str(playlist))
    assert ("rtsp_transport;udp" in os.environ[OPTIONS]) == ("rtsp" in given)
