"""Bots that write code of their own: they are restarted for what a developer saves, and not for what they write.

What a bot has written is either named as the reason of a reload that follows, or it was not held to be a save.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit import HostProcess, host_process, write

pytestmark = pytest.mark.e2e

HEAD = """
import asyncio, os, pathlib, subprocess, sys, time
from nonebot import get_driver

VERSION = @
driver = get_driver()
GENERATED = pathlib.Path("plugins/generated.txt.py")

def generate(path=GENERATED):
    path.write_text(f"# {time.time_ns()}\\n")

def is_there(name):
    while not os.path.exists(name):
        time.sleep(0.01)

@driver.on_startup
def started():
    print("version", VERSION, flush=True)
"""

AT_IMPORT = "generate()\n"

REPLACED_AT_IMPORT = """
generate(pathlib.Path("new.tmp"))
os.replace("new.tmp", "generated.py")
"""

IN_TURN_AT_IMPORT = """
GENERATED.touch()
GENERATED.write_text("A = 1\\n" if "B" in GENERATED.read_text() else "B = 1\\n")
"""

IN_THE_START_UP_HOOK = """
@driver.on_startup
def rewrite_settings():
    kept = [line for line in open(".env") if not line.startswith("LAST_START")]
    open(".env", "w").writelines([*kept, f"LAST_START={time.time_ns()}\\n"])
"""

IN_THE_SHUTDOWN_HOOK = """
driver.on_shutdown(generate)
"""

GONE_BETWEEN = """
generate()
driver.on_shutdown(GENERATED.unlink)
"""

A_SECOND_LATER = """
@driver.on_startup
async def soon():
    async def write():
        await asyncio.sleep(1)
        generate()
        print("written by", VERSION, flush=True)
    driver.task = asyncio.create_task(write())
"""

A_NEW_ONE_A_SECOND_LATER = A_SECOND_LATER.replace(
    "generate()", 'generate(pathlib.Path(f"plugins/at{time.time_ns()}.txt.py"))'
)

ALL_THE_TIME = """
@driver.on_startup
async def soon():
    async def write():
        for number in range(10**6):
            await asyncio.sleep(0.1)
            generate()
            if number == 10:
                print("written by", VERSION, flush=True)
    driver.task = asyncio.create_task(write())
"""

BY_A_PROGRAM = """
code = "import sys, time; open(sys.argv[1], 'w').write(f'# {time.time_ns()}')"
subprocess.run([sys.executable, "-c", code, str(GENERATED)], check=True)
"""

KEPT_OPEN = """
file = GENERATED.open("w")
@driver.on_startup
async def soon():
    async def write():
        await asyncio.sleep(1)
        file.write(f"# {time.time_ns()}\\n")
        file.flush()
        print("written by", VERSION, flush=True)
    driver.task = asyncio.create_task(write())
"""


def with_version(version: int, bot: str) -> str:
    return (HEAD + bot).replace("@\n", f"{version}\n", 1)


def save(folder: Path, version: int, bot: str) -> None:
    (folder / "plugins" / "mine.py").write_text(with_version(version, bot), encoding="utf-8")


@contextmanager
def reloading(folder: Path, bot: str, mode: str = "swap", **environ: str) -> Iterator[HostProcess]:
    write(
        folder,
        {
            "pyproject.toml": "[tool.nonebot]\nadapters = []\nplugins = []\nplugin_dirs = ['plugins']\n",
            ".env": "DRIVER=~none\n",
            "plugins/mine.py": with_version(1, bot),
        },
    )
    with host_process(folder, LYCOMM_RELOAD=mode, **environ) as host:
        host.wait_for("version 1$")
        yield host
        assert host.stop() == 0


def eventually_there(file: Path) -> None:
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file}"
        time.sleep(0.01)  # a bot's file


def starts(host: HostProcess) -> int:
    return sum(bool(re.search(r"child nonebot.* started \(pid", line)) for line in host.lines)


def reloaded_for(host: HostProcess) -> set[str]:
    """The files that the host's lines name as the reason of a reload."""
    reasons = re.findall(r"child nonebot: (.*) changed; ", host.text)
    return {re.split(r"[/\\]", name)[-1] for reason in reasons for name in reason.split(", ")}


def save_twice(host: HostProcess, folder: Path, bot: str) -> None:
    """Each save comes when the bot is ready and has written, and is loaded."""
    for version in (2, 3):
        host.wait_for(f"{WRITTEN if WRITTEN in bot else 'version'} {version - 1}$")
        save(folder, version, bot)
        host.wait_for(f"version {version}$")


WRITTEN = "written by"
NAMES = {id(value): name.lower() for name, value in list(globals().items()) if isinstance(value, str)}


