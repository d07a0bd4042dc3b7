"""``run_page.py PAGE``: runs the page's Python blocks in order, as a reader would. A process of its own, because a
bot is one too: NoneBot, the plugin, and a host joined to it in memory.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import nonebot
from loguru import logger

from liteyuki_host.comm.process.current import current_node, set_current
from liteyuki_host.comm.testing import Pair, connected_pair
from tests.docs.pages import Block, blocks

SECONDS = 20


async def run(block: Block, names: dict[str, Any]) -> None:
    # Blank lines in front, so that a traceback shows the page's own line numbers.
    code = compile(
        "\n" * (block.line - 1) + block.code, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    result = eval(code, names)
    if inspect.isawaitable(result):
        await asyncio.wait_for(result, SECONDS)


async def _handled(pair: Pair) -> None:
    """Until what was sent to callbacks has been handled: on the side it is for, which is the current one only now."""
    for receiver, sender in ((pair.child, pair.host_channel), (pair.host, pair.child_channel)):
        with as_current(receiver):
            for name, figures in receiver.statistics().items():
                if figures.mode == "passive":
                    await sender(name).flush(timeout=SECONDS)


@contextmanager
def as_current(exchange: Any) -> Any:
    before = current_node()
    set_current(exchange)
    try:
        yield
    finally:
        set_current(before)


async def main(page: Path) -> None:
    errors: list[str] = []
    logger.add(lambda line: errors.append(str(line)), level="ERROR", format="{message}\n{exception}")
    with connected_pair(node=current_node()) as pair:
        for exchange in (pair.host, pair.child):
            exchange.attach_loop(asyncio.get_running_loop())
        host: dict[str, Any] = {"__name__": "host_side"}
        child: dict[str, Any] = {"__name__": "child_side"}
        sys.modules["child_side"] = type(sys)("child_side")  # dataclasses and pydantic look their module up
        count = 0
        for block in blocks(page):
            if block.language != "python" or block.kind not in ("", "host side"):
                continue
            if block.kind == "host side":
                with as_current(pair.host):
                    await run(block, host)
            else:
                await run(block, child)
            count += 1
            await _handled(pair)
            if errors:
                raise AssertionError(f"{block.page} line {block.line} logs an error:\n{errors[0]}")
        for exchange in (pair.host, pair.child):
            exchange.detach_loop()
    print(f"{count} blocks ran")


nonebot.init(driver="~none", log_level="WARNING")
assert nonebot.load_plugin("nonebot_plugin_lycomm")
asyncio.run(main(Path(sys.argv[1])))
