"""What all commands share: help, misspelled flags, errors in one line, terminals, systems."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import syncnet
from syncnet.support.commands import Parser, command
from syncnet.support.errors import UserError
from syncnet.support.names import did_you_mean
from syncnet.support.version import VERSION

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ["trainSyncNet", "makeFileList", "convertAudio", "makeFaceTracks", "makeDemoData", "inferSyncNet"]
COMMANDS += ["tuneThreshold"]
SLOW = ("torch", "cv2", "scipy", "sklearn", "matplotlib", "av")
INFERENCE = ("embed", "verify", "offset", "resync", "lse", "accuracy", "speakers", "show", "match")


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """A command in a process in which the slow packages cannot be imported."""
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({SLOW})); sys.argv = sys.argv[1:]"
    code += "; sys.path.insert(0, '.'); runpy.run_path(sys.argv[0], run_name='__main__')"
    line = [sys.executable, "-c", code, f"{arguments[0]}.py", *arguments[1:]]
    return subprocess.run(line, cwd=REPOSITORY, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_slow_imports_and_ends_with_an_example(name):
    done = start(name, "--help")
    assert done.returncode == 0, done.stderr
    check_help(name, done.stdout)


def check_help(name: str, text: str) -> None:
    assert f"python {name}.py" in text.split("example:\n")[1]
    assert "(default: )" not in text and "(default: None)" not in text


def test_help_of_each_command_of_inference():
    code = f"""if True:
        import runpy, sys
        sys.modules.update(dict.fromkeys({SLOW}))
        sys.path.insert(0, ".")
        for name in {INFERENCE}:
            sys.argv = ["inferSyncNet.py", name, "--help"]
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit:
                print("END")"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    *helps, rest = done.stdout.split("END\n")
    assert len(helps) == len(INFERENCE) and not rest, done.stderr
    for text in helps:
        check_help("inferSyncNet", text)


def test_version_needs_no_package():
    done = start("inferSyncNet", "--version")
    assert done.returncode == 0 and done.stdout.startswith(f"SyncNet trainer {VERSION} (python 3.")
    assert " torch 2." in done.stdout and " numpy " in done.stdout


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.version_info = (3, 9, 18)", "Python 3.10 or newer is needed, and this is "),
        ("sys.path[:] = [p for p in sys.path if 'site-packages' not in p]", " has no package "),
    ],
)
def test_an_unsuitable_python_is_reported_in_one_line(code, message, tmp_path):
    """Too old, or without the packages, as before `source .venv/bin/activate`."""
    script = REPOSITORY / "makeFileList.py"
    code = f"import runpy, sys; {code}; sys.argv = sys.argv[1:]; sys.path.insert(0, {str(REPOSITORY)!r})"
    code += "; runpy.run_path(sys.argv[0], run_name='__main__')"
    flags = ["--output", tmp_path / "list", "--mp4_dir", tmp_path, "--wav_dir", tmp_path, "--no_txt"]
    done = subprocess.run([sys.executable, "-c", code, script, *flags], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert message in done.stderr and "source .venv/bin/activate" in done.stderr


def test_wrong_flags_need_no_slow_imports():
    done = start("trainSyncNet", "--max_frames", "50")
    assert done.returncode == 2 and "did you mean --maxFrames?" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("trainSyncNet --batch_size=8", "nBatchSize"),
        ("trainSyncNet --NBATCHSIZE 8", "nBatchSize"),
        ("trainSyncNet --epochs 3", "max_epoch"),
        ("trainSyncNet --initial-model x", "initial_model"),
        ("trainSyncNet -maxFrames 3", "maxFrames"),
        ("trainSyncNet --tain_list x", "train_list"),
        ("makeFileList --outptu x --mp4_dir y", "output"),
        ("makeFileList --num_workers 2", "nWorkers"),
        ("convertAudio --folder x", None),
        ("makeDemoData --speaker 5", "speakers"),
        ("inferSyncNet verify a b --max_frames 3", "maxFrames"),
        ("inferSyncNet embed a --out x.npz", "output"),
        ("tuneThreshold x --bootstraps 3", "bootstrap"),
    ],
)
def test_did_you_mean(arguments, meant, capsys):
    name, *flags = arguments.split()
    with pytest.raises(SystemExit) as end:
        __import__(name).parse_args(flags)
    said = capsys.readouterr().err
    wrong = next(flag for flag in flags if flag.startswith("-")).split("=")[0]
    assert end.value.code == 2 and f"unrecognized flag {wrong}" in said
    if meant:
        assert said.rpartition("did you mean ")[2] == f"--{meant}?\n"
    else:
        assert "did you mean" not in said


def test_similar_names():
    assert did_you_mean("max_frames", ["maxFrames", "maxQueueSize"]) == "maxFrames"
    assert did_you_mean("batch_size", ["lr"]) is None and did_you_mean("nonsense", ["maxFrames"]) is None


def test_values_are_not_mistaken_for_flags():
    parser = Parser()
    parser.add_argument("--shift", type=float)
    parser.add_argument("--ways", type=int, nargs="+", default=[2])
    parser.add_argument("file")
    assert parser.parse_args(["--shift", "-3", "a b"]).shift == -3
    assert parser.parse_args(["--", "--odd name"]).file == "--odd name"
    for line in ("x --ways 2 10", "--ways 2 10 --shift 1 x"):
        found = parser.parse_args(line.split())
        assert (found.file, found.ways) == ("x", [2, 10])


