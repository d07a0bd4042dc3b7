"""Standard input of a bot that has no terminal, as most bots: it is empty, and whoever reads it is told what to do.

``input()`` raises EOFError, as it would without us. A debugger that reads its commands from there is told to go on:
otherwise it would end the bot's code at that place by an exception (``BdbQuit``).
"""

from __future__ import annotations

import asyncio
import functools
import io
import pdb  # noqa: T100
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from liteyuki_host._child.callers import place_of_call

DEBUGGERS = ("pdb", "bdb", "cmd")

ON_A_TERMINAL = frozenset({"Console"})
"""Adapters whose chat is a program on the whole screen, by their names."""

MAX_PLACES = 100
"""Places in the code that are told of, each once."""

ADVICE = "set terminal = true in [tool.lycomm.processes.{process}] and start the host in a terminal"


def install(process: str) -> None:
    """Call once, before the project runs. Where there is a keyboard, standard input stays as it is."""
    _keep_interrupts_from_debuggers()
    stdin = sys.stdin
    if isinstance(stdin, io.TextIOWrapper) and not _is_keyboard(stdin):
        sys.stdin = NoKeyboard(stdin, process)


def follow(loop: Callable[[], asyncio.AbstractEventLoop | None]) -> None:
    """Call when there is somebody to ask for the bot's event loop: reads in a thread are then told by their task."""
    if isinstance(sys.stdin, NoKeyboard):
        sys.stdin.loop = loop


def _keep_interrupts_from_debuggers() -> None:
    """pdb's ``continue`` takes SIGINT for "stop here again"; but it is how the host asks for the end of the bot."""
    init = pdb.Pdb.__init__

    @functools.wraps(init)
    def init_without_sigint(self: pdb.Pdb, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        vars(self)["nosigint"] = True  # as its argument of that name does

    pdb.Pdb.__init__ = init_without_sigint  # type: ignore[method-assign]


def tell_if_missed_by(adapters: Iterable[str]) -> None:
    """Say so when one of these adapters cannot work without a keyboard and a screen of its own."""
    stdin = sys.stdin
    if isinstance(stdin, NoKeyboard):
        for name in ON_A_TERMINAL.intersection(adapters):
            stdin.advise(f"adapter {name}", "no key reaches it and its screen is cut into lines", "to chat on it")


class NoKeyboard(io.TextIOWrapper):
    """A stream on the buffer of *stdin*. Text that is there all the same is read as usual."""

    def __init__(self, stdin: io.TextIOWrapper, process: str) -> None:
        super().__init__(stdin.buffer, encoding=stdin.encoding, errors=stdin.errors)
        self._advice = ADVICE.format(process=process)
        self._told: set[str] = set()
        self.loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None
        """The bot's event loop, once it is known."""

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        line = super().readline(-1 if size is None else size)
        if line or size == 0:
            return line
        frame = _without(sys._getframe(1), (__name__,))
        user = _without(frame, DEBUGGERS)
        if user is not frame:
            self._tell_once(user, "the debugger goes on at once", "to stop there")
            return "continue\n"
        self._tell_once(user, "input() finds no line (EOFError)", "to type one")
        return line

    def read(self, size: int | None = -1, /) -> str:
        text = super().read(size)
        if not text and size != 0:
            frame = _without(sys._getframe(1), (__name__,))
            self._tell_once(frame, "standard input is empty", "to have one")
        return text

    def _tell_once(self, frame: FrameType, what: str, aim: str) -> None:
        place = place_of_call(frame, Path.cwd(), (input, breakpoint, pdb.set_trace), self.loop())
        if place in self._told or len(self._told) >= MAX_PLACES:
            return
        self._told.add(place)
        self.advise(place, what, aim)

    def advise(self, who: str, what: str, aim: str) -> None:
        from loguru import logger

        if sys.stdout is not None:
            sys.stdout.write("\n")  # after a prompt
        logger.warning(f"{who}: {what}, this bot has no keyboard: {aim}, {self._advice}")


def _is_keyboard(stdin: io.TextIOWrapper) -> bool:
    if sys.platform != "win32":
        return stdin.isatty()
    import ctypes  # isatty() is true of the null device there
    import msvcrt

    mode = ctypes.c_uint32()
    return bool(ctypes.windll.kernel32.GetConsoleMode(msvcrt.get_osfhandle(stdin.fileno()), ctypes.byref(mode)))


def _without(frame: FrameType, modules: tuple[str, ...]) -> FrameType:
    """The innermost frame that is none of these modules'."""
    while frame.f_globals.get("__name__") in modules and frame.f_back is not None:
        frame = frame.f_back
    return frame
