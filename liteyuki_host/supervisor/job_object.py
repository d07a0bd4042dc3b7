"""Windows: one child and all its descendants in a box that the system empties when the host is gone.

A job object with "kill on close" ends everything in it when its last handle closes, and the host holds the
only one: a host that is killed takes the child, and whatever the child started, with it. No code of ours has
to run for that.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from ctypes import wintypes
from subprocess import Popen
from typing import Any

assert sys.platform == "win32"  # also what tells a type checker on another system to skip the rest

__all__ = ["CREATE_SUSPENDED", "JobObject"]

CREATE_SUSPENDED = 0x00000004
"""For ``Popen(creationflags=...)``: the process runs no instruction before :meth:`JobObject.assign`.

Without it there is a gap in which the process can start another one outside the job. It matters: the
``python.exe`` of a virtual environment is a launcher whose first act is to start the real interpreter.
"""

_EXTENDED_LIMIT_INFORMATION = 9
_LIMIT_KILL_ON_JOB_CLOSE = 0x00002000


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", wintypes.LARGE_INTEGER),
        ("PerJobUserTimeLimit", wintypes.LARGE_INTEGER),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_ulonglong * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll = ctypes.WinDLL("ntdll")

_kernel32.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
_kernel32.CreateJobObjectW.restype = wintypes.HANDLE
_kernel32.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
_kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
_kernel32.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
_ntdll.NtResumeProcess.argtypes = (wintypes.HANDLE,)
_ntdll.NtResumeProcess.restype = ctypes.c_long


class JobObject:
    """The box of one child, made by :meth:`create`."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle
        self._lock = threading.Lock()

    @classmethod
    def create(cls) -> JobObject:
        """Make an empty box.

        Raises:
            OSError: the system has none to give.
        """
        # No name, so nobody can open it; no security attributes, so nobody inherits it: a copy of the
        # handle in another process would keep the box open when we are gone.
        handle = _kernel32.CreateJobObjectW(None, None)
        if not handle:
            raise ctypes.WinError(ctypes.get_last_error())
        limits = _ExtendedLimits()
        # Without BREAKAWAY_OK: a descendant cannot leave, whatever flags it is started with.
        limits.BasicLimitInformation.LimitFlags = _LIMIT_KILL_ON_JOB_CLOSE
        if not _kernel32.SetInformationJobObject(
            handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
        ):
            error = ctypes.WinError(ctypes.get_last_error())
            _kernel32.CloseHandle(handle)
            raise error
        return cls(handle)

    def assign(self, process: Popen[Any]) -> None:
        """Put *process* into the box and let it run; what it starts from now on is in it too.

        A process that was not started with :data:`CREATE_SUSPENDED` merely goes on running. One that has
        already ended is left alone.

        Raises:
            OSError: the system refuses, and the process is **not** in the box. It runs all the same.
        """
        handle = int(process._handle)  # type: ignore[attr-defined]  # the one place where Popen keeps it
        try:
            with self._lock:
                if self._handle is None:
                    raise OSError("the job object is closed")
                if not _kernel32.AssignProcessToJobObject(self._handle, handle):
                    error = ctypes.get_last_error()
                    if process.poll() is None:
                        raise ctypes.WinError(error)
        finally:
            # By the process and not by its thread, whose handle Popen has closed. Undocumented, and unchanged
            # since Windows XP (psutil's Process.resume() is this call).
            _ntdll.NtResumeProcess(handle)

    def terminate(self) -> None:
        """End everything in the box at once, without asking; exit codes are 1, as after ``Popen.kill()``.

        Does nothing after :meth:`close`.
        """
        with self._lock:
            if self._handle is not None:
                _kernel32.TerminateJobObject(self._handle, 1)

    def close(self) -> None:
        """Let go of the box, which ends whatever is still in it. More calls do nothing."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            _kernel32.CloseHandle(handle)
