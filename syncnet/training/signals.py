"""Signals that ask a training run to save its state and stop."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from syncnet.compute import distributed

# Ctrl-C, schedulers (USR1 is Slurm's usual warning), a closed terminal.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
SAME_REQUEST = 10.0  # seconds within which further signals count as the same request


class Interrupted(Exception):
    """A signal asked the run to stop, and its state has been saved."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """A request to stop the run, made by a signal to this process or another one.

    All processes must call the methods at the same step. device: the run's device. steps_per_fetch: steps between
    checks, because on a GPU the host has to wait for each check.
    """

    def __init__(self, device: torch.device, steps_per_fetch: int):
        self.device, self.steps_per_fetch = device, steps_per_fetch
        self.signals: list[int] = []

    def requested(self, step: int = 0) -> bool:
        return step % self.steps_per_fetch == 0 and distributed.any_of(bool(self.signals), self.device)

    def stop(self) -> None:
        """Raise Interrupted; the state must already be saved."""
        raise Interrupted(self.signals[0] if self.signals else signal.SIGTERM)

    def stop_if_requested(self, step: int = 0) -> None:
        """Raise Interrupted after a request; the state must already be saved."""
        if self.requested(step):
            self.stop()


@contextmanager
def stop_signals(device: torch.device, steps_per_fetch: int = 1) -> Iterator[StopRequest]:
    """Collect SIGINT, SIGTERM, SIGUSR1 and SIGHUP; another signal after SAME_REQUEST seconds ends the process.

    Within that time, signals count as the same request: Slurm, a terminal and torchrun each send one, and the state
    may be in the middle of being saved. SIGHUP stays ignored under nohup.
    Only the main thread can handle signals; in other threads, no request arrives.
    """
    request = StopRequest(device, steps_per_fetch)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    first = 0.0
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def note(number: int, _frame: object) -> None:
        nonlocal first
        if number == signal.SIGHUP:  # the terminal may be gone, and writing to it would fail
            for terminal in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)
        if not request.signals:
            first = time.monotonic()
        elif time.monotonic() - first > SAME_REQUEST:
            os._exit(128 + number)
        request.signals.append(number)

    ignored = [number for number in (signal.SIGHUP,) if signal.getsignal(number) == signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in STOP_SIGNALS if number not in ignored}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
