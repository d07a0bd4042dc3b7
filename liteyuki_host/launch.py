"""What a child process runs first: ``python -m liteyuki_host.launch --process NAME --kind script|toml``.

Takes the link that the host has passed on, makes sure that this process never outlives the host, and then runs
the NoneBot project in the current folder as if it had been started without us. Started by the host only.
"""

# How a child runs (in comments, as the text above is printed by --help)
# ----------------------------------------------------------------------
#
# main() takes these steps, in this order:
#
#  1. The guard: whatever happens later, this process ends with its host (`_child/guard.py`).
#  2. What the reloader needs to know of files that the bot itself writes (`_child/writes.py`).
#  3. Stacks of all threads on request, prepared as early as possible (`_child/stacks.py`).
#  4. The link: its descriptors are taken from the environment, so that no program that the project starts has them.
#  5. Standard input: who reads it where there is no terminal is told what to do (`_child/keyboard.py`).
#  6. With --trial, the project is only loaded, and the process ends there (`_child/trial_run.py`).
#  7. How this process ends: by the host's word, by a signal, or because the host is gone (`_child/ending.py`).
#  8. The greeting, and the shared memory: `Node.attach`. The link is read from here on.
#  9. The project, by `_run_project`, until nonebot.run() returns or something else ends it.
# 10. The goodbye: `Node.detach` sends what is queued; `Ending.leave` gives SIGTERM back to the system.
#
# All of it runs on the main thread. The exit code tells the host what a link cannot: see `_child/codes.py`. What is
# written to stderr before the log is set up is for whoever reads the bot's output (`_complain`).
#
# Nothing of ours, and little else, is imported up here: an interrupt in the first moments must find main()'s
# handler, and processes that the project starts may import this module again (multiprocessing with "spawn" does).
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
    """Run the project to its end.

    Args:
        argv: the arguments; None: those of the process.

    Returns the exit code: 0, one of ``_child/codes.py``, or what the project has chosen. An error that is no shortage
    and has happened before the project ran is raised: a bug of lycomm, whose traceback is the best report.
    """
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
        if transport is None:  # started by hand
            from liteyuki_host.comm.command import lycomm

            _complain(f"liteyuki_host.launch is started by the host only: run `{lycomm('run')}` in the bot's folder")
            return NOT_UNDER_HOST
        from liteyuki_host._child import keyboard

        keyboard.install(options.process)
        if options.trial:
            from liteyuki_host._child.trial_run import Trial

            Trial(transport).run(options.process, _script(options))  # does not return
        ending = Ending(without)
        ending.arm()
        node = current_node()
        orders = Orders(stacks)
        try:
            _attach(node, transport, options.process, ending, orders)
        except LycommError as exc:
            if not ending.host_gone:  # otherwise there is nobody who would read it, and nothing is wrong here
                _complain(f"{options.process}: no understanding with the host: {exc}")
            return CANNOT_START
        return _run_attached(node, options, ending, orders)
    except KeyboardInterrupt:
        return 0  # asked to end before there was anything to end
    except Exception as exc:
        code = _code_of_shortage(exc)  # which may pass, so the host tries again
        if code is None:
            raise
        return code


# --- the steps ----------------------------------------------------------------------------------------------------


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments that the host gives (``supervisor/process.py``). A wrong one is an error of argparse, which
    exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m liteyuki_host.launch", description=__doc__)
    parser.add_argument("--process", required=True, help="the name this child was declared with")
    parser.add_argument("--kind", required=True, choices=["script", "toml"])
    parser.add_argument("--script", help="what to run, for --kind script")
    parser.add_argument("--trial", action="store_true", help="only load the project, and tell whether that works")
    options = parser.parse_args(argv)
    # argparse has no way to say that one option needs another.
    if options.kind == "script" and options.script is None:
        parser.error("--kind script needs --script")
    return options


def _script(options: argparse.Namespace) -> Path | None:
    """Return the script to run; None for a project that ``pyproject.toml`` describes."""
    from pathlib import Path

    return Path(options.script) if options.kind == "script" else None


def _attach(node: Node, transport: Transport, process: str, ending: Ending, orders: Orders) -> None:
    """Greet the host, and load the shared memory.

    Raises:
        LycommError: there is no understanding with the host, or it has gone.
    """
    node.attach(
        transport,
        process,
        on_stop=ending.on_stop,
        on_host_gone=ending.on_host_gone,
        on_supervision=orders.take,
    )


