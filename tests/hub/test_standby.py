"""A successor that is connected while its predecessor still serves: it follows, waits, and takes over once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "comm"))
from pair_kit import DEADLINE, Child, Listener, channel, eventually, logged, loops, memory, until

from liteyuki_host.comm.errors import ChannelBroken, ChannelFull, ChannelTaken, LycommError, ReceiveTimeout
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.protocol.frames import Flag, Kind, encode_frame
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.topics import publish, subscribe, unsubscribe
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.hub import Hub
from liteyuki_host.hub.standby import Standby


class Bot:
    """One incarnation of the process ``bot``."""

    def __init__(self, hub: Hub, *, standby: bool, attach: bool = True) -> None:
        self.node = Node()
        self.gone: list[str] = []
        self.listener = Listener()
        self.transports = memory_link()
        self.session = hub.connect("bot", self.transports[0], self.listener, standby=standby)
        if attach:
            self.attach()

    def attach(self) -> None:
        self.node.attach(self.transports[1], "bot", on_stop=lambda reason: None, on_host_gone=self.gone.append)

    def kill(self) -> None:
        """Break its link without a goodbye; everybody knows when it returns."""
        for transport in self.transports:
            transport.close()
        self.session.link.join(DEADLINE)
        self.node.wait_detached(DEADLINE)

    def leave(self) -> None:
        """Say goodbye; the host knows when it returns."""
        self.node.detach("its turn is over", timeout=DEADLINE)
        self.session.link.join(DEADLINE)

    def receive(self, name: str = "bot-active") -> tuple[Any, bool]:
        line = channel(self.node, name)
        return line.receive(DEADLINE), line.redelivered


Start = Callable[..., Bot]


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    made.declare_process("bot")
    yield made
    made.close("the test is over")


@pytest.fixture
def start(hub: Hub) -> Iterator[Start]:
    bots: list[Bot] = []

    def start(*, standby: bool = False, attach: bool = True) -> Bot:
        bots.append(Bot(hub, standby=standby, attach=attach))
        return bots[-1]

    yield start
    for bot in bots:
        bot.node.reset()


END: dict[str, Callable[[Bot], None]] = {
    "killed": Bot.kill,
    "goodbye": Bot.leave,
    "closed by the host": lambda bot: (bot.session.close("enough"), bot.session.link.join(DEADLINE))[0],
}


def arrived(bot: Bot) -> None:
    """Return when the host has read all that *bot* sent so far: requests are answered in the order of the link."""
    memory(bot.node).sync()


@pytest.mark.parametrize("how", list(END))
def test_the_channels_change_hands_when_the_predecessor_is_gone(hub: Hub, start: Start, how: str) -> None:
    old, new = start(), start(standby=True)
    assert (hub.session("bot"), old.gone, new.session.standby) == (old.session, [], True)
    to_bot, from_bot = channel(hub, "bot-active"), channel(hub, "bot-passive")
    to_bot.send("for the old one")
    channel(new.node, "bot-passive").send("from the new one")
    channel(new.node, "new").send("on a channel that the old one does not know")
    channel(old.node, "bot-passive").send("from the old one")
    assert old.receive() == ("for the old one", False)
    with pytest.raises(ReceiveTimeout):
        channel(new.node, "bot-active").receive(0)
    assert from_bot.receive(DEADLINE) == "from the old one"
    arrived(new)
    with pytest.raises(ReceiveTimeout):
        from_bot.receive(0)
    assert asyncio.run(to_bot.flush(timeout=DEADLINE)) is None
    to_bot.send("not consumed")

    END[how](old)
    assert (hub.session("bot"), new.session.standby) == (new.session, False)
    assert new.receive() == ("not consumed", True)
    assert from_bot.receive(DEADLINE) == "from the new one"
    assert channel(hub, "new").receive(DEADLINE) == "on a channel that the old one does not know"
    to_bot.send("afterwards")
    assert new.receive() == ("afterwards", False)
    channel(new.node, "bot-passive").send("for good")
    assert from_bot.receive(DEADLINE) == "for good"
    assert new.gone == []


def test_a_successor_without_a_predecessor_is_admitted_as_usual(hub: Hub, start: Start) -> None:
    first = start()
    channel(hub, "bot-active").send(1)
    first.kill()
    bot = start(standby=True)
    assert (hub.session("bot"), bot.session.standby) == (bot.session, False)
    assert bot.receive() == (1, True)
    channel(bot.node, "bot-passive").send(2)
    assert channel(hub, "bot-passive").receive(DEADLINE) == 2


def test_a_successor_has_the_shared_memory_at_once(hub: Hub, start: Start) -> None:
    old = start()
    memory(hub).set("before", 1)
    new = start(standby=True)
    assert memory(new.node)["before"] == 1
    memory(hub).set("host", 2)
    memory(old.node).set("old", 3)
    hub.declare("a new channel")
    until(lambda: memory(new.node).get_all() == {"before": 1, "host": 2, "old": 3})
    until(lambda: "a new channel" in new.node.channel_names())
    memory(new.node).set("new", 4)
    assert memory(new.node).incr("before") == 2
    until(lambda: memory(old.node).get_all() == {"before": 2, "host": 2, "old": 3, "new": 4})
    old.kill()
    memory(hub).set("later", 5)
    until(lambda: memory(new.node).get("later") == 5)


def test_each_of_the_two_owns_its_locks_and_ephemeral_keys(hub: Hub, start: Start) -> None:
    old, new = start(), start(standby=True)
    for bot, name in ((old, "old"), (new, "new")):
        memory(bot.node).lock(f"lock of the {name}").__enter__()
        memory(bot.node).set(f"key of the {name}", 1, ephemeral=True)
        memory(bot.node).sync()
    old.kill()
    assert hub.authority.held_locks() == {"lock of the new": "bot#2"}
    assert memory(hub).get_all() == {"key of the new": 1}


def test_a_successor_that_dies_first_takes_only_its_own(hub: Hub, start: Start) -> None:
    old, new = start(), start(standby=True)
    subscribe("news", exchange=old.node)(print)
    memory(old.node).lock("old").__enter__()
    memory(new.node).lock("new").__enter__()
    memory(new.node).set("ephemeral", 1, ephemeral=True)
    for number in range(3):
        channel(new.node, "bot-passive").send(number)
    channel(new.node, "only the new one uses it").send(1)
    subscribe("weather", exchange=new.node)(print)
    arrived(new)
    with logged() as lines:
        new.leave()
    why = "(the new bot that sent it ended before it took over)"
    assert sorted(lines) == [
        f"WARNING bot-passive: 3 messages lost {why}",
        f"WARNING only the new one uses it: 1 message lost {why}",
    ]
    assert hub.authority.held_locks() == {"old": "bot#1"}
    assert "ephemeral" not in memory(hub)
    assert hub.subscribers.counts() == {"news": 1}
    assert hub.session("bot") is old.session
    assert "only the new one uses it" not in hub.channel_names()
    channel(hub, "bot-active").send("still")
    assert old.receive() == ("still", False)
    channel(old.node, "bot-passive").send("here")
    assert channel(hub, "bot-passive").receive(DEADLINE) == "here"
    third = start(standby=True)
    old.kill()
    assert hub.session("bot") is third.session


def test_a_second_successor_takes_the_place_of_the_first(hub: Hub, start: Start) -> None:
    old, first = start(), start(standby=True)
    memory(first.node).set("ephemeral", 1, ephemeral=True)
    channel(first.node, "bot-passive").send("from the first")
    arrived(first)
    with logged() as lines:
        second = start(standby=True)
        first.session.link.join(DEADLINE)
        first.node.wait_detached(DEADLINE)
    cause = "another new incarnation of bot has come before this one took over"
    assert (first.gone, first.listener.closed) == ([cause], [cause])
    assert any("bot-passive: 1 message lost (the new bot that sent it ended before" in line for line in lines)
    assert "ephemeral" not in memory(hub)
    assert (hub.session("bot"), old.gone, second.session.standby) == (old.session, [], True)
    old.kill()
    assert hub.session("bot") is second.session
    channel(hub, "bot-active").send(1)
    assert second.receive() == (1, False)


def test_who_comes_without_waiting_replaces_both(hub: Hub, start: Start) -> None:
    old, waiting = start(), start(standby=True)
    channel(waiting.node, "bot-passive").send("from the one that waited")
    arrived(waiting)
    newest = start()
    waiting.session.link.join(DEADLINE)
    assert waiting.listener.closed == ["another new incarnation of bot has come before this one took over"]
    assert hub.session("bot") is newest.session
    channel(hub, "bot-active").send(1)
    assert newest.receive() == (1, False)
    old.kill()
    assert hub.session("bot") is newest.session
    with pytest.raises(ReceiveTimeout):
        channel(hub, "bot-passive").receive(0)


async def test_topics_change_hands_too(hub: Hub, start: Start) -> None:
    got: list[tuple[str, Any]] = []
    old, new = start(), start(standby=True)

    def listen(bot: Bot, who: str, topic: str) -> Callable[[Any], None]:
        def note(data: Any) -> None:
            got.append((who, data))

        subscribe(topic, exchange=bot.node)(note)
        return note

    async with loops(old.node, new.node):
        listen(old, "old", "news")
        listen(new, "new", "news")
        unwanted = listen(new, "new", "unwanted")
        regained = listen(new, "new", "regained")
        unsubscribe("unwanted", unwanted, exchange=new.node)
        unsubscribe("regained", regained, exchange=new.node)
        listen(new, "new", "regained")
        for bot in (old, new):
            await asyncio.to_thread(arrived, bot)
        assert hub.subscribers.counts() == {"news": 1}
        publish("news", 1, exchange=hub)
        await eventually(lambda: got == [("old", 1)])
        publish("news", 2, exchange=new.node)  # it may speak; only listening has to wait
        await eventually(lambda: got == [("old", 1), ("old", 2)])
        await asyncio.to_thread(old.kill)
        assert hub.subscribers.counts() == {"news": 1, "regained": 1}
        for topic in ("unwanted", "regained", "news"):
            publish(topic, topic, exchange=hub)
        await eventually(lambda: sorted(got[2:]) == [("new", "news"), ("new", "regained")])


async def test_early_requests_are_answered_after_the_turn_has_come(hub: Hub, start: Start) -> None:
    old, new = start(), start(standby=True)
    channel(hub, "bot-passive").on_receive()(lambda data: f"answer to {data}")
    channel(new.node, "bot-active").on_receive()(lambda data: f"the new one's {data}")
    async with loops(hub, new.node):
        early = asyncio.create_task(channel(new.node, "bot-passive").request("early"))
        lost = asyncio.create_task(channel(hub, "bot-active").request("asked the old one"))
        await eventually(lambda: channel(old.node, "bot-active").statistics().waiting_to_be_read)
        assert await channel(old.node, "bot-passive").request("from the old one") == "answer to from the old one"
        await asyncio.to_thread(arrived, new)
        assert not early.done()
        await asyncio.to_thread(old.kill)
        with pytest.raises(ChannelBroken):
            await lost
        assert await early == "answer to early"
        assert await channel(hub, "bot-active").request("turn") == "the new one's turn"


def test_the_window_bounds_what_is_kept(start: Start) -> None:
    window, count = 16 * 1024, 200
    with connected_pair("bot", window=window) as pair:
        new = Bot(pair.host, standby=True)
        line = channel(new.node, "bot-passive")
        sender = threading.Thread(target=lambda: [line.send(number) for number in range(count)], daemon=True)
        sender.start()
        room = window // 257  # each number costs 257 to 259 bytes
        until(lambda: line.statistics().waiting_to_be_consumed >= room - 1)
        arrived(new)
        stream = new.session.link.connection.table.find("channel", "bot-passive")
        assert stream is not None
        assert (stream.consumed, stream.received <= window) == (0, True)
        assert sender.is_alive()
        pair.cut()
        received = channel(pair.host, "bot-passive")
        assert [received.receive(DEADLINE) for _ in range(count)] == list(range(count))
        sender.join(DEADLINE)
        assert not sender.is_alive()
        new.node.reset()


def test_a_channel_between_two_children_changes_hands() -> None:
    with connected_pair("bot") as pair:
        other = Child(pair, "other")
        try:
            old, away = pair.child_channel("between"), channel(other.node, "between")
            old.send("hello")
            assert away.receive(DEADLINE) == "hello"
            new = Bot(pair.host, standby=True)
            line = channel(new.node, "between")
            line.send("from the new one")
            away.send("consumed")
            assert old.receive(DEADLINE) == "consumed"
            asyncio.run(away.flush(timeout=DEADLINE))
            asyncio.run(pair.child_channel("bot-passive").flush(timeout=DEADLINE))
            pair.child_memory.sync()
            away.send("not consumed")
            until(lambda: old.statistics().waiting_to_be_read == 1)
            arrived(new)
            with pytest.raises(ReceiveTimeout):
                away.receive(0)
            pair.cut()
            assert new.receive("between")[0] == "not consumed"
            assert away.receive(DEADLINE) == "from the new one"
            away.send("for good")
            assert new.receive("between") == ("for good", False)
            new.node.reset()
        finally:
            other.node.reset()


def test_a_channel_that_is_taken_meanwhile_is_refused_at_the_turn() -> None:
    with connected_pair("bot") as pair:
        first, second = Child(pair, "first"), Child(pair, "second")
        new = Bot(pair.host, standby=True)
        line = channel(new.node, "theirs")
        line.send("too late")
        arrived(new)
        channel(first.node, "theirs").send(1)
        memory(first.node).sync()  # it is the first end
        assert channel(second.node, "theirs").receive(DEADLINE) == 1
        with logged() as lines:
            pair.cut()
            until(lambda: [x for x in lines if "theirs: 1 message lost (channel 'theirs' already joins first and" in x])
        [stream] = [s for s in new.session.link.connection.streams.values() if s.key == ("channel", "theirs")]
        assert (stream.received > 0, stream.consumed) == (True, 0)  # granted, it would count as consumed there
        with pytest.raises(ChannelTaken):
            line.send(1)
        for node in (new.node, first.node, second.node):
            node.reset()


@pytest.mark.parametrize("how", list(END))
def test_messages_take_short_ways_after_the_takeover(hub: Hub, start: Start, how: str) -> None:
    """Before it, each one has to be looked at by the session, which may have to keep it."""
    old, new = start(), start(standby=True)
    assert (old.session.link.settled, new.session.link.settled) == (True, False)
    END[how](old)
    assert new.session.link.settled
    channel(new.node, "bot-passive").send("now it goes straight through")
    assert channel(hub, "bot-passive").receive(DEADLINE) == "now it goes straight through"


def test_a_successor_that_does_not_read_stops_no_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child's writes used to wait for a frozen process as long as nobody else wrote."""
    monkeypatch.setattr("liteyuki_host.hub.laggards.LAG_SECONDS", 0.2)
    with connected_pair("bot", window=16 * 1024) as pair:
        ours, theirs = memory_link(4096)
        listener = Listener()
        session = pair.host.connect("bot", ours, listener, standby=True)
        theirs.write_all([encode_frame(Kind.CONTROL, m.encode_message(m.Hello(m.PROTOCOL_VERSION, "bot", 1)))])
        until(lambda: pair.host.roster.standbys.get("bot"))
        serving = pair.host.session("bot")

        async def write() -> None:
            for number in range(50):  # as much as 12 windows
                await pair.child_memory.aset("key", f"{number}{'x' * 4000}")
            await pair.child_memory.async_()

        with logged() as lines:
            asyncio.run(asyncio.wait_for(write(), DEADLINE))
            until(lambda: listener.closed)
            session.link.join(DEADLINE)
        assert len([line for line in lines if "child bot has not read its link for a long time" in line]) == 1
        assert listener.closed == ["it does not read its link"]
        assert pair.host.session("bot") is serving
        assert serving is not None
        assert serving.store.received == serving.store.consumed, "all credit has been given back"
        assert pair.child.attached


