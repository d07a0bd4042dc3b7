"""Thousands of odd folders, files, variables and options: ``lycomm check`` answers each with lines and an exit code.

The inputs come from a seeded generator, and a failure names the number that makes it again. What asks other processes
(the survey, a foreign interpreter) is replaced by their answers; test_check.py runs the real ones.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liteyuki_host._child.configuration import examine_configuration
from liteyuki_host._child.survey import survey
from liteyuki_host.cli import main
from liteyuki_host.examination import bot
from liteyuki_host.settings import ProcessSettings, Settings
from liteyuki_host.wording import LINE_LIMIT

pytestmark = pytest.mark.slow

INPUTS = 2500
CONFIGURATIONS = 400
LONGEST = LINE_LIMIT + 100  # "lycomm: NAME: " comes before a line

TEXTS = [
    "",
    " ",
    "a",
    "bot",
    ".",
    "..",
    "/",
    "~",
    "~nobody",
    "a/b",
    "bot.py",
    "file/x",
    "loop/x",
    "closed",
    "C:\\x",
    "CON",
    "nul",
    "a" * 300,
    "b/" * 3000,
    "\0",
    "a\0b",
    "\n",
    "a\nb",
    "\r\n",
    "\u2028",
    "\x1b[31m",
    "\udcff",
    "\ud800",
    "机器人",
    "🤖",
    "${PATH}",
    "${",
    "$",
    "%",
    "'",
    '"',
    "\\",
    "#",
    "=",
    "[",
    "{",
    "true",
    "None",
    "null",
    "nan",
    "inf",
    "-1",
    "0",
    "1e999",
    "9" * 5000,
    "0x" + "f" * 5000,
    "0.1GiB",
    "1 MiB",
    "[1,",
    "[[[[" * 1000,
    '{"a": 1}',
    '{"\\ud800": {}}',
    "host",
    "nonebot",
    "swap",
    "always",
    "1,2",
    "a,b,,c",
    "json",
    "a.b.c",
    "../../..",
    "/proc/self/mem",
    "/dev/null",
    "/dev/zero",
]
VALUES: list[Any] = [
    *TEXTS,
    True,
    False,
    0,
    1,
    -1,
    10**30,
    2**63,
    1.5,
    -0.0,
    float("inf"),
    float("nan"),
    [],
    {},
    [1],
    ["a", 2],
    [[]],
    {"a": {}},
    {"a": {"b": {"c": 1}}},
    {"": ""},
    {"PORT": 1},
    {"A=B": "x"},
    {"LYCOMM_LINK": "x"},
    {"a": "\0"},
]
SCRIPTS = [
    b"import nonebot\nnonebot.init()\nnonebot.run()\n",
    b"",
    b"\xff\xfe",
    b"a\0b",
    b"(" * 3000,
    b"# coding: rot13\n",
    b"# coding: \0\n",
    b"return",
    b"import liteyuki_host",
    b"nonebot.init(**x)",
    b"-" * 5000 + b"1",
    b"\xef\xbb\xbfx = 1",
]


class Generator:
    """Makes one folder, its variables and its options from one number."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._good_settings = self.maybe(0.6)  # or hardly any folder would get past them

    def maybe(self, chance: float) -> bool:
        return self._random.random() < chance

    def pick(self, values: Any) -> Any:
        return self._random.choice(values)

    def name(self) -> str:
        names = [*Settings.model_fields, *ProcessSettings.model_fields]
        return str(self.pick(names) if self.maybe(0.9) else self.pick(TEXTS))

    def variable(self) -> str:
        return "NICKNAME" if self._good_settings else f"LYCOMM_{self.name().upper()}"

    def toml(self) -> bytes:
        if self.maybe(0.05):
            return self._random.randbytes(self._random.randrange(200))
        text = ""
        for name in ("a", "b") if self._good_settings else ():
            if self.maybe(0.5):
                text += f"[tool.lycomm.processes.{name}]\n"
                for setting in ("project", "entry", "python"):
                    if self.maybe(0.3):
                        text += f"{setting} = {json.dumps(self.pick(TEXTS[:-4]))}\n"
        if not self._good_settings:
            text += "[tool.lycomm]\n"
        for _ in range(0 if self._good_settings else self._random.randrange(4)):
            text += f"{_key(self.name())} = {self.toml_value(self.pick(VALUES))}\n"
        for _ in range(0 if self._good_settings else self._random.randrange(3)):
            text += f"[tool.lycomm.processes.{_key(self.pick(['a', 'b', self.pick(TEXTS)]))}]\n"
            for _ in range(self._random.randrange(4)):
                text += (
                    f"{_key(self.pick(list(ProcessSettings.model_fields)))} = {self.toml_value(self.pick(VALUES))}\n"
                )
        if self.maybe(0.5):
            text += "[tool.nonebot]\n" + "".join(
                f"{name} = {self.toml_value(self.pick(VALUES))}\n"
                for name in ("adapters", "plugins", "plugin_dirs", "builtin_plugins")
                if self.maybe(0.4)
            )
        if self.maybe(0.1):
            text += self.pick(
                ["x = " + "9" * 5000, "x = " + "[" * 5000, "[tool.lycomm]", "[a\n", "x = 0x" + "f" * 5000]
            )
        data = text.encode("utf-8", "surrogatepass")
        if self.maybe(0.1) and data:
            place = self._random.randrange(len(data))
            data = data[:place] + self._random.randbytes(3) + data[place + 1 :]
        return data

    def toml_value(self, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            return str(value)
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{_key(key)} = {self.toml_value(item)}" for key, item in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(map(self.toml_value, value)) + "]"
        return str(value) if self.maybe(0.1) else json.dumps(value, ensure_ascii=self.maybe(0.3))

    def env(self) -> bytes:
        if self.maybe(0.05):
            return self._random.randbytes(self._random.randrange(200))
        lines = []
        for _ in range(self._random.randrange(6)):
            name = self.pick(["ENVIRONMENT", "PORT", "HOST", "DRIVER", "SUPERUSERS", "A__B", self.variable()])
            value = self.pick(VALUES)
            text = value if isinstance(value, str) else json.dumps(value)
            lines.append(
                f"{name}{self.pick(['=', '=', '=', ' = ', ':', ''])}{self.pick(['', '', chr(34), chr(39)])}{text}"
            )
        return (
            self.pick(["\n", "\n", "\r\n"])
            .join(lines)
            .encode("utf-8", "surrogatepass" if self.maybe(0.2) else "replace")
        )

    def variables(self) -> dict[str, str]:
        found = {}
        for _ in range(self._random.randrange(3)):
            value = str(self.pick(TEXTS)).replace("\0", "").encode("utf-8", "surrogatepass")
            name = self.pick(["ENVIRONMENT", "PORT", self.variable(), self.variable().lower()])
            found[name.replace("\0", "").replace("=", "").encode("utf-8", "replace").decode() or "X"] = os.fsdecode(
                value
            )
        return found

    def options(self, folder: Path) -> list[str]:
        project = str(folder) if self.maybe(0.85) else str(self.pick(TEXTS))
        options = ["check", "--no-import", f"--project={project}"]
        if self.maybe(0.1):
            options.append(str(self.pick(["bot.py", "main.py", *TEXTS])))
        if self.maybe(0.05):
            options.insert(self._random.randrange(len(options) + 1), str(self.pick(TEXTS)))
        return options

    def files(self, folder: Path) -> None:
        for name, make, chance in (
            ("pyproject.toml", self.toml, 0.8),
            (".env", self.env, 0.6),
            (".env.prod", self.env, 0.1),
        ):
            if self.maybe(chance):
                (folder / name).write_bytes(make())
        if self.maybe(0.7):
            (folder / "bot.py").write_bytes(self.pick(SCRIPTS))
        for name in ("bot", ".venv", "venv/bin", "pyproject.toml", ".env", "bot.py", ".lycomm"):
            if self.maybe(0.05) and not (folder / name).exists():
                (folder / name).mkdir(parents=True)
        if self.maybe(0.05) and (folder / ".venv").is_dir():
            (folder / ".venv" / "pyvenv.cfg").write_bytes(self._random.randbytes(20))
        for name in ("loop", "bot.py", ".env"):
            if self.maybe(0.1) and not (folder / name).exists():
                (folder / name).symlink_to(folder / self.pick(["loop", "nothing", name]))
        for name in ("pyproject.toml", ".env", ".env.prod", "bot.py", "file"):
            if self.maybe(0.02) and not os.path.lexists(folder / name):
                self.odd_thing(folder / name)
        if not os.path.lexists(folder / "file"):
            (folder / "file").touch()

    def odd_thing(self, path: Path) -> None:
        kind = self.pick(["FIFO", "socket", "/dev/null", "/dev/zero", "/dev/tty"])
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(path.name)  # the current folder's: a socket's path has at most 107 bytes
        else:
            path.symlink_to(kind)


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else json.dumps(name, ensure_ascii=False)


def empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


@pytest.fixture
def no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(range(10**9))

    async def ask(*_: object) -> object:
        return [
            {**survey_of_nothing(), "listens": ["127.0.0.1", 1]},
            {**survey_of_nothing(), "start": ["DRIVER in the environment: x"], "listens": ["\0", 0]},
            {**survey_of_nothing(), "listens": ["a" * 300, 65536]},
            "no answer",
        ][next(answers) % 4]

    monkeypatch.setattr(bot, "_ask", ask)
    monkeypatch.setattr(bot, "why_no_host_in", lambda python, folder: None)


def survey_of_nothing() -> dict[str, Any]:
    return {**survey.__globals__["SURVEY"], "protocol": 1}


@pytest.mark.usefixtures("no_other_process")
@pytest.mark.parametrize("part", range(5))
def test_check_always_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: dict[int, int] = {}
    for seed in range(part * INPUTS // 5, (part + 1) * INPUTS // 5):
        empty(tmp_path)
        generator = Generator(seed)
        generator.files(tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in generator.variables().items():
                patch.setenv(name, value)
            code = answered(seed, lambda: main(generator.options(tmp_path)), capsys)  # noqa: B023
        seen[code] = seen.get(code, 0) + 1
    assert set(seen) == {0, 1, 2}, "the generator does not reach all answers"
    assert min(seen.values()) >= 10, seen


def answered(seed: int, command: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> int:
    try:
        code = command()
    except SystemExit as end:  # argparse
        code = end.code  # type: ignore[assignment]
        capsys.readouterr()
        assert code == 2, f"input {seed}"
        return code
    except BaseException as error:
        raise AssertionError(f"input {seed}: {type(error).__name__}: {error}") from error
    captured = capsys.readouterr()
    assert code in (0, 1, 2), f"input {seed}"
    assert (code == 0) is (captured.err == ""), f"input {seed}: {captured.err}"
    for line in captured.err.splitlines():
        assert line.startswith("lycomm: "), f"input {seed}: {line}"
    for line in [*captured.err.splitlines(), *captured.out.splitlines()]:
        assert len(line) <= LONGEST, f"input {seed}: {line}"
        assert line.isprintable() or "机" in line or "🤖" in line, f"input {seed}: {line!r}"
    return code


def test_any_configuration_is_read_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in the bot's interpreter, on the same kinds of files."""
    monkeypatch.chdir(tmp_path)
    told = 0
    for seed in range(CONFIGURATIONS):
        empty(tmp_path)
        Generator(seed).files(tmp_path)
        try:
            surveyed = survey("toml")
            lines = [*examine_configuration().problems, *surveyed["start"], *surveyed["plugins"]]
        except BaseException as error:
            raise AssertionError(f"input {seed}: {type(error).__name__}: {error}") from error
        assert all(len(line) <= LONGEST and "\n" not in line for line in lines), f"input {seed}: {lines}"
        told += bool(lines)
    assert CONFIGURATIONS > told > CONFIGURATIONS / 10
