"""A host with nothing to do ends, so that whoever started it sees it; it stays where staying is of use."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from kit import HostProcess, host_process, lab_project, write

pytestmark = pytest.mark.e2e

BOT = "import os, threading, nonebot\nnonebot.init(driver='~none')\n"
ENDS_WITH = BOT + "threading.Timer(0.5, os._exit, [{}]).start()\nnonebot.run()\n"
TYPO = "import nonebto\n"
QUICK = {"LYCOMM_BACKOFF_BASE": "0.1", "LYCOMM_BACKOFF_MAX": "0.1", "LYCOMM_MAX_RESTARTS": "2"}

CASES = {
    "an empty folder": ({}, {}, 1, "nonebot has failed (.* has neither a bot.py"),
    "a typo in an import": ({"bot.py": TYPO}, {}, 1, "nonebot has failed (exited 78"),
    "a syntax error": ({"bot.py": "def (:\n"}, {}, 1, "nonebot has failed"),
    "a bot that was given up": ({"bot.py": ENDS_WITH.format(5)}, QUICK, 1, "nonebot has failed (exited 5"),
    "given up before it was ready": ({"bot.py": "raise SystemExit(4)\n"}, QUICK, 1, "nonebot has failed (exited 4"),
    "a bot that ends": ({"bot.py": ENDS_WITH.format(0)}, {}, 0, "nonebot has stopped (exited 0)"),
    "a script that is no bot": (
        {"bot.py": "print('hello')\n"},
        {},
        1,
        "nonebot has failed (exited 0 before it was ready: .*let it end with nonebot.run()",
    ),
    "a bot that forgot to run": ({"bot.py": BOT}, {}, 1, "nonebot has failed (exited 0 before it was ready"),
    "a script that exits": ({"bot.py": f"{BOT}raise SystemExit\n"}, {}, 1, "nonebot has failed (exited 0 before"),
    "a hook that ends the bot": (
        {"bot.py": f"{BOT}nonebot.get_driver().on_startup(lambda: os._exit(0))\nnonebot.run()\n"},
        {},
        1,
        "nonebot has failed (exited 0 before it was ready",
    ),
    "a script that is no bot, always restarted": (
        {"bot.py": ""},
        {"LYCOMM_RESTART": "always", **QUICK},
        1,
        "nonebot has failed (exited 0 before it was ready",
    ),
    "never restarted, ends": ({"bot.py": ENDS_WITH.format(0)}, {"LYCOMM_RESTART": "never"}, 0, "nonebot has stopped"),
    "never restarted, fails": ({"bot.py": ENDS_WITH.format(3)}, {"LYCOMM_RESTART": "never"}, 1, "nonebot has failed"),
    "nothing is to start": (
        {"pyproject.toml": "[tool.lycomm.processes.a]\nautostart = false\n"},
        {},
        0,
        "a is started only when asked (autostart = false)",
    ),
    "one waits for one that failed": (
        {
            "pyproject.toml": "[tool.lycomm.processes.db]\nproject = 'db'\n"
            "[tool.lycomm.processes.web]\nproject = 'web'\nafter = ['db']\n",
            "db/bot.py": TYPO,
            "web/bot.py": ENDS_WITH.format(0),
        },
        {},
        1,
        "web waits for db",
    ),
    "one has failed, the other ends later": (
        {
            "pyproject.toml": "[tool.lycomm.processes.a]\nproject = 'a'\n[tool.lycomm.processes.b]\nproject = 'b'\n",
            "a/bot.py": TYPO,
            "b/bot.py": ENDS_WITH.format(0),
        },
        {},
        1,
        "a has failed (exited 78",
    ),
}


def line_of(host: HostProcess) -> str:
    return host.wait_for(r"\] host \| no process runs and none will start by itself")[0]


@pytest.mark.parametrize(("files", "environment", "code", "words"), CASES.values(), ids=CASES)
def test_it_ends(tmp_path: Path, files: dict[str, str], environment: dict[str, str], code: int, words: str) -> None:
    with host_process(write(tmp_path, files), **environment) as host:
        assert host.wait(20) == code
        line = line_of(host)
        for part in words.split(".*"):
            assert part in line
        assert ("[ERROR]" in line) is (code == 1)
        assert "above" not in line, "the line that is meant may be far away by then"
        assert 'on_failed = "stay"' in line
        if words.startswith("nonebot"):  # those that run are a bot's own tracebacks
            assert "host.py" not in host.text
        assert host.lines[-1].endswith("host stopped")


def test_a_bot_that_forgot_to_run_is_one_line(tmp_path: Path) -> None:
    with host_process(write(tmp_path, {"bot.py": BOT})) as host:
        assert host.wait() == 1
        [line] = [line for line in host.lines if "ERROR" in line and "child nonebot" in line]
        assert line.endswith(
            "child nonebot exited 0 before it was ready: its script came to its end without running the bot; let it "
            "end with nonebot.run(); not starting it again (restart = on-failure)"
        )


def test_it_stays_as_long_as_one_bot_runs(tmp_path: Path) -> None:
    lab_project(tmp_path / "good")
    write(
        tmp_path,
        {
            "pyproject.toml": "[tool.lycomm.processes.good]\nproject = 'good'\n"
            "[tool.lycomm.processes.bad]\nproject = 'bad'\n",
            "bad/bot.py": TYPO,
        },
    )
    with host_process(tmp_path) as host:
        host.wait_for("child bad cannot start")
        host.wait_for("child good ready")
        assert host.stop() == 0
        assert "no process runs" not in host.text


def test_it_stays_during_a_back_off(tmp_path: Path) -> None:
    with host_process(write(tmp_path, {"bot.py": ENDS_WITH.format(5)}), LYCOMM_BACKOFF_BASE="2") as host:
        host.wait_for("child nonebot started", count=2)
        assert host.stop() == 0
        assert "no process runs" not in host.text


def test_python_bot_py_ends_without_a_traceback(tmp_path: Path) -> None:
    write(tmp_path, {"run.py": "from liteyuki_host import Host\n\nif __name__ == '__main__':\n    Host().run()\n"})
    with host_process(tmp_path, "run.py") as host:
        assert host.wait() == 1
        line_of(host)
        assert "Traceback" not in host.text


def test_serve_raises_or_returns(tmp_path: Path) -> None:
    program = """
        import asyncio, sys
        from liteyuki_host import Host
        from liteyuki_host.comm.errors import ProcessFailed

        async def main():
            try:
                await Host("bad").serve()
            except ProcessFailed as error:
                print("FAILED:", error)
            await Host("good").serve()
            print("RETURNED")

        asyncio.run(main())
    """
    write(tmp_path, {"program.py": program, "bad/bot.py": TYPO, "good/bot.py": ENDS_WITH.format(0)})
    with host_process(tmp_path, "program.py") as host:
        assert host.wait() == 0
        host.wait_for("FAILED: no process runs and none will start by itself: nonebot has failed")
        host.wait_for("RETURNED")


STAYS = {
    "the setting": ({"LYCOMM_ON_FAILED": "stay"}, {}, r'\(on_failed = "stay"\)'),
    "a module": ({"LYCOMM_PLUGINS": "mine"}, {"mine.py": ""}, r"\(it has modules of its own: mine\)"),
    "reload": ({"LYCOMM_RELOAD": "swap"}, {}, r"\(a change of the files starts nonebot again \(reload\)\)"),
}


@pytest.mark.parametrize(("environment", "files", "words"), STAYS.values(), ids=STAYS)
@pytest.mark.parametrize("script", [TYPO, ENDS_WITH.format(0)], ids=["failed", "ended"])
def test_it_stays_and_says_why(
    tmp_path: Path, environment: dict[str, str], files: dict[str, str], words: str, script: str
) -> None:
    with host_process(write(tmp_path, {"bot.py": script, **files}), **environment) as host:
        line = host.wait_for(rf"none will start by itself: .*; the host stays up {words}: ")[0]
        if script is TYPO and sys.platform != "win32":
            assert line.endswith(f"correct the cause, then `kill -HUP {host.pid}` tries failed ones again")
        assert host.stop() == 0
        assert host.text.count("the host stays up") == 1


def test_it_stays_for_hooks_of_the_program(tmp_path: Path) -> None:
    program = """
        from liteyuki_host import Host
        host = Host()

        @host.on_after_shutdown
        def bye(): ...

        host.run()
    """
    with host_process(write(tmp_path, {"program.py": program}), "program.py") as host:
        host.wait_for(r"the host stays up \(the program that made it has registered hooks\)")
        assert host.stop() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_host_that_stays_starts_what_was_corrected(tmp_path: Path) -> None:
    with host_process(write(tmp_path, {"bot.py": TYPO}), LYCOMM_ON_FAILED="stay") as host:
        host.wait_for("the host stays up")
        write(tmp_path, {"bot.py": BOT + "nonebot.run()\n"})
        host.send(signal.SIGHUP)
        host.wait_for("child nonebot ready")
        write(tmp_path, {"bot.py": TYPO})
        host.child().kill()
        host.wait_for("the host stays up", count=2)
        assert host.stop() == 0


def test_a_reload_brings_back_what_had_failed(tmp_path: Path) -> None:
    with host_process(write(tmp_path, {"bot.py": TYPO}), LYCOMM_RELOAD="swap") as host:
        host.wait_for("the host stays up")
        write(tmp_path, {"bot.py": BOT + "nonebot.run()\n"})
        host.wait_for("child nonebot ready")
        assert host.stop() == 0


def test_a_stop_and_the_next_start_may_follow_each_other(tmp_path: Path) -> None:
    """Between them no process runs; the host is not idle for that."""
    for name in ("a", "b"):
        lab_project(tmp_path / name)
    program = """
        import asyncio
        from liteyuki_host import Host

        host = Host(processes={"a": {"project": "a"}, "b": {"project": "b", "autostart": False}})

        async def main():
            serving = asyncio.create_task(host.serve())
            await host.wait_ready("a")
            await host.astop_process("a")
            await host.astart_process("b")
            print("BOTH", flush=True)
            await host.astop_process("b")
            await serving

        asyncio.run(main())
    """
    with host_process(write(tmp_path, {"program.py": program}), "program.py") as host:
        assert host.wait(30) == 0
        host.wait_for("BOTH")
        assert "no process runs" in host.text


@pytest.mark.parametrize(
    "environment", [{}, {"LYCOMM_ON_FAILED": "stay"}, {"LYCOMM_RELOAD": "swap"}], ids=["", "stay", "reload"]
)
def test_a_second_host_for_one_folder_ends_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    lab_project(tmp_path)
    with host_process(tmp_path) as first:
        first.wait_for("child nonebot ready")
        with host_process(tmp_path, **environment) as second:
            assert second.wait(10) == 1
            assert "two hosts cannot run the same bots" in second.text
        assert first.child().is_running()
        assert first.stop() == 0


def test_a_second_host_goes_on_with_what_is_only_its_own(tmp_path: Path) -> None:
    for name in ("shared", "own"):
        lab_project(tmp_path / name)
    declared = "[tool.lycomm.processes.shared]\nproject = '../shared'\n"
    write(tmp_path, {"one/pyproject.toml": declared})
    write(tmp_path, {"two/pyproject.toml": declared + "[tool.lycomm.processes.own]\nproject = '../own'\n"})
    with host_process(tmp_path / "one") as first:
        first.wait_for("child shared ready")
        with host_process(tmp_path / "two") as second:
            second.wait_for("child shared cannot start: the bot already runs under another host")
            second.wait_for("child own ready")
            assert second.stop() == 0
        assert first.stop() == 0
