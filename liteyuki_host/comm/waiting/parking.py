"""What a task waits for while others work for it. Loaded by the first that waits: it takes asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

__all__ = ["Parked"]

LOOK_AGAIN_SECONDS = 0.01
"""Seconds between two looks at whether a cancelled task can go on, while its context is in use."""


class Parked(asyncio.Future[None]):
    """A future for one task, which goes on the moment it is resumed instead of in the loop's next turn: that would look
    at all descriptors in between, which costs more than most messages.

    Not called in asyncio's name: a task that waits for another kind of future than its own asks that to call back, by
    the same methods that such a future has anyway.

    Attributes:
        context: that of the task; None while nobody waits.
    """

    _wake_up: Callable[[Parked], object] | None = None
    context: Context | None = None

    def add_done_callback(self, function: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        self._wake_up, self.context = function, context

    def resume(self) -> None:
        """Let the task go on, here and now: on its loop, in no other task. Nothing happens if it is not waiting."""
        if not self.done():
            self.set_result(None)
            if self._wake_up is not None:
                assert self.context is not None
                self.context.run(self._wake_up, self)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the future, as any other: its task goes on in the loop's next turn. False: it was done before."""
        if not super().cancel(msg):
            return False
        # Forgotten here, or there would be a reference cycle: the task keeps the error that is raised in it, the
        # error's traceback refers to this future, and this to the task. It held all that the task had until a garbage
        # collection.
        wake_up, self._wake_up = self._wake_up, None
        if wake_up is not None:
            if self.context is not None:
                self.get_loop().call_soon(self._go_on, wake_up)
            else:  # of a caller that is no task, such as `asyncio.wait_for`
                self.get_loop().call_soon(wake_up, self)
        return True

    def _go_on(self, wake_up: Callable[[Parked], object]) -> None:
        assert self.context is not None
        try:
            self.context.run(int)  # raises RuntimeError if the context has been entered already
        except RuntimeError:
            # A callback runs in this task's name (`WorkerTask.take`) and has run the loop again. No event tells when it
            # has returned.
            self.get_loop().call_later(LOOK_AGAIN_SECONDS, self._go_on, wake_up)
            return
        self.context.run(wake_up, self)
