"""The program's version, which --version prints and eval.json keeps."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

VERSION = "1.0.0"
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


def version_line() -> str:
    """All of it in one line."""
    return (
        f"SyncNet trainer {VERSION} ({', '.join(f'{name} {number}' for name, number in versions().items())})"
    )
