"""What a running host says of changes in the files of its settings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from liteyuki_host.settings import load_settings
from liteyuki_host.settings_files import SettingsFiles
from liteyuki_host.supervisor.host_files import SharedFiles
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.spec import ProcessSpec, Reload

NEXT_START = "they count from the next start of the host"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(lambda message: found.append(str(message).strip()), format="{level} {message}", level="INFO")
    yield found
    logger.remove(sink)


def write(folder: Path, **files: str) -> None:
    """``env`` is ``.env``, ``env_dev`` is ``.env.dev``, ``pyproject`` is pyproject.toml."""
    for name, text in files.items():
        path = folder / ("pyproject.toml" if name == "pyproject" else "." + name.replace("_", "."))
        path.write_text(text, encoding="utf-8")


class Running:
    """A host that runs with what stands in its folder when this is made."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None, **arguments: Any) -> None:
        load = partial(load_settings, arguments, folder=folder, environ=environ or {})
        self.folder = folder
        self.files = SettingsFiles(load(), load, environ or {})

    def bot(self, folder: Path | None = None, **env: str) -> ProcessSpec:
        return ProcessSpec("bot", folder or self.folder, env=env, reload=Reload.SWAP)

    async def check(self, folder: Path | None = None, *, may_refuse: bool = True) -> str | None:
        return await self.files.check(self.bot(folder), may_refuse=may_refuse)

    async def nothing_new(self, change: Mapping[str, str], *changed: str, **env: str) -> bool:
        """Whether a bot that was spawned before *change* has no interest in it."""
        shared = SharedFiles(self.bot(**env), self.files)
        life = Life("bot", lambda action: None, asyncio.Event())
        await shared.note_loaded(life)
        write(self.folder, **change)
        return await shared.hold_nothing_new([self.folder / name for name in changed], life.host_files)


