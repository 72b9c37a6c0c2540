"""Names of flags and arguments: those of the 2020 program, and suggestions for misspelled ones. Names of files."""

import difflib
import unicodedata
from collections.abc import Iterable

# Scripts pass all of them, as `**vars(args)`, to functions that use some of them.
FLAGS_OF_2020 = (
    *("maxFrames", "nBatchSize", "nTrainPerEpoch", "nTestPerEpoch", "nDataLoaderThread", "max_epoch"),
    *("temporal_stride", "model", "nOut", "lr", "lr_decay", "alphaC", "alphaI", "initial_model", "save_path"),
    *("train_list", "verify_list", "test_list", "test_path", "eval"),
)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant by `name`, or None: one that it begins, else the most similar one.

    Case, dashes and underscores do not count.
    """
    plain = {_plain(candidate): candidate for candidate in known}
    begun = [candidate for candidate in plain if candidate.startswith(_plain(name))]
    similar = begun or difflib.get_close_matches(_plain(name), plain, 1)
    return plain[similar[0]] if similar else None


def refuse_unknown(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError if an argument is neither known nor a flag of the 2020 program."""
    known = [name for name in known if name not in ("self", "flags_of_2020")]
    for name in given:
        if name not in FLAGS_OF_2020:
            meant = did_you_mean(name, known)
            hint = f"; did you mean {meant}?" if meant else f"; it takes {', '.join(known)}"
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def is_utf8(name: str) -> bool:
    """True if a path is valid UTF-8. Linux allows any bytes in a name; Python maps invalid ones to surrogates."""
    return printable(name) == name


def printable(name: str) -> str:
    """A path for display and text files, with bytes that are not UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """printable() without line ends or terminal control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable(text))


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun: "1 clip", "2 clips"."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def repeated(names: Iterable[str]) -> dict[int, int]:
    """Index of each name that occurred before -> index of its first occurrence."""
    first: dict[str, int] = {}
    return {n: first[name] for n, name in enumerate(names) if first.setdefault(name, n) != n}


def as_any_system(name: str) -> str:
    """A key that is equal for names that macOS, Windows or exFAT treat as the same, by case or Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()
