"""One NoneBot for all tests of the plugin: no server, the OneBot v11 adapter, one superuser."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import nonebot
import pytest
from nonebot.adapters.onebot.v11 import Adapter
from nonebot.log import logger

from tests.plugin.support import SUPERUSER, Logged, RecordingBot

# nonebug's fixtures start a NoneBot for whatever tests there are, once per session. Where pytest was told
# not to load it (`-p no:nonebug`, so that the other tests need no NoneBot), they belong to this folder.
if "nonebug.fixture" not in sys.modules:
    from nonebug.fixture import _nonebot_init as _nonebot_init
    from nonebug.fixture import after_nonebot_init as after_nonebot_init
    from nonebug.fixture import nonebug_app as nonebug_app
    from nonebug.fixture import nonebug_init as nonebug_init

# Here and not in a fixture: the test modules import the plugin, which wants an initialised NoneBot, as they
# are collected. nonebug starts and stops this same one.
nonebot.init(driver="~none", superusers={str(SUPERUSER)}, log_level="DEBUG")
nonebot.get_driver().register_adapter(Adapter)
if nonebot.load_plugin("nonebot_plugin_lycomm") is None:
    raise RuntimeError("NoneBot could not load the plugin; its log has the reason")


@pytest.fixture
def adapter() -> Adapter:
    return nonebot.get_adapter(Adapter)


@pytest.fixture
def bot(adapter: Adapter) -> RecordingBot:
    return RecordingBot(adapter, "10001")


@pytest.fixture
def logged() -> Iterator[Logged]:
    lines = Logged()
    sink = logger.add(lines.append, level="DEBUG", format="{level} {message}\n{exception}", colorize=False)
    yield lines
    logger.remove(sink)
