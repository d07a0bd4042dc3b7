"""The link's bytes on POSIX: two socket pairs, one for each direction; the child inherits its ends by number.

Theory of operation
-------------------

**Two pairs.** One pair could carry both directions. But each read from a Unix socket makes room for its peer to write,
and Linux then wakes every thread that sleeps at the peer's end, also one that waits to read there and finds nothing:
one needless wake-up for each message. On one core, a round trip with two pairs takes 0.88 of the time, measured.

**Handing over.** The parent makes both ends (:func:`open_link`). The child's end is passed to ``subprocess.Popen`` as
``pass_fds``, and its numbers as an environment variable; after the spawn, the parent closes its copies. As long as
it has them, the child's end does not show as the end of the stream. The child takes its end with :func:`take_link`.

**Threads.** One thread reads and one writes at a time, at the same time as each other; the link sees to that (the
reader's role, the writing role). :meth:`SocketTransport.close` may come from any thread at any time. It only shuts the
sockets down. The descriptors stay open until :meth:`SocketTransport.release`, when no thread can be inside a call: a
number that is free at once might be given to another file, and a late write would go there.

**Waiting.** The sockets stay in blocking mode. A call that must not wait passes ``MSG_DONTWAIT``. Closing ends every
wait; besides that, a leading thread bounds its reads with ``SO_RCVTIMEO`` (``link/shared_reader.py``).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from liteyuki_host.comm.errors import LinkError

assert sys.platform != "win32"  # also what tells a type checker there to skip the rest

__all__ = ["SocketTransport", "open_link", "socket_link", "take_link"]

_VARIABLE = "LYCOMM_LINK"  # `LINK_VARIABLE` of the package
_TIMEVAL = struct.Struct("@ll")  # struct timeval of setsockopt: seconds, microseconds
# sendmsg refuses more buffers than IOV_MAX, which POSIX allows to be as low as 16; 1,024 on Linux and macOS.
_MAX_BUFFERS = 512


class SocketTransport:
    """One end of a link: a socket to read from and one to write to. Owns both from now on. See ``Transport``.

    Attributes:
        at_once: the flag with which ``send`` and ``recv_into`` do not wait. Never changes.
        send: the writing socket's own method. Bound here, as nearly all short messages are written by it and a method
            in between would cost a call. Used by ``link/sender.py``, under the link's lock and while nobody has the
            writing role.
        recv_into: the reading socket's own method, bound for the same reason. Used by the thread that reads.
        read_timeout: seconds that :meth:`set_read_timeout` has told the kernel; None: nothing was set, and a read waits
            as long as it takes. Changed by the thread that reads.
    """

    at_once: int = socket.MSG_DONTWAIT

    def __init__(self, reading: socket.socket, writing: socket.socket) -> None:
        self._reading = reading
        self._writing = writing
        self.send: Callable[[bytes, int], int] = writing.send
        self.recv_into: Callable[..., int] = reading.recv_into
        self.read_timeout: float | None = None
        # A default timeout (`socket.setdefaulttimeout`) would have made them non-blocking.
        reading.setblocking(True)
        writing.setblocking(True)

    # --- reading ------------------------------------------------------------------------------------------------

    def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes and read them; 0 at the end. See ``Transport.read_into``."""
        try:
            return self._reading.recv_into(buffer)
        except ConnectionError:  # a reset is an end like any other: what had arrived was read before it
            return 0

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reading.fileno()

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors to read from and to write to, in this order."""
        return self._reading.fileno(), self._writing.fileno()

    def set_read_timeout(self, seconds: float) -> None:
        """Let ``recv_into`` raise BlockingIOError when nothing has arrived for *seconds*. The kernel keeps it for all
        later reads; setting it costs a system call, so callers compare with :attr:`read_timeout` first."""
        whole = int(seconds)
        # At least a microsecond: 0 would mean to wait without a limit.
        value = _TIMEVAL.pack(whole, max(int((seconds - whole) * 1e6), 1))
        self._reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.read_timeout = seconds

    # --- writing ------------------------------------------------------------------------------------------------

    def try_write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        """Write what fits without waiting. Of more than 512 buffers, only the first 512 are tried; the caller sees that
        as a partial write."""
        try:
            if len(buffers) == 1:
                return self._writing.send(buffers[0], self.at_once)
            return self._writing.sendmsg(buffers[:_MAX_BUFFERS], (), self.at_once)
        except (BlockingIOError, InterruptedError):
            return 0

    def write_all(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write everything, waiting as long as the peer does not read; :meth:`close` ends that."""
        # All buffers in one call, as far as that goes: a header that is written by itself would wake the reader of the
        # other side for nothing.
        sent = self._writing.sendmsg(buffers[:_MAX_BUFFERS])
        for buffer in buffers:  # skip what was sent, and send the rest, one by one
            if sent < len(buffer):
                self._writing.sendall(memoryview(buffer)[sent:] if sent else buffer)
                sent = 0
            else:
                sent -= len(buffer)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End both directions and wake the threads that are blocked in them. From any thread; more calls do nothing."""
        # shutdown, not close: it wakes a thread that is blocked in recv or send, and the descriptors' numbers stay
        # taken. `release` gives them back, or the garbage collector with the last reference.
        for end in (self._reading, self._writing):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:  # the peer was sooner, or it was done already
                pass

    def release(self) -> None:
        """Give the descriptors back; more calls do nothing. Only when no thread can be inside a call any more."""
        self._reading.close()
        self._writing.close()


class InheritedSockets:
    """The child's end, as long as the parent has it: until the child was spawned. See ``ChildHandles``."""

    def __init__(self, end: SocketTransport) -> None:
        self._end = end

    @property
    def environment(self) -> dict[str, str]:
        """The numbers of the descriptors, which are the same in the child."""
        reading, writing = self._end.descriptors
        return {_VARIABLE: f"fd:{reading},{writing}"}

    @property
    def popen_options(self) -> dict[str, Any]:
        """The option that lets these descriptors through to the child. What is not passed is closed there."""
        return {"pass_fds": self._end.descriptors}

    def close(self) -> None:
        self._end.release()


