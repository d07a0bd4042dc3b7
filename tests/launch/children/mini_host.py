"""A host with nothing but a hub and a supervisor: ``mini_host.py SPEC``, the spec as JSON.

A SIGINT or SIGTERM stops it. While it runs it says ``tick N`` on ``nonebot-active`` and ``nonebot-passive``.
"""

import asyncio
import contextlib
import itertools
import json
import signal
import sys
from pathlib import Path

from loguru import logger

from liteyuki_host.comm.process.current import set_current
from liteyuki_host.hub import Hub
from liteyuki_host.log import configure
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import Transition
from liteyuki_host.supervisor.supervisor import Context, Supervisor


class Events:
    async def before_process_shutdown(self, context: Context) -> None: ...
    async def before_process_restart(self, context: Context) -> None: ...
    async def after_restart(self, context: Context) -> None: ...
    def stepped(self, step: Transition) -> None: ...


async def tick() -> None:
    from liteyuki_host.comm import get_channel

    channels = [get_channel(f"nonebot-{kind}") for kind in ("active", "passive")]
    for number in itertools.count():
        for channel in channels:
            with contextlib.suppress(Exception):  # full, when the bot does not read it
                channel.send(f"tick {number}")
        await asyncio.sleep(0.1)


async def main() -> None:
    options = json.loads(sys.argv[1])
    spec = ProcessSpec(name="nonebot", project=Path(options.pop("project")), **options)
    hub = Hub()
    set_current(hub)
    hub.declare_process("nonebot")
    supervisor = Supervisor(hub, {"nonebot": spec}, events=Events(), host_main=Path(__file__))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: asyncio.ensure_future(supervisor.stop_all()))
    loop.add_signal_handler(signal.SIGUSR1, lambda: supervisor.restart("nonebot"))
    ticking = asyncio.ensure_future(tick())
    await supervisor.serve()
    ticking.cancel()
    hub.close("the host ends")
    logger.info("host ended")


configure("INFO")
asyncio.run(main())
