"""Shared by all commands: flags and help texts, one-line error messages, exit statuses.

A command looks like this:

    if __name__ == "__main__":
        answer_flags(parse_args)  # --help and wrong flags, before slow imports
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
from typing import Any, NoReturn

from syncnet.support import remedies
from syncnet.support.errors import UserError, is_out_of_memory
from syncnet.support.names import did_you_mean
from syncnet.support.processes import is_first_process, is_rerun_of_script
from syncnet.support.version import version_text

FAILED, WRONG_FLAGS = 1, 2
INTERRUPTED, BROKEN_PIPE = 128 + signal.SIGINT, 128 + 13  # as a shell reports SIGINT and SIGPIPE


def command(main: Callable[[list[str] | None], int]) -> Callable[..., int]:
    """Make `main` a command: it returns an exit status, and errors that the user can fix print no traceback.

    UserError, OSError and out-of-memory errors become one line on stderr, `name.py: message`, and status 1. Ctrl-C
    returns 130; a closed output pipe (`| head`) returns 141. Any other exception is a bug and keeps its traceback.
    Characters that the terminal cannot show are printed as escapes.
    """
    name = os.path.basename(main.__code__.co_filename)

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        prepare()
        if is_rerun_of_script():
            raise SystemExit(FAILED)  # map_in_processes reports why in the parent process
        try:
            status = main(argv)
            print(end="", flush=True)  # report a closed pipe here, not at exit
        except KeyboardInterrupt:
            print("\nStopped.", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            # Python flushes stdout at exit; redirect it so that this cannot fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except Exception as error:
            message = user_message(error, name)
            if message is None:
                raise
            print(f"{name}: {message}", file=sys.stderr, flush=True)
            _report_to_torchrun(f"{name}: {message}")
            return FAILED
        return status

    return run


def user_message(error: Exception, command: str) -> str | None:
    """Return an error as one line with a remedy, or None for a bug. command: file name of the script that failed."""
    if is_out_of_memory(error):
        where = " on the GPU" if re.search("CUDA|CUBLAS|CUDNN", str(error)) else ""
        requested = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
        file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        found = f"{os.strerror(errno.ENOMEM)}{where}" + (f" ({requested[1]} more)" if requested else "")
        return f"{file}{found}. {remedies.OUT_OF_MEMORY.get(command, remedies.CLOSE_PROGRAMS)}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error_text(error)}. {remedies.DISK_FULL}"
    return error_text(error) if isinstance(error, (UserError, OSError)) else None


def _report_to_torchrun(message: str) -> None:
    """Make torchrun's report, which it prints last, end with our message."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        reply = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": reply}, file)


def prepare() -> None:
    """Print characters that the terminal cannot show as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def answer_flags(parse_args: Callable[[], object]) -> None:
    """Handle --help and wrong flags before imports that take seconds; main() parses the flags again."""
    prepare()
    parse_args()


def error_text(error: BaseException) -> str:
    """Return an error's message; for an OSError, the file and the reason without the error number."""
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror}"
    return str(error)


# ---------------------------------------------------------------- flags


class Help(argparse.RawDescriptionHelpFormatter):
    """Appends the default to each help text, unless there is none or the text mentions it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if not action.option_strings or "default" in text or isinstance(default, bool):
            return text
        if default in (None, argparse.SUPPRESS, "", []):
            return text
        if isinstance(default, (list, tuple)):
            return f"{text} (default: {' '.join(map(str, default))})"
        return f"{text} (default: %(default)s)"


class Version(argparse.Action):
    """Print the versions and exit. They are looked up only on request, because that imports torchaudio."""

    def __init__(self, **settings: Any) -> None:  # as for Action
        super().__init__(**settings | {"default": argparse.SUPPRESS, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version_text())
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations that suggests the correct name of a misspelled flag.

    example: command lines to show at the end of the help.
    """

    def __init__(self, *, example: Sequence[str] = (), **settings: Any) -> None:  # as for ArgumentParser
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
        return super().parse_known_args(given, namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        if is_first_process():
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_FLAGS, f"usage: {self.prog} --help shows all flags\n{self.prog}: error: {message}\n")

    def _refuse_unknown(self, given: list[str]) -> None:
        """Report unknown flags before argparse reports a required flag as missing: it may only be misspelled."""
        commands = [
            name for action in self._actions if isinstance(action.choices, dict) for name in action.choices
        ]
        known = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        for argument in given:
            if argument == "--" or argument in commands:  # values or flags of a subcommand follow
                return
            flag = argument.split("=")[0]
            if not re.match(r"-{1,2}[A-Za-z]", flag) or " " in flag or flag in self._option_string_actions:
                continue
            meant = did_you_mean(flag.lstrip("-"), known)
            self.error(f"unrecognized flag {flag}" + (f"; did you mean --{meant}?" if meant else ""))


def retyped(script: str, argv: Sequence[str] | None, **changes: object) -> str:
    """Return a shell command line with new values for some flags, for a message.

    argv: arguments of the script; None: those of this process. changes: new values by flag name, without dashes.
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


def at_least(kind: type, least: float) -> Callable[[str], float]:
    """Return an argparse type for finite numbers of at least `least`."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"found {text}, needs at least {least}")
        return value

    number.__name__ = kind.__name__
    return number
