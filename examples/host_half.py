"""The host's half of the first example: every three seconds, one text on each of the bot's two channels.

The other half is ``child_half.py``. Run both from the repository's folder with
``.venv/bin/python bot.py``, as the README says.
"""

from __future__ import annotations

import asyncio

from liteyuki_host import get_bot
from liteyuki_host.comm import get_channel

bot = get_bot()
# The two channels of a process exist before the process does. What is sent now waits there for it.
channel_passive = get_channel("nonebot-passive")
channel_active = get_channel("nonebot-active")


@bot.on_after_start
async def send_data() -> None:
    while True:
        # asend() waits for room when the bot reads slowly, where send() would raise ChannelFull.
        await channel_passive.asend("I am liteyuki main process passive")
        # Each channel is read at its own pace; only this makes the two lines come in this order every time.
        await channel_passive.flush()
        await channel_active.asend("I am liteyuki main process active")
        await asyncio.sleep(3)
