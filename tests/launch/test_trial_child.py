"""Trials of real NoneBot projects: nothing is started, and what cannot start is told with file and line."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from launch_kit import DEADLINE, PYPROJECT, make_project

from liteyuki_host.project import inspect_project
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.trial import TrialFailure, trial

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MARK = """
from pathlib import Path
def mark(name):
    with Path(name).open("a") as file:
        file.write("x")
"""

MARKING_PLUGIN = (
    MARK
    + """
import atexit
from nonebot import get_driver
from nonebot_plugin_lycomm import shared_memory
import helper
mark("imported")
atexit.register(mark, "at exit")
get_driver().on_startup(lambda: mark("started"))
get_driver().on_shutdown(lambda: mark("stopped"))
"""
)

BOT = (
    MARK
    + """
import nonebot
nonebot.init()
nonebot.load_plugins("plugins")
nonebot.load_plugin("nonebot_plugin_lycomm")  # which the first plugin has imported
if __name__ == "__main__":
    mark("main")
    try:
        nonebot.run()
        mark("after run")
    finally:
        mark("finally")
"""
)


async def attempt(folder: Path, *known_failed: str) -> TrialFailure | None:
    spec = ProcessSpec(name="mine", project=folder, env={"LOG_LEVEL": "WARNING"})
    plan = inspect_project(spec, host_main=None)
    return await asyncio.wait_for(trial(spec, plan, known_failed=known_failed, timeout=DEADLINE), 2 * DEADLINE)


@pytest.mark.parametrize("bot", ["", BOT], ids=["nb run", "own bot.py"])
async def test_a_project_that_can_start_is_loaded_once_and_goes_no_further(tmp_path: Path, bot: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as running:  # the bot, on its port
        port = running.getsockname()[1]
        folder = make_project(tmp_path / "bot", MARKING_PLUGIN, port=port, bot=bot)
        (folder / "helper.py").touch()
        (folder / "scratch.py").write_text("nobody imports this(")
        assert await attempt(folder) is None
        marks = {path.name: path.read_text() for path in folder.iterdir() if not path.suffix and path.is_file()}
        del marks[".env"]
        assert marks == {"imported": "x", **({"main": "x"} if bot else {})}
        running.settimeout(0)
        with pytest.raises(BlockingIOError):
            running.accept()


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("import nonebot\nx = (\ny =", "plugins/mine.py line 2: SyntaxError: '(' was never closed"),
        ("\n\nimport not_installed.x", "plugins/mine.py line 3: module 'not_installed' is not installed for this bot"),
        ("import helper\nhelper.load()", "helper.py line 4: JSONDecodeError: Expecting value: line 1"),
        ("from plugins import gone", "plugins/mine.py line 1: ImportError: cannot import name 'gone'"),
        ("import plugins.gone", "plugins/mine.py line 1: there is no module 'plugins.gone' in this project"),
        (
            "from pydantic import BaseModel as M\nclass C(M):\n a: int\nC(a='x')",
            "plugins/mine.py line 4: ValidationError:",
        ),
    ],
)
async def test_a_plugin_that_cannot_be_loaded_is_told_with_file_and_line(
    tmp_path: Path, plugin: str, words: str
) -> None:
    folder = make_project(tmp_path / "bot", plugin)
    (folder / "helper.py").write_text("import json\n\ndef load():\n    json.loads('')\n")
    trouble = await attempt(folder)
    assert trouble is not None
    assert trouble.words.startswith(words.replace("/", "\\") if sys.platform == "win32" else words)
    assert "\n" not in str(trouble)


async def test_a_plugin_that_failed_before_may_fail_again(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "bot", "1 / 0")
    assert await attempt(folder, "mine") is None
    (folder / "plugins" / "other.py").write_text("1 / 0")
    trouble = await attempt(folder, "mine")
    assert trouble is not None
    assert trouble.words.endswith("other.py line 1: ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("bot", "words"),
    [
        ("import nonebot\nnonebot.init()\n", "bot.py came to its end without having called nonebot.run()"),
        ("import sys\nsys.exit('no config')\n", "bot.py ended by sys.exit('no config') before it called nonebot.run()"),
        (
            "import nonebot\n\nnonebot.inti()\n",
            "bot.py line 3: AttributeError: module 'nonebot' has no attribute 'inti'",
        ),
        ("from nonebot import *\ndef f():\n    raise KeyError\nf()", "bot.py line 3: KeyError"),
    ],
)
async def test_a_script_that_does_not_get_to_its_run(tmp_path: Path, bot: str, words: str) -> None:
    trouble = await attempt(make_project(tmp_path / "bot", bot=bot))
    assert trouble is not None
    assert trouble.words.startswith(words)


async def test_an_adapter_that_is_not_installed(tmp_path: Path) -> None:
    pyproject = PYPROJECT.replace("adapters.onebot", "adapters.twobot").replace("nonebot-adapter-onebot", "'@local'")
    trouble = await attempt(make_project(tmp_path / "bot", pyproject=pyproject))
    assert trouble is not None
    assert trouble.words.startswith("adapter module 'nonebot.adapters.twobot.v11' is not installed for this bot")


SENDS = """
from nonebot_plugin_lycomm import active_channel
assert active_channel.name == "mine-active"
active_channel.send("hello")
"""

KNOWS_ANOTHER = """
from nonebot_plugin_lycomm import get_channel
get_channel("other-active")
"""

GIVES_UP = """
from nonebot_plugin_lycomm import active_channel
try:
    active_channel.send("hello")
except Exception:
    raise RuntimeError("I am of no use")
"""


async def test_what_only_lacks_the_host_is_not_held_against_the_change(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "bot", SENDS)
    for name, plugin in (("another", KNOWS_ANOTHER), ("useless", GIVES_UP)):
        (folder / "plugins" / f"{name}.py").write_text(plugin)
    assert await attempt(folder) is None
    (folder / "bot.py").write_text(f"import nonebot\nnonebot.init()\n{SENDS}")
    assert await attempt(folder) is None
