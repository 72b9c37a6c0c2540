"""The utterances of a list (trials, a cohort): their paths in a folder, tar or Kaldi wav.scp, and their samples."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from syncnet.media.clips import MediaError, text_lines
from syncnet.media.crops import check_length, crop_samples
from syncnet.media.file_type import EMPTY, SOUND_FILES, TEXT, VIDEO_FILES, WAV, sniff_content
from syncnet.media.sound import decode_audio
from syncnet.media.wav import WavFormatError, check_heard, open_wav
from syncnet.support.tar_members import TAR, flat_name, is_file, members_of

# Extensions that are tried in this order if a file is missing; convertAudio.py writes .wav.
KINDS = (".wav", *(kind for kind in SOUND_FILES if kind != ".wav"), *VIDEO_FILES)
WAV_SCP = ".scp"


def find_utterance(path: str) -> str:
    """The sound file for a path in a list: the path itself, or else the same name with another extension.

    x.flac is found as x.wav after conversion, x.wav as x.m4a (as in VoxCeleb2), and a name without extension as
    x.wav. Returns `path` itself if none of them exists.
    """
    return next(filter(is_file, spellings(path)), path)


def spellings(path: str) -> Iterator[str]:
    """The names that find_utterance tries, in order."""
    yield path
    without, ending = os.path.splitext(path)
    for stem in [without, path] if ending.lower() in KINDS else [path]:
        for kind in KINDS:
            yield from (stem + kind, stem + kind.upper())


def utterance_paths(names: Sequence[str], root: str) -> list[str]:
    """The path of each utterance. root: the folder or tar that names are relative to, or a wav.scp.

    Files in a folder need not exist; see find_utterance. Raises MediaError for a wav.scp that cannot be read or lacks
    a name.
    """
    if not os.path.isfile(root):
        return [find_utterance(os.path.join(root, name)) for name in names]
    if root.endswith(TAR):
        members = members_of(root)
        found = (filter(members.get, map(flat_name, spellings(name))) for name in names)
        return [
            members.get(next(flat, ""), f"{root}/{name}") for flat, name in zip(found, names, strict=True)
        ]
    table = read_wav_scp(root)
    missing = [name for name in names if name not in table]
    if missing:
        raise MediaError(
            f"{root}: has no line for {missing[0]}"
            + (f" and {len(missing) - 1} other utterances" if len(missing) > 1 else "")
            + f", of {len(set(names))} in the list"
        )
    return [table[name] for name in names]


def read_wav_scp(path: str) -> dict[str, str]:
    """The path of each utterance (see find_utterance) in a Kaldi wav.scp with lines `utterance path`.

    Relative paths start in the current folder, as in Kaldi, or else in the folder of the wav.scp. Commands (`... |`)
    are refused and never run. Raises MediaError naming file and line.
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
                f"{where}: {name} is the output of a command, and commands in a wav.scp are not run. Write "
                "the output of each command to a file yourself, and list these files: `utterance path`"
            )
        if table.setdefault(name, target) != target:
            raise MediaError(f"{where}: {name} is {target} here, but was {table[name]} before")
    if not table:
        raise MediaError(f"{path}: is empty; a wav.scp has lines `utterance path`")
    return {name: _from_here(target, folder) for name, target in table.items()}


def _from_here(target: str, folder: str) -> str:
    """The sound file of a path in a wav.scp in `folder`; the current folder comes first."""
    here, beside = find_utterance(target), find_utterance(os.path.join(folder, target))
    return beside if not is_file(here) and is_file(beside) else here


def read_utterance(path: str) -> np.ndarray:
    """The samples of a sound file: (samples,) int16, 16 kHz.

    A 16 kHz mono int16 wav is memory-mapped; files of other types are decoded. Raises MediaError, and WavFormatError
    for a wav of another format.
    """
    if is_file(path) and sniff_content(path) not in (WAV, TEXT, EMPTY):
        return decode_audio(path)
    return open_wav(path)


def check_wavs(paths: Sequence[str], maxFrames: int, folder: str = "") -> None:
    """Raise MediaError for the first file that cannot be read, is not longer than a crop, or is silent.

    folder: the folder of all files, for the message.
    """
    for path in paths:
        try:
            samples = read_utterance(path)
        except WavFormatError as error:
            raise (error.for_all_in(folder) if folder and not os.path.isfile(folder) else error) from None
        check_length(path, len(samples), crop_samples(maxFrames))
        check_heard(path, samples)
