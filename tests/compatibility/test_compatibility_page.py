"""The pages in both languages show what the command has found, and nothing else."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tests.compatibility import page, results
from tests.compatibility.candidates import ADAPTERS, CANDIDATES, DRIVERS, KINDS, PLUGINS
from tests.compatibility.exchanges import CLIENTS
from tests.compatibility.page import CHINESE, ENGLISH, LANGUAGES, Words
from tests.compatibility.platforms import PLATFORMS
from tests.compatibility.results import About, Result, Run

DOCS = Path(__file__).parents[2] / "docs"

ABOUT = About("2026-11-29", "Linux", "3.11.7", "2.5.0", "1.7.4", "0.1.0")
RUN = Run(ready_seconds=1.5, exit_code=0, shutdown_hook=True, tracebacks=0, lines=20, answers={"GET /": "404"})
SAME = Result("plugin", "nonebot-plugin-one", {"nonebot-plugin-one": "1.0"}, nb=RUN, lycomm=RUN)
DIFFERENT = Result(
    "driver",
    "~none",
    {"nonebot2": "2.5.0"},
    nb=RUN,
    lycomm=dataclasses.replace(RUN, exit_code=None, shutdown_hook=False, answers={"GET /": "500"}),
    only_nb={"a `quoted` | line": 1},
    only_lycomm={"b": 3},
    host=["[WARNING] host | slow"],
)
NOT_RUN = Result("adapter", "Console", reason="terminal")
NOT_INSTALLED = Result("plugin", "nonebot-plugin-two", reason="install", detail="psutil<6 is wanted")
FOUND = [SAME, DIFFERENT, NOT_RUN, NOT_INSTALLED]


def test_a_table_row_shows_both_commands() -> None:
    lines = list(page.tables(FOUND, ENGLISH))
    assert "| `nonebot-plugin-one` | 1.0 | 20 / 20 | 0 | 0 | same | yes / yes | 0 / 0 | 0 / 0 | 1.5 / 1.5 |" in lines
    assert "| `~none` | 2.5.0 | 20 / 20 | 1 | 3 | differ | yes / no | 0 / – | 0 / 0 | 1.5 / 1.5 |" in lines


def test_every_difference_is_named() -> None:
    text = "\n".join(page.tables(FOUND, ENGLISH))
    for line in (
        "  - only under `nb run`: ``a `quoted` | line``",
        "  - only under `lycomm run` (3x): `b`",
        "  - exit code: 0 / –",
        "  - shutdown hook: yes / no",
        "  - answers, `GET /`: `404` / `500`",
        "- `~none`: `[WARNING] host | slow`",
    ):
        assert line in text.splitlines()


def test_a_candidate_without_a_run_is_listed_with_its_reason() -> None:
    lines = list(page.tables(FOUND, ENGLISH))
    assert f"- `Console`: {ENGLISH.reasons['terminal']}" in lines
    assert f"- `nonebot-plugin-two`: {ENGLISH.reasons['install']}: `psutil<6 is wanted`" in lines
    assert lines[0] == "1 of 2 run the same under both commands; 1 differ, and 2 were not run."


def test_what_lycomm_warns_of_is_no_difference_of_the_bot() -> None:
    assert dataclasses.replace(SAME, host=["[WARNING] host | slow"]).same
    assert not dataclasses.replace(SAME, only_lycomm={"a": 1}).same
    assert not dataclasses.replace(SAME, lycomm=dataclasses.replace(RUN, left=1)).same


def test_both_languages_have_the_same_data() -> None:
    english, chinese = (list(page.tables(FOUND, words, ABOUT)) for words in LANGUAGES)
    assert len(english) == len(chinese)
    for one, other in zip(english, chinese, strict=True):
        assert re.findall(r"`+[^`].*?`+", one) == re.findall(r"`+[^`].*?`+", other)
        assert [cell for cell in one.split(" | ") if _is_data(cell)] == [
            cell for cell in other.split(" | ") if _is_data(cell)
        ]
    assert not any(re.search(r"[\u4e00-\u9fff]", line) for line in english)


def _is_data(cell: str) -> bool:
    return bool(re.fullmatch(r"[\d./– ]+", cell))


@pytest.mark.parametrize("field", ["kinds", "columns", "reasons", "extra"])
def test_both_languages_have_the_same_words(field: str) -> None:
    english, chinese = getattr(ENGLISH, field), getattr(CHINESE, field)
    assert len(english) == len(chinese)
    if isinstance(english, dict):
        assert english.keys() == chinese.keys()


def test_results_survive_the_file(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results.save(file, ABOUT, FOUND)
    assert results.load(file) == FOUND
    assert results.load_about(file) == ABOUT


def test_a_later_result_replaces_an_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for result in (SAME, NOT_RUN, dataclasses.replace(SAME, only_nb={"a": 1})):
        results.append(file, result)
    assert results.load(file) == [dataclasses.replace(SAME, only_nb={"a": 1}), NOT_RUN]


def test_a_page_is_filled_between_its_marks_only() -> None:
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    assert page.filled(text, iter([r"new \1"])) == f"before\n{page.BEGIN}\n\nnew \\1\n\n{page.END}\nafter\n"


@pytest.mark.parametrize("words", LANGUAGES, ids=lambda words: words.page)
def test_the_page_shows_the_results_beside_it(words: Words) -> None:
    """Repair with ``python -m tests.compatibility --render``."""
    text = (DOCS / words.page).read_text("utf-8")
    found, about = results.load(DOCS / page.DATA), results.load_about(DOCS / page.DATA)
    assert text == page.filled(text, page.tables(found, words, about))
    assert text.count(page.BEGIN) == text.count(page.END) == 1


def test_the_results_are_those_of_the_candidates() -> None:
    shown = [(result.kind, result.name) for result in results.load(DOCS / page.DATA)]
    assert shown == [(candidate.kind, candidate.name) for candidate in CANDIDATES]


def test_the_issue_has_its_numbers() -> None:
    assert len(PLUGINS) >= 26
    assert len([each for each in ADAPTERS if not each.reason]) >= 8
    assert len(DRIVERS) >= 6


def test_every_candidate_names_what_exists() -> None:
    assert len({(candidate.kind, candidate.name) for candidate in CANDIDATES}) == len(CANDIDATES)
    for candidate in CANDIDATES:
        assert candidate.kind in KINDS
        assert candidate.client in ("", *CLIENTS)
        assert candidate.platform in ("", *PLATFORMS)
        assert candidate.reason in ("", *ENGLISH.reasons)
        assert not candidate.client or candidate.has_server, candidate.name
