"""The main job as its user sees it: ``python bot.py`` in a clone, one Ctrl+C, and a OneBot v11 client on it."""

from __future__ import annotations

import re
import signal
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from kit import ROOT, free_port, host_process, port_is_open, write
from onebot_client import onebot_client

pytestmark = pytest.mark.e2e

LINE = (
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \[INFO\] nonebot \| \S+ \| (Passive|Active) receive: I am liteyuki main process"
)


def test_python_bot_py_runs_host_and_child_and_one_ctrl_c_ends_both() -> None:
    port = free_port()
    with host_process(ROOT, "bot.py", PORT=str(port)) as host:
        host.wait_for(r"\[INFO\] host \| host up .*press Ctrl\+C to stop", timeout=10)
        host.wait_for(r"\[INFO\] host \| child nonebot started")
        host.wait_for(rf"\[INFO\] host \| child nonebot ready in .*http://127\.0\.0\.1:{port}", timeout=10)
        host.wait_for(rf"OneBot V11 reverse WebSocket listens on ws://127\.0\.0\.1:{port}/onebot/v11/ws")
        lines = host.wait_for(LINE, count=4, timeout=15)
        seen = [re.match(LINE, line) for line in lines[:4]]
        kinds = [match[2] for match in seen if match]
        times = [datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S") for match in seen if match]
        assert kinds == ["Passive", "Active", "Passive", "Active"]
        for first, second in ((0, 2), (1, 3)):
            assert 2 <= (times[second] - times[first]).total_seconds() <= 4
        assert port_is_open(port)
        assert "KeyError" not in host.text
        assert host.stop() == 0
        host.wait_for("Application shutdown complete")
        assert not port_is_open(port)
        assert "Traceback" not in host.text


def test_sigterm_ends_both_cleanly_too() -> None:
    with host_process(ROOT, "bot.py", PORT=str(free_port())) as host:
        host.wait_for("child nonebot ready")
        host.tree()
        host.send(signal.SIGTERM)
        assert host.wait(10) == 0
        host.wait_for("Application shutdown complete")


def chat_project(folder: Path, port: int) -> Path:
    return write(
        folder,
        {
            "pyproject.toml": f"""
                [tool.nonebot]
                plugin_dirs = []
                plugins = {{ "nonebot-plugin-lycomm" = ["nonebot_plugin_lycomm"], "@local" = ["examples.echo_bot"] }}
                [tool.nonebot.adapters]
                nonebot-adapter-onebot = [{{ name = "OneBot V11", module_name = "nonebot.adapters.onebot.v11" }}]
                [tool.lycomm]
                plugins = ["examples.echo_host"]
                [tool.lycomm.processes.nonebot]
                env = {{ PYTHONPATH = {str(ROOT)!r}, PORT = {port} }}
            """,
            ".env": 'SUPERUSERS=["10000"]\nCOMMAND_START=["/"]\n',
        },
    )


async def test_a_group_message_goes_through_the_host_and_back_and_a_restart_is_answered(tmp_path: Path) -> None:
    port = free_port()
    folder = chat_project(tmp_path, port)
    with host_process(folder, PYTHONPATH=str(ROOT)) as host:
        host.wait_for("child nonebot ready")
        async with onebot_client(f"ws://127.0.0.1:{port}/onebot/v11/ws") as client:
            await client.wait_connected()
            await client.send_group_message("hello", user_id=77, group_id=4242)
            call = await client.wait_for_call("send_group_msg")
            assert call.params["group_id"] == 4242
            assert call.text == "the host heard: hello"
            pid = host.child().pid
            await client.send_group_message("/restart", user_id=10000, group_id=4242)
            assert "restarting" in (await client.wait_for_message()).text
            back = await client.wait_for_message(timeout=30)
            assert re.search(r"restarted, took \d+(\.\d+)? s", back.text)
            assert back.params["group_id"] == 4242
            assert back.connection == 2
            host.wait_for("ready in", count=2)  # else the next restart may come before it, and the line never
            await client.send_private_message("/restart", user_id=10000)
            assert "restarting" in (await client.wait_for_message()).text
            back = await client.wait_for_message(timeout=30)
            assert re.search(r"restarted, took \d+(\.\d+)? s", back.text)
            assert back.params["user_id"] == 10000
            assert back.connection == 3
            await client.send_private_message("/status", user_id=10000)
            assert "nonebot" in (await client.wait_for_message()).text
            await client.send_group_message("/restart", user_id=666, group_id=4242)  # no superuser
            await client.send_group_message("still here", user_id=77, group_id=4242)
            # NoneBot handles events side by side, so the two answers may come in either order.
            heard = {(await client.wait_for_call("send_group_msg")).text for _ in range(2)}
            assert heard == {"the host heard: /restart", "the host heard: still here"}
            assert not psutil.pid_exists(pid)
            assert len(host.wait_for("ready in", count=3)) == 3
            assert host.stop() == 0
