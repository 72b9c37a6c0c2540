"""Tiny clips whose content encodes the position in the clip, so that a test sees a shift of one frame or sample.

make_clip("a.mp4", 60)                      # H.264 224x224, 25 fps, B-frames, like VoxCeleb2's
frame_number(picture)                       # -> 0..59, from any decoded picture (grey, BGR or RGB)
make_clip("b.mp4", 60, sound=noise(2.4))    # the same with an AAC sound track
make_video("c.mkv", [0, 1, 3])                  # any container and codec, with the frames at these 25ths of a second
make_sound("b.m4a", noise(2.4))             # the sound alone, as VoxCeleb2's aac/ folder has it
shift(decoded, noise(2.4))                  # -> samples by which `decoded` is late; 0 when in place
make_wav("c.wav", 60 * 640)                 # 16 kHz mono int16
sample_number(value)                        # -> 0..65520, from any single sample of it
make_txt("c.txt", offset=-3)                # the Offset line as VoxCeleb2 writes it
make_list(folder, 6, 20)                    # -> list.txt of six clips of 20 frames, made in the folder
"""

import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from scipy.io import wavfile
from scipy.signal import correlate

from syncnet.media.clips import Clip, format_list_line

GRID = 4  # a picture is GRID x GRID squares, one bit of the frame number each, the first the lowest
RAMP = 65521  # a wav counts up through nearly all int16 values, then starts again (after 4.1 s)


def make_clip(
    path: str,
    frames: int,
    *,
    sound: np.ndarray | None = None,
    rate: int = 16000,
    sound_delay: int = 0,
    picture_delay: int = 0,
    first: int = 0,
    size: int = 224,
    fps: int = 25,
    faststart: bool = False,
) -> None:
    """Write an mp4 of `frames` frames, one key frame every 250 and B-frames between, as VoxCeleb2 has.

    Frame i shows the number first + i (0..65535): read it with frame_number().
    sound: (samples,) or (channels, samples) int16 at `rate` Hz for an AAC track; None: no track.
    sound_delay: samples at `rate` by which the sound starts after time 0 (negative: before, and is cut).
    picture_delay: frames by which the pictures start after time 0.
    size: pixels a side (a multiple of 8). faststart: the index comes first in the file, so that a file
    whose tail is cut off still opens.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(path, "w", format="mp4", options=options) as container:
        video = container.add_stream("libx264", rate=fps)
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "veryfast", "bf": "2", "g": "250", "sc_threshold": "0", "threads": "1"}
        track = _add_sound(container, sound, rate) if sound is not None else None
        for index in range(frames):
            frame = paint(first + index, size)
            frame.pts, frame.time_base = picture_delay + index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None:
            _encode(container, track, sound, rate, sound_delay)


def make_video(
    path: Any,
    moments: Sequence[float],
    *,
    codec: str = "libx264",
    kind: str | None = None,
    clock: int = 90000,
    sound: np.ndarray | None = None,
    turned: int = 0,
    still: bool = False,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    sound_first: bool = False,
    sound_delay: int = 0,
) -> None:
    """Write a 224x224 video of any kind, to a path or a file; frame i shows i, from moments[i] 25ths of a second on.

    kind: FFmpeg's name of the container, if the path's ending is not to decide. clock: ticks a second of the time
    stamps. sound: int16 at 16 kHz, as AAC, or PCM in an AVI; sound_first: it is the file's first stream;
    sound_delay: samples by which it starts after time 0. turned: degrees by which a player has to turn the pictures,
    against the clock. still: every picture is black. options, muxing: of the encoder, the container.
    """
    if isinstance(path, str):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with av.open(path, "w", format=kind, options=muxing or {}) as container:
        sound_codec = "pcm_s16le" if container.format.name == "avi" else "aac"
        track = (
            _add_sound(container, sound, 16000, sound_codec) if sound is not None and sound_first else None
        )
        video = container.add_stream(codec, rate=25)
        video.width = video.height = 224
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.options = {"threads": "1", **(options or {})}
        video.time_base = video.codec_context.time_base = Fraction(1, clock)
        if turned:
            video.set_display_rotation(turned)
        if sound is not None and not sound_first:
            track = _add_sound(container, sound, 16000, sound_codec)
        for number, moment in enumerate(moments):
            frame = paint(number, 224, still)
            frame.pts, frame.time_base = round(moment * clock / 25), Fraction(1, clock)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None:
            _encode(container, track, sound, 16000, sound_delay)


def edit(path: Path, segments: Sequence[tuple[float, float | None]]) -> None:
    """Put another edit list into all tracks of an mp4 of make_video whose index is at its end.

    segments: (seconds, where in the track they begin; None: nothing is shown or heard), as they are played.
    """

    def changed(data: bytes, scale: int = 0) -> bytes:
        made, place = b"", 0
        while place < len(data):
            size, name = struct.unpack(">I4s", data[place : place + 8])
            body = data[place + 8 : place + size]
            if name == b"trak":
                (scale,) = struct.unpack_from(">I", body, body.index(b"mdhd") + 16)
            if name in (b"moov", b"trak", b"edts"):
                body = changed(body, scale)
            elif name == b"elst":
                (entries,) = struct.unpack(">I", body[4:8])
                (first,) = struct.unpack_from(
                    ">i", body, 12 * entries
                )  # where the encoder's own beginning ends
                starts = [-1 if start is None else first + round(start * scale) for _, start in segments]
                rows = zip([round(1000 * seconds) for seconds, _ in segments], starts, strict=True)
                body = body[:4] + struct.pack(">I", len(segments))
                body += b"".join(struct.pack(">IiI", *row, 0x10000) for row in rows)
            made += struct.pack(">I4s", len(body) + 8, name) + body
            place += size
        return made

    path.write_bytes(changed(path.read_bytes()))


def paint(number: int, size: int, black: bool = False) -> av.VideoFrame:
    """A picture that shows a number: see frame_number()."""
    bits = np.arange(GRID * GRID).reshape(GRID, GRID)
    planes = np.full((size * 3 // 2, size), 128, np.uint8)  # chroma stays grey
    squares = np.where(number >> bits & 1, 215, 40).astype(np.uint8)
    planes[:size] = 16 if black else squares.repeat(size // GRID, 0).repeat(size // GRID, 1)
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def make_sound(
    path: str, sound: np.ndarray, rate: int = 16000, delay: int = 0, kind: str = "ipod", codec: str = "aac"
) -> None:
    """Write (samples,) or (channels, samples) int16, starting `delay` samples late: an .m4a, or another kind."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with av.open(path, "w", format=kind) as container:
        _encode(container, _add_sound(container, sound, rate, codec), sound, rate, delay)


