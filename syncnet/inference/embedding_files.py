"""Embeddings on disk: each is written as soon as it is computed, and the same command resumes where it stopped.

A journal next to the output has one line per embedding, with its recording and the settings that it was computed
with. An embedding is reused only if both are still the same and its file is unchanged.
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from syncnet.media.clips import MediaError
from syncnet.networks.choices import PRECISIONS
from syncnet.networks.settings import differences
from syncnet.support.files import journal_at, remove_leftovers, replace_file
from syncnet.verification.embedding_cache import Recording, cached_settings, find_recording, save_vectors


@dataclass(eq=False)
class Entry:
    """An embedding in the journal. settings: key of its settings in the journal.

    vector: the embedding, if the output is an .npz. crc: checksum of its .npy, if the output is a folder.
    """

    recording: Recording
    settings: str
    vector: np.ndarray | None = None
    crc: int = 0


class EmbeddingFiles:
    """The output of `embed`: one .npz, or a folder with one .npy per file.

    path: an .npz, or a folder. names: source file -> name of its .npy in the folder. settings: everything besides the
    recording that determines an embedding; JSON values by name.
    done: the sources with reusable embeddings. others: why other existing embeddings cannot be reused, in words.
    """

    def __init__(self, path: str, names: dict[str, str], settings: dict[str, object]) -> None:
        self.path, self.names, self.settings = path, names, settings
        self.one_file = path.endswith(".npz")
        self.journal = self.journal_of(path)
        self._key = key_of(settings)
        self._made_with: dict[str, dict] = {}
        self._entries: dict[str, Entry] = {}
        self._cut_off = False  # is the journal's last line incomplete?
        if self.one_file:
            self._read_finished()
        self._read_journal()
        self.recordings: dict[str, Recording] = {}
        for source in names:
            with contextlib.suppress(MediaError):  # reported when it is embedded
                self.recordings[source] = find_recording(source)
        self.done, self.others = self._compare()

    @staticmethod
    def journal_of(path: str) -> str:
        return f"{path}.unfinished" if path.endswith(".npz") else os.path.join(path, ".embed.jsonl")

    def missing(self) -> list[str]:
        """The sources still to be embedded, in order."""
        return [source for source in self.names if source not in self.done]

    def write_all(self, embeddings: Iterable[tuple[str, Tensor]]) -> None:
        """Write each (source, embedding) as soon as it is computed. Raises OSError; finished ones are kept."""
        os.makedirs(os.path.dirname(self.journal) or ".", exist_ok=True)
        with journal_at(self.journal) as add:
            if self._cut_off:
                add("")
            add(json.dumps({"settings": self.settings}))
            for source, embedding in embeddings:
                if source not in self.recordings:  # it did not exist at the start
                    self.recordings[source] = find_recording(source)
                entry = Entry(self.recordings[source], self._key)
                vector = np.ascontiguousarray(embedding.numpy())
                line: dict[str, object] = {"recording": [entry.recording.path, *entry.recording.fingerprint]}
                if self.one_file:
                    entry.vector = vector.copy()  # a view would keep its whole batch in memory
                    line |= {"shape": vector.shape, "vector": base64.b64encode(vector.tobytes()).decode()}
                else:
                    entry.crc = self._write_npy(source, vector)
                    line["crc"] = entry.crc
                add(json.dumps({"file": self._name(source), "key": self._key} | line))
                self._entries[self._name(source)] = entry
                self.done.add(source)

    def finish(self) -> tuple[int, tuple[int, ...]]:
        """Write the .npz; a folder is already complete. Returns the number of embeddings and the shape of one.

        Raises OSError.
        """
        used = [source for source in self.names if source in self.done]
        if not self.one_file:
            with open(os.path.join(self.path, self.names[used[0]]), "rb") as file:
                return len(used), np.load(file).shape
        first = self._entries[used[0]].vector
        assert first is not None
        vectors = torch.empty(len(used), *first.shape)
        for number, source in enumerate(used):
            vectors.numpy()[number] = self._entries.pop(source).vector
        recordings = [self.recordings[source] for source in used]
        save_vectors(self.path, used, recordings, vectors, self.settings)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.journal)
        return len(used), tuple(first.shape)

    def _name(self, source: str) -> str:
        return source if self.one_file else self.names[source]

    def _write_npy(self, source: str, vector: np.ndarray) -> int:
        """Write the .npy of a source and return its checksum."""
        data = io.BytesIO()
        np.save(data, vector)  # np.save straight into a file does not report a full disk
        # Not synced to disk one by one: after a power failure, the checksums show which files are incomplete.
        with replace_file(os.path.join(self.path, self.names[source]), "wb", flush=False) as file:
            file.write(data.getvalue())
        return zlib.crc32(data.getvalue())

    def _compare(self) -> tuple[set[str], list[str]]:
        """The sources whose embeddings can be reused, and why others cannot be."""
        done: set[str] = set()
        changed, damaged = 0, 0
        others: dict[str, int] = {}
        for source, recording in self.recordings.items():
            entry = self._entries.get(self._name(source))
            if entry is None:
                continue
            if entry.settings != self._key:
                others[entry.settings] = others.get(entry.settings, 0) + 1
            elif entry.recording != recording:
                changed += 1
            elif entry.vector is None and checksum(os.path.join(self.path, self.names[source])) != entry.crc:
                damaged += 1
            else:
                done.add(source)
        reasons = [f"{changed} of recordings that have changed"] * bool(changed)
        reasons += [f"{damaged} whose .npy is missing or has changed"] * bool(damaged)
        for key, count in others.items():
            changes = differences(self._made_with.get(key, {}), self.settings)
            reasons.append(
                f"{count} made with " + ", ".join(f"{n} {was} (now {now})" for n, was, now in changes)
            )
        return done, reasons

    def _read_finished(self) -> None:
        """Read the embeddings in the .npz of an earlier run."""
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                files, vectors = kept["files"].tolist(), kept["vectors"]
                paths, stamps = kept["paths"].tolist(), kept["stamps"].tolist()
                settings = json.loads(kept["settings"].item())
            key = key_of(settings)
            self._made_with[key] = settings
            rows = zip(files, paths, stamps, vectors, strict=True)
            self._entries = {
                file: Entry(Recording(path, tuple(stamp)), key, row) for file, path, stamp, row in rows
            }
        except Exception:  # no .npz, or not a reusable one; it is replaced at the end
            self._entries = {}

    def _read_journal(self) -> None:
        """Read the journal of an interrupted run. Incomplete lines are ignored."""
        try:
            file = open(self.journal, encoding="ascii", errors="replace")  # noqa: SIM115
        except FileNotFoundError:
            return
        line = ""
        with file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                    self._read_line(json.loads(line))
        self._cut_off = bool(line) and not line.endswith("\n")
        self._remove_leftovers()

    def _read_line(self, line: dict) -> None:
        if "settings" in line:
            self._made_with[key_of(line["settings"])] = line["settings"]
            return
        path, *stamp = line["recording"]
        entry = Entry(Recording(path, tuple(stamp)), line["key"])
        if self.one_file:
            data = base64.b64decode(line["vector"], validate=True)
            entry.vector = np.frombuffer(data, np.float32).reshape(line["shape"])
        else:
            entry.crc = line["crc"]
        self._entries[line["file"]] = entry

    def _remove_leftovers(self) -> None:
        """Remove the partial files of a killed run."""
        targets = [self.path] if self.one_file else [os.path.join(self.path, n) for n in self.names.values()]
        for folder in {os.path.dirname(path) or "." for path in targets}:
            own = os.path.basename(self.path) if self.one_file else ""
            with contextlib.suppress(OSError):
                remove_leftovers(os.path.join(folder, f) for f in os.listdir(folder) if f.startswith(own))


def recorded_precision(path: str) -> str | None:
    """The precision of the embeddings in an output or its journal; None if there are none."""
    journal = EmbeddingFiles.journal_of(path)
    settings = cached_settings(path)
    with contextlib.suppress(OSError, ValueError, KeyError), open(journal, encoding="ascii") as file:
        settings = json.loads(file.readline())["settings"]
    precision = settings.get("precision") if isinstance(settings, dict) else None
    return precision if precision in PRECISIONS else None


def key_of(settings: dict) -> str:
    """A short hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def checksum(path: str) -> int:
    """CRC-32 of a file; -1 if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return zlib.crc32(file.read())
    except OSError:
        return -1
