"""What a child's project folder holds and how it is started.

Inspection only: nothing of the project is imported, run or written. It happens again at each start, because
the operator may have corrected the project in between.
"""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dotenv.parser import parse_stream
from dotenv.variables import parse_variables

from .comm.errors import ProcessFailed
from .supervisor.spec import ProcessSpec

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
    folder = spec.project.absolute()
    declared = f"in [tool.lycomm.processes.{spec.name}]"
    if not folder.exists():
        raise ProcessFailed(f"project folder {folder} does not exist: correct project {declared}")
    if not folder.is_dir():
        raise ProcessFailed(f"project {folder} is a file: give its folder as project {declared}")
    python = _interpreter(spec, folder)
    try:
        read_env_files(folder, {**(os.environ if environ is None else environ), **spec.env})
        script = _script(spec, folder, python, host_main)
        if script is None and not isinstance(find_table(read_pyproject(folder), "tool", "nonebot"), dict):
            raise ProcessFailed(
                f"{folder} has no bot.py of a bot and no [tool.nonebot] in pyproject.toml: "
                f"add one of them, or name another script by entry {declared}"
            )
    except FileProblem as error:
        raise ProcessFailed(str(error)) from error.__cause__  # which tells a shortage from what has to be corrected
    return ProjectPlan(folder, python, "toml" if script is None else "script", script)


def _interpreter(spec: ProcessSpec, folder: Path) -> Path:
    if spec.python is not None:
        found = shutil.which(spec.python)  # a bare name is looked up on PATH
        if found is None:
            raise ProcessFailed(
                f"interpreter {spec.python} does not exist or cannot be run: "
                f"correct python in [tool.lycomm.processes.{spec.name}]"
            )
        return Path(found)
    for name in (".venv", "venv"):
        venv = folder / name
        if not (venv / "pyvenv.cfg").is_file():
            continue
        python = venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"
        if python.is_file():
            return python
        if python.parent.is_dir():
            raise ProcessFailed(f"virtual environment {venv} has lost its interpreter {python}: create it anew")
        # No such folder: the environment was made on another system that shares this disk.
    return Path(sys.executable)


def _script(spec: ProcessSpec, folder: Path, python: Path, host_main: Path | None) -> Path | None:
    """The script to run; None when ``[tool.nonebot]`` is to say what the bot is."""
    script = folder / (spec.entry or "bot.py")
    if not script.is_file():
        if spec.entry is None:
            return None
        raise ProcessFailed(
            f"entry {spec.entry} does not exist in {folder}: correct it in [tool.lycomm.processes.{spec.name}]"
        )
    if not _starts_the_host(script, python, host_main):
        return script
    if spec.entry is None:
        return None
    raise ProcessFailed(f"entry {script} starts a host, not a bot: name the script that calls nonebot.run()")


def _starts_the_host(script: Path, python: Path, host_main: Path | None) -> bool:
    if host_main is not None and host_main.exists() and script.samefile(host_main):
        return True
    tree = _parse(script, python)
    return tree is not None and any(_imports_the_host(node) for node in ast.walk(tree))


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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the child shows them, once, with its own filters
            tree = ast.parse(script.read_bytes(), str(script))
            # Finds what parsing does not, a stray return for one.
            compile(tree, str(script), "exec", dont_inherit=True)
    except SyntaxError as error:
        if not _same_version(python):
            return None
        line = f" line {error.lineno}" if error.lineno else ""
        raise ProcessFailed(f"{script}{line}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # ValueError: null bytes, in older Pythons
        raise ProcessFailed(f"{script}: {error}") from None
    except OSError as error:
        raise ProcessFailed(f"{script} cannot be read: {error.strerror}") from error
    return tree


def _same_version(python: Path) -> bool:
    """Whether *python* reads our syntax, as far as one can tell without running it."""
    if python == Path(sys.executable):
        return True
    config = python.parent.parent / "pyvenv.cfg"
    text = config.read_text("utf-8", "replace") if config.is_file() else ""
    match = re.search(r"^version(?:_info)? *= *(\d+)\.(\d+)", text, re.MULTILINE)
    return match is not None and (int(match[1]), int(match[2])) == sys.version_info[:2]


# What a NoneBot project keeps its settings in; the host's own settings come from the same kinds of file.


class FileProblem(ValueError):
    """A file cannot be used as it is. The text is one line that names the file and the remedy."""


def read_env_files(folder: Path, environ: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The dotenv files that NoneBot reads in *folder*: file name and values, the weaker file first.

    Args:
        environ: has the last word on ``ENVIRONMENT``, and gives ``${NAME}`` in values its meaning.

    Raises:
        FileProblem: one of them is not UTF-8 or cannot be read.
    """
    first = _read_env_file(folder / ".env", environ)
    environment = _any_case(environ, "environment") or _any_case(first, "environment") or "prod"
    name = f".env.{environment}"
    return [(".env", first), (name, _read_env_file(folder / name, environ))]


def _any_case(variables: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in variables.items() if key.lower() == name), None)


def _read_env_file(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """``dotenv_values``, but ``${NAME}`` is looked up in *environ* and a line of ours is never dropped."""
    if not path.is_file():
        return {}
    values: dict[str, str] = {}
    text = _read_text(path).removeprefix("\ufeff")  # python-dotenv does so itself from 1.2 on
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is not None:
            known = {**environ, **values}
            atoms = parse_variables(binding.value or "")
            values[binding.key] = "".join(atom.resolve(known) for atom in atoms)
        elif binding.error and "lycomm_" in binding.original.string.lower():
            raise FileProblem(f"{path} line {binding.original.line}: not of the form LYCOMM_NAME=value")
    return values


def read_pyproject(folder: Path) -> dict[str, Any]:
    """The folder's pyproject.toml; empty when there is none.

    Raises:
        FileProblem: it is not UTF-8 or not valid TOML.
    """
    path = folder / "pyproject.toml"
    if not path.is_file():
        return {}
    text = _read_text(path)
    if text.startswith("\ufeff"):  # neither pip nor NoneBot can read it
        raise FileProblem(f"{path} begins with a byte order mark: save it as UTF-8 without BOM")
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FileProblem(f"{path} is not valid TOML: {error}") from None
    return data


def find_table(data: Any, *names: str) -> Any:
    """What stands at ``[names...]`` of a parsed TOML file; None when nothing does."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileProblem(f"{path} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"byte {error.start}, line {line}"
        raise FileProblem(f"{path} is not UTF-8 ({where}): save it as UTF-8") from None
