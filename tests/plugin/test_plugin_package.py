"""What the plugin shows to NoneBot and to the store, and that importing it does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nonebot
import pytest
from nonebot.plugin import Plugin

import liteyuki_host.comm
import nonebot_plugin_lycomm
from nonebot_plugin_lycomm import Config


@pytest.fixture
def plugin() -> Plugin:
    plugin = nonebot.get_plugin("nonebot_plugin_lycomm")
    assert plugin is not None
    return plugin


def test_the_metadata_is_what_the_store_asks_for(plugin: Plugin) -> None:
    metadata = plugin.metadata
    assert metadata is not None
    assert metadata.type == "library"
    assert metadata.homepage == "https://github.com/lycomm/nonebot-plugin-lycomm"
    assert metadata.config is Config
    assert metadata.supported_adapters is None, "None says: all adapters"
    for text in (metadata.description, metadata.usage):
        assert any("\u4e00" <= character <= "\u9fff" for character in text), "no Chinese"
        assert " / " in text, "no English beside it"
    for command in ("/restart", "/status", "/lycomm status"):
        assert command in metadata.usage


def test_everything_in_all_exists_once() -> None:
    names = nonebot_plugin_lycomm.__all__
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(nonebot_plugin_lycomm, name), name


@pytest.mark.parametrize(
    "name",
    [
        "Channel",
        "active_channel",
        "passive_channel",
        "get_channel",
        "get_channels",
        "set_channel",
        "shared_memory",
        "publish",
        "subscribe",
        "unsubscribe",
    ],
)
def test_what_host_and_bot_share_is_the_very_same_object(name: str) -> None:
    assert name in nonebot_plugin_lycomm.__all__
    assert getattr(nonebot_plugin_lycomm, name) is getattr(liteyuki_host.comm, name)


def test_the_settings_have_the_documented_names_and_defaults() -> None:
    assert Config().model_dump() == {
        "lycomm_commands": True,
        "lycomm_restart_command": ["restart", "重启"],
        "lycomm_status_command": ["status", "状态"],
    }


def in_fresh_bot(folder: Path, code: str, **environment: str) -> Any:
    """What ``code`` prints as JSON in a bot that has only just been initialised."""
    code = f"import json, nonebot\nnonebot.init(driver='~none')\n{code}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LYCOMM")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=kept | {"LOG_LEVEL": "WARNING", "PYTHONUTF8": "1"} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # NoneBot may have said something before


def test_no_name_is_entered_into_nonebots_table_of_commands(tmp_path: Path) -> None:
    """An entry would hide shorter commands of other plugins, and make NoneBot warn of duplicates."""
    code = 'nonebot.load_plugin("nonebot_plugin_lycomm")\nfrom nonebot.rule import TrieRule\n'
    assert in_fresh_bot(tmp_path, f"{code}print(json.dumps(list(TrieRule.prefix)))") == []


def test_importing_it_starts_no_thread_and_opens_nothing(tmp_path: Path) -> None:
    before, after = in_fresh_bot(
        tmp_path,
        """
import asyncio, multiprocessing, os, psutil, signal, threading, warnings
me = psutil.Process()
def facts():
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "system threads": me.num_threads(),
        "files": [file.path for file in me.open_files()],
        "descriptors": me.num_fds() if hasattr(me, "num_fds") else me.num_handles(),
        "connections": len(me.net_connections()),
        "children": len(me.children()),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "environment": sorted(os.environ),
        "folder": os.listdir(),
    }
before = facts()
nonebot.load_plugin("nonebot_plugin_lycomm")
print(json.dumps([before, facts()]))
""",
    )
    assert after == before


COUNT_COMMANDS = """
plugin = nonebot.load_plugin("nonebot_plugin_lycomm")
hooks = nonebot.get_driver()._bot_connection_hook
rules = [checker.call.__self__ for matcher in plugin.matcher for checker in matcher.rule.checkers]
print(json.dumps([sorted(name for rule in rules for name in rule.names), len(hooks)]))
"""


def test_the_commands_are_there_by_default(tmp_path: Path) -> None:
    assert in_fresh_bot(tmp_path, COUNT_COMMANDS) == [["lycomm", "restart", "status", "状态", "重启"], 1]


def test_one_setting_turns_the_commands_off(tmp_path: Path) -> None:
    assert in_fresh_bot(tmp_path, COUNT_COMMANDS, LYCOMM_COMMANDS="false") == [[], 0]


def test_the_commands_can_be_renamed_or_turned_off_one_by_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('LYCOMM_RESTART_COMMAND=["reboot"]\nLYCOMM_STATUS_COMMAND=[]\n')
    assert in_fresh_bot(tmp_path, COUNT_COMMANDS) == [["lycomm", "reboot"], 1]
