"""What is tried: store plugins, adapters and drivers, with the settings that each needs to start without an account.

No version is named: a run takes the newest that the package index has, and the page says which that was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS = ("plugin", "adapter", "driver")


@dataclass(frozen=True)
class Candidate:
    kind: str
    name: str
    """The row's name: a package of the store, an adapter as it calls itself, or a value of ``DRIVER``."""
    requirements: Sequence[str] = ()
    """What is installed beside NoneBot with its drivers, the adapter and lycomm. The first is what the row is about."""
    modules: Sequence[str] = ()
    """Of the plugins that are loaded."""
    adapter: tuple[str, str, str] = ("OneBot V11", "nonebot.adapters.onebot.v11", "nonebot-adapter-onebot")
    """Name, module and package, as in the store's list."""
    driver: str = "~fastapi+~httpx+~websockets"
    env: Mapping[str, Any] = field(default_factory=dict)
    """Settings of ``.env.prod``. ``{port}`` in a text becomes the port of ``platform``."""
    prepare: Sequence[str] = ()
    """Arguments for ``nb`` before each run: what the plugin's own guide says to do once."""
    client: str = ""
    """Who connects to the bot: a key of ``exchanges.CLIENTS``."""
    platform: str = ""
    """What the bot connects to: a key of ``platforms.PLATFORMS``."""
    reason: str = ""
    """Why it is not run at all: a key of ``page.REASONS``."""

    @property
    def has_server(self) -> bool:
        """Whether the bot listens on a port."""
        return any(part in self.driver for part in ("~fastapi", "~quart"))

    def settings(self, bot_port: int, platform_port: int) -> dict[str, str]:
        """The lines of ``.env.prod``."""
        values = {"HOST": "127.0.0.1", "PORT": bot_port, "SUPERUSERS": ["10000"], **self.env}
        return {name: _text(value).replace("{port}", str(platform_port)) for name, value in values.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plugin(name: str, module: str = "") -> Candidate:
    return Candidate("plugin", name, (name,), (module or _module(name),), client="onebot v11")


def _with_database(name: str) -> Candidate:
    """A plugin that is, or uses, nonebot-plugin-orm: it wants a database, and to be told to make its tables."""
    more = ("nonebot-plugin-orm", "aiosqlite")
    requirements = tuple(dict.fromkeys((name, *more)))
    env = {"SQLALCHEMY_DATABASE_URL": "sqlite+aiosqlite:///bot.db"}
    return Candidate(
        "plugin", name, requirements, (_module(name),), env=env, client="onebot v11", prepare=("orm", "upgrade")
    )


def _module(name: str) -> str:
    return name.replace("-", "_")


# Libraries that other plugins stand on, what has hooks, threads, databases, browsers, routes or signal handlers of
# its own, and plugins that people use in chats.
PLUGINS = [
    _with_database("nonebot-plugin-access-control"),
    _plugin("nonebot-plugin-alconna"),
    _plugin("nonebot-plugin-apscheduler"),
    _with_database("nonebot-plugin-chatrecorder"),
    _plugin("nonebot-plugin-datastore"),
    _plugin("nonebot-plugin-docs"),
    _plugin("nonebot-plugin-emojimix"),
    _plugin("nonebot-plugin-gocqhttp"),
    _plugin("nonebot-plugin-handle"),
    _plugin("nonebot-plugin-htmlrender"),
    _plugin("nonebot-plugin-localstore"),
    _plugin("nonebot-plugin-logpile"),
    _with_database("nonebot-plugin-memes"),
    _with_database("nonebot-plugin-orm"),
    _plugin("nonebot-plugin-picstatus"),
    _plugin("nonebot-plugin-prometheus"),
    _plugin("nonebot-plugin-reboot"),
    _plugin("nonebot-plugin-send-anything-anywhere", module="nonebot_plugin_saa"),
    _plugin("nonebot-plugin-sentry"),
    _plugin("nonebot-plugin-session"),
    _plugin("nonebot-plugin-status"),
    _plugin("nonebot-plugin-tortoise-orm"),
    _plugin("nonebot-plugin-treehelp"),
    _plugin("nonebot-plugin-uninfo"),
    _plugin("nonebot-plugin-updater"),
    _plugin("nonebot-plugin-userinfo"),
    _plugin("nonebot-plugin-wait-a-minute"),
    _plugin("nonebot-plugin-waiter"),
    _with_database("nonebot-plugin-wordcloud"),
]


def _adapter(name: str, part: str, **more: Any) -> Candidate:
    package = f"nonebot-adapter-{part.partition('.')[0]}"
    return Candidate("adapter", name, (package,), adapter=(name, f"nonebot.adapters.{part}", package), **more)


_HERE: dict[str, Any] = {"host": "127.0.0.1", "port": "{port}"}
_QQ_BOT = {"id": "app", "secret": "secret", "intent": {"c2c_group_at_messages": True}}
_FEISHU_BOT = {"app_id": "app", "app_secret": "secret", "verification_token": "verification"}

ADAPTERS = [
    _adapter("OneBot V11", "onebot.v11", client="onebot v11"),
    _adapter("OneBot V12", "onebot.v12", client="onebot v12"),
    _adapter(
        "QQ",
        "qq",
        platform="qq",
        env={
            "QQ_BOTS": [_QQ_BOT],
            "QQ_API_BASE": "http://127.0.0.1:{port}/",
            "QQ_AUTH_BASE": "http://127.0.0.1:{port}/app/getAppAccessToken",
        },
    ),
    _adapter("Satori", "satori", platform="satori", env={"SATORI_CLIENTS": [_HERE]}),
    _adapter(
        "Telegram",
        "telegram",
        platform="telegram",
        env={
            "TELEGRAM_BOTS": [{"token": "10001:token", "api_server": "http://127.0.0.1:{port}/"}],
        },
    ),
    _adapter(
        "Feishu",
        "feishu",
        platform="feishu",
        env={
            "FEISHU_BOTS": [_FEISHU_BOT | {"api_base": "http://127.0.0.1:{port}"}],
        },
    ),
    _adapter("Milky", "milky", platform="milky", env={"MILKY_CLIENTS": [_HERE]}),
    _adapter("Minecraft", "minecraft", env={"MINECRAFT_SERVER_RCON": {}}),
    _adapter("Discord", "discord", env={"DISCORD_BOTS": [{"token": "token"}]}),
    _adapter("Kaiheila", "kaiheila"),
    _adapter("Console", "console", reason="terminal"),
]


def _driver(driver: str, **more: Any) -> Candidate:
    return Candidate("driver", driver, ("nonebot2",), driver=driver, platform="echo", **more)


DRIVERS = [
    _driver("~none"),
    _driver("~fastapi", client="onebot v11"),
    _driver("~quart", client="onebot v11"),
    _driver("~httpx"),
    _driver("~websockets"),
    _driver("~aiohttp"),
    _driver("~fastapi+~httpx+~websockets", client="onebot v11"),
    _driver("~quart+~aiohttp", client="onebot v11"),
]

CANDIDATES = [*PLUGINS, *ADAPTERS, *DRIVERS]
