"""``await host.serve()`` in a program with a loop of its own: however it is cancelled, the bots end in order."""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest
from kit import HostProcess, host_process, write

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Ctrl+C is sent as SIGINT"),
]

PLUGIN = """
import asyncio
import nonebot

@nonebot.get_driver().on_shutdown
async def save():
    print("HOOK begins", flush=True)
    await asyncio.sleep(SECONDS)
    print("HOOK ends", flush=True)
"""

HEAD = """\
import asyncio, sys
import anyio
from liteyuki_host import Host

host = Host()

@host.on_after_shutdown
async def after():
    await asyncio.sleep(0.1)
    print("AFTER SHUTDOWN", flush=True)

async def ready():
    await host.wait_ready("nonebot")

async def serve():
    try:
        await host.serve()
    except asyncio.CancelledError:
        print("CANCELLED", flush=True)
        raise

"""

BY_CTRL_C = {
    "asyncio.run": "asyncio.run(serve())",
    "anyio.run": "anyio.run(serve)",
    "gather": """
        async def main():
            await asyncio.gather(serve(), asyncio.sleep(1000))
        asyncio.run(main())
    """,
    "a task of its own": """
        async def main():
            task = asyncio.create_task(serve())
            await asyncio.sleep(1000)
        asyncio.run(main())
    """,
    "anyio group": """
        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                await anyio.sleep(1000)
        anyio.run(main)
    """,
    "a loop by hand": """
        loop = asyncio.new_event_loop()
        task = loop.create_task(serve())
        try:
            loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
        loop.close()
    """,
}

BY_ITSELF = {
    "gather, neighbour fails": """
        async def main():
            async def fail():
                await ready()
                raise RuntimeError("mine")
            await asyncio.gather(serve(), fail())
        asyncio.run(main())
    """,
    "anyio group, neighbour fails": """
        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                await ready()
                raise RuntimeError("mine")
        anyio.run(main)
    """,
    "TaskGroup, neighbour fails": """
        async def main():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve())
                await ready()
                raise RuntimeError("mine")
        asyncio.run(main())
    """,
    "wait_for": """
        async def main():
            task = asyncio.create_task(serve())
            await ready()
            try:
                await asyncio.wait_for(task, 0.2)
            except asyncio.TimeoutError:
                print("TIMEOUT", flush=True)
        asyncio.run(main())
    """,
    "task.cancel": """
        async def main():
            task = asyncio.create_task(serve())
            await ready()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
        asyncio.run(main())
    """,
    "anyio scope": """
        async def main():
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    async def cancel():
                        await ready()
                        scope.cancel()
                    tasks.start_soon(cancel)
                    await serve()
            assert scope.cancelled_caught
        anyio.run(main)
    """,
    "anyio deadline": """
        async def main():
            async def limit(scope):
                await ready()
                scope.deadline = anyio.current_time() + 0.2
            with anyio.CancelScope() as scope:
                task = asyncio.create_task(limit(scope))
                await serve()
            assert scope.cancelled_caught
        asyncio.run(main())
    """,
    "the program returns": """
        async def main():
            task = asyncio.create_task(serve())
            await ready()
        asyncio.run(main())
    """,
    "cancelled, and the scope around it as well": """
        async def main():
            async with anyio.create_task_group() as tasks:
                task = asyncio.create_task(serve())
                await ready()
                task.cancel()
                with anyio.move_on_after(0.3, shield=True):
                    await asyncio.wait({task})
                tasks.cancel_scope.cancel()
            await asyncio.wait({task})
        asyncio.run(main())
    """,
}


def program(folder: Path, code: str, seconds: float = 0.3) -> Path:
    return write(
        folder,
        {
            "pyproject.toml": '[tool.nonebot]\nplugin_dirs = ["plugins"]\n',
            ".env": "DRIVER=~none\n",
            "plugins/saves.py": PLUGIN.replace("SECONDS", str(seconds)),
            "program.py": HEAD + textwrap.dedent(code),
        },
    )


def ended_in_order(host: HostProcess) -> None:
    text = host.text
    assert "HOOK ends" in text, text
    assert "child nonebot stopped after the stop message" in text, text
    assert text.index("AFTER SHUTDOWN") < text.index("CANCELLED"), text
    assert "asked again" not in text


