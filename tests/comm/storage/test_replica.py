"""What a process makes of the host's word on its own writes, told together."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pair_kit import logged

from liteyuki_host.comm.codec import encode
from liteyuki_host.comm.protocol.messages import Change, Ordered, decode_change, encode_message
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.storage.outcome import Outcome
from liteyuki_host.comm.storage.replica import Replica
from liteyuki_host.comm.waiting.monitor import Monitor


def _take_everything(stream: Stream, *, outermost: bool) -> Callable[[bytes], bool]:
    return lambda payload: True


class Kit:
    """A replica whose link takes everything, and a sender who is told what has been consumed."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, str]] = []
        self.outcomes: list[Outcome] = []
        self.consumed = 0
        self.view: dict[str, object] = {}
        self.monitor = Monitor()
        self.replica = Replica(
            self.view,
            watchers=lambda: [self],
            loaded=lambda channels: None,
            declared=lambda name: None,
            monitor=self.monitor,
        )
        store = Stream(0, ("store", ""))
        connection = SimpleNamespace(store=store, owed=[])
        link: Any = SimpleNamespace(connection=connection, writer=None, shortcut=_take_everything)
        self.replica.begin(link)

    def put(self, key: str, value: object) -> None:
        assert self.replica.put(key, encode(value), None, False, self.outcomes.append, may_wait=False)

    def count(self, cost: int) -> None:
        self.consumed += cost

    def ordered(self, first: int, count: int, revision: int) -> None:
        self.replica.deliver([encode_message(Ordered(first, count, revision))], 0, 0, self)  # type: ignore[arg-type]
        self.monitor.settle()  # as the link's reader does

    # Watcher.

    def changed(self, key: str, event: bytes, known: Change | None = None) -> None:
        change = decode_change(event)
        assert known in (None, change)
        assert change.key == key
        self.changes.append((change.revision, key))

    def attach_loop(self, loop: object) -> None: ...

    def detach_loop(self) -> None: ...

    def detached(self) -> None: ...


def test_each_of_them_gets_its_own_step() -> None:
    kit = Kit()
    for key in ("a", "b", "a"):
        kit.put(key, 1)
    kit.ordered(1, 2, 1)
    kit.ordered(3, 1, 3)
    assert kit.changes == [(1, "a"), (2, "b"), (3, "a")]
    assert kit.outcomes == [Outcome(None, None, revision) for revision in (1, 2, 3)]
    assert kit.consumed


@pytest.mark.parametrize(("first", "revision"), [(2, 1), (1, 2)], ids=["not asked for", "a step is missing"])
def test_what_cannot_be_is_said_and_not_shown(first: int, revision: int) -> None:
    kit = Kit()
    kit.put("a", 1)
    with logged() as lines:
        kit.ordered(first, 1, revision)
    assert [line for line in lines if f"revision {revision} came after 0" in line]
    assert (kit.changes, kit.outcomes, kit.replica.revision) == ([], [], 0)
