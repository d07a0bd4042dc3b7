"""/restart and /status: who may, what is answered, and that the restart is reported once it is done."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import nonebot
import pytest
from nonebot.adapters.onebot.v11 import Bot
from nonebot.matcher import Matcher
from nonebug import App

from liteyuki_host.comm.testing import Pair
from nonebot_plugin_lycomm import commands, shared_memory, texts
from nonebot_plugin_lycomm.pending import EXPIRES_AFTER, PendingReply, key_of
from tests.plugin.support import SUPERUSER, Logged, RecordingBot, in_group, in_private

DEADLINE = 5.0
KEY = key_of("nonebot")
STRANGER = SUPERUSER + 1


PROCESSES = [
    {"name": "nonebot", "state": "ready", "pid": 5, "uptime": 60.0, "restarts": 1}
    | {"last_exit": None, "address": None},
    {"name": "bot2", "state": "stopped", "pid": None, "uptime": None, "restarts": 0}
    | {"last_exit": None, "address": None},
]


class HostSide:
    """The host behind the in-memory link: it supervises two processes, on paper."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.asked: list[tuple[str, str | None]] = []
        self.refuses: str | None = None
        self.pending_when_asked: Any = None
        self._restart_asked = threading.Event()
        pair.host.on_control = self._control

    def _control(self, session: Any, request: Any) -> None:
        """On the link's thread, as in a real host."""
        self.asked.append((request.verb, request.process))
        self.pending_when_asked = self.pair.host_memory.get(KEY)
        session.reply_control(request.id, value=PROCESSES if request.verb == "status" else None, error=self.refuses)
        if request.verb == "restart":
            self._restart_asked.set()

    async def wait_for_restart(self) -> None:
        assert await asyncio.to_thread(self._restart_asked.wait, DEADLINE), self.asked


@pytest.fixture
def host(lycomm_pair: Pair) -> HostSide:
    return HostSide(lycomm_pair)


@pytest.fixture(autouse=True)
async def _no_pending_reply(app: App) -> AsyncIterator[None]:
    await shared_memory.adelete(KEY)
    yield
    await shared_memory.adelete(KEY)


def matcher_of(handler: Any) -> type[Matcher]:
    plugin = nonebot.get_plugin("nonebot_plugin_lycomm")
    assert plugin is not None
    (matcher,) = [matcher for matcher in plugin.matcher if matcher.handlers[0].call is handler]
    return matcher


async def says(app: App, event: Any, *answers: str, finished: bool = True) -> None:
    """The bot answers this message with exactly these messages."""
    async with app.test_matcher() as ctx:
        bot = ctx.create_bot(base=Bot, adapter=nonebot.get_adapter("OneBot V11"), auto_connect=False)
        ctx.receive_event(bot, event)
        for answer in answers:
            ctx.should_call_send(event, answer, bot=bot)
        if finished and answers:
            ctx.should_finished()


# Who may, and what counts as the command.


@pytest.mark.parametrize("handler", [commands.restart, commands.status], ids=["restart", "status"])
async def test_only_a_superuser_may(app: App, handler: Any) -> None:
    matcher = matcher_of(handler)
    text = "/restart" if handler is commands.restart else "/status"
    async with app.test_matcher(matcher) as ctx:
        bot = ctx.create_bot(base=Bot, adapter=nonebot.get_adapter("OneBot V11"), auto_connect=False)
        for event in (in_group(text, user_id=STRANGER), in_private(text, user_id=STRANGER)):
            ctx.receive_event(bot, event)
            ctx.should_not_pass_permission(matcher)


@pytest.mark.parametrize(
    ("text", "is_command"),
    [
        ("/restart", True),
        ("/重启", True),
        ("/restart bot2", True),
        ("/restarting", False),
        ("/restart2", False),
        ("restart", False),
        ("please /restart", False),
    ],
)
async def test_what_counts_as_the_restart_command(app: App, text: str, is_command: bool) -> None:
    matcher = matcher_of(commands.restart)
    async with app.test_matcher(matcher) as ctx:
        bot = ctx.create_bot(base=Bot, adapter=nonebot.get_adapter("OneBot V11"), auto_connect=False)
        # From a stranger: the rule is looked at, the command is not run.
        ctx.receive_event(bot, in_group(text, user_id=STRANGER))
        ctx.should_ignore_permission(matcher)
        if is_command:
            ctx.should_pass_rule(matcher)
            ctx.should_call_send(ctx.event_list[-1][0].event, texts.NO_HOST, bot=bot)
        else:
            ctx.should_not_pass_rule(matcher)


