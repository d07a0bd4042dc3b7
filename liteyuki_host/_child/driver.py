"""Goes along with NoneBot's driver, from ``nonebot.init()`` on, and reports how far its start has come.

Theory of operation
-------------------

The project's own code is not touched: it calls ``nonebot.init()`` and ``nonebot.run()`` as ever. What has no public
hook is wrapped on the one driver object of this process, and ``nonebot.init`` itself in its module. A start goes like
this:

1. ``nonebot.init()``: the driver exists. :meth:`DriverWatch._follow` wraps its ``on_startup`` and ``run`` and loads our
   plugin. The project then loads its own plugins, whose start-up hooks are wrapped as they register
   (``startup_hooks.py``).
2. ``nonebot.run()``: everything is loaded. Doubtful settings and plugins that failed are logged, and the last hook of
   the start is registered.
3. The driver runs the start-up hooks, on its event loop. Ours are the first (signals) and the last (``after_start``).
4. ``after_start`` tells the host that the hooks have returned (``hooks_done``), with the adapters, and from then on
   this process follows the host's orders and the signals of a serving bot.
5. When the port is open, or at once where there is none, the host is told that the bot is *ready*.

A start that is interrupted runs the shutdown hooks instead; the host is told when these run
(:meth:`DriverWatch._shutdown_work`), so that it gives them time.

A project may start its server by itself, without ``nonebot.run()``. Then step 2 is made up for when the driver's
lifespan starts; the host learns of no address.

Threads
-------

Everything runs on the main thread, from step 3 on mostly on the event loop there. Exceptions are ``_drained`` (the
thread of the drain) and the properties that say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import nonebot
import nonebot.log
from loguru import logger
from nonebot.drivers import ASGIMixin, Driver
from nonebot.drivers.none import Driver as NoneDriver
from nonebot.plugin.manager import PluginManager

from liteyuki_host._child import keyboard
from liteyuki_host._child.codes import BESIDE, SHARE_PORT
from liteyuki_host._child.configuration import explaining
from liteyuki_host._child.doubtful import forgiving, wrong_log_level
from liteyuki_host._child.drain import Draining
from liteyuki_host._child.listening import Listening
from liteyuki_host._child.mistyped import mistyped_settings
from liteyuki_host._child.orders import Orders
from liteyuki_host._child.pulse import Pulse
from liteyuki_host._child.siblings import sibling_on
from liteyuki_host._child.sources import Sources
from liteyuki_host._child.startup_hooks import StartupHooks
from liteyuki_host._child.trouble import CannotRun, explain
from liteyuki_host.comm.errors import LycommError
from liteyuki_host.comm.threads import call_soon
from liteyuki_host.log import line_format

if TYPE_CHECKING:
    from liteyuki_host._child.ending import Ending
    from liteyuki_host._child.signals import Signals
    from liteyuki_host.comm.process.node import Node

TERMINATE_SECONDS = 1.0
"""From a SIGTERM or SIGHUP to telling the host. One that a service manager has stopped as well does not need to be
told: signals within a second are one request, as for the host itself."""

TERMINATED_ANSWER_SECONDS = 5.0
"""For the host to answer that it knows of the signal; it does so in milliseconds unless it hangs."""

TERMINATED_DRAIN_SECONDS = 10.0
"""For running handlers when the host does not answer: the default of ``drain_timeout``, which only the host knows."""

PLUGIN = "nonebot_plugin_lycomm"
"""Our NoneBot plugin, which every bot under a host gets."""


def use_line_format(process: str) -> None:
    """Give NoneBot's own log handler our format: one format for all processes, and the process in each line.

    Only the format changes, and that a wrong ``LOG_LEVEL`` is INFO. The names that a project uses to replace the
    handler go on pointing at it.
    """
    log = nonebot.log
    log.default_format = line_format(process)
    log.default_filter = forgiving(log.default_filter)  # type: ignore[assignment]  # it has that parameter and result
    log.logger.remove(log.logger_id)
    log.logger_id = log.logger.add(
        sys.stdout, level=0, diagnose=False, filter=log.default_filter, format=log.default_format
    )


class DriverWatch:
    """Follows the one driver of this process. There is one; :meth:`install` is called once, before the project runs.

    Args:
        node: tells the host.
        hooks: wraps the start-up hooks.
        orders: what the host asks of this process.
        ending: whether and how this process is being ended.
        signals: takes SIGINT and SIGTERM in the place of the driver.

    Attributes:
        draining: lets the bot come to rest; usable from any thread.
    """

    def __init__(self, node: Node, hooks: StartupHooks, orders: Orders, ending: Ending, signals: Signals) -> None:
        self.cannot_listen: str | None = None
        """The start is failing because the port is not to be had, and why that is so."""
        self.ready = False
        """The host has been told that the bot can be reached."""
        self._node = node
        self._hooks = hooks
        self._orders = orders
        self._ending = ending
        self._signals = signals
        self._pulse = Pulse(node.beat)  # the beats of the event loop
        self.draining = Draining(self._drained)
        self._rested = asyncio.Event()  # a drain has reported; set on the event loop
        self._loop: asyncio.AbstractEventLoop | None = None  # set once, by _follow_signals()
        self._driver: Driver | None = None  # the one that is followed
        self._init = explaining(nonebot.init)  # NoneBot's own, with errors of the configuration in words
        self._failed_plugins = FailedPlugins()
        # Kept, as an event loop refers to its tasks weakly: waiting for the port, and what a SIGTERM or SIGHUP began.
        self._opening: asyncio.Task[None] | None = None
        self._terminating: asyncio.Task[None] | None = None
        self._hanging_up: asyncio.Task[None] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The bot's event loop, once its start-up hooks have returned; None before, and on trio. From any thread."""
        return self._loop

    # --- from nonebot.init() to the end of the start ----------------------------------------------------------

    def install(self) -> None:
        """Wrap ``nonebot.init`` and let the host's drains reach this process. Call once, before the project runs."""
        # There is no public hook on init(). Replacing the module's function reaches every caller, because nobody
        # can have imported it before us.
        nonebot.init = self._init_and_follow
        self.draining.install()
        self._orders.drain_by(self.draining.drain)

    def _init_and_follow(self, *args: Any, **kwargs: Any) -> None:
        """Do what ``nonebot.init`` does, then follow the driver that it has made."""
        self._init(*args, **kwargs)
        driver = nonebot.get_driver()
        if driver is not self._driver:  # init() again does nothing, and neither do we
            self._driver = driver
            self._follow(driver)

    def _follow(self, driver: Driver) -> None:
        """Wrap what a start goes through, and register our own hooks. See the module's docstring for the order."""
        self._failed_plugins.listen()
        on_startup = driver.on_startup
        run: Callable[..., None] = driver.run
        lifespan = getattr(driver, "_lifespan", None)
        follows = False  # whether step 2 of a start has been done

        @on_startup  # the first one
        async def take_signals() -> None:
            with contextlib.suppress(RuntimeError):  # trio
                leave = driver.exit if isinstance(driver, NoneDriver) else None
                self._signals.starting(asyncio.get_running_loop(), leave)

        @driver.on_shutdown  # the first one; NoneBot calls the last one first
        async def end_shutdown() -> None:
            self._shutdown_work(running=False)

        def on_startup_without_blocking(func: Callable[[], Any]) -> Callable[[], Any]:
            on_startup(self._hooks.wrap(func))
            return func  # it is used as a decorator

        def follow_start(listening: Listening | None) -> None:
            """Take step 2: everything is loaded, and the start begins. *listening*: where the bot is to listen, if
            known."""
            nonlocal follows
            follows = True
            say_that_our_plugin_is_loaded()
            sources = Sources.read()
            wrong_level = wrong_log_level(driver.config.log_level, sources)
            if wrong_level is not None:
                logger.warning(wrong_level)
            for mistyped in mistyped_settings(sources, driver.config.model_fields_set):
                logger.warning(mistyped)
            keyboard.tell_if_missed_by(nonebot.get_adapters())
            failed_plugins = self._failed_plugins.report()

            async def after_start() -> None:
                if self._hooks.interrupted:  # the shutdown hooks are next; a `none` driver would leave them out
                    self._shutdown_work(running=True)
                    await _close_lifespan(driver)
                else:
                    await self._after_start(listening, failed_plugins)

            # The last step of a start: after the hooks of all plugins, and after the adapters' own ready hooks,
            # which come later. Those have no public registration on the driver.
            register = getattr(lifespan, "on_ready", on_startup)
            register(after_start)

        def run_and_report(*args: Any, **kwargs: Any) -> None:
            # Where it will listen follows from the driver's settings and what run() was given.
            _no_reload(driver)
            listening = Listening.of(driver.config, args, kwargs) if isinstance(driver, ASGIMixin) else None
            # Taken off, so that programs that the bot starts do not share the port. A bot that may be replaced by a
            # second one beside it opens the port here, in a way that both may have it, and uvicorn gets the descriptor.
            sharing = os.environ.pop(SHARE_PORT, None)
            if listening is not None and sharing is not None:
                listening = listening.share(driver.type, beside=sharing == BESIDE)
                if listening.own is not None:
                    kwargs["fd"] = listening.own.fileno()
            follow_start(listening)
            with self._signals.around_driver():
                run(*args, **kwargs)
            self._shutdown_work(running=True)  # what the project does after nonebot.run() is a part of it

        # A server that the project starts itself begins with the lifespan; its start is then the only sign of it.
        if lifespan is not None:
            startup: Callable[[], Awaitable[None]] = lifespan.startup

            async def startup_and_report() -> None:
                if not follows:
                    logger.info(
                        "the bot starts its server itself, without nonebot.run(): its host knows no address of it"
                    )
                    follow_start(None)
                await startup()

            vars(lifespan)["startup"] = startup_and_report

        # Set on the object: whoever holds the driver, and nonebot.run(), comes through here.
        vars(driver)["on_startup"] = on_startup_without_blocking
        vars(driver)["run"] = run_and_report
        load_our_plugin()

    async def _after_start(self, listening: Listening | None, failed_plugins: list[str]) -> None:
        """Tell the host that the hooks have returned, and that the bot is ready once its port is open.

        The last hook of a start. It does not raise, as that would make the start fail: a port that is not to be had is
        noted (``cannot_listen``), and the server fails by itself at once.

        Args:
            listening: where the bot listens; None: it opens no port, or starts its server itself.
        """
        try:
            self._follow_orders()
            self._follow_signals()
            adapters = list(nonebot.get_adapters())
            self._node.hooks_done(adapters=adapters, failed_plugins=failed_plugins)
            if listening is None:
                self._tell_ready(None, {})
                return
            if listening.own is not None:
                self.draining.take_in_on(asyncio.get_running_loop())
            await listening.wait_until_free(partial(sibling_on, self._node))
            # Not in driver.task_group: what fails in there takes the bot along.
            self._opening = asyncio.ensure_future(self._report_open(listening, adapters))
        except CannotRun as exc:
            self.cannot_listen = str(exc)
            logger.error(str(exc))
        except Exception:
            logger.exception("the start could not be reported to the host")

    def _shutdown_work(self, *, running: bool) -> None:
        """Tell the host of a start that was interrupted: the shutdown hooks run, or only threads are waited for.

        While they run they get the time of any other stop; see :mod:`liteyuki_host.supervisor.stopping`.
        """
        if self._hooks.interrupted:
            self._signals.shutting_down(running)
            self._node.shutdown_work(running=running)

    # --- what the host is told, and asks ------------------------------------------------------------------------

    def _follow_orders(self) -> None:
        """Let the host watch this event loop: it asks for beats, which are sent from the loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio; no driver of NoneBot's own uses it. No beat ever comes, and so none is missed
            return
        # The first beat says that there will be some. Without it, a loop that blocks before the host asks for beats
        # would not be noticed.
        self._node.beat(0.0)
        self._orders.watch_by(self._pulse.watch, loop)

    def _tell_ready(self, address: str | None, details: Mapping[str, str]) -> None:
        """Tell the host that the bot can be used, at *address* (None: it opens no port)."""
        self.ready = True
        self._node.ready(address=address, details=details)

    # --- SIGTERM and SIGHUP while the bot serves: called on the event loop ---------------------------------------

    def _follow_signals(self) -> None:
        """Take the signals of a serving bot from now on."""
        with contextlib.suppress(RuntimeError):  # trio
            self._loop = asyncio.get_running_loop()
            self._signals.serving(self._loop, self._terminated, self._hung_up)

    def _terminated(self) -> None:
        """Begin the end that a SIGTERM asks for."""
        self._terminating = asyncio.ensure_future(self._end_on_sigterm())

    async def _end_on_sigterm(self) -> None:
        """Wait for the host's stop, or for the restart that it makes of a SIGTERM for this bot alone."""
        await asyncio.sleep(TERMINATE_SECONDS)
        if self._ending.requested:
            return
        try:
            await self._node.control("terminated", timeout=TERMINATED_ANSWER_SECONDS)
        except LycommError as exc:
            logger.warning(f"SIGTERM: the host cannot be told ({exc}); the bot ends by itself")
            self.draining.drain(TERMINATED_DRAIN_SECONDS)
            with contextlib.suppress(asyncio.TimeoutError):  # no thread could be started that reports
                await asyncio.wait_for(self._rested.wait(), TERMINATED_DRAIN_SECONDS + 1.0)
            self._ending.interrupt()

    def _hung_up(self) -> None:
        """Pass a SIGHUP on, unless one is being passed on already."""
        if self._hanging_up is None or self._hanging_up.done():
            self._hanging_up = asyncio.ensure_future(self._pass_hang_up_on())

    async def _pass_hang_up_on(self) -> None:
        """Ask for a reload after a SIGHUP, unless the host ends this bot already."""
        await asyncio.sleep(TERMINATE_SECONDS)
        if self._ending.requested:
            return
        try:
            await self._node.control("hung up", timeout=TERMINATED_ANSWER_SECONDS)
        except LycommError as exc:
            logger.warning(f"SIGHUP: the host cannot be asked for a reload ({exc}); the bot goes on as it is")

    def _drained(self, unfinished: list[str], not_begun: int, count: int) -> None:
        """Pass a report of the drain on to the host; called by the drain's thread."""
        self._node.drained(unfinished, not_begun, count)
        if self._loop is not None:
            call_soon(self._loop, self._rested.set)  # if it has ended, the process is about to

    async def _report_open(self, listening: Listening, adapters: list[str]) -> None:
        """Wait until the server listens, then tell the host that the bot is ready. Never raises, as it is nobody's
        task."""
        try:
            await listening.wait_until_open()
            self._tell_ready(listening.address, listening.details(adapters))
        except Exception:
            logger.exception("the open port could not be reported to the host")


