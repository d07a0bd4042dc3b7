"""Each page is in one language, and a page and its translation tell the same in the same order."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, PAIRS, ROOT, Piece, code_in, pieces, table_rows

CHINESE = [page for page in PAGES if page.name.endswith(".zh-CN.md")]
ENGLISH = [page for page in PAGES if page not in CHINESE]
NAMES_OF_LANGUAGES = r"\[(English|简体中文|中文)\]|English \||\| 简体中文"
HAN = r"[\u3000-\u303f\u4e00-\u9fff\uff01-\uff60]"
ENGLISH_SENTENCE = r"(?<![\w-])(?:[A-Za-z][A-Za-z'-]*[,;:]? +){4}[A-Za-z]+"


def _name(given: object) -> str:
    return given.name if isinstance(given, Path) else ""


def _words(piece: Piece) -> str:
    return re.sub(NAMES_OF_LANGUAGES, "", piece.words)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)
def test_a_page_and_its_translation_link_to_each_other_at_the_top(pair: tuple[Path, Path]) -> None:
    for page, other in (pair, pair[::-1]):
        assert f"]({other.name})" in page.read_text("utf-8").partition("\n## ")[0]


@pytest.mark.parametrize("page", ENGLISH, ids=_name)
def test_an_english_page_has_no_chinese_but_in_code(page: Path) -> None:
    found = [f"line {piece.line}: {piece.text}" for piece in pieces(page) if re.search(HAN, _words(piece))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", CHINESE, ids=_name)
def test_a_chinese_page_has_no_english_sentence(page: Path) -> None:
    found = []
    for piece in pieces(page):
        cells = _words(piece).split("|") if piece.kind == "row" else [_words(piece)]
        for cell in cells:
            english_only = re.search(r"[A-Za-z]+ [a-z]{2}", cell) and not re.search(HAN, cell)
            if english_only or re.search(ENGLISH_SENTENCE, cell):
                found.append(f"line {piece.line}: {cell.strip()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)
def test_a_page_and_its_translation_have_the_same_pieces_and_code(pair: tuple[Path, Path]) -> None:
    english, chinese = (pieces(page) for page in pair)
    for one, other in zip(english, chinese, strict=False):  # the first difference tells more than the count
        where = f"{pair[0].name} line {one.line}, {pair[1].name} line {other.line}"
        assert one.kind == other.kind, f"{where}:\n{one.text}\n{other.text}"
        assert one.code == other.code, f"{where}:\n{one.text}\n{other.text}"
    assert len(english) == len(chinese)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)
def test_a_row_and_its_translation_have_the_same_figures(pair: tuple[Path, Path]) -> None:
    english, chinese = ([piece for piece in pieces(page) if piece.kind == "row"] for page in pair)
    for one, other in zip(english, chinese, strict=True):
        where = f"{pair[0].name} line {one.line}, {pair[1].name} line {other.line}"
        assert _figures(one) == _figures(other), f"{where}:\n{one.text}\n{other.text}"


def _figures(piece: Piece) -> Counter[str]:
    return Counter(re.findall(r"\d(?:[\d,.]*\d)?", _words(piece)))


def test_no_log_line_is_explained_twice() -> None:
    lines = [line for row in table_rows(ROOT / "docs" / "operations.md") if (line := code_in(row[0]))]
    assert [line for line, count in Counter(lines).items() if count > 1] == []


def test_a_link_to_a_page_that_exists_in_both_languages_stays_in_the_language() -> None:
    translated = {english.name: chinese.name for english, chinese in PAIRS}
    back = {chinese: english for english, chinese in translated.items()}
    for pages, wrong in ((ENGLISH, back), (CHINESE, translated)):
        for page in pages:
            _, _, text = page.read_text("utf-8").partition("\n## ")
            for target in re.findall(r"\]\((?!https?://)([^)\s#]+)[^)]*\)", text):
                name = target.rpartition("/")[2]
                assert name not in wrong, f"{page.name}: {target} instead of {wrong[name]}"
