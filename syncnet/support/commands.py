"""What all commands have in common: flags and their help, errors in one line, the exit status.

A command looks like this:

    if __name__ == "__main__":
        answer_flags(parse_args)  # --help and wrong flags, ahead of slow imports
    import torch

    @command
    def main(argv: list[str] | None = None) -> int:
        args = parse_args(argv)
        ...

    if __name__ == "__main__":
        sys.exit(main())
"""

import argparse
import contextlib
import errno
import functools
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Protocol, TextIO

from syncnet.support.errors import UserError, is_out_of_memory
from syncnet.support.names import did_you_mean
from syncnet.support.processes import is_rerun_of_script
from syncnet.support.version import version_text

SYSTEMS = "This program runs on Linux and macOS. On Windows, run it in WSL: https://aka.ms/wsl"
FAILED, WRONG_FLAGS = 1, 2
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
STOPPED, NOBODY_READS = 128 + signal.SIGINT, 128 + 13  # as a shell reports SIGINT and SIGPIPE


class Command(Protocol):
    """What is called with a command line, by default that of the process, and gives an exit status."""

    def __call__(self, argv: list[str] | None = None) -> int: ...


def command(
    main: Callable[[list[str] | None], int],
    no_memory: str = "Close other programs, or use a machine with more memory",
) -> Command:
    """Make `main` a command: it returns an exit status and leaves no traceback for what is not its fault.

    UserError, OSError (what the system refuses) and too little memory, for which no_memory is the remedy, become one
    line on stderr, `name.py: message`, and status 1.
    Ctrl-C gives a sentence and 130; a reader of the output who leaves (`| head`) ends it with 141. Anything else is
    a fault of the program, and keeps its traceback. Text that the terminal cannot show is printed with backslashes.
    """
    name = os.path.basename(main.__code__.co_filename)

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        prepare()
        if is_rerun_of_script():
            raise SystemExit(FAILED)  # map_in_processes, where the script called this, says why
        try:
            status = main(argv)
            sys.stdout.flush()  # a pipe that nobody reads shows here, and not when all is over
        except KeyboardInterrupt:
            print("\nStopped.", file=sys.stderr)
            return STOPPED
        except BrokenPipeError:
            for stream in (sys.stdout, sys.stderr):
                _point_to_nowhere(stream)
            return NOBODY_READS
        except Exception as error:
            message = for_user(error, no_memory)
            if message is None:
                raise
            print(f"{name}: {message}", file=sys.stderr, flush=True)
            _report_to_torchrun(f"{name}: {message}")
            return FAILED
        return status

    return run


def for_user(error: Exception, no_memory: str) -> str | None:
    """An error in one line, with a remedy; None for a fault of the program. no_memory: the remedy for that."""
    if is_out_of_memory(error):
        where = " on the GPU" if re.search("CUDA|CUBLAS|CUDNN", str(error)) else ""
        asked = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
        file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        found = f"{os.strerror(errno.ENOMEM)}{where}" + (f" ({asked[1]} more)" if asked else "")
        return f"{file}{found}. {no_memory}"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"{in_words(error)}. Make room, then run the same command again"
    return in_words(error) if isinstance(error, (UserError, OSError)) else None


def is_first_process() -> bool:
    """Is this the process that speaks for all, of those that torchrun may have started?"""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"


def _report_to_torchrun(message: str) -> None:
    """Make torchrun's report, the last thing that it prints, end with our message."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        reply = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": reply}, file)


def prepare() -> None:
    """Stop where the program cannot run; let text be printed that the terminal cannot show."""
    if sys.platform == "win32" or not hasattr(signal, "pthread_sigmask"):
        raise SystemExit(SYSTEMS)
    _replace_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _replace_missing_streams() -> None:
    """Put the null device where this process was started without input or output (`>&-`), for its workers too."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, mode)  # noqa: SIM115 (for the life of the process)
            os.set_inheritable(nowhere.fileno(), True)
            setattr(sys, name, nowhere)


def answer_flags(parse_args: Callable[[], object]) -> None:
    """Answer --help and wrong flags at once, ahead of imports that take seconds; main() parses them again."""
    prepare()
    parse_args()


def in_words(error: BaseException) -> str:
    """An error's message; of an OSError, the file and the reason without the number."""
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror}"
    return str(error)


