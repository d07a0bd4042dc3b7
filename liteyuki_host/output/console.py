"""The host's standard output: one thread writes, nobody else waits for it."""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from liteyuki_host.output.backlog import Backlog, Omitted, Taken
from liteyuki_host.output.text import HOST, Block, date_and_time

BLOCKED_SECONDS = 0.1
"""How often a writer that cannot write, or must not, looks whether it is still wanted."""

RETRY_SECONDS = 1.0
"""After an error that may pass: a full disk behind ``lycomm run > file``, a terminal that is being resized away."""

EXIT_SECONDS = 1.0
"""What the last lines get at the end of a process that embeds a host."""

_READER_GONE = (errno.EPIPE, errno.EBADF, errno.ESHUTDOWN)


class Console:
    """Shows lines on ``stream``, which is normally ``sys.stdout``.

    Neither a child's flood nor a terminal stopped with Ctrl+S, nor a pipe that nobody reads, makes a caller wait.
    Lines that there is no room for (``backlog.LIMIT``) are left out, the oldest of the process with the most
    first, and a line says how many. The host's own lines are only left out when they alone fill the room.

    When the reader is gone (``lycomm run | head``) nothing is shown any more, and the host goes on.

    Args:
        stream: None (a service without a console): nothing is shown.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self._missing = 0  # lines lost to errors
        self._retry_at = 0.0
        self._backlog = Backlog("lycomm-console", self._write)
        self._device: Device | None = None
        """Where text goes; None before it has been opened, and when there is nobody any more who could read it.
        Written by the writing thread."""
        self._opened = stream is None
        """Whether :attr:`_device` is decided. The writing thread opens the device before its first line: *stream* may
        be an object of the user's, whose methods may log or hang, and none of them runs in a caller."""

    @property
    def closed(self) -> bool:
        return self._backlog.closed

    def write(self, text: str) -> None:
        """Show lines of the host itself. From any thread; never waits."""
        if self._takes_lines:
            self._backlog.add(Block.of(HOST, text.rstrip("\n").encode("utf-8", "replace")))

    def show(self, block: Block) -> None:
        """Show lines of a child, each with its name. From any thread; never waits."""
        if self._takes_lines:
            self._backlog.add(block)

    def flush(self, timeout: float) -> bool:
        """Wait until all is shown, for at most ``timeout`` seconds. Returns whether it is."""
        return self._backlog.flush(timeout)

    def close(self, timeout: float) -> bool:
        """Flush, then show nothing more. Returns whether all was shown. The stream stays open."""
        return self._backlog.close(timeout)

    @property
    def _takes_lines(self) -> bool:
        """Whether a line has a chance to be shown."""
        return self._device is not None or not self._opened

    # --- the writing thread -------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open the device. When the stream raises, nothing is shown on it, and ``threading`` reports the error."""
        try:
            self._device = _device_of(self.stream, given_up=lambda: self._backlog.closed)
        finally:
            self._opened = True  # last: until then, callers may add lines

    def _write(self, taken: list[Taken]) -> None:
        if not self._opened:
            self._open()
        device = self._device
        lines = sum((omitted.lines if omitted else 0) + block.lines for omitted, block in taken)
        if device is None:
            return
        if time.monotonic() < self._retry_at:
            self._missing += lines
            return
        text = "".join(_shown(omitted, block) for omitted, block in taken)
        if self._missing:
            text = _note(f"{self._missing:,} lines were not shown: the console did not take them") + text
        try:
            device(text)
        except (OSError, ValueError) as error:  # ValueError: somebody has closed the stream
            if not isinstance(error, OSError) or error.errno in _READER_GONE:
                self._device = None
                return
            self._missing += lines
            self._retry_at = time.monotonic() + RETRY_SECONDS
        else:
            self._missing = 0


def _shown(omitted: Omitted | None, block: Block) -> str:
    text = ""
    if omitted is not None:
        why = "they came faster than the console takes them"
        text = _note(omitted.words(f"lines of {block.process} were not shown", why))
    if block.lines:
        text += block.text() + "\n" if block.process == HOST else block.for_console()
    return text


