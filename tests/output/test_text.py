"""Bytes to lines, lines to something harmless."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from liteyuki_host.log import line_format
from liteyuki_host.output.text import CUT_MARK, LINE_LIMIT, Block, LineCutter, clean

MARK = CUT_MARK.decode()


def lines_of(pieces: list[bytes]) -> list[bytes]:
    return [line for piece in pieces for line in piece.split(b"\n")]


@given(st.binary(max_size=60).map(lambda b: b.replace(b"\r", b"")), st.lists(st.integers(1, 7), min_size=1))
def test_however_the_bytes_arrive_the_lines_are_the_same(data: bytes, sizes: list[int]) -> None:
    cutter, pieces, rest = LineCutter(), [], data
    while rest:
        for size in sizes:
            pieces += cutter.feed(rest[:size], 0.0)
            rest = rest[size:]
    pieces += cutter.finish()
    expected = data.split(b"\n")
    assert lines_of(pieces) == (expected if expected[-1] else expected[:-1])


def test_a_flood_is_cut_into_blocks_at_line_ends() -> None:
    line = b"x" * 999 + b"\n"
    pieces = LineCutter().feed(line * 300, 0.0)
    assert all(len(piece) <= LINE_LIMIT for piece in pieces)
    assert len(pieces) == 5
    assert lines_of(pieces) == [line[:-1]] * 300


@pytest.mark.parametrize("chunk", [3_000_000, 9_999])
def test_a_line_without_end_is_cut_between_characters_and_marked(chunk: int) -> None:
    data = ("雪" * 100_000).encode() + b"\nnext\n"
    cutter, pieces = LineCutter(), []
    for start in range(0, len(data), chunk):
        pieces += cutter.feed(data[start : start + chunk], 0.0)
    *cut, end, following = [line.decode() for line in lines_of(pieces)]
    assert len(cut) == 4
    assert all(line.endswith("雪" + MARK) for line in cut)
    assert "".join(line.removesuffix(MARK) for line in cut) + end == "雪" * 100_000
    assert following == "next"


def test_half_a_line_is_due_after_a_silence() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"whole\nCont", 5.0) == [b"whole"]
    assert cutter.feed(b"inue? ", 5.1) == []
    assert cutter.half_due() == pytest.approx(5.3)
    assert cutter.take_half() == [b"Continue? "]
    assert cutter.half_due() is None
    assert cutter.feed(b"\nyes\n", 6.0) == [b"yes"], "the line end belongs to the question"
    assert cutter.feed(b"\n", 6.0) == [b""]


def test_a_line_that_goes_on_growing_is_shown_too() -> None:
    cutter = LineCutter()
    for tenth in range(40):
        cutter.feed(b".", 50 + tenth / 10)
    assert cutter.half_due() == pytest.approx(52.0)


def test_half_a_character_waits_for_its_other_half() -> None:
    cutter = LineCutter()
    cutter.feed("小雪".encode()[:-1], 0.0)
    assert cutter.take_half() == ["小".encode()]
    assert cutter.half_due() is None
    assert cutter.feed("雪".encode()[-1:] + b"\n", 9.0) == ["雪".encode()]


def test_a_progress_bar_is_shown_now_and_then_and_does_not_pile_up() -> None:
    cutter = LineCutter()
    for step in range(30_000):
        assert cutter.feed(b"\r%6d of 30000 done" % step, step / 1e6) == []
    assert cutter.half_due() == pytest.approx(2.0, abs=0.1)
    (half,) = cutter.take_half()
    assert len(half) <= LINE_LIMIT
    assert clean(half.decode()) == " 29999 of 30000 done"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mred\x1b[0m and \x1b[38;5;208mmore\x1b[m", "\x1b[31mred\x1b[0m and \x1b[38;5;208mmore\x1b[m"),
        ("a\x1b[2Jb\x1b[10;20Hc\x1b[?25ld", "abcd"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
        ("a\x1b]0;never ends\nnext line", "a]0;never ends\nnext line"),
        ("a\x1b]0;ends elsewhere\nnext\x07b", "a]0;ends elsewhere\nnext\ufffdb"),
        ("a\x1bPq...\x1b\\b\x1bcc\x1b(Bd\x1b7e", "abcde"),
        ("a\x1b", "a"),
        ("a\x1b\x1b[2J[2Jb", "a[2Jb"),
        ("a\x9b2Jb\x85c", "ab\ufffdc"),
        ("a\x00\x00\x00b\x07c\x08d\te", "a\ufffdb\ufffdc\ufffdd\te"),
        ("evil\u202egnp.exe\u2028next", "evil\ufffdgnp.exe\ufffdnext"),
        ("10%\r50%\r100%\r\nnext\r\n\r", "100%\nnext\n"),
        ("down\ufffd\ufffdload", "down\ufffdload"),
        ("مرحبا 小雪 🤖", "مرحبا 小雪 🤖"),
    ],
)
def test_what_acts_on_a_terminal_goes_and_colours_stay(written: str, shown: str) -> None:
    assert clean(written) == shown


@given(st.text(alphabet="\x1b\x9b[]0;mJPa\\\x07\r\n\x00\u202e\t"))
def test_nothing_harmful_survives_in_any_order_and_no_line_is_lost(text: str) -> None:
    cleaned = clean(text)
    left = re.sub(r"\x1b\[[0-9;:]*m", "", cleaned)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", left)
    assert cleaned.count("\n") == text.count("\n")
    assert clean(cleaned) == cleaned


# On the console


def of_loguru(process: str, *, colours: bool) -> str:
    stream = io.StringIO()
    sink = logger.add(stream, format=line_format(process), colorize=colours, level="INFO")
    logger.info("hello")
    logger.remove(sink)
    return stream.getvalue().rstrip("\n")


@pytest.mark.parametrize("colours", [False, True])
def test_a_line_that_names_its_process_is_shown_as_it_is(colours: bool) -> None:
    line = of_loguru("bot", colours=colours)
    assert ("\x1b[" in line) is colours
    assert Block.of("bot", line.encode()).for_console() == line + "\n"


@pytest.mark.parametrize("other", ["host", "bot2", "bo"])
def test_a_line_that_names_another_process_is_marked_with_its_writer(other: str) -> None:
    forged = of_loguru(other, colours=False)
    assert Block.of("bot", forged.encode()).for_console() == f"bot | {forged}\n"


def test_all_other_lines_get_the_name() -> None:
    data = b"print\n\n  File x\n\xff\n"
    assert Block.of("bot", data).for_console() == "bot | print\nbot | \nbot |   File x\nbot | \ufffd\nbot | \n"


def test_a_colour_ends_with_its_line() -> None:
    shown = Block.of("bot", b"\x1b[31mred\nplain\n\x1b[1mbold\x1b[0m").for_console()
    assert shown == "bot | \x1b[31mred\x1b[0m\nbot | plain\nbot | \x1b[1mbold\x1b[0m\n"


def test_in_a_file_lines_have_a_time_and_no_colours() -> None:
    line = of_loguru("bot", colours=False)
    coloured = of_loguru("bot", colours=True)
    shown = Block.of("bot", f"{coloured}\n\x1b[31mTraceback".encode()).for_file().splitlines()
    assert shown[0][19:] == line[19:]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| Traceback", shown[1])