def test_the_end_of_the_host_reaches_who_waits(hub: Hub, start: Start) -> None:
    old, new = start(), start(standby=True)
    hub.close("the host ends")
    for bot in (old, new):
        bot.node.wait_detached(DEADLINE)
        assert (bot.gone, bot.listener.closed) == (["the host ends"], ["the host ends"])
    assert hub.session("bot") is None


def test_a_predecessor_that_ends_during_the_greeting(hub: Hub, start: Start) -> None:
    """Whichever is first, the new one has the channels afterwards, and what the old one left."""
    to_bot, from_bot = channel(hub, "bot-active"), channel(hub, "bot-passive")
    old = start()
    with pytest.raises(ReceiveTimeout):
        channel(old.node, "bot-active").receive(0)
    for number in range(50):
        new = start(standby=True, attach=False)
        to_bot.send(number)
        ends = threading.Thread(target=old.kill, daemon=True)
        ends.start()
        new.attach()
        ends.join(DEADLINE)
        assert (hub.session("bot"), new.session.standby) == (new.session, False)
        assert new.receive()[0] == number
        channel(new.node, "bot-passive").send(number)
        assert from_bot.receive(DEADLINE) == number
        asyncio.run(to_bot.flush(timeout=DEADLINE))
        old = new


def test_both_end_at_once(hub: Hub, start: Start) -> None:
    """Nothing of either stays, and what the new one sent is delivered as a whole or reported as a whole."""
    from_bot = channel(hub, "bot-passive")
    for number in range(50):
        old, new = start(), start(standby=True)
        if number:
            assert old.receive("bot-passive") == (number - 1, False), "nothing of the host's went to the dead"
        subscribe("news", exchange=new.node)(print)
        memory(new.node).set("ephemeral", 1, ephemeral=True)
        for part in range(3):
            channel(new.node, "bot-passive").send((number, part))
        arrived(new)
        with logged() as lines:
            ends = threading.Thread(target=old.kill, daemon=True)
            ends.start()
            new.kill()
            ends.join(DEADLINE)
            assert not ends.is_alive()
            hub.losses.flush()
        assert (hub.session("bot"), hub.roster.standbys.get("bot"), hub.subscribers.counts(), hub.view) == (
            None,
            None,
            {},
            {},
        )
        from_bot.send(number)
        reported = [line for line in lines if "3 messages lost (the new bot that sent it ended before" in line]
        if not reported:
            assert [from_bot.receive(DEADLINE) for _ in range(3)] == [[number, part] for part in range(3)]
        with pytest.raises(ReceiveTimeout):
            from_bot.receive(0)


