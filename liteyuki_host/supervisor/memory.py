"""What the system knows of a child: how much memory it takes, whether it is stopped, who was killed for memory.

psutil is imported at the first question, so that importing the supervisor stays cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def tree_memory(pid: int) -> int | None:
    """Bytes of resident memory of a process and all it started; None when it is gone.

    It walks over all processes of the machine, which takes milliseconds: ask from a worker thread, seconds apart.

    Pages that several of them share count once for each, as in every such sum: processes that were forked look
    larger together than they are. A descendant whose parent has ended belongs to the tree no more. One that ends
    while it is asked, or may not be asked, counts nothing.

    Args:
        pid: of a child whose exit code nobody has fetched yet; otherwise the system may have given it to another.

    Raises:
        OSError, MemoryError: it cannot be measured now, for a shortage: looking takes a descriptor.
    """
    import psutil

    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return None
    total = 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            if process is root:
                return None
    return total or None  # nothing is resident of a process that has ended and waits for its parent


def is_stopped(pid: int) -> bool | None:
    """Whether the process is stopped (SIGSTOP, Ctrl+Z, a debugger; on Windows: suspended), None when it is gone.

    None also where the system does not say, or not now, for a shortage. A process in a frozen container does not look
    stopped.
    """
    import psutil

    try:
        status = psutil.Process(pid).status()
    except (psutil.Error, OSError):
        return None
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return None
    return status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def oom_kills(*, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """A count that grows whenever Linux kills a process for lack of memory; None on other systems.

    The sum of the machine's count and that of our own cgroup (v2): a container may hide either of them, and most
    kills appear in both. Only growth means anything, and another process may have been the one: it is a good guess
    for a child that was just ended by a SIGKILL not ours. Kills by a daemon (systemd-oomd, earlyoom) are not in it.
    """
    counts = [count for file in _oom_files(proc, cgroups) if (count := _oom_kill_in(file)) is not None]
    return sum(counts) if counts else None


def _oom_files(proc: Path, cgroups: Path) -> Iterator[Path]:
    yield proc / "vmstat"
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::/"):  # the one of version 2
            own = cgroups / line.removeprefix("0::/") / "memory.events"
            # In a container that file may stand at the top, while the name is the one outside.
            yield own if own.exists() else cgroups / "memory.events"


def _oom_kill_in(file: Path) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return None
