"""The signals of a bot under a host.

A driver installs handlers of its own for SIGINT and SIGTERM when it runs. Two things are different under a host:

- *While the bot starts*, there is nothing to end in order yet. The drivers only note the signal and go on waiting for
  the start-up hooks. Here both signals interrupt the hook that runs.
- *While it serves*, SIGTERM is not for the driver, which would close its connections with handlers still running. A
  service manager that stops a whole control group (systemd, by default) sends it to the host as well, and the host
  then stops the bot in order. A SIGTERM for the bot alone is passed on to the host, which ends the bot in order too.

SIGINT stays the driver's: :mod:`.ending` ends the bot by it. A second one makes the driver leave out the shutdown
hooks. So one that comes from elsewhere at about the same time (a service manager with ``KillSignal=SIGINT``) is not a
second.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from liteyuki_host._child.ending import Ending
from liteyuki_host._child.hooks import StartupHooks

REQUEST_SECONDS = 1.0
"""SIGINTs within this time of the first one are one request, as they are for the host."""


class Signals:
    """Everything in here happens on the main thread."""

    def __init__(self, ending: Ending, hooks: StartupHooks) -> None:
        self._ending = ending
        self._hooks = hooks
        self._drivers_sigint: Any = None
        self._interrupts = 0  # of them the first one is the host's stop message
        self._interrupted_at = 0.0  # time.monotonic() of the first one
        self._tell: Callable[[], None] = lambda: None

    def starting(self, loop: asyncio.AbstractEventLoop) -> None:
        """The driver has installed its handlers, and no start-up hook has run yet."""
        if not _possible():
            return
        # asyncio calls a handler that it knows itself, whatever Python's own handler is.
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.remove_signal_handler(signal.SIGTERM)
        self._drivers_sigint = signal.signal(signal.SIGINT, self._sigint_in_start)
        signal.signal(signal.SIGTERM, self._sigterm_in_start)
        if self._ending.requested:  # the driver has noted that, and would run the hooks nevertheless
            self._ending.start_interrupted = self._hooks.interrupted = True

    def serving(self, loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
        """The start-up hooks have returned.

        Args:
            tell: called on *loop*, once, after a SIGTERM.
        """
        if not _possible():
            return
        self._tell = lambda: _call_on(loop, tell)
        signal.signal(signal.SIGTERM, self._sigterm)
        signal.signal(signal.SIGINT, self._sigint)

    def _sigint_in_start(self, number: int, frame: FrameType | None) -> None:
        self._ending.start_interrupted = True
        self._sigint(number, frame)
        if self._interrupts > 1:
            raise KeyboardInterrupt  # the stop ladder's second request: what runs does not react to being cancelled
        self._hooks.interrupt(frame)

    def _sigterm_in_start(self, number: int, frame: FrameType | None) -> None:
        self._ending.terminated = True
        self._ending.interrupt()  # by SIGINT, once: a second signal would be a second request to the driver

    def _sigint(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
        now = time.monotonic()
        if self._interrupts == 1:
            self._interrupted_at = now
        elif now - self._interrupted_at < REQUEST_SECONDS:
            return
        if not self._ending.requested:
            self._ending.signalled = True
        if callable(self._drivers_sigint):
            self._drivers_sigint(number, frame)

    def _sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._ending.finished:
            return
        if not self._ending.requested:
            if not self._ending.terminated:
                self._ending.terminated = True
                self._tell()
        elif self._interrupts > 1:
            # The stop ladder has sent SIGINT after its message in vain: this is its next rung.
            raise KeyboardInterrupt
        elif signal.getsignal(signal.SIGINT) != self._sigint:
            # The message had no effect: some plugin has taken SIGINT away from the driver.
            signal.signal(signal.SIGINT, self._sigint)
            signal.raise_signal(signal.SIGINT)


def _possible() -> bool:
    """Windows has no SIGTERM to send; and Python lets only the main thread handle signals."""
    return sys.platform != "win32" and threading.current_thread() is threading.main_thread()


def _call_on(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and the process is about to
        loop.call_soon_threadsafe(action)
