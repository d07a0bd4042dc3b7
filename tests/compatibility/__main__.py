"""The command line: ``python -m tests.compatibility``."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import platform
import socket
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from liteyuki_host import __version__
from tests.compatibility import page, results, running
from tests.compatibility.candidates import CANDIDATES, Candidate
from tests.compatibility.lines import Output, differences, read_lycomm, read_nb
from tests.compatibility.project import ROOT, CannotInstall, Project, build_wheel
from tests.compatibility.results import About, Result, Run
from tests.compatibility.running import Record

DOCS = ROOT / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    unknown = set(options.only) - {candidate.name for candidate in CANDIDATES}
    if unknown:
        print(f"no such candidate: {', '.join(sorted(unknown))}; --list shows all", file=sys.stderr)
        return 2
    if options.render:
        page.write(results.load(DOCS / page.DATA), results.load_about(DOCS / page.DATA), DOCS)
        return 0
    if options.list:
        print("\n".join(f"{candidate.kind:8} {candidate.name}" for candidate in CANDIDATES))
        return 0
    running.take_signals()
    try:
        found = _try_all(options)
    except KeyboardInterrupt:
        return running.INTERRUPTED
    for line in page.tables(found, page.ENGLISH):
        print(line)
    if options.write:
        page.write(found, _about(found), DOCS)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.compatibility",
        description="run bots with store plugins, adapters and drivers by `nb run` and by `lycomm run`; compare",
    )
    parser.add_argument("--list", action="store_true", help="print the names of all candidates")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this candidate; may be repeated")
    parser.add_argument("--resume", action="store_true", help="leave out candidates that have a result in the folder")
    parser.add_argument(
        "--write", action="store_true", help="write docs/compatibility.* with the results in the folder"
    )
    parser.add_argument("--rounds", type=int, default=2, help="runs under each command while lines differ: %(default)s")
    parser.add_argument(
        "--render", action="store_true", help="only write the pages again, from docs/compatibility.jsonl"
    )
    parser.add_argument("--keep", action="store_true", help="keep the projects with their environments")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "lycomm-compatibility",
        help="for results.jsonl, the logs of all runs, and the projects while they run: %(default)s",
    )
    return parser.parse_args(arguments)


def _try_all(options: argparse.Namespace) -> list[Result]:
    """Try what the options say, one at a time, and return all results in the folder, in the order of the table."""
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.jsonl"
    if not options.resume and not options.only:
        file.unlink(missing_ok=True)
    done = {(result.kind, result.name) for result in results.load(file)} if options.resume else set()
    wanted = [
        candidate
        for candidate in CANDIDATES
        if (not options.only or candidate.name in options.only) and (candidate.kind, candidate.name) not in done
    ]
    wheel = build_wheel(folder / "wheel") if wanted else Path()
    for number, candidate in enumerate(wanted, 1):
        _tell(f"{number} of {len(wanted)}: {candidate.kind} {candidate.name}")
        result = asyncio.run(_try(candidate, wheel, options))
        results.append(file, result)
        _tell(f"    {page.in_a_line(result)}")
    order = {(candidate.kind, candidate.name): at for at, candidate in enumerate(CANDIDATES)}
    known = [result for result in results.load(file) if (result.kind, result.name) in order]
    return sorted(known, key=lambda result: order[result.kind, result.name])


async def _try(candidate: Candidate, wheel: Path, options: argparse.Namespace) -> Result:
    if candidate.reason:
        return Result(candidate.kind, candidate.name, reason=candidate.reason)
    name = f"{candidate.kind}-{candidate.name}".replace("~", "").replace("+", "-").replace(" ", "-").lower()
    bot_port, platform_port = _free_ports(2)
    project = Project(options.folder / "projects" / name, candidate, bot_port, platform_port)
    try:
        versions = project.install(wheel)
        return await _compare(project, versions, options.rounds, options.folder / "logs" / name)
    except CannotInstall as error:
        return Result(candidate.kind, candidate.name, reason="install", detail=str(error))
    finally:
        if not options.keep:
            project.remove()


async def _compare(project: Project, versions: dict[str, str], rounds: int, logs: Path) -> Result:
    """Run the bot under each command in turns: once, and up to *rounds* times while lines differ."""
    logs.mkdir(parents=True, exist_ok=True)
    nb: list[Record] = []
    lycomm: list[Record] = []
    for number in range(1, rounds + 1):
        for records, command in ((nb, running.nb), (lycomm, running.lycomm)):
            record = await running.run(project, command(project))
            (logs / f"{command.__name__}-{number}.log").write_text("\n".join(record.lines) + "\n", "utf-8")
            records.append(record)
        nb_outputs = [read_nb(record.lines, project.places) for record in nb]
        lycomm_outputs = [read_lycomm(record.lines, project.places) for record in lycomm]
        found = differences([output.bot for output in nb_outputs], [output.bot for output in lycomm_outputs])
        if not found.any:
            break
    return Result(
        project.candidate.kind,
        project.candidate.name,
        versions,
        nb=_run(nb, nb_outputs),
        lycomm=_run(lycomm, lycomm_outputs),
        only_nb=found.only_nb,
        only_lycomm=found.only_lycomm,
        host=list(dict.fromkeys(line for output in lycomm_outputs for line in output.host)),
    )


def _run(records: Sequence[Record], outputs: Sequence[Output]) -> Run:
    """What the page says of the runs under one command: the last one, and the shortest time until ready."""
    last = records[-1]
    hook = all(any(running.SHUTDOWN_HOOK in line for line in record.lines) for record in records)
    ready = None if last.ready_seconds is None else min(filter(None, (record.ready_seconds for record in records)))
    return Run(
        ready_seconds=ready and round(ready, 1),
        exit_code=last.exit_code,
        shutdown_hook=hook,
        tracebacks=outputs[-1].tracebacks,
        lines=len(outputs[-1].bot),
        answers=last.answers,
        left=max(record.left for record in records),
    )


def _about(found: Sequence[Result]) -> About:
    nonebot2 = {result.versions["nonebot2"] for result in found if "nonebot2" in result.versions}
    return About(
        date=datetime.date.today().isoformat(),
        system=platform.system(),
        python=platform.python_version(),
        nonebot2=", ".join(sorted(nonebot2)),
        nb_cli=metadata.version("nb-cli"),
        lycomm=__version__,
    )


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
