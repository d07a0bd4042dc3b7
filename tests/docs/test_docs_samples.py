"""Every code block of the README and the pages runs, or says why it does not."""

from __future__ import annotations

import ast
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free_port

from liteyuki_host.settings import load_settings
from tests.docs.pages import PAGES, PAIRS, ROOT, Block, blocks, files_of

pytestmark = pytest.mark.slow

RUN_PAGE = Path(__file__).parent / "children" / "run_page.py"
COMMUNICATION = ROOT / "docs" / "communication.md"
README = ROOT / "README.md"
DEADLINE = 30.0  # seconds for whatever has to appear; mostly the imports of NoneBot and FastAPI
KINDS = {"", "host side", "not run", "setup"}
PLAIN = {"text", "bash", "powershell"}


def test_every_marker_means_something() -> None:
    for page in PAGES:
        for block in blocks(page):
            where = f"{block.page} line {block.line}"
            assert block.kind in KINDS or re.fullmatch(r"(pair|pytest) \w+", block.kind), where
            assert block.language, f"{where}: a block has a language"
            assert block.kind != "not run" or len(block.file) > 10, f"{where}: say why it is not run"


def test_few_blocks_are_not_run() -> None:
    skipped = [block for page in PAGES for block in blocks(page) if block.kind == "not run"]
    assert len(skipped) <= 6, [f"{block.page} line {block.line}: {block.file}" for block in skipped]


@pytest.mark.parametrize("page", ["communication.md", "values.md", "protocol.md"])
def test_the_blocks_of_a_page_run_in_order(page: str) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN_PAGE), str(ROOT / "docs" / page)],
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* blocks ran", done.stdout)


def test_the_test_files_of_the_plugin_guide_pass(tmp_path: Path) -> None:
    for name, code in files_of(ROOT / "docs" / "plugin-guide.md", "pytest guide").items():
        (tmp_path / name).write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.parametrize(("page", "name"), [(README, "readme"), (COMMUNICATION, "page"), (COMMUNICATION, "blocking")])
def test_a_shown_pair_prints_what_is_shown(page: Path, name: str, tmp_path: Path) -> None:
    files = files_of(page, f"pair {name}")
    expected = files.pop("console").splitlines()
    if "pyproject.toml" not in files:  # only the child's half is shown; the rest is the page's first example
        files = {**files_of(page, "pair page"), **files}
        del files["plugins/child_half.py"], files["console"]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text, "utf-8")

    with _lycomm_run(tmp_path) as lines:
        for shown in expected:
            pattern = re.escape(shown).replace(r"\.\.\.", ".*")
            while not re.search(pattern, line := lines.get(timeout=DEADLINE) or ""):
                assert line, f"never printed: {shown}"


@contextmanager
def _lycomm_run(folder: Path) -> Iterator[queue.Queue[str | None]]:
    """``lycomm run`` in *folder*: its lines, then one Ctrl+C and a clean end."""
    host = subprocess.Popen(
        [sys.executable, "-m", "liteyuki_host", "run"],
        cwd=folder,
        env=_environment(PORT=str(free_port()), PYTHONUNBUFFERED="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    lines: queue.Queue[str | None] = queue.Queue()
    output: list[str] = []

    def read() -> None:
        assert host.stdout is not None
        for raw in host.stdout:
            output.append(raw.decode("utf-8", "replace").rstrip())
            lines.put(output[-1])
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lines
        started = time.monotonic()
        host.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
        assert host.wait(DEADLINE) == 0
        assert time.monotonic() - started < 10
    except BaseException:
        print("\n".join(output))
        raise
    finally:
        if host.poll() is None:
            host.kill()  # its bots end by themselves
            host.wait(DEADLINE)
        reader.join(DEADLINE)
        assert host.stdout is not None
        host.stdout.close()
    text = "\n".join(output)
    assert "[ERROR]" not in text, text
    assert "Traceback" not in text, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_blocks_are_settings_that_exist(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            (tmp_path / "pyproject.toml").write_text(block.code, "utf-8")
            load_settings({}, folder=tmp_path, environ={})


def test_every_block_is_dealt_with_by_one_of_these_tests() -> None:
    for page in PAGES:
        for block in blocks(page):
            runs_in_process = page.name in ("communication.md", "values.md", "protocol.md")
            translated = page.name.endswith(".zh-CN.md")
            known = (
                block.language in PLAIN | {"toml"}
                or block.kind.startswith(("pair", "pytest"))
                or block.kind == "not run"
                or runs_in_process
                or translated
            )
            assert known, f"{block.page} line {block.line}"


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda page: page.name)
def test_the_chinese_page_has_the_same_blocks(english: Path, chinese: Path) -> None:
    assert [_sense(block) for block in blocks(chinese)] == [_sense(block) for block in blocks(english)]


def _sense(block: Block) -> tuple[str, str, str]:
    """What a block does, its comments left out."""
    code = block.code
    if block.language == "python":
        code = ast.unparse(ast.parse(code))
    elif block.language == "toml":
        code = re.sub(r" *#.*", "", code)
    return block.marker if block.kind != "not run" else "not run", block.language, code


def _environment(**extra: str) -> dict[str, str]:
    """Ours without what would configure a bot, a host or pytest."""
    away = re.compile(r"LYCOMM|PYTEST|(DRIVER|HOST|PORT|ENVIRONMENT|SUPERUSERS|LOG_LEVEL)$")
    kept = {name: value for name, value in os.environ.items() if not away.match(name)}
    return kept | {"PYTHONUTF8": "1"} | extra
