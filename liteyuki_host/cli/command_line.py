"""The ``lycomm`` command line: its verbs and options, and what happens to their errors. Each verb is a module beside
this one, and is imported when it is called: in an environment with other packages than lycomm needs, that is to be told
in one line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liteyuki_host import __version__
from liteyuki_host.cli.lines import FAILED, INTERRUPTED, STOPPED, WRONG_SETTING, fail
from liteyuki_host.cli.mistyped import explain
from liteyuki_host.comm.errors import LycommError, SettingsError
from liteyuki_host.interrupts import AtOnce
from liteyuki_host.log import use_utf8
from liteyuki_host.requirements import unfit_pydantic
from liteyuki_host.settings_values import LOG_LEVELS


def read_command(argv: Sequence[str] | None = None) -> argparse.Namespace | int:
    """Read one command; *argv* is ``sys.argv[1:]`` by default. Returns its options, or the exit code of a command that
    is none. The parser itself ends the process for ``--help`` and for options that are wrong."""
    use_utf8(sys.stdout)
    use_utf8(sys.stderr)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "run")
    if not arguments[0].startswith("-") and arguments[0] not in VERBS:
        return fail(explain(arguments, VERBS), WRONG_SETTING)
    options = _parser().parse_args(arguments)
    unfit = unfit_pydantic()
    return options if unfit is None else fail(unfit, FAILED)


def run_command(options: argparse.Namespace) -> int:
    """Run the command that was read. Returns the exit code."""
    try:
        return VERBS[options.verb](options)
    except SettingsError as error:
        return fail(error, WRONG_SETTING)
    except LycommError as error:
        return fail(error, FAILED)
    except KeyboardInterrupt:  # before the host handles it
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    with AtOnce():
        from liteyuki_host import Host
        from liteyuki_host.cli.arguments import settings_arguments
        from liteyuki_host.project import inspect_project
        from liteyuki_host.settings import load_settings

    def arguments(folder: Path) -> dict[str, Any]:
        return settings_arguments(folder, script=options.script, reload=options.reload, log_level=options.log_level)

    host = Host(options.project, **arguments(options.project))
    folder = options.project.absolute()
    # The arguments repeat what the files say of the processes, and so are made anew.
    host.reread_settings = lambda: load_settings(arguments(folder), folder=folder, environ=os.environ)
    if options.script is not None:  # a wrong word of the command line ends the command, not only the bot
        for spec in host.settings.process_specs().values():
            inspect_project(spec, host_main=None)
    try:
        host.run()
    except SystemExit as end:  # the log says why
        return int(end.code or STOPPED)
    return STOPPED


def _check(options: argparse.Namespace) -> int:
    with AtOnce():
        from liteyuki_host.cli.arguments import settings_arguments
        from liteyuki_host.cli.check import check

    return check(options.project, settings_arguments(options.project, script=options.script), load=options.load)


def _settings(options: argparse.Namespace) -> int:
    from liteyuki_host.cli.example import print_settings

    print_settings()
    return STOPPED


VERBS = {"run": _run, "check": _check, "settings": _settings}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lycomm",
        description="A host for NoneBot bots: starts them, keeps them alive, talks with them.\n"
        "NoneBot 机器人的宿主进程: 启动机器人, 保持运行, 与之通信。",
        epilog="Every setting, with its default: lycomm settings\n全部配置项及默认值: lycomm settings",
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
        "-r",
        "--reload",
        action="store_true",
        help="restart a bot when its code changes, if the new code can start; whatever the settings say\n"
        "代码改变时, 确认新代码可以启动后重启机器人; 优先于配置项",
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
    verbs.add_parser(
        "settings",
        help="print every setting, with its default and what it means\n列出全部配置项, 包括默认值和含义",
        description="Print every setting, in the form of a .env file.\n以 .env 文件的格式列出全部配置项。",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    check_verb = _verb(
        verbs,
        "check",
        "find what keeps the bots from starting, start nothing\n检查配置和机器人, 指出什么无法启动; 不启动",
        "Read the settings, look at every declared bot and its port, import it in a throw-away process, and say\n"
        "what would be started and what cannot be. Exit code 1 if something cannot start, 2 for a wrong setting.\n"
        "读取配置, 检查每个已声明的机器人及其端口, 在临时进程中试导入, 说明将启动什么、什么无法启动。\n"
        "有无法启动的内容时退出码为 1, 配置有误时为 2。",
    )
    check_verb.add_argument(
        "--no-import",
        dest="load",
        action="store_false",
        help="do not import the bots and their plugins: what they do when imported does not happen\n"
        "不导入机器人及其插件: 它们在导入时执行的操作不会发生",
    )
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, short: str, long: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=short, description=long, formatter_class=argparse.RawTextHelpFormatter)
    verb.add_argument(
        "script",
        metavar="SCRIPT",
        nargs="?",
        help="script of the bot, relative to the current folder; default: the setting, else bot.py or [tool.nonebot]\n"
        "机器人的启动脚本, 相对于当前文件夹; 默认取配置项, 否则为 bot.py 或 [tool.nonebot]",
    )
    verb.add_argument(
        "--project",
        metavar="DIR",
        type=Path,
        default=Path("."),
        help="folder of the settings and of the default bot; default: the current folder\n"
        "配置和默认机器人所在的文件夹; 默认为当前文件夹",
    )
    return verb
