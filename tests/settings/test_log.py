"""The lines that people read."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from loguru import logger

from liteyuki_host.log import configure, line_format, use_utf8
from liteyuki_host.output.console import shared


class Shown(io.StringIO):
    """What a console has shown by now, which writes on a thread of its own."""

    def getvalue(self) -> str:
        assert shared().flush(15)
        return super().getvalue()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stdout = Shown()
    monkeypatch.setattr(sys, "stdout", stdout)
    sink = configure("info")
    yield stdout
    logger.remove(sink)


def test_a_line_of_the_host(lines: io.StringIO) -> None:
    logger.info("bot {nonebot} <ready> 小雪")
    date_and_time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{date_and_time} \[INFO\] host \| bot {{nonebot}} <ready> 小雪\n", lines.getvalue())


def test_the_level_filters(lines: io.StringIO) -> None:
    logger.debug("hidden")
    logger.info("shown")
    assert lines.getvalue().count("\n") == 1


def test_a_line_of_a_child_names_the_module_too() -> None:
    written: list[str] = []
    sink = logger.add(written.append, format=line_format("nonebot"))
    try:
        logger.warning("hello")
    finally:
        logger.remove(sink)
    assert re.fullmatch(rf".{{19}} \[WARNING\] nonebot \| {__name__} \| hello\n", written[0])


def test_a_stream_in_another_encoding_takes_any_text() -> None:
    """A piped stdout on Windows has the code page, and each Chinese line became a logging error."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    use_utf8(stream)
    stream.write("重启\udcff")
    stream.flush()
    assert raw.getvalue().decode("utf-8") == "重启?"


PROGRAM = """
import sys
from loguru import logger
before = dict(logger._core.handlers)
import liteyuki_host.log
assert logger._core.handlers == before, "import changed the sinks"
logger.add(lambda line: sys.stderr.write("of the user: " + line), format="{message}")
sink = liteyuki_host.log.configure("WARNING")
logger.info("quiet")
logger.warning("重启")
logger.remove(sink)
logger.warning("after")
sink = liteyuki_host.log.configure("WARNING")
"""


def test_importing_changes_nothing_and_configuring_replaces_only_the_default_sink() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LOGURU_FORMAT": "default sink: {message}"},
        capture_output=True,
        timeout=30,
    )
    assert done.stderr.decode("utf-8", "replace").splitlines() == [
        "of the user: quiet",
        "of the user: \\u91cd\\u542f",  # stderr's own way with what it cannot print
        "of the user: after",
    ]
    assert re.fullmatch(r".{19} \[WARNING\] host \| 重启", done.stdout.decode("utf-8").strip())
    assert done.returncode == 0
