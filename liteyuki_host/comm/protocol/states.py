"""The legal course of a link, as a table.

The table does not know which side we are, so neither side can be treated more kindly.
"""

from __future__ import annotations

import enum

from liteyuki_host.comm.errors import RemoteProtocolError

__all__ = ["TRANSITIONS", "Input", "State", "next_state"]


class State(enum.Enum):
    GREETING = "greeting"  # the peer's Hello has not arrived
    OPEN = "open"
    CLOSING = "closing"  # the peer said goodbye; what it sent before may still arrive
    CLOSED = "closed"


class Input(enum.Enum):
    """What can arrive."""

    HELLO = "hello"
    TRAFFIC = "traffic"  # any other control message, and data
    GOODBYE = "goodbye"
    EOF = "end of stream"


TRANSITIONS: dict[tuple[State, Input], State] = {
    (State.GREETING, Input.HELLO): State.OPEN,
    (State.GREETING, Input.GOODBYE): State.CLOSING,  # our greeting was refused
    (State.GREETING, Input.EOF): State.CLOSED,
    (State.OPEN, Input.TRAFFIC): State.OPEN,
    (State.OPEN, Input.GOODBYE): State.CLOSING,
    (State.OPEN, Input.EOF): State.CLOSED,
    # Control is written ahead of data: data handed over before the goodbye may follow it.
    (State.CLOSING, Input.TRAFFIC): State.CLOSING,
    (State.CLOSING, Input.EOF): State.CLOSED,
}


def next_state(state: State, received: Input) -> State:
    """The state after *received* arrived in *state*.

    Raises:
        RemoteProtocolError: it may not arrive there.
    """
    try:
        return TRANSITIONS[state, received]
    except KeyError:
        raise RemoteProtocolError(f"{received.value} is not legal in state {state.value}") from None
