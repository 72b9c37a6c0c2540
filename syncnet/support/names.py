"""Names of the 2020 flags, suggestions for misspelled flags and arguments, and printable file names."""

import difflib
import unicodedata
from collections.abc import Iterable

# Scripts pass all of these, as `**vars(args)`, to functions that use only some of them.
FLAGS_OF_2020 = (
    *("maxFrames", "nBatchSize", "nTrainPerEpoch", "nTestPerEpoch", "nDataLoaderThread", "max_epoch"),
    *("temporal_stride", "model", "nOut", "lr", "lr_decay", "alphaC", "alphaI", "initial_model", "save_path"),
    *("train_list", "verify_list", "test_list", "test_path", "eval"),
)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the known name probably meant by `name`, or None: one that begins with it, else the most similar one.

    Ignores case, dashes and underscores.
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
    """Return whether a path is valid UTF-8. Linux allows any bytes; Python maps invalid ones to surrogates."""
    return printable(name) == name


def printable(name: str) -> str:
    """Return a path for display and text files, with bytes that are not UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """Like printable(), and also escapes line ends and terminal control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable(text))


def counted(number: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun: "1 clip", "2 clips"."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def repeated(names: Iterable[str]) -> dict[int, int]:
    """Return {index of each repeated name: index of its first occurrence}."""
    first: dict[str, int] = {}
    return {n: first[name] for n, name in enumerate(names) if first.setdefault(name, n) != n}


def as_any_system(name: str) -> str:
    """Return a key that is equal for names that macOS, Windows or exFAT treat as equal (case, Unicode form)."""
    return unicodedata.normalize("NFC", name).casefold()
