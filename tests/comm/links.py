"""The kinds of link that a pair can be joined by: those of the tests, and those that users have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.transport.memory import memory_link

Maker = Callable[[], tuple[Transport, Transport]]

LINKS: dict[str, Maker] = {"memory": memory_link}

if sys.platform != "win32":
    from liteyuki_host.comm.transport.posix import SocketTransport, socket_link

    class _OtherTransport:
        """A socket transport under another type: a link reads it by a thread of its own, as on macOS."""

        def __init__(self, inner: SocketTransport) -> None:
            self._inner = inner
            self.at_once = inner.at_once
            self.send = inner.send

        def read_into(self, buffer: memoryview) -> int:
            return self._inner.read_into(buffer)

        def try_write(self, buffers: Sequence[Any]) -> int:
            return self._inner.try_write(buffers)

        def write_all(self, buffers: Sequence[Any]) -> None:
            self._inner.write_all(buffers)

        def close(self) -> None:
            self._inner.close()

        def release(self) -> None:
            self._inner.release()

    def thread_read_sockets() -> tuple[Transport, Transport]:
        """Socket pairs, each read by a thread of its own."""
        ours, theirs = socket_link()
        return _OtherTransport(ours), _OtherTransport(theirs)

    LINKS["sockets"] = thread_read_sockets
    if sys.platform == "linux":
        LINKS["shared reader"] = socket_link
