"""What a process is to channels, topics and the shared memory: the one interface behind all public names.

There are two implementations: :class:`~liteyuki_host.comm.process.node.Node`, in a bot process (also without a host),
and the hub, in the host. Nothing else asks which one it has. Every process has one *current* exchange (``current.py``);
tests may hold several.

How it works
------------

*Ends.* An exchange has one :class:`ChannelEnd` for each channel that this process has mentioned. The end outlives the
links under it. Handles hold a lease on it; an end without lease, callback, message or request is unused, and a *sweep*
drops it. A sweep looks at all ends, so it is made only after as many new ones as there were at the last sweep, and
``SWEEP_AFTER`` more. Its cost for each new end is therefore constant, and so is the memory in relation to what is used.

*Subscriptions.* One for each topic that has callbacks here. The implementation is told of the first and the last
callback, under the lock, so that the other side hears of them in order.

*Watchers.* The readers of changes of the shared memory. They are called for every change, under the lock in the process
that has the authority, and by the thread that reads the link in the others.

*The event loop.* Callbacks run on one loop. It may come after messages have arrived and go before the process ends;
queues keep what arrives without a loop.

The lock
--------

``monitor`` has the one lock of the exchange, also for everything that it owns: ends, queues, the link's writer, the
shared memory. It is reentrant. No user code runs under it, and nothing waits for a peer with it. Calls that finalizers
or signal handlers make while their thread holds it are put off (``comm/waiting/monitor.py``); ``_settle`` performs
these. Methods may be called from any thread, unless they say otherwise.
"""

from __future__ import annotations

import abc
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from liteyuki_host.comm.channel.calling import Callback
from liteyuki_host.comm.channel.end import ChannelEnd, Lease
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.errors import UnknownChannel
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.process.losses import LossReport
from liteyuki_host.comm.process.names import RecentNames, check_name
from liteyuki_host.comm.process.subscription import Subscription
from liteyuki_host.comm.process.watchers import Watcher, WatcherList
from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.waiting.monitor import Monitor

if TYPE_CHECKING:
    import asyncio

__all__ = ["Exchange", "report_refusal"]


SWEEP_AFTER = 64
"""Names of channels that a process uses anew, beside as many as it had in use, until it looks for those that nothing
uses any more. A look costs about a microsecond for each, and a name in the host about 10 KB until then."""


