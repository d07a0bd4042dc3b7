"""What the chat commands say. Every text is in Chinese and in English: owners of bots read either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "NO_HOST",
    "RESTARTING",
    "asked_for_restart",
    "failed",
    "local_status",
    "restarted",
    "status",
    "unknown_process",
    "usage",
]

# Without the command itself: it has the path of this installation, and a group may read along. The log has it.
NO_HOST = "没有宿主，启动方法见机器人日志 / no host: the bot's log says how to start it under one"
RESTARTING = "正在重启 / restarting"

STATES = {
    "declared": "已声明",
    "starting": "启动中",
    "hooks done": "启动钩子已完成",
    "ready": "就绪",
    "busy": "繁忙",
    "blocked": "事件循环阻塞",
    "frozen": "无响应",
    "stopping": "停止中",
    "stopped": "已停止",
    "backing off": "等待重启",
    "failed": "失败",
}


def usage(words: Iterable[str]) -> str:
    return f"用法 / usage: lycomm {' | '.join(words)}"


def restarted(seconds: float) -> str:
    # The wall clock may have been set back meanwhile; a negative duration would look like our mistake.
    text = f"{max(seconds, 0.0):.1f}"
    return f"已重启，用时 {text} 秒 / restarted, took {text} s"


def asked_for_restart(process: str) -> str:
    return f"正在重启 {process} / restarting {process}"


def unknown_process(process: str, known: Iterable[str]) -> str:
    names = ", ".join(known)
    return f"没有名为 {process} 的进程，现有：{names} / no process named {process}; there are: {names}"


def failed(error: Exception) -> str:
    return f"未能完成 / failed: {error}"


def status(processes: Sequence[Mapping[str, Any]]) -> str:
    """The host's answer as text: a line of state for each process, details below it."""
    lines = ["进程 / processes"]
    for process in processes:
        state = str(process.get("state"))
        lines.append(f"{process.get('name')}: {STATES.get(state, state)} / {state}")
        facts = []
        if process.get("pid") is not None:
            facts.append(f"PID {process['pid']}")
        if process.get("uptime") is not None:
            facts.append(f"运行 / up {duration(process['uptime'])}")
        facts.append(f"重启 / restarts {process.get('restarts', 0)}")
        if process.get("memory") is not None:
            facts.append(f"内存 / memory {process['memory'] / 1024**2:,.0f} MiB")
        lines.append("  " + " · ".join(facts))
        if process.get("address"):
            lines.append(f"  地址 / address {process['address']}")
        if process.get("last_exit"):
            lines.append(f"  上次退出 / last exit: {process['last_exit']}")
    return "\n".join(lines)


def local_status(*, pid: int, uptime: float, versions: str, bots: Sequence[str], keys: int) -> str:
    return "\n".join(
        [
            NO_HOST,
            f"本进程 / this process: PID {pid} · 运行 / up {duration(uptime)}",
            versions,
            f"机器人 / bots: {', '.join(bots) or '-'}",
            f"共享内存 / shared memory: {keys} 项 / keys",
        ]
    )


def duration(seconds: float) -> str:
    """``1d 02:03:04``, and shorter when it is shorter: ``2:03:04``, ``0:03:04``."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days}d {h:02}:{m:02}:{s:02}" if days else f"{h}:{m:02}:{s:02}"
