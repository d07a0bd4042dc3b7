"""Ctrl+C while Python still imports: one quiet end, and no traceback of an import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from kit import write

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Ctrl+C is sent as SIGINT"),
]

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("LYCOMM_")}

# Interrupts this very program when a module is imported: no pause of a test hits each of these moments.
AT_AN_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and not self.done:
            self.done = True
            os.kill(os.getpid(), signal.SIGINT)
    done = False

sys.meta_path.insert(0, Interrupt())
"""

LYCOMM = """
import sys
from liteyuki_host.cli import main
sys.exit(main({arguments!r}))
"""

BOT = "from liteyuki_host import Host\nif __name__ == '__main__':\n    Host().run()\n"


def started(folder: Path, *command: str) -> subprocess.Popen[str]:
    """A Python that runs *command*; its output and errors go into one pipe."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, code: str) -> tuple[int, str]:
    """Run *code* to its end: exit code and output."""
    with started(folder, "-c", code) as process:
        try:
            shown, _ = process.communicate(timeout=40)
        finally:
            process.kill()
    return process.returncode, shown


RUN = [("run", name) for name in ("argparse", "loguru", "pydantic", "liteyuki_host.host", "liteyuki_host.hub")]


@pytest.mark.parametrize(("verb", "module"), [*RUN, ("check", "pydantic"), ("check", "liteyuki_host.examination")])
def test_the_command(tmp_path: Path, verb: str, module: str) -> None:
    code, shown = run(tmp_path, AT_AN_IMPORT.format(module=module) + LYCOMM.format(arguments=[verb]))
    assert (code, shown) == (-signal.SIGINT, "")


@pytest.mark.parametrize("module", ["loguru", "pydantic", "liteyuki_host.host", "liteyuki_host.hub"])
def test_a_program_that_imports_the_host(tmp_path: Path, module: str) -> None:
    write(tmp_path, {"bot.py": BOT})
    run_bot = "import runpy\nrunpy.run_path('bot.py', run_name='__main__')\n"
    code, shown = run(tmp_path, AT_AN_IMPORT.format(module=module) + run_bot)
    assert (code, shown) == (-signal.SIGINT, "")


def test_a_program_that_catches_it_goes_on(tmp_path: Path) -> None:
    program = """
        try:
            from liteyuki_host import Host
        except KeyboardInterrupt:
            print("CAUGHT")
        from liteyuki_host import Host
        print(Host.__name__)
        raise ValueError("mine")
    """
    code, shown = run(tmp_path, AT_AN_IMPORT.format(module="liteyuki_host.hub") + textwrap.dedent(program))
    assert code == 1
    assert shown.startswith("CAUGHT\nHost\nTraceback")
    assert "ValueError: mine" in shown


def test_an_ignored_one_stays_ignored(tmp_path: Path) -> None:
    """`lycomm run &` in a script."""
    ignore = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code, shown = run(
        tmp_path, ignore + AT_AN_IMPORT.format(module="pydantic") + LYCOMM.format(arguments=["--version"])
    )
    assert code == 0
    assert shown.startswith("lycomm ")


@pytest.mark.parametrize("command", [["-m", "liteyuki_host", "run"], ["bot.py"]])
def test_at_any_time(tmp_path: Path, command: list[str]) -> None:
    """After pauses of different lengths, until it has come up: then it ends in order."""
    write(
        tmp_path,
        {
            "bot.py": BOT,
            "pyproject.toml": '[tool.lycomm]\non_failed = "stay"\n'
            '[tool.lycomm.processes.bot]\nproject = "bot"\nautostart = false\n',
        },
    )
    for tenths in range(1, 8):
        host = started(tmp_path, *command)
        time.sleep(tenths / 10)  # what is due is the moment
        host.send_signal(signal.SIGINT)
        shown, _ = host.communicate(timeout=20)
        if "KeyboardInterrupt" in shown and "liteyuki_host" not in shown:
            continue  # Python itself had not come to our first line
        if "pyo3_runtime.PanicException" in shown:
            continue  # pydantic's compiled half makes that of a KeyboardInterrupt while it is imported
        assert "Traceback" not in shown, shown
        assert host.returncode in (-signal.SIGINT, 130, 0), shown