def _point_to_nowhere(stream: TextIO) -> None:
    """Let what is left in a stream's buffer go where it cannot fail."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):  # a stream that is no file
        pass


# ---------------------------------------------------------------- flags


class Help(argparse.RawDescriptionHelpFormatter):
    """Help texts with the default at the end, where there is one and the text does not name it itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.default
        if not action.option_strings or "%(default)" in text or "default" in text:
            return text
        if (
            default is None
            or default is argparse.SUPPRESS
            or isinstance(default, bool)
            or default in ("", [])
        ):
            return text
        if isinstance(default, (list, tuple)):
            return f"{text} (default: {' '.join(map(str, default))})"
        return f"{text} (default: %(default)s)"


class Version(argparse.Action):
    """Print the versions, which are looked up only now because that imports PyTorch, and exit."""

    def __init__(self, **settings: Any) -> None:  # those of Action
        nothing = argparse.SUPPRESS
        super().__init__(**settings | {"dest": nothing, "default": nothing, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version_text())
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes flags in full only, and says which one a misspelt flag may have meant.

    example: command lines, one each, for the end of the help.
    """

    def __init__(self, *, example: Sequence[str] = (), **settings: Any) -> None:  # those of ArgumentParser
        settings.setdefault("formatter_class", Help)
        settings.setdefault("allow_abbrev", False)
        if example:
            lines = "\n".join(f"  {line}" for line in example)
            epilog = settings.get("epilog")
            settings["epilog"] = (f"{epilog}\n\n" if epilog else "") + f"example:\n{lines}"
        super().__init__(**settings)
        if self.add_help:
            self.add_argument("--version", action=Version, help="print the versions and exit")

    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        given = list(sys.argv[1:] if args is None else args)
        self._refuse_unknown(given)
        return super().parse_known_args(self._numbers_last(given), namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        if is_first_process():
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_FLAGS, f"usage: {self.prog} --help shows all flags\n{self.prog}: error: {message}\n")

    def _refuse_unknown(self, given: list[str]) -> None:
        """Ahead of argparse, which would complain first of a required flag that was only misspelt."""
        commands = [
            name for action in self._actions if isinstance(action.choices, dict) for name in action.choices
        ]
        known = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        for argument in given:
            if argument == "--" or argument in commands:  # what follows are no flags, or those of a command
                return
            flag = argument.split("=")[0]
            if not re.match(r"-{1,2}[A-Za-z]", flag) or " " in flag or flag in self._option_string_actions:
                continue
            meant = did_you_mean(flag.lstrip("-"), known)
            self.error(f"unrecognized flag {flag}" + (f"; did you mean --{meant}?" if meant else ""))

    def _numbers_last(self, given: list[str]) -> list[str]:
        """`--ways 2 10 list.txt` as `list.txt --ways 2 10`: a flag of several numbers takes numbers only."""
        moved: list[str] = []
        for action in self._actions:
            if action.nargs != "+" or not action.option_strings or action.type is None:
                continue
            for flag in (name for name in action.option_strings if name in given):
                first = given.index(flag)
                last = first + 1
                while last < len(given) and _is_number(given[last]):
                    last += 1
                if last > first + 1 and "--" not in given:
                    moved += given[first:last]
                    given = given[:first] + given[last:]
        return given + moved


def retyped(script: str, argv: Sequence[str] | None, **changes: object) -> str:
    """A command line with other values for some flags, for a message: it can be typed as it is.

    argv: what was typed after the script, None for this process's own. changes: value by flag, without the dashes.
    """
    kept: list[str] = []
    skip = False
    for word in sys.argv[1:] if argv is None else argv:
        flag = word.split("=")[0]
        if skip:
            skip = False
        elif flag.startswith("--") and flag[2:] in changes:
            skip = "=" not in word
        else:
            kept.append(word)
    added = [str(part) for flag, value in changes.items() for part in (f"--{flag}", value)]
    return f"python {script} {shlex.join([*kept, *added])}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def at_least(kind: type, least: float) -> Callable[[str], float]:
    """An argparse type: a finite number not below `least`."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"found {text}, needs at least {least}")
        return value

    number.__name__ = kind.__name__
    return number