def socket_link() -> tuple[SocketTransport, SocketTransport]:
    """Make two ends that are connected with each other, both in this process.

    Raises:
        OSError: no descriptors are left. Nothing stays open.
    """
    first_reads, second_writes = socket.socketpair()
    try:
        second_reads, first_writes = socket.socketpair()
    except BaseException:  # no descriptors left
        first_reads.close()
        second_writes.close()
        raise
    return SocketTransport(first_reads, first_writes), SocketTransport(second_reads, second_writes)


def open_link() -> tuple[SocketTransport, InheritedSockets]:
    """Make the two ends of a new link: ours, and the one for a child yet to be spawned.

    Python makes sockets that are not inheritable, so that only ``popen_options`` lets the child's end through.

    Raises:
        OSError: no descriptors are left.
    """
    ours, theirs = socket_link()
    return ours, InheritedSockets(theirs)


def take_link(environ: MutableMapping[str, str]) -> SocketTransport | None:
    """Take the inherited end in a child. Returns None when the variable is not there: there is no host.

    Removes the variable and makes the descriptors non-inheritable, so that nothing that the child starts can hold the
    link open or write to it.

    Raises:
        LinkError: the variable is there, but names no two open sockets.
    """
    value = environ.pop(_VARIABLE, None)
    if value is None:
        return None
    ends: list[socket.socket] = []
    try:
        scheme, _, numbers = value.partition(":")
        if scheme != "fd":
            raise ValueError(f"unknown scheme {scheme!r}")
        first, second = map(int, numbers.split(","))
        if first == second:
            raise ValueError("one descriptor for both directions")
        for descriptor in (first, second):
            os.set_inheritable(descriptor, False)
            ends.append(socket.socket(fileno=descriptor))  # asks the system whether it is a socket
        reading, writing = ends
        return SocketTransport(reading, writing)
    except (OSError, ValueError) as error:
        for end in ends:
            end.detach()  # not closed with the object: the number may belong to something else of this process
        raise LinkError(
            f"{_VARIABLE}={value} names no link ({error}); it is set by the host for the process it starts, "
            "remove it from the environment"
        ) from error