@pytest.mark.parametrize("code", BY_CTRL_C.values(), ids=BY_CTRL_C)
def test_one_ctrl_c(tmp_path: Path, code: str) -> None:
    with host_process(program(tmp_path, code), "program.py") as host:
        host.wait_for("child nonebot ready")
        host.tree()
        host.send(signal.SIGINT)
        host.wait()
        ended_in_order(host)


@pytest.mark.parametrize("code", BY_ITSELF.values(), ids=BY_ITSELF)
def test_other_cancellations(tmp_path: Path, code: str) -> None:
    if "asyncio.TaskGroup" in code and sys.version_info < (3, 11):
        pytest.skip("asyncio.TaskGroup is new in Python 3.11")
    with host_process(program(tmp_path, code), "program.py") as host:
        host.wait_for("child nonebot ready")
        host.tree()
        host.wait()
        ended_in_order(host)
        assert "mine" in host.text or "Traceback" not in host.text


@pytest.mark.parametrize("name", ["asyncio.run", "a task of its own", "anyio.run"])
def test_ctrl_c_once_more_kills(tmp_path: Path, name: str) -> None:
    with host_process(program(tmp_path, BY_CTRL_C[name], seconds=60), "program.py") as host:
        host.wait_for("child nonebot ready")
        host.tree()
        host.send(signal.SIGINT)
        host.wait_for("HOOK begins")
        time.sleep(1.1)  # what is due is the time between the two
        host.send(signal.SIGINT)
        host.wait()
        host.wait_for("child nonebot stopped after a kill")


def test_cancelled_again_by_the_program(tmp_path: Path) -> None:
    """At once: two calls of task.cancel() are two requests."""
    code = """
        async def main():
            task = asyncio.create_task(serve())
            await ready()
            for pause in (0.2, 0.2):
                task.cancel()
                await asyncio.sleep(pause)
            await asyncio.wait({task})
            assert task.cancelled()
        asyncio.run(main())
    """
    with host_process(program(tmp_path, code, seconds=60), "program.py") as host:
        host.wait_for("child nonebot ready")
        host.tree()
        assert host.wait() == 0
        host.wait_for("child nonebot stopped after a kill")
        host.wait_for("CANCELLED")


def test_cancellations_of_one_moment_are_one_request(tmp_path: Path) -> None:
    """A program that cancels its task for SIGINT and for SIGTERM gets both from a wrapper."""
    code = """
        async def main():
            task = asyncio.create_task(serve())
            await ready()
            task.cancel()
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
        asyncio.run(main())
    """
    with host_process(program(tmp_path, code), "program.py") as host:
        host.wait_for("child nonebot ready")
        host.tree()
        assert host.wait(10) == 0
        host.wait_for("HOOK ends")
        host.wait_for("CANCELLED")


@pytest.mark.parametrize("close", ["loop.close()", "loop.stop()"])
def test_a_loop_that_is_left_without_a_word(tmp_path: Path, close: str) -> None:
    """Nobody cancels anything: the loop is no more, or the program has ended."""
    code = f"""
        loop = asyncio.new_event_loop()
        task = loop.create_task(host.serve())
        loop.run_until_complete(ready())
        {close}
        print("LEFT", flush=True)
    """
    with host_process(program(tmp_path, code), "program.py") as host:
        host.wait_for("child nonebot ready")
        host.tree()
        host.wait_for("LEFT")
        host.wait()
        host.wait_for("HOOK ends")
        host.wait_for("child nonebot stopped after the stop message")


JOIN_THEN_STOP = """
thread.start()
try:
    while thread.is_alive():
        thread.join(0.2)
except KeyboardInterrupt:
    host.stop()
    thread.join()
"""


def test_a_join_that_ctrl_c_interrupts(tmp_path: Path) -> None:
    """Until Python 3.12 the thread then passes for ended, though it serves the host."""
    code = "import threading\nthread = threading.Thread(target=lambda: asyncio.run(host.serve()))\n" + JOIN_THEN_STOP
    with host_process(program(tmp_path, code, seconds=3), "program.py") as host:
        host.wait_for("child nonebot ready")
        host.tree()
        host.send(signal.SIGINT)
        host.wait()
        host.wait_for("HOOK ends")
        host.wait_for("child nonebot stopped after the stop message")


