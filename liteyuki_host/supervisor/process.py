"""One child process: its spawn, its signals, its end.

Everything a child starts belongs to its process group (POSIX) or job (Windows) and is gone when the child is, unless it
has left the group.

Each child has a thread of its own (``lycomm-wait-NAME``), which waits for the end, kills what is left of the group, and
calls ``on_exit`` once. Signals come from any thread. One lock, ``_signals``, keeps the two apart: where ``os.waitid``
exists, the thread gives the pid back to the system only under that lock, and a signal is sent only under it and only
before that. So no signal can hit another process that got the same pid. macOS has ``os.waitid`` from Python 3.13 on;
with an older one, a signal in the moment between the end of the child and ``_reaped`` is not protected.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.log import wants_colours
from liteyuki_host.supervisor.interpreter import HELLO, ask, no_interpreter
from liteyuki_host.supervisor.leftovers import left_behind

if TYPE_CHECKING:
    from liteyuki_host.comm.transport import ChildHandles
    from liteyuki_host.project import ProjectPlan
    from liteyuki_host.supervisor.spec import ProcessSpec

_ERRORS_THAT_MAY_PASS = ("OSError", "BlockingIOError", "MemoryError", "RuntimeError")
"""Of an interpreter that was asked whether it can run us: it may have been short of something."""

PROBE_SECONDS = 10.0
"""For a foreign interpreter to say whether it can import us. A cold disk needs 2 to 3 s."""


class Child:
    """One spawned child. Made by :meth:`spawn`; a new start is a new object.

    Signals may be sent from any thread and at any time. After the end they have no effect.

    Attributes:
        pid: also the number of the child's process group on POSIX. Never changes.
        started_at: when it was spawned, by ``time.monotonic``. Never changes.
        _reaped: whether the end was noticed and the pid given back. Set by the waiting thread, under ``_signals``.
        _job: the Windows job that confines the child; None on POSIX. Closed under ``_signals``.
    """

    def __init__(self, name: str, popen: subprocess.Popen[bytes], on_exit: Callable[[int], None]) -> None:
        self.pid = popen.pid
        self.started_at = time.monotonic()
        self._popen = popen
        self._on_exit = on_exit
        self._signals = threading.Lock()
        self.asked_to_end = False
        """Whether somebody has asked it to end. Set by whoever asks; its end is then no surprise."""
        self.left_behind: Sequence[str] = ()
        """What it had started and was still there at its end, in words; set before ``on_exit`` is called. Looked for
        only after an end with code 0 that nobody asked for."""
        self._reaped = False
        self._job = _confine(popen)
        self._boundary = Boundary(f"child {name}: waiting for its end")
        DaemonThread(self._wait, name=f"lycomm-wait-{name}").start()

    @classmethod
    def spawn(
        cls,
        spec: ProcessSpec,
        plan: ProjectPlan,
        handles: Sequence[ChildHandles],
        on_exit: Callable[[int], None],
        *,
        output: int | None = None,
        keyboard: bool = False,
        arguments: Sequence[str] = (),
    ) -> Child:
        """Start the child. ``on_exit(returncode)`` is called once, on a thread of ours, when it is gone.

        Args:
            handles: what the child inherits; they stay the caller's to close.
            output: descriptor for the child's stdout and stderr; None: the host's own.
            keyboard: the child gets the host's standard input, otherwise none.
            arguments: more of them for the launcher.

        Raises:
            ProcessFailed: the operating system refused: no such interpreter or folder, no permission, or a shortage.
            RuntimeError, MemoryError: no thread can be started that waits for it; the child has been ended again.
        """
        options, environment = _inherited(handles)
        if output is not None:
            options.update(stdout=output, stderr=subprocess.STDOUT)
        if sys.platform == "win32":
            # Its own group: the console's Ctrl+C reaches the host only, and CTRL_BREAK can be aimed at it.
            # Suspended until it is in its job: a virtual environment's python.exe at once starts another process.
            from liteyuki_host.supervisor.job_object import CREATE_SUSPENDED

            flags = subprocess.CREATE_NEW_PROCESS_GROUP | CREATE_SUSPENDED
            options["creationflags"] = options.get("creationflags", 0) | flags
        else:
            # Its own session: Ctrl+C reaches the host only, and the group is ours to kill as one.
            options["start_new_session"] = True
        try:
            popen = subprocess.Popen(
                [*launch_command(spec, plan), *arguments],
                cwd=plan.folder,
                env=child_environment(spec, environment),
                stdin=None if keyboard else subprocess.DEVNULL,
                **options,
            )
        except OSError as exc:
            raise ProcessFailed(_why_not_spawned(spec, plan, exc)) from exc
        try:
            return cls(spec.name, popen, on_exit)
        except BaseException as exc:  # it must not run without an owner
            _end_at_once(popen)
            if isinstance(exc, OSError):  # it could not be put into its job
                words = f"{spec.name}: Windows refuses to confine the process: {exc.strerror or exc}"
                raise ProcessFailed(words) from exc
            raise

    @property
    def alive(self) -> bool:
        """Whether its end has not been noticed yet."""
        return not self._reaped

    def interrupt(self) -> None:
        """SIGINT to the child alone; on Windows CTRL_BREAK, the only console event that can be aimed."""
        if sys.platform == "win32":
            # A host without a console (a service, pythonw) has no such events; the next rung acts. Python 3.10
            # reports that by SystemError.
            with contextlib.suppress(OSError, SystemError):
                self._signal(lambda: self._popen.send_signal(signal.CTRL_BREAK_EVENT))
        else:
            self._signal(lambda: os.kill(self.pid, signal.SIGINT))

    def terminate(self) -> None:
        """SIGTERM to the child alone. Windows has none and kills the child at once."""
        self._signal(self._popen.terminate)

    def show_stacks(self, over_link: Callable[[], None]) -> None:
        """Have it write the stack of every thread to its stderr. Only for a child that has greeted.

        On POSIX by the signal that its launcher listens to with a handler in C, which also works while the
        interpreter's lock is held; a stopped child is woken for it.

        Args:
            over_link: asks for the same in a message; Windows has no such signal.
        """
        if sys.platform == "win32":
            over_link()
        else:
            self._signal(lambda: os.kill(self.pid, signal.SIGUSR2))
            self._signal(lambda: os.kill(self.pid, signal.SIGCONT))

    def resize(self) -> None:
        """Its terminal has another size."""
        if sys.platform != "win32":
            self._signal(lambda: os.kill(self.pid, signal.SIGWINCH))

    def kill(self) -> None:
        """Kill the child and everything it started."""
        if sys.platform == "win32":
            self._signal(self._close_job)
            self._signal(self._popen.kill)
        else:
            self._signal(self._kill_group)

    def _signal(self, send: Callable[[], None]) -> None:
        """Call *send*, which signals the child, unless its pid has been given back. From any thread."""
        with self._signals:
            if self._reaped:
                return
            with _ending_anyway():
                send()

    def _wait(self) -> None:
        """Wait for the end and report it. The body of the child's thread."""
        while True:
            try:
                returncode = self._reap()
                break
            except Exception as error:  # try again: without a noticed end, the bot would never be restarted
                time.sleep(self._boundary.failed(error))
        self._on_exit(returncode)
        self._reap_group()

    def _reap(self) -> int:
        """Wait for the child's end, and end what is left of its group. Returns its return code."""
        if sys.platform != "win32" and hasattr(os, "waitid"):  # macOS has waitid from Python 3.13 on
            # Wait without reaping: as long as the zombie is there its pid, and so its group id, is not given
            # to anybody else, and the rest of the group can be killed without hitting a stranger.
            without_error = False
            with contextlib.suppress(ChildProcessError):  # somebody here reaps every child; Popen copes
                end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                without_error = end is not None and (end.si_code, end.si_status) == (os.CLD_EXITED, 0)
        else:
            without_error = self._popen.wait() == 0
        if without_error and not self.asked_to_end:  # the only case in which it is told; it lists all processes
            self.left_behind = left_behind(self.pid)
        with self._signals:
            if sys.platform == "win32":
                self._close_job()
            else:
                with _ending_anyway():
                    self._kill_group()
            returncode = self._popen.wait()
            self._reaped = True
        return returncode

    def _reap_group(self) -> None:
        """Where the host is process 1, as in many containers, what its children had started becomes its own."""
        if sys.platform != "win32":
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-self.pid, 0)

    def _kill_group(self) -> None:
        """Kill every process of the group. The caller holds ``_signals``."""
        if sys.platform != "win32":
            os.killpg(self.pid, signal.SIGKILL)

    def _close_job(self) -> None:
        """Close the job, which makes Windows kill all processes in it. The caller holds ``_signals``."""
        if self._job is not None:
            self._job.close()


