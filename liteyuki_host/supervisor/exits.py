"""Why a run of a child ended, as a kind for the restart policy and as words for people. Pure: no process is asked."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from enum import Enum

from liteyuki_host._child.codes import CANNOT_START, SHORTAGE, STARTUP_FAILED
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import Outlook, describe, outlook

_SIGKILL = 9  # `signal` has no such name on Windows

# The few NTSTATUS values an operator is likely to meet; the rest are shown as they are.
_WINDOWS_WORDS = {
    0xC0000005: "access violation",
    0xC000013A: "Ctrl+C",
    0xC0000142: "a DLL could not be initialised",
    0xC0000135: "a DLL is missing",
    0xC00000FD: "stack overflow",
    0xC0000409: "stack buffer overrun",
}


class Kind(Enum):
    """What sort of end it was. To the restart policy all but the first two, CANNOT_START and SHORTAGE are the same
    failure."""

    CLEAN = "clean"
    """Code 0, once ready: it meant to end."""
    ENDED_EARLY = "ended early"
    """Code 0 before it was ready: it never served. Mostly a script without ``nonebot.run()``."""
    CRASH = "crash"
    """Any other code, or a signal, once ready."""
    OUT_OF_MEMORY = "out of memory"
    """Killed by the system, which had no memory left."""
    FAILED_START = "failed start"
    """Ended before it was ready."""
    CANNOT_START = "cannot start"
    """Its configuration is wrong: no start will work before somebody changes something."""
    SHORTAGE = "shortage"
    """The system refused what a start needs, for the time being: open files, processes, threads, memory, disk."""
    NOT_READY = "not ready"
    """Longer than ``ready_timeout`` before it was ready."""
    BLOCKED = "blocked"
    """Its event loop has not turned for ``loop_timeout``."""
    FROZEN = "frozen"
    """The whole process was stopped for ``freeze_timeout``."""
    LOCK_HELD = "lock held"
    """Native code kept the interpreter's lock for ``freeze_timeout``."""
    LINK_LOST = "link lost"
    """It was there, but could not be reached any more."""
    STUCK = "stuck"
    """It said goodbye, and was still there ``stop_timeout`` later."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Cause:
    """Why a run ended, or had to be ended."""

    kind: Kind
    words: str
    """For people; they go on after the name of the child: ``killed by SIGSEGV``, ``not ready in 60 s``."""
    hint: str = ""
    """What its own output says about it. For the line that follows that output, and for nothing that is read later."""

    @property
    def with_hint(self) -> str:
        return f"{self.words}; {self.hint}" if self.hint else self.words


_HINTS = {
    CANNOT_START: "its lines above say what to change",
    SHORTAGE: "its lines above say what",
    STARTUP_FAILED: "its lines above say which",
}
"""By the code of a start that failed once it had reached the host."""


def cause_of_exit(
    returncode: int,
    *,
    ready: bool,
    greeted: bool,
    out_of_memory: bool = False,
    own_exit: str | None = None,
    reason: str | None = None,
    platform: str = sys.platform,
) -> Cause:
    """The cause of an end that nobody asked for.

    Args:
        returncode: as ``subprocess.Popen.returncode`` has it: negative means a signal, except on Windows.
        ready: whether it had become ready.
        greeted: whether it had reached the host.
        out_of_memory: whether the system has killed something for lack of memory meanwhile. It counts only for a
            SIGKILL: other ends are not the system's doing.
        own_exit: the place where the bot's own code has ended it by ``sys.exit()``. Its code then has no meaning here.
        reason: what the bot itself says has to be changed before a start can work.
    """
    if out_of_memory and returncode == -_SIGKILL and platform != "win32":
        early = "" if ready else " before it was ready"
        words = f"{describe_exit(returncode, platform=platform)}{early}: out of memory"
        return Cause(Kind.OUT_OF_MEMORY, f"{words} (the system ended it to save the others)")
    if ready:
        return Cause(Kind.CRASH if returncode else Kind.CLEAN, describe_exit(returncode, platform=platform))
    words = describe_failed_start(returncode, greeted=greeted, own_exit=own_exit, reason=reason, platform=platform)
    if own_exit is not None:
        return Cause(Kind.FAILED_START if returncode else Kind.ENDED_EARLY, words)
    kinds = {CANNOT_START: Kind.CANNOT_START, SHORTAGE: Kind.SHORTAGE, 0: Kind.ENDED_EARLY}
    told = returncode == CANNOT_START and reason is not None
    hint = _HINTS.get(returncode, "") if greeted and not told else ""
    return Cause(kinds.get(returncode, Kind.FAILED_START), words, hint)


# The causes for which the supervisor ends a child. Seconds are the limit that was exceeded.


def cannot_start(why: str) -> Cause:
    """Found out before there was a process."""
    return Cause(Kind.CANNOT_START, why)


def cause_of_failed_spawn(error: Exception) -> Cause:
    """The cause when there never was a process. CANNOT_START: its words stand alone, without the name of the child."""
    words = str(error) if isinstance(error, ProcessFailed) else describe(error)
    prospect = outlook(error)
    if prospect is Outlook.FINAL:
        return cannot_start(words)
    if prospect is Outlook.SHORTAGE:
        return Cause(Kind.SHORTAGE, f"could not be started: {describe(error)}")
    return Cause(Kind.FAILED_START, f"could not be started: {words}")


def not_supervised(why: str) -> Cause:
    """The host's own work for it failed, and it was ended so that it does not run without a supervisor."""
    return Cause(Kind.CRASH, f"was ended because the host could not supervise it ({why})")


