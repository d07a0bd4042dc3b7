"""The 2024 page's two halves, their import lines changed and nothing else, in a fresh project."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit import free_port, host_process, port_is_open, write

pytestmark = pytest.mark.e2e

MAIN_HALF = """
    import asyncio

    from liteyuki_host import get_bot
    from liteyuki_host.comm import Channel, get_channel

    channel_passive = get_channel("nonebot-passive")
    channel_active = get_channel("nonebot-active")
    liteyuki_bot = get_bot()


    @liteyuki_bot.on_after_start
    async def send_data():
        while True:
            channel_passive.send("I am liteyuki main process passive")
            channel_active.send("I am liteyuki main process active")
            await asyncio.sleep(1)
"""
CHILD_HALF = """
    from nonebot import get_driver
    from nonebot.log import logger
    from nonebot_plugin_lycomm import active_channel, passive_channel

    driver = get_driver()


    @passive_channel.on_receive(filter_func=lambda data: isinstance(data, str))
    async def on_passive_receive(data):
        logger.info(f"Passive receive: {data}")


    @driver.on_startup
    def on_startup():
        while True:
            data = active_channel.receive()
            logger.info(f"Active receive: {data}")


    @driver.on_shutdown
    async def leave():
        logger.info("shutdown hook ran")
"""
MEMORY = """
    from liteyuki_host.comm.storage import shared_memory

    shared_memory.set("key-{half}", "value")
    value = shared_memory.get("key-{half}")
    print("{half} reads", value, flush=True)
"""


def project(folder: Path) -> Path:
    return write(
        folder,
        {
            "pyproject.toml": """
                [tool.nonebot]
                adapters = []
                plugin_dirs = []
                plugins = { "@local" = ["child_half", "child_memory"] }
                [tool.lycomm]
                plugins = ["main_half", "main_memory"]
            """,
            "main_half.py": MAIN_HALF,
            "main_memory.py": MEMORY.format(half="main"),
            "child_half.py": CHILD_HALF,
            "child_memory.py": MEMORY.format(half="child"),
        },
    )


def test_both_halves_work_as_the_page_promised(tmp_path: Path) -> None:
    """F2 to F5, F43. D0: on every version of 2024 neither half could even be imported.

    D2: the channels did not exist yet when the main half asked. D3: the child's singletons were None. D4: the loop
    in the start-up hook kept NoneBot's port closed, and only SIGKILL ended it. D17: the shared memory hung when it
    was used at module level.
    """
    port = free_port()
    with host_process(project(tmp_path), PORT=str(port)) as host:
        host.wait_for("child nonebot ready")
        passive = "Passive receive: I am liteyuki main process passive"
        active = "Active receive: I am liteyuki main process active"
        host.wait_for(passive, count=3)
        host.wait_for(active, count=3)
        assert port_is_open(port)
        (warning,) = host.wait_for(r"\[WARNING\].*on_startup")
        assert "child_half" in warning
        assert "background_thread" in host.text
        host.wait_for("main reads value")
        host.wait_for("child reads value")
        assert host.stop() == 0
        host.wait_for("shutdown hook ran")
        assert "Traceback" not in host.text


def test_the_main_half_loaded_without_a_host_says_so(tmp_path: Path) -> None:
    """D27: get_bot() before init was a NameError."""
    write(tmp_path, {"main_half.py": MAIN_HALF})
    run = subprocess.run([sys.executable, "-c", "import main_half"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert re.match(r"liteyuki_host\.comm\.errors\.HostNotRunning: there is no host in this process yet", last)


@pytest.mark.parametrize("package", ["liteyuki_host", "liteyuki_host.host", "liteyuki_host.comm.storage"])
def test_importing_has_no_side_effects(package: str) -> None:
    """F32. D28: the import forced the start method of the whole program."""
    program = f"""if True:
        import logging, multiprocessing, signal, sys, threading
        before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], list(logging.root.handlers)
        import {package}
        after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], list(logging.root.handlers)
        assert before == after
        assert multiprocessing.get_start_method(allow_none=True) is None
        assert threading.active_count() == 1
        import loguru
        assert list(loguru.logger._core.handlers) == [0], "loguru's sinks were touched"
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_child_that_only_needs_channels_loads_no_host_code() -> None:
    program = """if True:
        import sys
        import liteyuki_host.comm.storage, liteyuki_host.comm.channel, liteyuki_host.comm.process.node
        heavy = [m for m in sys.modules if m.startswith(("liteyuki_host.hub", "liteyuki_host.supervisor", "pydantic"))]
        assert not heavy, heavy
        assert "nonebot" not in sys.modules
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_host_does_not_care_what_its_process_is_called(tmp_path: Path) -> None:
    """D27: main was recognised by the name MainProcess; renamed, it took itself for a child."""
    write(
        project(tmp_path),
        {
            "start.py": """
                import multiprocessing

                def run():
                    from liteyuki_host import Host
                    Host().run()

                if __name__ == "__main__":
                    process = multiprocessing.get_context("fork").Process(target=run, name="SomethingElse")
                    process.start()
                    import signal
                    signal.signal(signal.SIGINT, lambda *_: process.terminate())
                    process.join()
                    raise SystemExit(process.exitcode)
            """
        },
    )
    with host_process(tmp_path, "start.py", PORT=str(free_port())) as host:
        host.wait_for("child nonebot ready")
        host.wait_for("Passive receive")
        assert host.stop() == 0


LIFESPAN = r"""
    import sys

    from liteyuki_host import get_bot

    host = get_bot()
    for moment in ("on_before_start", "on_after_start", "on_before_process_shutdown", "on_before_process_restart",
                   "on_after_restart", "on_after_shutdown"):
        def hook(*names, moment=moment):
            # One write each: hooks run in threads of their own.
            sys.stdout.write(" ".join(["hook", moment, *names]) + "\n")
            sys.stdout.flush()
        getattr(host, moment)(hook)

    @host.on_before_start
    def broken():
        raise RuntimeError("a hook that fails")

    @host.on_after_start
    async def restart():
        await host.wait_ready("nonebot")
        await host.arestart_process("nonebot")
        sys.stdout.write("restarted\n")
        sys.stdout.flush()