def test_defaults_in_the_help():
    parser = Parser(prog="x", example=["x --a 1"])
    for number, default in enumerate((None, "", False, 3, [2, 10])):
        parser.add_argument(f"--flag{number}", default=default, help="what it does")
    lines = [line.strip() for line in parser.format_help().splitlines() if "what it does" in line]
    shown = ["", "", "", " (default: 3)", " (default: 2 10)"]
    assert [line.partition("what it does")[2] for line in lines] == shown


# ---------------------------------------------------------------- errors


def ending(error: BaseException | None, capsys) -> tuple[int, str]:
    @command
    def main(argv: list[str] | None = None) -> int:  # noqa: ARG001
        if error:
            raise error
        print("Jürgen 視頻 \udcff")
        return 0

    status = main()
    said = capsys.readouterr()
    return status, said.err


def test_errors_that_a_user_can_fix_are_one_line(tmp_path, capsys):
    name = os.path.basename(__file__)
    assert ending(UserError("x.wav: wrong"), capsys) == (1, f"{name}: x.wav: wrong\n")
    with pytest.raises(FileNotFoundError) as missing:
        os.stat(tmp_path / "none")
    assert ending(missing.value, capsys) == (1, f"{name}: {tmp_path}/none: No such file or directory\n")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    make_room = "Free some space, then run the same command again"
    assert ending(full, capsys) == (1, f"{name}: No space left on device. {make_room}\n")
    assert ending(KeyboardInterrupt(), capsys) == (130, "\nStopped.\n")


GPU_IS_FULL = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.64 GiB."


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), "Cannot allocate memory"),
        (MemoryError("Unable to allocate 1.5 GiB for an array"), "Cannot allocate memory (1.5 GiB more)"),
        (OSError(errno.ENOMEM, "x", "a.model"), "a.model: Cannot allocate memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("no more"), "Cannot allocate memory"),
        (RuntimeError(GPU_IS_FULL), "Cannot allocate memory on the GPU (20.00 MiB more)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 72 bytes. Error"),
            "Cannot allocate memory (72 bytes more)",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "Cannot allocate memory on the GPU"),
        (
            type("error", (Exception,), {})("(-4:Insufficient memory) Failed to allocate 9 bytes"),
            "(9 bytes more)",
        ),
    ],
)
def test_too_little_memory_is_one_line_with_a_remedy(error, found, capsys):
    status, said = ending(error, capsys)
    assert status == 1 and len(said.splitlines()) == 1
    assert f"{found}. Close other programs, or use a machine with more memory\n" in said


@pytest.mark.parametrize("error", [ValueError("inner"), RuntimeError("inner"), KeyError("x")])
def test_bugs_keep_their_traceback(error, capsys):
    with pytest.raises(type(error)):
        ending(error, capsys)


@pytest.mark.parametrize(
    ("name", "moment"),
    [("convertAudio", "syncnet.support.version"), ("trainSyncNet", "numpy")]
    + [(name, "argparse") for name in COMMANDS],
)
def test_ctrl_c_during_the_imports(name, moment):
    """From the first import on, whatever the flags."""
    code = f"""if True:
        import runpy, sys
        sys.modules.pop({moment!r}, None)
        class Pressed:
            def find_spec(module, *_):
                if module == {moment!r}:
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Pressed)
        sys.path.insert(0, ".")
        sys.argv = [{name + ".py"!r}]
        runpy.run_path(sys.argv[0], run_name="__main__")"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr == "\nStopped.\n" and done.returncode == -signal.SIGINT  # a shell reports 130


@pytest.mark.parametrize("name", [*COMMANDS, "mine"])
def test_other_scripts_are_not_commands(monkeypatch, name):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(REPOSITORY / f"{name}.py"), raising=False)
    assert syncnet.is_command() == (name != "mine")


def test_a_callers_excepthook_is_unchanged(tmp_path):
    (tmp_path / "own.py").write_text("import sys, tuneThreshold; assert sys.excepthook is sys.__excepthook__")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run([sys.executable, tmp_path / "own.py"], env=environment).returncode == 0


def test_a_closed_pipe_gives_no_traceback():
    code = "import sys; from syncnet.support.commands import command\n@command\ndef main(argv=None):\n    "
    code += "print('x' * 10_000_000); return 0\nsys.exit(main())"
    line = f'{sys.executable} -c "$CODE" | head -c 1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line], cwd=REPOSITORY, env=os.environ | {"CODE": code}, capture_output=True, text=True
    )
    assert done.stdout == "x141\n" and done.stderr == ""


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_any_text_on_any_terminal(encoding):
    code = "import sys; from syncnet.support.commands import command\n@command\ndef main(argv=None):\n    "
    code += "print('Jürgen 視頻 \\udcff'); print('視', file=sys.stderr); return 0\nsys.exit(main())"
    line = [sys.executable, "-c", code]
    done = subprocess.run(
        line, cwd=REPOSITORY, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode(encoding)
    assert said.startswith("J") and "\\udcff" in said
    assert ("視頻" if encoding == "utf-8" else "\\u8996\\u983b") in said


def test_windows_is_refused_with_a_remedy():
    line = [sys.executable, "-c", "import sys; sys.platform = 'win32'; import tuneThreshold"]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("This program runs on Linux and macOS. On Windows, run it in WSL")
