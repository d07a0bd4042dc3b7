"""The plugin takes nobody's commands: names that other plugins have are left to them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nonebot
import pytest
from nonebot import (
    CommandGroup,
    MatcherGroup,
    on_command,
    on_endswith,
    on_fullmatch,
    on_keyword,
    on_message,
    on_regex,
    on_shell_command,
    on_startswith,
)
from nonebot.adapters import Bot
from nonebot.matcher import Matcher
from nonebot.rule import ArgumentParser, TrieRule, fullmatch, to_me
from nonebug import App

from nonebot_plugin_lycomm import texts
from nonebot_plugin_lycomm.others import owner_of
from tests.plugin.support import RecordingBot, in_private

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHAT = Path(__file__).parent / "children" / "chat.py"
OTHER = ["other"]
DEFAULTS = ["/restart", "/重启", "/status", "/状态"]


def chat(folder: Path, *messages: str, environ: dict[str, str] | None = None, **case: Any) -> Chat:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LYCOMM")}
    done = subprocess.run(
        [sys.executable, str(CHAT), json.dumps({**case, "texts": messages})],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | (environ or {}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Chat(json.loads(done.stdout.splitlines()[-1]))


class Chat:
    """What came of it."""

    def __init__(self, result: dict[str, Any]) -> None:
        self._answers = result["answers"]
        self.owners: dict[str, str | None] = result["owners"]
        """Of the texts that were written, as :func:`owner_of` finds them."""
        self.told = [line for line in result["lines"] if line.startswith("chat commands: ")]
        self.other_warnings = [
            line for line in result["lines"] if line not in self.told and not line.startswith("no host: ")
        ]

    def superuser(self, text: str) -> list[str]:
        return ["lycomm" if "no host" in said or "usage: lycomm" in said else said for said in self._answers[text][0]]

    def stranger(self, text: str) -> list[str]:
        return list(self._answers[text][1])


def write_plugin(folder: Path, *matchers: str, name: str = "other", head: str = "") -> None:
    adds = "".join(f"{matcher}.append_handler(answer)\n" for matcher in matchers)
    (folder / f"{name}.py").write_text(
        f"from nonebot import *\n{head}\n"
        "async def answer(matcher: matcher.Matcher):\n"
        f"    await matcher.send('{name}')\n"
        f"{adds}",
        "utf-8",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_status_plugin_keeps_its_commands(folder: Path, order: str) -> None:
    found = chat(folder, "/status", "/状态", "/lycomm status", "/lycomm 状态", "/restart", **{order: [STATUS_PLUGIN]})
    for text in ("/status", "/状态"):
        (said,) = found.superuser(text)
        assert said.startswith("CPU: "), said
    for text in ("/lycomm status", "/lycomm 状态", "/restart"):
        assert found.superuser(text) == ["lycomm"]
    assert found.told == [
        "chat commands: /status, /状态 left to nonebot_plugin_status: use /lycomm status, "
        "or set other names with LYCOMM_STATUS_COMMAND"
    ]
    assert found.other_warnings == []


STATUS_PLUGIN = "nonebot_plugin_status"


def test_a_plugin_that_is_loaded_while_the_bot_runs_gets_its_names_then(folder: Path) -> None:
    write_plugin(folder, "on_command('status', aliases={'状态'})")
    found = chat(folder, "/status", "/status", "/状态", "/restart", later=OTHER)
    assert found.superuser("/status") == found.superuser("/状态") == ["other"]
    assert found.superuser("/restart") == ["lycomm"]
    assert [line.split(":")[1] for line in found.told] == [" /status, /状态 left to other"], "once"
    assert found.other_warnings == []


def test_with_no_other_plugin_all_names_are_ours_and_nothing_is_said(folder: Path) -> None:
    found = chat(folder, *DEFAULTS)
    assert [found.superuser(text) for text in DEFAULTS] == [["lycomm"]] * 4
    assert [found.stranger(text) for text in DEFAULTS] == [[]] * 4
    assert found.told == []


CLAIMS = [
    lambda: on_command("status"),
    lambda: on_command("x", aliases={"status"}),
    lambda: on_command("status", rule=to_me(), priority=99, block=False),
    lambda: on_command("status", force_whitespace=True),
    lambda: on_shell_command("status", parser=ArgumentParser()),
    lambda: on_shell_command("x", aliases={"status"}),
    lambda: CommandGroup("x", prefix_aliases=False).command("y", aliases={"status"}),
    lambda: MatcherGroup(priority=5).on_command("status"),
    lambda: on_fullmatch("/status"),
    lambda: on_fullmatch(("x", "/STATUS"), ignorecase=True),
    lambda: on_startswith("/status"),
    lambda: on_startswith("/STAT", ignorecase=True),
    lambda: on_endswith("status"),
    lambda: on_endswith(("x", "TATUS"), ignorecase=True),
    lambda: on_keyword({"status"}),
    lambda: on_regex("^/status$"),
    lambda: on_regex("^/(STATUS|state)", re.IGNORECASE),
]
OTHER_COMMANDS = [
    lambda: on_command("statusbar"),
    lambda: on_command(("status", "cpu")),
    lambda: on_fullmatch("status"),
    lambda: on_fullmatch("/STATUS"),
    lambda: on_startswith("/statuses"),
    lambda: on_startswith("/status", rule=fullmatch("/status all")),
    lambda: on_regex("^status"),
]
CATCH_ALLS = [
    on_message,
    lambda: on_message(rule=to_me()),
    lambda: on_message(rule=lambda: True),
    lambda: on_startswith("/"),
    lambda: on_keyword({"/", "x"}),
    lambda: on_regex(".*"),
]


@pytest.fixture
def make() -> Iterator[Callable[[Callable[[], Any]], type[Matcher]]]:
    made: list[type[Matcher]] = []

    def make(maker: Callable[[], Any]) -> type[Matcher]:
        made.append(maker())
        return made[-1]

    yield make
    for matcher in made:
        matcher.destroy()


def owner() -> str | None:
    plugin = nonebot.get_plugin("nonebot_plugin_lycomm")
    assert plugin is not None
    return owner_of("/status", control="/lycomm", ours=plugin.matcher)


async def really_answers(matcher: type[Matcher], bot: Bot) -> bool:
    event, state = in_private("/status"), {}
    event.to_me = True
    TrieRule.get_value(bot, event, state)
    return await matcher.check_rule(bot, event, state)


@pytest.mark.parametrize("maker", CLAIMS, ids=range(len(CLAIMS)))
async def test_a_matcher_that_answers_the_name_has_it(app: App, bot: RecordingBot, make: Any, maker: Any) -> None:
    assert await really_answers(make(maker), bot)
    assert owner() == __name__


@pytest.mark.parametrize("maker", OTHER_COMMANDS, ids=range(len(OTHER_COMMANDS)))
async def test_a_matcher_with_another_command_has_not(app: App, bot: RecordingBot, make: Any, maker: Any) -> None:
    assert not await really_answers(make(maker), bot)
    assert owner() is None


@pytest.mark.parametrize("maker", CATCH_ALLS, ids=range(len(CATCH_ALLS)))
async def test_a_matcher_that_answers_everything_has_not(app: App, bot: RecordingBot, make: Any, maker: Any) -> None:
    assert await really_answers(make(maker), bot)
    assert owner() is None


async def test_a_rule_of_another_version_that_cannot_be_read_has_not(app: App, make: Any) -> None:
    matcher = make(lambda: on_keyword({"status"}))
    (checker,) = matcher.rule.checkers
    checker.call.keywords = None
    assert owner() is None


async def test_who_is_gone_has_nothing_any_more(app: App) -> None:
    matcher = on_command("status")
    assert owner() == __name__
    matcher.destroy()
    assert owner() is None


def test_commands_of_alconna_are_known(folder: Path) -> None:
    write_plugin(
        folder,
        "alconna.on_alconna(alconna.Alconna('/status'))",
        "alconna.on_alconna(alconna.Alconna(['/', '!'], 'cpu', alconna.Args['core?', int]))",
        "alconna.on_alconna(alconna.Alconna('re:/(reboot|重启)'))",
        "alconna.on_alconna(alconna.Alconna('/x'), aliases={'/down'})",
        "alconna.on_alconna(alconna.Alconna('up'), use_cmd_start=True, aliases={'high'})",
        "alconna.on_alconna(alconna.Alconna('/disk{letter:str}'))",
        "alconna.on_alconna(alconna.Alconna('restart'))",
        "alconna.on_alconna(alconna.Alconna([int], 'load'))",
        head="require('nonebot_plugin_alconna')\nimport nonebot_plugin_alconna as alconna\n",
    )
    theirs = ["/status", "/cpu", "/重启", "/reboot", "/down", "/up", "/high", "/disks"]
    not_theirs = ["/restart", "/状态", "/load", "/disk"]
    found = chat(folder, *theirs, *not_theirs, after=OTHER)
    assert found.owners == dict.fromkeys(theirs, "other") | dict.fromkeys(not_theirs)
    assert {text: found.superuser(text) for text in theirs} == {text: ["other"] for text in theirs}
    assert {text: found.superuser(text) for text in ("/restart", "/状态")} == {
        "/restart": ["lycomm"],
        "/状态": ["lycomm"],
    }
    (line,) = found.told
    assert line.startswith("chat commands: /重启 left to other: use /lycomm restart")


def test_longer_commands_of_another_plugin_are_left_to_it(folder: Path) -> None:
    write_plugin(
        folder,
        r"on_regex(r'^/status\s+(\S+)$')",
        "on_command('restart server')",
        "on_command(('restart', 'all'))",
        "on_fullmatch('/重启 地图')",
        "on_keyword({'everything'})",
    )
    theirs = ["/status mc.example.org", "/restart server", "/restart server now", "/restart all", "/重启 地图"]
    ours = ["/status", "/restart", "/restart bot2", "/restart servers", "/restart everything", "/lycomm restart server"]
    found = chat(folder, *theirs, *theirs, *ours, settings={"command_sep": [".", " "]}, after=OTHER)
    assert {text: found.superuser(text) for text in theirs} == {text: ["other"] for text in theirs}
    assert {text: found.superuser(text) for text in ours} == {text: ["lycomm"] for text in ours}
    assert [line.partition(", or")[0] for line in found.told] == [
        "chat commands: /status ... left to other: use /lycomm status",
        "chat commands: /restart ... left to other: use /lycomm restart",
        "chat commands: /重启 ... left to other: use /lycomm restart",
    ], "each once"


def test_a_restart_command_of_another_plugin_is_left_to_it_for_everybody(folder: Path) -> None:
    write_plugin(folder, "on_command('重启', aliases={'restart'})")
    found = chat(folder, *DEFAULTS, "/lycomm restart", "/lycomm 重启 bot2", "/lycomm", "/lycomm fly", before=OTHER)
    for text in ("/restart", "/重启"):
        assert (found.superuser(text), found.stranger(text)) == (["other"], ["other"])
    for text in ("/status", "/状态", "/lycomm restart", "/lycomm 重启 bot2", "/lycomm", "/lycomm fly"):
        assert (found.superuser(text), found.stranger(text)) == (["lycomm"], [])
    assert len(found.told) == 1


def test_several_owners_are_one_line(folder: Path) -> None:
    write_plugin(folder, "on_command('status')", name="one")
    write_plugin(folder, "on_command('restart')", name="two")
    found = chat(folder, *DEFAULTS, before=["one"], after=["two"])
    assert found.told == [
        "chat commands: /restart left to two: use /lycomm restart, or set other names with LYCOMM_RESTART_COMMAND; "
        "/status left to one: use /lycomm status, or set other names with LYCOMM_STATUS_COMMAND"
    ]


@pytest.mark.parametrize("written_in", ["environment", ".env"])
def test_a_name_that_the_operator_has_set_is_kept_and_said(folder: Path, written_in: str) -> None:
    write_plugin(folder, "on_command('status')")
    environ = {"LYCOMM_STATUS_COMMAND": '["status"]'}
    if written_in == ".env":
        (folder / ".env").write_text('LYCOMM_STATUS_COMMAND=["status"]\n')
        environ = {}
    found = chat(folder, "/status", "/状态", "/lycomm status", environ=environ, before=OTHER)
    assert (found.superuser("/status"), found.stranger("/status")) == (["lycomm"], ["other"])
    assert found.superuser("/状态") == []
    assert found.superuser("/lycomm status") == ["lycomm"]
    assert found.told == [
        "chat commands: /status also belongs to other; LYCOMM_STATUS_COMMAND asks for it, "
        "so superusers get lycomm's command"
    ]


def test_a_command_that_is_turned_off_is_off_behind_lycomm_too(folder: Path) -> None:
    found = chat(folder, "/restart", "/lycomm restart", environ={"LYCOMM_RESTART_COMMAND": "[]"})
    assert found.superuser("/restart") == []
    assert found.superuser("/lycomm restart") == ["lycomm"], "it says which words there are"
    assert "restart" not in texts.usage(["status", "状态"])


def test_other_starts_than_a_slash_are_looked_at_one_by_one(folder: Path) -> None:
    write_plugin(folder, "on_fullmatch('status')")
    found = chat(
        folder,
        *("status", "!status", "!lycomm status", "statuses", "! status", " !status  "),
        settings={"command_start": ["", "!"]},
        before=OTHER,
    )
    assert found.superuser("status") == ["other"]
    assert found.superuser("!status") == ["lycomm"]
    assert found.superuser(" !status  ") == ["lycomm"]
    assert found.superuser("!lycomm status") == ["lycomm"]
    assert found.superuser("statuses") == found.superuser("! status") == []


def test_shorter_commands_of_others_get_what_is_longer_than_our_names(folder: Path) -> None:
    """An entry in NoneBot's table of commands would hide `/s` from everything that begins with `/status`."""
    write_plugin(folder, "on_command('s')")
    found = chat(folder, "/statusquo", "/status", after=OTHER)
    assert found.superuser("/statusquo") == ["other"]
    assert found.superuser("/status") == ["lycomm"]
    assert found.other_warnings == []
