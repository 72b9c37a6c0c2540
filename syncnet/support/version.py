"""Versions of the program and its libraries, for --version and eval.json."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

VERSION = "2.0.0"
LIBRARIES = ("torch", "torchaudio", "numpy", "scipy", "scikit-learn", "opencv-python-headless", "av")


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and the installed libraries, by name, without importing them."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # such as opencv-python instead of opencv-python-headless
            continue
    return found


@functools.cache
def torchaudio_error() -> str | None:
    """Return why torchaudio cannot be imported, in one line, or None if it can."""
    try:
        import torchaudio.transforms  # noqa: F401
    except Exception as error:  # ImportError; OSError or RuntimeError if built for another PyTorch
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def version_text() -> str:
    """Return the output of --version: the versions and, if PyTorch is installed, the mel filterbank in use."""
    found = versions()
    text = f"SyncNet trainer {VERSION} ({', '.join(f'{name} {number}' for name, number in found.items())})"
    if "torch" not in found:
        return text
    filterbank = "torchaudio"
    if error := torchaudio_error():
        filterbank = f"syncnet/networks/mel_spectrogram.py (torchaudio cannot be loaded: {error})"
    return f"{text}\nmel filterbank: {filterbank}"
