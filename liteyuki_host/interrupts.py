"""Ctrl+C before there is anything to end in order: one quiet end, and no traceback of an import.

Imported before everything else, and so imports nothing that takes time, not even ``signal`` and ``typing``.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is made of, without its enums
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["AtOnce", "WithoutTraceback", "ignore"]


class AtOnce:
    """A context for imports of a command: meanwhile SIGINT ends this process at once, as it does with programs that do
    not handle it.

    Where Python does not turn SIGINT into a KeyboardInterrupt (it is ignored, or somebody handles it), and outside the
    main thread, nothing is changed.
    """

    def __enter__(self) -> None:
        self._changed = False
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            self._changed = _set(_signal.SIG_DFL)

    def __exit__(self, *raised: object) -> None:
        if self._changed:
            _set(_signal.default_int_handler)


class WithoutTraceback:
    """A context for imports in somebody's program. A KeyboardInterrupt that comes out of it is raised as ever, for the
    program to catch. One that nobody catches ends the program without a traceback; Python then dies of SIGINT."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            _do_not_show(error)


def ignore() -> None:
    """From here on SIGINT does nothing: the process is about to end. Outside the main thread nothing is changed."""
    _set(_signal.SIG_IGN)


def _set(handler: object) -> bool:
    try:
        _signal.signal(_signal.SIGINT, handler)
    except ValueError:  # outside the main thread
        return False
    return True


def _do_not_show(interrupt: KeyboardInterrupt) -> None:
    before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if error is not interrupt:
            before(kind, error, traceback)

    sys.excepthook = show
