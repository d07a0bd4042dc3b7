"""Real NoneBot projects as children of a real (small) host."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launch_kit import DEADLINE, PYPROJECT, HostProcess, StartHost, accepts, free_port, is_gone, make_project, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="signals; Windows has tests of its own"),
]

HOOKS = """
from nonebot import get_driver, logger
driver = get_driver()

@driver.on_startup
async def _():
    logger.info("startup hook ran")

@driver.on_shutdown
async def _():
    logger.info("shutdown hook ran")
    open("shutdown-hook-ran", "w").close()
"""

BOT = """
import nonebot
from nonebot.adapters.onebot.v11 import Adapter

nonebot.init(nickname={"from bot.py"})
nonebot.get_driver().register_adapter(Adapter)
nonebot.load_plugins("plugins")

if __name__ == "__main__":
    nonebot.run()
"""

OLD_PYPROJECT = """\
[tool.nonebot]
adapters = [{ name = "OneBot V11", module_name = "nonebot.adapters.onebot.v11" }]
plugins = ["nonebot.plugins.echo"]
plugin_dirs = ["plugins"]
"""

WITH_LYCOMM = (
    PYPROJECT
    + """
[tool.nonebot.plugins]
nonebot-plugin-lycomm = ["nonebot_plugin_lycomm"]
"""
)

BUILTIN_PYPROJECT = PYPROJECT.replace("[tool.nonebot]\n", '[tool.nonebot]\nbuiltin_plugins = ["echo"]\n')


@pytest.mark.parametrize(
    ("pyproject", "bot"),
    [(WITH_LYCOMM, ""), (OLD_PYPROJECT, ""), (BUILTIN_PYPROJECT, ""), ("", BOT)],
    ids=["table format", "list format", "builtin plugins", "own bot.py"],
)
def test_an_ordinary_project_runs_and_ends_cleanly(
    start_host: StartHost, tmp_path: Path, pyproject: str, bot: str
) -> None:
    port = free_port()
    host = start_host(make_project(tmp_path / "bot", HOOKS, port=port, pyproject=pyproject, bot=bot))
    host.line(rf"child nonebot ready in \d+\.\d s: http://127\.0\.0\.1:{port}$")
    host.line(rf"OneBot V11 reverse WebSocket listens on ws://127\.0\.0\.1:{port}/onebot/v11/ws$")
    host.line(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\] nonebot \| mine \| startup hook ran$")
    assert accepts(port)
    if pyproject in (OLD_PYPROJECT, BUILTIN_PYPROJECT):
        host.line('Succeeded to load plugin "echo"')
    host.stop()
    assert host.popen.returncode == 0
    host.line("shutdown hook ran")
    host.line(r"child nonebot stopped after the stop message in .* \(exited 0\)$")
    assert not accepts(port)
    assert count_of_our_plugin(host) == 1
    assert not re.search("ERROR|WARNING.*lycomm|Traceback", host.text)


def count_of_our_plugin(host: HostProcess) -> int:
    return host.text.count('Succeeded to load plugin "nonebot_plugin_lycomm"')


LISTED = '[tool.nonebot]\nplugin_dirs = ["plugins"]\nplugins = ["nonebot_plugin_lycomm"]\n'
TABLED = '[tool.nonebot]\nplugin_dirs = ["plugins"]\n[tool.nonebot.plugins]\n'
TABLED += 'nonebot-plugin-lycomm = ["nonebot_plugin_lycomm"]\n"@local" = []\n'
OURS = '"nonebot_plugin_lycomm"'


@pytest.mark.parametrize(
    ("pyproject", "plugin", "load"),
    [
        (LISTED, "", None),
        (TABLED, "", None),
        (LISTED, f"import nonebot\nnonebot.require({OURS})", None),
        (TABLED, "import nonebot_plugin_lycomm", None),
        (LISTED, "", 'nonebot.load_from_toml("pyproject.toml")'),
        (TABLED, f"import nonebot\nnonebot.require({OURS})", 'nonebot.load_from_toml("pyproject.toml")'),
        ("", "", f"nonebot.load_plugin({OURS})"),
        ("", "", f"nonebot.require({OURS})"),
        ("", f"import nonebot\nnonebot.require({OURS})", 'nonebot.load_plugins("plugins")'),
        ("", f"import nonebot\nnonebot.require({OURS})", f'nonebot.load_all_plugins([{OURS}], ["plugins"])'),
        ("", "", f'nonebot.require({OURS})\nnonebot.load_plugin({OURS})\nnonebot.load_plugins("plugins")'),
        ("", "", ""),
    ],
)
def test_our_plugin_is_said_to_be_loaded_once(
    start_host: StartHost, tmp_path: Path, pyproject: str, plugin: str, load: str | None
) -> None:
    bot = "" if load is None else f"import nonebot\nnonebot.init()\n{load}\nnonebot.run()\n"
    project = make_project(tmp_path / "bot", plugin, driver="~none", pyproject=pyproject, bot=bot)
    host = start_host(project)
    host.line("child nonebot ready")
    host.stop()
    assert count_of_our_plugin(host) == 1
    assert not re.search("ERROR|already exists|Traceback", host.text)


def test_our_plugin_that_cannot_be_loaded_is_named_and_the_bot_runs(start_host: StartHost, tmp_path: Path) -> None:
    project = make_project(tmp_path / "bot", driver="~none")
    with (project / ".env").open("a") as env:
        env.write("LYCOMM_COMMANDS=perhaps\n")
    host = start_host(project)
    host.line("plugin nonebot_plugin_lycomm was not loaded: .*; the bot runs without it$")
    host.line("child nonebot ready")


@pytest.mark.parametrize("driver", ["~none", "~httpx+~websockets"])
def test_a_bot_without_a_port_is_ready_when_its_hooks_are_done(
    start_host: StartHost, tmp_path: Path, driver: str
) -> None:
    host = start_host(make_project(tmp_path / "bot", HOOKS, driver=driver))
    host.line(r"child nonebot ready in \d+\.\d s$")
    host.stop()
    host.line("shutdown hook ran")
    host.line(r"child nonebot stopped after the stop message in .* \(exited 0\)$")


def test_a_bot_that_starts_its_server_itself_is_ready(start_host: StartHost, tmp_path: Path) -> None:
    port = free_port()
    own = f"import uvicorn; uvicorn.run(nonebot.get_asgi(), host='127.0.0.1', port={port})"
    host = start_host(make_project(tmp_path / "bot", HOOKS, pyproject="", bot=BOT.replace("nonebot.run()", own)))
    host.line("the bot starts its server itself, without nonebot.run\\(\\): its host knows no address of it")
    host.line(r"child nonebot ready in \d+\.\d s$")
    host.stop()
    host.line("shutdown hook ran")
    host.line(r"child nonebot stopped after the stop message in .* \(exited 0\)$")


def test_arguments_of_run_decide_over_the_configuration(start_host: StartHost, tmp_path: Path) -> None:
    port = free_port()
    bot = BOT.replace("nonebot.run()", f'nonebot.run(host="127.0.0.1", port={port})')
    host = start_host(make_project(tmp_path / "bot", pyproject="", bot=bot))
    host.line(rf"child nonebot ready in .*: http://127\.0\.0\.1:{port}$")
    assert accepts(port)


def test_a_script_sees_what_python_would_show_it(start_host: StartHost, tmp_path: Path) -> None:
    bot = f"""
