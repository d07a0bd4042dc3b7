"""What a message costs in things that can be counted, which no slow machine changes: system calls, encodings, wake-ups,
and memory that is kept."""

from __future__ import annotations

import asyncio
import gc
import platform
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pair_kit import DEADLINE, Listener, channel, until

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel import calling as callbacks
from liteyuki_host.comm.channel.calling import Callback
from liteyuki_host.comm.channel.channel import Channel
from liteyuki_host.comm.codec import decoding, encoding, quick
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import Changed, SharedMemory
from liteyuki_host.comm.transport.posix import SocketTransport, socket_link
from liteyuki_host.hub import Hub

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the figures are those of the fast reader")

MESSAGES = 10_000
TEXT = "a message of thirty-five characters"


class Counting(SocketTransport):
    """Counts the system calls that move something, and those that read by thread. Who spins looks more often."""

    def __init__(
        self, reading: socket.socket, writing: socket.socket, calls: Counter[str], readers: Counter[int] | None = None
    ) -> None:
        super().__init__(reading, writing)
        self.calls = calls
        self.readers: Counter[int] = Counter() if readers is None else readers
        self.send = self._counted("write", self.send)
        self.recv_into = self._counted("read", self.recv_into)

    def _counted(self, what: str, function: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            count = function(*arguments)
            self.calls[what] += 1
            if what == "read":
                self.readers[threading.get_ident()] += 1
            return count

        return call

    def try_write(self, buffers: Any) -> int:
        self.calls["write"] += 1
        return super().try_write(buffers)

    def write_all(self, buffers: Any) -> None:
        self.calls["write"] += len(buffers)
        super().write_all(buffers)


class Live:
    """A host and children over socket pairs, each child with a loop of its own in a thread."""

    def __init__(self, children: int = 1) -> None:
        self.hub = Hub()
        self.calls: Counter[str] = Counter()
        self.readers: Counter[int] = Counter()  # of the host's side of the links, by thread
        self.nodes: list[Node] = []
        self._loops: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []
        for number in range(children):
            name = f"bot{number}"
            self.hub.declare_process(name)
            (up, from_child), (from_host, down) = socket.socketpair(), socket.socketpair()
            self.hub.connect(name, Counting(up, down, self.calls, self.readers), Listener())
            node = Node()
            node.attach(
                Counting(from_host, from_child, self.calls),
                name,
                on_stop=lambda reason: None,
                on_host_gone=lambda cause: None,
            )
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, daemon=True)
            thread.start()
            node.attach_loop(loop)
            self.nodes.append(node)
            self._loops.append((loop, thread))

    def settle(self) -> None:
        """Wait until the host knows of all subscriptions: they and this question go the same ordered way."""
        for node in self.nodes:
            SharedMemory(node).sync(timeout=DEADLINE)

    def close(self) -> None:
        for node, (loop, thread) in zip(self.nodes, self._loops, strict=True):
            node.detach_loop()
            node.detach()
            loop.call_soon_threadsafe(loop.stop)
            thread.join(DEADLINE)
            loop.close()
        self.hub.close("the test is over")


@pytest.fixture
def live() -> Iterator[Live]:
    made = Live()
    yield made
    made.close()


def exchange(live: Live, count: int) -> None:
    """*count* messages from the host, each handled by a callback of the child."""
    got = 0

    async def note(text: str) -> None:
        nonlocal got
        got += 1

    there = channel(live.nodes[0], "c")
    there.on_receive()(note)
    here = channel(live.hub, "c")
    for _ in range(count):
        here.send(TEXT)
    until(lambda: got == count)
    until(lambda: here.statistics().waiting_to_be_consumed == 0)
    there.remove(note)


def test_a_burst_of_messages_is_a_few_hundred_system_calls(live: Live) -> None:
    exchange(live, 100)
    live.calls.clear()
    exchange(live, MESSAGES)
    # About 2.9 MB with their charge: 40 bytes each, in writes of up to 60 kB, and grants for each MiB.
    assert live.calls["write"] < MESSAGES / 20, live.calls
    assert live.calls["read"] < MESSAGES / 20, live.calls


def test_what_is_owed_to_others_does_not_follow_each_lone_message(live: Live) -> None:
    """A change of the shared memory, and an answer to it on a channel: each side owes the other stream a grant."""
    questions = 200
    there, here = channel(live.nodes[0], "c"), channel(live.hub, "c")
    memory = SharedMemory(live.hub)

    def answer(change: Changed) -> None:
        there.send(change.value)

    SharedMemory(live.nodes[0]).watch("tick")(answer)

    def ask() -> None:
        for number in range(questions):
            memory.set("tick", number)
            assert here.receive(DEADLINE) == number

    asking = threading.Thread(target=ask, daemon=True)
    live.calls.clear()
    asking.start()
    asking.join(DEADLINE)
    assert not asking.is_alive()
    assert 2 * questions <= live.calls["write"] < 2.5 * questions, live.calls


