"""The host's terminal, while one bot has it (``terminal = true``).

The bot gets the host's standard input, output and error as they are. It keeps a session of its own: the terminal is not
its controlling one, so reading from it never stops the bot (SIGTTIN), and the keys Ctrl+C and Ctrl+Z act on the host
alone, which ends the bot once, as ever. What a controlling terminal would do for it is done here: the change of its
size is passed on, and its modes are put back when the bot is gone.

On Windows, a console belongs to every process on it; nothing has to be done, and nothing is put back.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from loguru import logger

from liteyuki_host.output import console

KEYBOARD, SCREEN = 0, 1

LEAVE_FULL_SCREEN = b"\x1b[?1000;1002;1003;1006l\x1b[?2004l\x1b[?1049l\x1b[?25h\x1b[0m\r\n"
"""xterm's sequences: no mouse reports, no bracketed paste, the normal screen, a visible cursor, no colour."""

_loans: list[Loan] = []  # one at most, but for the moment in which one bot is gone and the next is there


def why_not() -> str | None:
    """Why no bot can have the terminal now, in words; None: one can."""
    if not (_is_terminal(KEYBOARD) and _is_terminal(SCREEN)):
        return "the host has none (it runs as a service, or its input or output is redirected)"
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # not the controlling one: there is no foreground
            if os.tcgetpgrp(KEYBOARD) != os.getpgrp():
                return "the host runs in the background"
    return None


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


class Loan:
    """The terminal in the hands of one bot, from before its spawn until :meth:`end`."""

    def __init__(self) -> None:
        self._modes = _modes()
        self._resize: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        _loans.append(self)

    def begin(self, resize: Callable[[], None]) -> None:
        """The bot is there.

        Args:
            resize: tells it that the terminal has another size; called on the host's loop.
        """
        self._resize = resize

    def end(self) -> None:
        """The bot is gone: put the terminal back as it was. From any thread; more calls do nothing."""
        with self._lock:
            if self not in _loans:
                return
            try:
                if self._modes is not None and _modes() not in (None, self._modes):
                    _put_back(self._modes)
            finally:
                _loans.remove(self)


def is_drawn_on() -> bool:
    """Whether a bot draws on the whole screen or edits a line, so that a line of ours would spoil what is shown."""
    if not _loans or sys.platform == "win32":
        return False
    import termios

    modes = _modes()
    return modes is not None and not modes[3] & termios.ICANON


def resized() -> None:
    """The terminal has another size. The system tells the host only, whose controlling terminal it is."""
    for loan in list(_loans):
        loan._resize()


def lend(process: str) -> Loan | None:
    """The terminal for a bot that is about to be spawned; None, and a line in the log, when it cannot have it."""
    why = why_not()
    if why is None:
        console.hold_back_while(is_drawn_on)
        return Loan()
    logger.warning(f"child {process}: terminal = true, but {why}; it runs without a keyboard, its output is captured")
    return None


def _modes() -> list[Any] | None:
    """The terminal's modes; None where there are none to be had."""
    if sys.platform == "win32":
        return None
    import termios

    try:
        return termios.tcgetattr(KEYBOARD)
    except (termios.error, OSError):  # it has hung up
        return None


def _put_back(modes: list[Any]) -> None:
    """After a bot that could not do so itself."""
    if sys.platform == "win32":
        return
    import termios

    # A host in the background would be stopped for it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(KEYBOARD, termios.TCSANOW, modes)
            screen = select.poll()
            screen.register(SCREEN, select.POLLOUT)
            if screen.poll(0):  # not one that is stopped by Ctrl+S
                os.write(SCREEN, LEAVE_FULL_SCREEN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
