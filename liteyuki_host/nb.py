"""``nb lycomm ...``: the ``lycomm`` command by way of nb-cli, which knows the bot's environment.

nb-cli installs plugins into the ``.venv`` of a project and does not activate it, so ``lycomm`` alone is not found
there. There are two ways in, because nb-cli is installed in two ways:

- Into an environment of its own (pipx, uv): nb-cli loads the bot, then calls `run_script` in the bot's environment
  (entry point group ``nb_scripts``).
- Into the bot's environment: nb-cli calls `add_command` at each of its starts (group ``nb``). That spares loading
  the bot, and makes ``nb`` itself the host.

Neither may import anything that takes time, nor the plugin: NoneBot is not initialised in nb-cli.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import NoReturn


def run_script() -> NoReturn:
    """Become ``lycomm`` with the arguments of this process. nb-cli has loaded the bot in it; that is left behind."""
    _become([sys.executable, "-m", "liteyuki_host", *sys.argv[1:]])


def add_command() -> None:
    """Add ``nb lycomm`` to nb-cli."""
    try:
        import click
        from nb_cli.cli import ClickAliasedCommand, cli, run_async
        from nb_cli.handlers import get_default_python, get_project_root
    except ImportError:
        return  # another nb-cli than we know; an error here would break every command of it

    async def lycomm(arguments: tuple[str, ...]) -> None:
        python = sys.executable
        try:
            os.chdir(get_project_root())
            python = await get_default_python()
        except RuntimeError:  # what nb-cli raises for a folder that is no project, and without a Python
            pass
        _become([python if _has_lycomm(python) else sys.executable, "-m", "liteyuki_host", *arguments])

    # By an alias: nb-cli refuses to start if a command has the name of a script, and the project has the script.
    command = ClickAliasedCommand(
        name="lycomm-host",
        aliases=["lycomm"],
        callback=run_async(lycomm),
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        help="Run the bots of this folder under the lycomm host.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
    cli.add_command(command)


def _has_lycomm(python: str) -> bool:
    if python == sys.executable:
        return True
    probe = subprocess.run([python, "-c", "import liteyuki_host"], capture_output=True, timeout=60, check=False)
    return probe.returncode == 0


def _become(words: list[str]) -> NoReturn:
    """Replace this process by the command, so that a signal reaches it once and its exit code is ours."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(words[0], words)
    # On Windows exec is a new process and the end of this one. The new one gets the same console events as we do.
    if threading.current_thread() is threading.main_thread():  # elsewhere nb-cli has handlers, which do nothing
        for name in ("SIGINT", "SIGBREAK"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    raise SystemExit(subprocess.call(words))
