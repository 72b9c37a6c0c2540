"""The files that a command is given: by themselves, in folders or in lists, and the sound of each."""

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
    """A file to work on, with its list line where it came from a list.

    name: its path below a given folder, or as the list has it; none that leads out of a folder for results.
    listed: it came from a list.
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
    """Files as they are, those in folders, and those in lists, in order and once each.

    Of a folder without sound files the videos are taken, for their sound. A list has a path a line, or clips as
    makeFileList.py lists them: their video where `extensions` are videos, else their wav. with_sound: a video is
    worked on beside its sound, and counts once with each sound that a list gives it. unread: see find_files.
    Raises MediaError for what is not there.
    """
    found: dict[tuple[str, str | None], Source] = {}
    for given in inputs:
        if os.path.isdir(given):
            names = find_files(given, extensions, unread)
            names = names or find_files(given, VIDEO_FILES, lambda _: None)  # whose sound is taken
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
    """The files of a list, or of a Kaldi wav.scp (by its ending, .scp); see find_sources."""
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
    """Does a path end as that of a sound or video file? See tar_members.py for the paths of members of a tar."""
    return path_without_tar(path).lower().endswith(SOUND_FILES + VIDEO_FILES)


def name_of(path: str) -> str:
    """The name of a listed file: its path, taken from the root and from no folder further up."""
    return os.path.normpath(f"/{path_without_tar(path)}").lstrip("/")


def with_wavs(sources: list[Source], wav: str | None) -> list[tuple[Source, str | None]]:
    """Each clip and its sound: `wav` or the wav in that folder, else what the list says, else None.

    In a folder, a wav has the path of its clip below a given folder, or in a list, less the folders at its beginning:
    /data/mp4/id/a.mp4 has <wav>/id/a.wav, where the folder has none for a longer path. As many are dropped for all
    clips of a list. Raises MediaError where two clips would have one wav.
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
    """How many folders to leave out of the paths of a list's clips to find their wavs in `folder`; 0 where none are.

    clips: the parts of each path.
    """
    looked_at = clips[:LOOKED_AT]
    for number in range(min(map(len, looked_at), default=0)):
        stems = (os.path.splitext(os.path.join(*parts[number:]))[0] for parts in looked_at)
        if any(os.path.isfile(beside(folder, stem, ".wav")) for stem in stems):
            return number
    return 0
