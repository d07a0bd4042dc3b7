"""Callbacks: the registered ones, and how one of them is called with one message.

:func:`call_one` is how a callback is called. Two places do the same in fewer steps, because what a message costs is
mostly calls: ``WorkerTask._give`` for messages that arrived together, and ``WorkerTask.take`` for one that arrived
alone. Both are for a single callback without a filter, and a message that is nothing but its payload.

Whatever a callback, its filter or its decoder raises is that callback's failure: it is reported, the message counts as
consumed, and the next message is handled. The exception are ends of the task or of the process (:func:`is_failure`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from liteyuki_host.comm.codec import decode_payload, decode_plain
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.waiting.monitor import Monitor

if TYPE_CHECKING:
    import asyncio

    from liteyuki_host.comm.channel.requests import Requests

__all__ = [
    "SKIPPED",
    "Callback",
    "CallbackTask",
    "Callbacks",
    "Failure",
    "call",
    "call_each",
    "call_one",
    "callback_of",
    "error_text",
    "is_awaitable",
    "is_failure",
    "redelivered",
]

redelivered: ContextVar[bool] = ContextVar("lycomm_redelivered", default=False)
"""Whether the message being handled was given to a callback before: in an earlier incarnation of this process, or here,
when that call was cancelled."""

callback_of: ContextVar[CallbackTask | None] = ContextVar("lycomm_callback_of", default=None)
"""The task that calls a channel's callbacks, if one of these runs in this context or has started the task that does.
None also in a callback of a topic or of the shared memory, for whose end nobody waits."""


class CallbackTask(NamedTuple):
    """The task that calls the callbacks of one channel here. It handles one message at a time."""

    channel: str
    task: asyncio.Task[None]
    requests: Requests
    """The requests of this end of the channel, which know what waits for the task."""

    def is_current(self) -> bool:
        """Whether the calling task is this one, so that no message is handled until the call returns."""
        asyncio = sys.modules["asyncio"]  # loaded, as there is a task
        return bool(asyncio.current_task() is self.task)


UNDECODABLE = "a message that cannot be decoded"


class Callback:
    """A registered receiver.

    Attributes:
        function: sync or async, called with the decoded message.
        filter: sync or async; the function gets only messages for which it returns something true. None: all.
        decode: called with a payload and its flags, returns the message.
        decode_plain: decodes a payload that has no flags.
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
        """The function's module and qualified name, for messages to people."""
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', repr(self.function))}"

    def decoder(self, flags: int) -> Callable[[bytes], Any]:
        """Return a function that decodes payloads with these *flags*: for many of them in a row."""
        if self.decode is decode_payload:
            if not flags:
                return decode_plain
            if flags == Flag.RAW:
                return bytes  # bytes(b) returns b itself, so that nothing is copied
        decode = self.decode
        return lambda payload: decode(payload, flags)


class Callbacks:
    """The receivers of one channel or topic, in the order of registration. Changed from any thread.

    Args:
        monitor: guards the changes, with everything else of its exchange; None: one of its own.

    Attributes:
        any: whether there is one.
        only: the callback, if there is exactly one and it has no filter; else None.
    """

    __slots__ = ("_all", "_lock", "any", "only")

    def __init__(self, monitor: Monitor | None = None) -> None:
        self._lock = (monitor or Monitor()).lock
        self._all: tuple[Callback, ...] = ()
        self.any = False
        self.only: Callback | None = None

    def __iter__(self) -> Iterator[Callback]:
        """Iterate over the callbacks of this moment; adding and removing meanwhile changes nothing for the iterator."""
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, callback: Callback) -> None:
        """Register a callback behind the others."""
        with self._lock:
            self._set((*self._all, callback))

    def discard(self, callback: Callback) -> None:
        """Remove this very registration, if it is there."""
        with self._lock:
            self._set(tuple(other for other in self._all if other is not callback))

    def remove(self, function: Callable[..., Any] | None) -> int:
        """Remove every callback that is *function* (None: all callbacks); returns how many were removed. The caller
        holds no lock: this calls code of the user's."""
        while True:
            before = self._all  # kept until the end: what is freed with a callback may have a finalizer
            # `!=`, not `is not`: bound methods are made anew on every access.
            kept = () if function is None else tuple(other for other in before if other.function != function)
            with self._lock:
                if self._all is before:
                    self._set(kept)
                    return len(before) - len(kept)

    def _set(self, callbacks: tuple[Callback, ...]) -> None:
        self.only = None  # first: no reader may see the old single callback after another one was added
        self._all = callbacks
        self.any = bool(callbacks)
        if len(callbacks) == 1 and callbacks[0].filter is None:
            self.only = callbacks[0]


def is_failure(error: BaseException) -> bool:
    """Whether *error*, which user code raised in this task, is that code's failure. Otherwise it ends the task (its
    cancellation) or the process (KeyboardInterrupt, SystemExit).

    A callback that awaited something cancelled raises the same CancelledError as one whose own task is cancelled; the
    task's ``cancelling()`` tells the two apart. Tasks have that from Python 3.11 on; the tasks that call callbacks
    have it in 3.10 too (``WorkerTask``). In any other task of Python 3.10 a CancelledError ends the task.
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
    """Call a sync or async function, and return its result or what awaiting it returns."""
    result = function(argument)
    if is_awaitable(result):
        result = await result
    return result


class Failure(NamedTuple):
    """Why a callback did not return."""

    what: str
    """What has failed: the callback, its filter, or the message that cannot be decoded."""
    error: BaseException


class _Skipped:
    __slots__ = ()


SKIPPED: Final = _Skipped()
"""What :func:`call_one` returns when the filter did not take the message."""


async def call_one(callback: Callback, payload: bytes, flags: int) -> Any:
    """Call a callback with one message, as its filter says.

    Returns:
        the callback's result, :data:`SKIPPED` when the filter did not take the message, or a :class:`Failure`.

    Raises:
        what ends the task or the process (see :func:`is_failure`).
    """
    what = UNDECODABLE
    token = redelivered.set(bool(flags & Flag.REDELIVERED))
    try:
        data = callback.decode(payload, flags)
        if callback.filter is not None:
            what = "the filter"
            if not await call(callback.filter, data):
                return SKIPPED
        what = "the callback"
        return await call(callback.function, data)
    except BaseException as error:
        if not is_failure(error):
            raise
        return Failure(what, error)
    finally:
        redelivered.reset(token)


async def call_each(
    callbacks: Callbacks, payload: bytes, flags: int, failed: Callable[[str, Callback, BaseException], None]
) -> None:
    """Call every callback of this moment with one message, one after the other.

    Args:
        failed: called with what has failed, the callback and the error, for each failure.
    """
    for callback in callbacks:
        result = await call_one(callback, payload, flags)
        if type(result) is Failure:
            failed(result.what, callback, result.error)


def is_awaitable(result: Any) -> bool:
    """Whether *result* can be awaited, as ``inspect.isawaitable`` says it, without loading inspect for coroutines."""
    if type(result) is CoroutineType:
        return True
    if result is None:
        return False
    import inspect

    return inspect.isawaitable(result)
