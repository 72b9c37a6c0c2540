"""Input files of a command, given directly, in folders or in lists, and the sound of each."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from syncnet.media.clips import LOOKED_AT, Clip, MediaError, check_paths, parse_list_line, text_lines
from syncnet.media.file_type import SOUND_FILES, VIDEO_FILES
from syncnet.media.find_files import beside, find_files
from syncnet.support.tar_members import path_without_tar
from syncnet.verification.utterances import WAV_SCP, find_utterance, read_wav_scp

TRIAL = re.compile(r"[01]\s+\S+\s+\S+$")


@dataclass(frozen=True)
class Source:
    """An input file.

    name: its path relative to the given folder, or in the list; it never points outside a folder of results. clip:
    its line, if it came from a list of clips. listed: it came from a list.
    """

    path: str
    name: str
    clip: Clip | None = None
    listed: bool = False


def find_sources(
    inputs: Sequence[str],
    extensions: tuple[str, ...],
    with_sound: bool = False,
    unread: Callable[[MediaError], None] | None = None,
) -> list[Source]:
    """The files given directly, in folders and in lists, in order and without duplicates.

    If a folder has no sound files, its videos are used for their sound. A list has one path per line, or clips as
    listed by makeFileList.py: their videos if `extensions` are those of videos, else their wavs. with_sound: a video
    is used together with its sound, once per sound that a list gives it. unread: see find_files. Raises MediaError
    for missing files.
    """
    found: dict[tuple[str, str | None], Source] = {}
    for given in inputs:
        if os.path.isdir(given):
            names = find_files(given, extensions, unread)
            names = names or find_files(given, VIDEO_FILES, lambda _: None)  # for their sound
            if not names:
                raise MediaError(f"{given}: no {' or '.join(extensions)} files in this folder")
            sources = [Source(os.path.join(given, name), name) for name in names]
        elif is_media(given):
            sources = [Source(given, os.path.basename(path_without_tar(given)))]
        else:
            sources = read_sources(given, extensions)
        for source in sources:
            sound = os.path.abspath(source.clip.audio) if with_sound and source.clip else None
            found.setdefault((os.path.abspath(source.path), sound), source)
    return list(found.values())


def read_sources(path: str, extensions: tuple[str, ...]) -> list[Source]:
    """The files of a list, or of a Kaldi wav.scp (extension .scp); see find_sources."""
    known = f"Give folders, lists, or files of these kinds: {', '.join(dict.fromkeys(SOUND_FILES + VIDEO_FILES))}."
    if path.endswith(WAV_SCP):
        return [Source(found, name_of(name), listed=True) for name, found in read_wav_scp(path).items()]
    sources = []
    for where, line in text_lines(path, known):
        if is_media(line.strip()):
            if TRIAL.match(line) and not os.path.exists(line.strip()):
                raise MediaError(
                    f"{where}: is a trial (`label fileA fileB`); expected a path a line, or clips as makeFileList.py "
                    "lists them. Trials are for trainSyncNet.py --eval --test_list"
                )
            named = line.strip()
            found = named if extensions == VIDEO_FILES else find_utterance(named)
            sources.append(Source(found, name_of(named), listed=True))
        else:
            clip = parse_list_line(line, where)
            chosen = clip.video if extensions == VIDEO_FILES else clip.audio
            sources.append(Source(chosen, name_of(chosen), clip, listed=True))
    if not sources:
        raise MediaError(f"{path}: the list is empty")
    check_paths(path, [source.path for source in sources])
    return sources


def is_media(path: str) -> bool:
    """True if a path has the extension of a sound or video file. For paths of tar members, see tar_members.py."""
    return path_without_tar(path).lower().endswith(SOUND_FILES + VIDEO_FILES)


def name_of(path: str) -> str:
    """The name of a listed file: its path relative to the root, without `..`."""
    return os.path.normpath(f"/{path_without_tar(path)}").lstrip("/")


def with_wavs(sources: list[Source], wav: str | None) -> list[tuple[Source, str | None]]:
    """Each clip with its sound: `wav` or the wav in that folder, else that of the list, else None.

    In the folder, a wav has the same relative path as its clip has in the given folder. For clips in lists, as few
    leading folders as possible are dropped, the same number for all: /data/mp4/id/a.mp4 has <wav>/id/a.wav. Raises
    MediaError if two clips would have the same wav.
    """
    if wav is None:
        return [(source, source.clip.audio if source.clip else None) for source in sources]
    if os.path.isdir(wav):
        listed = [source.name.split(os.sep) for source in sources if source.listed]
        dropped = leading_folders(listed, wav)
        found: dict[str, Source] = {}
        for source in sources:
            parts = source.name.split(os.sep)[dropped if source.listed else 0 :]
            path = beside(wav, os.path.splitext(os.path.join(*parts))[0], ".wav")
            other = found.setdefault(path, source)
            if source.path != other.path:
                raise MediaError(
                    f"--wav {wav}: {path} would be the sound of both {other.path} and {source.path}; give a folder "
                    "in which each has its own, or the clips of one corpus at a time"
                )
        return [(source, path) for path, source in found.items()]
    if len(sources) > 1:
        raise MediaError(f"--wav {wav}: {len(sources)} clips need a folder with their wavs")
    return [(sources[0], wav)]


def leading_folders(clips: list[list[str]], folder: str) -> int:
    """How many leading folders to drop from paths in a list to find the wavs in `folder`; 0 if none is found.

    clips: the parts of each path.
    """
    looked_at = clips[:LOOKED_AT]
    for number in range(min(map(len, looked_at), default=0)):
        stems = (os.path.splitext(os.path.join(*parts[number:]))[0] for parts in looked_at)
        if any(os.path.isfile(beside(folder, stem, ".wav")) for stem in stems):
            return number
    return 0
