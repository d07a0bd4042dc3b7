"""The read end of a child's output. What the two systems call not to wait for a pipe."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading

READ_BYTES = 256 * 1024
"""Read at once. Each read gives up the interpreter, and may wait 5 ms to get it back from a busy thread."""

PIPE_BYTES = 256 * 1024
"""What the pipe holds, where that can be chosen (Linux: 64 KiB otherwise, Windows: 4 KiB): a child goes on writing
while we are busy. Linux lets one user's pipes hold 64 MiB before it makes new ones tiny."""

SHORTEST_NAP = 0.001
LONGEST_NAP = 0.02
"""Seconds between two looks into a silent pipe on Windows, which cannot wait for one."""


if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreatePipe.argtypes = (wintypes.LPHANDLE, wintypes.LPHANDLE, ctypes.c_void_p, wintypes.DWORD)
    _kernel32.PeekNamedPipe.argtypes = (
        wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p, wintypes.LPDWORD, ctypes.c_void_p
    )  # fmt: skip

    def make_pipe() -> tuple[ReadEnd, int]:
        """The read end, and the descriptor for the child."""
        read, write = wintypes.HANDLE(), wintypes.HANDLE()
        if not _kernel32.CreatePipe(ctypes.byref(read), ctypes.byref(write), None, PIPE_BYTES):
            raise ctypes.WinError(ctypes.get_last_error())
        # Neither is inherited as it is; Popen passes on a duplicate.
        return (
            ReadEnd(msvcrt.open_osfhandle(read.value or 0, os.O_RDONLY | os.O_NOINHERIT)),
            msvcrt.open_osfhandle(write.value or 0, os.O_NOINHERIT),
        )

    class ReadEnd:
        """:meth:`wake` is for any thread, the rest for the reading one; :meth:`close` when that has ended."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor
            self._woken = threading.Event()
            self._nap = SHORTEST_NAP

        def read(self) -> bytes | None:
            """What is there. None: nothing at the moment. Empty: nothing will ever come."""
            there = wintypes.DWORD()
            handle = msvcrt.get_osfhandle(self._descriptor)
            if not _kernel32.PeekNamedPipe(handle, None, 0, None, ctypes.byref(there), None):
                return b""
            if not there.value:
                return None
            self._nap = SHORTEST_NAP
            return os.read(self._descriptor, min(there.value, READ_BYTES))

        def wait(self, timeout: float | None) -> None:
            """Until something may be there, for at most ``timeout`` seconds, or until woken."""
            self._woken.wait(self._nap if timeout is None else min(self._nap, timeout))
            self._nap = min(self._nap * 1.5, LONGEST_NAP)

        def wake(self) -> None:
            self._woken.set()

        def close(self) -> None:
            os.close(self._descriptor)

else:
    import fcntl

    def make_pipe() -> tuple[ReadEnd, int]:
        """The read end, and the descriptor for the child."""
        read, write = os.pipe()
        set_size = getattr(fcntl, "F_SETPIPE_SZ", None)
        if set_size is not None:
            with contextlib.suppress(OSError):  # this user's pipes hold too much already
                fcntl.fcntl(read, set_size, PIPE_BYTES)
        try:
            return ReadEnd(read), write
        except BaseException:
            os.close(read)
            os.close(write)
            raise

    class ReadEnd:
        """:meth:`wake` is for any thread, the rest for the reading one; :meth:`close` when that has ended."""

        def __init__(self, descriptor: int) -> None:
            """Raises OSError: there are no descriptors left; *descriptor* stays the caller's."""
            os.set_blocking(descriptor, False)  # this end only
            self._descriptor = descriptor
            self._woken, self._wake = os.pipe()
            self._ready = select.poll()
            self._ready.register(descriptor, select.POLLIN)
            self._ready.register(self._woken, select.POLLIN)

        def read(self) -> bytes | None:
            """What is there. None: nothing at the moment. Empty: nothing will ever come."""
            try:
                return os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                return None

        def wait(self, timeout: float | None) -> None:
            """Until something may be there, for at most ``timeout`` seconds, or until woken."""
            self._ready.poll(None if timeout is None else timeout * 1000)

        def wake(self) -> None:
            """For good: it is not waited any more."""
            os.write(self._wake, b"\0")

        def close(self) -> None:
            for descriptor in (self._descriptor, self._woken, self._wake):
                os.close(descriptor)
