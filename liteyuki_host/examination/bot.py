"""One bot: what its folder holds, what its own interpreter says about it, and whether it can be loaded."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import anyio

from liteyuki_host.boundary import in_thread
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.examination.findings import Findings
from liteyuki_host.examination.ports import Place
from liteyuki_host.paths import FileProblem, read_bytes
from liteyuki_host.project import ProjectPlan, inspect_project
from liteyuki_host.supervisor.hiding import hidden_packages
from liteyuki_host.supervisor.installation import difference, loaded
from liteyuki_host.supervisor.lock import Holder, holder_of, project_identity
from liteyuki_host.supervisor.process import child_environment, why_no_host_in
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.trial import TrialFailure, seconds_for, trial
from liteyuki_host.wording import one_line, shown, why

T = TypeVar("T")

SURVEY_SECONDS = 30.0
"""For a survey: it imports NoneBot and a driver, which takes about a second, on a cold disk several."""

SURVEY_BYTES = 1024 * 1024

PLACE_IN_ENVIRONMENT = re.compile(r"^([A-Z0-9_]+) in the environment\b")

PASSED_BY_SCRIPTS = {"driver", "host", "port", "fd", "uds", "_env_file"}
"""Arguments of ``nonebot.init()`` and ``nonebot.run()`` that take the place of what stands in ``.env``."""


@dataclass
class Bot:
    """What is known of one declared process."""

    spec: ProcessSpec
    findings: Findings
    plan: ProjectPlan | None = None
    """None: it cannot be started at all."""
    holder: Holder | None = None
    """Who runs the project at the moment."""
    place: Place | None = None
    """Where it would listen, as far as that is known."""
    identity: object = field(default=None)
    """Equal for two processes of one project folder."""


async def examine_bot(spec: ProcessSpec, *, load: bool) -> Bot:
    """Find out all that can be found without the other processes.

    Args:
        load: import the project in a process of its own, as a reload does.
    """
    bot = Bot(spec, Findings(spec.name))
    try:
        bot.plan = await in_thread(_inspect, spec)
    except ProcessFailed as error:
        bot.findings.fault(str(error))
        return bot
    with contextlib.suppress(OSError):  # gone since
        bot.identity = project_identity(bot.plan.folder)
    when = "" if spec.autostart else ", only when asked (autostart = false)"
    bot.findings.plan(_words(bot.plan) + when)
    bot.holder = await in_thread(holder_of, bot.plan.folder)
    if bot.holder is not None:
        bot.findings.note(bot.holder.words())
    # Nothing is to be written, not even by Python itself.
    quiet = replace(spec, env={"PYTHONDONTWRITEBYTECODE": "1", **spec.env})
    survey = await _surveyed(quiet, bot.plan, bot.findings)
    if survey is not None:
        await _judge(bot, quiet, survey, load)
    return bot


def _inspect(spec: ProcessSpec) -> ProjectPlan:
    return inspect_project(spec, host_main=None)


async def _judge(bot: Bot, spec: ProcessSpec, survey: Mapping[str, Any], load: bool) -> None:
    findings, plan = bot.findings, bot.plan
    assert plan is not None
    is_script = plan.script is not None
    start = [_placed(line, spec) for line in survey["start"]]
    for line in survey["notes"]:
        findings.note(line)
    bot.place = Place.of(survey["listens"])
    # The script may pass settings itself: what stands in .env may not be what counts, and only loading it tells.
    overruled = is_script and plan.script is not None and _passes_settings(plan.script)
    if load and (is_script or not start):
        verdict: dict[str, Any] = {}
        failure = await trial(spec, plan, timeout=seconds_for(spec), on_verdict=verdict.update)
        if "failed_plugins" in verdict:
            for name, words in verdict["failed_plugins"].items():
                findings.fault(_without_plugin(name, str(words)))
            for line in verdict["replaced"]:
                findings.fault(_placed(line, spec))
            for line in verdict["mistyped"]:
                findings.note(line)
            if verdict.get("note") is not None:
                findings.note(verdict["note"])
                bot.place = None
            elif verdict.get("listens") is not None:
                bot.place = Place.of(verdict["listens"])
            return
        assert failure is not None
        # What the lines below say as well is said once.
        if overruled or not any(line in failure.words for line in start):
            findings.fault(_in_one_line(failure))
    if overruled:
        bot.place = None
        return
    for line in [*start, *(_placed(line, spec) for line in survey["replaced"])]:
        findings.fault(line)
    for line in survey["plugins"]:
        findings.fault(f"{line}; the bot would run without it")
    for line in survey["mistyped"]:
        findings.note(line)


def _without_plugin(name: str, words: str) -> str:
    start = words if name in words else f"plugin {name}: {words}"
    return f"{start}; the bot would run without this plugin"


def _in_one_line(failure: TrialFailure) -> str:
    last = failure.output.rstrip().rpartition("\n")[2].strip()
    return f"{failure.words}; the last line it printed: {one_line(last, 300)}" if last else failure.words


def _placed(line: str, spec: ProcessSpec) -> str:
    """The environment of a bot is in part what the settings say."""
    found = PLACE_IN_ENVIRONMENT.match(line)
    if found is None or found[1] not in {name.upper() for name in spec.env}:
        return line
    return f"{found[1]} in env of [tool.lycomm.processes.{spec.name}]{line[found.end() :]}"


def _passes_settings(script: Path) -> bool:
    """Whether a call in it may overrule the configuration: ``nonebot.init(driver="~none")``, ``run(**options)``."""
    try:
        tree = ast.parse(read_bytes(script))
    except (FileProblem, SyntaxError, ValueError, LookupError, RecursionError, MemoryError):
        return False
    return any(
        isinstance(node, ast.Call)
        and any(keyword.arg is None or keyword.arg.lower() in PASSED_BY_SCRIPTS for keyword in node.keywords)
        for node in ast.walk(tree)
    )


def _words(plan: ProjectPlan) -> str:
    what = "[tool.nonebot]" if plan.script is None else shown(os.path.relpath(plan.script, plan.folder))
    return f"{what} in {shown(plan.folder)} with {shown(plan.python)}"


# The survey: a process of the bot's own interpreter.


async def _surveyed(spec: ProcessSpec, plan: ProjectPlan, findings: Findings) -> dict[str, Any] | None:
    """What the bot's interpreter says. None: it cannot run lycomm, or no bot at all, which has been told."""
    survey, problems = await _survey_or_problems(spec, plan)
    hidden = await in_thread(hidden_packages, plan, child_environment(spec, {}))
    if hidden:  # what else is wrong may come from that
        problems = hidden
    for line in problems:
        findings.fault(line)
    return None if problems else survey


