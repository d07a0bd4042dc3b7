"""Two bots of one host want one port: each is named to the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import free_port, host_process, write

from liteyuki_host._child.siblings import listener_among


@pytest.mark.parametrize(
    ("address", "host", "port", "found"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("https://127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("http://127.0.0.1:8081", "127.0.0.1", 8080, False),
        ("http://0.0.0.0:8080", "127.0.0.1", 8080, True),
        ("http://127.0.0.1:8080", "0.0.0.0", 8080, True),
        ("http://192.0.2.1:8080", "127.0.0.1", 8080, False),
        ("http://127.0.0.2:8080", "127.0.0.1", 8080, False),
        ("http://localhost:8080", "127.0.0.1", 8080, True),
        ("http://127.0.0.1:8080", "LOCALHOST", 8080, True),
        ("http://[::1]:8080", "localhost", 8080, True),
        ("http://[::]:8080", "0.0.0.0", 8080, True),
        ("http://[::1]:8080", "::1", 8080, True),
        ("http://[::1]:8080", "127.0.0.1", 8080, False),
        ("http://bots.example:8080", "bots.example", 8080, True),
        ("http://bots.example:8080", "127.0.0.1", 8080, False),
        ("http://127.0.0.1", "127.0.0.1", 80, False),
        ("http://127.0.0.1:99999", "127.0.0.1", 8080, False),
        ("unix:/run/bot.sock", "127.0.0.1", 8080, False),
        (None, "127.0.0.1", 8080, False),
    ],
)
def test_who_is_in_the_way(address: str | None, host: str, port: int, found: bool) -> None:
    others = [{"name": "silent", "address": None}, {"name": "web", "address": address}]
    assert listener_among(others, host, port) == ("web" if found else None)


BOT = """
    import nonebot
    nonebot.init(driver="~fastapi", host="{host}", port={port})
    nonebot.run()
"""


@pytest.mark.e2e
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_one_that_comes_second_names_the_first(host: str, tmp_path: Path) -> None:
    port = free_port()
    write(
        tmp_path,
        {
            "pyproject.toml": """
                [tool.lycomm.processes.web]
                project = "web"
                [tool.lycomm.processes.second]
                project = "second"
                after = ["web"]
                """,
            "web/bot.py": BOT.format(host=host, port=port),
            "second/bot.py": BOT.format(host="127.0.0.1", port=port),
        },
    )
    with host_process(tmp_path) as process:
        process.wait_for(
            rf"\[ERROR\] second .*port {port} on 127\.0\.0\.1 is used by bot web of this host: give one of them "
            r"another PORT in its \.env$"
        )
        process.wait_for(
            rf"child second cannot start: exited 78 before it was ready: port {port} on 127\.0\.0\.1 is used by "
            r"bot web of this host: give one of them another PORT in its \.env$"
        )
        assert "another program" not in process.text
        assert process.stop() == 0


@pytest.mark.e2e
def test_of_two_that_start_together_the_loser_names_the_winner(tmp_path: Path) -> None:
    port = free_port()
    files = {f"{name}/bot.py": BOT.format(host="127.0.0.1", port=port) for name in ("one", "two")}
    processes = "".join(f'[tool.lycomm.processes.{name}]\nproject = "{name}"\n' for name in ("one", "two"))
    write(tmp_path, {"pyproject.toml": processes, **files})
    with host_process(tmp_path) as process:
        words = rf"port {port} on 127\.0\.0\.1 is used by bot (one|two) of this host"
        line = process.wait_for(words)[0]
        loser = "two" if "used by bot one" in line else "one"
        assert f"[ERROR] {loser} " in line
        process.wait_for(f"child {loser} cannot start: exited 78 before it was ready: {words}")
        assert process.stop() == 0
