"""Where the messages of a burst wait for a place in the queue, without the lock of the link."""

from __future__ import annotations

from collections import deque
from itertools import repeat, starmap

from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE, STAGE_PLACES

__all__ = ["Stage"]


class Stage:
    """Holds short messages of a burst until the next write. Senders put them there without the link's lock; whoever
    writes takes them off under it.

    While a stage is open, its stream has credit for all its places, and a write is certain to follow. A sender checks
    *open* once more after it has put a message down. A message that was put down while the stage was being closed may
    have been left behind; its sender then takes it back (:meth:`take_back`) and sends it another way.

    Attributes:
        open: whether messages may be put down. Changed by the holder of the link's lock.
        places: the free places. A sender takes one before it puts a message down, so that there are never more
            messages than places. If Ctrl+C interrupts the main thread between the two steps, one place is lost; when
            all are lost, no message is staged any more, and all take the way through the queue.
        payloads: the messages, in the order sent.
    """

    __slots__ = ("open", "payloads", "places")

    def __init__(self) -> None:
        self.open = False
        self.places: deque[None] = deque(repeat(None, STAGE_PLACES))
        self.payloads: deque[bytes] = deque()

    def take(self, room: int) -> tuple[list[bytes], int]:
        """Take messages off the stage as far as *room* bytes of credit go; returns them and the sum of their sizes. The
        caller holds the link's lock."""
        payloads = self.payloads
        taken = list(starmap(payloads.popleft, repeat((), len(payloads))))
        size = sum(map(len, taken))
        while taken and size + MESSAGE_CHARGE * len(taken) > room:  # put down too late; its sender takes it back
            payloads.appendleft(taken.pop())
            size -= len(payloads[0])
        self.places.extend(repeat(None, len(taken)))
        return taken, size

    def take_back(self, payload: bytes) -> bool:
        """Remove a payload from the stage; False when it has been sent already. The caller holds the link's lock."""
        try:
            self.payloads.remove(payload)
        except ValueError:
            return False
        self.places.append(None)
        return True
