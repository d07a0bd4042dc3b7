"""``lycomm run main.py --reload``, as one types it after ``nb run``."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import host_process, write

pytestmark = pytest.mark.e2e

MAIN = """
    import nonebot

    nonebot.init(driver="~none")
    print("{version}")
    if __name__ == "__main__":
        nonebot.run()
"""


def test_a_script_is_run_and_reloaded_whatever_the_settings_say(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": MAIN.format(version="one"), ".env": "LYCOMM_RELOAD=off\n"})
    with host_process(tmp_path, "-m", "liteyuki_host", "run", "main.py", "--reload") as host:
        host.wait_for("child nonebot ready")
        host.wait_for("one")
        write(tmp_path, {"main.py": MAIN.format(version="two")})
        host.wait_for(r"child nonebot: main\.py changed; trying it")
        host.wait_for("child nonebot ready", count=2)
        host.wait_for("two")
        assert host.stop() == 0


def test_a_script_that_starts_a_host_ends_the_command(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": "from liteyuki_host import Host\n\nHost().run()\n"})
    with host_process(tmp_path, "-m", "liteyuki_host", "run", "bot.py") as host:
        assert host.wait() == 1
        assert host.lines == [
            f"lycomm: entry {tmp_path / 'bot.py'} starts a host, not a bot: name the script that calls nonebot.run()"
        ]
