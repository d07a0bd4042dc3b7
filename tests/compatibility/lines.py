"""Log lines made comparable, and compared. Nothing here reads a file or a clock.

``nb run`` prints ``11-29 19:23:56 [INFO] uvicorn | Shutting down``; under a host the same line is
``2026-11-29 19:23:56 [INFO] nonebot | uvicorn | Shutting down``, among lines of the host. What is compared is
``[INFO] uvicorn | Shutting down``, with everything replaced that differs between any two runs: process ids, the
ports of clients, durations, times, addresses of objects.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

PROCESS = "nonebot"
"""The name that the host gives a bot for which the project declares none; it stands in front of each of its lines."""

BY_DESIGN = (re.compile(r"\[SUCCESS\] nonebot \| Succeeded to load plugin \"(lycomm|nonebot_plugin_lycomm)\".*"),)
"""Lines of the bot's own log that are there because of the host, by design: the plugin is loaded by itself."""

NBS = (re.compile(r"(Using python|使用 Python): .*"),)
"""Lines of nb-cli itself, which has no other name in front of them."""


@dataclass(frozen=True)
class Output:
    """What one run has printed."""

    bot: list[str]
    """The bot's own lines, comparable with those of other runs. A traceback is one line: its last."""
    host: list[str] = field(default_factory=list)
    """Warnings and errors of the host and of lycomm's part in the bot, each without the lines that follow it."""
    tracebacks: int = 0
    """Tracebacks in the bot's lines."""


@dataclass(frozen=True)
class Differences:
    """Lines with how often they appear more than under the other command."""

    only_nb: dict[str, int]
    only_lycomm: dict[str, int]

    @property
    def any(self) -> bool:
        return bool(self.only_nb or self.only_lycomm)


def read_nb(lines: Sequence[str], places: Mapping[str, str]) -> Output:
    """Read what ``nb run`` has printed.

    Args:
        places: texts such as the project's folder and the bot's port, and what to write for them.
    """
    return _read([_plain(line) for line in lines], places, NBS)


def read_lycomm(lines: Sequence[str], places: Mapping[str, str]) -> Output:
    """Read what ``lycomm run`` has printed; *places* as for :func:`read_nb`.

    Lines that lycomm adds to the bot's log are the host's lines here.
    """
    bot: list[str] = []
    host: list[str] = []
    writer = "host"
    for line in map(_plain, lines):
        stamped = _STAMPED.match(line)
        if stamped:
            writer = _writer(stamped["text"])
        elif writer == "host" and line.startswith(f"{PROCESS} |"):
            writer = "bot"
        if writer == "bot":
            bot.append(_without_process(line))
        elif stamped and stamped["level"] not in ("DEBUG", "INFO", "SUCCESS"):
            host.append(_comparable(_without_process(line), places))
    output = _read(bot, places, BY_DESIGN)
    return Output(output.bot, host, output.tracebacks)


def differences(nb: Sequence[Sequence[str]], lycomm: Sequence[Sequence[str]]) -> Differences:
    """Compare the lines of several runs under each command.

    A line counts as different only when every run under one command has it more often than every run under the
    other: what differs between two runs under the same command says nothing about the commands.
    """
    ours, theirs = [Counter(run) for run in lycomm], [Counter(run) for run in nb]
    return Differences(_more(theirs, ours), _more(ours, theirs))


def _more(these: Sequence[Counter[str]], those: Sequence[Counter[str]]) -> dict[str, int]:
    more = {line: min(run[line] for run in these) - max(run[line] for run in those) for line in these[0]}
    return {line: count for line, count in more.items() if count > 0}


# One run

_STAMPED = re.compile(r"(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d (?=\[(?P<level>\w+)\] )(?:\[\w+\] )(?P<text>.*)")
_TRACEBACK = "Traceback (most recent call last)"
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?")
_IN_A_GROUP = re.compile(r"^ +\| ")
_END_OF_A_GROUP = re.compile(r" +\+-{5,}")
_CHAIN = re.compile(r"[ |]*(The above exception was the direct|During handling of the above exception|\+-)")


def _writer(text: str) -> str:
    """Who has written a line with a stamp: the host, lycomm's part in the bot, or the bot. Others go on with it."""
    if text.startswith("host | "):
        return "host"
    return "lycomm" if re.match(rf"{PROCESS} \| (liteyuki_host|nonebot_plugin_lycomm) \| ", text) else "bot"


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;:]*m", "", line).rstrip()


def _without_process(line: str) -> str:
    return re.sub(rf"^((?:\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \[\w+\] )?){PROCESS} \| ?", r"\1", line)


def _read(lines: Sequence[str], places: Mapping[str, str], left_out: Sequence[re.Pattern[str]]) -> Output:
    tracebacks = sum(_TRACEBACK in line for line in lines)
    short = [_comparable(line, places) for line in _with_short_tracebacks(lines)]
    bot = [line for line in short if line and not any(pattern.fullmatch(line) for pattern in left_out)]
    return Output(bot, tracebacks=tracebacks)


def _with_short_tracebacks(lines: Sequence[str]) -> Iterator[str]:
    """The same lines, but of each traceback only its exception: its frames are those of two different launchers."""
    inside, words = False, ""
    for at, line in enumerate(lines):
        if _TRACEBACK in line:
            inside = True
        elif not inside:
            yield line
        elif _STAMPED.match(line):
            yield f"traceback: {words}".rstrip()
            yield line
            inside, words = False, ""
        elif _END_OF_A_GROUP.fullmatch(line):
            yield f"traceback: {words}"
            inside, words = False, ""
        elif _EXCEPTION.fullmatch(text := _IN_A_GROUP.sub("", line)):
            words = text
            following = next((later for later in lines[at + 1 :] if later.strip(" |")), "")
            if not _CHAIN.match(following):
                yield f"traceback: {words}"
                inside, words = False, ""
    if inside:
        yield f"traceback: {words}".rstrip()


_CHANGES: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b[0-9a-f]{32,}\b", "ID"),
        (r"\b0x[0-9a-fA-F]{6,}\b", "ADDRESS"),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?( ?[+-]\d\d:?\d\d|Z)?( [A-Z]{3,4})?", "TIME"),
        (r"\b\d\d:\d\d:\d\d\b", "TIME"),
        (r"\b1\d{9}(\.\d+)?\b", "TIME"),
        (r"(?<=process \[)\d+(?=\])", "PID"),
        (r"\b(?i:pid)([ =:]+)\d+", r"pid\g<1>PID"),
        (r"(127\.0\.0\.1|localhost)(:|', )\d+", r"\1\2PORT"),
        (r"\b\d+(\.\d+)? ?(?=(ms|s|sec|seconds)\b)", "N "),
        (r"\b\d+(\.\d+)? ?(?=(毫秒|秒))", "N "),
    )
]


def _comparable(line: str, places: Mapping[str, str]) -> str:
    stamped = _STAMPED.match(line)
    text = stamped["text"] if stamped else line
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    for pattern, name in _CHANGES:
        text = pattern.sub(name, text)
    return f"[{stamped['level']}] {text}" if stamped else text.strip()
