"""Byte streams: what carries the link's bytes, and nothing more.

A transport moves bytes and reports the end. If one begins to look interesting, something in it
belongs to the protocol. Which implementation is used is decided here, by platform, once.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol

__all__ = ["LINK_VARIABLE", "Buffer", "ChildHandles", "Transport", "open_link", "take_link"]

LINK_VARIABLE = "LYCOMM_LINK"
"""Environment variable that tells a child which handles are its link."""

Buffer = bytes | bytearray | memoryview


class Transport(Protocol):
    """One end of a duplex byte stream. Reading and writing may happen in different threads at once."""

    def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes and put them into *buffer*; return how many, 0 at the end of the stream."""
        ...

    at_once: int
    """What :meth:`send` takes so that it does not wait."""

    def send(self, data: bytes, at_once: int, /) -> int:
        """As :meth:`try_write` with one buffer; but BlockingIOError may be raised instead of returning 0. A method of
        its own because this way it can be the socket's: nearly all short messages are written by it."""
        ...

    def try_write(self, buffers: Sequence[Buffer]) -> int:
        """Write what fits without waiting; return the bytes taken, possibly 0.

        Raises:
            OSError: the peer is gone (``BrokenPipeError`` and its like).
        """
        ...

    def write_all(self, buffers: Sequence[Buffer]) -> None:
        """Write everything, waiting as long as the peer does not read. Only the link's flusher calls it.

        Raises:
            OSError: the peer is gone, or :meth:`close` was called meanwhile.
        """
        ...

    def close(self) -> None:
        """End both directions. Wakes a thread blocked in reading or writing; more calls do nothing."""
        ...


class ChildHandles(Protocol):
    """The child's half of a link, held by the parent from ``open_link`` until the child is spawned."""

    @property
    def environment(self) -> dict[str, str]:
        """What the child's environment needs for :func:`take_link`."""
        ...

    @property
    def popen_options(self) -> dict[str, Any]:
        """Arguments for ``subprocess.Popen`` that let exactly these handles through."""
        ...

    def close(self) -> None:
        """Close the parent's copies, so that the child's end shows the stream's end. Idempotent."""
        ...


if sys.platform == "win32":
    from liteyuki_host.comm.transport.windows import open_link, take_link
else:
    from liteyuki_host.comm.transport.posix import open_link, take_link


def _signatures_agree() -> tuple[object, object]:  # read by the type checker only
    opened: tuple[Transport, ChildHandles] = open_link()
    environ: MutableMapping[str, str] = {}
    taken: Transport | None = take_link(environ)
    return opened, taken
