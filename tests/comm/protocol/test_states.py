"""The table of a link's course: every pair is either in it or refused."""

from __future__ import annotations

import itertools

import pytest

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol.states import TRANSITIONS, Input, State, next_state

EXPECTED = {
    ("GREETING", "HELLO"): "OPEN",
    ("GREETING", "GOODBYE"): "CLOSING",
    ("GREETING", "EOF"): "CLOSED",
    ("OPEN", "TRAFFIC"): "OPEN",
    ("OPEN", "GOODBYE"): "CLOSING",
    ("OPEN", "EOF"): "CLOSED",
    ("CLOSING", "TRAFFIC"): "CLOSING",
    ("CLOSING", "EOF"): "CLOSED",
}


@pytest.mark.parametrize(("state", "received"), list(itertools.product(State, Input)))
def test_every_pair_is_either_in_the_table_or_refused(state: State, received: Input) -> None:
    if (state.name, received.name) in EXPECTED:
        assert next_state(state, received).name == EXPECTED[state.name, received.name]
    else:
        with pytest.raises(RemoteProtocolError, match=f"^{received.value} is not legal in state {state.value}$"):
            next_state(state, received)


def test_the_table_has_no_other_rows() -> None:
    assert {(state.name, received.name) for state, received in TRANSITIONS} == set(EXPECTED)


def test_every_state_can_be_reached_and_left_to_the_end() -> None:
    reached = {State.GREETING}
    for _ in State:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(State)
    for state in State:
        if state is not State.CLOSED:
            assert next_state(state, Input.EOF) is State.CLOSED