def _ending_anyway() -> contextlib.AbstractContextManager[None]:
    """Around a signal to what may just be ending: macOS says "not permitted", others "no such process"."""
    return contextlib.suppress(ProcessLookupError, PermissionError)


def _end_at_once(popen: subprocess.Popen[bytes]) -> None:
    """End a child that has only just been spawned, with all it may have started, and wait for that."""
    if sys.platform != "win32":
        with _ending_anyway():
            os.killpg(popen.pid, signal.SIGKILL)
    popen.kill()
    popen.wait()


def _confine(popen: subprocess.Popen[bytes]) -> Any:
    """On Windows: put the child into a job that kills all of it when closed, also by the host's own death."""
    if sys.platform == "win32":
        from liteyuki_host.supervisor.job_object import JobObject

        job = JobObject.create()
        job.assign(popen)
        return job
    return None


def _inherited(handles: Sequence[ChildHandles]) -> tuple[dict[str, Any], dict[str, str]]:
    """The Popen options and the environment that let all *handles* through."""
    options: dict[str, Any] = {}
    environment: dict[str, str] = {}
    for handle in handles:
        given = handle.popen_options
        descriptors = (*options.get("pass_fds", ()), *given.get("pass_fds", ()))
        options.update(given)
        if descriptors:
            options["pass_fds"] = descriptors
        environment.update(handle.environment)
    return options, environment


