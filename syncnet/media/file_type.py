"""What a file holds by its first bytes, whatever its name says; and where a damaged one comes from."""

import errno
import os
import re

from syncnet.media.tar_members import open_file

# By name, what may hold sound or pictures; what it does hold is seen from its content.
SOUND_FILES = (
    *(".wav", ".m4a", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aac", ".ac3", ".aif", ".aiff"),
    *(".amr", ".au", ".caf", ".sph", ".w64", ".wma", ".wv"),
    *(".mka", ".weba", ".m4b", ".mp2", ".spx", ".aifc", ".eac3", ".bwf"),
)
VIDEO_FILES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".flv", ".wmv", ".asf", ".ogv", ".3gp", ".3g2", ".qt"),
)
# Others, which are not looked at: that is told.
OTHER_VIDEO_FILES = (".vob", ".mxf", ".divx", ".rm", ".rmvb", ".f4v", ".dv", ".gif", ".h264", ".264", ".y4m")
OTHER_SOUND_FILES = (".ape", ".dsf", ".dts", ".mpc", ".ra", ".sox", ".tak", ".tta", ".voc")

HEAD = 512  # bytes that are looked at
TEXT_LOOKED_AT = 65536  # further ones, of what seems to be text
EMPTY, TEXT, WAV, MP4, UNKNOWN = "empty", "a text file", "WAV", "MP4", "of an unknown kind"
_MAGIC = (
    (re.compile(rb"(RIFF|RIFX|RF64|BW64)....WAVE", re.DOTALL), WAV),
    (re.compile(rb"....ftyp", re.DOTALL), MP4),
    (re.compile(rb"....(moov|mdat|wide)", re.DOTALL), "QuickTime"),
    (re.compile(rb"fLaC"), "FLAC"),
    (re.compile(rb"OggS"), "Ogg"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "Matroska or WebM"),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), "AVI"),
    (re.compile(rb"FORM....AIF", re.DOTALL), "AIFF"),
    (re.compile(rb"riff\x2e\x91\xcf\x11"), "Wave64"),
    (re.compile(rb"\.snd"), "AU"),
    (re.compile(rb"caff"), "CAF"),
    (re.compile(rb"NIST_1A"), "NIST Sphere"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "ASF (WMA, WMV)"),
    (re.compile(rb"FLV\x01"), "FLV"),
    (re.compile(rb"#!AMR"), "AMR"),
    (re.compile(rb"wvpk"), "WavPack"),
    (re.compile(rb"\x0b\x77"), "AC-3"),
    (re.compile(rb"\x47.{187}\x47", re.DOTALL), "MPEG transport stream"),
    (re.compile(rb"\x00\x00\x01\xba"), "MPEG program stream"),
    (re.compile(rb"ID3"), "MP3"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "AAC (ADTS)"),
    (re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]"), "MP3"),
)
_TEXT = re.compile(rb"[\t\n\r\x0c\x20-\x7e\x80-\xff]+")
_VOXCELEB2 = re.compile(r"(?:^|/)id\d{5}/[\w-]{11}/\d{5}\.\w+$")


def content(path: str) -> str:
    """The kind of a file: EMPTY, TEXT, WAV, MP4, another name for messages, or UNKNOWN. Raises OSError."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a file")  # a pipe would be waited for
    with open_file(path) as file:
        head = file.read(HEAD)
        kind = content_of_head(head)
        # What begins as text may go on as something else: an MP3 file with the answer of a server ahead of it.
        return content_of_head(head + file.read(TEXT_LOOKED_AT)) if kind == TEXT else kind


def content_of_head(head: bytes) -> str:
    """content(), from the first bytes of a file."""
    if not head:
        return EMPTY
    kind = next((name for magic, name in _MAGIC if magic.match(head)), None)
    return kind or (TEXT if _TEXT.fullmatch(head) else UNKNOWN)


def get_again(path: str) -> str:
    """What to do about a damaged file. Only a path as in VoxCeleb2's archives comes from them."""
    if _VOXCELEB2.search(path):
        return "download or unpack it again"
    return "copy it again from where it came from, or leave it out"
