from __future__ import annotations

from collections.abc import Iterator

import pytest
from output_kit import StoppableReader


@pytest.fixture
def unread() -> Iterator[StoppableReader]:
    reader = StoppableReader()
    yield reader
    reader.close()