def _run_attached(node: Node, options: argparse.Namespace, ending: Ending, orders: Orders) -> int:
    """Run the project, then say goodbye to the host. Returns the exit code.

    However the project ends, the host gets a goodbye and what is queued. Without it the host would take the end for
    that of a broken process.
    """
    launched = sys.modules["__main__"]  # keeps our globals while the project's __main__ takes our place
    code = 1
    try:
        code = _unless_changing(_run_project(node, options, ending, orders))
    except KeyboardInterrupt:
        code = 0  # the project was asked to end, and did
    except SystemExit as exc:
        code = _own_exit(node, exc)
    finally:
        ending.finish()  # from here on nothing interrupts: there is nothing left to interrupt
        node.detach(f"{options.process} exits with {code}")
        ending.leave(code)
        del launched
    return code


def _run_project(node: Node, options: argparse.Namespace, ending: Ending, orders: Orders) -> int:
    """Run the project as if it had been started without us, and tell the host how far it gets.

    Returns the exit code. Whatever no restart can cure is told to the host first (``cannot_start``), with a line that
    says what has to be changed, for the operator.

    Raises:
        SystemExit: somebody other than lycomm and the driver has called ``sys.exit()``.
        KeyboardInterrupt: the project was interrupted and did not handle that.
    """
    from liteyuki_host._child.codes import CANNOT_START, STARTUP_FAILED
    from liteyuki_host.requirements import unfit_pydantic

    def cannot_start(reason: str) -> int:
        node.cannot_start(reason)
        return CANNOT_START

    # Before NoneBot is imported, which needs a pydantic that is fit.
    unfit = unfit_pydantic()
    if unfit is not None:
        _complain(f"{options.process}: {unfit}")
        return cannot_start(unfit)
    try:
        import nonebot  # noqa: F401
    except ModuleNotFoundError as exc:
        if exc.name != "nonebot":  # something that NoneBot imports: not our case
            raise
        from liteyuki_host._child.missing import missing_module

        missing = missing_module("nonebot", "nonebot2[fastapi]")
        _complain(f"{options.process}: {missing}")
        return cannot_start(missing)
    # Only now, as most of these import NoneBot.
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
    # In this order, when the bot is to end: let go of start-up hooks that do not return, then stop the drain.
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
    ).install()  # a bot that is ready and replaces itself (os.execv) is restarted by the host instead
    try:
        run_toml() if script is None else run_script(script)
    except CannotRun as exc:  # its text says what is wrong with the project
        logger.error(str(exc))
        return cannot_start(str(exc))
    except SystemExit as exc:
        # Uvicorn's way to say that the start has failed, unless the bot's own code has exited with the same code.
        if exc.code != STARTUP_FAILED or place_of_exit(exc, Path.cwd()) is not None:
            raise
        if ending.requested:
            return 0  # the start did not fail: it was interrupted
        return cannot_start(watch.cannot_listen) if watch.cannot_listen else STARTUP_FAILED
    except Exception as exc:
        # The traceback for whoever wrote the script; then one line for whoever runs it.
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
        watch.draining.report_last()  # what is lost by this end, while there is still a link to tell it on
    return 0


# --- exit codes ---------------------------------------------------------------------------------------------------


def _unless_changing(code: int) -> int:
    """Return *code*, or SHORTAGE in place of CANNOT_START while packages of the environment are being changed: what
    cannot start now may start in a moment, so the host is to try again."""
    from liteyuki_host._child.changing import is_changing
    from liteyuki_host._child.codes import CANNOT_START, SHORTAGE

    if code != CANNOT_START or not is_changing(os.environ):
        return code
    _complain("packages of this bot's environment have just been installed or removed: it is tried again")
    return SHORTAGE


def _code_of_shortage(exc: Exception) -> int | None:
    """Return the exit code for a shortage (files, threads, memory, disk) and write a line that says what is short.
    None, and no line, for any other error."""
    try:
        from liteyuki_host._child.codes import SHORTAGE
        from liteyuki_host.comm.shortage import describe, remedy
    except Exception:  # for want of memory or descriptors, even this import may fail
        return None
    helps = remedy(exc)
    if helps is None:
        return None
    _complain(f"this bot cannot start now: {describe(exc)}. What helps: {helps}")
    return SHORTAGE


def _own_exit(node: Node, exc: SystemExit) -> int:
    """Return the exit code that somebody other than lycomm has chosen. If it was the bot's own code, the host is told
    at which place, so that its log says why the bot has ended."""
    from pathlib import Path

    from liteyuki_host._child.own_exit import place_of_exit

    place = place_of_exit(exc, Path.cwd())
    if place is not None:
        node.own_exit(place)
    return _exit_code(exc)


def _exit_code(exc: SystemExit) -> int:
    """Return the code that Python makes of ``sys.exit(...)``: None is 0, and a text goes to stderr and is 1."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code
    _complain(str(exc.code))
    return 1


def _complain(text: str) -> None:
    """Write a line to stderr. For what happens before, or beside, the bot's own log."""
    if sys.stderr is not None:  # a bot may have set it to None
        sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