import os, sys
print("argv", sys.argv, "path", sys.path[0], "cwd", os.getcwd())
print("main", sys.modules["__main__"].__file__, __name__, __file__, "link", os.environ.get("LYCOMM_LINK"))
print("process", os.environ["LYCOMM_PROCESS"])
{BOT}"""
    project = make_project(tmp_path / "bot", pyproject="", bot=bot)
    host = start_host(project)
    host.line(re.escape(f"argv ['{project}/bot.py'] path {project} cwd {project}"))
    host.line(re.escape(f"main {project}/bot.py __main__ {project}/bot.py link None"))
    host.line("process nonebot$")
    host.line("child nonebot ready")


IMPORTS_ITS_OWN = """
import sys
import helper
print("path", sys.path[0], "helper", helper.__file__)
"""


@pytest.mark.parametrize("way", ["PYTHONSAFEPATH", "-P", "-I"])
@pytest.mark.parametrize("kind", ["script", "toml"])
def test_a_python_that_keeps_folders_off_its_path_finds_the_project(
    start_host: StartHost, tmp_path: Path, way: str, kind: str
) -> None:
    if way == "-P" and sys.version_info < (3, 11):
        pytest.skip("from Python 3.11 on")
    spec: dict[str, object] = {"env": {"PYTHONSAFEPATH": "1"}}
    if way != "PYTHONSAFEPATH":
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {way} "$@"\n')
        python.chmod(0o755)
        spec = {"python": str(python)}
    bot = "" if kind == "toml" else BOT
    project = make_project(tmp_path / "bot", IMPORTS_ITS_OWN, driver="~none", bot=bot)
    (project / "helper.py").touch()
    host = start_host(project, **spec)
    host.line(re.escape(f"path {project} helper {project}/helper.py"))
    host.line("child nonebot ready")


@pytest.mark.parametrize("value", ["0", "1", None])
def test_utf8_mode_is_on_and_can_be_turned_off(start_host: StartHost, tmp_path: Path, value: str | None) -> None:
    plugin = "import sys\nprint('utf8 mode', sys.flags.utf8_mode, '中文')\n"
    env = {} if value is None else {"PYTHONUTF8": value}
    host = start_host(make_project(tmp_path / "bot", plugin, driver="~none"), env=env)
    host.line(f"utf8 mode {value or '1'} 中文$")


PAGE_OF_2024 = """
from nonebot import get_driver
from nonebot_plugin_lycomm import active_channel

