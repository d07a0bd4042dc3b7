"""lycomm in a NoneBot bot: channels to the host, shared memory, publish/subscribe, chat commands.

Importing this opens nothing: no thread, no file, no port. Without a host (a plain ``nb run``, a test) the
shared memory and publish/subscribe work inside this process, callbacks register and never fire, and
``send()`` and ``receive()`` on the host's channels raise ``HostNotAttached``.
"""

from __future__ import annotations

from nonebot import get_driver, get_plugin_config
from nonebot.plugin import PluginMetadata

from nonebot_plugin_lycomm.config import Config

__plugin_meta__ = PluginMetadata(
    name="lycomm",
    description="由宿主进程守护机器人，通过通道、共享内存与发布/订阅通信 / "
    "A host that supervises the bot and talks with it: channels, shared memory, publish/subscribe",
    usage="指令（超级用户）/ commands (superusers):\n"
    "  /restart [进程 / process]  重启 / restart\n"
    "  /status  查看进程状态 / show the processes\n"
    "  /lycomm restart, /lycomm status  其他插件占用上述名称时 / where another plugin has those names\n"
    "接口 / API:\n"
    "  from nonebot_plugin_lycomm import active_channel, passive_channel, shared_memory, publish, subscribe",
    type="library",
    homepage="https://github.com/lycomm/nonebot-plugin-lycomm",
    config=Config,
    supported_adapters=None,
)

from liteyuki_host.comm import (
    Channel,
    active_channel,
    get_channel,
    get_channels,
    passive_channel,
    publish,
    set_channel,
    subscribe,
    unsubscribe,
)
from liteyuki_host.comm.process.current import current_node
from liteyuki_host.comm.storage import shared_memory
from nonebot_plugin_lycomm import commands, driver_hooks
from nonebot_plugin_lycomm.params import ActiveChannel, ChannelParam, PassiveChannel, SharedMemory
from nonebot_plugin_lycomm.threads import background_thread

__all__ = [  # noqa: RUF022 - grouped by where a name comes from
    # liteyuki_host.comm
    "Channel",
    "active_channel",
    "get_channel",
    "get_channels",
    "passive_channel",
    "publish",
    "set_channel",
    "subscribe",
    "unsubscribe",
    # liteyuki_host.comm.storage
    "shared_memory",
    # .config
    "Config",
    # .params
    "ActiveChannel",
    "ChannelParam",
    "PassiveChannel",
    "SharedMemory",
    # .threads
    "background_thread",
    # here
    "more_time",
    "restart_process",
]


def more_time(seconds: float, reason: str = "") -> None:
    """Tell the host that this bot will be busy for *seconds* from now, before the work that takes so long begins.

    Whatever limit runs against the bot then is put off by as much: of its start, of a blocked event loop, of
    finishing its handlers, of its stop. From any thread or task; without a host nothing happens.

    Args:
        seconds: more than 0, at most 3600; ask again for more.
        reason: for the host's log; 200 characters of it are kept.

    Raises:
        ValueError: *seconds* is out of bounds.
    """
    current_node().more_time(seconds, reason)


def restart_process(name: str | None = None) -> None:
    """Ask the host to restart a process, this one by default. Returns at once, from any thread or task.

    Raises:
        HostNotAttached: there is no host to ask.
    """
    current_node().request_restart(name)


driver_hooks.register(get_driver())
commands.register(get_driver(), get_plugin_config(Config))
