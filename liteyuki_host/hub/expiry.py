"""The clock of the shared memory in the host: keys with a ttl are deleted at their time.

A task on the host's event loop sleeps until the next key is due. Whoever writes a key with a ttl wakes it up, so that
it looks at the next due time again. Without such keys nothing runs.
"""

from __future__ import annotations

from collections.abc import Callable

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm.storage.authority import Authority
from liteyuki_host.comm.waiting.monitor import Monitor

__all__ = ["Expiry"]


class Expiry:
    """Deletes keys at their time. Methods may be called from any thread.

    Args:
        monitor: that of the hub.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._lock = monitor.lock
        self._wake: tuple[Callable[[], None], ...] = ()  # replaced as a whole, under the authority's lock

    async def serve(self, authority: Authority) -> None:
        """Delete keys when their ttl ends, until cancelled. Runs on the host's loop; sleeps while there are none."""
        import asyncio

        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(woken.set)
            except RuntimeError:  # the loop is closed
                pass

        self.on_deadline(wake)
        boundary = Boundary("deleting keys of the shared memory at their time")
        try:
            while True:
                woken.clear()
                try:
                    delay = authority.expire()
                    boundary.succeeded()
                except Exception as error:
                    delay = boundary.failed(error)
                # A timer, and no cancel scope with a deadline: before Python 3.11 such a scope also swallows a
                # cancellation of this task that arrives in the turn of the loop in which its deadline passes.
                timer = None if delay is None else loop.call_later(delay, woken.set)
                try:
                    await woken.wait()
                finally:
                    if timer is not None:
                        timer.cancel()
        finally:
            self.on_deadline(wake, remove=True)

    def on_deadline(self, wake: Callable[[], None], *, remove: bool = False) -> None:
        """Call *wake* whenever a key with a ttl is written; or no longer, to *remove* it. It is called under the
        authority's lock, and must not wait."""
        with self._lock:
            others = tuple(each for each in self._wake if each != wake)
            self._wake = others if remove else (*others, wake)

    def note_deadline(self) -> None:
        """Note that a key with a ttl was written. The caller holds the lock."""
        for wake in self._wake:
            wake()
