"""What a child's project folder holds and how it is started.

Inspection only: nothing of the project is imported, run or written. It happens again at each start, because
the operator may have corrected the project in between.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.dotenv_text import variables
from liteyuki_host.paths import (
    FileProblem,
    absolute,
    exists,
    is_dir,
    is_file,
    may_be_read,
    may_enter,
    read_bytes,
    read_text,
)
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.wording import one_line, short_repr, shown, why

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]


@dataclass(frozen=True)
class ProjectPlan:
    """How one project is started."""

    folder: Path
    """Absolute; the child's working directory."""

    python: Path
    """The interpreter. Not resolved: following the link of a virtual environment would leave it."""

    kind: Literal["script", "toml"]
    """Run *script*, or do what ``[tool.nonebot]`` of the folder's pyproject.toml says."""

    script: Path | None
    """Absolute; None for ``toml``."""


def inspect_project(
    spec: ProcessSpec, *, host_main: Path | None, environ: Mapping[str, str] | None = None
) -> ProjectPlan:
    """Find out how *spec* is started.

    Args:
        host_main: the file that started this host, None when there is none. A child never runs it: it would
            be a second host, with children of its own.
        environ: the host's environment, ``os.environ`` by default. With ``spec.env`` it decides which
            ``.env.{ENVIRONMENT}`` belongs to the project.

    Raises:
        ProcessFailed: it cannot be started. One line: what is wrong, where, and what to do.
    """
    try:
        return _inspect(spec, host_main, os.environ if environ is None else environ)
    except (FileProblem, ProcessFailed) as error:
        # The cause tells a shortage from what has to be corrected.
        raise ProcessFailed(one_line(str(error))) from error.__cause__


def _inspect(spec: ProcessSpec, host_main: Path | None, environ: Mapping[str, str]) -> ProjectPlan:
    declared = f"in [tool.lycomm.processes.{spec.name}]"
    try:
        folder = absolute(spec.project)
        if not exists(folder):
            raise ProcessFailed(f"project folder {shown(folder)} does not exist: correct project {declared}")
        if not is_dir(folder):
            raise ProcessFailed(f"project {shown(folder)} is a file: give its folder as project {declared}")
    except FileProblem as error:
        raise ProcessFailed(f"project folder {error}: correct project {declared}") from error.__cause__
    if not may_enter(folder):
        raise ProcessFailed(
            f"project folder {shown(folder)} may not be entered by this user: correct its permissions, or project "
            f"{declared}"
        )
    python = _interpreter(spec, folder)
    read_env_files(folder, {**environ, **spec.env})
    script = _script(spec, folder, python, host_main)
    if script is None and not _has_nonebot_table(folder):
        raise ProcessFailed(
            f"{shown(folder)} has neither a bot.py of a bot nor [tool.nonebot] in pyproject.toml: "
            f"start lycomm in the folder of the bot, or name its script by entry {declared}"
        )
    return ProjectPlan(folder, python, "toml" if script is None else "script", script)


def _has_nonebot_table(folder: Path) -> bool:
    data = read_pyproject(folder)
    for names in (("tool",), ("tool", "nonebot")):
        found = find_table(data, *names)
        if found is not None and not isinstance(found, dict):
            name = ".".join(names)
            raise ProcessFailed(
                f"{shown(folder / 'pyproject.toml')}: {name} is {short_repr(found)}, not a table: "
                f"write it with the heading [{name}]"
            )
    return find_table(data, "tool", "nonebot") is not None


def _interpreter(spec: ProcessSpec, folder: Path) -> Path:
    if spec.python is not None:
        found = _on_path(spec.python)
        if found is None:
            raise ProcessFailed(
                f"interpreter {shown(spec.python)} does not exist or cannot be run: "
                f"correct python in [tool.lycomm.processes.{spec.name}]"
            )
        return Path(found)
    for name in (".venv", "venv"):
        venv = folder / name
        if not is_file(venv / "pyvenv.cfg"):
            continue
        python = venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"
        if is_file(python):
            return python
        if is_dir(python.parent):
            raise ProcessFailed(
                f"virtual environment {shown(venv)} has lost its interpreter {shown(python)}: create it anew"
            )
        # No such folder: the environment was made on another system that shares this disk.
    if not sys.executable or _is_frozen():
        raise ProcessFailed(
            "this host is a program without a Python of its own for the bot (made by PyInstaller, Nuitka or the like): "
            f"make a .venv with lycomm in {folder}, or name an interpreter by python in "
            f"[tool.lycomm.processes.{spec.name}]"
        )
    return Path(sys.executable)


def _on_path(python: str) -> str | None:
    """Where *python* is, a path or the name of a command on PATH; None: nowhere, or it cannot be run."""
    try:
        return shutil.which(python)
    except (OSError, ValueError):
        return None


