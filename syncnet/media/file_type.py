"""Detect the type of a file from its first bytes, regardless of its name; extensions of media files."""

import errno
import os
import re

from syncnet.support.tar_members import open_file

# Extensions of files that may hold audio or video; the content of a file decides what it is.
SOUND_FILES = (
    *(".wav", ".m4a", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aac", ".ac3", ".aif", ".aiff", ".aifc"),
    *(".amr", ".ape", ".au", ".bwf", ".caf", ".dsf", ".dts", ".eac3", ".m4b", ".mka", ".mp2", ".mpc", ".ra"),
    *(".sox", ".sph", ".spx", ".tak", ".tta", ".voc", ".w64", ".weba", ".wma", ".wv"),
)
VIDEO_FILES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".vob"),
    *(".flv", ".f4v", ".wmv", ".asf", ".ogv", ".ogm", ".3gp", ".3g2", ".qt", ".mxf", ".divx", ".rm", ".rmvb"),
    *(".dv", ".gxf", ".m1v", ".m2v", ".nut", ".wtv"),
)

EMPTY, TEXT, WAV, RIFX, MP4, UNKNOWN = "empty", "a text file", "WAV", "RIFX", "MP4", "unknown"
HEAD = 4096  # bytes that sniff_content reads
_MAGIC = (
    (re.compile(rb"\Z"), EMPTY),
    (re.compile(rb"(RIFF|RF64|BW64)....WAVE", re.DOTALL), WAV),
    (re.compile(rb"RIFX"), RIFX),
    (re.compile(rb"....ftyp", re.DOTALL), MP4),
    (re.compile(rb"[\t\n\r\x0c\x20-\x7e\x80-\xff]+\Z"), TEXT),
)
_VOXCELEB2 = re.compile(r"(?:^|/)id\d{5}/[\w-]{11}/\d{5}\.\w+$")


def sniff_content(path: str) -> str:
    """Return EMPTY, TEXT, WAV, RIFX (a big-endian wav), MP4 or UNKNOWN. Raises OSError."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a file")  # reading a pipe would block
    with open_file(path) as file:
        head = file.read(HEAD)
    return next((kind for magic, kind in _MAGIC if magic.match(head)), UNKNOWN)


def get_again(path: str) -> str:
    """Return what to do about a damaged file: only a path as in VoxCeleb2's archives can be unpacked again."""
    if _VOXCELEB2.search(path):
        return "download or unpack it again"
    return "copy it again from its source, or remove it"
