"""What tests of values share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from liteyuki_host.comm.testing import Pair, connected_pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected_pair() as made:
        yield made
