"""Where the messages of a burst wait for a place in the queue, without the lock of the link."""

from __future__ import annotations

from collections import deque
from itertools import repeat, starmap

from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE, STAGE_PLACES

__all__ = ["Stage"]


class Stage:
    """Where the messages of a burst wait for a place in the queue: put there without the link's lock, taken from there
    with it.

    While it is open, its stream has credit for all its places, and somebody is going to look at it. Who has put
    something there looks once more whether it is open; only what was put there while it was being closed may be left
    behind, and who sees that takes it back (:meth:`take_back`) and sends it in another way.

    Attributes:
        open: changed by the holder of the link's lock.
        places: the free ones; whoever puts something there takes one first, so that there never are too few. Ctrl+C
            in the main thread between the two costs a place; without any, no message is staged any more.
        payloads: in the order sent.
    """

    __slots__ = ("open", "payloads", "places")

    def __init__(self) -> None:
        self.open = False
        self.places: deque[None] = deque(repeat(None, STAGE_PLACES))
        self.payloads: deque[bytes] = deque()

    def take(self, room: int) -> tuple[list[bytes], int]:
        """What has been staged, as far as *room* bytes of credit go, and the bytes of it. The caller holds the link's
        lock."""
        payloads = self.payloads
        taken = list(starmap(payloads.popleft, repeat((), len(payloads))))
        size = sum(map(len, taken))
        while taken and size + MESSAGE_CHARGE * len(taken) > room:  # came too late, and does not count on it
            payloads.appendleft(taken.pop())
            size -= len(payloads[0])
        self.places.extend(repeat(None, len(taken)))
        return taken, size

    def take_back(self, payload: bytes) -> bool:
        """Take a payload from the stage; False: it has been sent. The caller holds the link's lock."""
        try:
            self.payloads.remove(payload)
        except ValueError:
            return False
        self.places.append(None)
        return True
