"""The ``lycomm`` command, also ``python -m liteyuki_host``.

This module parses the command line and calls the command. Each command is a module beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from liteyuki_host import __version__
from liteyuki_host.cli.check import check
from liteyuki_host.cli.lines import FAILED, STOPPED, WRONG_SETTING, fail
from liteyuki_host.comm.errors import LycommError, SettingsError
from liteyuki_host.log import use_utf8
from liteyuki_host.settings import LOG_LEVELS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; *argv* is ``sys.argv[1:]`` by default. Returns the exit code."""
    use_utf8(sys.stdout)
    use_utf8(sys.stderr)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "run")
    options = _parser().parse_args(arguments)
    try:
        return check(options.project) if options.verb == "check" else _run(options)
    except SettingsError as error:
        return fail(error, WRONG_SETTING)
    except LycommError as error:
        return fail(error, FAILED)
    except KeyboardInterrupt:  # before the host listens to it
        return fail("interrupted", FAILED)


def _run(options: argparse.Namespace) -> int:
    from liteyuki_host import Host  # here: the other verbs need none of it

    settings = {} if options.log_level is None else {"log_level": options.log_level}
    Host(options.project, **settings).run()
    return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lycomm",
        description="A host for NoneBot bots: starts them, keeps them alive, talks with them.\n"
        "NoneBot 机器人的宿主进程: 启动机器人, 保持运行, 与之通信。",
        epilog="Every setting, with its default: .env.example\n全部配置项及默认值: .env.example",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lycomm {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands / 命令")

    run = _verb(
        verbs,
        "run",
        "start the host and its bots; the default\n启动宿主和机器人; 默认命令",
        "Start the host and its bots; one Ctrl+C stops them all.\n启动宿主和机器人; 按一次 Ctrl+C 全部停止。",
    )
    run.add_argument(
        "--log-level",
        metavar="LEVEL",
        type=str.upper,
        choices=LOG_LEVELS,
        help=f"least level of the host's lines: {', '.join(LOG_LEVELS)}\n"
        "default: the setting, else INFO\n"
        "宿主日志的最低级别; 默认取配置项, 否则为 INFO",
    )
    _verb(
        verbs,
        "check",
        "say what would be started, start nothing\n检查配置, 不启动",
        "Read the settings, look at every declared project, say what would be started.\n"
        "读取配置, 检查每个已声明的项目, 说明将启动什么。",
    )
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, short: str, long: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=short, description=long, formatter_class=argparse.RawTextHelpFormatter)
    verb.add_argument(
        "--project",
        metavar="DIR",
        type=Path,
        default=Path("."),
        help="folder of the settings and of the default bot; default: the current folder\n"
        "配置和默认机器人所在的文件夹; 默认为当前文件夹",
    )
    return verb
