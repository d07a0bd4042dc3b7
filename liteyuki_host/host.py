"""The host: where settings, hub, supervisor and the operator's own modules come together.

The life of a host
------------------

1. *Made* (:class:`Host`): the settings are read and checked, and hub and supervisor are made; nothing runs. From here
   on it is the host of this process (``get_bot()``), and the operator's modules may be loaded and register hooks.
2. *Begun* (:meth:`Host._begin`): by :meth:`Host.run` or :meth:`Host.serve`, once.
3. *Prepared* (:meth:`Host._prepare`): the modules of the settings are loaded and ``on_before_start`` runs.
4. *Serving* (:meth:`Host._serve_processes`): the supervisor keeps the processes running, until a stop is asked for or
   nothing is left to do.
5. *Winding up* (:meth:`Host._wind_up`), whatever happened before: the last hooks, then the hub is closed. The process
   may make another host now.

There are three ways to run it, which differ in who has which event loop:

- ``run()`` in the main thread: one loop for all, and signals are handled.
- ``run()`` in another thread: one loop in a thread of ours, which the caller waits for; no signals.
- ``serve()``: hooks and callbacks run on the program's own loop, and the supervision in a thread with a loop of its
  own, so that a program that blocks its loop does not keep children from being looked after.

Threads. Methods for control may be called from any thread, and ``stop`` from a signal handler: they only change what is
wanted, or post to the supervision's loop. The ``a...`` forms may be awaited on any asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import anyio
from loguru import logger

from liteyuki_host import lifespan, log, signals
from liteyuki_host.boundary import in_thread_or_here
from liteyuki_host.child_requests import ChildRequests
from liteyuki_host.comm.errors import HostError, HostNotRunning, LycommError, ProcessFailed
from liteyuki_host.comm.gil import without_the_gil
from liteyuki_host.comm.process.current import set_current
from liteyuki_host.comm.threads import call_soon
from liteyuki_host.comm.waiting.loops import need_asyncio
from liteyuki_host.embedding import Cancellation, await_on, ends_with_program, run_apart, run_waited_for
from liteyuki_host.events import ProcessEvents
from liteyuki_host.host_modules import load_module
from liteyuki_host.hub import Hub
from liteyuki_host.idle import until_of_no_use, why_stay
from liteyuki_host.inside_child import refuse_inside_child
from liteyuki_host.lifespan import Lifespan
from liteyuki_host.output.files import LogFiles
from liteyuki_host.self_watch import SelfWatch
from liteyuki_host.settings import Settings, load_settings
from liteyuki_host.settings_files import SettingsFiles
from liteyuki_host.supervisor import terminal
from liteyuki_host.supervisor.installation import HostInstallation
from liteyuki_host.supervisor.life import Context
from liteyuki_host.supervisor.process_output import Output, to_the_console
from liteyuki_host.supervisor.states import Transition
from liteyuki_host.supervisor.supervisor import Supervisor

__all__ = ["Host", "get_bot"]

H = TypeVar("H", bound=Callable[[], Any])
P = TypeVar("P", bound=Callable[[], Any] | Callable[[str], Any] | Callable[[str, Context], Any])
T = TypeVar("T")

SHUTDOWN_HOOK_SECONDS = 3.0
"""Seconds that each on_after_shutdown hook gets; with the stop ladder it stays near the 10 s of one Ctrl+C."""

FAILED = 1
"""Exit code of a host that ends because a process has failed and none runs."""

_current: Host | None = None
"""The host of this process, from its making until it has ended. Written under ``_current_lock``."""

_current_lock = threading.Lock()
"""Guards ``_current`` and ``Host._begun``. Held for a few lines only."""


def get_bot() -> Host:
    """The host of this process; callable at the top of a main-process module.

    Raises:
        HostNotRunning: there is none: this process is no host, or the module was imported before ``Host(...)``.
    """
    if _current is None:
        raise HostNotRunning(
            "there is no host in this process yet; get_bot() works in modules that the host loads: name them in "
            "`plugins` of [tool.lycomm], or call host.load_plugin(...)"
        )
    return _current


class Host:
    """A host with its declared processes.

    A process has one host: the next can be made when the first has ended, or, if it has not run, after its ``stop()``.

    Attributes:
        settings: what it was made with; never changed.
        folder: the project's folder.
        hub: its exchange, the meeting point of all bots.

    Args:
        folder: where ``.env`` and ``pyproject.toml`` are looked for and relative paths begin; default: the current one.
        settings: any of ``liteyuki_host.settings.Settings``; they beat the environment, which beats ``.env``, which
            beats ``[tool.lycomm]`` in ``pyproject.toml``.

    Raises:
        SettingsError: with a line for each wrong setting.
        HostError: this process is itself a host's child, or has another host.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        refuse_inside_child()
        _refuse_another_host()
        given = Path() if folder is None else Path(folder)
        environ = dict(os.environ)
        self.settings: Settings = load_settings(settings, folder=given, environ=environ)
        self.folder = self.settings.folder if folder is None else given
        self.hub = Hub(
            window=self.settings.channel_window,
            message_limit=self.settings.message_limit,
            memory_limit=self.settings.shared_memory_limit,
        )
        specs = self._specs = self.settings.process_specs()
        again = partial(load_settings, settings, folder=self.settings.folder, environ=environ)
        self.reread_settings: Callable[[], Settings] = again
        """Returns the settings that the next start of this host would have; raises SettingsError. May be replaced."""
        self._lifespan = Lifespan()  # the hooks, and the loop that they run on
        self._log_files = _log_files(self.settings)
        self._supervisor = Supervisor(
            self.hub,
            specs,
            events=ProcessEvents(self._lifespan, self.hub),
            outputs={name: self._output_of(name) for name in specs},
            installation=HostInstallation(),
            host_files=SettingsFiles(self.settings, self._settings_of_next_start, environ),
        )
        self._processes = list(specs)  # names, in the order of their declaration
        self._plugins: list[str] = []  # main-process modules that were asked for
        # Set once, from any thread. No threading.Event: its lock may be held when a signal handler needs it.
        self._stop_asked = False
        self._stopping: asyncio.Event | None = None  # set on the supervision's loop, which it belongs to
        self._loop: asyncio.AbstractEventLoop | None = None
        """Of the supervision: that of `run`, or of the thread that `serve` starts. Written once, by it."""
        self._loop_known: Future[None] = Future()
        """Done when `_loop` is set, or will never be. For those who ask for something before the host serves."""
        self._failure: str | None = None
        """Why it has ended by itself; None: it has not, or nothing had failed. Written once, on the supervision's
        loop."""
        self._winding_up: asyncio.Task[None] | None = None  # of serve() only, to be cancelled by _end_at_once()
        self._begun = False  # set once, under _current_lock
        self._over = False  # set once, when the winding up begins
        for name in self._processes:
            self.hub.declare_process(name)
        self._child_requests = ChildRequests(self, self._supervisor, lambda: self._stop_asked)
        self.hub.on_control = self._child_requests.answer
        self._become_current()

    # --- the operator's own modules ---------------------------------------------------------------------------

    def load_plugin(self, module: str) -> ModuleType:
        """Import a main-process module, once. Its top level may call ``get_bot()`` and ``get_channel(...)``.

        Raises:
            HostError: it cannot be imported; one line with the file and line that failed.
        """
        if module not in self._plugins:
            self._plugins.append(module)
        return load_module(module, self.folder)

    # --- hooks ----------------------------------------------------------------------------------------------

    def on_before_start(self, hook: H) -> H:
        """Run before the first process is started; waited for."""
        return self._lifespan.register(lifespan.BEFORE_START, hook)

    def on_after_start(self, hook: H) -> H:
        """Run once the processes have been started. It may go on for ever; it is cancelled when the host stops."""
        return self._lifespan.register(lifespan.AFTER_START, hook)

    # Process hooks may take the process's name, and after it a `Context`: why, pid, uptime, restarts, last exit.

    def on_before_process_shutdown(self, hook: P) -> P:
        """Run with the process's name and context before it is asked to end, also for a restart."""
        return self._lifespan.register(lifespan.BEFORE_PROCESS_SHUTDOWN, hook)

    def on_before_process_restart(self, hook: P) -> P:
        """Run with the process's name and context before a planned restart: asked, reload, memory, age."""
        return self._lifespan.register(lifespan.BEFORE_PROCESS_RESTART, hook)

    def on_after_restart(self, hook: P) -> P:
        """Run with the process's name and context once it is ready again after a planned restart."""
        return self._lifespan.register(lifespan.AFTER_RESTART, hook)

    def on_after_shutdown(self, hook: H) -> H:
        """Run when all processes are gone, before ``run`` returns."""
        return self._lifespan.register(lifespan.AFTER_SHUTDOWN, hook)

    # --- control: from any thread or task, at once --------------------------------------------------------------

    def restart_process(self, name: str | None = None) -> None:
        """Ask for a restart of one process, or of all. Raises UnknownProcess."""
        for process in self._named(name):
            self._supervisor.restart(process)

    def start_process(self, name: str | None = None) -> None:
        """Ask for one process, or all, to be running. Raises UnknownProcess."""
        for process in self._named(name):
            self._supervisor.start(process)

    def stop_process(self, name: str | None = None) -> None:
        """Ask for one process, or all, to be stopped until started again. Raises UnknownProcess."""
        for process in self._named(name):
            self._supervisor.stop(process)

    def reload_process(self, name: str | None = None) -> None:
        """Have the new code of one process, or of all, tried and, if it can start, used. Raises UnknownProcess.

        What ``SIGHUP`` does for all. A process that cannot start with it is left as it runs; the log says why.
        """
        for process in self._named(name):
            self._supervisor.reload(process)

    def stop(self) -> None:
        """Ask the host to end: every process by its stop ladder, then ``run`` returns. More calls do nothing.

        A host that has not run is given up: another can be made.
        """
        self._stop_asked = True
        if self._stopping is not None:
            self._post(self._stopping.set)

    # --- control: waiting until it is done ----------------------------------------------------------------------
    # Before the host serves, these wait until it does. HostNotRunning: it has ended, or ends before it has served.

    async def arestart_process(self, name: str | None = None) -> None:
        """Restart and wait until ready again. Raises UnknownProcess, ProcessFailed, AsyncioNeeded."""
        await self._all(self._supervisor.arestart, name)

    async def astart_process(self, name: str | None = None) -> None:
        """Start and wait until ready. Raises UnknownProcess, ProcessFailed, AsyncioNeeded."""
        await self._all(self._supervisor.astart, name)

    async def astop_process(self, name: str | None = None) -> None:
        """Stop and wait until gone. Raises UnknownProcess, AsyncioNeeded."""
        await self._all(self._supervisor.astop, name)

    async def wait_ready(self, name: str, timeout: float | None = None) -> None:
        """Wait until the process is ready. Raises UnknownProcess, ProcessFailed (it will not be),
        AsyncioNeeded."""
        await self._on_loop(lambda: self._supervisor.wait_ready(name, timeout))

    def status(self) -> list[dict[str, Any]]:
        """One dict per process: name, state, pid, uptime (s), restarts, last_exit, memory (bytes), address.

        From any thread.
        """
        return [
            {
                "name": status.name,
                "state": str(status.state),
                "pid": status.pid,
                "uptime": status.uptime,
                "restarts": status.restarts,
                "last_exit": status.last_exit,
                "memory": status.memory,
                "address": status.address,
            }
            for status in self._supervisor.status()
        ]

    def history(self, name: str) -> Sequence[Transition]:
        """The last state transitions of a process, oldest first. From any thread. Raises UnknownProcess."""
        return self._supervisor.history(name)

    def output(self, name: str) -> Output:
        """Return what a process has written lately, to stdout and stderr. Raises UnknownProcess."""
        return self._supervisor.output(name)

    # --- running --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until stopped (Ctrl+C, SIGTERM, :meth:`stop`), and return normally after a clean stop.

        Returns normally, too, when no process runs any more and none has failed.

        Raises:
            HostError: a main-process module cannot be loaded, or this host has run already.
            SystemExit: with code 1: no process runs, none will start by itself, and one has failed. The log says
                so. Not raised where staying is of use; see the setting ``on_failed``.

        Outside the main thread it handles no signals. It stops in order, too, when the program ends that does not
        wait for this thread (a daemon), or that nobody has caught a Ctrl+C in.
        """
        owner = threading.current_thread()
        if owner is threading.main_thread():
            self._run()
        else:
            run_waited_for(partial(self._run, owner), name="lycomm-host")

    def _run(self, owner: threading.Thread | None = None) -> None:
        """Do what :meth:`run` says.

        Args:
            owner: thread of the program that has called it and waits; None: the main thread, which runs this.
        """
        handler = log.configure(self.settings.log_level, self._log_files)
        try:
            commands = signals.Commands(
                stop=self.stop,
                end_at_once=self._end_at_once,
                reload=self._reload_by_signal,
                resize=terminal.resized,
                post=self._post,
            )
            with signals.handled(signals.handlers(commands)):
                anyio.run(self._serve_with_signals, owner, backend="asyncio")
        finally:
            logger.complete()
            logger.remove(handler)
        if self._failure is not None:
            raise SystemExit(FAILED)

    async def serve(self) -> None:
        """Run until stopped, as :meth:`run`, in a program that has an asyncio loop of its own. Handles no signals.

        Hooks and callbacks run on the program's loop, the supervision in a thread of its own.

        Cancelled, it stops all processes as :meth:`stop` does and then raises the cancellation: that takes as long as
        their handlers and shutdown hooks do, at most ``drain_timeout`` and the seconds of the stop ladder for each
        level of ``after``, and those of the host's own hooks. Cancelled once more meanwhile (by ``task.cancel()``; a
        cancelled scope of anyio counts once), it kills all processes.

        Raises:
            HostError: a main-process module cannot be loaded, or this host has run already.
            ProcessFailed: no process runs, none will start by itself, and one has failed; the text says which and
                why. Without a failure it returns. Neither happens where staying is of use; see the setting
                ``on_failed``.
            AsyncioNeeded: awaited where asyncio does not run, as in trio. Nothing has been started.
        """
        need_asyncio()
        self._begin()
        cancellation = Cancellation(first=self.stop, again=self._end_at_once)
        try:
            await self._prepare()
            supervision = run_apart(self._serve_apart, name="lycomm-host", on_owner_gone=self._owner_gone)
            await cancellation.outlast(supervision)
            supervision.result()
        finally:
            self._winding_up = asyncio.ensure_future(self._wind_up())
            await cancellation.outlast(self._winding_up)
            cancellation.close()
            if not self._winding_up.cancelled():
                self._winding_up.result()
        cancellation.raise_if_cancelled()
        if self._failure is not None:
            raise ProcessFailed(self._failure)

    # --- the steps of its life ----------------------------------------------------------------------------------

    async def _serve_with_signals(self, owner: threading.Thread | None) -> None:
        """Go through all steps on this one loop, for :meth:`run`. *owner*: see :meth:`_run`."""
        self._begin()
        loop = asyncio.get_running_loop()
        watching = None if owner is None else asyncio.ensure_future(ends_with_program(owner, self.stop))
        with signals.waking(loop), contextlib.closing(SelfWatch(loop)) as self_watch:
            self_watch.start()
            try:
                await self._prepare()
                await self._serve_processes()
            finally:
                await self._wind_up()
                if watching is not None:
                    watching.cancel()

    async def _serve_apart(self) -> None:
        """Serve on the loop of a thread of its own, for :meth:`serve`."""
        with contextlib.closing(SelfWatch(asyncio.get_running_loop())) as self_watch:
            self_watch.start()
            await self._serve_processes()

    def _become_current(self) -> None:
        """Make this the host of the process, as the last step of its making: whoever finds it finds all of it."""
        global _current
        with _current_lock:
            _refuse_another_host()  # again: another thread may have been faster
            _current = self
        set_current(self.hub)

    def _begin(self) -> None:
        """Note that it runs. Raises HostError if it has run, or has been replaced by another host."""
        with _current_lock:
            if self._begun:
                raise HostError("a host runs once; make a new Host(...)")
            if _current is not self:  # which was stopped before it ran
                raise HostError("this host was stopped, and another Host(...) has been made since; run that one")
            self._begun = True

    async def _prepare(self) -> None:
        """Load the modules and run the first hooks, on the loop that callbacks and hooks run on from now on.

        The hub gets the loop when the modules are loaded: messages are for the callbacks that these register.
        """
        loop = asyncio.get_running_loop()
        self._lifespan.use(loop)
        for module in self.settings.plugins:
            self.load_plugin(module)
        self.hub.attach_loop(loop)
        await self._lifespan.fire(lifespan.BEFORE_START)
        no_gil = without_the_gil()
        if no_gil is not None:
            logger.warning(no_gil)
        logger.info(
            f"host up (pid {os.getpid()}), processes: {', '.join(self._processes)}; press Ctrl+C to stop everything"
        )

    async def _serve_processes(self) -> None:
        """Keep the processes running until a stop is asked for, or until nothing is left to do."""
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._stop_asked:  # before there was an event to set; whoever asks from now on posts to the loop
            self._stopping.set()
        self._loop_known.set_result(None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.hub.serve)
            tasks.start_soon(self._supervisor.serve)
            tasks.start_soon(self._end_when_of_no_use)
            self._lifespan.start(lifespan.AFTER_START)
            await self._stopping.wait()
            logger.info("host stops: asking all processes to end")
            await self._lifespan.stop()  # first: what they would send now would find nobody
            await self._supervisor.stop_all()
            tasks.cancel_scope.cancel()

    async def _end_when_of_no_use(self) -> None:
        """End the host when no process runs, none will start by itself, and nothing else is a reason to stay."""
        idle = await until_of_no_use(self._supervisor, self._specs, self._reason_to_stay)
        if self._stop_asked:  # that none runs any more is what was asked for
            return
        line = idle.why_it_ends()
        if idle.failed:
            self._failure = line
            logger.error(line)
        else:
            logger.info(line)
        self.stop()

    def _reason_to_stay(self) -> str | None:
        """Return why the host stays although no process runs; None: it does not."""
        on_failed = self.settings.on_failed
        return why_stay(self._specs, on_failed=on_failed, modules=self._plugins, hooks=bool(self._lifespan))

    async def _wind_up(self) -> None:
        """End everything that is left, on the loop of the hooks. All processes are gone. Whatever a hook does, the hub
        is closed and the process may make another host."""
        global _current
        self._over = True
        try:
            await self._lifespan.stop()  # again: the way here may have been an error
            await self._lifespan.fire(lifespan.AFTER_SHUTDOWN, timeout=SHUTDOWN_HOOK_SECONDS)
        finally:
            self.hub.close("the host stopped")
            self.hub.detach_loop()
            set_current(None)
            with _current_lock:
                _current = None
            if not self._loop_known.done():  # it never served: those who wait for that are told
                self._loop_known.set_exception(HostNotRunning("the host has ended"))
            logger.info("host stopped")
        if self._log_files is not None:
            await in_thread_or_here(partial(self._log_files.flush, 1.0))

    def _end_at_once(self) -> None:
        """Kill all processes, and wait for no hook of the host: somebody has asked for an end a second time. From any
        thread or signal handler."""
        logger.warning("asked again to end: killing all processes")
        self._supervisor.kill_now()
        self.stop()
        if self._winding_up is not None:
            self._winding_up.cancel()

    def _owner_gone(self) -> None:
        """The loop of the program that served this host is closed. Who had asked for an end before has no patience."""
        if self._stop_asked:
            self._end_at_once()
        else:
            self.stop()

    def _reload_by_signal(self) -> None:
        """Reload all processes: a SIGHUP has come."""
        if self._stop_asked:
            return  # a service manager may send SIGHUP right after SIGTERM (SendSIGHUP= of systemd)
        self._child_requests.host_hung_up()
        for process in self._processes:
            self._supervisor.reload(process, "SIGHUP")

    def _post(self, action: Callable[[], None]) -> bool:
        """Have *action* done on the supervision's loop, also from a signal handler. False: there is none yet."""
        if self._loop is None:
            return False
        call_soon(self._loop, action)  # if it is closed, all is over
        return True

    # --- helpers --------------------------------------------------------------------------------------------

    def _settings_of_next_start(self) -> Settings:
        """Call what is there now: `reread_settings` may have been replaced since the supervisor was made."""
        return self.reread_settings()

    def _output_of(self, name: str) -> Output:
        """Make the ring that takes what a process prints, shown on the console and, if set, in the log files."""
        show = [to_the_console, *([] if self._log_files is None else [self._log_files.show])]
        return Output(name, capacity=self.settings.output_buffer, show=show)

    def _named(self, name: str | None) -> list[str]:
        """Return the processes that *name* stands for; None: all."""
        return self._processes if name is None else [name]

    async def _all(self, operation: Callable[[str], Awaitable[None]], name: str | None) -> None:
        """Await *operation* for each process that *name* stands for, at the same time. One that fails does not keep the
        others from going on; then the first error is raised."""
        async with anyio.create_task_group() as tasks:
            failed: list[LycommError] = []

            async def guarded(process: str) -> None:
                try:
                    await self._on_loop(lambda: operation(process))
                except LycommError as error:
                    failed.append(error)

            for process in self._named(name):
                tasks.start_soon(guarded, process)
        if failed:
            raise failed[0]

    async def _on_loop(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await on the host's loop, whichever loop of asyncio the caller runs on."""
        need_asyncio()
        if self._over:
            raise HostNotRunning("the host has ended")
        if self._loop is None:  # not yet serving: it is done then
            await asyncio.shield(asyncio.wrap_future(self._loop_known))
        assert self._loop is not None
        return await await_on(self._loop, make)


def _log_files(settings: Settings) -> LogFiles | None:
    """Make the writer of log files; None: there are to be none."""
    if settings.log_folder is None:
        return None
    return LogFiles(settings.log_folder, rotation=settings.log_rotation, retention=settings.log_retention)


def _refuse_another_host() -> None:
    """Raise HostError if this process has a host that has not ended: its bots and channels would be cut off."""
    host = _current
    if host is None or (host._stop_asked and not host._begun):
        return
    if host._begun:
        raise HostError("this process has a host already, and it runs; declare further bots as its `processes`")
    raise HostError(
        "this process has made a host already, which has not run; use that one (get_bot() returns it), "
        "or call its stop() before you make another"
    )