class Exchange(abc.ABC):
    """What a process is to the public objects: the base of ``Node`` and ``Hub``. See the module's docstring.

    Attributes:
        process: this process's name. A node's changes with its host, each time with a new epoch (``epoch.py``).
        window: bytes that may be on their way per channel and direction; agreed on in the greeting.
        message_limit: bytes of one encoded value, at most; agreed on in the greeting.
        view: the dict that reads of the shared memory go to; always the same object. Written under the lock, read
            without it.
        monitor: the lock that guards everything of this exchange.
        losses: reports messages that were given up, in the log.
        link: the one to the host; None in the host itself, and in a process that has never had a host.
        loop: where callbacks run; None: nowhere, and messages wait. Written by :meth:`attach_loop` and
            :meth:`detach_loop`, under the lock.
    """

    process: str
    window: int
    message_limit: int
    view: dict[str, object]

    def __init__(self, process: str, *, window: int = DEFAULT_WINDOW, message_limit: int) -> None:
        self.process = process
        self.window = window
        self.message_limit = message_limit
        self.monitor = Monitor()
        self._lock = self.monitor.lock
        self.losses = LossReport(self.monitor)
        self.link: Link | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ends: dict[str, ChannelEnd] = {}  # by name; changed under the lock, looked up without it
        self._kept_names = RecentNames()  # declared here, to stay known although unused; under the lock
        # Ends and names made since the last sweep, and how many start the next. Counted under the lock and compared
        # without it: a count that is lost makes the next sweep a little later.
        self._since_sweep = 0
        self._sweep_after = SWEEP_AFTER
        self._receiving_is_over = False  # ends that are made from now on are closed, too; only in a node
        self._subscriptions: dict[str, Subscription] = {}  # those with callbacks, by topic; changed under the lock
        # Those without, whose last callback may still run: a loop that goes has to cancel it.
        self._ended_subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._watchers = WatcherList()

    # --- channels -------------------------------------------------------------------------------------------

    def end(self, name: str) -> ChannelEnd:
        """Return this process's end of the channel, made on first mention. It need not be declared: whether the process
        may use it is found out at the first use.

        For code behind a link, which holds no lease: the next sweep may drop the end if nothing uses it. What is handed
        to users is taken by :meth:`hold`.
        """
        end = self._ends.get(name)
        if end is None:
            with self._lock:
                end = self._ends.get(name)  # again: another thread may have made it meanwhile
                if end is None:
                    end = ChannelEnd(
                        name,
                        window=self.window,
                        before_use=self._use_end,
                        on_lost=self.losses.add,
                        monitor=self.monitor,
                    )
                    if self._receiving_is_over:
                        end.inbox.close()
                    self._ends[name] = end
                    self._since_sweep += 1
                    if self.loop is not None:
                        end.inbox.attach_loop(self.loop)
        return end

    def hold(self, name: str) -> tuple[ChannelEnd, Lease]:
        """Return this process's end of the channel, and a lease, which the handle keeps as long as it lives."""
        with self._lock:  # no sweep drops the end before it has the lease
            end = self.end(name)
            lease = end.lease()
        self._sweep_if_due()
        return end, lease

    def _sweep_if_due(self) -> None:
        """Sweep if enough ends and names have been made since the last time. The caller does not hold the lock."""
        if self._since_sweep >= self._sweep_after:
            self._since_sweep = 0
            self._sweep_after = SWEEP_AFTER + self._sweep()

    @abc.abstractmethod
    def _sweep(self) -> int:
        """Drop, or ask the other side to close, what nothing in this process uses. Returns how much is in use."""

    def _unused_ends(self) -> list[ChannelEnd]:
        """Return the ends that nothing in this process uses."""
        return [end for end in list(self._ends.values()) if not end.in_use]

    def _drop_end(self, end: ChannelEnd) -> bool:
        """Drop an end that is on no link. Returns False, and does nothing, when something uses it or has begun to."""
        with self._lock:
            if end.in_use or end.outbox.bound or self._ends.get(end.name) is not end:
                return False
            del self._ends[end.name]
        end.inbox.drain()  # which also ends the task that calls its callbacks
        return True

    def end_if_used(self, name: str) -> ChannelEnd | None:
        """Return this process's end of the channel; None when there is none. Takes no lock and makes none."""
        return self._ends.get(name)

    def check_known(self, name: str) -> None:
        """Check that some process has declared the channel. Takes no lock.


        Raises:
            UnknownChannel: none has.
        """
        names = self.channel_names()
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise UnknownChannel(f"there is no channel {name!r}; known are: {known}. set_channel declares one")

    @abc.abstractmethod
    def channel_names(self) -> set[str]:
        """Every declared channel, of all processes; a new set. Takes no lock."""

    @abc.abstractmethod
    def declare(self, name: str, *, keep: bool = True) -> None:
        """Make a channel known to all processes. Declaring twice is harmless.

        Args:
            keep: the name stays known as long as this process lives, used or not (the last 20,000 of them); else as
                long as some process uses the channel.
        """

    @abc.abstractmethod
    def _use_end(self, end: ChannelEnd) -> None:
        """Make this process one of the channel's two ends. Called before each use that is not known to be allowed.

        Raises:
            ChannelTaken: two other processes are its ends.
            HostNotAttached: there is no host, or it is gone.
            ChannelClosed: the host itself has ended.
        """

    # --- the loop that callbacks run on -----------------------------------------------------------------------

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run callbacks on *loop* from now on. What waits is handled first, in order. From any thread."""
        with self._lock:  # queues and links that are made from now on find the loop by themselves
            self.loop = loop
            queues = self._queues()
            links = self._links()
        for link in links:
            link.attach_loop(loop)
        for queue in queues:
            queue.attach_loop(loop)
        for watcher in self._watchers.now():
            watcher.attach_loop(loop)

    def detach_loop(self) -> None:
        """Stop running callbacks; messages wait from now on. A callback in progress is cancelled."""
        with self._lock:
            self.loop = None
            queues = self._queues()
            links = self._links()
        for queue in queues:
            queue.detach_loop()
        for watcher in self._watchers.now():
            watcher.detach_loop()
        for link in links:
            link.detach_loop()

    def _settle(self) -> None:
        """Perform calls, and write log lines, that were put off until the lock was left. Nothing happens while the
        caller holds it."""
        if self.monitor.due:
            self.monitor.settle()

    @abc.abstractmethod
    def _links(self) -> Sequence[Link]:
        """Return the links that there are now."""

    def _read_by_loop(self, link: Link) -> None:
        """Let the loop, if there is one, read a new link."""
        with self._lock:
            if self.loop is not None:
                link.attach_loop(self.loop)

    def _queues(self) -> list[Inbox]:
        """Return every queue whose messages are for callbacks. The caller holds the lock."""
        subscriptions = (*self._subscriptions.values(), *self._ended_subscriptions)
        return [end.inbox for end in self._ends.values()] + [subscription.inbox for subscription in subscriptions]

    # --- topics ---------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def publish(self, topic: str, payload: bytes, flags: int, *, may_wait: bool) -> bool:
        """Hand a publication over; False when it would have to wait and may not.

        Raises:
            Held: the lock was not to be had in time; nothing was published.
        """

    def subscribe(self, topic: str, callback: Callback) -> None:
        """Deliver *topic* to *callback* too, from now on."""
        check_name(topic, "topic")
        self.monitor.refuse_inside("subscribe()")
        with self._lock:  # the other side hears of subscriptions in the order in which they happen here
            subscription = self._subscriptions.get(topic)
            if subscription is None:
                subscription = self._subscriptions[topic] = Subscription(topic, self.monitor)
                if self.loop is not None:
                    subscription.inbox.attach_loop(self.loop)
            subscription.callbacks.add(callback)
            if not subscription.announced:
                try:
                    self._subscribed(subscription)
                    subscription.announced = True
                except BaseException:
                    subscription.callbacks.discard(callback)
                    self._end_subscription(subscription)
                    raise
        self._settle()

    def unsubscribe(self, topic: str, function: Callable[..., Any] | None = None) -> int:
        """Stop delivering *topic* to *function* (None: to anybody here); returns how many callbacks went.

        With the last one, publications that have arrived and were not handled are dropped.
        """
        self.monitor.refuse_inside("unsubscribe()")
        subscription = self._subscriptions.get(topic)
        if subscription is None:
            return 0
        removed = subscription.callbacks.remove(function)  # not under the lock: it compares functions of the user's
        with self._lock:
            if subscription.announced and not subscription.callbacks:
                subscription.announced = False
                self._end_subscription(subscription)  # first: the other side may ask at once whether that is so
                self._unsubscribed(subscription)
        self._settle()
        return removed

    def _end_subscription(self, subscription: Subscription) -> None:
        """Forget a subscription that has no callbacks. What has arrived for it is dropped."""
        with self._lock:
            self._subscriptions.pop(subscription.topic, None)
            self._ended_subscriptions.add(subscription)
        subscription.end()

    @abc.abstractmethod
    def _subscribed(self, subscription: Subscription) -> None:
        """Let publications of the topic come to this process. The caller holds the lock."""

    @abc.abstractmethod
    def _unsubscribed(self, subscription: Subscription) -> None:
        """Let no more publications of the topic come to this process. The caller holds the lock."""

    # --- shared memory --------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def revision(self) -> int:
        """The last step of the host's order that this process has seen."""

    @abc.abstractmethod
    def revision_of(self, key: str) -> tuple[object, int]:
        """Return what the view has for the key, or NOTHING, and the revision of its last change, as one moment."""

    def writer_of(self, key: str) -> str:
        """The name of the process that wrote the key's value; nothing where that is not known. Only the host knows."""
        return ""

    @abc.abstractmethod
    def put(
        self,
        key: str,
        payload: bytes,
        ttl: float | None,
        ephemeral: bool,
        done: Callable[[Outcome], None] | None,
        *,
        may_wait: bool,
        late: bool = False,
    ) -> bool:
        """Write; visible here at once.

        Args:
            done: called when the host has ordered it; None: only a refusal is reported.
            late: the write was put off (see ``waiting/monitor.py``), and nobody is left who could wait: it is taken
                although there is no room.

        Returns False when there is no room; nothing is written then.

        Raises:
            Held: the lock was not to be had in time; nothing was written.
        """

    @abc.abstractmethod
    def remove(self, key: str, done: Callable[[Outcome], None] | None, *, may_wait: bool, late: bool = False) -> bool:
        """Delete; visible here at once. Arguments, result and errors are those of :meth:`put`."""

    @abc.abstractmethod
    def increment(self, key: str, by: float, done: Callable[[Outcome], None]) -> None:
        """Add *by* to the key's number, in the host's order. *done* is called with the new number, or a refusal."""

    @abc.abstractmethod
    def compare(
        self,
        key: str,
        expected: bytes | None,
        value: bytes | None,
        revision: int | None,
        done: Callable[[Outcome], None],
    ) -> None:
        """Write *value* (None: delete) only if the key is as expected, decided in the host's order.

        Args:
            expected: the value that the key is to hold; None: it is to be missing.
            revision: of the key's last change, 0 for a missing key; compared instead of *expected*, unless it is None.
            done: called with the outcome: ``changed``, with the value and revision that there are, or no error.
        """

    @abc.abstractmethod
    def acquire(self, key: str, done: Callable[[Outcome], None]) -> int:
        """Ask for a lock; returns the number to release it with. *done* is called when it is ours."""

    @abc.abstractmethod
    def release(self, key: str, holder: int) -> None:
        """Give the lock back, or stop waiting for it."""

    @abc.abstractmethod
    def withdraw(self, key: str, holder: int, done: Callable[[Outcome], None]) -> None:
        """Stop waiting for the lock that was asked for as *holder*, unless it has been granted. *done* is called with
        the host's decision: no error, and then it has been granted; or ``held``, with the holding process's name."""

    @abc.abstractmethod
    def sync(self, done: Callable[[Outcome], None]) -> None:
        """Call *done* when everything that any process had written before is visible here."""

    @abc.abstractmethod
    async def wait_to_write(self, write: Callable[[], bool]) -> None:
        """Repeat *write*, a :meth:`put` or :meth:`remove` that may not wait, until it has found room. Cancelled, it has
        written nothing."""

    @abc.abstractmethod
    async def wait_to_publish(self, publish: Callable[[], bool]) -> None:
        """Repeat *publish*, a :meth:`publish` that may not wait, until it has found room. Cancelled, it has published
        nothing."""

    def add_watcher(self, watcher: Watcher) -> None:
        """Tell *watcher* of every change in order, until it is removed or nobody else refers to it."""
        self._watchers.add(watcher)

    def keep_watcher(self, watcher: Watcher) -> None:
        """Keep *watcher* until it is removed, also when nobody else refers to it."""
        self._watchers.keep(watcher)

    def remove_watcher(self, watcher: Watcher) -> None:
        """Tell *watcher* nothing more."""
        self._watchers.remove(watcher)

    def _changed(self, key: str, event: bytes) -> None:
        """Tell every watcher of a change. The caller holds the lock, which keeps the order of changes."""
        for watcher in self._watchers.now():
            watcher.changed(key, event)

    # --- control --------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def statistics(self) -> dict[str, Any]:
        """Figures of every channel this process has used, by name."""

    def _close_all(self, reason: str) -> None:
        """Wake everybody who waits, with this *reason*, end the watches and report what was lost."""
        for end in list(self._ends.values()):
            end.close(reason)
        for watcher in self._watchers.now():
            watcher.detached()
        self.losses.flush()


def report_refusal(monitor: Monitor, key: str, outcome: Outcome) -> None:
    """Log that a write was refused whose writer has not waited for it; when the lock has been left."""
    # A host that is gone reports itself, and may well have taken the write.
    if outcome.error not in (None, Refusal.HOST_GONE):
        line = f"shared_memory[{key!r}]: a write was refused ({outcome.error}) and has been undone"
        monitor.say(lambda: log().error(line))