def test_the_commands_come_first_and_stop_there() -> None:
    for handler in (commands.restart, commands.status):
        matcher = matcher_of(handler)
        assert (matcher.priority, matcher.block) == (0, True)


# Without a host.


@pytest.mark.parametrize("text", ["/restart", "/restart bot2", "/重启"])
@pytest.mark.parametrize("event", [in_group, in_private], ids=["group", "private"])
async def test_restart_without_a_host_says_so(app: App, text: str, event: Any) -> None:
    await says(app, event(text), texts.NO_HOST)
    assert shared_memory.get(KEY) is None


async def test_status_without_a_host_says_so_and_shows_what_is_known_here(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_LOADED_AT", time.monotonic() - 3661)
    shared_memory.set("plugin test", 1)
    lines = [
        texts.NO_HOST,
        f"本进程 / this process: PID {os.getpid()} · 运行 / up 1:01:01",
        f"NoneBot {nonebot.__version__} · Python {platform.python_version()}",
        "机器人 / bots: -",
        f"共享内存 / shared memory: {len(shared_memory)} 项 / keys",
    ]
    await says(app, in_group("/status"), "\n".join(lines))
    shared_memory.delete("plugin test")


# With a host.


async def test_status_shows_what_the_host_knows(app: App, host: HostSide) -> None:
    lines = [
        "进程 / processes",
        "nonebot: 就绪 / ready",
        "  PID 5 · 运行 / up 0:01:00 · 重启 / restarts 1",
        "bot2: 已停止 / stopped",
        "  重启 / restarts 0",
    ]
    await says(app, in_private("/status"), "\n".join(lines))


async def test_status_of_a_host_that_refuses_says_why(app: App, host: HostSide) -> None:
    host.refuses = "shutting down"
    await says(app, in_group("/状态"), "未能完成 / failed: shutting down")


@pytest.mark.parametrize("event", [in_group("/restart"), in_private("/重启")], ids=["group", "private"])
async def test_restart_stores_who_asked_then_says_so_then_asks_the_host(app: App, host: HostSide, event: Any) -> None:
    before = time.time()
    await says(app, event, texts.RESTARTING, finished=False)
    await host.wait_for_restart()
    assert host.asked == [("restart", "nonebot")]
    reply = PendingReply.from_value(host.pending_when_asked)
    assert reply.rebuild_event() == event
    assert before <= reply.asked_at <= time.time()


async def test_its_own_name_is_the_same_as_none(app: App, host: HostSide) -> None:
    await says(app, in_group("/restart nonebot"), texts.RESTARTING, finished=False)
    await host.wait_for_restart()
    assert host.asked == [("restart", "nonebot")]
    assert host.pending_when_asked is not None


async def test_another_process_can_be_named(app: App, host: HostSide) -> None:
    await says(app, in_group("/restart  bot2 "), "正在重启 bot2 / restarting bot2")
    assert host.asked == [("status", None), ("restart", "bot2")]
    assert host.pending_when_asked is None, "this process does not restart, so nobody waits for it"


async def test_an_unknown_process_is_named_together_with_the_known_ones(app: App, host: HostSide) -> None:
    said = "没有名为 bot3 的进程，现有：nonebot, bot2 / no process named bot3; there are: nonebot, bot2"
    await says(app, in_group("/restart bot3"), said)
    assert host.asked == [("status", None)]


async def test_what_the_host_refuses_is_reported(app: App, host: HostSide) -> None:
    host.refuses = "shutting down"
    await says(app, in_group("/restart bot2"), "未能完成 / failed: shutting down")


async def test_a_chat_that_cannot_be_written_to_does_not_stop_the_restart(
    app: App, host: HostSide, bot: RecordingBot, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    async def muted(event: Any, message: Any, **kwargs: Any) -> None:
        raise RuntimeError("muted in this group")

    monkeypatch.setattr(bot, "send", muted)
    await bot.handle_event(in_group("/restart"))
    await host.wait_for_restart()
    assert len(logged.containing("muted in this group")) == 1


async def test_an_event_that_has_no_json_form_does_not_stop_the_restart(
    app: App, host: HostSide, bot: RecordingBot, logged: Logged
) -> None:
    event = in_group("/restart")
    event.extra = object()  # type: ignore[attr-defined]
    await bot.handle_event(event)
    await host.wait_for_restart()
    assert [text for _, text in bot.sent] == [texts.RESTARTING]
    assert host.pending_when_asked is None
    assert len(logged.containing("nobody will be told")) == 1


# After the restart.


async def pending(bot: Bot, asked: Any, *, seconds_ago: float = 3.0, **changes: Any) -> None:
    reply = PendingReply.to(bot, asked, asked_at=time.time() - seconds_ago)
    await shared_memory.aset(KEY, reply.to_value() | changes)


def connect(bot: Bot) -> None:
    bot.adapter.bot_connect(bot)


@pytest.fixture
async def connected(bot: RecordingBot) -> AsyncIterator[RecordingBot]:
    yield bot
    if bot.self_id in bot.adapter.bots:
        bot.adapter.bot_disconnect(bot)


@pytest.mark.parametrize("event", [in_group("/restart", group_id=7), in_private("/restart")], ids=["group", "private"])
async def test_who_asked_is_told_in_the_same_chat_when_their_bot_is_back(
    app: App, connected: RecordingBot, event: Any
) -> None:
    await pending(connected, event, seconds_ago=3.14)
    connect(connected)
    await asyncio.wait_for(connected.sent_one.wait(), DEADLINE)
    ((answered, text),) = connected.sent
    assert answered == event
    assert re.fullmatch(r"已重启，用时 (\d\.\d) 秒 / restarted, took \1 s", text), text
    assert "3." in text
    assert shared_memory.get(KEY) is None


async def test_the_next_incarnation_of_the_process_answers(app: App, host: HostSide, connected: RecordingBot) -> None:
    event = in_group("/restart")
    await connected.handle_event(event)
    await host.wait_for_restart()
    host.pair.child.reset()
    assert shared_memory.get(KEY) is None, "this is a new process; it knows nothing yet"
    host.pair.connect()
    connected.sent.clear()
    connected.sent_one.clear()
    connect(connected)
    await asyncio.wait_for(connected.sent_one.wait(), DEADLINE)
    ((answered, text),) = connected.sent
    assert answered == event
    assert text.startswith("已重启，用时 ")
    await shared_memory.async_()
    assert host.pair.host_memory.get(KEY) is None


async def test_it_is_told_once(app: App, bot: RecordingBot) -> None:
    await pending(bot, in_group("/restart"))
    await asyncio.gather(*(commands.answer_after_restart(bot) for _ in range(10)))
    assert len(bot.sent) == 1


async def test_another_bot_leaves_it_for_the_one_that_was_asked(app: App, bot: RecordingBot, logged: Logged) -> None:
    other = RecordingBot(bot.adapter, "10002")
    await pending(bot, in_group("/restart"))
    await commands.answer_after_restart(other)
    assert other.sent == []
    await commands.answer_after_restart(bot)
    assert len(bot.sent) == 1
    assert logged.containing("ERROR") == []


async def test_a_request_older_than_ten_minutes_is_dropped_with_a_line(
    app: App, bot: RecordingBot, logged: Logged
) -> None:
    assert EXPIRES_AFTER == 600
    await pending(bot, in_group("/restart"), seconds_ago=601)
    await commands.answer_after_restart(bot)
    assert bot.sent == []
    assert shared_memory.get(KEY) is None
    (line,) = logged.containing("too long")
    assert line.startswith("INFO a restart was asked for 601 s ago")


@pytest.mark.parametrize(
    "changes",
    [{"event_class": "os:getcwd"}, {"event_class": "no_such_adapter:Event"}, {"event": "{}"}],
    ids=["no event class", "adapter gone", "bad json"],
)
async def test_a_reply_that_cannot_be_rebuilt_is_logged_and_never_tried_again(
    app: App, bot: RecordingBot, logged: Logged, changes: dict[str, Any]
) -> None:
    await pending(bot, in_group("/restart"), **changes)
    await commands.answer_after_restart(bot)
    await commands.answer_after_restart(bot)
    assert bot.sent == []
    assert len(logged.containing("could not tell whoever asked")) == 1


async def test_something_else_under_the_key_is_logged_and_removed(app: App, bot: RecordingBot, logged: Logged) -> None:
    await shared_memory.aset(KEY, "somebody else's value")
    await commands.answer_after_restart(bot)
    await commands.answer_after_restart(bot)
    assert len(logged.containing("not a pending reply")) == 1
    assert shared_memory.get(KEY) is None


async def test_nothing_is_said_when_nobody_asked(app: App, bot: RecordingBot, logged: Logged) -> None:
    await commands.answer_after_restart(bot)
    assert bot.sent == []
    assert logged == []