def test_the_end_of_a_program_whose_daemon_thread_serves(tmp_path: Path) -> None:
    code = """
        import threading
        threading.Thread(target=lambda: asyncio.run(host.serve()), daemon=True).start()
        asyncio.run(ready())
        print("LEFT", flush=True)
    """
    with host_process(program(tmp_path, code), "program.py") as host:
        host.wait_for("LEFT")
        host.tree()
        assert host.wait() == 0
        host.wait_for("HOOK ends")
        host.wait_for("child nonebot stopped after the stop message")


IN_A_THREAD = {
    "join": """
        thread = threading.Thread(target=host.run)
        thread.start()
        thread.join()
    """,
    "join, then stop and join": "\nthread = threading.Thread(target=host.run)\n" + JOIN_THEN_STOP,
    "join, then stop": """
        thread = threading.Thread(target=host.run)
        thread.start()
        try:
            thread.join()
        except KeyboardInterrupt:
            host.stop()
    """,
    "a daemon": """
        threading.Thread(target=host.run, daemon=True).start()
        threading.Event().wait()
    """,
    "a daemon, and the program exits": """
        threading.Thread(target=host.run, daemon=True).start()
        asyncio.run(ready())
        sys.exit(3)
    """,
}


@pytest.mark.parametrize("code", IN_A_THREAD.values(), ids=IN_A_THREAD)
def test_run_in_a_thread_of_the_program(tmp_path: Path, code: str) -> None:
    """However the program treats that thread, bots and host end in order when the program does."""
    code = "import threading" + textwrap.dedent(code)
    with host_process(program(tmp_path, code, seconds=1.5), "program.py") as host:
        host.wait_for("child nonebot ready")
        host.tree()
        if "sys.exit" not in code:
            host.send(signal.SIGINT)
        host.wait()
        host.wait_for("HOOK ends")
        host.wait_for("child nonebot stopped after the stop message")
        host.wait_for("AFTER SHUTDOWN")
        host.wait_for("host stopped")


def test_a_main_thread_that_has_nothing_left_to_do_leaves_the_host_alone(tmp_path: Path) -> None:
    code = """
        import threading, time
        threading.Thread(target=host.run).start()

        def later():
            asyncio.run(ready())
            threading.main_thread().join()
            time.sleep(2.5)  # the host looks once a second
            print("STILL", host.status()[0]["state"], flush=True)
            host.stop()

        threading.Thread(target=later).start()
    """
    with host_process(program(tmp_path, code), "program.py") as host:
        host.wait_for("STILL ready")
        host.tree()
        assert host.wait() == 0
        host.wait_for("AFTER SHUTDOWN")


def test_a_program_that_blocks_its_loop(tmp_path: Path) -> None:
    """Nothing that the program does on its loop keeps a bot from being looked after."""
    code = """
        import os, signal, time
        async def main():
            task = asyncio.create_task(host.serve())
            await ready()
            before = host.status()[0]["pid"]
            os.kill(before, signal.SIGKILL)
            deadline = time.monotonic() + 20
            while host.status()[0]["pid"] in (before, None) or host.status()[0]["state"] != "ready":
                assert time.monotonic() < deadline
                time.sleep(0.1)  # the loop stands still
            print("BACK", flush=True)
            host.stop()
            await task
        asyncio.run(main())
    """
    with host_process(program(tmp_path, code, seconds=0), "program.py", LYCOMM_BACKOFF_BASE="0.1") as host:
        host.wait_for("BACK", timeout=40)
        assert host.wait() == 0


def test_hooks_run_on_the_loop_of_the_program(tmp_path: Path) -> None:
    code = """
        import threading
        seen = []

        def here():
            return asyncio.get_running_loop(), threading.current_thread() is threading.main_thread()

        @host.on_before_start
        async def _(): seen.append(here())
        @host.on_after_start
        async def _():
            seen.append(here())
            await host.arestart_process("nonebot")
            host.stop()
        @host.on_before_process_restart
        async def _(name): seen.append(here())
        @host.on_before_process_shutdown
        async def _(name): seen.append(here())
        @host.on_after_restart
        async def _(name): seen.append(here())
        @host.on_after_shutdown
        async def _(): seen.append(here())

        async def main():
            await host.serve()
            assert seen == [here()] * len(seen), seen
            print("SEEN", len(seen), flush=True)
        asyncio.run(main())
    """
    with host_process(program(tmp_path, code, seconds=0), "program.py") as host:
        assert host.wait(30) == 0, host.text
        host.wait_for("SEEN [67]")  # on_after_restart may be cut off by the stop
