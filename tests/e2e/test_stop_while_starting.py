"""A bot that is to stop while it starts is interrupted at once: there is nothing that it has to finish."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kit import eventually, free_port, host_process, write

from liteyuki_host.host import Host

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows interrupts a hook by the second rung"),
]

HOOK = """
import asyncio, time
import nonebot

@nonebot.get_driver().on_startup
KIND def hang():
    try:
        print("HOOK", flush=True)  # a signal may arrive before this returns
        WAIT
    finally:
        print("CLEANED UP", flush=True)

@nonebot.get_driver().on_startup
async def later():
    print("LATER HOOK", flush=True)
"""

ASYNC = HOOK.replace("KIND", "async")
STARTS = {
    "awaits": ASYNC.replace("WAIT", "await asyncio.sleep(60)"),
    "awaits a neighbour": ASYNC.replace("WAIT", "await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))"),
    "tries again for ever": ASYNC.replace(
        "WAIT", "while True:\n            try: await asyncio.sleep(60)\n            except Exception: pass"
    ),
    "blocks the loop": ASYNC.replace("WAIT", "time.sleep(60)"),
    "waits in a thread": ASYNC.replace("WAIT", "await asyncio.to_thread(time.sleep, 60)"),
    "is no coroutine": HOOK.replace("KIND ", "").replace("WAIT", "time.sleep(60)"),
    "imports": "import time\nprint('HOOK')\ntry: time.sleep(60)\nfinally: print('CLEANED UP')\n",
}
SECONDS = 4.0
"""A hook that is not interrupted costs six, and more; one that is takes half a second, on a busy machine two."""


def project(folder: Path, code: str, driver: str) -> str:
    return str(
        write(
            folder,
            {
                "pyproject.toml": '[tool.nonebot]\nplugin_dirs = ["plugins"]\n',
                ".env": f"DRIVER={driver}\nPORT={free_port()}\n",
                "plugins/hangs.py": code,
            },
        )
    )


def text(host: Host, name: str) -> str:
    return "\n".join(line.text for line in host.output(name).lines(0)[0])


async def serve(folder: Path, processes: dict[str, Any]) -> tuple[Host, asyncio.Task[None]]:
    host = Host(folder, processes=processes, on_failed="stay")
    return host, asyncio.create_task(host.serve())


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
async def test_a_stop(tmp_path: Path, driver: str) -> None:
    names = {f"bot{number}": kind for number, kind in enumerate(STARTS)}
    host, serving = await serve(
        tmp_path, {name: {"project": project(tmp_path / name, STARTS[kind], driver)} for name, kind in names.items()}
    )
    try:
        for name, kind in names.items():
            await eventually(lambda name=name: "HOOK" in text(host, name), timeout=40)
            began = time.monotonic()
            await host.astop_process(name)
            took = time.monotonic() - began
            printed = text(host, name)
            assert took < SECONDS, (kind, took, printed)
            assert "LATER HOOK" not in printed, kind
            assert "Traceback" not in printed, (kind, printed)
            if kind not in ("waits in a thread", "is no coroutine"):  # a thread cannot be interrupted
                assert "CLEANED UP" in printed, (kind, printed)
            status = next(each for each in host.status() if each["name"] == name)
            assert (status["state"], status["last_exit"]) == ("stopped", "exited 0"), (kind, printed)
    finally:
        host.stop()
        await asyncio.wait_for(serving, 20)


async def test_a_restart(tmp_path: Path) -> None:
    code = "import os\n" + ASYNC.replace("WAIT", "await asyncio.sleep(0 if os.path.exists('go') else 60)")
    folder = project(tmp_path, code, "~none")
    host, serving = await serve(tmp_path, {"bot": {"project": folder}})
    try:
        await eventually(lambda: "HOOK" in text(host, "bot"), timeout=40)
        write(tmp_path, {"go": ""})
        began = time.monotonic()
        host.restart_process("bot")
        await eventually(lambda: "stopping" in [str(step.state) for step in host.history("bot")])
        await eventually(lambda: host.status()[0]["state"] == "starting")
        assert time.monotonic() - began < SECONDS
        await host.wait_ready("bot", 30)
    finally:
        host.stop()
        await asyncio.wait_for(serving, 20)


async def test_a_stop_of_a_child_that_has_only_been_spawned(tmp_path: Path) -> None:
    """It has not reached the host yet, and runs no code of the bot; its greeting used to be waited for."""
    folder = project(tmp_path, ASYNC.replace("WAIT", "await asyncio.sleep(60)"), "~none")
    host, serving = await serve(tmp_path, {"bot": {"project": folder}})
    try:
        await eventually(lambda: host.status()[0]["pid"] is not None)
        began = time.monotonic()
        await host.astop_process("bot")
        assert time.monotonic() - began < SECONDS
        assert "Traceback" not in text(host, "bot")
    finally:
        host.stop()
        await asyncio.wait_for(serving, 20)


async def test_a_hook_that_does_not_notice(tmp_path: Path) -> None:
    """The second rung ends it, and that comes soon."""
    code = ASYNC.replace(
        "WAIT", "while True:\n            try: await asyncio.sleep(60)\n            except BaseException: pass"
    )
    folder = project(tmp_path, code, "~none")
    host, serving = await serve(tmp_path, {"bot": {"project": folder, "terminate_timeout": 0.3}})
    try:
        await eventually(lambda: "HOOK" in text(host, "bot"), timeout=40)
        began = time.monotonic()
        await host.astop_process("bot")
        assert time.monotonic() - began < 1.0 + 1.5 + 0.3 + SECONDS
    finally:
        host.stop()
        await asyncio.wait_for(serving, 20)


# What earlier start-up hooks have opened is closed by the shutdown hooks, which take their time.
SAVES = """
import asyncio, pathlib, time
import nonebot

