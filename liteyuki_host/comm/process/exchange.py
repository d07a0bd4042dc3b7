"""What a process is to channels, topics and the shared memory: the one interface behind all public names.

There are two implementations: :class:`~liteyuki_host.comm.process.node.Node`, in a bot process (also without a host),
and the hub, in the host. Nothing else asks which one it has. Every process has one *current* exchange (``current.py``);
tests may hold several.
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
    """See the module's docstring.

    Attributes:
        process: this process's name.
        window: bytes that may be on their way per channel and direction.
        message_limit: bytes of one encoded value.
        view: the dict that reads of the shared memory go to; always the same object.
        link: the one to the host, in a process that is not the host itself.
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
        """Guards everything of this exchange."""
        self._lock = self.monitor.lock
        self.losses = LossReport(self.monitor)
        self.link: Link | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ends: dict[str, ChannelEnd] = {}
        self._kept_names = RecentNames()  # declared here, to stay known; under the implementation's lock
        self._since_sweep = 0  # ends and names made since the last look for unused ones
        self._sweep_after = SWEEP_AFTER  # so many
        self._receiving_is_over = False  # also for ends that are made from now on
        self._subscriptions: dict[str, Subscription] = {}  # those with callbacks
        self._ended_subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()  # a callback may still run
        self._watchers = WatcherList()

    # --- channels -------------------------------------------------------------------------------------------

    def end(self, name: str) -> ChannelEnd:
        """This process's end of the channel, made on first mention. Declared or not: using it tells.

        For the code behind a link. It may be dropped when nothing uses it (:meth:`_sweep`); who hands it to users takes
        it by :meth:`hold`.
        """
        end = self._ends.get(name)
        if end is None:
            with self._lock:
                end = self._ends.get(name)
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
        """This process's end of the channel, and what keeps it: for a handle."""
        with self._lock:
            end = self.end(name)
            lease = end.lease()
        self._sweep_if_due()
        return end, lease

    def _sweep_if_due(self) -> None:
        """Look for what is not used any more, once as many ends and names have been made as there were at the last
        look, and some more: so both the look and the memory cost a constant for each."""
        if self._since_sweep >= self._sweep_after:
            self._since_sweep = 0
            self._sweep_after = SWEEP_AFTER + self._sweep()

    @abc.abstractmethod
    def _sweep(self) -> int:
        """Drop, or ask the other side to close, what nothing in this process uses. Returns how much is in use."""

    def _unused_ends(self) -> list[ChannelEnd]:
        """The ends that nothing in this process uses."""
        return [end for end in list(self._ends.values()) if not end.in_use]

    def _drop_end(self, end: ChannelEnd) -> bool:
        """Drop an end that is on no link; False when something uses it (again)."""
        with self._lock:
            if end.in_use or end.outbox.bound or self._ends.get(end.name) is not end:
                return False
            del self._ends[end.name]
        end.inbox.drain()  # its task ends
        return True

    def end_if_used(self, name: str) -> ChannelEnd | None:
        """This process's end of the channel, if it has been mentioned. Takes no lock."""
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
        """Make this process one of the channel's two ends, or raise."""

    # --- the loop that callbacks run on -----------------------------------------------------------------------

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run callbacks on *loop* from now on. What waits is handled first, in order."""
        with self._lock:
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
        """Perform and say what was put off until the lock has been left. The caller may hold it, or not."""
        if self.monitor.due:
            self.monitor.settle()

    @abc.abstractmethod
    def _links(self) -> Sequence[Link]:
        """The links that there are."""

    def _read_by_loop(self, link: Link) -> None:
        """There is a new link."""
        with self._lock:
            if self.loop is not None:
                link.attach_loop(self.loop)

    def _queues(self) -> list[Inbox]:
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
        with self._lock:
            self._subscriptions.pop(subscription.topic, None)
            self._ended_subscriptions.add(subscription)
        subscription.end()

    @abc.abstractmethod
    def _subscribed(self, subscription: Subscription) -> None:
        """This process wants the topic."""

    @abc.abstractmethod
    def _unsubscribed(self, subscription: Subscription) -> None:
        """It no longer does."""

    # --- shared memory --------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def revision(self) -> int:
        """The step of the host's order that this process has seen."""

    @abc.abstractmethod
    def revision_of(self, key: str) -> tuple[object, int]:
        """What the view has for the key (or NOTHING) and the revision of its last change, as one moment."""

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
        """Delete, like :meth:`put`."""

    @abc.abstractmethod
    def increment(self, key: str, by: float, done: Callable[[Outcome], None]) -> None:
        """Add in the host's order."""

    @abc.abstractmethod
    def compare(
        self,
        key: str,
        expected: bytes | None,
        value: bytes | None,
        revision: int | None,
        done: Callable[[Outcome], None],
    ) -> None:
        """Write only if the key is as expected, decided in the host's order."""

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
        for watcher in self._watchers.now():
            watcher.changed(key, event)

    # --- control --------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def statistics(self) -> dict[str, Any]:
        """Figures of every channel this process has used, by name."""

    def _close_all(self, reason: str) -> None:
        """Wake everybody who waits."""
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
