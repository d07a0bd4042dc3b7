"""What a child process runs first: ``python -m liteyuki_host.launch --process NAME --kind script|toml``.

Takes the link that the host has passed on, makes sure that this process never outlives the host, and then runs
the NoneBot project in the current folder as if it had been started without us. Started by the host only.
"""

# Nothing of ours, and little else, is imported up here: an interrupt in the first moments must find main()'s
# handler, and processes that the project starts may import this module again.
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from liteyuki_host._child.ending import Ending
    from liteyuki_host._child.orders import Orders
    from liteyuki_host.comm.process.node import Node
    from liteyuki_host.comm.transport import Transport


def main(argv: Sequence[str] | None = None) -> int:
    """Run the project to its end. Returns the exit code."""
    options = _parse(argv)
    try:
        from liteyuki_host._child.guard import arm

        without = arm(os.environ)  # before anything that takes time
        from liteyuki_host._child.writes import record_writes

        record_writes(os.environ)  # after arm(), which starts a program of ours
        from liteyuki_host._child.stacks import Stacks

        stacks = Stacks(options.process)
        stacks.arm()
        from liteyuki_host._child.codes import CANNOT_START, NOT_UNDER_HOST
        from liteyuki_host._child.ending import Ending
        from liteyuki_host._child.orders import Orders
        from liteyuki_host.comm.errors import LycommError
        from liteyuki_host.comm.process.current import current_node
        from liteyuki_host.comm.transport import take_link

        transport = take_link(os.environ)
        if transport is None:
            from liteyuki_host.comm.command import lycomm

            _complain(f"liteyuki_host.launch is started by the host only: run `{lycomm('run')}` in the bot's folder")
            return NOT_UNDER_HOST
        from liteyuki_host._child import keyboard

        keyboard.install(options.process)
        if options.trial:
            from liteyuki_host._child.trial_run import Trial

            Trial(transport).run(options.process, _script(options))
        ending = Ending(without)
        ending.arm()
        node = current_node()
        orders = Orders(stacks)
        try:
            _attach(node, transport, options.process, ending, orders)
        except LycommError as exc:
            if not ending.host_gone:
                _complain(f"{options.process}: no understanding with the host: {exc}")
            return CANNOT_START
        return _run_attached(node, options, ending, orders)
    except KeyboardInterrupt:
        return 0  # asked to end before there was anything to end
    except Exception as exc:
        code = _code_of_shortage(exc)
        if code is None:
            raise
        return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m liteyuki_host.launch", description=__doc__)
    parser.add_argument("--process", required=True, help="the name this child was declared with")
    parser.add_argument("--kind", required=True, choices=["script", "toml"])
    parser.add_argument("--script", help="what to run, for --kind script")
    parser.add_argument("--trial", action="store_true", help="only load the project, and tell whether that works")
    options = parser.parse_args(argv)
    if options.kind == "script" and options.script is None:
        parser.error("--kind script needs --script")
    return options


def _script(options: argparse.Namespace) -> Path | None:
    from pathlib import Path

    return Path(options.script) if options.kind == "script" else None


def _attach(node: Node, transport: Transport, process: str, ending: Ending, orders: Orders) -> None:
    node.attach(
        transport,
        process,
        on_stop=ending.on_stop,
        on_host_gone=ending.on_host_gone,
        on_supervision=orders.take,
    )


def _run_attached(node: Node, options: argparse.Namespace, ending: Ending, orders: Orders) -> int:
    launched = sys.modules["__main__"]  # keeps our globals while the project's __main__ takes our place
    code = 1
    try:
        code = _unless_changing(_run_project(node, options, ending, orders))
    except KeyboardInterrupt:
        code = 0  # the project was asked to end, and did
    except SystemExit as exc:
        code = _own_exit(node, exc)
    finally:
        ending.finish()
        node.detach(f"{options.process} exits with {code}")
        ending.leave(code)
        del launched
    return code


