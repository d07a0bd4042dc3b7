"""Lines of two commands are compared by what the bot says, not by when, where and under whom."""

from __future__ import annotations

import pytest

from tests.compatibility.lines import differences, read_lycomm, read_nb

NB = """\
Using python: /bots/one/.venv/bin/python
11-29 19:30:17 [SUCCESS] nonebot | NoneBot is initializing...
11-29 19:30:17 [INFO] uvicorn | Started server process [10806]
11-29 19:30:17 [INFO] uvicorn | Uvicorn running on http://127.0.0.1:18181 (Press CTRL+C to quit)
11-29 19:30:18 [INFO] uvicorn | 127.0.0.1:39290 - "GET / HTTP/1.1" 404
print without a stamp
""".splitlines()

LYCOMM = """\
2026-11-29 19:29:50 [INFO] host | host up (pid 15089), processes: nonebot; press Ctrl+C to stop everything
2026-11-29 19:29:50 [SUCCESS] nonebot | nonebot | NoneBot is initializing...
2026-11-29 19:29:50 [SUCCESS] nonebot | nonebot | Succeeded to load plugin "nonebot_plugin_lycomm"
2026-11-29 19:29:51 [INFO] nonebot | uvicorn | Started server process [15093]
2026-11-29 19:29:51 [INFO] nonebot | uvicorn | Uvicorn running on http://127.0.0.1:18181 (Press CTRL+C to quit)
2026-11-29 19:29:51 [WARNING] host | child nonebot has not answered for 10 s
2026-11-29 19:29:52 [INFO] nonebot | uvicorn | 127.0.0.1:40112 - "GET / HTTP/1.1" 404
nonebot | print without a stamp
""".splitlines()

PLACES = {":18181": ":BOT_PORT", "/bots/one": "PROJECT"}


def test_the_bots_lines_are_alike_under_both_commands() -> None:
    assert read_nb(NB, PLACES).bot == read_lycomm(LYCOMM, PLACES).bot
    assert read_nb(NB, PLACES).bot == [
        "[SUCCESS] nonebot | NoneBot is initializing...",
        "[INFO] uvicorn | Started server process [PID]",
        "[INFO] uvicorn | Uvicorn running on http://127.0.0.1:BOT_PORT (Press CTRL+C to quit)",
        '[INFO] uvicorn | 127.0.0.1:PORT - "GET / HTTP/1.1" 404',
        "print without a stamp",
    ]


def test_the_hosts_warnings_are_kept_apart() -> None:
    assert read_lycomm(LYCOMM, PLACES).host == ["[WARNING] host | child nonebot has not answered for N s"]


def test_what_lycomm_says_in_the_bot_is_no_line_of_the_bot() -> None:
    lines = [
        "2026-11-29 20:03:15 [ERROR] nonebot | liteyuki_host | plugin one was not loaded: in two",
        "nonebot | lines",
        "2026-11-29 20:03:15 [INFO] nonebot | nonebot_plugin_lycomm | commands are /lycomm",
        "2026-11-29 20:03:16 [INFO] nonebot | nonebot | next",
    ]
    output = read_lycomm(lines, {})
    assert output.bot == ["[INFO] nonebot | next"]
    assert output.host == ["[ERROR] liteyuki_host | plugin one was not loaded: in two"]


def test_a_print_of_the_bot_after_a_line_of_the_host_is_the_bots() -> None:
    lines = ["2026-11-29 20:03:15 [INFO] host | host up", "of two lines", "nonebot | print", "nonebot | again"]
    assert read_lycomm(lines, {}).bot == ["print", "again"]


def test_a_bot_that_logs_as_host_is_no_host() -> None:
    lines = ["2026-11-29 19:29:51 [ERROR] nonebot | host | a plugin named host"]
    output = read_lycomm(lines, {})
    assert (output.bot, output.host) == (["[ERROR] host | a plugin named host"], [])


def test_only_one_process_name_is_taken_off() -> None:
    line = "2026-11-29 19:29:51 [INFO] nonebot | nonebot | nonebot | odd"
    assert read_lycomm([line], {}).bot == ["[INFO] nonebot | nonebot | odd"]
    assert read_nb(["11-29 19:29:51 [INFO] nonebot | nonebot | odd"], {}).bot == ["[INFO] nonebot | nonebot | odd"]


