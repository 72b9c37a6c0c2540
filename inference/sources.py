"""The files that a command is given: by themselves, in folders or in lists, and the sound of each."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from media.clips import Clip, MediaError, beside, check_paths, find_files, parse_list_line, text_lines
from media.content import SOUND_FILES, VIDEO_FILES

TRIAL = re.compile(r"[01]\s+\S+\s+\S+$")


@dataclass(frozen=True)
class Source:
    """A file to work on, with its list line where it came from a list.

    name: its path below a given folder, or as the list has it; none that leads out of a folder for results.
    """

    path: str
    name: str
    clip: Clip | None = None


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
        elif given.lower().endswith(SOUND_FILES + VIDEO_FILES):
            sources = [Source(given, os.path.basename(given))]
        else:
            sources = read_sources(given, extensions)
        for source in sources:
            sound = os.path.abspath(source.clip.audio) if with_sound and source.clip else None
            found.setdefault((os.path.abspath(source.path), sound), source)
    return list(found.values())


def read_sources(path: str, extensions: tuple[str, ...]) -> list[Source]:
    """The files of a list; see find_sources."""
    known = f"Give folders, lists, or files of these kinds: {', '.join(dict.fromkeys(SOUND_FILES + VIDEO_FILES))}."
    sources = []
    for where, line in text_lines(path, known):
        if line.strip().lower().endswith(SOUND_FILES + VIDEO_FILES):
            if TRIAL.match(line) and not os.path.exists(line.strip()):
                raise MediaError(
                    f"{where}: is a trial (`label fileA fileB`); expected a path a line, or clips as makeFileList.py "
                    "lists them. Trials are for trainSyncNet.py --eval --test_list"
                )
            sources.append(Source(line.strip(), name_of(line.strip())))
        else:
            clip = parse_list_line(line, where)
            chosen = clip.video if extensions == VIDEO_FILES else clip.audio
            sources.append(Source(chosen, name_of(chosen), clip))
    if not sources:
        raise MediaError(f"{path}: the list is empty")
    check_paths(path, [source.path for source in sources])
    return sources


def name_of(path: str) -> str:
    """The name of a listed file: its path, taken from the root and from no folder further up."""
    return os.path.normpath(f"/{path}").lstrip("/")


def with_wavs(sources: list[Source], wav: str | None) -> list[tuple[Source, str | None]]:
    """Each clip and its sound: `wav` or the wav in that folder, else what the list says, else None."""
    if wav is None:
        return [(source, source.clip.audio if source.clip else None) for source in sources]
    if os.path.isdir(wav):
        return [(s, beside(wav, os.path.splitext(s.name)[0], ".wav")) for s in sources]
    if len(sources) > 1:
        raise MediaError(f"--wav {wav}: {len(sources)} clips need a folder with their wavs")
    return [(sources[0], wav)]