def make_tracks(
    path: str,
    sounds: Sequence[np.ndarray],
    kind: str = "matroska",
    codecs: Sequence[str] | None = None,
    defaults: Sequence[int] = (0,),
    **options: str,
) -> None:
    """Write several sound tracks, each (samples,) or (2, samples) int16 at 16 kHz, as PCM or with these codecs.

    defaults: the numbers of the default tracks. options: of the container.
    """
    with av.open(path, "w", format=kind, options=options) as container:
        codecs = codecs or ["pcm_s16le"] * len(sounds)
        layouts = ["mono" if sound.ndim == 1 else "stereo" for sound in sounds]
        both = zip(codecs, layouts, strict=True)
        tracks = [container.add_stream(codec, rate=16000, layout=layout) for codec, layout in both]
        for number in defaults:
            tracks[number].disposition = Disposition.default
        packets = []
        for track, layout, sound in zip(tracks, layouts, sounds, strict=True):
            for first in range(0, sound.shape[-1], 1600):
                samples = sound[..., first : first + 1600].T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = 16000, first, Fraction(1, 16000)
                packets += track.encode(frame)
            packets += track.encode(None)
        container.mux(sorted(packets, key=lambda packet: packet.pts * packet.time_base))


def make_wav(path: str, samples: int, first: int = 0) -> None:
    """Write a 16 kHz mono int16 wav in which sample i holds the number first + i: see sample_number()."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    ramp = (first + np.arange(samples)) % RAMP - RAMP // 2
    wavfile.write(path, 16000, ramp.astype(np.int16))


class Pipe:
    """What can only be written to, one after the other."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self.file.write(data)


def make_txt(path: str, offset: int = 0) -> None:
    """Write the head of a VoxCeleb2 txt with this audio-to-video offset, in video frames."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    head = f"Identity  : \tid00001\nReference : \tmade\nOffset    : \t{offset}\nFV Conf   : \t20.0\t(1)\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + "ASD Conf  : \t5.0\n\nFRAME \tX \tY \tW \tH \n")


def make_list(folder: Path, clips: int, frames: int) -> Path:
    """Write clips that all differ, with wavs and offset 0, and the list of them. Returns the list's path."""
    lines = []
    for k in range(clips):
        clip = Clip(str(folder / f"{k}.mp4"), str(folder / f"{k}.wav"), 0, frames)
        make_clip(clip.video, frames, first=977 * k)
        make_wav(clip.audio, frames * 640, first=3001 * k)
        lines.append(format_list_line(clip) + "\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def frame_number(picture: np.ndarray) -> int:
    """The number a picture of make_clip shows: (height, width) or (height, width, 3), any number type."""
    grey = np.asarray(picture, np.float32)
    grey = grey.mean(-1) if grey.ndim == 3 else grey
    rows, columns = (
        (np.arange(GRID) * 2 + 1) * grey.shape[0] // 8,
        (np.arange(GRID) * 2 + 1) * grey.shape[1] // 8,
    )
    bright = grey[np.ix_(rows, columns)].ravel() > 127  # the middle of each square
    return int((bright << np.arange(GRID * GRID)).sum())


def sample_number(value: float) -> int:
    """The number a sample of make_wav holds (modulo RAMP)."""
    return int(value) + RAMP // 2


def noise(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Band-limited noise (300 to 3000 Hz) that survives AAC and fits itself in one place only: int16."""
    samples = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    spectrum[(frequency < 300) | (frequency > 3000)] = 0
    wave = np.fft.irfft(spectrum, samples)
    return np.round(wave / np.abs(wave).max() * 20000).astype(np.int16)


def shift(heard: np.ndarray, original: np.ndarray) -> int:
    """Samples by which `heard` is late against `original` (negative: early), by cross-correlation."""
    match = correlate(heard.astype(np.float64), original.astype(np.float64), method="fft")
    return int(match.argmax()) - (len(original) - 1)


def _add_sound(
    container: av.container.OutputContainer, sound: np.ndarray, rate: int, codec: str = "aac"
) -> av.AudioStream:
    stream = container.add_stream(codec, rate=rate)
    stream.layout = "stereo" if sound.ndim == 2 else "mono"
    stream.bit_rate = 96000
    return stream


def _encode(
    container: av.container.OutputContainer, stream: av.AudioStream, sound: np.ndarray, rate: int, delay: int
) -> None:
    packed = np.ascontiguousarray(sound.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = rate, delay, Fraction(1, rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
