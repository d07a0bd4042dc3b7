"""The plugin where most bot owners meet it first: installed by nb-cli into a bot, then run without and with a host;
and the store's load test, which decides whether they can. Real nb-cli, real wheel, real bot; the store's list comes
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
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ports import free_port

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
    """Ours without what would configure a bot or a host, or send Python elsewhere for its packages.

    Bytecode is written, whatever our own environment says: nb-cli takes 0.8 s with it and 2.3 s without.
    """
    away = re.compile(
        r"LYCOMM|PYTEST|COVERAGE|VIRTUAL_ENV$|PYTHONPATH$|PYTHONDONTWRITEBYTECODE$"
        r"|(DRIVER|HOST|PORT|ENVIRONMENT|SUPERUSERS)$"
    )
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

    def nb(self, *arguments: str, program: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program or self.executable("nb"), *arguments],
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
    """A OneBot bot as ``nb create`` makes it, with its own virtual environment, and a store list that offers our wheel.

    nb-cli is installed into the bot's environment, one of the two ways its guide gives. The other is `nb_by_itself`.
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
        make_environment(folder / ".venv", "pip", *NB_AND_BOT)
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
    subprocess.run([".venv/bin/python", "-c", CREATE], cwd=folder, env=clean_environment(), check=True, timeout=60)
    (folder / ".env").write_text(f'HOST=127.0.0.1\nPORT={port}\nSUPERUSERS=["10000"]\n')
    environment = clean_environment(
        PIP_CONSTRAINT=str(constraints),
        PIP_NO_COMPILE="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        XDG_CACHE_HOME=str(folder / "cache"),
        PYTHONUNBUFFERED="1",
    )
    return Bot(folder, environment, port)


def make_environment(folder: Path, *requirements: str) -> None:
    """A virtual environment with these packages. Our own pip installs them: what `venv` does to give it a pip takes
    five seconds of a core, and installing pip like any other package takes one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "--no-compile", *requirements]
    subprocess.run(command, env=clean_environment(), check=True, timeout=240)


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

# What `nb create` does with the answers to its questions, which need a terminal.
CREATE = """
import json
from nb_cli.handlers import create_project

adapter = {
    "name": "OneBot V11", "module_name": "nonebot.adapters.onebot.v11",
    "project_link": "nonebot-adapter-onebot", "version": "2.4.6",
}
answers = {
    "project_name": "mybot", "inplace": True, "environment": {},
    "adapters": json.dumps({"nonebot-adapter-onebot": [adapter]}),
    "drivers": json.dumps({"nonebot2[fastapi]": {"module_name": "~fastapi"}}),
    "driver_package": json.dumps("nonebot2[fastapi]>=2.5.0"),
}
create_project("bootstrap", {"nonebot": answers}, ".")
"""


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
async def running(bot: Bot, *command: str | Path) -> AsyncIterator[Console]:
    process = await asyncio.create_subprocess_exec(
        *command,
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


CACHE_MOVES = pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME moves nb-cli's cache on Linux only")
# Mostly downloads: two minutes are plenty here, a slow network may need more.
DOWNLOADS = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def installed(bot: Bot) -> Bot:
    """The bot after ``nb plugin install``."""
    done = bot.nb("plugin", "install", "nonebot-plugin-lycomm")
    assert done.returncode == 0, done.stdout + done.stderr
    return bot


@pytest.fixture(scope="module")
def nb_by_itself(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``nb`` command of an environment that has nb-cli only, as pipx and ``uv tool`` install it."""
    folder = tmp_path_factory.mktemp("nb-cli")
    make_environment(folder, "nb-cli")
    return folder / "bin" / "nb"


@CACHE_MOVES
@DOWNLOADS
async def test_nb_plugin_install_then_nb_run_works_without_a_host(installed: Bot) -> None:
    bot = installed
    project = (bot.folder / "pyproject.toml").read_text()
    named = 'nonebot-plugin-lycomm = ["nonebot_plugin_lycomm"]'
    assert named in project
    for readme in REPOSITORY.glob("README*.md"):
        assert f"[tool.nonebot.plugins]\n{named}\n" in readme.read_text("utf-8"), "the way that nb-cli itself writes it"
    assert "liteyuki_host" not in project, "the host's half is no plugin and is none of NoneBot's business"

    async with running(bot, bot.executable("nb"), "run") as console:
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

    (told,) = [line for line in console.lines if "no host" in line and "WARNING" in line]
    assert f"run `{bot.executable('lycomm')} run` in this folder" in told
    assert not [line for line in console.lines if "[ERROR]" in line or "Traceback" in line], console.lines