def test_answers_need_no_turn() -> None:
    """Who answers has been asked, so its turn has come; kept, answers would have no bound."""
    standby = Standby()
    assert standby.keep_message(Stream(3, ("channel", "x")), [b"1"], 0, 0)
    assert not standby.keep_message(Stream(3, ("channel", "x")), [b"1"], Flag.REPLY, 7)
    assert not standby.keep_message(Stream(5, ("topic", "x")), [b"1"], 0, 0)
    assert standby.given_up() == {"x": 1}


def test_what_arrives_during_the_takeover_waits_for_what_was_kept() -> None:
    stream, standby = Stream(3, ("channel", "x")), Standby()
    done: list[str] = []

    def arrive() -> None:
        assert not standby.keep_message(stream, [b"late"], 0, 0)
        done.append("late")

    class Slow:
        """Something arrives while it does what was kept."""

        link = threading.Thread(target=arrive, daemon=True)

        def open(self, stream: Stream) -> None:
            self.link.start()
            self.link.join(0.1)
            stream.receiver = self
            done.append(stream.key[1])

        def deliver(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
            done.append(payloads[0].decode())

    assert standby.keep_wish(stream, True)
    for payload in (b"first", b"second"):
        assert standby.keep_message(stream, [payload], 0, 0)
    standby.end(Slow())
    Slow.link.join(DEADLINE)
    assert done == ["x", "first", "second", "late"]
    assert not standby.keep_wish(stream, True)


@pytest.mark.parametrize("how", list(END))
def test_a_slow_reader_misses_nothing_at_the_turn(how: str) -> None:
    """What the old one had room for is less than a window. The host counted messages that it had read, too, and gave
    the oldest unread ones up."""

    async def fill(line: Any, numbers: Iterator[int]) -> int:
        """Send until there is no room: on an event loop, so that many messages arrive at once."""
        for number in numbers:
            try:
                line.send(number)
            except ChannelFull:
                return number
        raise AssertionError

    hub = Hub(window=10 * 256)  # nine messages
    hub.declare_process("bot")
    to_host = channel(hub, "bot-active")
    old, new = Bot(hub, standby=False), Bot(hub, standby=True)
    try:
        line = channel(old.node, "bot-active")
        first = asyncio.run(fill(line, itertools.count()))
        arrived(old)
        got = [to_host.receive(DEADLINE) for _ in range(first - 1)]  # one is left of those that arrived at once
        until(lambda: line.statistics().waiting_to_be_consumed == 1)
        second = asyncio.run(fill(line, itertools.count(first)))
        arrived(old)
        END[how](old)
        assert to_host.statistics().lost == 0
        channel(new.node, "bot-active").send(second)
        got += [to_host.receive(DEADLINE) for _ in range(second + 1 - len(got))]
        assert got == list(range(second + 1))
    finally:
        old.node.reset()
        new.node.reset()
        hub.close("the test is over")


# --- everything at once ----------------------------------------------------------------------------------------


class BusyBot(Bot):
    """Sends and receives on both channels, without a pause, from before its turn until its end."""

    def __init__(self, hub: Hub, number: int, *, standby: bool) -> None:
        super().__init__(hub, standby=standby, attach=False)
        self.number = number
        self.got: dict[str, list[tuple[int, bool]]] = {name: [] for name in NAMES}
        self.accepted = Counter[str]()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._receivers = [threading.Thread(target=self._receive, args=(name,), daemon=True) for name in NAMES]

    def work(self) -> None:
        self.attach()
        for thread in (self._sender, *self._receivers):
            thread.start()

    def end(self, how: str) -> None:
        if how == "goodbye":  # in the middle of sending
            self.leave()
        else:
            self.kill()
        for thread in (self._sender, *self._receivers):
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def lost(self, name: str) -> int:
        return channel(self.node, name).statistics().lost

    def _send(self) -> None:
        with contextlib.suppress(LycommError):
            while True:
                for name in NAMES:
                    channel(self.node, name).send((self.number, self.accepted[name]))
                    self.accepted[name] += 1

    def _receive(self, name: str) -> None:
        line = channel(self.node, name)
        for number in line:
            self.got[name].append((number, line.redelivered))


NAMES = ("bot-active", "bot-passive")
TAKEOVERS = 200


class BusyHost:
    """The other side of it."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.accepted = Counter[str]()
        self.got: dict[str, list[tuple[int, int]]] = {name: [] for name in NAMES}
        self._ending = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._receivers = [threading.Thread(target=self._receive, args=(name,), daemon=True) for name in NAMES]
        for thread in (self._sender, *self._receivers):
            thread.start()

    def end_sending(self) -> None:
        self._ending.set()
        self._sender.join(DEADLINE)
        assert not self._sender.is_alive()

    def heard_last(self, name: str) -> int | None:
        """Number of the incarnation that sent what was received last."""
        got = self.got[name]
        return got[-1][0] if got else None

    def join(self) -> None:
        for thread in self._receivers:
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def _send(self) -> None:
        while not self._ending.is_set():
            for name in NAMES:
                channel(self.hub, name).send(self.accepted[name])
                self.accepted[name] += 1

    def _receive(self, name: str) -> None:
        for who, number in channel(self.hub, name):
            self.got[name].append((who, number))


def test_two_hundred_takeovers_under_load_lose_and_double_nothing() -> None:
    chance = random.Random(20261123)
    hub = Hub(window=4 * 1024)  # 15 messages: also what waits for room has to change hands
    hub.declare_process("bot")
    host = BusyHost(hub)
    bots = [BusyBot(hub, 0, standby=False)]
    serving = bots[0]
    serving.work()
    served = {0}
    goodbyes: set[int] = set()
    while len(served) <= TAKEOVERS:
        new = BusyBot(hub, len(bots), standby=True)
        bots.append(new)
        how = chance.choice(("goodbye", "killed"))
        moment = chance.choice(("after", "after", "during", "dies"))
        if moment != "during":
            new.work()
        if moment == "dies":
            new.end("killed")
            assert hub.session("bot") is serving.session
            continue
        ends = threading.Thread(target=serving.end, args=(how,), daemon=True)
        ends.start()
        if moment == "during":
            new.work()
        ends.join(DEADLINE)
        assert not ends.is_alive()
        if how == "goodbye":
            goodbyes.add(serving.number)
        assert hub.session("bot") is new.session
        served.add(new.number)
        serving = new
        until(lambda bot=new: all(bot.got[name] for name in NAMES))  # a message first in line three times is given up
        # So the host has read what the ones before had left. Two windows of that would be more than is kept.
        until(lambda bot=new: all(host.heard_last(name) == bot.number for name in NAMES))

    host.end_sending()
    for name in NAMES:
        asyncio.run(channel(hub, name).flush(timeout=DEADLINE))
    goodbyes.add(serving.number)
    serving.end("goodbye")
    until(lambda: all((serving.number, serving.accepted[name] - 1) in host.got[name][-1:] for name in NAMES))
    hub.close("the test is over")
    host.join()
    for bot in bots:
        bot.node.reset()
    for name in NAMES:
        assert channel(hub, name).statistics().lost == 0
        received_once_or_marked(name, host, bots)
        sent_in_order_and_once(name, host, bots, served, goodbyes)


def received_once_or_marked(name: str, host: BusyHost, bots: list[BusyBot]) -> None:
    """What the host sent: every number, in order in each incarnation, and at most once without the mark."""
    plain = Counter[int]()
    numbers: set[int] = set()
    for bot in bots:
        own = [number for number, _ in bot.got[name]]
        assert own == sorted(set(own))
        numbers.update(own)
        plain.update(number for number, marked in bot.got[name] if not marked)
    assert numbers == set(range(host.accepted[name]))
    assert set(plain.values()) == {1}


def sent_in_order_and_once(
    name: str, host: BusyHost, bots: list[BusyBot], served: set[int], goodbyes: set[int]
) -> None:
    """What the incarnations sent: each one's from the beginning, without a gap, one incarnation after the other."""
    got: dict[int, list[int]] = {}
    for who, number in host.got[name]:
        got.setdefault(who, []).append(number)
    assert list(got) == sorted(got)
    assert [who for who, _ in host.got[name]] == sorted(who for who, _ in host.got[name])
    assert set(got) <= served  # of a successor that died before its turn, nothing
    for bot in bots:
        own = got.get(bot.number, [])
        assert own == list(range(len(own)))
        if bot.number in goodbyes:
            assert len(own) + bot.lost(name) == bot.accepted[name]  # put off by a busy machine, it may be too late
        elif bot.number in served:  # killed: the rest is what it reports itself, with what was not confirmed yet
            assert len(own) + bot.lost(name) >= bot.accepted[name]


def test_pairs_of_the_kit_know_nothing_of_it() -> None:
    """Who connects without ``standby`` replaces the one before, as ever."""
    with connected_pair("bot") as pair:
        assert isinstance(pair, Pair)
        before = pair.host.session("bot")
        first, pair.child = pair.child, Node()
        pair.connect()
        assert pair.host.session("bot") is not before
        first.detach("late")
