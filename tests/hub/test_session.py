"""The table of a session's handlers, by type of control message."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "comm"))
from pair_kit import DEADLINE, until

from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.protocol.frames import Kind, encode_frame
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.hub import Hub, Session, SessionListener

ANSWERED_BY_THE_LINK = {m.Close, m.Closed, m.CloseRefused, m.Hello, m.Goodbye, m.Ping, m.Open, m.OpenRefused}
ABOUT_TOPICS = {m.Subscribe, m.Unsubscribe}  # their effect is tested with the topics
SENT_BY_A_HOST_ALONE = {m.Stop, m.ControlReply, m.WatchLoop, m.Drain, m.DumpStacks}

HEARD: dict[type[m.Message], tuple[m.Message, str, tuple[Any, ...]]] = {
    m.HooksDone: (m.HooksDone(["OneBot V11"], ["weather"]), "on_hooks_done", (["OneBot V11"], ["weather"])),
    m.Ready: (m.Ready("http://127.0.0.1:1", {"a": "b"}), "on_ready", ("http://127.0.0.1:1", {"a": "b"})),
    m.Beat: (m.Beat(0.25), "on_beat", (0.25,)),
    m.Pong: (m.Pong(0), "on_pong", ()),
    m.MoreTime: (m.MoreTime(3.0, "why"), "on_more_time", (3.0, "why")),
    m.Drained: (m.Drained(["slow"], 2, 3), "on_drained", (["slow"], 2, 3)),
    m.ShutdownWork: (m.ShutdownWork(True), "on_shutdown_work", (True,)),
    m.OwnExit: (m.OwnExit("bot.py line 3"), "on_own_exit", ("bot.py line 3",)),
    m.CannotStart: (m.CannotStart("no such file"), "on_cannot_start", ("no such file",)),
    m.ControlRequest: (m.ControlRequest(7, "restart", "bot"), "on_control", (7, "restart", "bot")),
}
"""By type: a message, and what the supervisor hears of it."""


class Noting(SessionListener):
    """Notes the calls of its methods as (name, arguments)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *arguments: self.calls.append((name, arguments))
        return super().__getattribute__(name)


def test_every_control_message_has_its_place() -> None:
    places = set(HEARD) | ABOUT_TOPICS | ANSWERED_BY_THE_LINK | SENT_BY_A_HOST_ALONE
    assert places == set(get_args(m.Control))


@pytest.mark.parametrize("kind", list(HEARD), ids=lambda kind: kind.__name__)
def test_a_control_message_reaches_its_handler(kind: type[m.Message]) -> None:
    hub, listener = Hub(), Noting()
    hub.declare_process("bot")

    def control(session: Session, request: m.ControlRequest) -> None:
        listener.calls.append(("on_control", (request.id, request.verb, request.process)))

    hub.on_control = control
    ours, theirs = memory_link()
    session = hub.connect("bot", ours, listener)
    message, name, arguments = HEARD[kind]
    for said in (m.Hello(m.PROTOCOL_VERSION, "bot", 1), message, m.Beat(99.0)):
        theirs.write_all([encode_frame(Kind.CONTROL, m.encode_message(said))])
    until(lambda: ("on_beat", (99.0,)) in listener.calls)
    assert listener.calls == [("on_hello", (1,)), (name, arguments), ("on_beat", (99.0,))]
    theirs.close()
    session.link.join(DEADLINE)
    hub.close("the test is over")


def test_messages_of_a_host_are_ignored() -> None:
    hub, listener = Hub(), Noting()
    hub.declare_process("bot")
    ours, theirs = memory_link()
    session = hub.connect("bot", ours, listener)
    for said in (m.Hello(m.PROTOCOL_VERSION, "bot", 1), m.Stop("now"), m.Drain(1.0), m.DumpStacks(), m.Beat()):
        theirs.write_all([encode_frame(Kind.CONTROL, m.encode_message(said))])
    until(lambda: len(listener.calls) == 2)
    assert listener.calls == [("on_hello", (1,)), ("on_beat", (0.0,))]
    theirs.close()
    session.link.join(DEADLINE)
    hub.close("the test is over")
