"""A project with an environment of its own, as today's ``nb create`` and ``nb plugin install`` make it."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.compatibility.candidates import Candidate

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 600.0
"""Most of it is waiting for the package index."""

NO_SOLUTION = re.compile(r"^(error: )?No solution found when resolving dependencies:? (cause: )?")
REASON_LIMIT = 400
"""Characters of what the installer says; the first sentence names the packages that exclude each other."""

PREPARE_SECONDS = 120.0

NB = (sys.executable, "-m", "nb_cli")
"""nb-cli outside the project's environment, as pipx installs it: it finds that environment by itself."""

DRIVER_EXTRAS = "fastapi,quart,httpx,websockets,aiohttp"
"""One environment for all values of ``DRIVER``: which one is used is for the setting to say."""

AWAY = re.compile(r"LYCOMM_|PYTEST|COVERAGE|VIRTUAL_ENV$|PYTHON(PATH|HOME|UTF8|UNBUFFERED)|WITNESS_|XDG_")
"""Variables of ours that a user's shell would not have."""


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
"""Of what nb-cli wants to know of a plugin and does not write down."""


class CannotInstall(Exception):
    """The packages cannot be installed together; the text is what the installer says."""


def build_wheel(folder: Path) -> Path:
    """Build this checkout into *folder* and return the wheel."""
    shutil.rmtree(folder, ignore_errors=True)
    _uv("build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    return wheel


class Project:
    """A folder with a bot in it.

    Args:
        folder: made by :meth:`install`; what is in it is deleted.
        bot_port: where the bot listens, if it does.
        platform_port: where the platform's server listens, if there is one.
    """

    def __init__(self, folder: Path, candidate: Candidate, bot_port: int, platform_port: int) -> None:
        self.folder = folder
        self.candidate = candidate
        self.bot_port = bot_port
        self.platform_port = platform_port

    @property
    def python(self) -> Path:
        """The interpreter of the project's virtual environment."""
        return self.folder / ".venv" / "bin" / "python"

    @property
    def places(self) -> dict[str, str]:
        """What of this project may stand in log lines, and what to write for it."""
        return {
            str(self.folder.resolve() / ".venv"): "ENVIRONMENT",
            str(self.folder.resolve()): "PROJECT",
            str(self.folder): "PROJECT",
            sys.base_prefix: "PYTHON",
            str(ROOT): "CHECKOUT",
            f":{self.bot_port}": ":BOT_PORT",
            f":{self.platform_port}": ":PLATFORM_PORT",
        }

    def install(self, wheel: Path) -> dict[str, str]:
        """Make the virtual environment; return the versions of the packages that are tried.

        Raises:
            CannotInstall: the package index does not have them, they exclude each other, or one does not build.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        _uv("venv", "--quiet", "--python", sys.executable, str(self.folder / ".venv"))
        package = self.candidate.adapter[2]
        requirements = [f"nonebot2[{DRIVER_EXTRAS}]", package, *self.candidate.requirements, str(wheel)]
        _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", str(self.python), *requirements)
        listed = json.loads(_uv("pip", "list", "--python", str(self.python), "--format", "json"))
        installed = {entry["name"]: entry["version"] for entry in listed}
        names = [re.split(r"[\[<>=~!; ]", text)[0] for text in (*self.candidate.requirements, "nonebot2")]
        return {name: installed[name] for name in names}

    def write(self) -> None:
        """Write the project's files anew; whatever a run has left there goes, but for the environment."""
        for path in self.folder.iterdir():
            if path.name != ".venv":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._create()
        for name, value in self.candidate.settings(self.bot_port, self.platform_port).items():
            with (self.folder / ".env.prod").open("a", encoding="utf-8") as stream:
                stream.write(f"{name}={value}\n")
        (self.folder / "home").mkdir()
        (self.folder / "plugins").mkdir()
        shutil.copy(Path(__file__).with_name("witness.py"), self.folder / "plugins" / "witness.py")
        if self.candidate.prepare:
            subprocess.run(
                [*NB, *self.candidate.prepare],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PREPARE_SECONDS,
            )

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _create(self) -> None:
        """Have nb-cli write what ``nb create`` (template "bootstrap") and ``nb plugin install`` write."""
        from nb_cli.config import ConfigManager, PackageInfo
        from nb_cli.handlers import create_project

        candidate = self.candidate
        name, module, package = candidate.adapter
        adapter = {"name": name, "module_name": module, "project_link": package, "version": "0"}
        drivers = {part: {"module_name": part} for part in candidate.driver.split("+")}
        variables = {
            "project_name": self.folder.name,
            "inplace": False,
            "adapters": json.dumps({package: [adapter]}),
            "drivers": json.dumps(drivers),
            "driver_package": json.dumps("nonebot2"),
            "environment": {"LOCALSTORE_USE_CWD": "true"},
        }
        create_project("bootstrap", {"nonebot": variables}, str(self.folder.parent))
        manager = ConfigManager(working_dir=self.folder, use_venv=True)
        for requirement, plugin in zip(candidate.requirements, candidate.modules, strict=False):
            link = requirement.partition("[")[0]
            manager.add_plugin(
                PackageInfo(name=plugin, module_name=plugin, project_link=link, time=_EPOCH, version="0")
            )
        config = manager.get_nonebot_config()
        config.plugin_dirs.append("plugins")
        manager.update_nonebot_config(config)

    def environment(self) -> Mapping[str, str]:
        """The environment of a run: the user's own, with a home folder that ends with the run.

        NoneBot loads plugins in the order of a set. With hashes that stay the same it is the same in all runs.
        """
        kept = {name: value for name, value in os.environ.items() if not AWAY.match(name)}
        if self.candidate.platform == "echo":
            kept["WITNESS_HTTP"] = f"http://127.0.0.1:{self.platform_port}/hello"
        return kept | {"HOME": str(self.folder / "home"), "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}


def _uv(*arguments: str) -> str:
    from uv import find_uv_bin

    try:
        done = subprocess.run(
            [find_uv_bin(), *arguments], capture_output=True, encoding="utf-8", timeout=INSTALL_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        words = re.sub(r"[×╰├─▶\s]+", " ", error.stderr).strip()
        raise CannotInstall(NO_SOLUTION.sub("", words)[:REASON_LIMIT].strip()) from error
    except subprocess.TimeoutExpired as error:
        raise CannotInstall(f"not installed in {INSTALL_SECONDS:g} s") from error
    return done.stdout
