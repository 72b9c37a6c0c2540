import contextlib
import errno
import gc
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from undrawn import Undrawn

# The same examples in every run; `--hypothesis-profile=default` draws others.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

# A shell starts background jobs with Ctrl-C ignored; what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def same_number_of_threads():
    """Tests leave PyTorch's thread count as they found it."""
    before = threads()
    yield
    if before and threads() != before:
        sys.modules["torch"].set_num_threads(before)


def threads() -> int | None:
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


@pytest.fixture(autouse=True)
def curves_are_not_drawn(request, monkeypatch):
    """Only tests marked `draws` draw the curves of a run or an evaluation."""
    if request.node.get_closest_marker("draws"):
        return
    if "syncnet.training.log" in sys.modules:
        monkeypatch.setattr("syncnet.training.log.TrainingLog.drawn", lambda _: Undrawn)
    if "syncnet.verification.report" in sys.modules:
        monkeypatch.setattr("syncnet.verification.report.plot_det", lambda _, path: Path(path).touch())


# Begun first, so that the processes of a run end together.
LONGEST = ("oracle", "distributed", "resume", "export", "make_face_tracks", "train_command")


def begin_with_the_longest(item: pytest.Item) -> int:
    name = item.path.stem.removeprefix("test_")
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first. Skip tests marked `gpu` without a GPU."""
    items.sort(key=begin_with_the_longest)
    if marked := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        for item in marked if not torch.cuda.is_available() else []:
            item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.fixture(autouse=True, scope="module")
def imported_modules_are_not_garbage() -> None:
    """Searching all that the tests have imported takes a collection a third of a second, and the suite a tenth."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def one_thread() -> None:
    """Sums in one order, for runs that are compared bit by bit."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def closed(monkeypatch) -> Callable[[object], None]:
    """Closes a folder to reading, for a superuser too."""
    real, folders = os.scandir, set()

    def scandir(path="."):
        if str(path) in folders:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return lambda folder: folders.add(str(folder))


@pytest.fixture
def stopped_at() -> Callable[[int], contextlib.AbstractContextManager]:
    """A context in which a run fails at its step of that number, training and validation counted together."""
    from SyncNetDist import SyncNet

    real = SyncNet.forward

    @contextlib.contextmanager
    def stopped(number: int) -> Iterator[None]:
        steps = itertools.count(1)

        def forward(self, *args):
            if next(steps) == number:
                raise OSError("stopped")
            return real(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SyncNet, "forward", forward)
            yield

    return stopped
