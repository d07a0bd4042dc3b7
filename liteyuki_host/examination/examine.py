"""All declared processes, and what they are to each other: one port, one project, an instance that runs already."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import anyio

from liteyuki_host.comm.gil import without_the_gil
from liteyuki_host.examination.bot import Bot, examine_bot, in_time
from liteyuki_host.examination.findings import Finding, Findings
from liteyuki_host.examination.ports import (
    Place,
    Refused,
    Taken,
    both_want,
    is_part_of,
    look_at,
    no_socket_folder,
)
from liteyuki_host.output.log_file import must_take_lines
from liteyuki_host.output.text import HOST
from liteyuki_host.paths import FileProblem, exists, is_dir
from liteyuki_host.project import find_table, read_pyproject, same_file
from liteyuki_host.settings import Settings
from liteyuki_host.wording import shown, why

AT_ONCE = 4
"""Bots that are loaded at the same time. Each takes about a second of one processor core and 60 MiB."""

PORT_SECONDS = 5.0
"""For one address to be tried; a name in HOST may have to be looked up."""


async def examine(settings: Settings, *, load: bool = True) -> list[Finding]:
    """Find what keeps the declared bots from starting, and what the operator should know. Starts and writes nothing.

    Args:
        load: also import each bot in a throw-away process, as a reload does; what a plugin does when it is imported
            happens there. False: only what can be told without importing anything of the projects.

    Returns:
        the findings of the host, then those of each process, in the order of declaration.
    """
    host = Findings(HOST)
    _examine_host(settings, host)
    _examine_own_bot(settings, host)
    specs = list(settings.process_specs().values())
    bots: dict[str, Bot] = {}
    limit = anyio.Semaphore(min(AT_ONCE, os.cpu_count() or 1))

    async def examine_one(index: int) -> None:
        async with limit:
            bots[specs[index].name] = await examine_bot(specs[index], load=load)

    async with anyio.create_task_group() as tasks:
        for index in range(len(specs)):
            tasks.start_soon(examine_one, index)
    in_order = [bots[spec.name] for spec in specs]
    _examine_doubles(in_order)
    await _examine_ports(in_order)
    return [*host.all(), *(finding for bot in in_order for finding in bot.findings.all())]


def _examine_host(settings: Settings, findings: Findings) -> None:
    no_gil = without_the_gil()
    if no_gil is not None:
        findings.note(no_gil)
    for module in settings.plugins:
        top = module.partition(".")[0]
        path = settings.folder / top
        try:
            there = is_dir(path) or exists(path.with_suffix(".py")) or importlib.util.find_spec(top) is not None
        except (ImportError, ValueError, FileProblem):
            continue  # it is there and odd: loading it will tell
        if not there:
            findings.fault(
                f"plugins: there is no module {module}: correct its name, or put {top}.py into {shown(settings.folder)}"
            )
    if settings.log_folder is None:
        return
    problem = _not_writable(settings.log_folder)
    if problem is not None:
        findings.note(f"log_dir: {problem}; the host would go on without log files")
    for name in (HOST, *settings.process_specs()):
        path = settings.log_folder / f"{name}.log"
        try:
            must_take_lines(os.stat(path))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        except OSError as error:
            findings.note(f"log file {shown(path)} cannot be written: {why(error)}; the host would go on without it")


def _examine_own_bot(settings: Settings, findings: Findings) -> None:
    """The first process that is declared takes the place of the one that a folder with a bot has by default."""
    if not settings.processes:
        return
    try:
        if find_table(read_pyproject(settings.folder), "tool", "nonebot") is None:
            return
    except FileProblem:
        return  # told elsewhere
    if any(same_file(settings.folder, spec.project) for spec in settings.process_specs().values()):
        return
    findings.note(
        f"the bot in {shown(settings.folder)} is not among the declared processes and will not run; if it is to, add "
        '[tool.lycomm.processes.nonebot] with project = "."'
    )


def _not_writable(folder: Path) -> str | None:
    try:
        for nearest in (folder, *folder.parents):
            if exists(nearest):
                if not is_dir(nearest):
                    return f"{shown(nearest)} is a file"
                return None if os.access(nearest, os.W_OK) else f"{shown(nearest)} cannot be written by this user"
    except FileProblem as error:
        return str(error)
    return None


# One project, several processes.


def _examine_doubles(bots: Sequence[Bot]) -> None:
    for one, other in _pairs(bots):
        if one.identity is None or one.identity != other.identity:
            continue
        name = other.spec.name
        if _same_bot(one, other):
            example = f'env = {{ ENVIRONMENT = "{name}" }} in [tool.lycomm.processes.{name}], which reads .env.{name}'
            other.findings.note(
                f"runs the same project as {one.spec.name}, with the same entry and env: probably the same bot twice. "
                f"If it is another account, tell them apart by entry or env, such as {example}; otherwise remove one"
            )
        else:
            other.findings.note(f"runs the same project as {one.spec.name}, with another entry or env")


def _same_bot(one: Bot, other: Bot) -> bool:
    assert one.plan is not None
    assert other.plan is not None
    scripts = [plan.script and os.path.relpath(plan.script, plan.folder) for plan in (one.plan, other.plan)]
    return scripts[0] == scripts[1] and dict(one.spec.env) == dict(other.spec.env)


# Ports.


async def _examine_ports(bots: Sequence[Bot]) -> None:
    for one, other in _pairs(bots):
        if one.place is not None and other.place is not None:
            assert one.plan is not None
            assert other.plan is not None
            if both_want(one.place, one.plan.folder, other.place, other.plan.folder):
                _tell_double_port(one, other)
    running = {
        child.pid: bot.spec.name if child.name in ("", bot.spec.name) else child.name
        for bot in reversed(bots)
        if bot.holder is not None
        for child in bot.holder.all_children()
    }
    for bot in bots:
        if bot.place is not None:
            await _examine_port(bot, bot.place, running)


def _tell_double_port(one: Bot, other: Bot) -> None:
    place = other.place
    assert place is not None
    what = f"unix:{shown(place.uds)}" if place.uds is not None else str(place)
    line = f"{what} is also that of {one.spec.name}: give one of the two another one, {_where_to_set(other)}"
    if one.spec.autostart and other.spec.autostart:
        other.findings.fault(line)
    else:
        other.findings.note(f"{line}, or never run both at once")


async def _examine_port(bot: Bot, place: Place, running: Mapping[int, str]) -> None:
    assert bot.plan is not None
    if place.uds is not None:
        problem = no_socket_folder(place, bot.plan.folder)
        if problem is not None:
            bot.findings.fault(problem)
        return
    state = await in_time(partial(look_at, place), PORT_SECONDS)
    if isinstance(state, Refused):
        bot.findings.fault(f"cannot listen on {place}: {state.words}; correct HOST or PORT {_where_it_stands(bot)}")
    elif isinstance(state, Taken):
        _tell_taken(bot, place, state, running)


def _tell_taken(bot: Bot, place: Place, taken: Taken, running: Mapping[int, str]) -> None:
    runs_already = bot.holder is not None and bot.holder.host_lives()
    sibling = None if taken.pid is None else is_part_of(taken.pid, running)
    if runs_already and (taken.pid is None or sibling == bot.spec.name):
        return  # it is this bot itself, as far as one can see; that it runs has been told
    if sibling is not None:
        tell = bot.findings.fault if bot.spec.autostart else bot.findings.note
        tell(
            f"{place} is in use by the bot {sibling} (pid {taken.pid}): give one of the two another one, "
            f"{_where_to_set(bot)}"
        )
    else:
        bot.findings.fault(
            f"{place} is in use by {taken}: end that program, or give this bot another one, {_where_to_set(bot)}"
        )


def _where_to_set(bot: Bot) -> str:
    if _in_environment(bot):
        return f"by PORT {_where_it_stands(bot)}"
    return f"by PORT in its .env or env = {{ PORT = 8081 }} in [tool.lycomm.processes.{bot.spec.name}]"


def _where_it_stands(bot: Bot) -> str:
    name = bot.spec.name
    if _has_port(bot.spec.env):
        return f"in env of [tool.lycomm.processes.{name}]"
    return "in the environment, which beats every .env" if _in_environment(bot) else "in .env"


def _in_environment(bot: Bot) -> bool:
    return _has_port(bot.spec.env) or _has_port(os.environ)


def _has_port(variables: Mapping[str, str]) -> bool:
    return any(name.upper() == "PORT" for name in variables)


def _pairs(bots: Sequence[Bot]) -> Iterator[tuple[Bot, Bot]]:
    """Two by two, of those that can be started at all."""
    return combinations([bot for bot in bots if bot.plan is not None], 2)
