"""Mistakes in registering a callback that Python would let pass, found when it is registered."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

__all__ = ["check_callback", "refuse_forgotten_parentheses"]

_YIELDS = 0x20 | 0x200  # CO_GENERATOR and CO_ASYNC_GENERATOR of inspect


def check_callback(function: object, what: str, *arguments: str) -> None:
    """Make sure that *function* can be called with *arguments*, and does something then.

    Args:
        what: what it is to become, for the error.
        arguments: names of what it will be called with.

    Raises:
        TypeError: it is no function, it takes other arguments, or it has a ``yield`` and would never run.
    """
    if not callable(function):
        raise TypeError(f"{what} is a function, not {function!r:.80}")
    name = getattr(function, "__qualname__", None) or repr(function)
    code = _code(function)
    if code is not None and code.co_flags & _YIELDS:
        raise TypeError(f"{what} {name} has a `yield`: calling it would only make a generator, which nobody runs")
    import inspect  # not at the top: a process that registers nothing needs it for nothing else

    try:
        # Not that of a function which it wraps: the wrapper may fill in arguments.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # some functions written in C do not say
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        called = f"({', '.join(arguments)})" if arguments else "without arguments"
        raise TypeError(f"{what} {name} is called {called}, but takes {signature}") from None


def refuse_forgotten_parentheses(function: object, decorator: str, *, depth: int) -> None:
    """Find out whether *function*, given as a filter to ``decorator(filter)``, was meant as the callback.

    It was, if it is being defined where the call is (``@decorator`` without parentheses), or if the decorator that the
    call returns is dropped (a line ``decorator(function)``). Where the interpreter does not tell, nothing is refused.

    Args:
        depth: frames between this function and the call of the decorator; 1 is the direct caller's caller.

    Raises:
        TypeError: it was. The text says what to write.
    """
    try:
        frame = sys._getframe(depth + 1)
    except (AttributeError, ValueError):  # not CPython, or called by something that is not Python
        return
    if _is_defined_at(frame, function):
        raise TypeError(f"@{decorator} registers nothing without its parentheses; write @{decorator}()")
    if _drops_result(frame):
        raise TypeError(
            f"{decorator}(...) takes a filter and returns a decorator, so this line registers nothing; "
            f"write {decorator}()(callback)"
        )


def _is_defined_at(frame: FrameType, function: object) -> bool:
    """Whether the line that *frame* executes belongs to the definition of *function*: its decorators do."""
    while (wrapped := getattr(function, "__wrapped__", None)) is not None:
        function = wrapped
    code = _code(function)
    if code is None or code.co_name == "<lambda>" or code.co_filename != frame.f_code.co_filename:
        return False
    last = max((line for _, _, line in code.co_lines() if line is not None), default=0)
    return code.co_firstlineno <= (frame.f_lineno or 0) <= last


def _drops_result(frame: FrameType) -> bool:
    """Whether what the call that *frame* executes returns is thrown away."""
    import dis

    following = (each for each in dis.get_instructions(frame.f_code) if each.offset > frame.f_lasti)
    instruction = next(following, None)
    return instruction is not None and instruction.opname == "POP_TOP"


def _code(function: object) -> CodeType | None:
    """The code that runs when *function* is called, if it is written in Python."""
    while (inner := getattr(function, "func", None)) is not None and type(function).__name__ == "partial":
        function = inner
    code = getattr(function, "__code__", None)
    if code is None and not isinstance(function, type):
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004 - its code is wanted
    return code if isinstance(code, CodeType) else None