def _run_project(node: Node, options: argparse.Namespace, ending: Ending, orders: Orders) -> int:
    from liteyuki_host._child.codes import CANNOT_START, STARTUP_FAILED
    from liteyuki_host.requirements import unfit_pydantic

    def cannot_start(reason: str) -> int:
        node.cannot_start(reason)
        return CANNOT_START

    unfit = unfit_pydantic()
    if unfit is not None:
        _complain(f"{options.process}: {unfit}")
        return cannot_start(unfit)
    try:
        import nonebot  # noqa: F401
    except ModuleNotFoundError as exc:
        if exc.name != "nonebot":
            raise
        from liteyuki_host._child.missing import missing_module

        missing = missing_module("nonebot", "nonebot2[fastapi]")
        _complain(f"{options.process}: {missing}")
        return cannot_start(missing)
    from pathlib import Path

    from loguru import logger

    from liteyuki_host._child import keyboard
    from liteyuki_host._child.driver import DriverWatch, use_line_format
    from liteyuki_host._child.own_exit import place_of_exit
    from liteyuki_host._child.replacing import SelfReplacement
    from liteyuki_host._child.run_project import run_script, run_toml
    from liteyuki_host._child.signals import Signals
    from liteyuki_host._child.startup_hooks import StartupHooks
    from liteyuki_host._child.trouble import CannotRun, explain, is_final, show_traceback

    script = _script(options)
    use_line_format(options.process)
    for words in ending.without:
        logger.debug(words)
    hooks = StartupHooks()
    ending.before_interrupt(hooks.release_all)
    watch = DriverWatch(node, hooks, orders, ending, Signals(ending, hooks))
    watch.install()
    keyboard.follow(lambda: watch.loop)
    ending.before_interrupt(watch.draining.stop)
    SelfReplacement(
        options.process,
        is_ready=lambda: watch.ready,
        is_ending=lambda: ending.requested,
        restart=node.request_restart,
        loop=lambda: watch.loop,
    ).install()
    try:
        run_toml() if script is None else run_script(script)
    except CannotRun as exc:
        logger.error(str(exc))
        return cannot_start(str(exc))
    except SystemExit as exc:
        if exc.code != STARTUP_FAILED or place_of_exit(exc, Path.cwd()) is not None:
            raise
        if ending.requested:
            return 0  # the start did not fail: it was interrupted
        return cannot_start(watch.cannot_listen) if watch.cannot_listen else STARTUP_FAILED
    except Exception as exc:
        if script is not None:
            show_traceback(exc, script)
        elif not is_final(exc):
            logger.opt(exception=exc).error("the bot has failed")
        logger.error(explain(exc))
        shortage = _code_of_shortage(exc)
        if shortage is not None:
            return shortage
        return cannot_start(explain(exc)) if is_final(exc) else 1
    finally:
        watch.draining.report_last()
    return 0


def _unless_changing(code: int) -> int:
    """What cannot start while its environment is being changed may start in a moment."""
    from liteyuki_host._child.changing import is_changing
    from liteyuki_host._child.codes import CANNOT_START, SHORTAGE

    if code != CANNOT_START or not is_changing(os.environ):
        return code
    _complain("packages of this bot's environment have just been installed or removed: it is tried again")
    return SHORTAGE


def _code_of_shortage(exc: Exception) -> int | None:
    """Say what is short, and return the exit code for it; None for any other error, or if not even that can be told."""
    try:
        from liteyuki_host._child.codes import SHORTAGE
        from liteyuki_host.comm.shortage import describe, remedy
    except Exception:
        return None
    helps = remedy(exc)
    if helps is None:
        return None
    _complain(f"this bot cannot start now: {describe(exc)}. What helps: {helps}")
    return SHORTAGE


def _own_exit(node: Node, exc: SystemExit) -> int:
    """The exit code that somebody other than the launcher has chosen. The host is told who."""
    from pathlib import Path

    from liteyuki_host._child.own_exit import place_of_exit

    place = place_of_exit(exc, Path.cwd())
    if place is not None:
        node.own_exit(place)
    return _exit_code(exc)


def _exit_code(exc: SystemExit) -> int:
    """As Python itself takes ``sys.exit(...)``."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code
    _complain(str(exc.code))
    return 1


def _complain(text: str) -> None:
    if sys.stderr is not None:  # a bot may have set it to None
        sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
