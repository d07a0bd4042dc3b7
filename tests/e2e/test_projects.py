"""Ordinary NoneBot projects run unchanged as children."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from kit import CHILDREN, free_port, host_process, lab_project, port_is_open, running_host, write

pytestmark = pytest.mark.e2e

PLUGIN = """
    import os, sys
    from nonebot import get_driver, logger

    driver = get_driver()

    @driver.on_startup
    async def tell():
        logger.info(f"cwd={os.getcwd()} driver={driver.type} answer={driver.config.answer} prefix={sys.prefix}")

    @driver.on_shutdown
    async def leave():
        logger.info("shutdown hook ran")
"""
NEW_FORMAT = """
    [tool.nonebot]
    plugin_dirs = []
    builtin_plugins = ["echo"]
    [tool.nonebot.adapters]
    nonebot-adapter-onebot = [{ name = "OneBot V11", module_name = "nonebot.adapters.onebot.v11" }]
    [tool.nonebot.plugins]
    "@local" = ["teller"]
"""
OLD_FORMAT = """
    [tool.nonebot]
    adapters = [{ name = "OneBot V11", module_name = "nonebot.adapters.onebot.v11" }]
    plugins = ["teller"]
    plugin_dirs = []
    builtin_plugins = []
"""
OWN_BOT = """
    import nonebot
    from nonebot.adapters.onebot.v11 import Adapter

    nonebot.init()
    nonebot.get_driver().register_adapter(Adapter)
    nonebot.load_plugin("teller")

    if __name__ == "__main__":
        nonebot.run()
"""


@pytest.mark.parametrize("driver", ["~fastapi", "~none", "~httpx+~websockets"])
@pytest.mark.parametrize("kind", ["new format", "old format", "own bot.py"])
def test_an_existing_project_runs_unchanged(tmp_path: Path, kind: str, driver: str) -> None:
    port = free_port()
    files = {"teller.py": PLUGIN, ".env": f"DRIVER={driver}\nPORT={port}\nANSWER=forty-two\n"}
    if kind == "own bot.py":
        files["bot.py"] = OWN_BOT
    else:
        files["pyproject.toml"] = NEW_FORMAT if kind == "new format" else OLD_FORMAT
    folder = write(tmp_path / "project", files)
    with host_process(folder) as host:
        host.wait_for("child nonebot ready")
        (line,) = host.wait_for(r"cwd=.* answer=forty-two")
        assert f"cwd={folder} " in line
        assert ("driver=fastapi" in line) == (driver == "~fastapi")
        assert port_is_open(port) == (driver == "~fastapi")
        assert host.stop() == 0
        host.wait_for("shutdown hook ran")
        assert "Traceback" not in host.text


def test_a_project_with_its_own_interpreter_keeps_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "project", {"teller.py": PLUGIN, "bot.py": OWN_BOT, ".env": "DRIVER=~none\nANSWER=own\n"})
    venv.create(folder / ".venv", with_pip=False, symlinks=True)
    # Its own interpreter with the packages of this test run: what `pip install` would put there.
    site = next((folder / ".venv").glob("lib/python*/site-packages"))
    paths = [sysconfig.get_path("purelib"), *(entry for entry in sys.path if entry.endswith("main"))]
    (site / "packages.pth").write_text("\n".join([*paths, str(CHILDREN.parents[1])]))
    with host_process(folder) as host:
        host.wait_for("child nonebot ready")
        (line,) = host.wait_for("answer=own")
        assert f"prefix={folder / '.venv'}" in line
        assert host.stop() == 0


def test_an_interpreter_without_lycomm_is_one_clear_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "project", {"bot.py": OWN_BOT, ".env": "DRIVER=~none\n"})
    venv.create(folder / ".venv", with_pip=False, symlinks=True)
    with host_process(folder) as host:
        (line,) = host.wait_for(r"child nonebot cannot start")
        assert "-m pip install" in line  # from where this lycomm came
        assert str(folder / ".venv") in line
        assert host.wait() == 1


async def test_two_projects_with_ports_of_their_own_share_channels_and_memory(tmp_path: Path) -> None:
    ports = {"first": free_port(), "second": free_port()}
    async with running_host(tmp_path, "first", "second") as lab:
        for name, port in ports.items():
            lab_project(tmp_path / name, "~fastapi", port)
            await lab.host.arestart_process(name)
        assert all(port_is_open(port) for port in ports.values())
        await lab.ask("first", "set", key="shared", value={"from": "first"})
        await lab.ask("first", "make_channel", name="pair")
        assert await lab.ask("second", "get", key="shared") == {"from": "first"}
        channel = lab.channel("pair")
        assert await lab.ask("second", "take_channel", channel=channel) == "pair"
