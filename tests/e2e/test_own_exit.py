"""A bot that ends by ``sys.exit()`` before it is ready: its exit code has no meaning of ours, whatever number it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from kit import free_port, host_process, write

pytestmark = pytest.mark.e2e

SCRIPT = "import sys\nimport nonebot\nnonebot.init()\n"
WAYS = {  # bot.py, and where it ends
    "sys.exit": (SCRIPT + "if True:\n    sys.exit(CODE)\n", "bot.py line 5"),
    "exit": ("exit(CODE)\n", "bot.py line 1"),
    "SystemExit": ("def stop():\n    raise SystemExit(CODE)\n\nstop()\n", "bot.py line 2"),
    "another module": ("import helper\n", "helper.py line 2"),
    "the standard library": (
        "import argparse\nargparse.ArgumentParser().exit(CODE)\n",
        "bot.py line 2",
    ),
}
ENDED = r"its own code ended it by sys\.exit\(\)"
HELPER = "import sys\nsys.exit(CODE)\n"


def run(folder: Path, script: str, driver: str = "~none", **files: str) -> str:
    """The output of a host whose bot is started once."""
    port = free_port()
    write(folder, {"pyproject.toml": "", ".env": f"DRIVER={driver}\nPORT={port}\n", "bot.py": script, **files})
    with host_process(folder, LYCOMM_RESTART="never") as host:
        assert host.wait(30) == 1
        return host.text


@pytest.mark.parametrize(
    ("way", "code"), [*((way, 78) for way in WAYS), ("sys.exit", 3), ("sys.exit", 75), ("sys.exit", 1)]
)
def test_its_own_code_has_ended_it(tmp_path: Path, way: str, code: int) -> None:
    script, place = WAYS[way]
    shown = run(tmp_path, script.replace("CODE", str(code)), **{"helper.py": HELPER.replace("CODE", str(code))})
    words = rf"child nonebot exited {code} before it was ready: {ENDED} \({place}\); not starting it again"
    assert re.search(words, shown), shown


def test_a_plugin_has_ended_it(tmp_path: Path) -> None:
    write(tmp_path, {"plugins/leaves.py": HELPER.replace("CODE", "78")})
    write(tmp_path, {"pyproject.toml": '[tool.nonebot]\nplugin_dirs = ["plugins"]\n', ".env": "DRIVER=~none\n"})
    with host_process(tmp_path, LYCOMM_RESTART="never") as host:
        assert host.wait(30) == 1
        host.wait_for(rf"exited 78 before it was ready: {ENDED} \(plugins/leaves\.py line 2\)")


def test_it_is_started_again_as_after_any_failed_start(tmp_path: Path) -> None:
    """78 is final when the launcher says it."""
    write(tmp_path, {"pyproject.toml": "", ".env": "DRIVER=~none\n", "bot.py": HELPER.replace("CODE", "78")})
    with host_process(tmp_path, LYCOMM_BACKOFF_BASE="0.1", LYCOMM_MAX_RESTARTS="1") as host:
        assert host.wait(30) == 1
        assert len(host.wait_for("child nonebot started")) == 2


def test_a_start_that_has_failed_is_told_as_before(tmp_path: Path) -> None:
    script = (
        "import nonebot\nnonebot.init()\n@nonebot.get_driver().on_startup\nasync def fails():\n"
        "    raise ValueError('no')\n\nnonebot.run()\n"
    )
    shown = run(tmp_path, script, "~fastapi")
    assert "child nonebot exited 3 before it was ready: NoneBot's start-up failed (a hook raised" in shown, shown


@pytest.mark.skipif(sys.platform == "win32", reason="the second program can bind the port there")
def test_a_port_in_use_is_told_as_before(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        write(tmp_path, {"pyproject.toml": "", ".env": f"DRIVER=~fastapi\nPORT={port}\n"})
        write(tmp_path, {"bot.py": "import nonebot\nnonebot.init()\nnonebot.run()\n"})
        with host_process(tmp_path) as host:
            assert host.wait(30) == 1
            assert "sys.exit()" not in host.text
