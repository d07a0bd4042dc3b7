"""The link's bytes on Windows: two pipes, one for each direction; the child inherits its ends by handle value.

Theory of operation
-------------------

**Why named pipes in overlapped mode**, and not the anonymous ones of ``CreatePipe``. ``CancelIoEx`` wakes a thread that
is blocked in a plain ``ReadFile`` only if the thread is inside already. A cancel that comes while the thread is on its
way in is lost (measured on Wine: 5 of 200), so closing would have to repeat it until the thread has come out. An
overlapped operation is begun first and then waited for, together with an event that :meth:`PipeTransport.close` sets
(``_stop``). That leaves no gap. The price is one more system call for each read.

**One operation.** :meth:`_PipeEnd.transfer` begins a read or write, waits for its end or for ``_stop``, cancels it in
the latter case, and then always asks for the result. The buffer must not be freed before the system says that it is
done with it. Each pipe end has one overlapped structure and one event, so its ``lock`` admits one operation at a time.

**Two ways to write.** The writing end is in ``PIPE_NOWAIT`` mode, in which a write takes all of its bytes or none and
never waits; :meth:`PipeTransport.try_write` uses that. :meth:`PipeTransport.write_all` switches to ``PIPE_WAIT`` while
it holds the end's lock. The mode belongs to this handle; the peer's end of the pipe is not affected.

**Closing.** A handle is a number that the system gives out again. So handles are closed only when no thread is inside a
call: ``_inside`` counts those that are, and the last one that leaves after :meth:`PipeTransport.close` closes them. The
counter and ``_closed`` are guarded by ``_state``. No thread waits for an end's lock while it holds ``_state``.

**Handing over.** The child's two handles are inheritable, and named in the start-up information and in an environment
variable (:class:`InheritedPipes`). The child makes them non-inheritable when it takes them (:func:`take_link`).
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

_VARIABLE = "LYCOMM_LINK"  # `LINK_VARIABLE` of the package

# --- sizes ------------------------------------------------------------------------------------------------------

# Bytes the system holds per direction before a writer has to wait; about what a POSIX socket pair holds.
_PIPE_SIZE = 256 * 1024
# One non-waiting write takes all of its bytes or none: small pieces find room where a large one does not.
_TRY_SIZE = 64 * 1024
# The system copies each write into its own, scarce memory; one of many megabytes fails with error 1450.
_WRITE_SIZE = 256 * 1024

# --- constants of the Windows API, by their names there without the underscore -----------------------------------

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
# Errors that mean the end of the link and not a fault: the peer's end is closed, or this side has closed its own.
_PEER_GONE = frozenset({_ERROR_BROKEN_PIPE, _ERROR_NO_DATA, _ERROR_PIPE_NOT_CONNECTED, _ERROR_OPERATION_ABORTED})


# --- functions of the Windows API ---------------------------------------------------------------------------------


class _Overlapped(ctypes.Structure):
    """``OVERLAPPED``: the state of one operation that may go on after its call has returned. The system writes to it
    until the operation is done, so it has to stay in memory as long."""

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
    """Return a function of kernel32 with its types declared. By default ctypes takes numbers and results for a C
    int of 32 bits, which would cut handles and pointers."""
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
    """Return the error of this thread's last call of kernel32 as an exception."""
    return ctypes.WinError(ctypes.get_last_error())


# --- the transport ------------------------------------------------------------------------------------------------


