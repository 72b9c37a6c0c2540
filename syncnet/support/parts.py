"""Divide a command's work into parts (--part 3/64), processed by any machines at any time in a shared folder.

Each part writes a record of its results. The part that completes the set of records combines them and writes what a
run without parts would write.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from syncnet.support.files import replace_file

PART_HELP = (
    "do only part K of N of the work, for example each on a different machine; the run that completes the last part "
    "writes the {}. The same command resumes an interrupted part"
)
SHOWN = 10  # missing parts listed in a message


@dataclass(frozen=True)
class Part:
    """Part `number` (1-based) of `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def part_of_all(text: str) -> Part:
    """The argparse type of --part K/N."""
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return Part(int(number), int(count))
    raise argparse.ArgumentTypeError(f"found {text!r}, expected K/N, with K from 1 to N, such as 3/64")


def part_number(name: str, count: int) -> int:
    """Return which of `count` parts processes a file; depends only on the name."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % count + 1


def shares(names: Sequence[str], part: Part) -> list[list[str]]:
    """Return the names that each part processes, in order; see part_number."""
    found: list[list[str]] = [[] for _ in range(part.count)]
    for name in names:
        found[part_number(name, part.count) - 1].append(name)
    return found


class PartRecords:
    """The records of all parts, in a folder.

    shares: the names that each part processes. settings: everything else that the results depend on. Records with
    a different share or different settings are ignored.
    """

    def __init__(self, folder: str, part: Part, shares: Sequence[Sequence[str]], settings: object) -> None:
        self.folder, self.part, self.settings = folder, part, settings
        self.shares = shares
        self.missing: list[int] = []

    @property
    def share(self) -> list[str]:
        """The names that this part processes."""
        return list(self.shares[self.part.number - 1])

    def path(self, ending: str, number: int = 0) -> str:
        """Return the path of a file of a part, by default this part. Creates the folder."""
        os.makedirs(self.folder, exist_ok=True)
        return os.path.join(self.folder, f"part-{number or self.part.number}-of-{self.part.count}.{ending}")

    def write(self, result: object) -> None:
        """Record that this part is finished. Raises OSError."""
        with replace_file(self.path("json")) as file:
            json.dump({"share": self._digest(self.part.number), "result": result}, file)

    def remove(self) -> None:
        """Remove the record of this part before its work starts again."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path("json"))

    def results(self) -> list[Any] | None:
        """Return the results of all parts, or None if any is missing."""
        records = []
        self.missing = []
        for number in range(1, self.part.count + 1):
            try:
                with open(self.path("json", number), encoding="utf-8") as file:
                    record = json.load(file)
            except FileNotFoundError:
                record = {}
            if record.get("share") == self._digest(number):
                records.append(record["result"])
            else:
                self.missing.append(number)
        return None if self.missing else records

    def progress(self, output: str) -> str:
        """Return a line about the missing parts; call results() first. output: the file that the last part writes."""
        if self.part.number in self.missing:  # another part called remove_all
            return f"{output} (another part has completed it)"
        shown = ", ".join(map(str, self.missing[:SHOWN])) + ", ..." * (len(self.missing) > SHOWN)
        return (
            f"Part {self.part} is finished; {len(self.missing)} of {self.part.count} are not: {shown}. The last one "
            "completes the work. A part whose files or flags have changed since has to be run again"
        )

    def remove_all(self) -> None:
        """Remove the records of all parts once the work is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _digest(self, number: int) -> str:
        text = json.dumps([self.settings, list(self.shares[number - 1])])
        return hashlib.sha256(text.encode()).hexdigest()
