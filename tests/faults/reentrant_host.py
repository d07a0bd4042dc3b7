"""A host whose main thread works on its event loop and is interrupted: ``reentrant_host.py KIND SECONDS``.

A process of its own, as signals are handled in the main thread only. Prints how many numbers were taken, how many
arrived in a child, each once, how many rounds there were, and the longest of them in seconds.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "comm")]

from interruptions import Work  # noqa: E402  # found by the path above
from pair_kit import DEADLINE, Child, channel, children  # noqa: E402

from liteyuki_host.comm.transport.posix import socket_link  # noqa: E402


async def main(kind: str, seconds: float) -> None:
    with children() as (pair, _):
        bot = Child(pair, "bot", transports=socket_link)
        pair.host.attach_loop(asyncio.get_running_loop())
        numbers: list[int] = []
        for name, into in (("numbers-bot", numbers), ("work-bot", [])):
            there = channel(bot.node, name)
            threading.Thread(target=lambda into=into, there=there: into.extend(there), daemon=True).start()
        work = Work("bot", pair.host)
        end = time.monotonic() + seconds
        while time.monotonic() < end:  # on the loop, which also reads in between
            work.run(kind, min(0.05, seconds))
            await asyncio.sleep(0)
        deadline = time.monotonic() + DEADLINE
        taken = len(work.taken)
        while len(numbers) < taken and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        print(taken, len(set(numbers)), work.rounds, work.stalled, flush=True)
        bot.node.reset()
        pair.host.detach_loop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
