"""``--trial``: loads the project as a real start does, tells whether it can be, and ends where the driver would run.

No start-up hook is run, no port opened, and there is no host to talk with. Nothing of the project runs after the
verdict, neither its ``finally`` nor its exit handlers.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from liteyuki_host._child.missing import missing_module
from liteyuki_host._child.streams import flush_streams
from liteyuki_host._child.trouble import CannotRun, locate
from liteyuki_host.comm.errors import HostNotAttached, UnknownChannel
from liteyuki_host.comm.process.current import current_node
from liteyuki_host.requirements import unfit_pydantic
from liteyuki_host.wording import one_line

if TYPE_CHECKING:
    from nonebot.drivers import Driver

    from liteyuki_host.comm.transport import Transport

MAX_FAILED = 50
"""Failed plugins that are told of, each in at most ``trouble.MAX_WORDS`` characters."""


class Trial:
    """One attempt to load the project, which ends the process."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._folder = Path.cwd()
        self._entry = ""

    def run(self, process: str, script: Path | None) -> NoReturn:
        """
        Args:
            script: None for ``--kind toml``.
        """
        current_node().process = process  # what its own channels are called
        entry = self._entry = "[tool.nonebot] of pyproject.toml" if script is None else script.name
        try:
            self._load(process, script)
        except CannotRun as exc:
            self._refuse(str(exc))
        except SystemExit as exc:
            self._refuse(f"{entry} ended by sys.exit({exc.code!r}) before it called nonebot.run()")
        except BaseException as exc:
            if _wants_the_host(exc):
                self._pass({})
            self._refuse(locate(exc, self._folder))
        self._refuse(f"{entry} came to its end without having called nonebot.run()")

    def _load(self, process: str, script: Path | None) -> None:
        unfit = unfit_pydantic()
        if unfit is not None:
            raise CannotRun(unfit)
        try:
            import nonebot
        except ModuleNotFoundError as exc:
            if exc.name != "nonebot":
                raise
            raise CannotRun(missing_module("nonebot", "nonebot2[fastapi]")) from exc
        from liteyuki_host._child.configuration import explaining
        from liteyuki_host._child.driver import FailedPlugins, load_our_plugin, use_line_format
        from liteyuki_host._child.run_project import run_script, run_toml

        use_line_format(process)
        failed = FailedPlugins()
        init = explaining(nonebot.init)
        followed: list[Driver] = []

        def all_is_loaded(*args: Any, **kwargs: Any) -> None:
            self._pass(failed.take(), _listens(nonebot.get_driver(), args, kwargs))

        def starts_a_server() -> NoReturn:
            self._pass(
                failed.take(),
                note=f"{self._entry} starts its server itself, without nonebot.run(): what it does from there on was "
                "not looked at",
            )

        async def startup() -> None:
            starts_a_server()

        def see_a_server(event: str, args: tuple[Any, ...]) -> None:
            if event == "socket.bind" and _is_a_server(*args):
                starts_a_server()

        def init_and_follow(*args: Any, **kwargs: Any) -> None:
            init(*args, **kwargs)
            driver = nonebot.get_driver()
            if driver not in followed:
                followed.append(driver)
                failed.listen()
                vars(driver)["run"] = all_is_loaded
                lifespan = getattr(driver, "_lifespan", None)
                if lifespan is not None:
                    vars(lifespan)["startup"] = startup  # of the start-up hooks
                load_our_plugin()

        nonebot.init = init_and_follow
        sys.addaudithook(see_a_server)
        if script is None:
            run_toml()
        else:
            run_script(script)

    def _pass(
        self,
        failed: Mapping[str, BaseException],
        listens: Mapping[str, Any] | None = None,
        note: str | None = None,
    ) -> NoReturn:
        """
        Args:
            listens: where its server would listen, as in `Listening`; empty: it has none; None: unknown.
            note: what was not looked at, and why.
        """
        words = {
            name: locate(exc, self._folder, f"plugin {name}")
            for name, exc in failed.items()
            if not _wants_the_host(exc)
        }
        failed_plugins = dict(list(words.items())[:MAX_FAILED])
        self._end(failed_plugins=failed_plugins, listens=listens, note=note, replaced=_replaced(), mistyped=_mistyped())

    def _refuse(self, words: str) -> NoReturn:
        self._end(error=words)

    def _end(self, **verdict: Any) -> NoReturn:
        try:
            flush_streams()
            self._transport.write_all([json.dumps(verdict).encode() + b"\n"])
        finally:
            os._exit(0)


def _is_a_server(sock: socket.socket, address: Any) -> bool:
    """Whether the main program opens a port in an event loop of its own, as a server does that ``run`` stands for.

    Not a port of the system's choice, and not a thread or a plugin that serves something else beside the bot.
    """
    if threading.current_thread() is not threading.main_thread() or not sock.type & socket.SOCK_STREAM:
        return False
    if isinstance(address, tuple) and not address[1]:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _replaced() -> list[str]:
    """As in a survey; here the bot has added its own log levels, if it has any."""
    import nonebot

    from liteyuki_host._child.doubtful import wrong_log_level
    from liteyuki_host._child.sources import Sources

    try:
        level = wrong_log_level(nonebot.get_driver().config.log_level, Sources.read())
    except ValueError:  # it ended before nonebot.init()
        return []
    return [] if level is None else [one_line(level)]


def _mistyped() -> list[str]:
    """As in a survey; here the settings of the plugins are known, and those that the bot passes to init()."""
    import nonebot

    from liteyuki_host._child.mistyped import mistyped_settings
    from liteyuki_host._child.sources import Sources

    try:
        config = nonebot.get_driver().config
    except ValueError:  # it ended before nonebot.init()
        return []
    return mistyped_settings(Sources.read(), config.model_fields_set)


def _listens(driver: Driver, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    from nonebot.drivers import ASGIMixin

    from liteyuki_host._child.listening import Listening

    try:
        listening = Listening.of(driver.config, args, kwargs) if isinstance(driver, ASGIMixin) else None
    except (OSError, TypeError, ValueError):  # wrong arguments; run() would say so
        return None
    if listening is None or listening.bound:
        return {}
    return {"host": listening.host, "port": listening.port, "uds": listening.uds}


def _wants_the_host(exc: BaseException | None) -> bool:
    """Whether it fails only because this process has no host. The change is not to blame."""
    while exc is not None:
        if isinstance(exc, HostNotAttached | UnknownChannel):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
