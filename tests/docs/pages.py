"""The Markdown pages, taken apart: code blocks with their markers, tables, links.

A marker is an HTML comment on the line above a block, so readers do not see it:

- none, over Python: the block runs in the bot's half of a connected pair, after the page's blocks before it
- ``host side``: the same in the host's half
- ``pair NAME: FILE``: a file of a project that is really run, host and bot; ``FILE`` ``console`` is what they print
- ``pytest NAME: FILE``: a file of a folder in which pytest runs
- ``setup: NAME``: a command of the README that CI runs
- ``not run: WHY``
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("README*.md"), ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
)

PAIRS = [(page.with_name(page.name.replace(".zh-CN", "")), page) for page in PAGES if page.name.endswith(".zh-CN.md")]
"""English and Chinese page of everything that exists in both languages."""

_BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    """Of its first line of code."""
    marker: str
    language: str
    code: str

    @property
    def kind(self) -> str:
        """The marker up to its colon: ``pair page``, ``not run``, ``host side`` or nothing."""
        return self.marker.partition(":")[0]

    @property
    def file(self) -> str:
        return self.marker.partition(": ")[2]


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    name = page.relative_to(ROOT).as_posix()
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(name, line, match["marker"] or "", match["language"], match["code"]))
    return found


def files_of(page: Path, kind: str) -> dict[str, str]:
    """The files that the page shows under one marker."""
    return {block.file: block.code for block in blocks(page) if block.kind == kind}


def without_blocks(page: Path) -> str:
    return _BLOCK.sub("", page.read_text("utf-8"))


def table_rows(page: Path) -> Iterator[list[str]]:
    """The cells of every row of every table, headings and rulers left out."""
    previous_is_table = False
    for line in without_blocks(page).splitlines():
        if not line.startswith("|"):
            previous_is_table = False
            continue
        if previous_is_table and not re.fullmatch(r"[| -]+", line):
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        previous_is_table = True


def code_in(cell: str) -> str:
    """What a cell has between backticks; empty when it has none."""
    match = re.fullmatch(r"`(.*)`", cell)
    return match[1] if match else ""


@dataclass(frozen=True)
class Piece:
    """A heading, paragraph, list item, table row or code block of a page."""

    kind: str
    line: int
    text: str
    """Of a code block: nothing."""

    @property
    def code(self) -> set[str]:
        """What stands between backticks. Order and number are left out: they differ between languages."""
        return {re.sub(r"\s+", " ", span) for _, span in _CODE.findall(self.text)}

    @property
    def words(self) -> str:
        """The text without code and without the targets of links."""
        return re.sub(r"\]\([^)]*\)", "]", _CODE.sub("", re.sub(r"<[^>]*>", "", self.text)))


_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_KINDS = (("heading", r"#+ "), ("row", r"\|"), ("item", r"- |\d+\. "))


def pieces(page: Path) -> list[Piece]:
    """All pieces of the page in their order; a table without its ruler."""
    text = _BLOCK.sub(lambda match: f"```{match['language']}" + "\n" * match[0].count("\n"), page.read_text("utf-8"))
    found: list[Piece] = []
    goes_on = False
    for number, line in enumerate(text.splitlines(), 1):
        kind = next((name for name, start in _KINDS if re.match(start, line)), "paragraph")
        if line.startswith("```"):
            found.append(Piece(f"block {line[3:]}", number, ""))
            goes_on = False
        elif not line.strip() or re.fullmatch(r"[| :-]+", line):
            goes_on = False
        elif kind == "paragraph" and goes_on:
            found[-1] = Piece(found[-1].kind, found[-1].line, f"{found[-1].text}\n{line.strip()}")
        else:
            level = f" {line.index(' ')}" if kind == "heading" else ""
            found.append(Piece(f"{kind}{level}", number, line.strip()))
            goes_on = kind in ("paragraph", "item")
    return found