class _PipeEnd:
    """One handle of a pipe, and what one operation at a time on it needs.

    Args:
        handle: in overlapped mode; closed by :meth:`release`.
        stop: an event that ends every wait once it is set. Not closed here.

    Attributes:
        lock: held for the length of an operation; guards *overlapped*, *event* and the mode of the handle.
        event: set by the system when the operation is done, and reset by it when the next one begins.
        overlapped: state of the operation in progress.
        events: what a wait waits for.

    Raises:
        OSError: no event was to be had.
    """

    def __init__(self, handle: int, stop: int) -> None:
        self.handle = handle
        self.lock = threading.Lock()
        event = _CreateEvent(None, True, False, None)
        if not event:
            raise _last_error()
        self.event: int = event
        self.overlapped = _Overlapped(hEvent=event)
        # In this order: if both are set, the wait reports the first, the operation's own end, so that no byte is lost.
        self.events = (wintypes.HANDLE * 2)(event, stop)

    def set_waiting(self, waiting: bool) -> None:
        """Let a write that finds no room wait for it, or else take nothing. Acts on this end only. The caller holds the
        lock, or nobody else has this end yet."""
        mode = wintypes.DWORD(_PIPE_WAIT if waiting else _PIPE_NOWAIT)
        if not _SetPipeState(self.handle, ctypes.byref(mode), None, None):
            raise _last_error()

    def transfer(self, call: Callable[..., int], data: Any, size: int) -> int:
        """Run one ReadFile or WriteFile to its end and return the bytes moved. The caller holds the lock.

        Waits without a deadline, as far as the handle's mode lets it wait; the stop event ends the wait.

        Args:
            call: ``_ReadFile`` or ``_WriteFile``.
            data: the buffer. The caller keeps it alive until this returns.
            size: its size in bytes.

        Raises:
            OSError: it failed, or the stop event was set before it was done.
        """
        overlapped = ctypes.byref(self.overlapped)
        if not call(self.handle, data, size, None, overlapped):
            if ctypes.get_last_error() != _ERROR_IO_PENDING:
                raise _last_error()
            if _Wait(2, self.events, False, _INFINITE) != _WAIT_OBJECT_0:
                _CancelIo(self.handle, overlapped)
        # Ask for the result after a cancel too, and wait for it (the last argument): until it is there, the system may
        # still write to the buffer. A pipe operation is cancelled at once. If the data were sooner, they count.
        moved = wintypes.DWORD()
        if not _GetResult(self.handle, overlapped, ctypes.byref(moved), True):
            raise _last_error()
        return moved.value

    def release(self) -> None:
        """Close the handle and the event. Once, when no thread is inside an operation."""
        _CloseHandle(self.handle)
        _CloseHandle(self.event)


