"""Where the utterances of a list are: names to sound files, by a folder or by a Kaldi wav.scp.

Everything that reads utterances by the names in a list (trials, a cohort) asks here for their paths, and here for
their samples.
"""

import os
import re
from collections.abc import Iterator, Sequence

import numpy as np

from syncnet.media.clips import MediaError, text_lines
from syncnet.media.crops import check_length, crop_samples
from syncnet.media.file_type import EMPTY, SOUND_FILES, TEXT, VIDEO_FILES, WAV, content
from syncnet.media.sound import decode_audio
from syncnet.media.tar_members import TAR, flat_name, is_file, members_of
from syncnet.media.wav import WavFormatError, check_heard, open_wav

# What a list may name beside what is there, in the order in which it is looked for: convertAudio.py makes .wav.
KINDS = (".wav", *(kind for kind in SOUND_FILES if kind != ".wav"), *VIDEO_FILES)
WAV_SCP = ".scp"
IN_ARCHIVE = re.compile(r"\.ark:\d+$")


def find_utterance(path: str) -> str:
    """The sound file for a path in a list: itself, or where it is not there, the same sound of another kind.

    x.flac is found as x.wav once it is converted, x.wav as x.m4a as VoxCeleb2 ships it, and a name without an ending
    as x.wav. Returns `path` itself where there is none of these.
    """
    return next(filter(is_file, spellings(path)), path)


def spellings(path: str) -> Iterator[str]:
    """The names under which find_utterance looks for a sound, in order."""
    yield path
    without, ending = os.path.splitext(path)
    for stem in [without, path] if ending.lower() in KINDS else [path]:
        for kind in KINDS:
            yield from (stem + kind, stem + kind.upper())


def utterance_paths(names: Sequence[str], place: str) -> list[str]:
    """The path of each utterance. place: the folder or the tar that the names start in, or a wav.scp that has them.

    Of files in a folder it is not looked whether they are there; see find_utterance. Raises MediaError for a wav.scp
    that cannot be read or does not have a name.
    """
    if not os.path.isfile(place):
        return [find_utterance(os.path.join(place, name)) for name in names]
    if place.endswith(TAR):
        members = members_of(place)
        found = (filter(members.get, map(flat_name, spellings(name))) for name in names)
        return [
            members.get(next(flat, ""), f"{place}/{name}") for flat, name in zip(found, names, strict=True)
        ]
    table = read_wav_scp(place)
    missing = [name for name in names if name not in table]
    if missing:
        raise MediaError(
            f"{place}: has no line for {missing[0]}"
            + (f" and {len(missing) - 1} other utterances" if len(missing) > 1 else "")
            + f", of {len(set(names))} in the list"
        )
    return [table[name] for name in names]


def read_wav_scp(path: str) -> dict[str, str]:
    """The path of each utterance (see find_utterance) of a Kaldi wav.scp with lines `utterance path`.

    Relative paths start in the current folder, as Kaldi has it, or else in the folder of the wav.scp. A line with a
    command (`... |`) is refused; it is never run. Raises MediaError naming file and line.
    """
    table: dict[str, str] = {}
    folder = os.path.dirname(path)
    for where, line in text_lines(path, "Give a folder, or a wav.scp with lines `utterance path`."):
        name, _, target = line.strip().partition("\t" if "\t" in line else " ")
        target = target.strip()
        if not target:
            raise MediaError(
                f"{where}: found {line[:80]!r}, expected `utterance path`, as in Kaldi's wav.scp"
            )
        if target.endswith("|") or name.endswith("|"):
            raise MediaError(
                f"{where}: {name} is the output of a command, and commands in a wav.scp are not run. Run the "
                "commands yourself, each into a file (without the `|`, and with `> name.wav`), and list these files: "
                "`utterance path`"
            )
        if IN_ARCHIVE.search(target):
            raise MediaError(
                f"{where}: {target} is a place in a Kaldi archive, which is not read. Write the sound to files, and "
                "list these: `utterance path`"
            )
        if table.setdefault(name, target) != target:
            raise MediaError(f"{where}: {name} was {table[name]} before, and is {target} here")
    if not table:
        raise MediaError(f"{path}: is empty; a wav.scp has lines `utterance path`")
    return {name: _from_here(target, folder) for name, target in table.items()}


def _from_here(target: str, folder: str) -> str:
    """The sound file of a path in a wav.scp in `folder`, looked for in the current folder first."""
    here, beside = find_utterance(target), find_utterance(os.path.join(folder, target))
    return beside if not is_file(here) and is_file(beside) else here


def read_utterance(path: str) -> np.ndarray:
    """The samples of a sound file of any kind: (samples,) int16, 16 kHz.

    A 16 kHz mono int16 wav is mapped, not read; other kinds than wav are decoded. Raises MediaError, and
    WavFormatError for a wav of another format.
    """
    if is_file(path) and content(path) not in (WAV, TEXT, EMPTY):
        return decode_audio(path)
    return open_wav(path)


def check_wavs(paths: Sequence[str], maxFrames: int, folder: str = "") -> None:
    """Raise MediaError for the first file that cannot be read, is not longer than a crop, or is silent.

    folder: where all of them lie, for the message.
    """
    for path in paths:
        try:
            samples = read_utterance(path)
        except WavFormatError as error:
            raise (error.for_all_in(folder) if folder and not os.path.isfile(folder) else error) from None
        check_length(path, len(samples), crop_samples(maxFrames))
        check_heard(path, samples)