async def _survey_or_problems(spec: ProcessSpec, plan: ProjectPlan) -> tuple[dict[str, Any] | None, list[str]]:
    try:
        problem = await in_thread(why_no_host_in, plan.python, plan.folder) if _is_foreign(plan.python) else None
        if problem is not None:
            return None, [problem]
        survey = await _ask(spec, plan)
    except ProcessFailed as error:  # of why_no_host_in
        return None, [str(error)]
    except (OSError, ValueError) as error:
        survey = why(error)
    if not isinstance(survey, dict):
        return None, [f"{shown(plan.python)} cannot be asked about the project: {survey}"]
    if survey["unfit"]:
        return survey, list(survey["unfit"])
    other = difference(plan.python, survey["version"], survey["protocol"], ours=loaded())
    return survey, [] if other is None else [other]


def _is_foreign(python: Path) -> bool:
    return python != Path(sys.executable)


async def _ask(spec: ProcessSpec, plan: ProjectPlan) -> dict[str, Any] | str:
    """The answer, or words for why there is none. The process and all it started are gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        str(plan.python),
        "-m",
        "liteyuki_host._child.survey",
        "--kind",
        plan.kind,
        cwd=plan.folder,
        env=child_environment(spec, {}),
        stdin=subprocess.PIPE,  # ends with this process, however that ends, and the survey ends with it
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=sys.platform != "win32",
    )
    try:
        with anyio.move_on_after(SURVEY_SECONDS):
            assert process.stdout is not None
            answer = await _read(process.stdout)
            code = await process.wait()
            with contextlib.suppress(ValueError):
                survey = json.loads(answer)
                if isinstance(survey, dict):
                    return survey
            return f"it exited {code} (another version of lycomm? install the same as the host's)"
        return f"no answer in {SURVEY_SECONDS:g} s"
    finally:
        with anyio.CancelScope(shield=True):
            _kill(process)
            await process.wait()


async def _read(stream: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while len(answer) < SURVEY_BYTES and (block := await stream.read(65536)):
        answer += block
    return bytes(answer)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)  # also what a package has started when it was imported


async def in_time(function: Callable[[], T], seconds: float) -> T | None:
    """Call *function* in a daemon thread. None: it took longer, and its result is of no interest any more."""
    with anyio.move_on_after(seconds):
        return await in_thread(function, name="lycomm-examination")
    return None
