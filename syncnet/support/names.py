"""Names of flags and arguments: those of the 2020 program, and what a misspelt one may have meant. Names of files."""

import difflib
import unicodedata
from collections.abc import Iterable

# Scripts hand all of them, as `**vars(args)`, to whatever takes some of them.
FLAGS_OF_2020 = (
    *("maxFrames", "nBatchSize", "nTrainPerEpoch", "nTestPerEpoch", "nDataLoaderThread", "max_epoch"),
    *("temporal_stride", "model", "nOut", "lr", "lr_decay", "alphaC", "alphaI", "initial_model", "save_path"),
    *("train_list", "verify_list", "test_list", "test_path", "eval"),
)
# How other programs call what is here -> the names that it may have here.
ELSEWHERE = {
    "batch": ("nBatchSize",),
    "batchsize": ("nBatchSize",),
    "bs": ("nBatchSize",),
    "checkpoint": ("initial_model",),
    "ckpt": ("initial_model",),
    "cuda": ("device",),
    "dim": ("nOut",),
    "embeddingdim": ("nOut",),
    "embeddingsize": ("nOut",),
    "epoch": ("max_epoch",),
    "epochs": ("max_epoch",),
    "evaluate": ("eval",),
    "gpu": ("device",),
    "input": ("src",),
    "jobs": ("nWorkers", "nDataLoaderThread"),
    "learningrate": ("lr",),
    "maxepochs": ("max_epoch",),
    "maxshift": ("max_offset",),
    "ncrops": ("num_eval",),
    "nepochs": ("max_epoch",),
    "numepochs": ("max_epoch",),
    "numthreads": ("nDataLoaderThread", "nWorkers"),
    "numworkers": ("nWorkers", "nDataLoaderThread"),
    "out": ("output", "dst"),
    "outdir": ("save_path", "output", "out", "dst"),
    "outputdir": ("save_path", "output", "out", "dst"),
    "outputpath": ("save_path", "output", "out", "dst"),
    "stride": ("temporal_stride",),
    "threads": ("nDataLoaderThread", "nWorkers"),
    "trials": ("test_list",),
    "vallist": ("verify_list",),
    "weights": ("initial_model",),
    "workers": ("nWorkers", "nDataLoaderThread"),
}
LIKENESS = 0.75  # of two spellings, as difflib measures it


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that was probably meant by `name`, or None.

    Spellings that differ in case, dashes and underscores only come first, then what other programs call the
    same thing, then similar spellings.
    """
    plain = {_plain(candidate): candidate for candidate in known}
    wanted = _plain(name)
    if wanted in plain:
        return plain[wanted]
    for candidate in ELSEWHERE.get(wanted, ()):
        if _plain(candidate) in plain:
            return plain[_plain(candidate)]
    similar = difflib.get_close_matches(wanted, plain, 1, LIKENESS)
    return plain[similar[0]] if similar else None


def refuse_unknown(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for an argument that is neither known nor a flag of the 2020 program."""
    known = [name for name in known if name not in ("self", "flags_of_2020")]
    for name in given:
        if name not in FLAGS_OF_2020:
            meant = did_you_mean(name, known)
            hint = f"; did you mean {meant}?" if meant else f"; it takes {', '.join(known)}"
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def is_utf8(name: str) -> bool:
    """Can a path be written as UTF-8? Linux has any bytes in a name; those that are not stand as surrogates."""
    return printable(name) == name


def printable(name: str) -> str:
    """A path for people and text files: the bytes of it that are not UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """printable() without line ends, and without anything else that steers a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable(text))


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun: "1 clip", "2 clips"."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def as_any_system(name: str) -> str:
    """What names have in common that are one on macOS, Windows or an exFAT disk, by case or by how accents stand."""
    return unicodedata.normalize("NFC", name).casefold()
