"""The plugin where most bot owners meet it first: installed by nb-cli into a bot that has no host; and the
store's load test, which decides whether they can. Real nb-cli, real wheel, real bot; the store's list comes
from nb-cli's own cache file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.onebot_client import onebot_client

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).parents[2]
FAKE_DRIVER = REPOSITORY / "tests" / "children" / "fake_driver.py"

# The store's own script in its own words, less the output nobody here reads: initialise, load, look at the
# metadata. It never starts the driver, and the process has to end by itself.
LOAD_TEST = """
import json, sys
from nonebot import init, load_plugin, logger, require
from pydantic import BaseModel

init()
plugin = load_plugin("nonebot_plugin_lycomm")
if not plugin:
    sys.exit(1)
metadata = plugin.metadata
if metadata.config and not issubclass(metadata.config, BaseModel):
    logger.error("the configuration is not a BaseModel")
    sys.exit(1)
print("METADATA", json.dumps({
    "name": metadata.name, "description": metadata.description, "usage": metadata.usage,
    "type": metadata.type, "homepage": metadata.homepage, "supported_adapters": metadata.supported_adapters,
}))
"""


def clean_environment(**extra: str) -> dict[str, str]:
    """Ours without what would configure a bot or a host, or send Python elsewhere for its packages."""
    away = re.compile(r"LYCOMM|PYTEST|COVERAGE|VIRTUAL_ENV$|PYTHONPATH$|(DRIVER|HOST|PORT|ENVIRONMENT|SUPERUSERS)$")
    kept = {name: value for name, value in os.environ.items() if not away.match(name)}
    return kept | {"PYTHONUTF8": "1"} | extra


def test_the_stores_load_test_passes_with_zero_configuration(tmp_path: Path) -> None:
    shutil.copy(FAKE_DRIVER, tmp_path / "fake.py")
    (tmp_path / ".env").write_text("DRIVER=fake\n")
    (tmp_path / ".env.prod").write_text("")
    (tmp_path / "runner.py").write_text(LOAD_TEST)
    before = {path.name for path in tmp_path.iterdir()}

    # The time-out is the test for a thread left running: a process with one never ends.
    done = subprocess.run(
        [sys.executable, "-B", "runner.py"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stdout, done.stdout
    assert done.stderr == ""
    metadata = json.loads(done.stdout.partition("METADATA ")[2])
    assert metadata["type"] == "library"
    assert metadata["supported_adapters"] is None
    assert metadata["homepage"].startswith("https://")
    assert len(metadata["name"]) <= 50, "the store's limit"
    assert {path.name for path in tmp_path.iterdir()} == before, "loading the plugin wrote a file"


@dataclass(frozen=True)
class Bot:
    """A bot project that was there before the plugin."""

    folder: Path
    environment: dict[str, str]
    port: int

    def nb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.executable("nb"), *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )

    def executable(self, name: str) -> Path:
        return self.folder / ".venv" / "bin" / name


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Bot:
    """An existing OneBot bot with its own virtual environment, and a store list that offers our wheel.

    nb-cli is installed into the bot's environment, one of the two ways its guide gives; the other, pipx,
    would cost this test a second environment and change nothing in what is tested.
    """
    folder = tmp_path_factory.mktemp("mybot")
    wheels = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = subprocess.Popen(
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(REPOSITORY)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
    )
    with build:
        subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=folder, check=True, timeout=60)
        subprocess.run(
            [
                ".venv/bin/pip",
                "install",
                "--quiet",
                "--no-compile",
                "--disable-pip-version-check",
                *NB_AND_BOT,
            ],
            cwd=folder,
            env=clean_environment(),
            check=True,
            timeout=240,
        )
        output, _ = build.communicate(timeout=120)
    assert build.returncode == 0, output
    (wheel,) = wheels.glob("nonebot_plugin_lycomm-*.whl")

    # Whatever release the package index has by now, it is this tree's wheel that must be installed.
    constraints = wheels / "constraints.txt"
    constraints.write_text(f"nonebot-plugin-lycomm @ {wheel.as_uri()}\n")
    # A fresh cache file is nb-cli's only source for the list: no download is tried.
    (folder / "cache" / "nb-cli").mkdir(parents=True)
    (folder / "cache" / "nb-cli" / "plugins.json").write_text(json.dumps([STORE_ENTRY]))

    port = free_port()
    (folder / "pyproject.toml").write_text(BOT_PROJECT)
    (folder / ".env").write_text(f'DRIVER=~fastapi\nHOST=127.0.0.1\nPORT={port}\nSUPERUSERS=["10000"]\n')
    environment = clean_environment(
        PIP_CONSTRAINT=str(constraints),
        PIP_NO_COMPILE="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        XDG_CACHE_HOME=str(folder / "cache"),
        PYTHONUNBUFFERED="1",
    )
    return Bot(folder, environment, port)


NB_AND_BOT = ["nb-cli", "nonebot2[fastapi]", "nonebot-adapter-onebot"]

STORE_ENTRY = {
    "module_name": "nonebot_plugin_lycomm",
    "project_link": "nonebot-plugin-lycomm",
    "name": "lycomm",
    "desc": "test",
    "author": "x",
    "homepage": "https://example.com",
    "tags": [],
    "is_official": False,
    "type": "library",
    "valid": True,
    "version": "0.0.1",
    "time": "2026-11-20T00:00:00Z",
    "skip_test": False,
}

BOT_PROJECT = """
[project]
name = "mybot"
version = "0.1.0"
dependencies = ["nonebot2[fastapi]"]

