"""A parallel map over worker processes that yields results as they arrive and handles Ctrl-C and killed workers."""

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, current_process, get_context, parent_process
from multiprocessing.synchronize import Event
from typing import Any

from syncnet.support.errors import UserError
from syncnet.support.remedies import FEWER_WORKERS, MAIN_GUARD, ONE_WORKER


class WorkerError(UserError):
    """Worker processes could not start, or one died."""


def available_cores() -> int:
    """Return the number of CPU cores available to this process; on a shared machine, fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, chunk: int = 1
) -> Iterator[Any]:
    """Yield function(item) for all items, in order of completion, computed by `workers` processes.

    function: importable by name (or a functools.partial of such a function). chunk: items sent to a worker at once;
    use more than 1 if items take less time than sending them. With one worker, everything runs in this process.
    On an early exit (Ctrl-C), waits for the items in progress. Workers exit if this process is killed.
    Raises what `function` raises, or WorkerError if the workers cannot start or one dies.
    """
    if workers == 1:
        yield from map(function, items)
        return
    if is_rerun_of_script():
        raise SystemExit(1)  # the parent process reports why
    check_script()
    source = iter(items)
    running: dict[Future, list] = {}
    # Spawned, not forked: a fork copies locks but not the threads that hold them.
    context = get_context("spawn")
    try:
        started = context.Event()
        executor = ProcessPoolExecutor(workers, context, _start_worker, (started,))
    except (OSError, ImportError, NotImplementedError) as error:  # shared memory is not available
        reason = getattr(error, "strerror", None) or str(error)
        raise WorkerError(
            f"worker processes need shared memory, which is not available here (/dev/shm: {reason}); {ONE_WORKER}"
        ) from None
    with executor as pool:
        try:
            while True:
                # Three chunks per worker keep all workers busy without queueing a million items.
                while len(running) < 3 * workers and (batch := list(itertools.islice(source, chunk))):
                    with _ctrl_c_deferred():
                        running[pool.submit(_map, function, batch)] = batch
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield from done.result()
                    del running[done]
        except BrokenProcessPool:
            if not started.is_set():
                raise WorkerError(f"no worker process could start. {MAIN_GUARD}.") from None
            suspects = [str(item) for batch in running.values() for item in batch]
            raise WorkerError(
                "a worker process died (killed, out of memory, or a file that crashes the decoder). "
                f"It was working on one of: {', '.join(suspects[:20])}. {FEWER_WORKERS}."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _map(function: Callable[[Any], Any], batch: list) -> list:
    return [function(item) for item in batch]


@contextlib.contextmanager
def _ctrl_c_deferred() -> Iterator[None]:
    """Defer Ctrl-C while worker processes start; the workers never receive it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []
    # The workers inherit the mask; the handler catches a signal that is delivered to another thread.
    handler = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if pressed and callable(handler):
        handler(signal.SIGINT, None)


def is_rerun_of_script() -> bool:
    """Return True in a worker that is still importing the script of its parent process."""
    return bool(getattr(current_process(), "_inheriting", False))


def check_script() -> None:
    """Raise WorkerError if worker processes cannot import the running script."""
    script = sys.modules["__main__"]
    path = getattr(script, "__file__", None)
    if path is not None and getattr(script, "__spec__", None) is None and not os.path.isfile(path):
        raise WorkerError(
            f"the script comes from {path}, but must be a file to start worker processes. {MAIN_GUARD}."
        )


def _start_worker(started: Event) -> None:
    """In a worker: exit as soon as the main process is gone, even after SIGKILL."""
    started.set()
    main = parent_process()
    assert main is not None  # only workers call this

    def watch() -> None:
        connection.wait([main.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_first_process() -> bool:
    """Return False only in a process that torchrun started with a rank other than 0."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"