"""


def test_all_lifespan_hooks_fire_once_and_in_order(tmp_path: Path) -> None:
    """F18, F19. D23: one restart fired a hook three times, without a name, and could not be asked from async code."""
    write(
        tmp_path,
        {
            "pyproject.toml": '[tool.nonebot]\nplugins = []\nadapters = []\n[tool.lycomm]\nplugins = ["hooks"]\n',
            "hooks.py": LIFESPAN,
        },
    )
    with host_process(tmp_path, DRIVER="~none") as host:
        host.wait_for("^restarted$")
        host.wait_for(r"on_before_start hook hooks\.broken failed")
        assert host.stop() == 0
        assert [line.removeprefix("hook ") for line in host.lines if line.startswith("hook ")] == [
            "on_before_start",
            "on_after_start",
            "on_before_process_restart nonebot",
            "on_before_process_shutdown nonebot",
            "on_after_restart nonebot",
            "on_before_process_shutdown nonebot",
            "on_after_shutdown",
        ]


def test_one_log_format_and_a_level_that_filters(tmp_path: Path) -> None:
    """F30."""
    write(
        tmp_path,
        {
            "pyproject.toml": '[tool.nonebot]\nplugins = ["talk"]\nadapters = []\n[tool.lycomm]\nplugins = ["say"]\n',
            "talk.py": "from nonebot.log import logger\nlogger.debug('child debug')\nlogger.info('child 信息')\n",
            "say.py": "from loguru import logger\nlogger.debug('host debug')\nlogger.info('host 信息')\n",
        },
    )
    with host_process(tmp_path, DRIVER="~none") as host:
        host.wait_for("child nonebot ready")
        stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\] "
        host.wait_for(stamp + r"nonebot \| talk \| child 信息$")
        host.wait_for(stamp + r"host \| host 信息$")
        assert "debug" not in host.text
        assert host.stop() == 0


def test_a_host_inside_a_child_is_refused_in_words(tmp_path: Path) -> None:
    """A bot.py that starts the host must not start hosts for ever."""
    write(
        tmp_path,
        {
            # Not written as an import, or the project's inspection would refuse it before it runs.
            "start.py": "__import__('liteyuki_host').Host().run()\n",
            "pyproject.toml": '[tool.lycomm.processes.nonebot]\nentry = "start.py"\n',
        },
    )
    with host_process(tmp_path) as host:
        host.wait_for("this script starts a host, but it runs as the host's child 'nonebot'")
        assert host.stop() == 0