driver = nonebot.get_driver()

@driver.on_startup
async def opens():
    print("OPENED", flush=True)

@driver.on_shutdown
SHUTDOWN def saves():
    print("SAVES", flush=True)
    PAUSE
    pathlib.Path("saved").touch()
    print("SAVED", flush=True)

@driver.on_startup
START def waits():
    print("WAITS", flush=True)
    WAIT
"""
SAVING = {  # how the shutdown hook takes its time, and what the start-up hook waits for
    "awaits": ("async", "await asyncio.sleep(2.5)", "async", "await asyncio.sleep(60)"),
    "blocks the loop": ("async", "time.sleep(2.5)", "async", "time.sleep(60)"),
    "is no coroutine": ("", "time.sleep(2.5)", "", "time.sleep(60)"),
    "after a thread": ("async", "await asyncio.sleep(1)", "async", "await asyncio.to_thread(time.sleep, 4)"),
    "after a clean-up": (
        "async",
        "await asyncio.sleep(2.5)",
        "async",
        "\n    try: await asyncio.sleep(60)\n    finally: await asyncio.sleep(0.7)",
    ),
    "after another error": (
        "async",
        "await asyncio.sleep(2.5)",
        "async",
        "\n    try: await asyncio.sleep(60)\n    except BaseException: raise RuntimeError('not connected')",
    ),
}


def saving(kind: str) -> str:
    shutdown, pause, start, wait = SAVING[kind]
    code = SAVES.replace("SHUTDOWN ", f"{shutdown} " if shutdown else "").replace("PAUSE", pause)
    return code.replace("START ", f"{start} " if start else "").replace("WAIT\n", f"{wait}\n")


SAVING_CASES = [("~none", kind) for kind in SAVING] + [
    ("~fastapi", "awaits"),
    ("~fastapi", "blocks the loop"),
    ("~fastapi", "after a thread"),
    ("~httpx+~websockets", "awaits"),
    ("~quart", "awaits"),
]


@pytest.mark.parametrize(("driver", "kind"), SAVING_CASES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_hooks_take_their_time(tmp_path: Path, driver: str, kind: str, number: signal.Signals) -> None:
    if any(importlib.util.find_spec(part.strip("~")) is None for part in driver.split("+") if part != "~none"):
        pytest.skip(f"{driver} is not installed")
    folder = Path(project(tmp_path, saving(kind), driver))
    with host_process(folder) as host:
        host.wait_for("WAITS$", timeout=40)
        began = time.monotonic()
        host.send(number)
        host.wait_for("SAVES$", timeout=5)
        begun = time.monotonic() - began
        assert host.wait(20) == 0
        assert (folder / "saved").exists(), host.text
        assert begun < SECONDS, "the start-up hook is interrupted at once"
        assert ("Traceback" in host.text) is (kind == "after another error"), host.text
        if kind != "after a thread":  # one that runs on is not waited for any longer than before
            host.wait_for("child nonebot stopped after the stop message")


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_shutdown_hooks_have_the_whole_stop_timeout(tmp_path: Path, driver: str) -> None:
    """Not more: one that hangs is ended as in any other stop."""
    code = saving("awaits").replace("sleep(2.5)", "sleep(60)")
    folder = Path(project(tmp_path, code, driver))
    limits = {"LYCOMM_STOP_TIMEOUT": "3", "LYCOMM_INTERRUPT_TIMEOUT": "0.5", "LYCOMM_TERMINATE_TIMEOUT": "3"}
    with host_process(folder, **limits) as host:
        host.wait_for("WAITS$", timeout=40)
        host.send(signal.SIGTERM)
        assert host.wait(15) == 0
        assert len(host.wait_for(r"is still there 3\.\d s after the first request; next: SIGINT")) == 1
        assert "next: a kill" not in host.text
        assert not (folder / "saved").exists()


AFTER_RUN = """
import pathlib, time
import nonebot

nonebot.init()

@nonebot.get_driver().on_startup
async def waits():
    import asyncio
    print("WAITS", flush=True)
    await asyncio.sleep(60)

nonebot.run()
print("SAVES", flush=True)
time.sleep(2.5)
pathlib.Path("saved").touch()
"""


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_what_follows_the_run_takes_its_time(tmp_path: Path, driver: str) -> None:
    write(tmp_path, {"pyproject.toml": "", ".env": f"DRIVER={driver}\nPORT={free_port()}\n", "bot.py": AFTER_RUN})
    with host_process(tmp_path) as host:
        host.wait_for("WAITS$", timeout=40)
        host.send(signal.SIGTERM)
        host.wait_for("SAVES$", timeout=5)
        assert host.wait(15) == 0
        assert (tmp_path / "saved").exists(), host.text
        assert "Traceback" not in host.text, host.text


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_a_whole_control_group(tmp_path: Path, driver: str) -> None:
    """The bot begins to end by its own SIGTERM, before the host knows of it."""
    folder = Path(project(tmp_path, saving("awaits"), driver))
    with host_process(folder) as host:
        host.wait_for("WAITS$", timeout=40)
        bot = host.child()
        bot.terminate()
        host.wait_for("SAVES$", timeout=5)
        host.send(signal.SIGTERM)
        assert host.wait(20) == 0
        assert (folder / "saved").exists(), host.text
        assert "Traceback" not in host.text, host.text
