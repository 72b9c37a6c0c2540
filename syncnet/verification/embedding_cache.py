"""Embeddings in an npz file, each with its recording, and the settings they were computed with."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from syncnet.media.clips import MediaError
from syncnet.networks.interface import Network
from syncnet.networks.settings import differences
from syncnet.support.files import replace_file
from syncnet.support.tar_members import member_of
from syncnet.verification.provenance import evaluated_with

ARRAYS = ("files", "vectors", "paths", "stamps", "settings")


@dataclass(frozen=True)
class Recording:
    """A recording: its real location, and a fingerprint that changes whenever the file is rewritten.

    path: absolute, without symbolic links. fingerprint: size in bytes, mtime and ctime in ns.
    """

    path: str
    fingerprint: tuple[int, int, int]


def find_recording(path: str) -> Recording:
    """The recording at a path. Raises MediaError if there is no file."""
    try:
        found = os.stat(member.tar if (member := member_of(path)) else path)
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(f"{path}: no such wav file") from None
    if member:
        path = str(member._replace(tar=os.path.realpath(member.tar)))
        return Recording(path, (member.size, found.st_mtime_ns, found.st_ctime_ns))
    return Recording(os.path.realpath(path), (found.st_size, found.st_mtime_ns, found.st_ctime_ns))


def hash_of_recordings(recordings: Sequence[Recording]) -> str:
    """A hash of the locations and sizes of recordings, independent of their order."""
    lines = sorted(f"{recording.path}\t{recording.fingerprint[0]}\n" for recording in recordings)
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def save_vectors(
    path: str,
    files: Sequence[str],
    recordings: Sequence[Recording],
    vectors: Tensor,
    settings: dict[str, object],
) -> None:
    """Write an npz: `files` (names as in the lists), `vectors` (files, nOut), `paths`, `stamps` and `settings`.

    files, recordings: one per row of vectors. settings: stored as JSON. Raises OSError.
    """
    with replace_file(path, "wb") as file:
        np.savez(
            file,
            files=np.array(files),
            vectors=vectors.numpy(),
            paths=np.array([recording.path for recording in recordings]),
            stamps=np.array([recording.fingerprint for recording in recordings], np.int64),
            settings=np.array(json.dumps(settings)),
        )


def cached_settings(path: str) -> dict[str, object]:
    """The settings in a file of save_vectors; {} if load_vectors would reject the file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            settings = json.loads(arrays["settings"].item())
    except Exception:  # damaged files raise all kinds of errors
        return {}
    return settings if isinstance(settings, dict) else {}


def load_vectors(path: str, settings: dict[str, object]) -> dict[Recording, Tensor]:
    """The vectors in a file of save_vectors, by recording. Raises MediaError, also for other settings."""
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such file; create it with --save_embeddings")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            _, vectors, paths, fingerprints, made_with = (arrays[name] for name in ARRAYS)
        made_with = json.loads(made_with.item())
        recordings = [
            Recording(str(path), tuple(fingerprint))
            for path, fingerprint in zip(paths, fingerprints.tolist(), strict=True)
        ]
        vectors = torch.from_numpy(vectors)
        if vectors.shape != (len(recordings), made_with["nOut"]) or vectors.dtype != torch.float32:
            raise ValueError(f"vectors {tuple(vectors.shape)} of {len(recordings)} files")
    except Exception as error:  # damaged files raise all kinds of errors
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise MediaError(f"{path}: not written by --save_embeddings of this version; recreate it") from None
    if changed := differences(made_with, settings):
        name, before, now = changed[0]
        raise MediaError(
            f"{path}: made with {name} {before}, this evaluation has {now}; recreate it with --save_embeddings"
        )
    return dict(zip(recordings, vectors, strict=True))


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of a network's weights, wherever they came from."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class CachedEmbeddings:
    """The vectors of an evaluation's recordings: those in a file of --save_embeddings, and those still missing.

    files: the utterances as named in the lists; paths: their locations. A recording with several names has one
    vector. Raises MediaError.
    """

    def __init__(
        self,
        network: Network,
        files: Sequence[str],
        paths: Sequence[str],
        num_eval: int,
        load_from: str | None,
    ):
        self.files, self.load_from = files, load_from
        self.recordings = [find_recording(path) for path in paths]
        self.settings: dict[str, object] = evaluated_with(network.settings, num_eval)
        self.settings |= {"precision": network.precision, "weights": weights_hash(network.__S__)}
        self.cached = load_vectors(load_from, self.settings) if load_from else {}
        self.missing = {
            recording: path
            for recording, path in zip(self.recordings, paths, strict=True)
            if recording not in self.cached
        }

    def vectors(self, computed: Tensor) -> Tensor:
        """All vectors in the order of the files, (files, nOut). computed: those of `missing`."""
        found = self.cached | dict(zip(self.missing, computed, strict=True))
        return torch.stack([found[recording] for recording in self.recordings])

    def summary(self) -> str:
        """How many vectors came from the file."""
        total, known = len(set(self.recordings)), {recording.path for recording in self.cached}
        changed = sum(recording.path in known for recording in self.missing)
        again = f"; {changed} files have changed since, and are embedded again" if changed else ""
        return f"{total - len(self.missing)} of {total} embeddings from {self.load_from}{again}"
