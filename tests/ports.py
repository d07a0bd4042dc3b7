"""Ports for bots that are started a moment later."""

from __future__ import annotations

import itertools
import os
import random
import socket

FIRST, COUNT = 20_000, 2_000
"""Of one process of a test run. All are below those that a system gives to connections: from 32768 on, on Linux."""

_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 6
_begin = random.SystemRandom().randrange(COUNT)  # other test runs on this machine begin elsewhere
_numbers = itertools.count()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that neither another process of this run nor a connection is
    given until it is used."""
    for number in itertools.islice(_numbers, COUNT):
        port = FIRST + _process * COUNT + (_begin + number) % COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"all ports from {FIRST + _process * COUNT} on are taken")
