"""The exchange of a bot process: the implementation of ``Exchange`` behind a link to a host, and without a host.

Theory of operation
-------------------

What a node does depends on its *phase* (``supervised.py``)::

    ALONE ──(greeting complete)──▶ ATTACHED ──(link over, or detach())──▶ DETACHED
      ▲                                                                      │
      └───────────────────────────── reset(), in tests ──────────────────────┘

- ALONE: the process is its own host. The shared memory is ordered by an :class:`Authority` of its own, and a topic goes
  to the subscribers in this process. Channels to other processes raise HostNotAttached. No file or port is opened, and
  no thread is started but the clock of watched keys with a ttl (``storage/expiry.py``).
- ATTACHED: channels, topics and the shared memory go over one link. The :class:`Replica` follows the host's order of
  writes. The node owns the link and is its handler (``LinkHandler``).
- DETACHED: the shared memory can still be read, as it was last seen. Everything that needs the host raises
  HostNotAttached, and whoever waits for it is woken with an error.

The greeting. :meth:`Node.attach` starts the link and waits. The reader of the link takes the host's greeting
(:meth:`Node.on_hello`), then the snapshot; at its end it calls :meth:`Node._loaded`, which sets the phase. A link that
ends before leaves the phase as it was. Then ``attach`` announces what was subscribed or used before there was a host.

The end. Whichever comes first ends it: the link breaks or the host says goodbye (:meth:`Node.on_end`), this process
leaves (:meth:`Node.detach`), or it finds itself a fork of the process that has the link (:meth:`Node.lose_link`).

Threads and the lock
--------------------

Public methods may be called from any thread. The ``on_...`` methods are called by whichever thread reads the link,
never by two at once. The exchange's lock guards ends, subscriptions and topic streams. The phase is written as one
attribute and read without the lock: a call that reads ATTACHED just before the link ends fails at the link instead.
Nothing waits for the host with the lock held.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from liteyuki_host._version import __version__
from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.end import ChannelEnd, join
from liteyuki_host.comm.errors import HostError, HostNotAttached, LinkClosed, LinkError
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.process.epoch import new_epoch
from liteyuki_host.comm.process.exchange import report_refusal
from liteyuki_host.comm.process.forked_links import close_in_forks
from liteyuki_host.comm.process.names import check_name
from liteyuki_host.comm.process.subscription import Subscription
from liteyuki_host.comm.process.supervised import Phase, Supervised
from liteyuki_host.comm.process.watchers import Watcher
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.connection import Connection, Role
from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.storage.authority import Authority
from liteyuki_host.comm.storage.expiry import ExpiryThread
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.storage.replica import Replica
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.monitor import refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing, Waiters

__all__ = ["Node"]

DEFAULT_PROCESS = "nonebot"
"""Name of a process as long as it has not been attached under another one."""

Supervision = messages.WatchLoop | messages.Drain | messages.DumpStacks
"""What a supervisor asks of a child, beside its end (``Stop``)."""

UNSENT = "this process ended before it could be sent"
"""Why messages are given up that have not been written when this process leaves."""

LOCAL_BACKLOG = 5 * DEFAULT_WINDOW  # bytes that a topic may queue inside one process: as much as under a host


_ATTACHED: Final = Phase.ATTACHED  # found sooner than an attribute of the class, for what every write asks


class Node(Supervised):
    """The exchange of a bot process. There is one per process, which ``current()`` returns; tests may make more.

    The private attributes:

    - ``_channels``, ``_declared``: sets that are changed in place, each change in one step, so no lock guards them.
    - ``_topic_streams``: guarded by the exchange's lock.
    - ``_greeted``, ``_greeting_error``: written by the thread that reads the link, for the one that waits in
      :meth:`attach`.
    - ``_on_stop``, ``_on_host_gone``, ``_on_supervision``: written by :meth:`attach` before the link starts; called by
      the thread that reads the link.
    - ``_authority``, ``_expiry``: the shared memory of a process without a host; replaced by :meth:`reset`, under the
      lock. Nothing is written there while this process has, or has had, a host.
    """

    def __init__(self, process: str = DEFAULT_PROCESS) -> None:
        super().__init__(process, message_limit=codec.DEFAULT_MESSAGE_LIMIT)
        self.view: dict[str, object] = {}
        self._channels: set[str] = set()  # the names of all channels, of every process; changed in place
        self._declared: set[str] = set()  # those that this process has declared itself, and not withdrawn
        self._replica = Replica(
            self.view,
            watchers=self._watchers.now,
            loaded=self._loaded,
            declared=self._channels.add,
            withdrawn=self._forget_name,
            monitor=self.monitor,
        )
        self._own_memory()
        self._room = Waiters()  # who waits for room for a publication; woken by credit and by the link's end
        # By topic, the stream of each that has been subscribed to over this link. It outlives the subscription: the
        # host closes it once everything on it is consumed, and until then it may be used again.
        self._topic_streams: dict[str, Stream] = {}
        self._greeted = threading.Event()
        self._greeting_error: LinkError | None = None
        self._on_stop: Callable[[str], None] = lambda reason: None
        self._on_host_gone: Callable[[str], None] = lambda cause: None
        self._on_supervision: Callable[[Supervision], None] = lambda message: None

    # --- the host comes and goes ----------------------------------------------------------------------------

    def attach(
        self,
        transport: Transport,
        process: str,
        *,
        on_stop: Callable[[str], None],
        on_host_gone: Callable[[str], None],
        on_supervision: Callable[[Supervision], None] = lambda message: None,
        timeout: float = 10.0,
    ) -> None:
        """Greet the host over *transport* and load the shared memory. Blocks; to be called before an event loop runs.

        Args:
            process: name of this process from now on.
            on_stop: called with the reason when the supervisor asks this process to end.
            on_host_gone: called with the cause when an attached link has ended, after everybody who waits was woken.
            on_supervision: called with each other message of the supervisor.
            timeout: seconds for the whole greeting.

        The three functions are called by the thread that reads the link. They must return soon and must not raise.

        Raises:
            HostError: there is a host already.
            LinkError: no greeting, or the host refused ours; the text says why. The process has its old name again, and
                the phase is what it was.
        """
        if self._phase is Phase.ATTACHED:
            raise HostError("this process is already attached to a host")
        self._on_stop, self._on_host_gone = on_stop, on_host_gone
        self._on_supervision = on_supervision
        own_name = self.process
        self._rename(process)
        self._greeted.clear()
        self._greeting_error = None
        # What belongs to an earlier link, if there was one: its streams, the names its host knew, its closed queues.
        self._topic_streams.clear()
        self._channels.intersection_update(self._declared)
        self._receiving_is_over = False
        for end in list(self._ends.values()):
            end.inbox.reopen()
            end.outbox.reopen()
        hello = messages.Hello(
            version=messages.PROTOCOL_VERSION,
            process=process,
            pid=os.getpid(),
            software=f"nonebot-plugin-lycomm {__version__}",
            # Both sides use the smaller of their two values, so these let the host's settings decide.
            window=1 << 30,
            message_limit=1 << 30,
            closes=True,
        )
        connection = Connection(Role.CHILD, hello)
        link = Link(transport, connection, self, name="the host", monitor=self.monitor)
        self._replica.begin(link)  # before the link starts: the snapshot follows the greeting at once
        self.link = link
        close_in_forks(self)
        self._room.link = link
        link.start()
        self._read_by_loop(link)
        if not self._greeted.wait(timeout):
            link.close("the host did not answer the greeting")
            link.join(1.0)
            self._rename(own_name)
            raise LinkClosed(f"the host did not answer the greeting within {timeout} s")
        if self._greeting_error is not None:
            self._rename(own_name)
            raise self._greeting_error
        # What this process had begun without a host: tell the host of subscriptions, and open channels that are read.
        for subscription in list(self._subscriptions.values()):
            if subscription.callbacks:
                subscription.announced = True
                self._subscribed(subscription)
        for end in list(self._ends.values()):
            if end.inbox.mode is not None:
                self._use_end(end)

    def _rename(self, process: str) -> None:
        """Take another name; handles look it up anew on their next use."""
        self.process = process
        new_epoch()

    def detach(self, reason: str = "this process ends", *, timeout: float = 1.0) -> None:
        """Say goodbye, send what is queued (at most *timeout* seconds) and wake everybody who waits.

        The shared memory can still be read afterwards. What could not be sent is reported as lost. Without a host, only
        those who wait are woken. Called by the launcher when the project has ended.
        """
        link = self.link
        if link is not None and self._phase is Phase.ATTACHED:
            self._close_incoming()
            with self._lock:
                self.monitor.perform()  # what was put off was accepted before the goodbye
                self._phase = Phase.DETACHED  # before the link ends, so that on_end() knows that we wanted that
                for end in list(self._ends.values()):
                    end.outbox.close(UNSENT)
            # What has been written to the link counts as sent: the host delivers it, or keeps it for the receiver.
            delivered = link.close(reason, timeout=timeout)
            link.join(timeout)
            for end in list(self._ends.values()):
                if end.refused is not None:  # a thread may have sent just before it learned of that
                    end.outbox.give_up(end.refused)
                elif not delivered:
                    end.outbox.give_up(UNSENT)
        self._close_all(reason)

    def lose_link(self) -> None:
        """Drop the link without a word on it. Called in a forked process, which has a copy of the socket and none of
        the threads; the link goes on in the parent."""
        link, self.link = self.link, None
        if link is not None:
            self._phase = Phase.DETACHED
            link.writer.give_up()
            for end in self._ends.values():
                end.usable = False
            link.release_transport()

    def wait_detached(self, timeout: float) -> None:
        """Wait for the threads of a link that has ended, at most *timeout* seconds each. For tests."""
        if self.link is not None:
            self.link.join(timeout)

    def reset(self) -> None:
        """Become a process without a host again, with an empty shared memory. For tests."""
        self.detach("reset")  # outside the lock, as it waits for the link
        with self._lock:
            self.view.clear()
            self._replica.reset()
            self._expiry.end()
            self._own_memory()
            self._channels.clear()
            self._declared.clear()
            self._kept_names.clear()
            self._topic_streams.clear()
            self._phase = Phase.ALONE
            self._rename(DEFAULT_PROCESS)
            self._receiving_is_over = False
            for end in self._ends.values():
                end.inbox.reopen()
                end.outbox.forget()

    # --- channels -------------------------------------------------------------------------------------------
    # A name is *known* if some process has declared it (`_channels`). The host tells of the names of others; this
    # process's own (`_declared`) stay known until it withdraws them, which it does when it drops the unused end.

    def channel_names(self) -> set[str]:
        # Without a host the process has its two channels all the same: they can be named, and used once there is a
        # host.
        names = set(self._channels)
        if self._phase is Phase.ALONE:
            names |= {f"{self.process}-passive", f"{self.process}-active"}
        return names

    def declare(self, name: str, *, keep: bool = True) -> None:
        check_name(name, "channel")
        if keep:
            with self._lock:
                forgotten = self._kept_names.add(name)
            if forgotten is not None:  # the oldest name of too many: an unused end takes it along when it is dropped
                self.end(forgotten)
        if name in self._declared:
            return
        self._declared.add(name)
        self._channels.add(name)
        if self._phase is Phase.ATTACHED:
            # Without credit, so that it never waits: a channel may be declared on the event loop.
            self._replica.ask(lambda number: messages.Declare(number, name), None)

    def _forget_name(self, name: str) -> None:
        """Drop a name of which the host says that no process uses it, unless this process has declared it. Called by
        the thread that reads the link."""
        if name not in self._declared:
            self._channels.discard(name)

    # Dropping what is not used. An end that is bound to a stream cannot be dropped at once: something may be on its
    # way. So the host is asked to close the stream (``protocol/closing.py``), and `on_close_answered` drops the end if
    # the host agrees. The host refuses while it has something for this process.

    def _sweep(self) -> int:
        link = self.link if self._phase is Phase.ATTACHED else None
        own = (f"{self.process}-passive", f"{self.process}-active")  # the host keeps these two for every process
        with self._lock:
            kept = self._kept_names
            unused = [end for end in self._unused_ends() if end.name not in own and end.name not in kept]
            if link is not None and link.closer.possible:
                link.closer.ask([stream for end in unused if (stream := end.outbox.stream) is not None])
            elif link is not None:  # a host that knows nothing of closing: what has a stream stays
                unused = [end for end in unused if not end.outbox.bound]
            for end in unused:
                self._drop_end(end)  # does nothing for those whose streams are being closed
            return len(self._ends) - len(unused)

    def _drop_end(self, end: ChannelEnd) -> bool:
        if end.name in self._kept_names or not super()._drop_end(end):
            return False
        # With the end goes the name, as far as this process is concerned; others may still use it.
        if end.name in self._declared:
            self._declared.discard(end.name)
            link = self.link
            if self._phase is Phase.ALONE:
                self._channels.discard(end.name)
            elif self._phase is Phase.ATTACHED and link is not None and link.closer.possible:
                self._replica.ask(lambda number: messages.Undeclare(number, end.name), None)
        return True

    def _links(self) -> Sequence[Link]:
        return () if self.link is None else (self.link,)

    def _use_end(self, end: ChannelEnd) -> None:
        if end.outbox.bound and self._phase is Phase.ATTACHED:
            return
        link = self._attached_link(f"channel {end.name!r}")
        with self._lock:
            if not end.outbox.bound:  # neither another thread nor the host has opened it meanwhile
                end.open(link)

    # --- topics ---------------------------------------------------------------------------------------------
    # Under a host all publications go to the host on one stream, also those for subscribers in this process: so all
    # subscribers see one order. Each topic that is subscribed to comes back on a stream of its own.

    def publish(self, topic: str, payload: bytes, flags: int, *, may_wait: bool) -> bool:
        # Without a host nothing waits: subscribers that are too slow lose the publication, as they do under one.
        if self._phase is Phase.ALONE:
            subscription = self._subscriptions.get(topic)
            if subscription is not None:
                monitor = self.monitor
                try:
                    monitor.enter()
                    if not subscription.deliver_here(payload, flags, LOCAL_BACKLOG):
                        self.losses.add(f"topic {topic}", 1, "the subscribers here are too slow")
                finally:
                    monitor.leave()
            return True
        link = self._attached_link(f"topic {topic!r}")
        message = messages.encode_message(messages.Publication(topic, payload, flags))
        return self._send(link, link.connection.publish, message, may_wait=may_wait)

    def _subscribed(self, subscription: Subscription) -> None:
        link = self.link
        if link is None or self._phase is not Phase.ATTACHED:
            return
        with self._lock:
            known = self._topic_streams.get(subscription.topic)
            if known is not None:  # left from a subscription that has ended, and not closed yet
                known.receiver = subscription
                link.send_control(messages.Subscribe(known.id))
                return
            # Opening the stream is the subscription: the host delivers from then on.
            self._topic_streams[subscription.topic] = link.open_stream(
                "topic", subscription.topic, lambda stream: join(subscription, link, stream)
            )

    def _unsubscribed(self, subscription: Subscription) -> None:
        link = self.link
        with self._lock:
            stream = self._topic_streams.get(subscription.topic)
            if stream is not None and link is not None:
                link.send_control(messages.Unsubscribe(stream.id))

    # --- shared memory --------------------------------------------------------------------------------------
    # ATTACHED: by the replica, which sends requests to the host. ALONE: by this process's own authority, which has
    # decided when the call returns, except for a lock that is held. DETACHED: reads only.

    @property
    def revision(self) -> int:
        return self._authority.store.revision if self._phase is Phase.ALONE else self._replica.revision

    def revision_of(self, key: str) -> tuple[object, int]:
        if self._phase is not Phase.ALONE:
            return self._replica.revision_of(key)
        with self._lock:
            return self.view.get(key, NOTHING), self._authority.store.revision_of(key)

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
        if self._phase is _ATTACHED:
            return self._replica.put(key, payload, ttl, ephemeral, done, may_wait=may_wait, late=late)
        done = done or partial(report_refusal, self.monitor, key)
        self._ask(lambda number: messages.Put(number, key, payload, ttl, ephemeral), done)
        return True

    def remove(self, key: str, done: Callable[[Outcome], None] | None, *, may_wait: bool, late: bool = False) -> bool:
        if self._phase is Phase.ATTACHED:
            return self._replica.remove(key, done, may_wait=may_wait, late=late)
        self._ask(lambda number: messages.Remove(number, key), done)
        return True

    def increment(self, key: str, by: float, done: Callable[[Outcome], None]) -> None:
        self._ask(lambda number: messages.Increment(number, key, by), done)

    def compare(
        self,
        key: str,
        expected: bytes | None,
        value: bytes | None,
        revision: int | None,
        done: Callable[[Outcome], None],
    ) -> None:
        self._ask(lambda number: messages.Compare(number, key, expected, value, revision), done)

    def acquire(self, key: str, done: Callable[[Outcome], None]) -> int:
        return self._ask(lambda number: messages.Acquire(number, key), done)

    def release(self, key: str, holder: int) -> None:
        if self._phase is _ATTACHED:
            self._replica.forget(holder)
        try:
            self._ask(lambda number: messages.Release(number, key, holder), None)
        except HostNotAttached:  # the host has freed it, as it frees all locks of a process whose link ends
            pass

    def withdraw(self, key: str, holder: int, done: Callable[[Outcome], None]) -> None:
        alone = self._phase is Phase.ALONE

        def decided(outcome: Outcome) -> None:
            if outcome.error == Refusal.HELD:
                if alone:  # the only holder there can be is this process
                    outcome = Outcome(outcome.error, self.process.encode(), outcome.revision)
                else:  # no grant will come, so nothing has to be kept for it
                    self._replica.forget(holder)
            done(outcome)

        self._ask(lambda number: messages.Withdraw(number, key, holder), decided)

    async def wait_to_write(self, write: Callable[[], bool]) -> None:
        await self._replica.room.wait_async(lambda: write() or NOTHING, None)

    async def wait_to_publish(self, publish: Callable[[], bool]) -> None:
        await self._room.wait_async(lambda: publish() or NOTHING, None)

    def sync(self, done: Callable[[Outcome], None]) -> None:
        self._ask(messages.Sync, done)

    def _ask(self, make: Callable[[int], messages.Request], done: Callable[[Outcome], None] | None) -> int:
        """Have a request performed, by the authority here or by the host. Returns its number, which also names the
        holder of a lock.

        Args:
            make: makes the request with its number.
            done: called with the outcome, before this returns or later, with the lock held or not; must not wait.

        Raises:
            HostNotAttached: the host is gone.
        """
        if self._phase is Phase.ALONE:
            number = next(self._numbers)
            self._authority.perform("local", make(number), done or (lambda outcome: None))
            if self._authority.may_expire:  # it may have written or deleted a key with a ttl
                self._expiry.look()
            return number
        self._attached_link("the shared memory")
        return self._replica.ask(make, done)

    def _send(self, link: Link, stream: Stream, payload: bytes, *, may_wait: bool) -> bool:
        """Send a publication. Returns False when there is no room and *may_wait* is False.

        Raises:
            HostNotAttached: the link is over.
            ReentrantCall: it would have to wait in a thread that must not.
        """
        patient = self.monitor.owned()  # the call was put off before, and nobody is left who could put it off again

        def attempt() -> bool | Nothing:
            try:
                return link.send(stream, payload, patient=patient) or NOTHING
            except LinkClosed as error:
                raise HostNotAttached(str(error)) from None

        sent = attempt() is True
        if not sent and may_wait:
            refuse_to_wait(f"publish() without room on the way to {link.name}")
            self._room.wait(attempt, None)
            sent = True
        return sent

    def add_watcher(self, watcher: Watcher) -> None:
        super().add_watcher(watcher)
        self._expiry.look()

    def remove_watcher(self, watcher: Watcher) -> None:
        super().remove_watcher(watcher)
        self._expiry.look()

    def _own_memory(self) -> None:
        """Make the authority and the clock of a process without a host, with an empty shared memory. Called once by
        ``__init__``, and by :meth:`reset` under the lock."""

        def on_change(revision: int, key: str, value: bytes | None, ttl: float | None, writer: str | None) -> None:
            if self._watchers:
                self._changed(key, messages.encode_change(revision, key, value, ttl))

        self._authority = Authority(view=self.view, on_change=on_change, monitor=self.monitor)
        watchers = self._watchers
        self._expiry = ExpiryThread(self._authority, self.monitor, lambda: len(watchers) > 0)

    # --- LinkHandler: called by the thread that reads the link ------------------------------------------------

    def on_hello(self, hello: messages.Hello) -> None:
        """Take over what both sides have agreed on: the smaller window and message limit."""
        link = self.link
        assert link is not None
        self.window = link.connection.window
        self.message_limit = link.connection.message_limit
        new_epoch()

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        if stream.receiver is not None:
            stream.receiver.deliver(payloads, flags, request_id, stream.source)

    def on_opened(self, stream: Stream) -> None:
        """Bind this process's end to the stream that the host has opened for a channel."""
        link = self.link
        assert link is not None
        with self._lock:  # held from look-up to binding, so that no sweep drops the end in between
            self.end(stream.key[1]).bind(link, stream)
        self._sweep_if_due()

    def on_close(self, stream: Stream) -> None:
        """Answer the host, which asks to close a topic's stream because all publications on it have been consumed. It
        is refused if somebody here has subscribed again."""
        link = self.link
        assert link is not None
        topic = stream.key[1]
        with self._lock:  # held for the answer too, so that nobody subscribes in between
            known = self._topic_streams.get(topic) is stream
            if link.closer.answer(stream, willing=topic not in self._subscriptions) and known:
                del self._topic_streams[topic]

    def on_close_answered(self, stream: Stream, closed: bool) -> None:
        """Drop the end whose stream :meth:`_sweep` wanted to close, if the host has agreed. If something here uses the
        channel again by now, it gets another stream.
        """
        link = self.link
        assert link is not None
        with self._lock:
            end = self._ends.get(stream.key[1])
            if end is None or end.outbox.stream is not stream:
                return
            if not closed:
                end.outbox.credit()  # send what was kept until the answer came
                return
            end.release(stream)
            if not self._drop_end(end) and end.refused is None:
                end.open(link)

    def on_credit(self, stream: Stream) -> None:
        if stream.user is not None:
            stream.user.credit()  # the outbox of a channel
        else:  # the store stream or the publish stream; a needless look costs less than telling them apart
            self._room.wake()
            self._replica.room.wake()

    def on_control(self, message: messages.Control) -> None:
        """Pass a control message on: to the launcher's functions, to who has asked the supervisor for something, or,
        for a channel that the host has refused, to its end. Others are ignored."""
        if isinstance(message, messages.Stop):
            self._on_stop(message.reason)
        elif isinstance(message, Supervision):
            self._on_supervision(message)
        elif isinstance(message, messages.ControlReply):
            self._answer_control(message)
        elif isinstance(message, messages.OpenRefused):
            link = self.link
            stream = None if link is None else link.connection.streams.get(message.stream)
            if stream is not None:
                stream.refused = True
                self.end(stream.key[1]).refuse(message.reason)

    def on_end(self, cause: LinkError) -> None:
        """Become a process whose host is gone, and wake everybody who waits for it.

        Called exactly once for each link, whatever ended it. The phase before tells three cases apart: ALONE (the
        greeting failed), ATTACHED (the host went away) and DETACHED (:meth:`detach` has begun the end and reports what
        was lost itself).
        """
        before = self._phase
        if before is not Phase.ALONE:  # a greeting that fails leaves a process without a host
            self._close_incoming()
            self._phase = Phase.DETACHED
        self._greeting_error = cause  # before the event: attach() reads it behind the wait
        self._greeted.set()
        self._room.wake()
        self._fail_controls()
        self._replica.end()
        if before is Phase.ALONE:
            return
        for end in list(self._ends.values()):
            if self.link is not None:
                end.unbind(self.link, str(cause))
            if before is Phase.ATTACHED:
                end.outbox.give_up("the host is gone")
        self._close_all(str(cause))
        if before is Phase.ATTACHED:
            self._on_host_gone(str(cause))

    def _close_incoming(self) -> None:
        """Close every queue of arriving messages, and those of ends that are made later. Done before the phase changes,
        so that a receive() that begins now ends in the same way as one that waits."""
        with self._lock:
            self._receiving_is_over = True
            ends = list(self._ends.values())
        for end in ends:
            end.inbox.close()

    def _loaded(self, channels: list[str]) -> None:
        """Become attached: the snapshot has been loaded, and *channels* are the names that the host knows. Called by
        the replica, in the thread that reads the link."""
        self._expiry.end()  # from now on the host deletes keys at their time
        self._channels |= set(channels)
        self._phase = Phase.ATTACHED
        self._greeted.set()

    def statistics(self) -> dict[str, Any]:
        return {name: end.statistics() for name, end in list(self._ends.items())}
