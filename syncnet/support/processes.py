"""Work shared out to processes: results as they come, Ctrl-C and killed workers included."""

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

NO_WORKERS = "use nWorkers 1 (--nWorkers 1), which starts none"
GUARD = (
    "Worker processes run the script that starts them once more, so what it does must stand under "
    f'`if __name__ == "__main__":`. Or {NO_WORKERS}'
)


class WorkerError(UserError):
    """Worker processes that could not start, or died."""


def available_cores() -> int:
    """Processor cores that this process may use: on a shared machine fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, chunk: int = 1
) -> Iterator[Any]:
    """Yield function(item) for all items, in the order in which they are done, from `workers` processes.

    function: importable by name (or a functools.partial of such). chunk: items handed over at a time,
    for work so short that the hand-over would count. With one worker everything is done in this process.
    Leaving early (Ctrl-C) waits for the items in hand. The workers end when this process is killed.
    Raises what `function` raises, and WorkerError when the workers cannot start or one dies.
    """
    if workers == 1:
        yield from map(function, items)
        return
    if is_rerun_of_script():
        raise SystemExit(1)  # the process that started this one says why
    check_script()
    source = iter(items)
    running: dict[Future, list] = {}
    # Spawned, not forked: a fork copies the locks of threads that do not exist in the copy.
    context = get_context("spawn")
    try:
        started = context.Event()
        executor = ProcessPoolExecutor(workers, context, _start_worker, (started,))
    except (OSError, ImportError, NotImplementedError) as error:  # no memory that processes could share
        reason = getattr(error, "strerror", None) or str(error)
        raise WorkerError(
            f"worker processes need shared memory, which cannot be had here (/dev/shm: {reason}); {NO_WORKERS}"
        ) from None
    with executor as pool:
        try:
            while True:
                # Three hand-overs a worker keep all of them busy without queueing a million items.
                while len(running) < 3 * workers and (batch := list(itertools.islice(source, chunk))):
                    with _ctrl_c_held_back():
                        running[pool.submit(_map, function, batch)] = batch
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield from done.result()
                    del running[done]
        except BrokenProcessPool:
            if not started.is_set():
                raise WorkerError(f"no worker process could start. {GUARD}.") from None
            suspects = [str(item) for batch in running.values() for item in batch]
            raise WorkerError(
                "a worker process died (killed, out of memory, or a file that crashes the decoder). "
                f"It was at one of: {', '.join(suspects[:20])}. Run again, with a smaller --nWorkers."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _map(function: Callable[[Any], Any], batch: list) -> list:
    return [function(item) for item in batch]


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """For starting worker processes: Ctrl-C waits until it is done, and they themselves never see one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []
    # The mask is what the workers inherit; the handler is for a signal that another thread takes.
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
    """Is this a worker that is still importing the script of the process that started it?"""
    return bool(getattr(current_process(), "_inheriting", False))


def check_script() -> None:
    """Raise WorkerError where the running script is none that worker processes could import."""
    script = sys.modules["__main__"]
    path = getattr(script, "__file__", None)
    if path is not None and getattr(script, "__spec__", None) is None and not os.path.isfile(path):
        raise WorkerError(
            f"the script comes from {path}, and must be a file to start worker processes. {GUARD}."
        )


def _start_worker(started: Event) -> None:
    """In a worker: end at once when the main process is gone, even by SIGKILL."""
    started.set()
    main = parent_process()
    assert main is not None  # only workers come here

    def watch() -> None:
        connection.wait([main.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
