"""The signals of a bot under a host.

A driver installs handlers of its own for SIGINT and SIGTERM when it runs. Two things are different under a host:

- *While the bot starts*, there is nothing to end in order yet. The drivers only note the signal and go on waiting for
  the start-up hooks. Here both signals interrupt the hook that runs.
- *While it serves*, SIGTERM is not for the driver, which would close its connections with handlers still running. A
  service manager that stops a whole control group (systemd, by default) sends it to the host as well, and the host
  then stops the bot in order. A SIGTERM for the bot alone is passed on to the host, which ends the bot in order too.

- SIGHUP, whose default is to end the bot at once, asks the host for a reload, as it does when it is sent to the host. A
  service manager may send it right after SIGTERM (``SendSIGHUP=`` of systemd); the stop goes first. One that is ignored
  (``nohup``), or that the project handles, is left alone.

SIGINT ends the driver: :mod:`.ending` ends the bot by it. A second one makes the driver leave out the shutdown hooks.
So one that comes from elsewhere at about the same time (a terminal or a service manager that signals the whole group,
a wrapper that passes Ctrl+C on) is not passed on to it: SIGINTs within ``REQUEST_SECONDS`` are one request.

asyncio calls a handler that was given to the loop (``add_signal_handler``) for each signal, whatever Python's own
handler is. NoneBot's ``none`` driver has such a handler, so it is taken from the loop, and the driver is ended by its
``exit()``. uvicorn has a handler of Python's own, since 0.29; older versions are made to.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

from liteyuki_host._child.ending import Ending
from liteyuki_host._child.startup_hooks import StartupHooks
from liteyuki_host.comm.threads import call_soon
from liteyuki_host.signals import waking

REQUEST_SECONDS = 1.0
"""SIGINTs within this time of the first one are one request, as they are for the host."""


class Exit(Protocol):
    """How a driver is asked to end: in order, or at once."""

    def __call__(self, force: bool = ...) -> object: ...


class Signals:
    """Everything in here happens on the main thread."""

    def __init__(self, ending: Ending, hooks: StartupHooks) -> None:
        self._ending = ending
        self._hooks = hooks
        self._drivers_sigint: Any = None
        self._requests = 0  # by SIGINT; of them the first one is the host's stop message
        self._requested_at = 0.0  # time.monotonic() of the first one
        self._passed_on = 0  # SIGINTs that the driver has got
        self._tell: Callable[[], object] = lambda: None
        self._hung_up: Callable[[], object] | None = None  # once the bot serves
        self._hang_up_noted = False
        self._waking = contextlib.ExitStack()

    @contextlib.contextmanager
    def around_driver(self) -> Iterator[None]:
        """Handle SIGINT before the driver has handlers and after it has removed them.

        What the project does after ``nonebot.run()`` belongs to its end too: only a second request interrupts it.
        """
        if not _possible():
            yield
            return
        _let_uvicorn_handle_signals_itself()
        self._replace_default(self._sigint_outside)
        try:
            yield
        finally:
            self._waking.close()
            self._passed_on = 0
            if signal.getsignal(signal.SIGINT) in (self._sigint_in_start, self._sigint):
                signal.signal(signal.SIGINT, self._sigint_outside)
            self._replace_default(self._sigint_outside)

    def starting(self, loop: asyncio.AbstractEventLoop, leave: Exit | None) -> None:
        """The driver has installed its handlers, and no start-up hook has run yet.

        Args:
            leave: ends a driver that gives the loop its handlers.
        """
        if not _possible():
            return
        self._take_from_loop(loop, leave)
        drivers = signal.signal(signal.SIGINT, self._sigint_in_start)
        if self._drivers_sigint is None:
            self._drivers_sigint = drivers
        signal.signal(signal.SIGTERM, self._sigterm_in_start)
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._sighup)
        if self._ending.requested:  # the driver has noted that, and would run the hooks nevertheless
            self._ending.start_interrupted = self._hooks.interrupted = True

    def _take_from_loop(self, loop: asyncio.AbstractEventLoop, leave: Exit | None) -> None:
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.remove_signal_handler(signal.SIGTERM)
            if leave is not None and loop.remove_signal_handler(signal.SIGINT):

                def exit_driver(number: int, frame: FrameType | None) -> None:
                    # Not here and now: the signal may have interrupted the loop just before it goes to sleep.
                    call_soon(loop, lambda: leave(force=self._requests > 1))

                self._drivers_sigint = exit_driver
                # asyncio's loop is woken by signals only while it has a handler, others always are.
                descriptor = signal.set_wakeup_fd(-1)
                if descriptor == -1:
                    self._waking.enter_context(waking(loop))
                else:
                    signal.set_wakeup_fd(descriptor)

    def serving(self, loop: asyncio.AbstractEventLoop, tell: Callable[[], None], hung_up: Callable[[], None]) -> None:
        """The start-up hooks have returned.

        Args:
            tell: called on *loop*, once, after a SIGTERM.
            hung_up: called on *loop* after each SIGHUP, also after one that came during the start.
        """
        if not _possible():
            return
        self._tell = lambda: call_soon(loop, tell)
        self._hung_up = lambda: call_soon(loop, hung_up)
        if self._hang_up_noted:
            hung_up()
        signal.signal(signal.SIGTERM, self._sigterm)
        signal.signal(signal.SIGINT, self._sigint)

    def shutting_down(self, running: bool) -> None:
        """The shutdown hooks of a start that was interrupted begin, or are over and threads are waited for.

        In between, a second SIGINT is for the driver, as while it serves; afterwards it ends the waiting. One within a
        second of the begin was meant for the start-up hook.
        """
        if not _possible():
            return
        if running:
            self._requested_at = time.monotonic()
        if signal.getsignal(signal.SIGTERM) == self._sigterm_in_start:
            signal.signal(signal.SIGTERM, self._sigterm)
        if signal.getsignal(signal.SIGINT) in (self._sigint_in_start, self._sigint):
            signal.signal(signal.SIGINT, self._sigint if running else self._sigint_in_start)

    def _sigint_outside(self, number: int, frame: FrameType | None) -> None:
        if self._passed_on > 0:
            self._passed_on -= 1  # uvicorn raises each signal again that it has got, when it has ended
        elif self._is_request():
            raise KeyboardInterrupt

    def _sigint_in_start(self, number: int, frame: FrameType | None) -> None:
        self._ending.start_interrupted = True
        self._sigint(number, frame)
        if self._requests > 1:
            raise KeyboardInterrupt  # the stop ladder's second request: what runs does not react to being cancelled
        self._hooks.interrupt(frame)

    def _sigterm_in_start(self, number: int, frame: FrameType | None) -> None:
        self._ending.terminated = True
        self._ending.interrupt()  # by SIGINT, once: a second signal would be a second request to the driver

    def _sigint(self, number: int, frame: FrameType | None) -> None:
        if not self._is_request():
            return
        if not self._ending.requested:
            self._ending.signalled = True
        if self._drivers_sigint == self._sigint_outside:
            raise KeyboardInterrupt  # a driver without a handler expects Python's own
        if callable(self._drivers_sigint):
            self._passed_on += 1
            self._drivers_sigint(number, frame)

    def _is_request(self) -> bool:
        """Take a SIGINT into account. False: it belongs to the first request, which is being carried out."""
        now = time.monotonic()
        if self._requests == 0:
            self._requested_at = now
        elif now - self._requested_at < REQUEST_SECONDS:
            return False
        self._requests += 1
        return True

    def _sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._ending.finished:
            return
        if not self._ending.requested:
            if not self._ending.terminated:
                self._ending.terminated = True
                self._tell()
        elif self._requests > 1:
            # The stop ladder has sent SIGINT after its message in vain: this is its next rung.
            raise KeyboardInterrupt
        elif signal.getsignal(signal.SIGINT) not in (self._sigint, self._sigint_outside):
            # The message had no effect: some plugin has taken SIGINT away from the driver.
            signal.signal(signal.SIGINT, self._sigint)
            signal.raise_signal(signal.SIGINT)

    def _sighup(self, number: int, frame: FrameType | None) -> None:
        if self._hung_up is None:
            self._hang_up_noted = True
        elif not self._ending.requested:
            self._hung_up()

    def _replace_default(self, handler: Callable[[int, FrameType | None], None]) -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, handler)


def _let_uvicorn_handle_signals_itself() -> None:
    """Before 0.29 uvicorn gives its handler to the loop. Have it do as newer versions do, and as it does on Windows."""
    server = getattr(sys.modules.get("uvicorn"), "Server", None)
    if server is None or not hasattr(server, "install_signal_handlers"):
        return

    def install(self: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)

    server.install_signal_handlers = install


def _possible() -> bool:
    """Windows has no SIGTERM to send; and Python lets only the main thread handle signals."""
    return sys.platform != "win32" and threading.current_thread() is threading.main_thread()
