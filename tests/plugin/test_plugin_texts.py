from __future__ import annotations

import pytest

from nonebot_plugin_lycomm import texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (59.9, "0:00:59"),
        (61, "0:01:01"),
        (3600, "1:00:00"),
        (86399, "23:59:59"),
        (86400, "1d 00:00:00"),
        (90061, "1d 01:01:01"),
    ],
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert texts.duration(seconds) == text


def test_status_has_a_line_of_state_for_each_process_and_details_below_it() -> None:
    text = texts.status(
        [
            {
                "name": "nonebot",
                "state": "ready",
                "pid": 12,
                "uptime": 61.0,
                "restarts": 2,
                "last_exit": "killed by SIGKILL",
                "address": "http://127.0.0.1:8080",
            },
            {
                "name": "bot2",
                "state": "stopped",
                "pid": None,
                "uptime": None,
                "restarts": 0,
                "last_exit": None,
            },
        ]
    )
    assert text.splitlines() == [
        "进程 / processes",
        "nonebot: 就绪 / ready",
        "  PID 12 · 运行 / up 0:01:01 · 重启 / restarts 2",
        "  地址 / address http://127.0.0.1:8080",
        "  上次退出 / last exit: killed by SIGKILL",
        "bot2: 已停止 / stopped",
        "  重启 / restarts 0",
    ]


def test_a_state_this_version_does_not_know_is_still_shown() -> None:
    assert "nonebot: hibernating / hibernating" in texts.status([{"name": "nonebot", "state": "hibernating"}])


def test_every_state_a_process_can_be_in_has_a_chinese_word() -> None:
    states = pytest.importorskip("liteyuki_host.supervisor.states")
    assert {state.value for state in states.State} == set(texts.STATES)


def test_a_clock_that_was_set_back_gives_no_negative_duration() -> None:
    assert texts.restarted(-3) == "已重启，用时 0.0 秒 / restarted, took 0.0 s"
    assert texts.restarted(3.14) == "已重启，用时 3.1 秒 / restarted, took 3.1 s"