def not_ready(seconds: float) -> Cause:
    return Cause(Kind.NOT_READY, f"not ready in {seconds:g} s")


def blocked(seconds: float) -> Cause:
    return Cause(Kind.BLOCKED, f"event loop blocked {seconds:g} s")


def frozen(seconds: float) -> Cause:
    return Cause(Kind.FROZEN, f"process stopped {seconds:g} s")


def lock_held(seconds: float) -> Cause:
    return Cause(Kind.LOCK_HELD, f"interpreter's lock held {seconds:g} s")


def link_lost(why: str) -> Cause:
    return Cause(Kind.LINK_LOST, f"lost its link to the host ({why})")


def stuck(seconds: float) -> Cause:
    return Cause(Kind.STUCK, f"said goodbye but was still there {seconds:g} s later")


# A return code in words.


def describe_exit(returncode: int, *, platform: str = sys.platform) -> str:
    """``exited 3``, ``killed by SIGSEGV``, on Windows ``exited 0xC0000005 (access violation)``.

    Args:
        returncode: as ``subprocess.Popen.returncode`` has it: negative means a signal, except on Windows.
    """
    if platform == "win32":
        unsigned = returncode & 0xFFFFFFFF
        if unsigned < 0x80000000:
            return f"exited {unsigned}"
        words = _WINDOWS_WORDS.get(unsigned)
        return f"exited 0x{unsigned:08X}" + (f" ({words})" if words else "")
    if returncode >= 0:
        return f"exited {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:  # real-time signals have no name
        return f"killed by signal {-returncode}"


def describe_failed_start(
    returncode: int,
    *,
    greeted: bool,
    own_exit: str | None = None,
    reason: str | None = None,
    platform: str = sys.platform,
) -> str:
    """`describe_exit` of a child that ended before it was ready, with the cause where the child or its code tells it.

    Args: as those of `cause_of_exit`.
    """
    words = describe_exit(returncode, platform=platform) + " before it was ready"
    if own_exit is not None and returncode >= 0:
        return f"{words}: its own code ended it by sys.exit() ({own_exit})"
    if returncode == SHORTAGE:
        return f"{words}: something was short"
    if not greeted:
        return f"{words}: it ended before it could reach the host"
    if returncode == 0:
        return f"{words}: its script came to its end without running the bot; let it end with nonebot.run()"
    if returncode == CANNOT_START:
        return f"{words}: {reason or 'it cannot start as it is'}"
    if returncode == STARTUP_FAILED:
        return f"{words}: NoneBot's start-up failed (a hook raised, or the port could not be opened)"
    return words