driver = get_driver()

@driver.on_startup
def page_of_2024():
    while True:
        data = active_channel.receive()
        print(f"Active receive: {data}", flush=True)

@driver.on_shutdown
async def _():
    print("shutdown hook ran", flush=True)
"""


@pytest.mark.parametrize("driver", ["~fastapi", "~none"])
def test_f4_an_endless_receive_in_a_startup_hook_is_harmless(
    start_host: StartHost, tmp_path: Path, driver: str
) -> None:
    """The page's child half used to hang the bot: the port never opened and only SIGKILL ended it."""
    port = free_port()
    host = start_host(make_project(tmp_path / "bot", PAGE_OF_2024, port=port, driver=driver))
    host.line("child nonebot ready")
    warning = host.line(r"start-up hook .*page_of_2024")
    assert "plugins/mine.py:7" in warning
    assert "background_thread" in warning
    assert driver == "~none" or accepts(port)
    host.line("Active receive: tick 3$")
    host.stop()
    assert host.popen.returncode == 0
    host.line("shutdown hook ran")
    host.line(r"child nonebot stopped after the stop message in .* \(exited 0\)$")
    assert host.text.count("waits for messages and does not return") == 1
    assert "Traceback" not in host.text


def test_sync_hooks_behave_as_before(start_host: StartHost, tmp_path: Path) -> None:
    """One after another, each awaited; anyio.from_thread works in them; a failure fails the start."""
    plugin = """
import threading, time
import anyio, anyio.from_thread
from nonebot import get_driver
driver = get_driver()
order = []

async def on_the_loop():
    return threading.current_thread() is threading.main_thread()

@driver.on_startup
def first():
    assert anyio.from_thread.run(on_the_loop)
    assert not threading.current_thread() is threading.main_thread()
    time.sleep(0.2)
    order.append("first")

@driver.on_startup
async def second():
    order.append("second")
    print("order", order, flush=True)

@driver.on_startup
def third():
    raise RuntimeError("third fails")

assert first.__name__ == "first" and callable(first)
"""
    host = start_host(make_project(tmp_path / "bot", plugin))
    host.line(re.escape("order ['first', 'second']"))
    host.line("third fails")
    host.line(r"child nonebot exited 3 before it was ready: NoneBot's start-up failed .*; starting it again in 0\.\d s")


def test_a_stop_ends_a_bot_that_hangs_in_a_sync_hook(start_host: StartHost, tmp_path: Path) -> None:
    plugin = """
import time
from nonebot import get_driver

@get_driver().on_startup
def never_returns():
    print("hanging", flush=True)
    while True:
        time.sleep(3600)

@get_driver().on_shutdown
async def _():
    print("shutdown hook ran", flush=True)
"""
    host = start_host(make_project(tmp_path / "bot", plugin))
    host.line("hanging")
    host.stop()
    host.line("shutdown hook ran")
    host.line(r"child nonebot stopped after the stop message in .* \(exited 0\)$")


