"""Lets a bot come to rest before it ends: begins no more events, and waits for the handlers that run.

Only NoneBot's public hooks are used, and everything happens on its event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from nonebot.adapters import Event
from nonebot.exception import IgnoredException
from nonebot.matcher import Matcher, current_event, current_matcher
from nonebot.message import event_preprocessor, run_postprocessor, run_preprocessor
from nonebot.params import Depends

MAX_NAMED = 20
"""Handlers that a report names; of more there is only the number."""

MAX_WORDS = 200
"""Characters for one handler: adapters and authors choose the names in them."""


@dataclass(eq=False)  # equal only to itself: it is counted in a dict
class _Begun:
    event: Event
    since: float
    """``time.monotonic()``, seconds."""


class Draining:
    """Counts the events that are being handled, and reports when none is left.

    Args:
        report: called with the handlers that still run, in words, and with how many events were refused so far;
            after the first time once more for each event that comes until the end.
    """

    def __init__(self, report: Callable[[list[str], int], None]) -> None:
        self._report = report
        self._draining = False
        self._refused = 0
        self._deadline: asyncio.TimerHandle | None = None
        # An ordered set. The matchers are there to name what runs and for nothing else, so they are held weakly:
        # one that another plugin's hook cancels never comes to the hook after its run.
        self._events: dict[_Begun, None] = {}
        self._matchers: WeakKeyDictionary[Matcher, _Begun] = WeakKeyDictionary()

    def install(self) -> None:
        """Call once, after ``nonebot.init()``."""

        # A dependency that yields is left when NoneBot is done with the event, whichever way that came about.
        async def refuse(begun: bool = Depends(self._handle_event)) -> None:
            if not begun:
                raise IgnoredException("the bot is about to end")

        event_preprocessor(refuse)
        run_preprocessor(self._matcher_begins)
        run_postprocessor(self._matcher_ends)

    def drain(self, timeout: float) -> None:
        """Begin no events from now on. Report at once when nothing runs, and after *timeout* seconds in any case.

        Takes the place of an earlier one that has not been reported yet.
        """
        self._draining = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(max(timeout, 0.0), self._finish)
        self._finish_if_idle()

    def _finish_if_idle(self) -> None:
        if self._deadline is not None and not self._events:
            self._deadline.cancel()
            self._finish()

    def _finish(self) -> None:
        self._deadline = None
        self._report(self._unfinished(), self._refused)

    # --- NoneBot's hooks --------------------------------------------------------------------------------------

    async def _handle_event(self, event: Event) -> AsyncIterator[bool]:
        """Around everything that NoneBot does for one event; yields whether it is begun."""
        if self._draining:
            if not _is_meta(event):
                self._refused += 1
                if self._deadline is None:
                    self._finish()  # reported already, without this one
            yield False
            return
        begun = _Begun(event, time.monotonic())
        self._events[begun] = None
        try:
            yield True
        finally:
            del self._events[begun]
            self._finish_if_idle()

    # These two run for every matcher. Without parameters they cost a third of what injected ones would.

    async def _matcher_begins(self) -> None:
        self._matchers[current_matcher.get()] = _Begun(current_event.get(), time.monotonic())

    async def _matcher_ends(self) -> None:
        self._matchers.pop(current_matcher.get(), None)

    # --- in words -----------------------------------------------------------------------------------------------

    def _unfinished(self) -> list[str]:
        words = [text[:MAX_WORDS] for text in self._running()]
        if len(words) > MAX_NAMED:
            words[MAX_NAMED:] = [f"and {len(words) - MAX_NAMED} more"]
        return words

    def _running(self) -> Iterator[str]:
        """One text for each handler that runs, those of the oldest event first."""
        handlers: dict[int, list[tuple[str, float]]] = {}
        for matcher, run in self._matchers.items():
            if handler := _handler_name(matcher):
                handlers.setdefault(id(run.event), []).append((handler, run.since))
        now = time.monotonic()
        for begun in self._events:
            name = _event_name(begun.event)
            # Without one, a rule, a permission or another plugin's hook is at work.
            if id(begun.event) not in handlers:
                yield f"{name}, running for {now - begun.since:.0f} s"
            for handler, since in handlers.get(id(begun.event), []):
                yield f"{handler} ({name}), running for {now - since:.0f} s"


def _is_meta(event: Event) -> bool:
    """A heartbeat or the like, which nobody misses."""
    with contextlib.suppress(Exception):  # an adapter's code; its own trouble shows elsewhere
        return event.get_type() == "meta_event"
    return False


def _event_name(event: Event) -> str:
    with contextlib.suppress(Exception):
        return event.get_event_name()
    return type(event).__name__


def _handler_name(matcher: Matcher) -> str | None:
    """``plugins.weather.forecast``; for a function called ``_`` the line instead. None: its handlers do not run yet."""
    # NoneBot takes a handler off the remaining ones before it runs it.
    begun = len(matcher.handlers) - len(matcher.remain_handlers)
    if begun <= 0:
        return None
    function: Any = matcher.handlers[begun - 1].call
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", matcher.module_name)
    code = getattr(function, "__code__", None)
    return f"{module}, line {code.co_firstlineno}" if name == "_" and code is not None else f"{module}.{name}"
