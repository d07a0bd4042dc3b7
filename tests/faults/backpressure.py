"""A bot that is frozen while others flood it: the host's memory stays bounded, and everybody else is served."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from pathlib import Path
from typing import Any

import psutil
from bare_kit import BareHost, bare_child, bare_host
from faults_kit import Report
from kit import eventually
from live_kit import DEADLINE, Traces, percentile

from liteyuki_host.comm.codec import DEFAULT_MESSAGE_LIMIT
from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW

TITLE = "flooded while frozen"
SHORT = {"frozen_seconds": 2.0, "round_trip": 0.25}
LONG = {"frozen_seconds": 60.0, "round_trip": 0.05}

WRITERS = [f"writer{number}" for number in range(8)]
SIZES = {"1 MB": 1_000_000, "16 MB": DEFAULT_MESSAGE_LIMIT}

MEBIBYTE = 1024 * 1024
SPARE = 1.05
LOOKS = 4
"""At what is in use, spread over the frozen time, the last at its end."""

PAUSE = 0.01
"""Seconds between two pings, and between two looks at the host's memory."""


async def run(report: Report, folder: Path, *, frozen_seconds: float, round_trip: float) -> None:
    """
    Args:
        round_trip: seconds from a ping to its pong, p99, over the link of a child that has nothing to do with it.
    """
    traces = Traces(folder)
    specs = [
        bare_child(folder, traces, "reader", "read", WRITERS=" ".join(WRITERS)),
        bare_child(folder, traces, "quiet", "idle"),
        *(bare_child(folder, traces, name, "write") for name in WRITERS),
    ]
    async with bare_host(specs) as host:
        flood = Flood(host)
        start, start_used = resident(), used()
        for words, size in SIZES.items():
            await flood.freeze(size, frozen_seconds)
            # What one writer has on its way: once on its link to the host, once on the host's link to the reader.
            # Each may hold the window, or one item that is larger.
            windows = len(WRITERS) * 2 * max(DEFAULT_WINDOW, size)
            # A large item arrives in pieces. Their memory is free once it is put together, but the C library keeps it,
            # for each link's thread.
            pieces = len(WRITERS) * size if size > DEFAULT_WINDOW else 0
            for what, more, limit in (
                ("host's memory over its start, in use", flood.used - start_used, windows),
                ("the same with what the C library keeps", flood.peak - start, windows + pieces),
            ):
                report.below(f"{words} items: {what}", more / MEBIBYTE, limit * SPARE / MEBIBYTE, "MiB")
            pings = len(flood.pings)
            what = f"p99 of {pings} control round trips of another bot"
            report.below(f"{words} items: {what}", percentile(flood.pings, 0.99), round_trip, "s")
            arrived, accepted = sum(flood.arrived.values()), sum(flood.accepted.values())
            complete = flood.arrived == flood.accepted and flood.in_order
            report.hold(f"{words} items: arrived, each in its order", f"{arrived} of {accepted}", "all", complete)
        restarts = sum(status.restarts for status in host.supervisor.status())
        report.none("restarts", restarts)
    await traces.report(report)


class Flood:
    """Floods the reader while it is frozen, and looks at the host meanwhile."""

    def __init__(self, host: BareHost) -> None:
        self.accepted: dict[str, int] = {}
        self.arrived: dict[str, int] = {}
        self.in_order = True
        self.used = 0
        """Most bytes that were in use while the reader was frozen."""
        self.peak = 0
        """Most bytes that were resident."""
        self.pings: list[float] = []
        """Seconds of the control round trips while the reader was frozen."""
        self._frozen = False
        self._host = host
        self._told = 0  # writers that have stopped and said how much they had sent
        for name in WRITERS:
            host.channel(f"told-{name}").on_receive()(self._writer_told)
        host.channel("told-reader").on_receive()(self._reader_told)

    def _writer_told(self, message: list[Any]) -> None:
        self._told += 1
        self._count(self.accepted, message)

    def _reader_told(self, message: list[Any]) -> None:
        self._count(self.arrived, message)

    def _count(self, counts: dict[str, int], message: list[Any]) -> None:
        writer, count, in_order = message
        counts[writer] = count
        self.in_order &= in_order

    async def freeze(self, size: int, seconds: float) -> None:
        """Let items of that size flow, freeze the reader for that long, wake it, and wait until all has arrived."""
        self.used, self.peak, self.pings, self._told = 0, 0, [], 0
        before = sum(self.arrived.values())
        looking = asyncio.create_task(self._look())
        try:
            await self._tell_writers(size)
            await eventually(lambda: sum(self.arrived.values()) >= before + len(WRITERS), DEADLINE)
            reader = self._host.status("reader").pid
            assert reader is not None
            os.kill(reader, signal.SIGSTOP)
            self._frozen = True
            try:
                for _ in range(LOOKS):
                    await asyncio.sleep(seconds / LOOKS)
                    self.used = max(self.used, used())
            finally:
                self._frozen = False
                os.kill(reader, signal.SIGCONT)
            await self._tell_writers(0)
            await eventually(lambda: self._told == len(WRITERS), DEADLINE)
            await eventually(lambda: self.arrived == self.accepted, DEADLINE)
        finally:
            looking.cancel()
            await asyncio.wait({looking})

    async def _tell_writers(self, size: int) -> None:
        for name in WRITERS:
            await self._host.channel(f"told-{name}").asend(size)

    async def _look(self) -> None:
        session = self._host.hub.session("quiet")
        assert session is not None
        while True:
            seconds = await asyncio.to_thread(session.link.ping, DEADLINE)
            if self._frozen:
                self.pings.append(DEADLINE if seconds is None else seconds)
            self.peak = max(self.peak, resident())
            await asyncio.sleep(PAUSE)


def resident() -> int:
    """Bytes of this process, which is the host."""
    return int(psutil.Process().memory_info().rss)


class _Allocated(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def used() -> int:
    """Bytes that are in use here, without what the C library keeps of what was freed: it gives back what lies at the
    end of a thread's memory only when it likes. Where it does not tell (it is not glibc), what is resident."""
    tell = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if tell is None:
        return resident()
    tell.restype = _Allocated
    told = tell()
    return int(told.uordblks + told.hblkhd)
