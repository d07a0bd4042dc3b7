"""The bot: NoneBot with fastapi and the plugin beside this file."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import nonebot
from nonebot.adapters.onebot.v11 import Adapter

nonebot.init()
nonebot.get_driver().register_adapter(Adapter)
nonebot.load_plugin(os.environ.get("TEST_CHILD", "child_side"))
nonebot.run()
