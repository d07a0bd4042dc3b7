"""The link's bytes on Windows: two pipes, one each way, the child's ends inherited by handle value.

Why named pipes in overlapped mode, and not the anonymous ones of ``CreatePipe``: a thread that is
blocked in a plain ``ReadFile`` can be woken by ``CancelIoEx`` only if it is already inside. A cancel
that comes while the thread is on its way in is lost (measured on Wine: 5 of 200), so closing would
have to repeat it until the thread has come out. An overlapped read waits for "data or closing" at
once, which has no such gap. The price is one more system call per read.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from ctypes import wintypes
from typing import Any

from liteyuki_host.comm.errors import LinkError

assert sys.platform == "win32"  # also what tells a type checker on another system to skip the rest

__all__ = ["InheritedPipes", "PipeTransport", "open_link", "take_link"]

_VARIABLE = "LYCOMM_LINK"

# Bytes the system holds per direction before a writer has to wait; about what a POSIX socket pair holds.
_PIPE_SIZE = 256 * 1024
# One non-waiting write takes all of its bytes or none: small pieces find room where a large one does not.
_TRY_SIZE = 64 * 1024
# The system copies each write into its own, scarce memory; one of many megabytes fails with error 1450.
_WRITE_SIZE = 256 * 1024

_GENERIC_READ = 0x80000000
_GENERIC_WRITE = 0x40000000
_OPEN_EXISTING = 3
_FILE_FLAG_OVERLAPPED = 0x40000000
_FILE_FLAG_FIRST_PIPE_INSTANCE = 0x00080000
_FILE_TYPE_PIPE = 3
_PIPE_ACCESS_INBOUND = 1
_PIPE_ACCESS_OUTBOUND = 2
_PIPE_WAIT = 0
_PIPE_NOWAIT = 1
_PIPE_REJECT_REMOTE_CLIENTS = 8
_INFINITE = 0xFFFFFFFF
_WAIT_OBJECT_0 = 0

_ERROR_BROKEN_PIPE = 109
_ERROR_NO_DATA = 232  # the pipe is being closed
_ERROR_PIPE_NOT_CONNECTED = 233
_ERROR_PIPE_CONNECTED = 535
_ERROR_OPERATION_ABORTED = 995  # cancelled, by us
_ERROR_IO_PENDING = 997
_PEER_GONE = frozenset({_ERROR_BROKEN_PIPE, _ERROR_NO_DATA, _ERROR_PIPE_NOT_CONNECTED, _ERROR_OPERATION_ABORTED})


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("Internal", ctypes.c_size_t),
        ("InternalHigh", ctypes.c_size_t),
        ("Offset", wintypes.DWORD),
        ("OffsetHigh", wintypes.DWORD),
        ("hEvent", wintypes.HANDLE),
    )


_INVALID_HANDLE = ctypes.c_void_p(-1).value
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)


def _declare(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_kernel32, name)
    function.restype = result
    function.argtypes = arguments
    return function


_CloseHandle = _declare("CloseHandle", wintypes.BOOL, wintypes.HANDLE)
_CreateEvent = _declare(
    "CreateEventW", wintypes.HANDLE, ctypes.c_void_p, wintypes.BOOL, wintypes.BOOL, wintypes.LPCWSTR
)
_SetEvent = _declare("SetEvent", wintypes.BOOL, wintypes.HANDLE)
_Wait = _declare(
    "WaitForMultipleObjects", wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, wintypes.BOOL, wintypes.DWORD
)
_CreateNamedPipe = _declare(
    "CreateNamedPipeW", wintypes.HANDLE, wintypes.LPCWSTR, *[wintypes.DWORD] * 6, ctypes.c_void_p
)
_ConnectNamedPipe = _declare("ConnectNamedPipe", wintypes.BOOL, wintypes.HANDLE, ctypes.c_void_p)
_CreateFile = _declare(
    "CreateFileW",
    wintypes.HANDLE,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_SetPipeState = _declare(
    "SetNamedPipeHandleState",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
_GetFileType = _declare("GetFileType", wintypes.DWORD, wintypes.HANDLE)
_ReadFile = _declare(
    "ReadFile",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
_WriteFile = _declare(
    "WriteFile",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
_CancelIo = _declare("CancelIoEx", wintypes.BOOL, wintypes.HANDLE, ctypes.c_void_p)
_GetResult = _declare(
    "GetOverlappedResult", wintypes.BOOL, wintypes.HANDLE, ctypes.c_void_p, ctypes.c_void_p, wintypes.BOOL
)


def _last_error() -> OSError:
    return ctypes.WinError(ctypes.get_last_error())


class _PipeEnd:
    """One handle, and what one operation at a time on it needs."""

    def __init__(self, handle: int, stop: int) -> None:
        self.handle = handle
        self.lock = threading.Lock()  # held for the length of an operation
        event = _CreateEvent(None, True, False, None)
        if not event:
            raise _last_error()
        self.event: int = event
        self.overlapped = _Overlapped(hEvent=event)
        # In this order: when both are set the operation's own end is reported, so no byte is dropped.
        self.events = (wintypes.HANDLE * 2)(event, stop)

    def set_waiting(self, waiting: bool) -> None:
        """Whether a write that finds no room waits for it, or takes nothing. Acts on this end only."""
        mode = wintypes.DWORD(_PIPE_WAIT if waiting else _PIPE_NOWAIT)
        if not _SetPipeState(self.handle, ctypes.byref(mode), None, None):
            raise _last_error()

    def transfer(self, call: Callable[..., int], data: Any, size: int) -> int:
        """Run one ReadFile or WriteFile to its end and return the bytes moved. The caller holds the lock.

        Raises:
            OSError: it failed, or the stop event was set before it was done.
        """
        overlapped = ctypes.byref(self.overlapped)
        if not call(self.handle, data, size, None, overlapped):
            if ctypes.get_last_error() != _ERROR_IO_PENDING:
                raise _last_error()
            if _Wait(2, self.events, False, _INFINITE) != _WAIT_OBJECT_0:
                _CancelIo(self.handle, overlapped)
        # Also after a cancel, and then waiting: until the system says so, it may still touch the buffer.
        # The cancel of a pipe operation is immediate. If the data came first, they count.
        moved = wintypes.DWORD()
        if not _GetResult(self.handle, overlapped, ctypes.byref(moved), True):
            raise _last_error()
        return moved.value

    def release(self) -> None:
        _CloseHandle(self.handle)
        _CloseHandle(self.event)


class PipeTransport:
    """One end of a link over two pipe handles, which it owns from now on.

    Handles are numbers that the system uses again, so they are given back only when no thread is inside
    a call: by :meth:`close` itself, or by the last thread that it woke on its way out.

    Raises:
        OSError: these are not two handles of pipes in overlapped mode. They stay open.
    """

    at_once = 0

    def __init__(self, read_handle: int, write_handle: int) -> None:
        stop = _CreateEvent(None, True, False, None)
        if not stop:
            raise _last_error()
        self._stop: int = stop
        self._reader = _PipeEnd(read_handle, stop)
        self._writer = _PipeEnd(write_handle, stop)
        self._state = threading.Lock()
        self._inside = 0
        self._closed = False
        self._writer.set_waiting(False)

    def read_into(self, buffer: memoryview) -> int:
        if not buffer.nbytes or not self._enter():
            return 0
        try:
            pin = ctypes.c_char.from_buffer(buffer)
            with self._reader.lock:
                while not self._closed:
                    # A successful read of nothing is no end here: it is a peer's write of nothing.
                    if moved := self._reader.transfer(_ReadFile, ctypes.byref(pin), buffer.nbytes):
                        return moved
            return 0
        except OSError as error:
            if error.winerror in _PEER_GONE:
                return 0
            raise
        finally:
            self._leave()

    def send(self, data: bytes, at_once: int) -> int:
        return self.try_write([data])

    def try_write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        # The handle is in PIPE_NOWAIT mode: a write takes its bytes if there is room for all of them,
        # otherwise none, and never waits. So much is offered in pieces; what is left is the flusher's.
        # Leaving everything to the flusher would be simpler, and doubles the time of a control ping.
        with self._writing():
            if not self._writer.lock.acquire(blocking=False):
                return 0  # the flusher is inside write_all; going past it would put bytes in the wrong order
            try:
                taken = 0
                for piece in _pieces(buffers, _TRY_SIZE):
                    moved = self._writer.transfer(_WriteFile, piece, len(piece))
                    taken += moved
                    if moved < len(piece):
                        break
                return taken
            finally:
                self._writer.lock.release()

    def write_all(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        with self._writing(), self._writer.lock:
            self._writer.set_waiting(True)
            for piece in _pieces(buffers, _WRITE_SIZE):
                if self._closed:
                    raise BrokenPipeError("the link's pipe was closed meanwhile")
                self._writer.transfer(_WriteFile, piece, len(piece))  # waiting: all of it, or an error
            self._writer.set_waiting(False)  # not after an error: they are all final

    def close(self) -> None:
        with self._state:
            if self._closed:
                return
            self._closed = True
            _SetEvent(self._stop)
            idle = self._inside == 0
        if idle:
            self._release()

    def release(self) -> None:
        """Nothing: :meth:`close` sees to the handles. Here because the transport of other systems has it."""

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if not self._enter():
            raise BrokenPipeError("the link's pipe is closed")
        try:
            yield
        except OSError as error:
            if error.winerror in _PEER_GONE:
                raise BrokenPipeError(f"the link's pipe is closed ({error.strerror})") from error
            raise
        finally:
            self._leave()

    def _enter(self) -> bool:
        with self._state:
            if self._closed:
                return False
            self._inside += 1
            return True

    def _leave(self) -> None:
        with self._state:
            self._inside -= 1
            last = self._closed and self._inside == 0
        if last:
            self._release()

    def _release(self) -> None:
        self._reader.release()
        self._writer.release()
        _CloseHandle(self._stop)


def _pieces(buffers: Sequence[bytes | bytearray | memoryview], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of 1 to *size*: short buffers joined, long ones cut, empty ones left out."""
    joined: list[bytes | bytearray | memoryview] = []
    room = size
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        while len(view) > room:
            yield b"".join([*joined, view[:room]])
            view = view[room:]
            joined, room = [], size
        joined.append(view)
        room -= len(view)
    if room < size:
        yield b"".join(joined)


