"""What is waited for, and what is final."""

from __future__ import annotations

import errno
import json
import os
import subprocess

import psutil
import pytest

from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import Outlook, describe, is_shortage, outlook, remedy


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def windows(number: int) -> OSError:
    error = OSError(errno.EINVAL, "The paging file is too small")
    error.winerror = number  # type: ignore[attr-defined, unused-ignore]
    return error


def raised(
    error: BaseException, *, cause: BaseException | None = None, while_handling: BaseException | None = None
) -> BaseException:
    """*error* as it is after ``raise error from cause``, or after one that says nothing of what was being handled."""
    if cause is not None:
        error.__cause__ = cause  # sets __suppress_context__ too
    error.__context__ = while_handling or cause
    return error


SHORT = [
    *(errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EROFS, errno.EIO, errno.ESTALE, errno.EBUSY, errno.ETXTBSY),
]
FINAL = [errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ELOOP, errno.E2BIG]


@pytest.mark.parametrize("number", SHORT, ids=errno.errorcode.get)
def test_shortages_of_the_system(number: int) -> None:
    error = system(number)
    assert outlook(error) is Outlook.SHORTAGE
    assert describe(error) == os.strerror(number)
    assert remedy(error)


@pytest.mark.parametrize("number", FINAL, ids=errno.errorcode.get)
def test_what_waiting_cannot_cure(number: int) -> None:
    assert outlook(system(number)) is Outlook.FINAL
    assert remedy(system(number)) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), Outlook.SHORTAGE),
        (RuntimeError("can't start new thread"), Outlook.SHORTAGE),
        (RuntimeError("can't create new thread at interpreter shutdown"), Outlook.UNCLEAR),
        (RuntimeError("a bug"), Outlook.UNCLEAR),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), Outlook.SHORTAGE),
        (windows(1455), Outlook.SHORTAGE),
        (windows(87), Outlook.UNCLEAR),
        (OSError("without a number"), Outlook.UNCLEAR),
        (ImportError("x.so: cannot open shared object file: Too many open files"), Outlook.SHORTAGE),
        (ImportError("x.so: failed to map segment from shared object: Cannot allocate memory"), Outlook.SHORTAGE),
        (ImportError("x.so: cannot allocate memory in static TLS block"), Outlook.FINAL),
        (ModuleNotFoundError("No module named 'x'"), Outlook.FINAL),
        (SyntaxError("invalid syntax"), Outlook.FINAL),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Outlook.FINAL),
        (ProcessFailed("project folder x does not exist"), Outlook.FINAL),
        (ZeroDivisionError(), Outlook.UNCLEAR),
        (TimeoutError(), Outlook.UNCLEAR),
        (psutil.AccessDenied(1), Outlook.UNCLEAR),
    ],
    ids=repr,
)
def test_by_type(error: BaseException, expected: Outlook) -> None:
    assert outlook(error) is expected
    assert is_shortage(error) is (expected is Outlook.SHORTAGE)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (raised(ProcessFailed("x"), cause=system(errno.EMFILE)), Outlook.SHORTAGE),
        (raised(ProcessFailed("x"), cause=raised(RuntimeError("y"), cause=MemoryError())), Outlook.SHORTAGE),
        (raised(ProcessFailed("x"), cause=system(errno.ENOENT)), Outlook.FINAL),
        (raised(ProcessFailed("x"), cause=subprocess.TimeoutExpired("python", 10)), Outlook.UNCLEAR),
        (raised(ValueError("x"), cause=system(errno.EACCES)), Outlook.FINAL),
        (raised(KeyError("x"), while_handling=system(errno.ENOSPC)), Outlook.SHORTAGE),
        (raised(ProcessFailed("bad JSON"), while_handling=json.JSONDecodeError("x", "y", 0)), Outlook.FINAL),
    ],
)
def test_by_what_it_was_raised_from(error: BaseException, expected: Outlook) -> None:
    assert outlook(error) is expected


def test_what_was_being_handled_counts_only_if_it_was_not_left_out() -> None:
    def fail() -> None:
        try:
            raise system(errno.EAGAIN)
        except OSError:
            raise ProcessFailed("it has nothing to do with that") from None

    with pytest.raises(ProcessFailed) as caught:
        fail()
    assert outlook(caught.value) is Outlook.FINAL


def test_errors_that_name_each_other_come_to_an_end() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert outlook(one) is Outlook.UNCLEAR
    other.__context__ = MemoryError()
    other.__suppress_context__ = False
    assert outlook(one) is Outlook.SHORTAGE


def test_one_shortage_in_a_group_makes_it_one() -> None:
    group = ProcessFailed("as an exception group has it")
    group.exceptions = (ValueError(), raised(RuntimeError(), cause=system(errno.ENFILE)))  # type: ignore[attr-defined]
    assert outlook(group) is Outlook.SHORTAGE
    assert describe(group) == os.strerror(errno.ENFILE)


def test_words_for_the_operator() -> None:
    assert describe(MemoryError()) == "no memory left"
    assert "ulimit -n" in str(remedy(system(errno.EMFILE)))
    assert "TasksMax" in str(remedy(RuntimeError("can't start new thread")))
    assert describe(ZeroDivisionError("by zero")) == "ZeroDivisionError: by zero"
