"""A bot that is to stop while it starts is interrupted at once: there is nothing that it has to finish."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kit import eventually, free_port, write

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