def test_the_longest_place_is_replaced_first() -> None:
    places = {"/bots/one": "PROJECT", "/bots/one/.venv": "ENVIRONMENT"}
    assert read_nb(["found /bots/one/.venv/bin and /bots/one/data"], places).bot == [
        "found ENVIRONMENT/bin and PROJECT/data"
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pid 12 has it", "pid 4711 has it"),
        ("took 0.31 s", "took 12 s"),
        ("took 31ms", "took 1203ms"),
        ("用时 0.3 秒", "用时 12 秒"),
        ("next run at: 2026-11-29 19:30:21 CST", "next run at: 2026-11-29 19:31:09 UTC"),
        ("at 2026-11-29T19:30:21.123456+08:00", "at 2026-11-29T19:30:22Z"),
        ("<Task object at 0x7fb2b5fa72e0>", "<Task object at 0x7f00b5fa1111>"),
        ("session 9f1c2d3e-0000-4a4a-8b8b-123456789abc", "session 00000000-1111-4a4a-8b8b-123456789abc"),
        ("from ('127.0.0.1', 51234)", "from ('127.0.0.1', 40001)"),
        ("\x1b[32mgreen\x1b[0m", "green"),
    ],
)
def test_what_differs_between_any_two_runs_is_replaced(one: str, other: str) -> None:
    assert read_nb([one], {}).bot == read_nb([other], {}).bot


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GET / 404", "GET / 500"),
        ("loaded 3 plugins", "loaded 4 plugins"),
        ("listens on 127.0.0.1:8080", "listens on 0.0.0.0:8080"),
        ("11-29 19:30:17 [INFO] a | b", "11-29 19:30:17 [ERROR] a | b"),
    ],
)
def test_what_a_bot_says_is_left_alone(one: str, other: str) -> None:
    assert read_nb([one], {}).bot != read_nb([other], {}).bot


PLAIN = """\
11-29 19:30:19 [ERROR] nonebot | Failed to import "one"
Traceback (most recent call last):
  File "<string>", line 15, in <module>
    return
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
> File "one.py", line 5, in <module>
    import two
           └ <module>
ModuleNotFoundError: No module named 'two'
a line that is no part of it
11-29 19:30:20 [INFO] nonebot | next
""".splitlines()

GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "<string>", line 15, in <module>
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "x.py", line 1, in f
    |     pass
    | asyncio.exceptions.CancelledError
    |
    | During handling of the above exception, another exception occurred:
    |
    | Traceback (most recent call last):
    |   File "x.py", line 2, in f
    | RuntimeError: wrong scope
    +------------------------------------
after
""".splitlines()


def test_a_chain_of_tracebacks_becomes_its_last_exception() -> None:
    output = read_nb(PLAIN, {})
    assert output.tracebacks == 2
    assert output.bot == [
        '[ERROR] nonebot | Failed to import "one"',
        "traceback: ModuleNotFoundError: No module named 'two'",
        "a line that is no part of it",
        "[INFO] nonebot | next",
    ]


def test_a_group_of_exceptions_becomes_its_last_one() -> None:
    assert read_nb(GROUP, {}).bot == ["traceback: RuntimeError: wrong scope", "after"]


def test_a_traceback_is_found_behind_a_process_name() -> None:
    lines = [f"nonebot | {line}" if line[:2] != "11" else line for line in PLAIN]
    assert read_lycomm(lines, {}).bot == read_nb(PLAIN, {}).bot


def test_a_traceback_that_is_cut_off_is_one_line() -> None:
    assert read_nb(["Traceback (most recent call last):", '  File "a.py"'], {}).bot == ["traceback:"]


def test_a_line_that_only_one_command_has_is_a_difference() -> None:
    found = differences([["a", "b", "b"]], [["b", "c"]])
    assert (found.only_nb, found.only_lycomm) == ({"a": 1, "b": 1}, {"c": 1})


def test_what_varies_under_one_command_is_no_difference() -> None:
    found = differences([["a", "random 1"], ["a", "retry"]], [["a", "retry"], ["a", "random 2"]])
    assert not found.any


def test_a_line_that_one_run_of_the_other_command_has_too_is_no_difference() -> None:
    assert not differences([["a", "b"], ["b"]], [["a"], ["a"]]).only_lycomm


def test_a_line_that_every_run_has_more_often_is_a_difference() -> None:
    found = differences([["a"], ["a"]], [["a", "a", "a"], ["a", "a"]])
    assert (found.only_nb, found.only_lycomm) == ({}, {"a": 1})


def test_equal_lines_in_another_order_are_no_difference() -> None:
    assert not differences([["a", "b"]], [["b", "a"]]).any