@pytest.mark.parametrize("where", ["importing", "in a blocked C call"])
def test_a_stop_while_importing_ends_quietly(start_host: StartHost, tmp_path: Path, where: str) -> None:
    wait = "while True: pass" if where == "importing" else "time.sleep(3600)"
    host = start_host(make_project(tmp_path / "bot", f"import time\nprint('importing', flush=True)\n{wait}\n"))
    host.line("importing$")
    host.stop()
    host.line(r"child nonebot stopped after the stop message in .* \(exited 0\)$")
    assert "Traceback" not in host.text


def test_the_stop_of_a_child_that_is_just_coming_up_is_quiet(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host(make_project(tmp_path / "bot"))
    host.child_pid()
    host.stop()
    host.line(r"child nonebot stopped after (the stop message in .* \(exited 0\)|SIGTERM in .* \(killed by SIGTERM\))$")
    assert "Traceback" not in host.text


# F26: the death of the host.

GRANDCHILD = """
import subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(2, signal.SIG_IGN); "
    "signal.signal(15, signal.SIG_IGN); time.sleep(3600)"])
print("grandchild", grandchild.pid, flush=True)
"""

BLOCKED_LOOP = """
import time
from nonebot import get_driver

@get_driver().on_startup
async def blocks_the_loop():
    async def block():
        while True:
            try:
                print("blocked", flush=True)
                time.sleep(3600)
            except KeyboardInterrupt:
                pass
    import asyncio
    asyncio.get_running_loop().call_later(1, lambda: asyncio.ensure_future(block()))
"""

HARD_TO_INTERRUPT = """
import time
print("importing", flush=True)
while True:
    try:
        time.sleep(3600)
    except BaseException:
        pass
"""


@pytest.mark.parametrize(
    ("plugin", "sign"),
    [
        (GRANDCHILD + HOOKS, "child nonebot ready"),
        (GRANDCHILD + BLOCKED_LOOP, "blocked$"),
        (GRANDCHILD + HARD_TO_INTERRUPT, "importing$"),
    ],
    ids=["running", "event loop blocked", "importing"],
)
def test_f26_kill_9_of_the_host_leaves_nothing(start_host: StartHost, tmp_path: Path, plugin: str, sign: str) -> None:
    port = free_port()
    host = start_host(make_project(tmp_path / "bot", plugin, port=port))
    child = host.child_pid()
    match = re.search(r"grandchild (\d+)", host.line(r"grandchild \d+$"))
    assert match
    grandchild = int(match[1])
    host.line(sign)
    assert not is_gone(child)
    assert not is_gone(grandchild)
    os.kill(host.popen.pid, signal.SIGKILL)
    until(lambda: is_gone(child) and is_gone(grandchild) and not accepts(port), 2.0)
    host.wait()
    # What it prints now finds nobody.
    assert (tmp_path / "bot" / "shutdown-hook-ran").exists() or HOOKS not in plugin


def test_f26_also_in_the_first_moments_of_the_child(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host(make_project(tmp_path / "bot"))
    child = host.child_pid()
    os.kill(host.popen.pid, signal.SIGKILL)
    until(lambda: is_gone(child), 2.0)
    host.wait()


# Bad input: one clear line that names the culprit and the remedy, and no loop where another try cannot help.

NOT_THERE = PYPROJECT.replace("adapters.onebot", "adapters.nothere").replace("adapter-onebot", "adapter-nothere")


def test_a_missing_adapter(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host(make_project(tmp_path / "bot", pyproject=NOT_THERE))
    host.line(
        r"\[ERROR\] nonebot .* adapter module 'nonebot\.adapters\.nothere\.v11' is not installed for this bot: "
        r"correct its name, or run `.* -m pip install nonebot-adapter-nothere`$"
    )
    host.line(r"child nonebot cannot start: exited 78 before it was ready")
    host.stop()
    assert host.text.count("child nonebot started") == 1


def test_a_missing_driver_package(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host(make_project(tmp_path / "bot", driver="~aiohttp" if not _installed("aiohttp") else "~quart"))
    host.line(
        r"\[ERROR\] nonebot .*DRIVER in .env: driver ~\w+ needs what is not installed: run .*pip install 'nonebot2\["
    )
    host.line(r"child nonebot cannot start: exited 78")


def test_a_plugin_with_a_syntax_error_is_named_and_the_bot_runs(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host(make_project(tmp_path / "bot", "x = 1\ndef broken(:\n"))
    host.line(
        r"\[ERROR\] nonebot .* plugin mine was not loaded: .*plugins/mine\.py line 2: .*; the bot runs without it$"
    )
    host.line("child nonebot ready")


def test_a_plugin_that_misses_a_module_is_named_with_the_remedy(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host(make_project(tmp_path / "bot", "import no_such_thing\n"))
    host.line(r"plugin mine was not loaded: module 'no_such_thing' is not installed .* pip install no-such-thing`")
    host.line("child nonebot ready")


def test_a_script_that_raises_shows_pythons_traceback_and_one_line(start_host: StartHost, tmp_path: Path) -> None:
    bot = "def f():\n    raise ValueError('no luck')\nf()\n"
    host = start_host(make_project(tmp_path / "bot", pyproject="", bot=bot))
    host.line(r"ValueError: no luck \(bot\.py line 2\)$")
    host.line(r"child nonebot exited 1 before it was ready; starting it again")
    assert "liteyuki_host" not in host.text.partition("Traceback")[2].partition("ValueError")[0]


def test_a_port_in_use_is_told_in_words_and_never_taken_for_ours(start_host: StartHost, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        host = start_host(make_project(tmp_path / "bot", HOOKS, port=port))
        host.line(
            rf"\[ERROR\] nonebot .* port {port} on 127\.0\.0\.1 is in use by another program: .* PORT in its \.env$"
        )
        host.line(r"child nonebot cannot start: exited 78")
    assert "nonebot ready" not in host.text
    assert "shutdown hook ran" in host.text


def test_a_child_that_ends_itself_is_not_restarted(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host(make_project(tmp_path / "bot", HOOKS))
    child = host.child_pid()
    host.line("child nonebot ready")
    os.kill(child, signal.SIGINT)
    host.line(r"child nonebot ended by itself: exited 0; not starting it again$")
    host.line("shutdown hook ran")


def test_a_restart_gives_the_port_to_the_next_child(start_host: StartHost, tmp_path: Path) -> None:
    port = free_port()
    host = start_host(make_project(tmp_path / "bot", HOOKS, port=port))
    host.line("child nonebot ready")
    host.lines.clear()
    host.popen.send_signal(signal.SIGUSR1)
    host.line(r"child nonebot stopped after the stop message")
    host.line(rf"child nonebot ready in .*:{port}$")


# What children may start.


@pytest.mark.parametrize(
    ("method", "kind"), [("fork", "toml"), ("spawn", "toml"), ("spawn", "script"), ("forkserver", "script")]
)
def test_f31_a_process_pool_works_in_a_plugin(start_host: StartHost, tmp_path: Path, method: str, kind: str) -> None:
    plugin = f"""
import asyncio, multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from nonebot import get_driver, logger
import work

@get_driver().on_startup
async def _():
    context = multiprocessing.get_context({method!r})
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(*(loop.run_in_executor(pool, work.square, n) for n in range(4)))
    logger.info(f"pool says {{results}}")
"""
    project = make_project(
        tmp_path / "bot", plugin, pyproject="" if kind == "script" else PYPROJECT, bot=BOT if kind == "script" else ""
    )
    (project / "work.py").write_text("def square(n):\n    return n * n\n")
    host = start_host(project)
    host.line(re.escape("pool says [0, 1, 4, 9]"))
    host.line("child nonebot ready")
    host.stop()
    host.line(r"child nonebot stopped after the stop message in .* \(exited 0\)$")
    assert host.text.count("Running NoneBot...") == 1


def test_started_by_hand_it_says_so(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "liteyuki_host.launch", "--process", "x", "--kind", "toml"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "LYCOMM_LINK"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert result.returncode == 2
    assert "is started by the host only" in result.stderr
    assert "Traceback" not in result.stderr


def test_importing_launch_does_nothing() -> None:
    code = (
        "import sys, threading, signal; before = signal.getsignal(signal.SIGINT); import liteyuki_host.launch; "
        "assert threading.active_count() == 1 and signal.getsignal(signal.SIGINT) is before; "
        "assert not {'nonebot', 'loguru', 'msgspec', 'multiprocessing'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE)


def _installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None
