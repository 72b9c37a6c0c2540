"""The version of the program, for --version and eval.json."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

VERSION = "2.0.0"
LIBRARIES = ("torch", "torchaudio", "numpy", "scipy", "scikit-learn", "opencv-python-headless", "av")


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the installed libraries, by name. Imports none of them."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # such as opencv-python installed instead of opencv-python-headless
            continue
    return found


@functools.cache
def torchaudio_error() -> str | None:
    """Why torchaudio cannot be imported, in one line; None if it can."""
    try:
        import torchaudio.transforms  # noqa: F401
    except Exception as error:  # missing, or built for another PyTorch: ImportError, OSError, RuntimeError
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def version_text() -> str:
    """The output of --version: the versions and, if PyTorch is installed, which mel filterbank is in use."""
    found = versions()
    text = f"SyncNet trainer {VERSION} ({', '.join(f'{name} {number}' for name, number in found.items())})"
    if "torch" not in found:
        return text
    filterbank = "torchaudio"
    if error := torchaudio_error():
        filterbank = f"syncnet/networks/mel_spectrogram.py (torchaudio cannot be loaded: {error})"
    return f"{text}\nmel filterbank: {filterbank}"