@CACHE_MOVES
@DOWNLOADS
async def test_the_line_that_the_bot_without_a_host_shows_starts_one(installed: Bot) -> None:
    async with running(installed, installed.executable("nb"), "run") as console:
        told = await console.wait_for_line("no host")
        os.killpg(console.process.pid, signal.SIGINT)
        await console.read_rest()
    (command,) = re.findall(r"run `(.+)` in this folder", told)
    async with running(installed, "/bin/sh", "-c", f"exec {command}") as console:
        await console.wait_for_line("child nonebot ready in")
        os.killpg(console.process.pid, signal.SIGINT)
        await console.read_rest()
    assert await console.process.wait() == 0


@CACHE_MOVES
@DOWNLOADS
async def test_nb_lycomm_run_puts_the_bot_under_a_host(installed: Bot) -> None:
    async with running(installed, installed.executable("nb"), "lycomm", "run") as console:
        await console.wait_for_line("child nonebot ready in")
        await the_host_answers(installed)
        os.killpg(console.process.pid, signal.SIGINT)
        await console.read_rest()
    assert await console.process.wait() == 0
    ended_well(console)
    assert len([line for line in console.lines if "NoneBot is initializing" in line]) == 1, "the bot was loaded twice"


@CACHE_MOVES
@DOWNLOADS
async def test_nb_lycomm_run_works_with_an_nb_that_has_its_own_environment(installed: Bot, nb_by_itself: Path) -> None:
    async with running(installed, nb_by_itself, "lycomm", "run") as console:
        await console.wait_for_line("child nonebot ready in")
        await the_host_answers(installed)
        console.process.terminate()
        await console.read_rest()
    ended_well(console)


async def the_host_answers(bot: Bot) -> None:
    async with onebot_client(f"ws://127.0.0.1:{bot.port}/onebot/v11/ws") as client:
        await client.wait_connected()
        await client.send_private_message("/lycomm status", user_id=10000)
        assert "nonebot: 就绪 / ready" in (await client.wait_for_message()).text


def ended_well(console: Console) -> None:
    assert [line for line in console.lines if "child nonebot stopped after the stop message" in line], console.lines
    assert "host stopped" in console.lines[-1], console.lines
    assert not [line for line in console.lines if "[ERROR]" in line or "Traceback" in line], console.lines


@CACHE_MOVES
@DOWNLOADS
def test_nb_lycomm_takes_what_lycomm_takes(installed: Bot, nb_by_itself: Path) -> None:
    for program in (installed.executable("nb"), nb_by_itself):
        checked = installed.nb("lycomm", "check", "--project", ".", program=program)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        with_python = installed.folder / ".venv" / "bin" / "python"
        assert f"nonebot: [tool.nonebot] in {installed.folder} with {with_python}" in checked.stdout
        helped = installed.nb("lycomm", "--help", program=program)
        assert "usage: lycomm" in helped.stdout, helped.stdout + helped.stderr
        settings = installed.nb("lycomm", "settings", program=program)
        assert settings.stdout.endswith((REPOSITORY / ".env.example").read_text("utf-8")), settings.stderr
        listed = installed.nb("--help", program=program)
        assert listed.returncode == 0, listed.stdout + listed.stderr
        assert "lycomm" in listed.stdout


@CACHE_MOVES
@DOWNLOADS
async def test_a_bot_that_does_not_name_the_plugin_has_it_under_a_host(installed: Bot) -> None:
    project = installed.folder / "pyproject.toml"
    named = project.read_text()
    project.write_text(re.sub(r"nonebot-plugin-lycomm = .*\n", "", named))
    try:
        async with running(installed, installed.executable("lycomm"), "run") as console:
            await console.wait_for_line("child nonebot ready in")
            await the_host_answers(installed)
            os.killpg(console.process.pid, signal.SIGINT)
            await console.read_rest()
    finally:
        project.write_text(named)
    assert await console.process.wait() == 0
    ended_well(console)