def each(*bots: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bot", bots, ids=[NAMES[id(bot)] for bot in bots])


@each(AT_IMPORT, REPLACED_AT_IMPORT, IN_TURN_AT_IMPORT, IN_THE_START_UP_HOOK, IN_THE_SHUTDOWN_HOOK, GONE_BETWEEN)
def test_what_a_bot_writes_while_it_starts_or_ends_is_no_save(tmp_path: Path, bot: str) -> None:
    with reloading(tmp_path, bot) as host:
        save_twice(host, tmp_path, bot)
    assert starts(host) == 3, host.text
    assert reloaded_for(host) == {"mine.py"}, host.text


@each(A_SECOND_LATER, A_NEW_ONE_A_SECOND_LATER, ALL_THE_TIME, KEPT_OPEN)
def test_a_bot_that_writes_after_each_start_is_restarted_for_it_once(tmp_path: Path, bot: str) -> None:
    with reloading(tmp_path, bot) as host:
        line = host.wait_for("reload_dirs")[0]
        assert re.search(r"child nonebot: plugins.\w+\.txt\.py (was written by the bot itself again|changed)", line)
        assert starts(host) == 2, host.text
        host.wait_for("child nonebot ready", count=2)  # the line may come before: that start would load the save
        save(tmp_path, 2, bot)
        host.wait_for("written by 2$")
    assert starts(host) == 3, host.text
    assert host.text.count("reload_dirs") == 1, host.text


def test_a_bot_whose_programs_write_is_restarted_for_it_once(tmp_path: Path) -> None:
    with reloading(tmp_path, BY_A_PROGRAM) as host:
        host.wait_for("reload_dirs")
        host.wait_for("child nonebot ready", count=2)
        save(tmp_path, 2, BY_A_PROGRAM)
        host.wait_for("version 2$")
    assert starts(host) == 3, host.text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot open a port twice")
@each(IN_THE_SHUTDOWN_HOOK, AT_IMPORT)
def test_with_overlap_too_what_it_writes_while_it_ends_is_no_save(tmp_path: Path, bot: str) -> None:
    """There the old bot ends, and writes, while the new one serves."""
    with reloading(tmp_path, bot, "overlap") as host:
        save_twice(host, tmp_path, bot)
        host.wait_for("child nonebot stopped after", count=2)
    assert starts(host) == 3, host.text
    assert reloaded_for(host) == {"mine.py"}, host.text


IMPORT_WAITS = """
pathlib.Path("importing").touch()
is_there("go")
"""

START_WAITS = """
@driver.on_startup
async def wait():
    generate()
    pathlib.Path("starting").touch()
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
"""


def test_a_save_during_the_trial_is_tried_too_and_is_one_restart(tmp_path: Path) -> None:
    with reloading(tmp_path, "") as host:
        host.wait_for("child nonebot ready")
        save(tmp_path, 2, IMPORT_WAITS)
        eventually_there(tmp_path / "importing")
        save(tmp_path, 3, "def broken(:")
        (tmp_path / "go").touch()
        host.wait_for("the change cannot start: .*mine.py line .*SyntaxError.*; the running bot stays")
        assert starts(host) == 1, host.text
        save(tmp_path, 4, "")
        host.wait_for("version 4$")
    assert starts(host) == 2, host.text


@pytest.mark.parametrize("other", ["", BY_A_PROGRAM], ids=["", "with programs"])
def test_a_save_while_the_bot_starts_is_not_lost(tmp_path: Path, other: str) -> None:
    """Though the bot, and perhaps a program that it starts, write in the same time."""
    with reloading(tmp_path, "") as host:
        host.wait_for("child nonebot ready")
        save(tmp_path, 2, START_WAITS + other)
        eventually_there(tmp_path / "starting")
        save(tmp_path, 3, "")
        (tmp_path / "go").touch()
        host.wait_for("version 3$")


def test_a_first_start_that_hangs_is_replaced_by_the_next_save(tmp_path: Path) -> None:
    with reloading(tmp_path, START_WAITS) as host:
        eventually_there(tmp_path / "starting")
        save(tmp_path, 2, "")
        host.wait_for("child nonebot ready")
        host.wait_for("version 2$")
    assert starts(host) == 2, host.text


def test_a_save_that_is_taken_back_during_the_trial_restarts_nothing(tmp_path: Path) -> None:
    """A checkout of another branch and back."""
    with reloading(tmp_path, "") as host:
        host.wait_for("child nonebot ready")
        save(tmp_path, 2, IMPORT_WAITS)
        eventually_there(tmp_path / "importing")
        save(tmp_path, 1, "")
        (tmp_path / "go").touch()
        host.wait_for("the change was taken back meanwhile; the running bot stays")
    assert starts(host) == 1, host.text


def test_bots_that_share_a_folder_do_not_reload_each_other_for_ever(tmp_path: Path) -> None:
    """Each start of one writes what the other one watches: while it starts, and after it."""
    tables = {}
    for name in ("one", "two"):
        bot = A_SECOND_LATER.replace("generate()", f"generate(pathlib.Path('../shared/{name}.py'))")
        at_import = "generate(pathlib.Path('../shared/all.py'))\n"
        write(
            tmp_path / name,
            {
                "pyproject.toml": "[tool.nonebot]\nadapters = []\nplugins = []\nplugin_dirs = ['plugins']\n",
                ".env": "DRIVER=~none\n",
                "plugins/mine.py": with_version(1, bot + at_import),
            },
        )
        dirs = f"['{name}', 'shared', 'shared/.']"
        tables[name] = f"[tool.lycomm.processes.{name}]\nproject = '{name}'\nreload = 'swap'\nreload_dirs = {dirs}\n"
    write(tmp_path, {"shared/all.py": "", "pyproject.toml": "".join(tables.values())})
    with host_process(tmp_path) as host:
        for name in tables:
            host.wait_for(f"child {name}: .*reload_dirs")
        before = len(host.wait_for("child (one|two) started"))
        assert before <= 4, host.text  # each once with the host, and once for what was written then
        (tmp_path / "shared" / "saved.py").touch()
        for name in tables:
            host.wait_for(f"child {name} is to restart: ../shared/saved.py changed")
        host.wait_for("child (one|two) ready", count=before + 2)
        assert host.stop() == 0
    assert len(host.wait_for("child (one|two) started")) == before + 2, host.text
