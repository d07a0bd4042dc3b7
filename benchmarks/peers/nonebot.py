"""The same bot without a host: as nb-cli runs it, and as a plain script does."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

from benchmarks.measures import Job, Measure
from benchmarks.peers.base import Peer, Result

_SCRIPT = "import nonebot\n\nnonebot.init()\nnonebot.load_from_toml('pyproject.toml')\nnonebot.run()\n"


class PlainNoneBot(Peer):
    name = "python, without a host"

    def does(self, measure: Measure) -> bool:
        return measure.workload == "start"

    def measure(self, job: Job) -> Result:
        from benchmarks.peers.lycomm_whole import nonebot_project, time_to_port

        with tempfile.TemporaryDirectory(prefix="lycomm-benchmarks-") as name:
            folder = Path(name, "bot")
            port = nonebot_project(folder, "~fastapi")
            return time_to_port(self.command(folder), folder, port)

    def command(self, folder: Path) -> list[str]:
        (folder / "plain.py").write_text(_SCRIPT)
        return [sys.executable, "plain.py"]


class NbRun(PlainNoneBot):
    """Finds the project, its Python and its bot; then runs it in a process of its own."""

    name = "nb run"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("nb_cli") else "nb-cli is not installed in this environment"

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, "-m", "nb_cli", "run"]
