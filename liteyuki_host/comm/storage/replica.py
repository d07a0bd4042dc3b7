"""The shared memory in a process under a host: what it has seen of the host's order, and what it has asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from liteyuki_host.comm.channel.end import StreamSource, join
from liteyuki_host.comm.errors import HostNotAttached, LinkClosed
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.process.exchange import report_refusal
from liteyuki_host.comm.process.watchers import Watcher
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.messages import PUT, encode_tagged
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.storage.mirror import Mirror
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.waiting.monitor import Held, Monitor, refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing, Waiters

__all__ = ["Replica"]

Done = Callable[[Outcome], None]


class Replica:
    """See the module's docstring. Callable from any thread; the receiver of the stream that carries the shared memory.

    Args:
        view: the dict that reads go to.
        watchers: who wants to know of every step, in order.
        loaded: told when a new link's snapshot is complete, with the names of all channels.
        declared: told of each other channel.
        withdrawn: told of each channel that nobody uses any more.
        declared: told of each channel that is declared later.
        monitor: guards everything here, with everything else of its exchange; None: one of its own.
    """

    def __init__(
        self,
        view: dict[str, object],
        *,
        watchers: Callable[[], Sequence[Watcher]],
        loaded: Callable[[list[str]], None],
        declared: Callable[[str], None],
        withdrawn: Callable[[str], None] = lambda name: None,
        monitor: Monitor | None = None,
    ) -> None:
        self._monitor = monitor or Monitor()
        self.lock = self._monitor.lock  # guards the mirror, and the order of requests on the link
        self.room = Waiters()  # woken when the host has consumed requests, and at the link's end
        self._view = view
        self._watchers = watchers
        self._loaded = loaded
        self._declared = declared
        self._withdrawn = withdrawn
        self._mirror = Mirror(view)
        self._link: Link | None = None
        self._shortcut: Callable[..., bool] = lambda payload: False
        self._next_request = 1
        self._replies: dict[int, Done] = {}
        # Writes that the host has not ordered yet, by number, each with whom to tell. The host does not send them back:
        # what they were is kept here.
        self._own_writes: dict[int, tuple[str, bytes | None, float | None, Done | None]] = {}
        self._snapshot: list[tuple[str, bytes, int, float | None]] = []
        self._channels_of_host: list[str] = []  # as the snapshot's end has named them; used by the link's reader

    def begin(self, link: Link) -> None:
        """Follow the host behind *link*. Of an earlier one nothing counts any more; what it has shown stays until the
        new one has been loaded."""
        self.reset()
        self._link = link
        self._shortcut = link.shortcut(link.connection.store, outermost=False)
        self.room.link = link
        join(self, link, link.connection.store)

    def reset(self) -> None:
        """Drop everything that a host has told, for a link to another one."""
        with self.lock:
            self._mirror = Mirror(self._view)
            self._own_writes.clear()
            self._snapshot = []

    def end(self) -> None:
        """The host is gone: whoever waits for an answer gets none."""
        self.room.wake()
        with self.lock:
            waiting = [*self._replies.values(), *(done for _, _, _, done in self._own_writes.values())]
            self._replies.clear()
            revision = self._mirror.revision
        for done in waiting:
            if done is not None:
                done(Outcome(Refusal.HOST_GONE, None, revision))

    @property
    def revision(self) -> int:
        return self._mirror.revision

    def revision_of(self, key: str) -> tuple[object, int]:
        """As ``Exchange.revision_of``."""
        with self.lock:
            # An own write under way has no revision yet; the host's answer to a guess brings the real one.
            revision = -1 if self._mirror.is_pending(key) else self._mirror.revision_of(key)
            return self._view.get(key, NOTHING), revision

    # --- asking ---------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        payload: bytes,
        ttl: float | None,
        ephemeral: bool,
        done: Done | None,
        *,
        may_wait: bool,
        late: bool = False,
    ) -> bool:
        """Write, as ``Exchange.put`` does."""
        monitor = self._monitor
        try:
            if not (monitor.acquire(False) or monitor.take()):
                raise Held
            if monitor.due and not late:  # the calls of one thread keep their order
                monitor.perform()
            number = self._next_request
            request = encode_tagged((PUT, number, key, payload, ttl, ephemeral))
            if self._shortcut(request) or self._send(request, Flag.UNCREDITED if late else 0):
                self._next_request = number + 1
                self._own_writes[number] = (key, payload, ttl, done)
                self._mirror.own_put(number, key, payload, None if ttl is None else time.monotonic() + ttl)
                return True
        finally:
            try:
                monitor.release()
            except RuntimeError:  # we have not got it
                pass
        # `partial`, as variables that another function uses are slower throughout.
        return may_wait and self._wait_for_room(partial(self.put, key, payload, ttl, ephemeral, done, may_wait=False))

    def remove(self, key: str, done: Done | None, *, may_wait: bool, late: bool = False) -> bool:
        """Delete, as ``Exchange.remove`` does."""
        monitor = self._monitor
        try:
            monitor.enter()
            number = self._next_request
            request = messages.encode_message(messages.Remove(number, key))
            if self._send(request, Flag.UNCREDITED if late else 0):
                self._next_request = number + 1
                self._own_writes[number] = (key, None, None, done)
                self._mirror.own_remove(number, key)
                return True
        finally:
            monitor.leave()
        return may_wait and self._wait_for_room(lambda: self.remove(key, done, may_wait=False))

    def ask(self, make: Callable[[int], messages.Request], done: Done | None) -> int:
        """Send a request whose answer somebody waits for, without credit; returns its number."""
        with self.lock:
            number = self._next_request
            self._send(messages.encode_message(make(number)), Flag.UNCREDITED)
            self._next_request = number + 1
            if done is not None:
                self._replies[number] = done
            return number

    def forget(self, number: int) -> None:
        """Wait no longer for the answer to request *number*: for a lock that is no longer waited for there is none."""
        with self.lock:
            self._replies.pop(number, None)

    def _send(self, payload: bytes, flags: int = 0) -> bool:
        link = self._link
        assert link is not None
        try:
            return link.send(link.connection.store, payload, flags)
        except LinkClosed as error:
            raise HostNotAttached(f"the shared memory cannot be written: {error}") from None

    def _wait_for_room(self, write: Callable[[], bool]) -> bool:
        def attempt() -> bool | Nothing:
            return write() or NOTHING

        refuse_to_wait("a write of the shared memory without room on the way to the host")
        self.room.wait(attempt, None)
        return True

    # --- following ------------------------------------------------------------------------------------------

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: StreamSource) -> None:
        """Follow the host's events. Called by the link's reader."""
        cost = MESSAGE_CHARGE * len(payloads)
        for payload in payloads:
            cost += len(payload)
            event = messages.decode_event(payload)
            if type(event) is messages.Ordered:
                self._ordered(event)
            elif type(event) is messages.Change:
                with self.lock:
                    followed = self._mirror.apply(event, time.monotonic())
                if not followed:
                    self._gap(event.revision)
                else:
                    for watcher in self._watchers():
                        watcher.changed(event.key, payload, event)
            else:
                self._follow(event)
        source.count(cost)

    def _follow(self, event: messages.Event) -> None:
        """The rarer ones."""
        if isinstance(event, messages.Done):
            self._done(event)
        elif isinstance(event, messages.SnapshotPart):
            self._snapshot.extend(event.items)
        elif isinstance(event, messages.SnapshotEnd):
            with self.lock:
                self._mirror.load(self._snapshot, event.revision, time.monotonic())
                self._snapshot = []
            self._channels_of_host = event.channels
            self._answer_barrier(messages.LOADED)
        elif isinstance(event, messages.Declared):
            self._declared(event.channel)
        elif isinstance(event, messages.Barrier):
            if event.number == messages.LOADED:
                self._loaded(self._channels_of_host)
            else:
                self._answer_barrier(event.number)
        elif isinstance(event, messages.Undeclared):
            self._withdrawn(event.channel)

    def _answer_barrier(self, number: int) -> None:
        """Tell the host that everything written until now has been sent."""
        try:
            with self.lock:  # writes take their place on the link under it, too
                self._send(messages.encode_message(messages.Reached(0, number)), Flag.UNCREDITED)
        except HostNotAttached:  # the link's end, which counts as an answer
            pass

    def _ordered(self, event: messages.Ordered) -> None:
        """The host has made own writes its next steps."""
        first, revision = event.id, event.revision
        with self.lock:
            try:
                writes = list(map(self._own_writes.pop, range(first, first + event.count)))
            except KeyError:  # nobody has asked for it
                followed = False
            else:
                followed = self._mirror.own_ordered(first, writes, revision, time.monotonic())
        if not followed:
            self._gap(revision)
            return
        watchers = self._watchers()
        for key, value, ttl, done in writes:
            if watchers:
                change = messages.encode_change(revision, key, value, ttl)
                for watcher in watchers:
                    watcher.changed(key, change)
            if done is not None:
                done(Outcome(None, b"\xc3" if value is None else None, revision))
            revision += 1

    def _done(self, event: messages.Done) -> None:
        outcome = Outcome(event.error, event.value, event.revision)
        with self.lock:
            write = self._own_writes.pop(event.id, None)
            if write is None:
                key, done = "", self._replies.pop(event.id, None)
            else:  # it was refused, or there was nothing to delete
                key, _, _, done = write
                self._mirror.done(event.id, key)
        if done is not None:
            done(outcome)
        elif write is not None:
            report_refusal(self._monitor, key, outcome)

    def _gap(self, revision: int) -> None:
        # Cannot happen on one ordered link; going on would show a state that never was.
        line = f"shared memory: revision {revision} came after {self._mirror.revision}"
        self._monitor.say(lambda: log().error(line))
