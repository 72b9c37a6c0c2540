"""Work shared out to processes: results as they come, Ctrl-C and killed workers included."""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any


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
    Raises what `function` raises, and RuntimeError when a worker dies.
    """
    if workers == 1:
        yield from map(function, items)
        return
    source = iter(items)
    running: dict[Future, list] = {}
    # Spawned, not forked: a fork copies the locks of threads that do not exist in the copy.
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
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
            suspects = [str(item) for batch in running.values() for item in batch]
            raise RuntimeError(
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


def _end_with_parent() -> None:
    """In a worker: end at once when the main process is gone, even by SIGKILL."""

    def watch() -> None:
        connection.wait([parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
