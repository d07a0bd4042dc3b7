"""The host's signals: handlers for as long as it runs, and a loop that notices them at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


@contextlib.contextmanager
def handled(handlers: Mapping[str, Handler]) -> Iterator[None]:
    """Handle the signals of these names, those that the system has; afterwards everything is as it was.

    Handlers run between two bytecodes of the main thread, also while the loop is busy. Where Python allows no
    handlers (outside the main thread) nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # signal.signal and not the loop's own handlers: Windows has only these, and a blocked loop is stopped too.
    numbers = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have every signal wake *loop*, which runs on this thread.

    One that arrives just before the loop goes to sleep would otherwise be handled when something else wakes it.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # the loop of Windows does so itself
        return
    ours, written_by_signals = socket.socketpair()
    with ours, written_by_signals:
        ours.setblocking(False)
        written_by_signals.setblocking(False)
        loop.add_reader(ours, _drain, ours)
        before = signal.set_wakeup_fd(written_by_signals.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(ours)


def has_terminal() -> bool:
    """Whether this process can be seen on a terminal. No more once that has hung up."""
    return any(os.isatty(descriptor) for descriptor in (0, 1, 2))


def _drain(ours: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        ours.recv(4096)
