"""Roles that move while loops come and go: threads wait, with and without a timeout, loops read, block and are closed,
and nothing is lost, doubled or out of order.

    python tests/comm/link/reader_stress.py [RUNS] [--reader thread]

runs it 1,000 times with another seed each, half a second or so each; ``test_readers`` runs it a few times.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from liteyuki_host.comm.channel.channel import Channel
from liteyuki_host.comm.errors import LycommError, ReceiveTimeout
from liteyuki_host.comm.link import link as link_module
from liteyuki_host.comm.link.reader import Reader, ThreadReader
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.transport.posix import socket_link
from liteyuki_host.hub import Hub, SessionListener

MESSAGES = 300
"""On each of the channels, each way."""

DEADLINE = 20.0
SIZES = (1, 5, 100, 3000, 20_000, 70_000)

THREADS = ("patient", "impatient")
CALLBACKS = ("slow", "quick")


class Stress:
    """A host and a bot over a socket pair. Of four channels the bot reads two in threads and two by callbacks; it
    answers every message. The host sends in a thread for each, and reads the answers in another, or by callbacks."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._over = threading.Event()
        self._faults: list[str] = []
        self._answers: dict[str, list[int]] = {name: [] for name in (*THREADS, *CALLBACKS)}
        self._seen: dict[str, list[int]] = {name: [] for name in (*THREADS, *CALLBACKS)}

    def run(self) -> list[str]:
        """Returns what went wrong."""
        ours, theirs = socket_link()
        hub, node = Hub(), Node()
        hub.declare_process("bot")
        hub.connect("bot", ours, SessionListener())
        node.attach(theirs, "bot", on_stop=lambda reason: None, on_host_gone=lambda cause: None)
        for name in CALLBACKS:
            self._answer_by_callback(Channel(name, exchange=node), name)
        self._collect_by_callback(Channel("slow", exchange=hub), "slow")
        jobs = [
            *(self._job(self._answer_in_thread, Channel(name, exchange=node), name) for name in THREADS),
            *(self._job(self._collect_in_thread, Channel(name, exchange=hub), name) for name in (*THREADS, "quick")),
            *(self._job(self._send, Channel(name, exchange=hub), name) for name in self._answers),
        ]
        loops = [self._job(self._come_and_go, exchange) for exchange in (hub, node)]
        try:
            self._join(jobs)
            until = time.monotonic() + DEADLINE
            while any(len(got) < MESSAGES for got in self._answers.values()) and time.monotonic() < until:
                time.sleep(0.005)
        finally:
            self._over.set()
            self._join(loops)
            node.detach()
            hub.close("the run is over")
        for what, lists in (("seen", self._seen), ("answered", self._answers)):
            for name, got in lists.items():
                if got != list(range(MESSAGES)):
                    self._faults.append(f"{name}: {what} {len(got)} of {MESSAGES}, in order: {got == sorted(set(got))}")
        return self._faults

    def _job(self, function: Callable[..., None], *arguments: Any) -> threading.Thread:
        dice = random.Random(self._dice.random())

        def run() -> None:
            try:
                function(*arguments, dice)
            except LycommError as error:
                self._faults.append(f"{function.__name__}{arguments[1:]}: {error!r}")

        thread = threading.Thread(target=run, name=f"stress-{function.__name__}", daemon=True)
        thread.start()
        return thread

    def _join(self, threads: list[threading.Thread]) -> None:
        until = time.monotonic() + DEADLINE
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))
            if thread.is_alive():
                self._faults.append(f"{thread.name} hangs")

    def _send(self, channel: Channel[Any], name: str, dice: random.Random) -> None:
        for number in range(MESSAGES):
            channel.send([number, b"x" * dice.choice(SIZES)])
            if dice.random() < 0.05:
                time.sleep(dice.choice((0, 0.0001, 0.001, 0.01)))

    def _answer_in_thread(self, channel: Channel[Any], name: str, dice: random.Random) -> None:
        while len(self._seen[name]) < MESSAGES:
            number, _ = self._receive(channel, name, dice)
            self._seen[name].append(number)
            channel.send(number)

    def _collect_in_thread(self, channel: Channel[Any], name: str, dice: random.Random) -> None:
        while len(self._answers[name]) < MESSAGES:
            self._answers[name].append(self._receive(channel, name, dice))

    def _receive(self, channel: Channel[Any], name: str, dice: random.Random) -> Any:
        until = time.monotonic() + DEADLINE
        while name != "patient":
            try:
                return channel.receive(dice.choice((0.0, 0.0005, 0.005, 1.0)))
            except ReceiveTimeout:
                if time.monotonic() > until:
                    raise
        return channel.receive(DEADLINE)

    def _answer_by_callback(self, channel: Channel[Any], name: str) -> None:
        @channel.on_receive()
        async def answer(message: list[Any]) -> None:
            # The loop may go while this waits: nothing is sent then, and the message is handed over again.
            await channel.asend(message[0])
            self._seen[name].append(message[0])
            if name == "slow" and message[0] % 50 == 0:
                time.sleep(0.01)  # blocks the loop: the guard has to read

    def _collect_by_callback(self, channel: Channel[Any], name: str) -> None:
        @channel.on_receive()
        def collect(number: int) -> None:
            self._answers[name].append(number)

    def _come_and_go(self, exchange: Exchange, dice: random.Random) -> None:
        """Loops, each there for a while, and sometimes blocked."""

        async def live() -> None:
            exchange.attach_loop(asyncio.get_running_loop())
            await asyncio.sleep(dice.uniform(0.01, 0.2))
            if dice.random() < 0.3:
                time.sleep(0.02)
            exchange.detach_loop()
            await asyncio.sleep(0)

        while not self._over.is_set():
            asyncio.run(live())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=1000)
    parser.add_argument("--reader", choices=["shared", "thread"], default="shared")
    options = parser.parse_args()
    if options.reader == "thread":
        use_reader(ThreadReader)
    bad = 0
    for seed in range(options.runs):
        faults = Stress(seed).run()
        if faults:
            bad += 1
            print(f"seed {seed}: {'; '.join(faults)}", flush=True)
    print(f"{options.runs - bad:,} of {options.runs:,} runs without a fault")
    return 1 if bad else 0


def use_reader(reader: Callable[..., Reader]) -> None:
    link_module._fastest_reader = reader


if __name__ == "__main__":
    sys.exit(main())
