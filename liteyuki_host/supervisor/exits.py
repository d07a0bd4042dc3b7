"""How a process ended, in words. Pure: a return code in, a phrase out."""

from __future__ import annotations

import signal
import sys

from liteyuki_host._child.codes import CANNOT_START, STARTUP_FAILED

# The few NTSTATUS values an operator is likely to meet; the rest are shown as they are.
_WINDOWS_WORDS = {
    0xC0000005: "access violation",
    0xC000013A: "Ctrl+C",
    0xC0000142: "a DLL could not be initialised",
    0xC0000135: "a DLL is missing",
    0xC00000FD: "stack overflow",
    0xC0000409: "stack buffer overrun",
}


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


def describe_failed_start(returncode: int, *, greeted: bool, platform: str = sys.platform) -> str:
    """The same for a child that ended before it was ready, with the likely cause where the code tells one."""
    words = describe_exit(returncode, platform=platform) + " before it was ready"
    if not greeted:
        return f"{words}: it ended before it could reach the host"
    if returncode == CANNOT_START:
        return f"{words}: it cannot start as it is; the line above says what to change"
    if returncode == STARTUP_FAILED:
        cause = "NoneBot's start-up failed (a hook raised, or the port could not be opened; see above)"
        return f"{words}: {cause}"
    return words
