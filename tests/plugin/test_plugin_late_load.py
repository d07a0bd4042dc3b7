"""The plugin loaded in a bot that has started, where the bot's event loop does not run: it used to fail there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEADLINE = 40

HEAD = """
import asyncio, threading
import nonebot

nonebot.init(driver="~none", log_level="WARNING")
driver = nonebot.get_driver()

def load():
    assert nonebot.load_plugin("nonebot_plugin_lycomm")

async def works():
    from nonebot_plugin_lycomm import publish, subscribe
    got = asyncio.Queue()
    loops = set()

    @subscribe("late")
    async def callback(data):
        loops.add(asyncio.get_running_loop())
        await got.put(data)

    publish("late", 1)
    assert await asyncio.wait_for(got.get(), 10) == 1
    assert loops == {asyncio.get_running_loop()}
"""

LOADS = {
    "in a thread": """
        async def main():
            async with driver._lifespan:
                await asyncio.to_thread(load)
                await works()
        asyncio.run(main())
    """,
    "in a thread of its own": """
        async def main():
            async with driver._lifespan:
                thread = threading.Thread(target=load)
                thread.start()
                await asyncio.to_thread(thread.join)
                await works()
        asyncio.run(main())
    """,
    "in a thread with a loop": """
        async def load_there():
            load()
        async def main():
            async with driver._lifespan:
                await asyncio.to_thread(asyncio.run, load_there())
                await works()
        asyncio.run(main())
    """,
    "while the loop stands still": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(driver._lifespan.startup())
        load()
        loop.run_until_complete(works())
        loop.run_until_complete(driver._lifespan.shutdown())
        loop.close()
    """,
    "in a blocking start-up hook": """
        driver.on_startup(load)
        async def main():
            async with driver._lifespan:
                await works()
        asyncio.run(main())
    """,
    "in a coroutine": """
        async def main():
            async with driver._lifespan:
                load()
                await works()
        asyncio.run(main())
    """,
}


def run(tmp_path: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, *(arguments or ("program.py",))]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False)


def text(body: str) -> str:
    lines = body.splitlines()
    return HEAD + "\n".join(line[8:] for line in lines) + "\n"


@pytest.mark.parametrize("load", LOADS)
def test_late_plugin_calls_back(tmp_path: Path, load: str) -> None:
    ended = run(tmp_path, text(LOADS[load]))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [line] = [line for line in ended.stdout.splitlines() if "[SUCCESS]" not in line]
    assert "no host: channels to it are off" in line


def test_loop_is_let_go_at_shutdown(tmp_path: Path) -> None:
    program = """
        async def main():
            async with driver._lifespan:
                await asyncio.to_thread(load)
                await works()
        asyncio.run(main())
        from liteyuki_host.comm.process.current import current
        assert current().loop is None
    """
    ended = run(tmp_path, text(program))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_unknown_loop_is_one_line(tmp_path: Path) -> None:
    """NoneBot on another kind of event loop, or with another AnyIO."""
    program = """
        async def main():
            async with driver._lifespan:
                scope = driver.task_group.cancel_scope
                task, scope._host_task = scope._host_task, None
                await asyncio.to_thread(load)
                scope._host_task = task
        asyncio.run(main())
    """
    ended = run(tmp_path, text(program))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("cannot find its event loop: callbacks of channels and topics are not called") == 1
    assert "never awaited" not in ended.stderr


TEST = """
import asyncio
import nonebot
import pytest

@pytest.fixture(scope="session", autouse=True)
def load(nonebug_init):
    assert nonebot.load_plugin("nonebot_plugin_lycomm")

async def test_plugin(app, lycomm_pair):
    from nonebot_plugin_lycomm import passive_channel

    @passive_channel.on_receive()
    async def answer(data):
        return data + 1

    assert await lycomm_pair.host_channel("nonebot-passive").request(1, timeout=10) == 2
"""


def test_fixture_that_is_no_coroutine(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = session\n"
        "asyncio_default_test_loop_scope = session\n"
    )
    ended = run(tmp_path, "", "-m", "pytest", "-q")
    assert ended.returncode == 0, ended.stdout + ended.stderr