# Whether the host could start.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"env": "LYCOMM_LOG_LEVEL=LOUD\n"}, "LYCOMM_LOG_LEVEL in .env: 'LOUD' is not one of"),
        ({"env": "lycomm_max_restarts=many\n"}, "LYCOMM_MAX_RESTARTS in .env: 'many'"),
        ({"env": "LYCOMM_LOG_LEVL=INFO\n"}, "did you mean LYCOMM_LOG_LEVEL?"),
        ({"env": "PORT=1\nLYCOMM_LOG_LEVEL INFO\n"}, ".env line 2: not of the form LYCOMM_NAME=value"),
        ({"env_prod": "LYCOMM_RELOAD=sometimes\n"}, "LYCOMM_RELOAD in .env.prod: 'sometimes'"),
        ({"env": "ENVIRONMENT=dev\n", "env_dev": "LYCOMM_RELOAD=3\n"}, "LYCOMM_RELOAD in .env.dev"),
        ({"pyproject": "[tool.lycomm]\nlog_level = 3\n"}, "log_level in [tool.lycomm] of pyproject.toml"),
        ({"pyproject": "[tool.lycomm.processes.web]\nprojekt = '.'\n"}, "did you mean project?"),
        ({"pyproject": "[tool.lycomm\n"}, "pyproject.toml is not valid TOML"),
        ({"pyproject": "[tool]\nlycomm = 1\n"}, "lycomm in [tool] of pyproject.toml: 1 is not a table"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
async def test_what_the_next_start_would_refuse_is_one_line(
    tmp_path: Path, lines: list[str], change: dict[str, str], words: str
) -> None:
    host = Running(tmp_path)
    write(tmp_path, **change)
    problem = await host.check()
    assert problem is not None
    assert words in problem
    assert "\n" not in problem
    assert await host.check() == problem, "as long as it stands there"
    assert lines == [], "whoever is refused says so"
    for path in tmp_path.iterdir():
        path.unlink()
    assert await host.check() is None


async def test_several_problems_are_one_line(tmp_path: Path) -> None:
    host = Running(tmp_path)
    write(tmp_path, env="LYCOMM_LOG_LEVEL=LOUD\nLYCOMM_RESTART=maybe\n")
    problem = await host.check()
    assert problem is not None
    assert problem.count("in .env: ") == 2
    assert "\n" not in problem


async def test_a_bot_elsewhere_is_not_kept_from_its_reload(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "bots").mkdir()
    host = Running(tmp_path)
    write(tmp_path, env="LYCOMM_LOG_LEVEL=LOUD\n")
    for _ in range(2):
        assert await host.check(tmp_path / "bots") is None
    [line] = lines
    assert line.startswith("WARNING settings of the host: LYCOMM_LOG_LEVEL in .env: 'LOUD'")
    assert line.endswith("; it runs on, and would not start again with that")


async def test_without_a_bot_to_keep_the_problem_is_logged(tmp_path: Path, lines: list[str]) -> None:
    host = Running(tmp_path)
    write(tmp_path, env="LYCOMM_LOG_LEVEL=LOUD\n")
    assert await host.check(may_refuse=False) is None
    assert len(lines) == 1
    write(tmp_path, env="")
    assert await host.check(may_refuse=False) is None
    write(tmp_path, env="LYCOMM_LOG_LEVEL=LOUD\n")
    assert await host.check(may_refuse=False) is None
    assert len(lines) == 2, "it was good in between"


# Whether it would start with other settings.


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"env": "LYCOMM_LOG_LEVEL=DEBUG\n"}, "LYCOMM_LOG_LEVEL"),
        ({"env": "lycomm_log_level=DEBUG\nLYCOMM_MAX_RESTARTS=3\n"}, "LYCOMM_MAX_RESTARTS, LYCOMM_LOG_LEVEL"),
        ({"env_prod": "LYCOMM_MEMORY_LIMIT=1GiB\n"}, "LYCOMM_MEMORY_LIMIT"),
        ({"pyproject": "[tool.lycomm]\nrestart = 'never'\n"}, "restart"),
        ({"pyproject": "[tool.lycomm.processes.web]\nautostart = false\n"}, "processes.web"),
        ({"pyproject": "[tool.lycomm.processes.web]\nenv = { TOKEN = 'hush' }\n"}, "processes.web"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_good_change_is_told_once_and_by_name_only(
    tmp_path: Path, lines: list[str], change: dict[str, str], names: str
) -> None:
    host = Running(tmp_path)
    write(tmp_path, **change)
    for _ in range(3):
        assert await host.check() is None
    assert lines == [f"INFO settings of the host changed ({names}); {NEXT_START}"]


async def test_each_change_is_told_and_that_it_was_taken_back(tmp_path: Path, lines: list[str]) -> None:
    write(tmp_path, env="LYCOMM_LOG_LEVEL=INFO\nPORT=1\n", pyproject="[tool.lycomm]\nmax_restarts = 4\n")
    host = Running(tmp_path)
    for text in ("LYCOMM_LOG_LEVEL=DEBUG\n", "LYCOMM_LOG_LEVEL=TRACE\n", "PORT=2\nLYCOMM_LOG_LEVEL=TRACE\n", ""):
        write(tmp_path, env=text)
        assert await host.check() is None
    write(tmp_path, pyproject="")
    assert await host.check() is None
    assert lines == [
        *[f"INFO settings of the host changed (LYCOMM_LOG_LEVEL); {NEXT_START}"] * 2,
        "INFO settings of the host are again those that it runs with",
        f"INFO settings of the host changed (max_restarts); {NEXT_START}",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"env": "PORT=8081\nLYCOMM_COMMANDS=false\n"},
        {"env": "LYCOMM_RESTART=always\n"},  # the environment says otherwise
        {"env": "LYCOMM_MAX_RESTARTS=9\n"},  # an argument does
        {"env": "LYCOMM_LOG_LEVEL=info\n"},  # the default
        {"pyproject": "[tool.nonebot]\nplugins = []\n[tool.lycomm.processes.nonebot]\nautostart = true\n"},
        {"env_dev": "LYCOMM_RESTART=LOUD\n"},  # read by nobody
    ],
    ids=str,
)
async def test_what_changes_nothing_for_the_host_is_not_told(
    tmp_path: Path, lines: list[str], change: dict[str, str]
) -> None:
    host = Running(tmp_path, {"LYCOMM_RESTART": "never"}, max_restarts=2)
    write(tmp_path, **change)
    assert await host.check() is None
    assert lines == []


