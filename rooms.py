"""What comes ahead of all other imports: the right Python, this project's packages beside a caller's, and Ctrl-C.

Imported first by every command, and by every file that other programs import. `models`, `media` and the like are
common names: a caller's package of such a name keeps its own modules, and ours are found in it as well.
"""

import importlib
import os
import sys
from types import TracebackType

if sys.version_info < (3, 10):  # noqa: UP036 (whoever has an older one is to be told)
    raise SystemExit(
        f"Python 3.10 or newer is needed, and this is {sys.version.split()[0]} ({sys.executable}). ./demo.sh and "
        "./test.sh make .venv with a right one: then `source .venv/bin/activate`"
    )

PROJECT = os.path.dirname(os.path.abspath(__file__))
COMMANDS = (
    *("trainSyncNet", "makeFileList", "convertAudio", "makeFaceTracks", "makeDemoData"),
    *("inferSyncNet", "tuneThreshold"),
)
ROOMS = ("support", "media", "models", "training", "verification", "inference")


def share(room: str) -> None:
    """Let `room` hold our modules and those of a caller's package of that name, where there is one.

    Raises ImportError when both have a module of the same name.
    """
    own = os.path.join(PROJECT, room)
    package = importlib.import_module(room)
    folders = list(getattr(package, "__path__", []))
    if own in map(os.path.abspath, folders):
        # A folder without __init__.py loses to ours wherever it stands in sys.path; its owner expects to find it.
        places = [os.path.abspath(place) for place in sys.path]
        before = places[: places.index(PROJECT)] if PROJECT in places else []
        folders += [os.path.join(place, room) for place in before if os.path.isdir(os.path.join(place, room))]
    else:
        for module in sorted(os.listdir(own)):
            for folder in folders:
                other = os.path.join(folder, module)
                if module.endswith(".py") and module != "__init__.py" and os.path.exists(other):
                    raise ImportError(
                        f"{other} is in the way of {os.path.join(own, module)}: both are {room}.{module[:-3]}. "
                        f"Rename yours, or let sys.path.insert(0, {PROJECT!r}) come before the first import."
                    )
        folders.append(own)
    package.__path__ = folders


def say_shortly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A sys.excepthook for commands: what a user does, or has not installed, is no fault of the program to be traced.

    That is Ctrl-C during the imports, which take seconds, and a package that this Python does not have.
    """
    missing = (getattr(error, "name", None) or "").split(".")[0]
    if issubclass(kind, KeyboardInterrupt):
        print("\nStopped.", file=sys.stderr)
    elif issubclass(kind, ModuleNotFoundError) and missing not in ("", *ROOMS):
        print(
            f"{sys.executable} has no package {missing}. Type `source .venv/bin/activate` in {PROJECT} first "
            f"(./demo.sh and ./test.sh make .venv), or `pip install -r {os.path.join(PROJECT, 'requirements.txt')} "
            f"-c {os.path.join(PROJECT, 'constraints.txt')}`",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


def is_command() -> bool:
    """Is the running script one of this project's commands? A caller's own may stand beside them."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return script is not None and os.path.abspath(script) in {
        os.path.join(PROJECT, f"{name}.py") for name in COMMANDS
    }


if is_command():
    sys.excepthook = say_shortly
for _room in ROOMS:
    share(_room)
