"""The shared memory: a dict that every process holds a copy of, kept equal by the host's ordered writes.

The guarantee, in one sentence: writes are totally ordered by the host; every process sees a prefix of that order, its
own writes included; reads are local and never wait.

How it works
------------

This module has what users hold. It checks and encodes values, waits, and turns outcomes into results and errors; the
work is done by the exchange of the process (``process/exchange.py``): the hub in the host, a node in a bot.

*Reads* look into the exchange's *view*, a dict that the exchange keeps current. They take no lock: each is one look-up
of a dict, which is one step under the GIL. The view has a value in one of three forms (``values.py``): immutable ones
as they are; containers encoded (``Packed``), decoded anew for each reader, so that every reader gets a copy; and either
of them with the time at which it ends (``Expiring``).

*Plain writes* (``set``, ``delete``) are queued and return. They wait only for room, and never on an event loop.

*Confirmed operations* wait for the host's decision. Each has a form for threads and an ``a...`` form for tasks. Both
ask in the same way, by a private method that returns an ``Answer``; a thread waits for it with ``waited``, a task with
``awaited`` (``confirmed.py``). The time limit covers the wait, not the work: what timed out may still be done.

*Calls from inside.* A finalizer, signal handler or log sink may call in the middle of lycomm's own work on its thread
(``waiting/monitor.py``). Plain writes are put off then, and performed when that work is done. Everything that has a
result raises ``ReentrantCall``.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from liteyuki_host.comm import codec, topics
from liteyuki_host.comm.channel.calling import call
from liteyuki_host.comm.codec import encode_plain, encode_quickly, may_be_plain
from liteyuki_host.comm.errors import (
    NotANumber,
    ValueRefused,
    ValueTooLarge,
    ValueUnreadable,
)
from liteyuki_host.comm.process.current import current, follow_current
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.storage.checks import (
    alive,
    check_key,
    check_ttl,
    checked_timeout,
    decoded,
    synchronized,
    writes_full,
)
from liteyuki_host.comm.storage.confirmed import DEFAULT_TIMEOUT, awaited, checkpoint_due, good, late, waited
from liteyuki_host.comm.storage.lock import Lock
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.storage.store import MAX_KEY_SIZE
from liteyuki_host.comm.storage.values import MISSING, Expiring, Packed
from liteyuki_host.comm.storage.watch import Watch
from liteyuki_host.comm.waiting.checkpoints import checkpoint
from liteyuki_host.comm.waiting.loops import on_event_loop, refuse_event_loop, running_loop
from liteyuki_host.comm.waiting.monitor import Held
from liteyuki_host.comm.waiting.waiting import NOTHING, Answer

if TYPE_CHECKING:
    import anyio

__all__ = ["SharedMemory", "shared_memory"]

F = TypeVar("F", bound=Callable[[Any], Any])


class SharedMemory:
    """The shared memory of this process, as its users hold it. Use the module's :data:`shared_memory`; make one only in
    tests.

    Values are copies: changing what ``get`` returned changes nothing elsewhere. Keys are texts of at most 512 bytes.
    Methods may be called from any thread. On an event loop, those that wait for the host raise WouldBlockEventLoop.

    Args:
        exchange: the one to use; None: the current one of this process, also when that changes.
    """

    def __init__(self, exchange: Exchange | None = None) -> None:
        # These three are written by _rebind alone, whenever this process gets another exchange, and read without a
        # lock.
        self._bound_to: Exchange | None = None
        self._view: dict[str, Any] = {}
        self._look_up: Callable[[str, Any], Any] = self._view.get
        # By loop and key, the turn of aupdate() in the tasks of one process, so that they do not race each other at the
        # host. Weak: an entry goes with the last task that uses it.
        self._turns: weakref.WeakValueDictionary[tuple[int, str], anyio.Lock] = weakref.WeakValueDictionary()
        # What the latest get_all() has left out, and the log has told of. Replaced as a whole, by any thread.
        self._unreadable: dict[str, Packed] = {}
        if exchange is not None:
            self._rebind(exchange)
        else:
            follow_current(self._rebind)

    @property
    def _exchange(self) -> Exchange:
        return self._bound_to or current()  # makes the exchange on the first use, which calls _rebind

    def _rebind(self, exchange: Exchange) -> None:
        """Use *exchange* from now on. Called when this process gets another one."""
        self._bound_to = exchange
        self._view = exchange.view
        self._look_up = exchange.view.get  # bound once: a read is mostly this call

    # --- reading: local, any thread, never waits ----------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """The key's value, or *default*.

        Raises:
            ValueUnreadable: what is stored cannot be decoded; overwrite or delete it.
        """
        value = self._look_up(key, default)
        kind = type(value)
        if kind is Packed:
            try:
                return codec.decode_plain(value)
            except Exception:  # decoded again in the slow way, which raises our error
                return decoded(key, value)
        if kind is Expiring:
            value = alive(value)
            if type(value) is Packed:
                return decoded(key, value)
            return default if value is MISSING else value
        return value

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        """Whether the key is there; a value that cannot be decoded counts."""
        value = self._view.get(key, MISSING)  # type: ignore[call-overload]
        if type(value) is Expiring:
            value = alive(value)
        return value is not MISSING

    def get_all(self) -> dict[str, Any]:
        """Everything, as one moment; a new dict of copies.

        A value that cannot be decoded is left out, and the log says so once; ``get`` of its key raises ValueUnreadable.
        """
        result = {}
        unreadable: dict[str, Packed] = {}
        for key, value in list(self._view.items()):
            if type(value) is Expiring:
                value = alive(value)
            if value is MISSING:
                continue
            if type(value) is Packed:
                try:
                    result[key] = codec.decode(value)
                except ValueUnreadable as error:
                    unreadable[key] = value
                    if self._unreadable.get(key) is not value:  # not told of, or written again since
                        self._warn_unreadable(key, error)
            else:
                result[key] = value
        self._unreadable = unreadable
        return result

    def __iter__(self) -> Iterator[str]:
        return iter([key for key in list(self._view) if key in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def keys(self) -> list[str]:
        """The keys, as one moment; a new list."""
        return list(self)

    def items(self) -> list[tuple[str, Any]]:
        """Keys and values, as one moment; a new list, as :meth:`get_all`."""
        return list(self.get_all().items())

    @property
    def revision(self) -> int:
        """The last step of the host's order that this process has seen."""
        return self._exchange.revision

    # --- writing: queued, visible here at once ----------------------------------------------------------------
    # Both try without waiting first. Without room, a thread waits for it in the exchange, and an event loop gets
    # ChannelFull. `Held` means that the lock could not be had in time, or is this thread's own: the call is put off.

    def set(self, key: str, value: Any, *, ttl: float | None = None, ephemeral: bool = False) -> None:
        """Write, from any thread. Visible here at once, elsewhere in the host's order.

        Args:
            ttl: seconds after which the key is deleted.
            ephemeral: delete the key when this process ends, however it ends.

        Raises:
            ValueRefused, ValueTooLarge: the value cannot travel. Nothing was written.
            SharedMemoryFull: nothing was written. In a child the host decides later; then it is logged and undone.
            ChannelFull: called on an event loop while too many writes are on their way; ``aset`` waits instead.
            ReentrantCall: called by a finalizer, a signal handler or a log sink in the middle of lycomm's own work, and
                too many such calls wait already. Nothing was written.

        Called from there otherwise, the write is made when that work is done: it is not visible here before.
        """
        payload = self._encode(key, value)
        if ttl is not None:
            check_ttl(ttl)
        exchange = self._bound_to or self._exchange
        monitor = exchange.monitor
        try:
            if monitor.owned():  # a call from inside
                raise Held
            if not exchange.put(key, payload, ttl, ephemeral, None, may_wait=False):
                if on_event_loop():
                    raise writes_full(key)
                exchange.put(key, payload, ttl, ephemeral, None, may_wait=True)
        except Held:
            # `late`: nobody will be left who could wait, so it is taken without room.
            monitor.defer(
                lambda: exchange.put(key, payload, ttl, ephemeral, None, may_wait=False, late=True),
                f"shared_memory.set({key!r})",
                len(payload),
            )
        if monitor.due:
            monitor.settle()

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def delete(self, key: str, ignore_key_error: bool = True) -> None:
        """Delete, from any thread. Put off like :meth:`set` where it is called from inside lycomm's own work.

        Raises:
            KeyError: it is missing here and *ignore_key_error* is False. Another process may have written it since.
            ChannelFull: called on an event loop while too many writes are on their way; ``adelete`` waits instead.
        """
        check_key(key)
        if not ignore_key_error and key not in self:
            raise KeyError(key)
        exchange = self._exchange
        monitor = exchange.monitor
        try:
            if monitor.owned():
                raise Held
            if not exchange.remove(key, None, may_wait=not on_event_loop()):
                raise writes_full(key)
        except Held:
            monitor.defer(
                lambda: exchange.remove(key, None, may_wait=False, late=True),
                f"shared_memory.delete({key!r})",
                len(key),
            )
        if monitor.due:
            monitor.settle()

    def __delitem__(self, key: str) -> None:
        self.delete(key, ignore_key_error=False)

    # --- confirmed and atomic operations ----------------------------------------------------------------------
    # Each has a form for threads and an `a...` form for tasks; both ask the same and wait differently. The `a...` forms
    # make a checkpoint where the answer would come without the loop's turning: cancellation is noticed there, and other
    # tasks get their turn.

    async def aset(self, key: str, value: Any, *, ttl: float | None = None, ephemeral: bool = False) -> int:
        """Write and wait until the host has ordered it; returns the revision.

        While too many writes are on their way it waits for room. Cancelled before it has found room, it writes nothing;
        cancelled later, the write takes place.

        Raises:
            SharedMemoryFull: nothing was written.
            RequestTimeout: the host did not answer within 30 s; it may still do it.
            AsyncioNeeded: awaited where asyncio does not run.
        """
        payload = self._encode(key, value)
        if ttl is not None:
            check_ttl(ttl)
        exchange = self._bound_to or self._exchange
        if checkpoint_due(exchange):
            await checkpoint()
        exchange.monitor.refuse_inside("shared_memory.aset()")
        outcome: Answer[Outcome] = Answer()
        if not exchange.put(key, payload, ttl, ephemeral, outcome.give, may_wait=False):
            # `partial`, as variables that another function uses are slower throughout.
            write = partial(exchange.put, key, payload, ttl, ephemeral, outcome.give, may_wait=False)
            await exchange.wait_to_write(write)
        # Without a link the outcome is there already: this process decides.
        ordered = outcome.value if exchange.link is None else NOTHING
        if ordered is NOTHING:
            ordered = await outcome.wait_async(DEFAULT_TIMEOUT)
        if ordered is NOTHING:
            raise late(key, DEFAULT_TIMEOUT)
        return ordered.revision if ordered.error is None else good(key, ordered).revision

    async def adelete(self, key: str) -> bool:
        """Delete and wait until the host has ordered it; returns whether the key was there. Waits for room and can be
        cancelled as :meth:`aset`."""
        check_key(key)
        exchange = self._exchange
        if checkpoint_due(exchange):
            await checkpoint()
        exchange.monitor.refuse_inside("shared_memory.adelete()")
        outcome: Answer[Outcome] = Answer()
        if not exchange.remove(key, outcome.give, may_wait=False):
            await exchange.wait_to_write(lambda: exchange.remove(key, outcome.give, may_wait=False))
        ordered = await outcome.wait_async(DEFAULT_TIMEOUT)
        if ordered is NOTHING:
            raise late(key, DEFAULT_TIMEOUT)
        return good(key, ordered).value is not None

    def incr(self, key: str, by: float = 1, *, timeout: float = DEFAULT_TIMEOUT) -> int | float:
        """Add atomically (a missing key counts as 0) and return the new number. Waits for the host.

        Raises:
            NotANumber: the key holds something else, or the sum would need more than 64 bits.
            WouldBlockEventLoop: called on an event loop.
        """
        refuse_event_loop("shared_memory.incr()", "shared_memory.aincr(...)")
        return self._number(key, waited(self._exchange, key, self._increment(key, by), timeout))

    async def aincr(self, key: str, by: float = 1, *, timeout: float = DEFAULT_TIMEOUT) -> int | float:
        """Add atomically and return the new number, as :meth:`incr`, in a task. Cancelled before it has asked the host,
        it adds nothing; cancelled later, the number may have been added."""
        return self._number(key, await awaited(self._exchange, key, lambda: self._increment(key, by), timeout))

    def compare_and_set(self, key: str, expected: Any, value: Any, *, timeout: float = DEFAULT_TIMEOUT) -> bool:
        """Write *value* only if the key holds *expected* now, atomically. Waits for the host.

        Two values are equal if they arrive equal as plain data: containers by their items, dicts in whatever order,
        ``3`` and ``3.0``. ``True`` and ``False`` are equal to themselves only, never to ``1`` and ``0``.

        Args:
            expected: what the key is to hold. None is what ``get`` returns for a key that is missing or holds None, and
                matches both. ``MISSING`` (of ``liteyuki_host.comm.storage``) matches a missing key only.
            value: what to write; None or ``MISSING`` deletes. Like every write but ``incr`` it ends the key's ttl.

        Returns whether it was written.
        """
        refuse_event_loop("shared_memory.compare_and_set()", "shared_memory.acompare_and_set(...)")
        return self._was_same(key, waited(self._exchange, key, self._compare(key, expected, value), timeout))

    async def acompare_and_set(self, key: str, expected: Any, value: Any, *, timeout: float = DEFAULT_TIMEOUT) -> bool:
        """Write only if the key holds *expected*, as :meth:`compare_and_set`, in a task. Cancelled before it has asked
        the host, it writes nothing; cancelled later, it may have."""
        outcome = await awaited(self._exchange, key, lambda: self._compare(key, expected, value), timeout)
        return self._was_same(key, outcome)

    def update(
        self, key: str, function: Callable[[Any], Any], default: Any = None, *, timeout: float = DEFAULT_TIMEOUT
    ) -> Any:
        """Replace the value by ``function(value)`` atomically, and return the new value. Waits for the host.

        Like every write but ``incr`` it ends the key's ttl.

        *function* gets *default* for a missing key; it is called again when another process was faster, so it must
        only compute. Returning None deletes the key.
        """
        refuse_event_loop("shared_memory.update()", "shared_memory.aupdate(...)")
        # Compare and set by revision, which is shorter than the value. A refusal brings the
        # value and revision that there are, so another round needs no look-up.
        deadline = time.monotonic() + timeout
        payload, revision = self._stored(key)
        while True:
            value, new = self._next_value(key, function, default, payload)
            left = max(deadline - time.monotonic(), 0.0)
            outcome = waited(self._exchange, key, self._compare_revision(key, new, revision), left)
            if outcome.error != Refusal.CHANGED:
                good(key, outcome)
                return value
            payload, revision = outcome.value, outcome.revision

    async def aupdate(
        self,
        key: str,
        function: Callable[[Any], Any | Awaitable[Any]],
        default: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Any:
        """Replace the value by ``function(value)`` atomically, as :meth:`update`, in a task. *function* may be async.

        Tasks of one event loop take turns per key. *timeout* covers the turn, *function* and the host's answers.
        """
        import anyio

        loop = running_loop()
        turn = self._turns.get((id(loop), key))
        if turn is None:
            turn = self._turns[id(loop), key] = anyio.Lock()
        with anyio.move_on_after(timeout):  # not fail_after, so that a TimeoutError that *function* raises stays itself
            async with turn:
                payload, revision = self._stored(key)
                while True:
                    old = default if payload is None else decoded(key, payload)
                    value = await call(function, old)
                    new = None if value is None else self._encode(key, value)
                    ask = partial(self._compare_revision, key, new, revision)
                    outcome = await awaited(self._exchange, key, ask, timeout)
                    if outcome.error != Refusal.CHANGED:
                        good(key, outcome)
                        return value
                    payload, revision = outcome.value, outcome.revision
        raise late(key, timeout)

    def sync(self, *, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Wait until everything that any process had written before is visible here; returns the revision.

        That is every write that had returned, in whatever process, when this call began, also plain ``set`` and
        ``delete``, which wait for nobody. The host asks every process for it. A process that is frozen is waited for.

        Raises:
            RequestTimeout: not within *timeout* seconds.
            WouldBlockEventLoop: called on an event loop.
        """
        refuse_event_loop("shared_memory.sync()", "shared_memory.async_()")
        return synchronized(self._sync().wait(self._exchange.link, timeout), timeout)

    async def async_(self, *, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Wait for everything that any process had written before, as :meth:`sync`, in a task (``async`` alone is a
        reserved word)."""
        if checkpoint_due(self._exchange):
            await checkpoint()
        return synchronized(await self._sync().wait_async(timeout), timeout)

    def lock(self, key: str, *, timeout: float | None = None) -> Lock:
        """A lock across all processes: ``async with shared_memory.lock("name"):``, or ``with`` in a thread.

        First come, first served. It frees when its holder leaves the block, and when the holder's process dies. It
        guards by agreement: it does not keep anybody from writing the key of the same name.

        Entering the block raises:
            LockTimeout: (a TimeoutError) another holder kept it for *timeout* seconds, and which process that is. The
                host decides: a lock that is free is always taken, also with a timeout of 0.
            WouldBlockEventLoop: ``with`` on an event loop.
            AsyncioNeeded: ``async with`` where asyncio does not run.

        Args:
            timeout: seconds to wait for it, 0 or more; None waits as long as it takes.

        Raises:
            ValueError: *timeout* is negative, or no number.
        """
        check_key(key)
        return Lock(self._exchange, key, checked_timeout(timeout))

    def watch(self, prefix: str = "") -> Watch:
        """Every change of the keys that begin with *prefix*, in order, from now on.

        ``async for change in shared_memory.watch("cfg."):``, or ``for`` in a thread, or as a decorator of a callback
        that runs on the process's event loop: ``@shared_memory.watch("cfg.")``.
        """
        self._exchange.monitor.refuse_inside("shared_memory.watch()")
        return Watch(self._exchange, prefix)

    # --- the 2024 names of publish/subscribe --------------------------------------------------------------------

    def publish(self, topic: str, data: Any) -> None:
        """:func:`liteyuki_host.comm.publish` by its 2024 name."""
        topics.publish(topic, data, exchange=self._exchange)

    def on_subscriber_receive(self, topic: str) -> Callable[[F], F]:
        """:func:`liteyuki_host.comm.subscribe` by its 2024 name."""
        return topics.subscribe(topic, exchange=self._exchange)

    # --- inside ---------------------------------------------------------------------------------------------

    def _warn_unreadable(self, key: str, error: ValueUnreadable) -> None:
        """Log that get_all() leaves the key out, with the process that wrote it, which only the host knows."""
        writer = self._exchange.writer_of(key)
        log().warning(
            f"shared_memory[{key!r}], written by {writer or 'another process'}, is left out of get_all(): {error}; "
            "overwrite or delete it"
        )

    def _encode(self, key: str, value: Any) -> bytes:
        """Check the key and encode the value.

        Most values are plain and short. The short way encodes these at once and checks the size afterwards; whatever it
        cannot do goes the general way, which names the fault.

        Raises:
            ValueRefused, ValueTooLarge: the value or the key cannot travel; the text says why.
            TypeError: the key is no text.
        """
        if not (type(key) is str and key.isascii() and len(key) <= MAX_KEY_SIZE):
            check_key(key)
        kind = type(value)
        if kind is str or kind is dict or may_be_plain(kind):  # nearly all values, and they need no more than this
            try:
                payload = encode_plain(value) if kind is str else encode_quickly(value)
            except Exception:  # the general way below raises our error
                payload = None
            if payload is not None and len(payload) <= self._exchange.message_limit:
                return payload
        try:
            return codec.encode(value, self._exchange.message_limit)
        except (ValueRefused, ValueTooLarge) as error:
            raise type(error)(f"shared_memory[{key!r}]: {error}") from None

    # The private methods that ask. Each checks its arguments, refuses a call from inside, asks the exchange and returns
    # the answer that is on its way.

    def _increment(self, key: str, by: float) -> Answer[Outcome]:
        check_key(key)
        if not codec.is_number(by):
            raise NotANumber(f"shared_memory[{key!r}]: cannot add {codec.shown(by)}, which is not a number")
        by = float.__float__(by) if isinstance(by, float) else int.__index__(by)  # not of a subclass
        self._exchange.monitor.refuse_inside("shared_memory.incr()")
        outcome: Answer[Outcome] = Answer()
        self._exchange.increment(key, by, outcome.give)
        return outcome

    def _number(self, key: str, outcome: Outcome) -> int | float:
        """Return the new number that an increment had as its outcome, or raise what went wrong."""
        if outcome.error == Refusal.NOT_A_NUMBER:
            raise NotANumber(f"shared_memory[{key!r}]: the value is not a number, or the sum has more than 64 bits")
        number: int | float = codec.decode(good(key, outcome).value or b"\x00")
        return number

    def _compare(self, key: str, expected: Any, value: Any) -> Answer[Outcome]:
        # For the exchange None is a missing key, so a None of the user's is encoded: it matches a missing key, too.
        wanted = None if expected is MISSING else self._encode(key, expected)
        new = None if value is None or value is MISSING else self._encode(key, value)
        self._exchange.monitor.refuse_inside("shared_memory.compare_and_set()")
        outcome: Answer[Outcome] = Answer()
        self._exchange.compare(key, wanted, new, None, outcome.give)
        return outcome

    def _compare_revision(self, key: str, value: bytes | None, revision: int) -> Answer[Outcome]:
        """Ask to write *value* if the key's last change is still *revision*."""
        self._exchange.monitor.refuse_inside("shared_memory.update()")
        outcome: Answer[Outcome] = Answer()
        self._exchange.compare(key, None, value, revision, outcome.give)
        return outcome

    def _was_same(self, key: str, outcome: Outcome) -> bool:
        """Return whether a comparison found what was expected, or raise what went wrong otherwise."""
        if outcome.error == Refusal.CHANGED:
            return False
        good(key, outcome)
        return True

    def _stored(self, key: str) -> tuple[bytes | None, int]:
        """Return the key's encoded value, None for a missing one, and its revision, as one moment."""
        check_key(key)
        value, revision = self._exchange.revision_of(key)
        if type(value) is Expiring:
            value = alive(value)
        if value is NOTHING or value is MISSING:
            return None, revision
        return (bytes(value) if type(value) is Packed else codec.encode(value)), revision

    def _next_value(
        self, key: str, function: Callable[[Any], Any], default: Any, payload: bytes | None
    ) -> tuple[Any, bytes | None]:
        """Call the user's function with the stored value. Returns its result, plain and encoded (None: delete)."""
        value = function(default if payload is None else decoded(key, payload))
        return value, None if value is None else self._encode(key, value)

    def _sync(self) -> Answer[Outcome]:
        self._exchange.monitor.refuse_inside("shared_memory.sync()")
        outcome: Answer[Outcome] = Answer()
        self._exchange.sync(outcome.give)
        return outcome


shared_memory = SharedMemory()
"""This process's shared memory. Importable at any time, in any process."""
