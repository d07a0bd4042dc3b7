"""The link's bytes on POSIX: a socket pair, the child's end inherited by number."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from ..errors import LinkError

assert sys.platform != "win32"  # also what tells a type checker there to skip the rest

__all__ = ["SocketTransport", "open_link", "take_link"]

_VARIABLE = "LYCOMM_LINK"
_TIMEVAL = struct.Struct("@ll")
# sendmsg refuses more buffers than IOV_MAX, which POSIX allows to be as low as 16; 1,024 on Linux and macOS.
_MAX_BUFFERS = 512


class SocketTransport:
    """One end of a connected stream socket. The socket stays in blocking mode; not waiting is asked per call."""

    at_once: int = socket.MSG_DONTWAIT

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # The socket's own, without a method in between: nearly everything passes through these two.
        self.send: Callable[[bytes, int], int] = sock.send
        self.recv_into: Callable[..., int] = sock.recv_into
        self.read_timeout: float | None = None  # as the kernel has it
        sock.setblocking(True)

    def read_into(self, buffer: memoryview) -> int:
        try:
            return self._socket.recv_into(buffer)
        except ConnectionError:  # a reset is an end like any other: what had arrived was delivered before it
            return 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def set_read_timeout(self, seconds: float) -> None:
        """Let ``recv_into`` raise BlockingIOError after *seconds*. Remembered by the kernel, and a system call."""
        whole = int(seconds)
        value = _TIMEVAL.pack(whole, max(int((seconds - whole) * 1e6), 1))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.read_timeout = seconds

    def try_write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        try:
            if len(buffers) == 1:
                return self._socket.send(buffers[0], self.at_once)
            return self._socket.sendmsg(buffers[:_MAX_BUFFERS], (), self.at_once)
        except (BlockingIOError, InterruptedError):
            return 0

    def write_all(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        # A header by itself would wake the reader for nothing, so all buffers go at once as far as that goes.
        sent = self._socket.sendmsg(buffers[:_MAX_BUFFERS])
        for buffer in buffers:
            if sent < len(buffer):
                self._socket.sendall(memoryview(buffer)[sent:] if sent else buffer)
                sent = 0
            else:
                sent -= len(buffer)

    def close(self) -> None:
        # shutdown, not close: it wakes a thread blocked in recv, and the number cannot be reused under it.
        # The descriptor itself goes with the last reference.
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def release(self) -> None:
        """Give the descriptor back. Only when no thread can be inside a call any more."""
        self._socket.close()


class InheritedSocket:
    """The child's end in the parent."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @property
    def environment(self) -> dict[str, str]:
        return {_VARIABLE: f"fd:{self._socket.fileno()}"}

    @property
    def popen_options(self) -> dict[str, Any]:
        return {"pass_fds": (self._socket.fileno(),)}

    def close(self) -> None:
        self._socket.close()


def open_link() -> tuple[SocketTransport, InheritedSocket]:
    """Make the two ends of a new link: ours, and the one for a child yet to be spawned."""
    ours, theirs = socket.socketpair()
    return SocketTransport(ours), InheritedSocket(theirs)


def take_link(environ: MutableMapping[str, str]) -> SocketTransport | None:
    """Take the inherited end in a child, or None when there is no host.

    The variable is removed and the descriptor made non-inheritable, so that nothing the child starts
    can hold the link open or speak on it.

    Raises:
        LinkError: the variable is there, but names no open socket.
    """
    value = environ.pop(_VARIABLE, None)
    if value is None:
        return None
    try:
        scheme, _, number = value.partition(":")
        if scheme != "fd":
            raise ValueError(f"unknown scheme {scheme!r}")
        descriptor = int(number)
        os.set_inheritable(descriptor, False)
        return SocketTransport(socket.socket(fileno=descriptor))
    except (OSError, ValueError) as error:
        raise LinkError(
            f"{_VARIABLE}={value} names no link ({error}); it is set by the host for the process it starts, "
            "remove it from the environment"
        ) from error
