"""Commands that a message tells the user to run, as lines for a shell that work with this installation.

A bot's environment is often not activated (nb-cli never does so), and then ``lycomm`` alone is "command not found".
Imported where a message is made and not before: it needs modules that a bot otherwise does without.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["lycomm", "pip_install_lycomm", "run_this_bot", "shell_line"]

DISTRIBUTION = "nonebot-plugin-lycomm"


def lycomm(*arguments: str) -> str:
    """Return the line that runs ``lycomm`` with *arguments* from this process's environment."""
    return shell_line(*_program(), *arguments)


def run_this_bot() -> str:
    """Return the line that runs this process's bot under a host, in the current folder.

    It names the script that this process runs, unless the host finds it by itself.
    """
    main = sys.modules.get("__main__")
    script, folder = Path(getattr(main, "__file__", None) or "").absolute(), Path.cwd()
    # `nb run` without a bot.py has no script; `python -m` and the commands of an environment have one that is no bot.
    if getattr(main, "__spec__", None) is None and script.suffix == ".py" and folder in script.parents:
        relative = str(script.relative_to(folder))
        if relative != "bot.py":
            return lycomm("run", relative)
    return lycomm("run")


def pip_install_lycomm(python: str | os.PathLike[str] | None = None) -> str:
    """Return the line that installs lycomm into an environment, from where this installation came.

    Args:
        python: interpreter of that environment; None is this process's.
    """
    return shell_line(os.fspath(python or sys.executable), "-m", "pip", "install", _requirement())


def shell_line(*words: str) -> str:
    """Return *words* as one command line, with quotes where the system's shell needs them."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _program() -> list[str]:
    on_path = shutil.which("lycomm")
    for script in _scripts():
        if on_path is not None and os.path.samefile(on_path, script):
            return ["lycomm"]
        return [str(script)]
    return [sys.executable or "python3", "-m", "liteyuki_host"]


def _scripts() -> Iterator[Path]:
    """Files of the ``lycomm`` command that belong to this interpreter."""
    name = "lycomm.exe" if os.name == "nt" else "lycomm"
    beside = Path(sys.executable).parent / name  # not resolved: that would leave a virtual environment
    if beside.is_file():
        yield beside
    for scheme in {sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")}:
        script = Path(sysconfig.get_path("scripts", scheme), name)
        # All versions of Python that a user has share the folder for `pip install --user`.
        if script.is_file() and _names_this_interpreter(script):
            yield script


def _names_this_interpreter(script: Path) -> bool:
    try:
        return os.fsencode(sys.executable) in script.read_bytes()
    except OSError:
        return False


def _requirement() -> str:
    """What pip is to install: the file, folder or repository that this lycomm came from, else this version."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")  # PEP 610
    except (metadata.PackageNotFoundError, ValueError, OSError):
        return DISTRIBUTION
    url = str(origin.get("url", ""))
    repository = origin.get("vcs_info")
    if repository:
        return f"{repository['vcs']}+{url}@{repository['commit_id']}"
    if urlsplit(url).scheme != "file":
        return url or f"{DISTRIBUTION}=={distribution.version}"
    from urllib.request import url2pathname  # here: it brings all of http with it

    path = url2pathname(urlsplit(url).path)
    return path if os.path.exists(path) else f"{DISTRIBUTION}=={distribution.version}"
