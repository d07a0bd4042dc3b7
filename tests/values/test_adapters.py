"""Events and messages of real adapters, as ``docs/values.md`` lists them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from liteyuki_host.comm.codec.differences import difference
from liteyuki_host.comm.errors import ValueRefused
from liteyuki_host.comm.testing import Pair, connected_pair
from tests.docs.pages import ROOT, blocks, code_in, table_rows
from tests.values.adapter_events import TRIED

PAGE = ROOT / "docs" / "values.md"
DEADLINE = 10.0  # seconds

# Warnings of adapters while they are imported or read their own data are theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


def _rows(page: Path = PAGE) -> dict[tuple[str, str], tuple[str, str]]:
    """Adapter and class of the page's table, with what it says of them: typed, and how to make it again."""
    found = {}
    for row in table_rows(page):
        cells = [code_in(cell) or cell for cell in row]
        if cells[0] in TRIED:
            found[cells[0], cells[1]] = (cells[2], cells[3])
    return found


CASES = [pytest.param(adapter, make, id=make.__name__) for adapter, makers in TRIED.items() for make in makers]


def _made(adapter: str, make: Callable[[], Any]) -> Any:
    pytest.importorskip(f"nonebot.adapters.{adapter}", reason=f"the adapter {adapter} is not installed")
    return make()


@pytest.mark.parametrize(("adapter", "make"), CASES)
def test_it_arrives_as_the_page_says(adapter: str, make: Callable[[], Any], pair: Pair) -> None:
    value = _made(adapter, make)
    kind = type(value)
    typed, again = _rows()[adapter, kind.__name__]

    plain_there, plain_here = pair.host_channel("plain"), pair.child_channel("plain")
    plain_here.send(value)
    data = plain_there.receive(DEADLINE)
    assert isinstance(data, (dict, list))
    pair.child_memory.set("value", value)
    assert pair.child_memory.get("value") == data

    there, here = pair.host_channel("typed", kind), pair.child_channel("typed", kind)
    if typed == "yes":
        here.send(value)
        assert difference(there.receive(DEADLINE), value) is None
    else:
        with pytest.raises(ValueRefused, match=rf"^channel 'typed' carries {kind.__name__}, got {kind.__module__}"):
            here.send(value)

    if again != "-":
        names = dict(vars(importlib.import_module(f"nonebot.adapters.{adapter}")))
        names.update(
            vars(sys.modules[kind.__module__]),
            data=data,
            text=str(value) if isinstance(value, list) else "",
            nonebot=sys.modules["nonebot"],
        )
        helpers: dict[str, Any] = {}
        exec(next(block.code for block in blocks(PAGE) if "of_telegram" in block.code), helpers)
        assert difference(eval(again, {**names, **helpers}), value) is None


def test_the_page_lists_what_is_tried() -> None:
    if missing := [adapter for adapter in TRIED if not _installed(adapter)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    tried = {(adapter, type(make()).__name__) for adapter, makers in TRIED.items() for make in makers}
    assert set(_rows()) == tried


def _installed(adapter: str) -> bool:
    try:
        importlib.import_module(f"nonebot.adapters.{adapter}")
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("name", ["telegram_private_message", "discord_guild_message", "satori_message"])
def test_what_is_the_default_and_cannot_travel_is_left_out(name: str, pair: Pair) -> None:
    make = next(make for makers in TRIED.values() for make in makers if make.__name__ == name)
    value = _made(name.partition("_")[0], make)
    there, here = pair.host_channel("x"), pair.child_channel("x")
    here.send({"event": value, "n": [value]})
    got = there.receive(DEADLINE)
    assert got["event"] == got["n"][0]
