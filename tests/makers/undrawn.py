"""Curves that are not drawn: an epoch of a tiny network takes a tenth of a second, its curves four."""

from typing import BinaryIO


class Undrawn:
    @staticmethod
    def savefig(file: BinaryIO, **_: object) -> None:
        file.write(b"not drawn")
