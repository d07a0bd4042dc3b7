"""Who receives, and how the code of users is called."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import CoroutineType
from typing import Any

from liteyuki_host.comm.codec import decode_payload, decode_plain
from liteyuki_host.comm.protocol.frames import Flag

__all__ = ["Callback", "Callbacks", "call", "call_each", "error_text", "is_awaitable", "is_failure"]


class Callback:
    """A registered receiver.

    Attributes:
        decode: takes a payload and its flags.
        decode_plain: the same for a payload without flags.
    """

    __slots__ = ("decode", "decode_plain", "filter", "function")

    def __init__(
        self,
        function: Callable[[Any], Any],
        filter: Callable[[Any], Any] | None,
        decode: Callable[[bytes, int], Any],
    ) -> None:
        self.function = function
        self.filter = filter
        self.decode = decode
        self.decode_plain = self.decoder(0)

    @property
    def name(self) -> str:
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', repr(self.function))}"

    def decoder(self, flags: int) -> Callable[[bytes], Any]:
        """What decodes the payloads that have these flags: for many of them at once."""
        if self.decode is decode_payload:
            if not flags:
                return decode_plain
            if flags == Flag.RAW:
                return bytes  # as they are: it makes no copy of bytes
        decode = self.decode
        return lambda payload: decode(payload, flags)


class Callbacks:
    """The receivers of one channel or topic, in the order of registration. Changed from any thread.

    Attributes:
        any: whether there is one.
        only: the one that there is, if it takes every message; else None.
    """

    __slots__ = ("_all", "_lock", "any", "only")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: tuple[Callback, ...] = ()
        self.any = False
        self.only: Callback | None = None

    def __iter__(self) -> Iterator[Callback]:
        """Those that there are now, whatever becomes of them meanwhile."""
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, callback: Callback) -> None:
        with self._lock:
            self._set((*self._all, callback))

    def discard(self, callback: Callback) -> None:
        with self._lock:
            self._set(tuple(other for other in self._all if other is not callback))

    def remove(self, function: Callable[..., Any] | None) -> int:
        """Remove all of *function* (None: all there are); returns how many there were."""
        with self._lock:
            before = self._all
            # `!=`, not `is not`: bound methods are made anew on every access.
            self._set(() if function is None else tuple(other for other in before if other.function != function))
            return len(before) - len(self._all)

    def _set(self, callbacks: tuple[Callback, ...]) -> None:
        self.only = None  # nobody may see the only one of before beside another
        self._all = callbacks
        self.any = bool(callbacks)
        if len(callbacks) == 1 and callbacks[0].filter is None:
            self.only = callbacks[0]


def is_failure(error: BaseException) -> bool:
    """Whether *error*, out of user code in this task, is that code's failure. Else it is the end of the task, or of
    the process.

    A callback that awaited something cancelled raises the same CancelledError as one whose own task is cancelled.
    Python 3.10 cannot tell the two apart: there it is always taken for the task's end.
    """
    if isinstance(error, Exception):
        return True
    # Not imported here: a task may also be thrown away when Python ends and nothing can be imported any more.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not isinstance(error, asyncio.CancelledError):
        return False
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() == 0


def error_text(error: BaseException) -> str:
    """``str(error)``, whatever its class does there."""
    try:
        return str(error)
    except Exception as failure:
        return f"(its text cannot be shown: {type(failure).__name__})"


async def call(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call a sync or async function and wait for its result."""
    result = function(argument)
    if is_awaitable(result):
        result = await result
    return result


async def call_each(
    callbacks: Callbacks, payload: bytes, flags: int, failed: Callable[[str, Callback, BaseException], None]
) -> None:
    """Call those that there are now with a message, one after the other.

    Args:
        failed: told what of a callback has failed, and why.
    """
    for callback in callbacks:
        try:
            await call(callback.function, callback.decode(payload, flags))
        except BaseException as error:
            if not is_failure(error):
                raise
            failed("the callback", callback, error)


def is_awaitable(result: Any) -> bool:
    """As ``inspect.isawaitable``, which is not loaded for what coroutine functions return."""
    if type(result) is CoroutineType:
        return True
    if result is None:
        return False
    import inspect

    return inspect.isawaitable(result)