class InheritedPipes:
    """The child's two ends in the parent."""

    def __init__(self, read_handle: int, write_handle: int) -> None:
        self._handles: tuple[int, ...] = (read_handle, write_handle)
        self.environment = {_VARIABLE: f"handles:{read_handle},{write_handle}"}

    @property
    def popen_options(self) -> dict[str, Any]:
        # handle_list is what keeps every other inheritable handle out of the child, and these two out of
        # whatever another thread starts at this moment (unless it starts it with close_fds=False).
        startupinfo = subprocess.STARTUPINFO(lpAttributeList={"handle_list": list(self._handles)})
        return {"startupinfo": startupinfo, "close_fds": True}

    def close(self) -> None:
        handles, self._handles = self._handles, ()
        for handle in handles:
            _CloseHandle(handle)


def open_link() -> tuple[PipeTransport, InheritedPipes]:
    """Make the two ends of a new link: ours, and the one for a child yet to be spawned.

    Raises:
        OSError: the system has no handles or memory left for it.
    """
    handles: list[int] = []
    try:
        our_read, their_write = _open_pipe(_PIPE_ACCESS_INBOUND, handles)
        our_write, their_read = _open_pipe(_PIPE_ACCESS_OUTBOUND, handles)
        for handle in (their_read, their_write):
            os.set_handle_inheritable(handle, True)
        return PipeTransport(our_read, our_write), InheritedPipes(their_read, their_write)
    except BaseException:
        for handle in handles:
            _CloseHandle(handle)
        raise


