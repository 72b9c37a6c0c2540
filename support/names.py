"""What a misspelt name may have meant."""

import difflib
from collections.abc import Iterable

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


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