# --- plugins ----------------------------------------------------------------------------------------------------


def load_our_plugin() -> None:
    """Load our plugin for projects that do not declare it. The bot starts without it rather than not at all.

    It is loaded before the project's own plugins: one that imports it without ``require()``, as the page of 2024 does,
    would otherwise make a plain module of it, which NoneBot then refuses to load as a plugin.

    NoneBot says "Succeeded to load" whenever a declared plugin is loaded, again for one that was loaded before. So
    nothing is said here; :func:`say_that_our_plugin_is_loaded` does so for a project that does not declare it.
    """
    managers = getattr(nonebot.plugin, "_managers", [])
    before = list(managers)
    try:
        if nonebot.get_plugin(PLUGIN) is None:
            managers.append(PluginManager([PLUGIN]))
            importlib.import_module(PLUGIN)
    except Exception as exc:
        logger.opt(exception=exc).error(f'Failed to import "{PLUGIN}"')  # as NoneBot says it; see FailedPlugins
    # Loaded, but not declared: a project that declares it is right to, and NoneBot refuses a second declaration.
    # There is no public way to load without declaring.
    managers[:] = before


def say_that_our_plugin_is_loaded() -> None:
    """Log what NoneBot logs for a declared plugin, unless the project has declared it. After all plugins are loaded."""
    declared = any(PLUGIN in manager.available_plugins for manager in getattr(nonebot.plugin, "_managers", []))
    if not declared and nonebot.get_plugin(PLUGIN) is not None:
        logger.success(f'Succeeded to load plugin "{PLUGIN}"')


