"""How a child comes to its end: asked to by the host, or because there is no host any more.

Both work while the project is still importing and while its event loop is blocked: everything here happens on
the link's thread and on a daemon thread of its own. Where no thread can run any more, :mod:`.guard` ends the child.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from liteyuki_host._child.streams import flush_streams
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.signals import unblock

ORPHAN_SECONDS = 1.0
"""What a child without a host gets to end by itself. With the rest it must be gone in 2 s."""


class Ending:
    def __init__(self, without: Sequence[str] = ()) -> None:
        """
        Args:
            without: the layers of :mod:`.guard` that could not be had, in words.
        """
        self.without = without
        self.requested = False
        """This process has been interrupted, whoever asked for it."""
        self.told_to_stop = False
        """By the host's message."""
        self.terminated = False
        """It has received a SIGTERM."""
        self.signalled = False
        """It has received a SIGINT that :meth:`interrupt` did not send: the driver ends the bot already."""
        self.start_interrupted = False
        """It was asked to end while its start-up hooks ran."""
        self.host_gone = False
        self.finished = False  # the project has ended; nothing is left to interrupt
        self._before_interrupt: list[Callable[[], None]] = []
        self._lock = threading.RLock()  # a signal handler may want it while the main thread holds it
        self._pid = os.getpid()

    def arm(self) -> None:
        """Call once, first thing, on the main thread."""
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            # Inherited from a host that was started with `&` by a script; the way to end us is this signal.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        unblock()  # inherited from a program that serves a host in its own loop and blocks signals
        atexit.register(self._at_the_very_end)  # first registered, so the last to run

    def before_interrupt(self, action: Callable[[], None]) -> None:
        """``action`` runs in whoever reads the link, just before the signal: it frees what would not notice that."""
        self._before_interrupt.append(action)

    def on_stop(self, reason: str) -> None:
        self.told_to_stop = True
        self.interrupt()

    def on_host_gone(self, cause: str) -> None:
        self.host_gone = True
        # No thread to be had, or the interpreter is ending: the guard kills.
        with contextlib.suppress(RuntimeError, MemoryError):
            DaemonThread(self._kill_after_deadline, name="lycomm-orphan").start()
        self.interrupt()

    def finish(self) -> None:
        """The project has ended: from here on nothing interrupts the last steps."""
        with self._lock:
            self.finished = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave(self, code: int) -> None:
        """Let go of the process: nothing is left to do, and from here on SIGTERM ends it at once.

        What a SIGTERM has ended without the host ends by that signal, so that it does not pass for an end of its own
        accord. And when the start was interrupted while a hook waited for a thread, that thread is not waited for.
        """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.terminated and not (self.told_to_stop or self.host_gone):
            signal.raise_signal(signal.SIGTERM)
        others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        if self.start_interrupted and not all(thread.daemon for thread in others):
            flush_streams()
            os._exit(code)

    def interrupt(self) -> None:
        """Have the project end as by Ctrl+C. Further calls do nothing. From any thread."""
        # Once: uvicorn takes a second SIGINT, and the `none` driver any second signal, as "skip the hooks".
        with self._lock:
            if self.requested or self.finished:
                return
            self.requested = True
        for action in self._before_interrupt:
            action()
        if self.signalled:
            return
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGINT)
        else:
            # To the main thread, so that it also leaves a sleep or a read it is blocked in. `raise_signal`
            # would hit this thread, and the handler would wait until the main thread came back by itself.
            ident = threading.main_thread().ident
            if ident is not None:
                signal.pthread_kill(ident, signal.SIGINT)

    def _kill_after_deadline(self) -> None:
        threading.Event().wait(ORPHAN_SECONDS)
        kill_own_group()

    def _at_the_very_end(self) -> None:
        # A host would kill what is left of our group; without one it is on us.
        if self.host_gone and os.getpid() == self._pid:
            kill_own_group()


def kill_own_group() -> None:
    """This process and all it started, at once. Does not return."""
    if sys.platform == "win32":
        os.kill(os.getpid(), signal.SIGTERM)  # TerminateProcess; the host's job object takes the rest
    elif os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    else:
        os.kill(os.getpid(), signal.SIGKILL)  # somebody else's group: a debugger, a test
