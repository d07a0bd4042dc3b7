"""The host's signals: handlers for as long as it runs, and a loop that notices them at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import FrameType

Handler = Callable[[int, FrameType | None], None]

REQUEST_SECONDS = 1.0
"""Signals within this time of the first one belong to one request. A wrapper that passes Ctrl+C on sends its own
SIGTERM within milliseconds (``nb run``); nobody who has begun to wait presses Ctrl+C again so soon."""


class Asked(Enum):
    """What a signal that asks the host to end means."""

    STOP = auto()
    """The first one: stop in order."""
    NOTHING_NEW = auto()
    """Part of the request that is being carried out."""
    KILL = auto()
    """Somebody at the keyboard does not want to wait."""


class StopRequest:
    """Tells one request to stop, which may arrive as several signals, from a second one.

    Only SIGINT (on Windows also SIGBREAK) can be a second request: it comes from a person at the keyboard. A service
    manager that repeats SIGTERM still wants an orderly end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    def signalled(self, number: int) -> Asked:
        """Take one signal into account. May be called in a signal handler."""
        now = self._clock()
        if self._since is None:
            self._since = now
            return Asked.STOP
        from_keyboard = number in (signal.SIGINT, getattr(signal, "SIGBREAK", None))
        return Asked.KILL if from_keyboard and now - self._since > REQUEST_SECONDS else Asked.NOTHING_NEW


@dataclass(frozen=True)
class Commands:
    """What an operator can ask for by signals."""

    stop: Callable[[], None]
    """Callable in a signal handler."""
    end_at_once: Callable[[], None]
    reload: Callable[[], None]
    resize: Callable[[], None]
    """The terminal's window has another size."""
    post: Callable[[Callable[[], None]], bool]
    """Has one of the others done on the host's loop; False when there is none yet. Callable in a handler."""


def handlers(commands: Commands) -> dict[str, Handler]:
    """Return the host's handlers by the signals' names.

    Ctrl+C and SIGTERM stop the host, Ctrl+C once more kills; SIGHUP reloads, or means that its window was closed.
    A handler interrupts whatever the main thread does, and so only leaves a note for the loop.
    """
    request = StopRequest()
    on_terminal = has_terminal()

    def stop(number: int, frame: FrameType | None) -> None:
        asked = request.signalled(number)
        if asked is Asked.STOP:
            commands.stop()
        elif asked is Asked.KILL and not commands.post(commands.end_at_once):
            raise KeyboardInterrupt  # nothing is supervised yet: a module or a hook does not return

    def hang_up(number: int, frame: FrameType | None) -> None:
        if on_terminal and not has_terminal():
            commands.stop()  # its window was closed, or the connection to it broke
        else:
            commands.post(commands.reload)

    def resize(number: int, frame: FrameType | None) -> None:
        commands.post(commands.resize)

    stops = dict.fromkeys(("SIGINT", "SIGTERM", "SIGBREAK"), stop)
    return {**stops, "SIGHUP": hang_up, "SIGWINCH": resize}


@contextlib.contextmanager
def handled(handlers: Mapping[str, Handler]) -> Iterator[None]:
    """Handle the signals of these names, those that the system has; afterwards everything is as it was.

    A SIGHUP or SIGINT that was ignored when the process was started stays ignored: ``nohup`` and shells without job
    control (``lycomm run &`` in a script) ask for that, and Python itself leaves such a SIGINT alone. SIGTERM is
    always handled.

    SIGTERM, SIGINT and SIGHUP are unblocked meanwhile: a parent that had blocked them in its signal mask has passed
    that on, and nothing but SIGKILL would stop the host. The bots inherit the mask that is set then.

    Handlers run between two bytecodes of the main thread, also while the loop is busy, so they may take no lock and
    write no log line. Where Python allows no handlers (outside the main thread) nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # signal.signal and not the loop's own handlers: Windows has only these, and a blocked loop is stopped too.
    numbers = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    for name in ("SIGHUP", "SIGINT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            numbers.pop(number, None)
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    mask = unblock()  # now that each of them has its handler: one may be pending
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def unblock() -> set[int]:
    """Unblock SIGTERM, SIGINT and SIGHUP for this thread and those that it starts. Returns the mask as it was."""
    if sys.platform == "win32":
        return set()
    return signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


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