def _open_pipe(access: int, opened: list[int]) -> tuple[int, int]:
    """A pipe's two ends, the first with *access*; neither inheritable. Adds each to *opened* as it comes."""
    # Nobody can guess the name, be first on it, be second on it, or reach it from another machine.
    name = rf"\\.\pipe\lycomm-{os.getpid()}-{secrets.token_hex(16)}"
    first = _CreateNamedPipe(
        name,
        access | _FILE_FLAG_OVERLAPPED | _FILE_FLAG_FIRST_PIPE_INSTANCE,
        _PIPE_REJECT_REMOTE_CLIENTS,  # the rest is zero: bytes, not messages; waiting
        1,  # instances
        _PIPE_SIZE,
        _PIPE_SIZE,
        0,
        None,
    )
    if first == _INVALID_HANDLE:
        raise _last_error()
    opened.append(first)
    wanted = _GENERIC_WRITE if access == _PIPE_ACCESS_INBOUND else _GENERIC_READ
    second = _CreateFile(name, wanted, 0, None, _OPEN_EXISTING, _FILE_FLAG_OVERLAPPED, None)
    if second == _INVALID_HANDLE:
        raise _last_error()
    opened.append(second)
    # The other end is already there, so this never waits and needs no event.
    if not _ConnectNamedPipe(first, ctypes.byref(_Overlapped())) and (ctypes.get_last_error() != _ERROR_PIPE_CONNECTED):
        raise _last_error()
    return first, second


def take_link(environ: MutableMapping[str, str]) -> PipeTransport | None:
    """Take the inherited end in a child, or None when there is no host.

    The variable is removed and the handles made non-inheritable, so that nothing the child starts
    can hold the link open or speak on it.

    Raises:
        LinkError: the variable is there, but names no two pipe handles.
    """
    value = environ.pop(_VARIABLE, None)
    if value is None:
        return None
    try:
        scheme, _, numbers = value.partition(":")
        if scheme != "handles":
            raise ValueError(f"unknown scheme {scheme!r}")
        first, second = numbers.split(",")
        handles = int(first), int(second)
        for handle in handles:
            # A number that is some other open handle here must not be read, written or changed.
            if _GetFileType(handle) != _FILE_TYPE_PIPE:
                raise ValueError(f"{handle} is not a pipe")
        for handle in handles:
            os.set_handle_inheritable(handle, False)
        return PipeTransport(*handles)
    except (OSError, ValueError, ctypes.ArgumentError) as error:
        raise LinkError(
            f"{_VARIABLE}={value} names no link ({error}); it is set by the host for the process it starts, "
            "remove it from the environment"
        ) from error
