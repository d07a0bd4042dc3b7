"""A host whose process can be made short of something: ``shortages.py`` runs it and tells it on its standard input.

Each line is a JSON object, and is answered by one. The thread that reads them is there from the beginning, and needs
nothing while something is short.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from liteyuki_host.host import Host

MiB = 1024 * 1024


class Shortage:
    """Of one thing at a time, by the system's own limits for this process; ``refused`` only where there is none."""

    def __init__(self) -> None:
        self._undo: Callable[[], None] = lambda: None

    def begin(self, what: str, room: int, going: int = 0) -> None:
        """
        Args:
            room: what is left: descriptors, tasks (a process or a thread), MiB of memory beyond what it has; or MiB
                of address space in all, also for the bots that it starts.
            going: pid of a bot that is about to be killed. Its tasks make no room.
        """
        if what == "descriptors":
            free = (number for number in itertools.count() if not _is_open(number))
            # Below zero: also not what is given back meanwhile, only its three standard ones.
            self._limit(resource.RLIMIT_NOFILE, next(itertools.islice(free, room, None)) if room >= 0 else 3)
        elif what == "tasks":
            self._limit(resource.RLIMIT_NPROC, _tasks_of_this_user(going) + room)
        elif what == "refused tasks":
            self._refuse_tasks(room)
        elif what == "memory":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            self._limit(resource.RLIMIT_AS, pages * resource.getpagesize() + room * MiB)
        elif what == "address space":
            self._limit(resource.RLIMIT_AS, room * MiB)
        elif what == "file size":
            self._limit(resource.RLIMIT_FSIZE, 0)

    def end(self) -> None:
        undo, self._undo = self._undo, lambda: None
        undo()

    def _limit(self, number: int, limit: int) -> None:
        soft, hard = resource.getrlimit(number)
        resource.setrlimit(number, (limit, hard))
        self._undo = lambda: resource.setrlimit(number, (soft, hard))

    def _refuse_tasks(self, room: int) -> None:
        """The limit is the user's and does not hold for root: refused at the two calls that make tasks."""
        start, popen = threading.Thread.start, subprocess.Popen.__init__

        def no_thread(thread: threading.Thread) -> None:
            nonlocal room
            room -= 1
            if room < 0:
                raise RuntimeError("can't start new thread")
            start(thread)

        def no_process(*args: Any, **kwargs: Any) -> None:
            nonlocal room
            room -= 1
            if room < 0:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            popen(*args, **kwargs)

        def undo() -> None:
            threading.Thread.start = start  # type: ignore[method-assign]
            subprocess.Popen.__init__ = popen  # type: ignore[method-assign]

        threading.Thread.start = no_thread  # type: ignore[method-assign]
        subprocess.Popen.__init__ = no_process  # type: ignore[assignment, method-assign]
        self._undo = undo


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _tasks_of_this_user(without: int) -> int:
    count = 0
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and os.getpgid(process.pid) != without:
                count += process.num_threads()
        except (psutil.Error, ProcessLookupError):
            pass
    return count


def answer(host: Host, shortage: Shortage, request: dict[str, Any]) -> Any:
    if "short" in request:
        shortage.begin(**request["short"])
    elif "enough" in request:
        shortage.end()
    elif "restart" in request:
        host.restart_process(request["restart"])
    elif "stop" in request:
        host.stop()
    elif "states" in request:  # needs nothing of what may be short
        return {status["name"]: [status["state"], status["pid"]] for status in host.status()}
    else:
        gc.collect()
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("lycomm-")]
        transient = ("lycomm-console", "lycomm-log-files")  # go by themselves when there is nothing to write
        return {
            "descriptors": psutil.Process().num_fds(),
            "threads": sorted(name for name in threads if name not in transient),
        }
    return None


def main() -> None:
    host = Host(Path(sys.argv[1]))
    shortage = Shortage()
    replies = os.fdopen(int(sys.argv[2]), "w", encoding="utf-8", buffering=1)

    def obey() -> None:
        for line in sys.stdin:
            try:
                reply = answer(host, shortage, json.loads(line))
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(reply) + "\n")

    threading.Thread(target=obey, name="obeys", daemon=True).start()
    host.run()


if __name__ == "__main__":
    main()