def _note(words: str) -> str:
    # Not a log call: it belongs to this place of this console.
    return f"{date_and_time(time.time())} [WARNING] {HOST} | {words}\n"


# The process's console.

_shared: Console | None = None
_kept: Console | None = None
_shared_lock = threading.RLock()
"""Guards the two above. Re-entrant: a signal handler or a finalizer that logs may run in :func:`shared` itself."""


def shared(*, keep: bool = False) -> Console:
    """The console of this process, on ``sys.stdout``. It is replaced when it has been closed or stdout has changed.

    Args:
        keep: from now on until it is closed it stays the same, also when somebody redirects stdout for a while.
    """
    global _shared, _kept
    with _shared_lock:
        current = _shared
        if current is None or current.closed or not (current is _kept or current.stream is sys.stdout):
            made = Console(sys.stdout)
            if _shared is current:  # else somebody has come here on this thread meanwhile, and has made one
                _shared = made
            current = _shared
            assert current is not None
        if keep:
            _kept = current
        return current


@atexit.register
def _show_the_rest() -> None:
    """A program that embeds a host closes no console."""
    if _shared is not None:
        _shared.flush(EXIT_SECONDS)


_somebody_draws: Callable[[], bool] | None = None


def hold_back_while(somebody_draws: Callable[[], bool]) -> None:
    """Write to a terminal or pipe only while *somebody_draws* is false; it is asked before each piece of text."""
    global _somebody_draws
    _somebody_draws = somebody_draws


# Where text goes to. Raises OSError, or ValueError for a stream that has been closed.

Device = Callable[[str], None]


def _device_of(stream: TextIO | None, given_up: Callable[[], bool]) -> Device | None:
    if stream is None:
        return None
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(raw, io.RawIOBase):
        return _TextDevice(stream)  # a notebook, a test
    try:
        return _RawDevice(stream, raw, given_up)
    except (OSError, ValueError):  # closed by a parent, or by a program that made itself a daemon
        return None


class _TextDevice:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _RawDevice:
    """Past the stream's buffer: a thread that hangs in there holds its lock, and the interpreter cannot end then."""

    def __init__(self, stream: TextIO, raw: io.RawIOBase, given_up: Callable[[], bool]) -> None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()  # what was printed before comes before
        if sys.platform == "win32":
            _understand_colours(raw)
        self._raw = raw
        self._given_up = given_up
        self._descriptor = raw.fileno()
        self._step = _sure_to_be_taken(self._descriptor)

    def __call__(self, text: str) -> None:
        rest = memoryview(text.encode("utf-8", "replace"))
        while rest and self._ready():
            rest = rest[self._raw.write(rest[: self._step]) or 0 :]

    def _ready(self) -> bool:
        """Wait until it takes something. False: nobody wants it any more."""
        while not self._given_up():
            if _somebody_draws is not None and _somebody_draws():
                time.sleep(BLOCKED_SECONDS)
                continue
            if sys.platform == "win32":  # has no such question; a stuck console keeps the thread, not the host
                return True
            ready = select.poll()
            ready.register(self._descriptor, select.POLLOUT)
            if ready.poll(BLOCKED_SECONDS * 1000):
                return True
        return False


def _sure_to_be_taken(descriptor: int) -> int:
    """Bytes that can be written without waiting when there is room at all."""
    if sys.platform == "win32":  # cannot say whether there is room; in parts, characters would be torn
        return sys.maxsize
    return sys.maxsize if stat.S_ISREG(os.fstat(descriptor).st_mode) else select.PIPE_BUF


def _understand_colours(raw: io.RawIOBase) -> None:
    """Consoles of Windows take escape sequences only when asked to. On a pipe or a file this does nothing."""
    if sys.platform == "win32":
        import ctypes
        import msvcrt
        from ctypes import wintypes

        virtual_terminal_processing = 0x0004
        kernel32 = ctypes.WinDLL("kernel32")
        handle = wintypes.HANDLE(msvcrt.get_osfhandle(raw.fileno()))
        mode = wintypes.DWORD()
        if kernel32.GetConsoleMode(handle, ctypes.byref(mode)):
            kernel32.SetConsoleMode(handle, mode.value | virtual_terminal_processing)
