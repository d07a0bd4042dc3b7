"""The way between two children: a relay hands on what its target has room for, and grants no more than that."""

from __future__ import annotations

from typing import Any

from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.hub.routes import Relay, Route


class Source:
    def __init__(self) -> None:
        self.granted = 0

    def consumed(self, cost: int) -> None:
        self.granted += cost


class Target(Outbox):
    """Has room for as many messages as the test says."""

    def __init__(self, room: int) -> None:
        super().__init__(on_lost=lambda count, why: None)
        self.left = room
        self.got: list[tuple[bytes, int, int]] = []
        self.replies: list[tuple[bytes, int, int]] = []

    def offer(self, payload: bytes, flags: int = 0, request_id: int = 0) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.got.append((payload, flags, request_id))
        return True

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        self.replies.append((payload, flags, request_id))


class End:
    """The host's own end."""

    def __init__(self) -> None:
        self.got: list[tuple[list[bytes], int, int, Any]] = []

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: Any) -> None:
        self.got.append((payloads, flags, request_id, source))


COST = MESSAGE_CHARGE + 1


def test_without_a_target_everything_waits_and_nothing_is_granted() -> None:
    relay, source = Relay(), Source()
    relay.deliver([b"1", b"2"], 0, 0, source)
    assert (len(relay), source.granted) == (2, 0)


def test_what_waited_goes_first_and_room_is_what_is_granted() -> None:
    relay, source, target = Relay(), Source(), Target(2)
    relay.deliver([b"1", b"2"], 0, 0, source)
    relay.deliver([b"3"], Flag.RAW, 0, source)
    relay.set_target(target)
    assert target.got == [(b"1", 0, 0), (b"2", 0, 0)]
    assert (len(relay), source.granted) == (1, 2 * COST)
    target.left = 5
    assert target.on_room is not None
    target.on_room()
    relay.deliver([b"4"], Flag.REQUEST, 9, source)
    assert target.got[2:] == [(b"3", Flag.RAW, 0), (b"4", Flag.REQUEST, 9)]
    assert (len(relay), source.granted) == (0, 4 * COST)


def test_each_source_is_granted_its_own() -> None:
    relay, a, b = Relay(), Source(), Source()
    relay.deliver([b"1"], 0, 0, a)
    relay.deliver([b"22"], 0, 0, b)
    relay.set_target(Target(5))
    assert (a.granted, b.granted) == (COST, COST + 1)


def test_the_hosts_end_grants_by_itself() -> None:
    relay, source, end = Relay(), Source(), End()
    relay.deliver([b"1", b"2"], 0, 0, source)
    relay.set_target(end)  # type: ignore[arg-type]
    relay.deliver([b"3"], Flag.RAW, 0, source)
    assert end.got == [([b"1"], 0, 0, source), ([b"2"], 0, 0, source), ([b"3"], Flag.RAW, 0, source)]
    assert source.granted == 0


def test_replies_pass_what_waits() -> None:
    relay, source, target = Relay(), Source(), Target(0)
    relay.deliver([b"r"], Flag.REPLY, 1, source)  # nobody there who asked
    relay.set_target(target)
    relay.deliver([b"1"], 0, 0, source)
    relay.deliver([b"r"], Flag.REPLY, 2, source)
    assert target.replies == [(b"r", Flag.REPLY, 2)]
    assert (target.got, len(relay)) == ([], 1)


def test_a_route_knows_the_other_end() -> None:
    route = Route("x")
    assert route.other("a") is None
    route.ends += ["a", "b"]
    assert (route.other("a"), route.other("b")) == ("b", "a")
    assert route.relay("a") is route.relay("a")
    route.fail_requests("a", [1], "gone")  # nobody to tell, and no error
