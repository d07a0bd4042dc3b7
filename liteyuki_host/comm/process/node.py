"""A bot process's half: everything of it that talks with the host.

Without a host it is its own: the shared memory and topics work inside the process, channels to the host raise
HostNotAttached, and no file or port is opened, and no thread but the clock of watched keys
with a ttl (``storage/expiry.py``).
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
"""What a process is called as long as no host has said otherwise."""

Supervision = messages.WatchLoop | messages.Drain | messages.DumpStacks

UNSENT = "this process ended before it could be sent"
"""Why messages are given up that have not been written when this process leaves."""

LOCAL_BACKLOG = 5 * DEFAULT_WINDOW  # bytes that a topic may queue inside one process: as much as under a host


_ATTACHED: Final = Phase.ATTACHED  # found sooner than an attribute of the class, for what every write asks


class Node(Supervised):
    """See the module's docstring. There is one per process; :func:`current` returns it."""

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
        self._room = Waiters()  # for publications
        self._topic_streams: dict[str, Stream] = {}
        self._greeted = threading.Event()
        self._greeting_error: LinkError | None = None
        self._on_stop: Callable[[str], None] = lambda reason: None
        self._on_host_gone: Callable[[str], None] = lambda cause: None
        self._on_supervision: Callable[[Supervision], None] = lambda message: None

    # --- under a host ---------------------------------------------------------------------------------------

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
        """Greet the host over *transport* and load the shared memory. Blocks; to be called before a loop runs.

        Args:
            on_stop, on_host_gone: called by whoever reads the link, with the reason; must return soon.
            on_supervision: the same, with what else the supervisor asks of this process.
            timeout: seconds for the whole greeting.

        Raises:
            LinkError: no greeting, or the host refused ours; the text says why. The node is as it was.
        """
        if self._phase is Phase.ATTACHED:
            raise HostError("this process is already attached to a host")
        self._on_stop, self._on_host_gone = on_stop, on_host_gone
        self._on_supervision = on_supervision
        own_name = self.process
        self._rename(process)
        self._greeted.clear()
        self._greeting_error = None
        self._topic_streams.clear()  # which were those of an earlier link, if there was one
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
            # The host's wishes rule: the smaller ones are agreed on.
            window=1 << 30,
            message_limit=1 << 30,
            closes=True,
        )
        connection = Connection(Role.CHILD, hello)
        link = Link(transport, connection, self, name="the host", monitor=self.monitor)
        self._replica.begin(link)
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
        for subscription in list(self._subscriptions.values()):
            if subscription.callbacks:
                subscription.announced = True
                self._subscribed(subscription)
        for end in list(self._ends.values()):
            if end.inbox.mode is not None:
                self._use_end(end)

    def _rename(self, process: str) -> None:
        self.process = process
        new_epoch()

    def detach(self, reason: str = "this process ends", *, timeout: float = 1.0) -> None:
        """Say goodbye, send what is queued (at most *timeout* seconds) and wake everybody who waits.

        The shared memory can still be read afterwards.
        """
        link = self.link
        if link is not None and self._phase is Phase.ATTACHED:
            self._close_incoming()
            with self._lock:
                self.monitor.perform()  # what was put off was accepted before the goodbye
                self._phase = Phase.DETACHED
                for end in list(self._ends.values()):
                    end.outbox.close(UNSENT)
            # What the host's side of the link has been given is the host's to deliver.
            delivered = link.close(reason, timeout=timeout)
            link.join(timeout)
            for end in list(self._ends.values()):
                if end.refused is not None:  # a thread may have sent just before it learned of that
                    end.outbox.give_up(end.refused)
                elif not delivered:
                    end.outbox.give_up(UNSENT)
        self._close_all(reason)

    def lose_link(self) -> None:
        """This process is a copy of the one that the link belongs to: here there is no host."""
        link, self.link = self.link, None
        if link is not None:
            self._phase = Phase.DETACHED
            link.writer.give_up()
            for end in self._ends.values():
                end.usable = False
            link.release_transport()

    def wait_detached(self, timeout: float) -> None:
        """Wait until the end of a broken link has been dealt with, at most *timeout* seconds. For tests."""
        if self.link is not None:
            self.link.join(timeout)

    def reset(self) -> None:
        """Become a process without a host again, with an empty shared memory. For tests."""
        self.detach("reset")
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

    def channel_names(self) -> set[str]:
        names = set(self._channels)
        if self._phase is Phase.ALONE:
            names |= {f"{self.process}-passive", f"{self.process}-active"}
        return names

    def declare(self, name: str, *, keep: bool = True) -> None:
        check_name(name, "channel")
        if keep:
            with self._lock:
                forgotten = self._kept_names.add(name)
            if forgotten is not None:
                self.end(forgotten)  # which is dropped, with the name, once it is found unused
        if name in self._declared:
            return
        self._declared.add(name)
        self._channels.add(name)
        if self._phase is Phase.ATTACHED:
            # Without credit: a channel may be named while a message is encoded on the event loop.
            self._replica.ask(lambda number: messages.Declare(number, name), None)

    def _forget_name(self, name: str) -> None:
        """No process uses a channel of that name any more."""
        if name not in self._declared:
            self._channels.discard(name)

    # Which channels this process uses. An end that nothing uses is dropped: first its stream is closed, if it has one,
    # by agreement with the host (``protocol/closing.py``).

    def _sweep(self) -> int:
        link = self.link if self._phase is Phase.ATTACHED else None
        own = (f"{self.process}-passive", f"{self.process}-active")  # these the host keeps
        with self._lock:
            kept = self._kept_names
            unused = [end for end in self._unused_ends() if end.name not in own and end.name not in kept]
            if link is not None and link.closer.possible:
                link.closer.ask([stream for end in unused if (stream := end.outbox.stream) is not None])
            elif link is not None:
                unused = [end for end in unused if not end.outbox.bound]
            for end in unused:
                self._drop_end(end)
            return len(self._ends) - len(unused)

    def _drop_end(self, end: ChannelEnd) -> bool:
        if end.name in self._kept_names or not super()._drop_end(end):
            return False
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
            if not end.outbox.bound:
                end.open(link)

    # --- topics ---------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, flags: int, *, may_wait: bool) -> bool:
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
            if known is not None:  # not closed yet since the last subscription ended
                known.receiver = subscription
                link.send_control(messages.Subscribe(known.id))
                return
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
        except HostNotAttached:  # it was freed when the host saw us go
            pass

    def withdraw(self, key: str, holder: int, done: Callable[[Outcome], None]) -> None:
        alone = self._phase is Phase.ALONE

        def decided(outcome: Outcome) -> None:
            if outcome.error == Refusal.HELD:
                if alone:  # without a host it is always this process that holds it
                    outcome = Outcome(outcome.error, self.process.encode(), outcome.revision)
                else:  # the grant will never come
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
        """Have a request performed, here or by the host; returns its number."""
        if self._phase is Phase.ALONE:
            number = next(self._numbers)
            self._authority.perform("local", make(number), done or (lambda outcome: None))
            if self._authority.may_expire:
                self._expiry.look()
            return number
        self._attached_link("the shared memory")
        return self._replica.ask(make, done)

    def _send(self, link: Link, stream: Stream, payload: bytes, *, may_wait: bool) -> bool:
        patient = self.monitor.owned()  # it was put off, and is performed now

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
        """Begin with an empty shared memory, as a process without a host has it."""

        def on_change(revision: int, key: str, value: bytes | None, ttl: float | None, writer: str | None) -> None:
            if self._watchers:
                self._changed(key, messages.encode_change(revision, key, value, ttl))

        self._authority = Authority(view=self.view, on_change=on_change, monitor=self.monitor)
        watchers = self._watchers
        self._expiry = ExpiryThread(self._authority, self.monitor, lambda: len(watchers) > 0)

    # --- what the link tells us (LinkHandler) -----------------------------------------------------------------

    def on_hello(self, hello: messages.Hello) -> None:
        link = self.link
        assert link is not None
        self.window = link.connection.window
        self.message_limit = link.connection.message_limit
        new_epoch()

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        if stream.receiver is not None:
            stream.receiver.deliver(payloads, flags, request_id, stream.source)

    def on_opened(self, stream: Stream) -> None:
        link = self.link
        assert link is not None
        with self._lock:  # so that the end is not dropped in between
            self.end(stream.key[1]).bind(link, stream)
        self._sweep_if_due()

    def on_close(self, stream: Stream) -> None:
        """The host asks to close a topic's stream: all publications have been consumed."""
        link = self.link
        assert link is not None
        topic = stream.key[1]
        with self._lock:  # nobody subscribes in between
            known = self._topic_streams.get(topic) is stream
            if link.closer.answer(stream, willing=topic not in self._subscriptions) and known:
                del self._topic_streams[topic]

    def on_close_answered(self, stream: Stream, closed: bool) -> None:
        """The host has answered what :meth:`_sweep` has asked. Somebody may use the channel again by now."""
        link = self.link
        assert link is not None
        with self._lock:
            end = self._ends.get(stream.key[1])
            if end is None or end.outbox.stream is not stream:
                return
            if not closed:
                end.outbox.credit()  # what has waited for the answer
                return
            end.release(stream)
            if not self._drop_end(end) and end.refused is None:
                end.open(link)

    def on_credit(self, stream: Stream) -> None:
        if stream.user is not None:
            stream.user.credit()
        else:
            self._room.wake()
            self._replica.room.wake()

    def on_control(self, message: messages.Control) -> None:
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
        before = self._phase
        if before is not Phase.ALONE:  # a greeting that fails leaves a process without a host
            self._close_incoming()
            self._phase = Phase.DETACHED
        self._greeting_error = cause
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
        """Before anything else says that the host is gone: a receive() between two messages then ends like one that
        waits."""
        with self._lock:
            self._receiving_is_over = True
            ends = list(self._ends.values())
        for end in ends:
            end.inbox.close()

    def _loaded(self, channels: list[str]) -> None:
        """The greeting is complete: the shared memory is that of the host."""
        self._expiry.end()
        self._channels |= set(channels)
        self._phase = Phase.ATTACHED
        self._greeted.set()

    def statistics(self) -> dict[str, Any]:
        return {name: end.statistics() for name, end in list(self._ends.items())}
