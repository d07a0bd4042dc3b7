"""``receive(timeout=0)``: what has been sent is there, whoever reads the link."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pair_kit import DEADLINE, Child, channel

from liteyuki_host.comm.errors import ReceiveTimeout
from liteyuki_host.comm.testing import connected_pair
from liteyuki_host.comm.transport.memory import memory_link

LINKS: list[Any] = [memory_link]
try:
    from liteyuki_host.comm.transport.posix import socket_link
except AssertionError:  # Windows
    pass
else:
    LINKS.append(socket_link)


@pytest.fixture(params=LINKS)
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Callable[[Any], None], Any]]:
    """What writes a message from the host to the child's transport, and the child's end of the channel."""
    with connected_pair() as pair:
        child = Child(pair, "bot", transports=request.param)
        sender = channel(pair.host, "bot-active")

        def send(data: Any) -> None:
            sender.send(data)
            assert child.session.link.flush(DEADLINE)  # of a burst, messages are gathered before they are written

        yield send, channel(child.node, "bot-active")
        child.node.reset()


def in_main_thread(work: Callable[[], None]) -> None:
    work()


def in_a_thread(work: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(6 * DEADLINE)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("where", [in_main_thread, in_a_thread])
def test_what_was_sent_is_there_at_once(
    ends: tuple[Callable[[Any], None], Any], where: Callable[[Callable[[], None]], None]
) -> None:
    """All but a few: another thread that has read the message, and lost the processor before it could hand it on, is
    waited for a millisecond only."""
    send, receiver = ends
    late = 0

    def there(timeout: float) -> Any:
        nonlocal late
        try:
            return receiver.receive(timeout=timeout)
        except ReceiveTimeout:
            late += 1
            return receiver.receive(timeout=DEADLINE)

    def work() -> None:
        send("first")  # opens the channel
        assert receiver.receive(timeout=DEADLINE) == "first"
        for number in range(300):
            send(number)
            assert there(0) == number
            send(receiver.name)
            assert there(-1) == receiver.name

    where(work)
    assert late <= 30


@pytest.mark.parametrize("where", [in_main_thread, in_a_thread])
def test_an_empty_channel_is_told_at_once(
    ends: tuple[Callable[[Any], None], Any], where: Callable[[Callable[[], None]], None]
) -> None:
    def work() -> None:
        with pytest.raises(ReceiveTimeout):
            ends[1].receive(timeout=0)

    where(work)
