"""``compare_and_set``: which values are equal, and the difference between None and no key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pair_kit import memory

from liteyuki_host.comm.errors import ValueRefused
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import MISSING, SharedMemory
from liteyuki_host.comm.testing import connected_pair


@pytest.fixture(params=["host", "child", "alone"])
def storage(request: pytest.FixtureRequest) -> Iterator[SharedMemory]:
    with connected_pair() as pair:
        yield {"host": pair.host_memory, "child": pair.child_memory, "alone": memory(Node())}[request.param]


@pytest.mark.parametrize(
    ("stored", "expected", "equal"),
    [
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (False, 0, False),
        (0, False, False),
        (1.0, True, False),
        ([1, 0], [True, False], False),
        ({"a": {"b": [1]}}, {"a": {"b": [True]}}, False),
        ({1: "x"}, {True: "x"}, False),
        ({True: "x"}, {True: "x"}, True),
        (3, 3.0, True),
        (3.0, 3, True),
        ([3, {"a": 1.0}], [3.0, {"a": 1}], True),
        (2**53 + 1, float(2**53), False),
        (2**64 - 1, 2**64 - 1, True),
        (-1, 2**64 - 1, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ((1, 2), [1, 2], True),
        ("1", 1, False),
        ("a", b"a", False),
        (b"a", bytearray(b"a"), True),
        ([], {}, False),
        ("", None, False),
        (0, None, False),
        (float("nan"), float("nan"), True),
        (0.0, -0.0, True),
    ],
)
async def test_equal_values_match(storage: SharedMemory, stored: Any, expected: Any, equal: bool) -> None:
    storage.set("key", stored)
    assert await storage.acompare_and_set("key", expected, "new") is equal
    assert (storage.get("key") == "new") is equal


async def test_none_matches_a_stored_none(storage: SharedMemory) -> None:
    storage.set("key", None)
    assert await storage.acompare_and_set("key", None, 1) is True
    assert storage.get("key") == 1


async def test_none_matches_a_missing_key(storage: SharedMemory) -> None:
    assert await storage.acompare_and_set("key", None, 1) is True
    assert await storage.acompare_and_set("key", None, 2) is False


async def test_missing_matches_no_stored_none(storage: SharedMemory) -> None:
    storage.set("key", None)
    assert await storage.acompare_and_set("key", MISSING, 1) is False
    await storage.adelete("key")
    assert await storage.acompare_and_set("key", MISSING, 1) is True
    assert await storage.acompare_and_set("key", MISSING, 2) is False


@pytest.mark.parametrize("nothing", [None, MISSING])
async def test_none_and_missing_delete(storage: SharedMemory, nothing: Any) -> None:
    storage.set("key", 1)
    assert await storage.acompare_and_set("key", 1, nothing) is True
    assert "key" not in storage


async def test_missing_is_no_value(storage: SharedMemory) -> None:
    with pytest.raises(ValueRefused):
        storage.set("key", MISSING)
    assert storage.get("key", MISSING) is MISSING
    assert repr(MISSING) == "MISSING"