class PipeTransport:
    """One end of a link over two pipe handles, which it owns from now on. See ``Transport``.

    The handles are closed when no thread is inside a call: by :meth:`close` itself, or by the last thread on its way
    out. Every method may be called from any thread.

    Raises:
        OSError: the system has no event left, or the handle for writing is not that of a pipe. Both handles stay open.
    """

    at_once = 0
    """Nothing: :meth:`send` never waits."""

    def __init__(self, read_handle: int, write_handle: int) -> None:
        stop = _CreateEvent(None, True, False, None)
        if not stop:
            raise _last_error()
        self._stop: int = stop  # set once, by `close`; never reset
        self._reader = _PipeEnd(read_handle, stop)
        self._writer = _PipeEnd(write_handle, stop)
        self._state = threading.Lock()  # guards the next two; held for some lines only, never during an operation
        self._inside = 0  # threads inside a call
        self._closed = False  # set once; also read without the lock, between two operations
        self._writer.set_waiting(False)

    def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes and read them into *buffer*; return how many, 0 when either side has closed the link."""
        if not buffer.nbytes or not self._enter():
            return 0
        try:
            pin = ctypes.c_char.from_buffer(buffer)  # gives the address, and keeps the buffer from being released
            with self._reader.lock:
                while not self._closed:
                    # A successful read of 0 bytes is not the end: the peer has written 0 bytes. Read again.
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
        """Write as much of *data* as fits without waiting; *at_once* is there for the sake of sockets."""
        return self.try_write([data])

    def try_write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        """Write what fits without waiting; return the bytes taken.

        In PIPE_NOWAIT mode a write takes all of its bytes or none. So large data is offered in pieces, until one is not
        taken; the flusher writes the rest. Leaving everything to the flusher would be simpler, but doubles the time of
        a control ping.

        Raises:
            BrokenPipeError: either side has closed the link.
        """
        with self._writing():
            if not self._writer.lock.acquire(blocking=False):
                return 0  # the flusher is inside write_all, and its bytes have to go first
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
        """Write everything, waiting as long as the peer does not read; :meth:`close` ends the wait.

        Raises:
            BrokenPipeError: either side has closed the link, before or during the call.
        """
        with self._writing(), self._writer.lock:
            self._writer.set_waiting(True)
            for piece in _pieces(buffers, _WRITE_SIZE):
                if self._closed:
                    raise BrokenPipeError("the link's pipe was closed meanwhile")
                self._writer.transfer(_WriteFile, piece, len(piece))  # in this mode all of it, or an error
            self._writer.set_waiting(False)  # not after an error, as nothing is written after one

    def close(self) -> None:
        """End both directions and wake the threads that are inside a call. From any thread; more calls do nothing."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            _SetEvent(self._stop)
            idle = self._inside == 0
        if idle:
            self._release()

    def release(self) -> None:
        """Do nothing: :meth:`close` or the last thread inside closes the handles. Here because the socket transport has
        a step of its own for it."""

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Count this thread as inside, and turn the errors that mean the end of the link into BrokenPipeError."""
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
        """Count this thread as inside, so that the handles stay open. False: the transport is closed."""
        with self._state:
            if self._closed:
                return False
            self._inside += 1
            return True

    def _leave(self) -> None:
        """Undo :meth:`_enter`; close the handles if this was the last thread inside a closed transport."""
        with self._state:
            self._inside -= 1
            last = self._closed and self._inside == 0
        if last:
            self._release()

    def _release(self) -> None:
        """Close all handles. Called once: nobody enters after *_closed* is set, so only one thread can be the last."""
        self._reader.release()
        self._writer.release()
        _CloseHandle(self._stop)


def _pieces(buffers: Sequence[bytes | bytearray | memoryview], size: int) -> Iterator[bytes]:
    """Yield the bytes of *buffers*, in order, in pieces of 1 to *size* bytes: short buffers joined, long ones cut. Each
    piece is a copy, as WriteFile takes one block of memory."""
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


# --- the ends of a new link ---------------------------------------------------------------------------------------


class InheritedPipes:
    """The child's two handles, as long as the parent has them: until the child was spawned. See ``ChildHandles``.

    Attributes:
        environment: the variable that names the handles; a handle has the same value in the child that inherits it.
    """

    def __init__(self, read_handle: int, write_handle: int) -> None:
        self._handles: tuple[int, ...] = (read_handle, write_handle)
        self.environment = {_VARIABLE: f"handles:{read_handle},{write_handle}"}

    @property
    def popen_options(self) -> dict[str, Any]:
        """The options that let exactly these handles through to the child."""
        # The handle_list keeps every other inheritable handle out of the child. That these two do not get into what
        # another thread starts at this moment is due to the default there, close_fds=True.
        startupinfo = subprocess.STARTUPINFO(lpAttributeList={"handle_list": list(self._handles)})
        return {"startupinfo": startupinfo, "close_fds": True}

    def close(self) -> None:
        """Close the parent's copies; more calls do nothing. Before that, the end of the child does not show."""
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
    """Make a pipe and return its two handles, neither of them inheritable.

    Args:
        access: of the first handle (inbound: it reads); the second has the opposite one.
        opened: each handle is added as soon as it is open, for the caller to close after an error.

    Raises:
        OSError: the system has no handles or memory left for it.
    """
    # A named pipe could be opened by others. Nobody can guess this name, have made it before (FIRST_PIPE_INSTANCE),
    # connect as a second client (one instance), or reach it from another machine (REJECT_REMOTE_CLIENTS).
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
    # The other end is connected already, so this never waits and needs no event. It says so by an "error".
    if not _ConnectNamedPipe(first, ctypes.byref(_Overlapped())) and (ctypes.get_last_error() != _ERROR_PIPE_CONNECTED):
        raise _last_error()
    return first, second


def take_link(environ: MutableMapping[str, str]) -> PipeTransport | None:
    """Take the inherited end in a child. Returns None when the variable is not there: there is no host.

    Removes the variable and makes the handles non-inheritable, so that nothing that the child starts can hold the link
    open or write to it.

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
            # Checked for both before either is changed: the number may be some other handle of this process.
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