def test_a_question_and_its_answer_are_two_writes_and_two_reads(live: Live) -> None:
    questions = 200
    there, here = channel(live.nodes[0], "c"), channel(live.hub, "c")

    def answer() -> None:
        for _ in range(questions + 1):
            there.send(there.receive(DEADLINE))

    def ask(count: int) -> None:
        for _ in range(count):
            here.send(TEXT)
            assert here.receive(DEADLINE) == TEXT

    threads = [threading.Thread(target=answer, daemon=True), threading.Thread(target=ask, args=(1,), daemon=True)]
    for thread in threads:
        thread.start()
    threads[1].join(DEADLINE)
    live.calls.clear()
    live.readers.clear()
    threads[1] = threading.Thread(target=ask, args=(questions,), daemon=True)
    threads[1].start()
    for thread in threads:
        thread.join(DEADLINE)
    assert live.readers.most_common(1)[0][0] == threads[1].ident  # who waits reads
    # Besides: a grant now and then, and the guards, which look at most 200 times a second.
    assert 2 * questions <= live.calls["write"] < 2.5 * questions, live.calls
    assert 2 * questions - 5 <= live.calls["read"] < 3.5 * questions, live.calls


def test_a_broadcast_is_encoded_once_and_never_decoded_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(children=20)
    try:
        encoded: list[object] = []
        decoded: list[bytes] = []
        got: list[object] = []
        for node in live.nodes:
            node.subscribe("news", Callback(got.append, None, codec.decode_payload))
        live.settle()
        decode = codec.decode_plain
        for module, name in ((encoding, "encode_plain"), (quick, "_encode")):
            encode = getattr(module, name)
            monkeypatch.setattr(module, name, lambda value, encode=encode: encoded.append(value) or encode(value))
        for module, name in ((decoding, "decode_plain"), (callbacks, "decode_plain")):
            monkeypatch.setattr(module, name, lambda payload: decoded.append(payload) or decode(payload))
        live.hub.publish("news", codec.encode(TEXT), 0, may_wait=False)
        until(lambda: len(got) == 20)
        assert len(encoded) == 1
        assert len(decoded) == 20  # where it is received
    finally:
        live.close()


def test_many_publications_to_many_processes_share_their_writes() -> None:
    """Between two messages of one link are those to all others, so no link sees a burst by itself."""
    children, publications = 20, 500
    live = Live(children=children)
    try:
        got: list[object] = []
        for node in live.nodes:
            node.subscribe("news", Callback(got.append, None, codec.decode_payload))
        live.settle()
        payload = codec.encode(TEXT)
        live.calls.clear()
        for _ in range(publications):
            live.hub.publish("news", payload, 0, may_wait=False)
        until(lambda: len(got) == children * publications)
        assert live.calls["write"] < children * publications / 10, live.calls
    finally:
        live.close()


def test_what_was_consumed_leaves_nothing(live: Live) -> None:
    exchange(live, MESSAGES)
    gc.collect()
    before = sys.getallocatedblocks()
    exchange(live, MESSAGES)
    gc.collect()
    assert sys.getallocatedblocks() - before < MESSAGES / 100


def test_a_message_that_waits_is_kept_as_little_more_than_its_bytes(live: Live) -> None:
    here = channel(live.hub, "c")
    channel(live.nodes[0], "c").statistics()
    here.send(TEXT)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(MESSAGES):
        here.send(TEXT)
    # Nobody has opened it there, so all of it is kept here, each as an item of the backlog.
    assert (sys.getallocatedblocks() - before) / MESSAGES < 4


def test_messages_that_are_freed_together_leave_their_memory_to_the_next_ones() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("it is glibc's habit that is seen to")
    code = """
import resource
from liteyuki_host.comm.protocol.frames import FrameDecoder

buffer = FrameDecoder().buffer

def receive(times):
    for _ in range(times):
        messages = [buffer[: 64 * 1024].tobytes() for _ in range(4)]
        del messages

receive(50)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
receive(1000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    # With an environment of its own: there are variables that tell glibc otherwise.
    faults = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, check=True, text=True)
    assert int(faults.stdout) < 1000, "page faults for 4,000 messages of 16 pages"


def test_nobody_wakes_up_when_nothing_happens(live: Live) -> None:
    resource = pytest.importorskip("resource")
    exchange(live, 10)
    time.sleep(0.1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    time.sleep(0.5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before <= 10


THREADS_ONLY = """
import socket, sys
from liteyuki_host._child.orders import Orders
from liteyuki_host._child.stacks import Stacks
from liteyuki_host.comm import active_channel, publish, shared_memory
from liteyuki_host.comm.process.current import current_node
from liteyuki_host.comm.transport.posix import SocketTransport

orders = Orders(Stacks("bot"))
current_node().attach(
    SocketTransport(*(socket.socket(fileno=int(number)) for number in sys.argv[1:])),
    "bot",
    on_stop=lambda reason: None,
    on_host_gone=lambda cause: None,
    on_supervision=orders.take,
)
shared_memory["key"] = active_channel.receive(10)
shared_memory.sync(timeout=10)
publish("topic", shared_memory["key"])
large = {"asyncio", "loguru", "anyio", "concurrent.futures", "pydantic", "psutil"}
active_channel.send(sorted(large & set(sys.modules)))
current_node().detach("done", timeout=10)
"""


def test_a_process_without_an_event_loop_loads_none() -> None:
    """asyncio and loguru are two thirds of what a child would take over a bare interpreter."""
    hub = Hub()
    hub.declare_process("bot")
    ours, theirs = socket_link()
    with subprocess.Popen(
        [sys.executable, "-c", THREADS_ONLY, *map(str, theirs.descriptors)], pass_fds=theirs.descriptors
    ) as child:
        theirs.release()
        hub.connect("bot", ours, Listener())
        own = Channel("bot-active", exchange=hub)
        own.send(TEXT)
        assert own.receive(DEADLINE) == []
        assert child.wait(DEADLINE) == 0
    hub.close("the test is over")
