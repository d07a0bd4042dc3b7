"""Any interleaving of writes, delays, duplicates, snapshots and reconnects: every mirror ends equal to the store.

And on the way each mirror shows exactly a prefix of the store's history, with its own writes over it.
"""

from __future__ import annotations

from collections import deque

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.storage.mirror import Mirror
from liteyuki_host.comm.storage.store import Store
from liteyuki_host.comm.storage.values import Packed

enc = msgspec.msgpack.encode
dec = msgspec.msgpack.decode

WHO = st.integers(0, 1)
KEYS = st.sampled_from("ab")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=2), st.lists(st.integers(0, 2), max_size=2)
)
STEPS = st.sampled_from([1, 1, 2, 9])  # one at a time is where the order matters
LIMIT = 410  # two small entries; larger values make refusals


def plain(view: dict[str, object]) -> dict[str, object]:
    return {key: dec(value) if isinstance(value, Packed) else value for key, value in view.items()}


class Replica:
    """A mirror, the requests on their way to the store and the events on their way back."""

    def __init__(self) -> None:
        self.view: dict[str, object] = {}
        self.connected = True
        self.mirror = Mirror(self.view)
        self.requests: deque[m.Request] = deque()
        self.events: deque[m.Event] = deque()
        self.keys: dict[int, str] = {}
        self.next_request = 1

    def own_view(self, history: list[dict[str, object]]) -> dict[str, object]:
        """What it should show: the prefix it has seen, its own writes that are not yet done over it."""
        expected = dict(history[self.mirror.revision])
        newest = {key: number for number, key in self.keys.items()}
        for key, number in newest.items():
            write = self.writes[number]
            if isinstance(write, m.Put):
                expected[key] = dec(write.value)
            else:
                expected.pop(key, None)
        return expected

    writes: dict[int, m.Request]


class SharedMemoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = Store(LIMIT)
        self.history: list[dict[str, object]] = [{}]  # the store's view at every revision
        self.replicas = [Replica() for _ in range(2)]
        for replica in self.replicas:
            replica.writes = {}

    def _publish(self, changes: list[m.Change], writer: Replica | None) -> None:
        for change in changes:
            after = dict(self.history[-1])
            if change.value is None:
                after.pop(change.key)
            else:
                after[change.key] = dec(change.value)
            self.history.append(after)
            for replica in self.replicas:
                if replica.connected and replica is not writer:
                    replica.events.append(change)

    def _ask(self, replica: Replica, make: object) -> int:
        number = replica.next_request
        replica.next_request += 1
        request = make(number)  # type: ignore[operator]
        replica.requests.append(request)
        replica.writes[number] = request
        return number

    @rule(who=WHO, key=KEYS, value=VALUES)
    def put(self, who: int, key: str, value: object) -> None:
        replica = self.replicas[who]
        if replica.connected:
            number = self._ask(replica, lambda n: m.Put(n, key, enc(value)))
            replica.keys[number] = key
            replica.mirror.own_put(number, key, enc(value), None)

    @rule(who=WHO, key=KEYS)
    def remove(self, who: int, key: str) -> None:
        replica = self.replicas[who]
        if replica.connected:
            number = self._ask(replica, lambda n: m.Remove(n, key))
            replica.keys[number] = key
            replica.mirror.own_remove(number, key)

    @rule(who=WHO, key=KEYS, by=st.integers(-2, 2))
    def increment(self, who: int, key: str, by: int) -> None:
        if self.replicas[who].connected:
            self._ask(self.replicas[who], lambda n: m.Increment(n, key, by))

    @rule(who=WHO, key=KEYS, expected=VALUES, value=VALUES)
    def compare(self, who: int, key: str, expected: object, value: object) -> None:
        if self.replicas[who].connected:
            new = None if value is None else enc(value)
            old = None if expected is None else enc(expected)
            self._ask(self.replicas[who], lambda n: m.Compare(n, key, old, new))

    @rule(who=WHO, count=STEPS)
    def the_store_takes_requests(self, who: int, count: int) -> None:
        replica = self.replicas[who]
        for _ in range(min(count, len(replica.requests))):
            request = replica.requests.popleft()
            if isinstance(request, m.Put):
                outcome, changes = self.store.put(request.key, request.value, 0.0)
            elif isinstance(request, m.Remove):
                outcome, changes = self.store.remove(request.key)
            elif isinstance(request, m.Increment):
                outcome, changes = self.store.increment(request.key, request.by, 0.0)
            else:
                assert isinstance(request, m.Compare)
                outcome, changes = self.store.compare(request.key, request.expected, request.value, None, 0.0)
            assert len(changes) <= 1
            if changes and isinstance(request, (m.Put, m.Remove)):
                self._publish(changes, replica)
                last = replica.events[-1] if replica.events else None
                if (
                    isinstance(last, m.Ordered)
                    and last.id + last.count == request.id
                    and last.revision + last.count == outcome.revision
                ):  # as a session tells of them together
                    replica.events[-1] = m.Ordered(last.id, last.count + 1, last.revision)
                else:
                    replica.events.append(m.Ordered(request.id, 1, outcome.revision))
            else:
                self._publish(changes, None)
                replica.events.append(m.Done(request.id, outcome.error, outcome.value, outcome.revision))

    @rule(who=WHO, count=STEPS)
    def a_mirror_follows(self, who: int, count: int) -> None:
        replica = self.replicas[who]
        for _ in range(min(count, len(replica.events))):
            event = replica.events.popleft()
            if isinstance(event, m.Change):
                assert replica.mirror.apply(event, 0.0)
            elif isinstance(event, m.Ordered):
                writes = [
                    (replica.keys.pop(number), getattr(replica.writes[number], "value", None), None, None)
                    for number in range(event.id, event.id + event.count)  # a Remove has no value
                ]
                assert replica.mirror.own_ordered(event.id, writes, event.revision, 0.0)
            else:
                assert isinstance(event, m.Done)
                key = replica.keys.pop(event.id, None)
                if key is not None:
                    replica.mirror.done(event.id, key)

    @rule(who=WHO)
    def an_old_change_comes_again(self, who: int) -> None:
        mirror = self.replicas[who].mirror
        if mirror.revision:
            assert mirror.apply(m.Change(mirror.revision, "a", enc("stale")), 0.0)

    @rule(who=WHO, ahead=st.integers(2, 5))
    def a_gap_changes_nothing(self, who: int, ahead: int) -> None:
        mirror = self.replicas[who].mirror
        assert not mirror.apply(m.Change(mirror.revision + ahead, "a", enc("gap")), 0.0)
        assert not mirror.own_ordered(1 << 30, [("a", enc("gap"), None, None)], mirror.revision + ahead, 0.0)

    @rule(who=WHO)
    def a_snapshot_in_the_middle(self, who: int) -> None:
        """Of now: what is on its way becomes old news, except the answers to own writes."""
        replica = self.replicas[who]
        if replica.connected:
            replica.mirror.load(list(self.store.snapshot(0.0)), self.store.revision, 0.0)

    @rule(who=WHO, really=st.sampled_from([False, False, False, True]))
    def the_link_breaks(self, who: int, really: bool) -> None:
        if not really:
            return  # a link that broke all the time would leave nothing under way
        replica = self.replicas[who]
        replica.connected = False
        replica.requests.clear()
        replica.events.clear()

    @rule(who=WHO)
    def the_link_comes_back(self, who: int) -> None:
        """As the node does it: a new mirror over the same view, then the snapshot."""
        replica = self.replicas[who]
        if not replica.connected:
            replica.connected = True
            replica.keys.clear()
            replica.mirror = Mirror(replica.view)
            replica.mirror.load(list(self.store.snapshot(0.0)), self.store.revision, 0.0)

    @invariant()
    def the_store_is_what_its_history_says(self) -> None:
        assert plain(self.store.view) == self.history[-1]
        assert self.store.revision == len(self.history) - 1
        assert self.store.size <= LIMIT
        assert {key: dec(payload) for key, payload, _, _ in self.store.snapshot(0.0)} == self.history[-1]

    @invariant()
    def every_mirror_shows_a_prefix_and_its_own_writes(self) -> None:
        for replica in self.replicas:
            if replica.connected:
                assert plain(replica.view) == replica.own_view(self.history)

    def teardown(self) -> None:
        """When everything has arrived, all are equal."""
        for who in range(2):
            self.the_link_comes_back(who)
            self.the_store_takes_requests(who, 1 << 30)
        for who, replica in enumerate(self.replicas):
            self.a_mirror_follows(who, 1 << 30)
            assert plain(replica.view) == self.history[-1]
            assert replica.mirror.revision == self.store.revision
            assert not any(replica.mirror.is_pending(key) for key in "ab")
            for key in "ab":
                assert replica.mirror.revision_of(key) == self.store.revision_of(key)


SharedMemoryMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSharedMemory = SharedMemoryMachine.TestCase
