"""lycomm, or another package, is updated in the environment that host and bots share, while they run."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit import ROOT, HostProcess, host_process, write

pytestmark = pytest.mark.e2e

OTHER = '__version__ = "99.1"\nPROTOCOL_VERSION = 1\n'

ASKS = """
import asyncio, os
from liteyuki_host import get_bot
from liteyuki_host.comm.errors import ProcessFailed

host = get_bot()

async def ask():
    while True:
        while not os.path.exists("ask"):
            await asyncio.sleep(0.01)
        os.unlink("ask")
        try:
            await host.arestart_process("nonebot")
            print("restarted", flush=True)
        except ProcessFailed as exc:
            print(f"refused: {exc}", flush=True)  # in one piece: the host writes lines at the same time

@host.on_after_start
async def begin():
    host.asking = asyncio.create_task(ask())
"""


class Environment:
    """Copies of both packages, which host and bot find before the installed ones; with the bytecode that there is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site-packages"
        for name in ("liteyuki_host", "nonebot_plugin_lycomm"):
            shutil.copytree(ROOT / name, self.folder / name)
        self.version = self.folder / "liteyuki_host" / "_version.py"

    def update(self) -> None:
        self.version.write_text(OTHER, encoding="utf-8")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


@contextmanager
def bot_in(
    environment: Environment, folder: Path, until: str = "child nonebot ready", **environ: str
) -> Iterator[HostProcess]:
    write(
        folder,
        {
            "pyproject.toml": "[tool.nonebot]\nadapters = []\nplugins = []\nplugin_dirs = ['plugins']\n",
            ".env": "DRIVER=~none\n",
            "plugins/mine.py": "",
            "asks.py": ASKS,
        },
    )
    environ = {"PYTHONPATH": str(environment.folder), "LYCOMM_PLUGINS": "asks", **environ}
    with host_process(folder, LYCOMM_BACKOFF_BASE="0.2", **environ) as host:
        host.wait_for(until)
        yield host
        assert host.stop() == 0


def ask(folder: Path) -> None:
    (folder / "ask").touch()


def started(host: HostProcess) -> int:
    return len([line for line in host.lines if re.search(r"child nonebot started \(pid", line)])


CURE = "has lycomm 99.1 now, this host runs lycomm .*: restart the host"


def test_an_asked_restart_is_refused_and_told_to_who_asked(tmp_path: Path, environment: Environment) -> None:
    with bot_in(environment, tmp_path / "bot") as host:
        pid = host.child().pid
        environment.update()
        ask(tmp_path / "bot")
        host.wait_for(rf"child nonebot is not restarted \(asked\): .*{CURE}.*; the running bot stays")
        host.wait_for(f"^refused: .*{CURE}")
        assert host.child().pid == pid
        assert started(host) == 1
        shutil.copy(ROOT / "liteyuki_host" / "_version.py", environment.version)
        ask(tmp_path / "bot")
        host.wait_for("^restarted")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX")
def test_reloads_of_all_bots_are_refused(tmp_path: Path, environment: Environment) -> None:
    with bot_in(environment, tmp_path / "bot", LYCOMM_RELOAD="swap") as host:
        environment.update()
        host.send(signal.SIGHUP)
        host.wait_for(f"child nonebot is not reloaded: .*{CURE}.*; the running bot stays")
        (tmp_path / "bot" / "plugins" / "mine.py").write_text("# saved\n")
        host.wait_for("child nonebot is not reloaded: ", count=2)
        assert started(host) == 1


def test_a_restart_for_memory_is_refused(tmp_path: Path, environment: Environment) -> None:
    """One for its age comes the same way. It is not counted, or the bot would be given up."""
    limits = {"LYCOMM_MEMORY_LIMIT": "32MiB", "LYCOMM_MAX_RESTARTS": "0"}
    with bot_in(environment, tmp_path / "bot", "child nonebot started", **limits) as host:
        environment.update()
        host.wait_for(rf"child nonebot is not restarted \(it uses .* of memory.*\): .*{CURE}.*; the running bot stays")
        assert started(host) == 1


def test_a_bot_that_is_not_running_is_started_by_the_next_host(tmp_path: Path, environment: Environment) -> None:
    with bot_in(environment, tmp_path / "bot") as host:
        environment.update()
        host.child().kill()
        host.wait_for(f"child nonebot cannot start: .*{CURE}")
        assert started(host) == 1
    with bot_in(environment, tmp_path / "bot"):
        pass


def test_half_an_update_is_waited_for(tmp_path: Path, environment: Environment) -> None:
    with bot_in(environment, tmp_path / "bot") as host:
        package, away = environment.folder / "liteyuki_host", environment.folder / "~iteyuki_host"
        shutil.copytree(package, away)
        (package / "comm" / "errors.py").unlink()
        ask(tmp_path / "bot")
        host.wait_for("child nonebot is not restarted .*errors.py is missing.*; the running bot stays")
        host.wait_for("^refused: lycomm cannot be loaded by .* at the moment")
        (package / "_version.py").unlink()
        host.child().kill()
        host.wait_for("child nonebot could not be started: lycomm cannot be loaded by .* at the moment", count=3)
        assert started(host) == 1
        shutil.rmtree(package)
        away.rename(package)
        host.wait_for("child nonebot ready", count=2)


def test_other_packages_that_are_missing_for_a_moment_are_waited_for(tmp_path: Path, environment: Environment) -> None:
    """The bot's driver is being updated while the bot is started again."""
    helper = environment.folder / "helper.py"
    helper.touch()
    bot = "import helper, nonebot\nnonebot.init()\nnonebot.run()\n"
    write(tmp_path / "bot", {"bot.py": bot})
    with bot_in(environment, tmp_path / "bot") as host:
        helper.unlink()
        host.child().kill()
        host.wait_for("module 'helper' is not installed for this bot")
        host.wait_for("packages of this bot's environment have just been installed or removed")
        helper.touch()
        host.wait_for("child nonebot ready", count=2)
    os.utime(environment.folder, (1, 1))
    helper.unlink()
    os.utime(environment.folder, (1, 1))
    with host_process(tmp_path / "bot", PYTHONPATH=str(environment.folder)) as host:
        host.wait_for("child nonebot cannot start: exited 78")
