"""The program's version, which --version prints and eval.json keeps."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

VERSION = "2.0.0"
LIBRARIES = ("torch", "torchaudio", "numpy", "scipy", "scikit-learn", "opencv-python-headless", "av")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed, by name; nothing is imported."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # opencv-python, say, in place of opencv-python-headless
            continue
    return found


@functools.cache
def torchaudio_error() -> str | None:
    """Why torchaudio cannot be used in this environment, in one line; None if it can. Imports it."""
    try:
        import torchaudio.transforms  # noqa: F401
    except (
        Exception
    ) as error:  # not installed, or built for another PyTorch: ImportError, OSError, RuntimeError
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def version_text() -> str:
    """What --version prints: a line of versions and, if PyTorch is installed, a line on the mel filterbank in use."""
    found = versions()
    text = f"SyncNet trainer {VERSION} ({', '.join(f'{name} {number}' for name, number in found.items())})"
    if "torch" not in found:
        return text
    error = torchaudio_error()
    origin = (
        "torchaudio"
        if error is None
        else f"syncnet/networks/mel_spectrogram.py (torchaudio cannot be loaded: {error})"
    )
    return f"{text}\nmel filterbank: {origin}"
