"""Vectors that are kept in a file, each with the recording that it is of and the settings that it was made with."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from syncnet.media.clips import MediaError
from syncnet.networks.settings import differences
from syncnet.support.files import replace_file

ARRAYS = ("files", "vectors", "paths", "stamps", "settings")


@dataclass(frozen=True)
class Recording:
    """One recording: where it really is, and what tells that the file has been written anew.

    path: absolute, without links. stamp: size in bytes, time of change of the content and of the entry, both in ns.
    """

    path: str
    stamp: tuple[int, int, int]


def find_recording(path: str) -> Recording:
    """The recording that a path leads to. Raises MediaError where there is no file."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(f"{path}: no such wav file") from None
    return Recording(os.path.realpath(path), (found.st_size, found.st_mtime_ns, found.st_ctime_ns))


def fingerprint(recordings: Sequence[Recording]) -> str:
    """A hash of where recordings are and how large, whatever their order."""
    lines = sorted(f"{recording.path}\t{recording.stamp[0]}\n" for recording in recordings)
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def save_vectors(
    path: str,
    files: Sequence[str],
    recordings: Sequence[Recording],
    vectors: Tensor,
    settings: dict[str, object],
) -> None:
    """Write an npz: `files` (names as in the lists), `vectors` (files, nOut), `paths`, `stamps` and `settings`.

    A row each of files and recordings; settings as JSON. Raises OSError.
    """
    with replace_file(path, "wb") as file:
        np.savez(
            file,
            files=np.array(files),
            vectors=vectors.numpy(),
            paths=np.array([recording.path for recording in recordings]),
            stamps=np.array([recording.stamp for recording in recordings], np.int64),
            settings=np.array(json.dumps(settings)),
        )


def kept_settings(path: str) -> dict[str, object]:
    """What the vectors in a file of save_vectors were made with; {} where load_vectors finds something wrong."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            settings = json.loads(kept["settings"].item())
    except Exception:  # a damaged file fails in as many ways as it can be damaged
        return {}
    return settings if isinstance(settings, dict) else {}


def load_vectors(path: str, settings: dict[str, object]) -> dict[Recording, Tensor]:
    """The vectors of save_vectors by recording. Raises MediaError, also when made with other settings."""
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such file; --save_embeddings makes it")
    try:
        with np.load(path, allow_pickle=False) as kept:
            if set(kept.files) == {"files", "vectors", "maxFrames", "num_eval", "precision", "weights"}:
                raise MediaError(
                    f"{path}: an earlier version of this program made it, which did not note where the files of its "
                    "vectors were; make it again with --save_embeddings"
                )
            _, vectors, paths, stamps, made_with = (kept[name] for name in ARRAYS)
        made_with = json.loads(made_with.item())
        recordings = [
            Recording(str(place), tuple(stamp)) for place, stamp in zip(paths, stamps.tolist(), strict=True)
        ]
        vectors = torch.from_numpy(vectors)
        if vectors.shape != (len(recordings), made_with["nOut"]) or vectors.dtype != torch.float32:
            raise ValueError(f"vectors {tuple(vectors.shape)} of {len(recordings)} files")
    except MediaError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise MediaError(f"{path}: not written by --save_embeddings ({error})") from None
    if others := differences(made_with, settings):
        name, before, now = others[0]
        raise MediaError(
            f"{path}: made with {name} {before}, this evaluation has {now}; make it again with --save_embeddings"
        )
    return dict(zip(recordings, vectors, strict=True))