[tool.nonebot]
plugin_dirs = []
builtin_plugins = []

[tool.nonebot.adapters]
nonebot-adapter-onebot = [{ name = "OneBot V11", module_name = "nonebot.adapters.onebot.v11" }]

[tool.nonebot.plugins]
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Console:
    """What ``nb run`` prints, line by line as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def wait_for_line(self, part: str, timeout: float = 30.0) -> str:
        try:
            return await asyncio.wait_for(self._read_until(part), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"no line with {part!r} within {timeout} s:\n" + "\n".join(self.lines)) from None

    async def read_rest(self, timeout: float = 15.0) -> None:
        await asyncio.wait_for(self._read_until(None), timeout)

    async def _read_until(self, part: str | None) -> str:
        assert self.process.stdout is not None
        while raw := await self.process.stdout.readline():
            line = raw.decode("utf-8").rstrip()
            self.lines.append(line)
            if part is not None and part in line:
                return line
        if part is not None:
            raise AssertionError(f"it ended without a line with {part!r}:\n" + "\n".join(self.lines))
        return ""


@contextlib.asynccontextmanager
async def nb_run(bot: Bot) -> AsyncIterator[Console]:
    process = await asyncio.create_subprocess_exec(
        bot.executable("nb"),
        "run",
        cwd=bot.folder,
        env=bot.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # one process group for nb and the bot, as in a terminal
    )
    console = Console(process)
    try:
        yield console
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME moves nb-cli's cache on Linux only")
@pytest.mark.timeout(400)  # mostly downloads: two minutes are plenty here, a slow network may need more
async def test_nb_plugin_install_then_nb_run_works_without_a_host(bot: Bot) -> None:
    installed = bot.nb("plugin", "install", "nonebot-plugin-lycomm")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    project = (bot.folder / "pyproject.toml").read_text()
    assert 'nonebot-plugin-lycomm = ["nonebot_plugin_lycomm"]' in project
    assert "liteyuki_host" not in project, "the host's half is no plugin and is none of NoneBot's business"

    async with nb_run(bot) as console:
        await console.wait_for_line("Application startup complete")
        async with onebot_client(f"ws://127.0.0.1:{bot.port}/onebot/v11/ws") as client:
            await client.wait_connected()
            await client.send_group_message("/status", group_id=7, user_id=10000)
            call = await client.wait_for_message()
            assert call.params["group_id"] == 7
            assert "no host" in call.text
            assert "OneBot V11 10001" in call.text
            await client.send_private_message("/restart", user_id=10000)
            assert "no host" in (await client.wait_for_message()).text
        os.killpg(console.process.pid, signal.SIGINT)
        await console.read_rest()

    told = [line for line in console.lines if "no host" in line and "lycomm" in line and "WARNING" in line]
    assert len(told) == 1, console.lines
    assert "lycomm" in told[0]
    assert not [line for line in console.lines if "[ERROR]" in line or "Traceback" in line], console.lines
