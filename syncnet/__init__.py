"""The library behind the commands: media, face tracks, networks, checkpoints, training, evaluation.

Commands import this package first, so that an old Python or Windows is reported immediately, and Ctrl-C or a missing
package during the slow imports prints a message instead of a traceback.
"""

import os
import sys
from types import TracebackType

if sys.version_info < (3, 10):  # noqa: UP036
    raise SystemExit(
        f"Python 3.10 or newer is needed, and this is {sys.version.split()[0]} ({sys.executable}). ./demo.sh and "
        "./test.sh make .venv with a right one: then `source .venv/bin/activate`"
    )

if sys.platform == "win32":
    raise SystemExit("This program runs on Linux and macOS. On Windows, run it in WSL: https://aka.ms/wsl")

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COMMANDS = (
    *("trainSyncNet", "makeFileList", "convertAudio", "makeFaceTracks", "makeDemoData"),
    *("inferSyncNet", "tuneThreshold"),
)


def explain_import_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A sys.excepthook for commands that prints no traceback for Ctrl-C or a missing package."""
    missing = (getattr(error, "name", None) or "").split(".")[0]
    if issubclass(kind, KeyboardInterrupt):
        print("\nStopped.", file=sys.stderr)
    elif issubclass(kind, ModuleNotFoundError) and missing not in ("", "syncnet", "models"):
        print(
            f"{sys.executable} has no package {missing}. Type `source .venv/bin/activate` in {PROJECT} first "
            f"(./demo.sh and ./test.sh make .venv), or `pip install -r {os.path.join(PROJECT, 'requirements.txt')} "
            f"-c {os.path.join(PROJECT, 'constraints.txt')}`",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


def is_command() -> bool:
    """Return whether the running script is one of this project's commands."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return script is not None and os.path.abspath(script) in {
        os.path.join(PROJECT, f"{name}.py") for name in COMMANDS
    }


if is_command():
    sys.excepthook = explain_import_error