# What is a bot's own.


@pytest.mark.parametrize(
    "change",
    [
        {"env": "PORT=1\nLYCOMM_LOG_LEVEL=DEBUG\n"},
        {"env": "# a remark\nPORT=1\n\nlycomm_restart=never"},
        {"env": "LYCOMM_LOG_LEVEL=LOUD\nPORT=1\n"},
        {"pyproject": "[tool.nonebot]\nplugins = []\n"},
        {"pyproject": "[tool.lycomm]\nlog_level = 'INFO'\n[tool.nonebot]\nplugins = []\n"},
        {"env_prod": "LYCOMM_LOG_LEVEL=DEBUG\n"},
    ],
    ids=str,
)
async def test_settings_of_the_host_are_nothing_new_for_the_bot(tmp_path: Path, change: dict[str, str]) -> None:
    write(tmp_path, env="PORT=1\n", pyproject="[tool.nonebot]\nplugins = []\n[tool.lycomm]\nlog_level = 'DEBUG'\n")
    host = Running(tmp_path)
    assert await host.nothing_new(change, ".env", "pyproject.toml", ".env.prod")


@pytest.mark.parametrize(
    "change",
    [
        {"env": "PORT=2\nLYCOMM_LOG_LEVEL=DEBUG\n"},
        {"env": "PORT=1\nLYCOMM_COMMANDS=false\n"},
        {"env": "PORT=1\nLyComm_Status_Command=[]\n"},
        {"env": "PORT=1\nLYCOMM_LOG_LEVEL=DEBUG\nMINE=${LYCOMM_LOG_LEVEL}\n"},
        {"env": "port=2\nPORT=1\n"},
        {"env_prod": "LYCOMM_LOG_LEVEL=DEBUG\nPORT=3\n"},
        {"pyproject": "[tool.nonebot]\nplugins = ['mine']\n"},
        {"pyproject": "[tool.nonebot\n"},
        {"pyproject": "[tool]\nnonebot = 1\n"},
    ],
    ids=str,
)
async def test_what_the_bot_reads_is_new_for_it(tmp_path: Path, change: dict[str, str]) -> None:
    write(tmp_path, env="PORT=1\n", pyproject="[tool.nonebot]\nplugins = []\n[tool.lycomm]\nlog_level = 'DEBUG'\n")
    host = Running(tmp_path)
    assert not await host.nothing_new(change, ".env", "pyproject.toml", ".env.prod")


async def test_any_other_file_is_new_for_the_bot(tmp_path: Path) -> None:
    host = Running(tmp_path)
    change = {"env": "LYCOMM_LOG_LEVEL=DEBUG\n"}
    assert not await host.nothing_new(change, ".env", "plugins/mine.py")
    assert not await host.nothing_new({"env_dev": ""}, ".env.dev"), "a dotenv file that the host does not read"
    assert not await host.nothing_new(change), "somebody has asked for it"


async def test_a_bot_with_another_environment_does_not_read_the_file_of_the_host(tmp_path: Path) -> None:
    write(tmp_path, env_prod="LYCOMM_LOG_LEVEL=DEBUG\n", env_dev="PORT=1\n")
    host = Running(tmp_path)
    assert await host.nothing_new({"env_prod": "PORT=2\n"}, ".env.prod", ENVIRONMENT="dev")
    assert not await host.nothing_new({"env_dev": "PORT=2\n"}, ".env.dev", ENVIRONMENT="dev")


async def test_a_bot_elsewhere_has_files_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "bot").mkdir()
    host = Running(tmp_path)
    assert host.files.for_bot(host.bot(tmp_path / "bot")) is None


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
async def test_a_link_to_the_folder_of_the_host_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").symlink_to("one")
    host = Running(tmp_path / "one")
    found = host.files.for_bot(host.bot(tmp_path / "two"))
    assert found is not None
    assert tmp_path / "two" / ".env" in found
