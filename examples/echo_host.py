"""The host's half of the echo: answers each text that the bot asks about.

To try it, name this module in ``[tool.lycomm] plugins`` and ``examples.echo_bot`` in
``[tool.nonebot.plugins]``, run ``.venv/bin/python bot.py`` and write something to the bot in a group.
"""

from __future__ import annotations

from liteyuki_host.comm import get_channel

channel = get_channel("nonebot-passive")


# What a callback returns is the answer to a request(), and is ignored for a plain send().
@channel.on_receive(filter_func=lambda data: isinstance(data, str))
async def answer(text: str) -> str:
    return f"the host heard: {text}"