class FailedPlugins:
    """Says in one line each which plugins NoneBot could not load; NoneBot itself logs a long traceback for each.

    ``load_plugin()`` returns None for these and keeps the reason to itself, so it is read from the log records.
    """

    def __init__(self) -> None:
        self._sink: int | None = None  # loguru's number of our handler, while we listen
        self._failed: dict[str, BaseException] = {}  # by plugin name; written by whatever thread logs

    def listen(self) -> None:
        """Note plugins that cannot be loaded, from now on."""
        self._sink = logger.add(self._note, level="ERROR", format="{message}", catch=True)

    def report(self) -> list[str]:
        """Log a line for each plugin that could not be loaded, stop listening, and return their names. Called when
        everything has been loaded."""
        failed = self.take()
        for name, exc in failed.items():
            logger.error(f"plugin {name} was not loaded: {explain(exc)}; the bot runs without it")
        return list(failed)

    def take(self) -> dict[str, BaseException]:
        """Stop listening, and return by plugin name what kept each from being loaded. Let go of these errors soon:
        their tracebacks keep every local variable on the way alive."""
        if self._sink is not None:
            with contextlib.suppress(ValueError):  # the project has removed every handler
                logger.remove(self._sink)
            self._sink = None
        failed, self._failed = self._failed, {}
        return failed

    def _note(self, message: Any) -> None:
        """Take a log record of level ERROR. Those of NoneBot's ``load_plugin`` and ours have the plugin's name and the
        error."""
        record = message.record
        match = re.match(r'Failed to import "([^"]*)"', record["message"])
        loading = record["function"] in ("load_plugin", load_our_plugin.__name__)
        if match and loading and record["exception"] is not None:
            self._failed[match[1] or "''"] = record["exception"].value


async def _close_lifespan(driver: Driver) -> None:
    """Run the shutdown hooks of a ``none`` driver that is asked to end while it starts.

    The driver itself would leave them out, and its lifespan's task group open, which ends in a traceback.
    """
    should_exit = getattr(driver, "should_exit", None)
    lifespan = getattr(driver, "_lifespan", None)
    if should_exit is not None and should_exit.is_set() and lifespan is not None:
        await lifespan.shutdown()


def _no_reload(driver: Driver) -> None:
    """Switch uvicorn's reloader off, which would run the bot in yet another process, where the host could not reach it.
    A line says so."""
    for kind in ("fastapi", "quart"):
        config = getattr(driver, f"{kind}_config", None)
        if getattr(config, f"{kind}_reload", False):
            setattr(config, f"{kind}_reload", False)
            logger.warning(f"{kind.upper()}_RELOAD is switched off: the bot runs under a host, which restarts it")
