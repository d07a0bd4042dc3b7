"""What ends a child whose host was killed, also when the child cannot act: frozen, or the interpreter's lock held.

The link alone ends most children: its thread sees the end of file and :mod:`.ending` gives the bot its second. Beside
it, on POSIX (on Windows the job object ends all), there are two layers that need nothing of this process:

- *The guard*, a shell of half a megabyte that waits for the end of a pipe which only the host holds, then kills its
  own process group: this process, all it started, and itself. It is a child of this process (``ps`` tells what it
  is) and ends with the group, which the host kills once the bot has ended. What has left the group for a session of
  its own stays.
- *PDEATHSIG*, on Linux: the kernel signals this process when its parent has died. The signal is SIGCONT, which
  wakes a frozen process, so that the link's thread sees the end of file, and has no other effect. A killing one
  would take the bot's graceful second away and leave all it started behind. A false one would be fatal: the kernel
  means the parent *thread*. Children are spawned on the thread of the host's event loop, which lives as long as the
  host serves; and if it did not, SIGCONT would do no harm. A parent that died before the call sends nothing,
  therefore the pipe is looked at once after it.

A check of the parent's pid would add nothing: it needs a running interpreter, as the link's thread does, sees the
same death at best at the same moment, and takes a wrapper script (``python = "my-python.sh"``) for a dead host.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import MutableMapping

from liteyuki_host import descriptors
from liteyuki_host._child.ending import ORPHAN_SECONDS, kill_own_group

LEASH_VARIABLE = "LYCOMM_LEASH"
LOCK_VARIABLE = "LYCOMM_LOCK"

GUARD_SECONDS = ORPHAN_SECONDS + 0.3
"""From the host's death to the guard's kill: the bot's own second, and time for what it does at its end."""

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def arm(environ: MutableMapping[str, str]) -> list[str]:
    """Call first thing, before there is a thread. Returns what could not be had, in words; nothing depends on it.

    Takes the leash and the instance lock out of *environ*. The lock's descriptor is only held: by this process,
    through its life, and by nothing it starts.
    """
    if sys.platform == "win32":
        return []
    _keep_from_programs(environ)
    lock = _take(environ, LOCK_VARIABLE)
    if lock is not None:
        descriptors.close_in_forks(lock)
    leash = _take(environ, LEASH_VARIABLE)
    if leash is None:
        return ["no leash from the host: a frozen bot would outlive it"]
    try:
        missing = [_start_guard(leash), _ask_for_sigcont()]
        if _has_ended(leash):
            kill_own_group()  # nothing has begun here
    finally:
        os.close(leash)
    return [words for words in missing if words is not None]


def _keep_from_programs(environ: MutableMapping[str, str]) -> None:
    """All that the host hands over is for this process alone, also before its taker has come."""
    for name in environ:
        if name.startswith("LYCOMM_"):
            for descriptor in _numbers(environ[name]):
                with contextlib.suppress(OSError):  # its taker will say what is wrong with it
                    os.set_inheritable(descriptor, False)


def _take(environ: MutableMapping[str, str], variable: str) -> int | None:
    """The one descriptor that *variable* names, if it is open."""
    numbers = _numbers(environ.pop(variable, ""))
    if len(numbers) != 1:
        return None
    try:
        os.fstat(numbers[0])
    except OSError:
        return None
    return numbers[0]


def _numbers(value: str) -> list[int]:
    """The descriptors of ``fd:7`` or ``fd:7,8``; of anything else none."""
    scheme, _, numbers = value.partition(":")
    return [int(number) for number in numbers.split(",") if number.isdecimal()] if scheme == "fd" else []


def _start_guard(leash: int) -> str | None:
    if sys.platform == "win32":
        return None
    if os.getpgrp() != os.getpid():
        return "no guard: this process does not lead its group (a debugger, an interpreter behind a script)"
    script = (
        ': "lycomm-guard: ends this bot when its host has been killed"; '
        # Some sleeps know whole seconds only.
        f"trap '' HUP INT QUIT TERM USR1 USR2; cd /; read -r end; sleep {GUARD_SECONDS:g} || sleep 1; kill -9 0"
    )
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    try:
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", script],  # the name decides what a busybox is
            {"PATH": os.pathsep.join([os.defpath, os.environ.get("PATH", "")])},
            file_actions=[(os.POSIX_SPAWN_DUP2, leash, 0), *quiet],
        )
    except (OSError, AttributeError, NotImplementedError) as exc:
        return f"no guard: /bin/sh cannot be started ({exc})"
    return None


def _ask_for_sigcont() -> str | None:
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        nothing = ctypes.c_ulong(0)
        if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGCONT), nothing, nothing, nothing) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    except (ImportError, OSError, AttributeError) as exc:
        return f"no PDEATHSIG: {exc}"
    return None


def _has_ended(leash: int) -> bool:
    if sys.platform == "win32":
        return False
    poll = select.poll()
    poll.register(leash, select.POLLIN)
    return any(events & select.POLLHUP for _, events in poll.poll(0))
