"""A child with the real guard, lock and link, and without NoneBot: up in a tenth of a second.

What it does when it is ready says ``JOB``; each job runs on a thread of its own until the process ends. ``CLAIM`` is a
file that it locks before anything else and through its life.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Locks of the POSIX kind: at a process's end the system gives them back before it closes the link, by which the host
# notices that end. With flock() it is the other way round, and the next one may be there before.
claim = os.open(os.environ["CLAIM"], os.O_RDWR | os.O_CREAT)
try:
    fcntl.lockf(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    Path(os.environ["CLAIM"]).with_suffix(".double").touch()
turn = os.open(os.environ.get("TURN", os.devnull), os.O_RDWR)

from liteyuki_host._child.guard import arm  # noqa: E402

without = arm(os.environ)

from liteyuki_host._child.ending import Ending  # noqa: E402
from liteyuki_host.comm import Channel  # noqa: E402
from liteyuki_host.comm.errors import LycommError  # noqa: E402
from liteyuki_host.comm.process.current import current_node  # noqa: E402
from liteyuki_host.comm.storage import shared_memory  # noqa: E402
from liteyuki_host.comm.transport import take_link  # noqa: E402

PAUSE = 0.02
"""Seconds between the steps of the start, so that a kill can hit each of them."""

name = os.environ["LYCOMM_PROCESS"]
node = current_node()
told: Channel[Any] = Channel("told-" + name)


def idle() -> None:
    pass


def parent() -> None:
    """Has a child that is deaf to what a polite end would use."""
    subprocess.Popen(["sh", "-c", "trap '' HUP INT TERM; while :; do sleep 60; done"])


def take_turns() -> None:
    """Wait for the lock, prove that nobody else holds it, and hold it until killed."""
    told.send(["waits", os.getpid(), time.monotonic(), 0])
    with shared_memory.lock("turn") as lock:
        at = time.monotonic()
        try:
            fcntl.lockf(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            told.send(["holds", os.getpid(), at, lock.fence])
        except BlockingIOError:
            told.send(["is second", os.getpid(), at, lock.fence])
        threading.Event().wait()


def write() -> None:
    """Told a size: send numbered items of it as fast as they are taken. Told 0: no more, and tell how many it were."""
    target: Channel[bytes] = Channel("flood-" + name)
    going = threading.Event()
    sent = 0

    def flood(size: int) -> None:
        nonlocal sent
        body = os.urandom(size - 8)
        while going.is_set():
            target.send(sent.to_bytes(8, "big") + body)
            sent += 1
        told.send([name, sent, True])

    for size in told:
        if size:
            going.set()
            threading.Thread(target=flood, args=(size,), daemon=True).start()
        else:
            going.clear()


def read() -> None:
    """Receive what each writer sends on a thread of its own; tell how much has come, and whether all was in order."""

    def drink(writer: str) -> None:
        in_order = True
        source: Channel[bytes] = Channel("flood-" + writer)
        for expected, item in enumerate(source):
            in_order = in_order and int.from_bytes(item[:8], "big") == expected
            told.send([writer, expected + 1, in_order])

    for writer in os.environ["WRITERS"].split():
        threading.Thread(target=drink, args=(writer,), daemon=True).start()


def interrupt() -> None:
    """Work while code of users interrupts it; tell how many numbers were taken, the rounds, and the longest of them.
    In the main thread, where signals are handled."""
    sys.path.append(os.environ["FAULTS"])
    from interruptions import Work

    work = Work(name, node)
    work.run(os.environ["KIND"], float(os.environ["SECONDS"]))
    told.send([len(work.taken), work.rounds, work.stalled])


JOBS: dict[str, Callable[[], None]] = {
    "idle": idle,
    "parent": parent,
    "take_turns": take_turns,
    "write": write,
    "read": read,
    "interrupt": interrupt,
}

stopped = threading.Event()
ending = Ending(without)


def on_host_gone(cause: str) -> None:
    ending.on_host_gone(cause)
    stopped.set()


def until_the_end(job: Callable[[], None]) -> None:
    with contextlib.suppress(LycommError):  # what a job is in the middle of when the link goes
        job()


def main() -> int:
    transport = take_link(os.environ)
    assert transport is not None
    node.attach(transport, name, on_stop=lambda reason: stopped.set(), on_host_gone=on_host_gone)
    time.sleep(PAUSE)
    node.hooks_done(adapters=[])
    job = JOBS[os.environ["JOB"]]
    if job is parent:
        parent()
    time.sleep(PAUSE)
    node.ready(address=None, details={})
    if job is interrupt:
        interrupt()
    elif job is not parent:
        threading.Thread(target=until_the_end, args=(job,), daemon=True).start()
    stopped.wait()
    node.detach("the bare child was asked to end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
