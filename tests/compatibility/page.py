"""Results as tables of ``docs/compatibility.md``, in both languages. The words differ, the data is the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.compatibility import results
from tests.compatibility.candidates import KINDS
from tests.compatibility.results import About, Result, Run

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
"""The lines of a page between which the command writes."""

DATA = "compatibility.jsonl"
"""The results that the pages show, beside them."""

LINE_LIMIT, REASON_LIMIT = 200, 400
"""Characters that are shown of a log line, and of what the installer says."""

NONE = "–"


@dataclass(frozen=True)
class Words:
    """What a page says in one language."""

    page: str
    about: str
    summary: str
    kinds: Mapping[str, tuple[str, str]]
    """Heading, and first column."""
    columns: Sequence[str]
    yes: str
    no: str
    same: str
    differs: str
    asked: tuple[str, str, str]
    """Heading, column of the candidate, column of the question."""
    differences: str
    host: str
    not_run: str
    reasons: Mapping[str, str]
    extra: Mapping[str, str]
    """What a bullet of a difference begins with."""


ENGLISH = Words(
    page="compatibility.md",
    about="{date}, {system}, Python {python}, nonebot2 {nonebot2}, nb-cli {nb_cli}, lycomm {lycomm}.",
    summary="{same} of {run} run the same under both commands; {differing} differ, and {missing} were not run.",
    kinds={
        "plugin": ("Store plugins", "plugin"),
        "adapter": ("Adapters", "adapter"),
        "driver": ("Drivers", "`DRIVER`"),
    },
    columns=(
        "version",
        "lines of the bot",
        "only `nb run`",
        "only `lycomm run`",
        "answers",
        "shutdown hook",
        "exit code",
        "tracebacks",
        "ready after (s)",
    ),
    yes="yes",
    no="no",
    same="same",
    differs="differ",
    asked=("What adapters and drivers were asked", "candidate", "question"),
    differences="What differs",
    host="What lycomm warned of",
    not_run="Not run",
    reasons={
        "install": "cannot be installed beside lycomm",
        "terminal": "draws on the whole terminal and prints no lines that could be compared",
    },
    extra={
        "only_nb": "only under `nb run`",
        "only_lycomm": "only under `lycomm run`",
        "exit_code": "exit code",
        "shutdown_hook": "shutdown hook",
        "tracebacks": "tracebacks",
        "answers": "answers",
        "left": "processes left behind",
        "ready": "ready",
    },
)

CHINESE = Words(
    page="compatibility.zh-CN.md",
    about="{date}, {system}, Python {python}, nonebot2 {nonebot2}, nb-cli {nb_cli}, lycomm {lycomm}。",
    summary="运行了 {run} 个, 其中 {same} 个在两个命令下相同, {differing} 个有差别; 另有 {missing} 个没有运行。",
    kinds={
        "plugin": ("商店插件", "插件"),
        "adapter": ("适配器", "适配器"),
        "driver": ("驱动器", "`DRIVER`"),
    },
    columns=(
        "版本",
        "机器人的日志行数",
        "仅 `nb run`",
        "仅 `lycomm run`",
        "应答",
        "关闭钩子",
        "退出码",
        "异常回溯",
        "就绪用时 (秒)",
    ),
    yes="是",
    no="否",
    same="相同",
    differs="不同",
    asked=("向适配器和驱动器提的问题", "对象", "问题"),
    differences="有差别的地方",
    host="lycomm 的警告",
    not_run="没有运行的",
    reasons={
        "install": "无法与 lycomm 安装在一起",
        "terminal": "它占用整个终端绘制界面, 没有可以比较的日志行",
    },
    extra={
        "only_nb": "仅在 `nb run` 下",
        "only_lycomm": "仅在 `lycomm run` 下",
        "exit_code": "退出码",
        "shutdown_hook": "关闭钩子",
        "tracebacks": "异常回溯",
        "answers": "应答",
        "left": "遗留进程",
        "ready": "就绪",
    },
)

LANGUAGES = (ENGLISH, CHINESE)


def tables(found: Sequence[Result], words: Words, about: About | None = None) -> Iterator[str]:
    """Yield the lines of the part of a page that shows *found*."""
    if about:
        yield words.about.format(**vars(about))
        yield ""
    yield _summary(found, words)
    for kind in KINDS:
        if rows := [result for result in found if result.kind == kind and result.nb and result.lycomm]:
            heading, first = words.kinds[kind]
            yield from ["", f"### {heading}", ""]
            yield from _table([first, *words.columns], [_row(result, words) for result in rows])
    yield from _asked(found, words)
    yield from _section(words.differences, [line for result in found for line in _differences(result, words)])
    yield from _section(words.host, [f"- {_code(each.name)}: {_code(line)}" for each in found for line in each.host])
    yield from _section(words.not_run, [_not_run(result, words) for result in found if result.reason])


def write(found: Sequence[Result], about: About, docs: Path) -> None:
    """Write the results into the pages of both languages, and beside them as data."""
    results.save(docs / DATA, about, found)
    for words in LANGUAGES:
        file = docs / words.page
        file.write_text(filled(file.read_text("utf-8"), tables(found, words, about)), "utf-8")


def filled(page: str, lines: Iterator[str]) -> str:
    """Return *page* with *lines* between its two marks."""
    text = "\n".join(lines)
    return re.sub(
        rf"(?<={re.escape(BEGIN)}\n).*(?=^{re.escape(END)}$)",
        lambda _: f"\n{text}\n\n",
        page,
        flags=re.DOTALL | re.MULTILINE,
    )


def in_a_line(result: Result) -> str:
    """What came of one candidate, for who watches the run."""
    if result.reason:
        return f"not run: {ENGLISH.reasons[result.reason]} {result.detail}".rstrip()
    if result.same:
        return "same"
    return "differs: " + "; ".join(line.strip("- ") for line in list(_differences(result, ENGLISH))[1:])


# The parts of a page


def _summary(found: Sequence[Result], words: Words) -> str:
    run = [result for result in found if result.nb and result.lycomm]
    same = sum(result.same for result in run)
    counts = {"same": same, "run": len(run), "differing": len(run) - same, "missing": len(found) - len(run)}
    return words.summary.format(**counts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _row(result: Result, words: Words) -> list[str]:
    nb, ours = result.nb, result.lycomm
    assert nb is not None
    assert ours is not None

    def both(shown: Callable[[Run], str]) -> str:
        return f"{shown(nb)} / {shown(ours)}"

    answers = NONE if not (nb.answers or ours.answers) else words.same if nb.answers == ours.answers else words.differs
    return [
        _code(result.name),
        result.version,
        both(lambda run: str(run.lines)),
        str(sum(result.only_nb.values())),
        str(sum(result.only_lycomm.values())),
        answers,
        both(lambda run: words.yes if run.shutdown_hook else words.no),
        both(lambda run: NONE if run.exit_code is None else str(run.exit_code)),
        both(lambda run: str(run.tracebacks)),
        both(_ready),
    ]


def _asked(found: Sequence[Result], words: Words) -> Iterator[str]:
    rows = []
    for result in found:
        if result.kind != "plugin" and result.nb and result.lycomm:
            for question in dict.fromkeys([*result.nb.answers, *result.lycomm.answers]):
                answers = [run.answers.get(question, "") for run in (result.nb, result.lycomm)]
                if any(answers):
                    rows.append([_code(result.name), _code(question), *map(_code, answers)])
    if rows:
        heading, first, second = words.asked
        yield from ["", f"### {heading}", ""]
        yield from _table([first, second, "`nb run`", "`lycomm run`"], rows)


def _section(heading: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from ["", f"### {heading}", "", *lines]


def _differences(result: Result, words: Words) -> Iterator[str]:
    nb, ours = result.nb, result.lycomm
    if result.same or nb is None or ours is None:
        return
    yield f"- {_code(result.name)}"
    for name in ("only_nb", "only_lycomm"):
        for line, count in getattr(result, name).items():
            yield f"  - {words.extra[name]}{'' if count == 1 else f' ({count}x)'}: {_code(line)}"
    shown: dict[str, Callable[[Run], str]] = {
        "ready": lambda run: words.no if run.ready_seconds is None else words.yes,
        "exit_code": lambda run: NONE if run.exit_code is None else str(run.exit_code),
        "shutdown_hook": lambda run: words.yes if run.shutdown_hook else words.no,
        "tracebacks": lambda run: str(run.tracebacks),
        "left": lambda run: str(run.left),
    }
    for name, show in shown.items():
        if show(nb) != show(ours):
            yield f"  - {words.extra[name]}: {show(nb)} / {show(ours)}"
    for question in dict.fromkeys([*nb.answers, *ours.answers]):
        one, other = nb.answers.get(question, NONE), ours.answers.get(question, NONE)
        if one != other:
            yield f"  - {words.extra['answers']}, {_code(question)}: {_code(one)} / {_code(other)}"


def _not_run(result: Result, words: Words) -> str:
    detail = f": {_code(result.detail, limit=REASON_LIMIT)}" if result.detail else ""
    return f"- {_code(result.name)}: {words.reasons[result.reason]}{detail}"


def _ready(run: Run) -> str:
    return NONE if run.ready_seconds is None else f"{run.ready_seconds:.1f}"


def _code(text: str, *, limit: int = LINE_LIMIT) -> str:
    """*text* between backticks, more of them than it has itself, and not too long."""
    if not text or text == NONE:
        return text or NONE
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if "`" in (text[0], text[-1]) else ""
    return f"{fence}{pad}{text}{pad}{fence}"