def launch_command(spec: ProcessSpec, plan: ProjectPlan) -> list[str]:
    """The command line that starts the child: its interpreter with lycomm's launcher."""
    command = [str(plan.python), "-m", "liteyuki_host.launch", "--process", spec.name, "--kind", plan.kind]
    if plan.script is not None:
        command += ["--script", str(plan.script)]
    return command


def child_environment(spec: ProcessSpec, link: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: the host's own with lycomm's defaults, overruled by the operator's ``env``, and that by
    *link*, which says how to reach the host."""
    environment = dict(os.environ)
    environment.setdefault("PYTHONUTF8", "1")  # unless the operator has decided
    # Before the operator's own, so that `env` can overrule each of them.
    environment.update(
        # A console that cannot show a character gets "?", not a traceback instead of the line.
        PYTHONIOENCODING="utf-8:replace",
        PYTHONUNBUFFERED="1",
    )
    environment.update(spec.env)
    if wants_colours(sys.stdout) and not environment.get("NO_COLOR"):
        # Its lines go to our terminal, but it sees a pipe.
        environment.setdefault("LOGURU_COLORIZE", "true")
        environment.setdefault("FORCE_COLOR", "1")
    environment["LYCOMM_PROCESS"] = spec.name
    environment.update(link)
    return environment


def _why_not_spawned(spec: ProcessSpec, plan: ProjectPlan, exc: OSError) -> str:
    """Say in one line for the operator why the system did not start the child."""
    if not os.path.isdir(plan.folder):  # never raises, unlike Path.is_dir
        return f"{spec.name}: the project folder {plan.folder} does not exist"
    if isinstance(exc, FileNotFoundError):
        return f"{spec.name}: there is no Python interpreter at {plan.python}"
    return f"{spec.name}: cannot start {plan.python}: {exc.strerror or exc}"


def why_no_host_in(python: Path, folder: Path) -> str | None:
    """Ask another interpreter whether it can run our half. None: yes. Otherwise one line for the operator.

    Raises:
        OSError: it could not be asked, for a shortage.
        ProcessFailed: it gave no answer, and may give one the next time.

    Blocks for up to ``PROBE_SECONDS``; not for the event loop.
    """
    try:
        answer = ask(python, "import liteyuki_host.launch", folder=folder, seconds=PROBE_SECONDS)
    except FileNotFoundError:
        return f"there is no Python interpreter at {python}"
    except OSError as exc:
        if is_shortage(exc):
            raise
        return no_interpreter(python) if exc.errno == errno.ENOEXEC else f"cannot run {python}: {exc.strerror or exc}"
    except subprocess.TimeoutExpired as exc:
        raise ProcessFailed(f"{python} did not answer in {PROBE_SECONDS:g} s") from exc
    if answer.of_python and answer.returncode == 0:
        return None
    if any("No module named 'liteyuki_host" in line for line in answer.lines):
        from liteyuki_host.comm.command import pip_install_lycomm

        return f"{python} has no lycomm: run `{pip_install_lycomm(python)}`"
    last_line = answer.last_line if answer.last_line != HELLO else ""
    may_pass = last_line.startswith(_ERRORS_THAT_MAY_PASS)
    if not answer.of_python and not may_pass and (answer.returncode >= 0 or not answer.complete):
        return no_interpreter(python)
    words = f"{python} cannot run lycomm: {last_line or f'exited {answer.returncode}'}"
    if answer.returncode < 0 or may_pass:
        raise ProcessFailed(words) from subprocess.CalledProcessError(answer.returncode, str(python))
    return words