def _is_frozen() -> bool:
    """Whether ``sys.executable`` is a program of somebody's, which would start itself as its bot."""
    # Nuitka has its mark in each module that it has compiled; the mode without "standalone" uses the installed Python.
    compiled = getattr(sys.modules.get("__main__"), "__compiled__", None)
    return bool(getattr(sys, "frozen", False)) or bool(compiled and getattr(compiled, "standalone", True))


def _script(spec: ProcessSpec, folder: Path, python: Path, host_main: Path | None) -> Path | None:
    """The script to run; None when ``[tool.nonebot]`` is to say what the bot is."""
    script = folder / (spec.entry or "bot.py")
    if not is_file(script):
        if spec.entry is None:
            return None
        where = f"correct it in [tool.lycomm.processes.{spec.name}]"
        if exists(script):
            raise ProcessFailed(f"entry {shown(spec.entry)} in {shown(folder)} is no file: {where}")
        raise ProcessFailed(f"entry {shown(spec.entry)} does not exist in {shown(folder)}: {where}")
    if not _starts_the_host(script, python, host_main):
        return script
    if spec.entry is None:
        return None
    raise ProcessFailed(f"entry {shown(script)} starts a host, not a bot: name the script that calls nonebot.run()")


def _starts_the_host(script: Path, python: Path, host_main: Path | None) -> bool:
    if host_main is not None and same_file(script, host_main):
        return True
    tree = _parse(script, python)
    return tree is not None and any(_imports_the_host(node) for node in ast.walk(tree))


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder; False when one of them leads nowhere."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _imports_the_host(node: ast.AST) -> bool:
    """``liteyuki_host.comm`` does not count: it is the half that bots use."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return False
    return any(name.split(".")[0] == "liteyuki_host" and name.split(".")[1:2] != ["comm"] for name in names)


def _parse(script: Path, python: Path) -> ast.Module | None:
    """The script's syntax tree; None when it is no Python of our version but may be of the child's."""
    source = read_bytes(script)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the child shows them, once, with its own filters
            tree = ast.parse(source, str(script))
            # Finds what parsing does not, a stray return for one.
            compile(tree, str(script), "exec", dont_inherit=True)
    except SyntaxError as error:
        if not _same_version(python):
            return None
        line = f" line {error.lineno}" if error.lineno else ""
        raise ProcessFailed(f"{shown(script)}{line}: {error.msg}") from None
    # Null bytes in older Pythons, an encoding that is none, and what is nested too deeply.
    except (ValueError, LookupError, RecursionError, OverflowError) as error:
        raise ProcessFailed(f"{shown(script)}: {why(error)}") from None
    except MemoryError as error:  # the same in some Pythons, or there is none
        raise ProcessFailed(f"{shown(script)}: {why(error)}") from error
    return tree


def _same_version(python: Path) -> bool:
    """Whether *python* reads our syntax, as far as one can tell without running it."""
    if python == Path(sys.executable):
        return True
    try:
        text = read_bytes(python.parent.parent / "pyvenv.cfg").decode("utf-8", "replace")
    except FileProblem:
        return False
    match = re.search(r"^version(?:_info)? *= *(\d+)\.(\d+)", text, re.MULTILINE)
    return match is not None and (int(match[1]), int(match[2])) == sys.version_info[:2]


# What a NoneBot project keeps its settings in; the host's own settings come from the same kinds of file.


def read_env_files(folder: Path, environ: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The dotenv files that NoneBot reads in *folder*: file name and values, the weaker file first.

    Args:
        environ: has the last word on ``ENVIRONMENT``, and gives ``${NAME}`` in values its meaning.

    Raises:
        FileProblem: one of them is not UTF-8, cannot be read, or is beyond a bound of ``dotenv_text``.
    """
    first = _read_env_file(folder / ".env", environ)
    environment = _any_case(environ, "environment") or _any_case(first, "environment") or "prod"
    name = f".env.{environment}"
    return [(".env", first), (name, _read_env_file(folder / name, environ))]


def _any_case(variables: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in variables.items() if key.lower() == name), None)


def _read_env_file(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    if is_dir(path) or not may_be_read(path):  # a virtual environment may be called .env; NoneBot takes no notice
        return {}
    return variables(read_text(path), path, environ)


def read_pyproject(folder: Path) -> dict[str, Any]:
    """The folder's pyproject.toml; empty when there is none.

    Raises:
        FileProblem: it is not UTF-8 or not valid TOML.
    """
    path = folder / "pyproject.toml"
    if not may_be_read(path):
        return {}
    text = read_text(path)
    if text.startswith("\ufeff"):  # neither pip nor NoneBot can read it
        raise FileProblem(f"{shown(path)} begins with a byte order mark: save it as UTF-8 without BOM")
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a whole number with more digits than Python converts
        once = ": a heading may stand only once, put the lines below the first one" if "twice" in str(error) else ""
        raise FileProblem(f"{shown(path)} is not valid TOML: {error}{once}") from None
    return data


def find_table(data: Any, *names: str) -> Any:
    """What stands at ``[names...]`` of a parsed TOML file; None when nothing does."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data
