"""Which events this bot has taken and not finished. Kept by the event loop, read by any thread at any moment.

An event is *accepted* when an adapter hands it over, by calling ``bot.handle_event`` or NoneBot's ``handle_event``; the
task that the adapter makes of it may start much later. It is *taken up* when NoneBot's preprocessors run for it,
*begun* when a handler of a matcher is called, and *finished* when the handlers that were called have returned. In a bot
that has more to do than it can, many events stand at each of these steps. What a client has sent and the adapter has
not read yet is not known here.

NoneBot has a public hook for the second step only; for the others ``handle_event`` and ``Matcher.simple_run`` are
wrapped.

How an event is followed
------------------------

Each event has a :class:`_Handling` from its acceptance on. A context variable (``_current``) carries it from the
wrapped ``handle_event`` to the preprocessor and the matchers, as NoneBot creates its tasks with that context. It is in
``_accepted`` first and in ``_taken_up`` afterwards; while it changes over it is in both, so a reader may count it twice
for a moment, and never misses it.

A drain sets ``refusing``. From then on an event that has not been taken up is turned away by the preprocessor
(``IgnoredException``), and what is lost is counted, each event once (``counted``):

- *refused*: nothing of it has run. It was turned away, or cancelled before a handler ran.
- *cut off*: a handler was running when it was cancelled.

Meta events (heartbeats) are not counted, as nobody misses them.

Threads. Everything is written on the event loop, except by :meth:`Events.refuse` and by the end of a coroutine that
was never begun. Each change of a dict is one step under the GIL, and readers go through a copy, so no lock is needed,
and a reader is never held up by a loop that blocks.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import nonebot.message
from nonebot.adapters import Adapter, Bot, Event
from nonebot.exception import IgnoredException
from nonebot.matcher import Matcher
from nonebot.message import event_preprocessor
from nonebot.params import Depends

MAX_NAMED = 20
"""Handlers that are named; of more there is only the number."""

MAX_WORDS = 200
"""Characters for one handler: adapters and authors choose the names in them."""

HandleEvent = Callable[..., Any]


class _Handling:
    """One event on its way through the bot. Equal only to itself, as it is a key of dicts.

    Attributes:
        taken_up: our preprocessor has let it pass.
        running: the matchers whose handlers run, each with when that began (``time.monotonic``).
        finished: the handlers of a matcher have returned.
        counted: it is among those that were refused or cut off.
        coroutine: that of its ``handle_event``, weakly. With it goes an event whose task was cancelled before its first
            step.
    """

    __slots__ = ("coroutine", "counted", "event", "finished", "running", "taken_up")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.taken_up = False
        self.running: dict[Matcher, float] = {}
        self.finished = False
        self.counted = False
        self.coroutine: weakref.ref[Any] | None = None

    def handlers(self) -> Iterator[tuple[str, float]]:
        """Name and start of each handler that runs."""
        for matcher, since in list(self.running.items()):
            if name := _handler_name(matcher):
                yield name, since


_current: ContextVar[_Handling | None] = ContextVar("lycomm_handling", default=None)
"""The event that the running code works for; None: it works for none, or for one that nobody has noted."""


@dataclass(frozen=True)
class Losses:
    """What is lost when the bot ends now."""

    not_begun: int
    """Events of which no handler has run."""
    unfinished: int
    """Events of which one runs, or was cut off."""
    names: list[str]
    """The handlers of the latter in words, the oldest first; of many the number."""


class Events:
    """The events of this bot. There is one per process.

    Args:
        changed: called after each change while :attr:`refusing` is set, mostly on the event loop; must return soon.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.refusing = False
        """Whether no events are taken up any more, and what is lost is counted."""
        self._changed = changed
        # Ordered sets, oldest first.
        self._accepted: dict[_Handling, None] = {}  # and not taken up
        self._taken_up: dict[_Handling, None] = {}  # and not left by NoneBot
        # Events since `refusing` was set; on the event loop.
        self._refused = 0
        self._cut_off = 0
        self._cut_off_names: list[str] = []  # handlers of these, in words, of about MAX_NAMED events at most
        self._cut_off_named = 0  # how many events have their handlers among the names

    def install(self) -> None:
        """Follow all events from now on. Call once, before the project imports an adapter."""

        # A preprocessor with a dependency that yields: NoneBot leaves the dependency when it is done with the event,
        # whichever way that came about. So one function sees both the beginning and the end.
        async def refuse(taken_up: bool = Depends(self._take_up)) -> None:
            if not taken_up:
                raise IgnoredException("the bot is about to end")

        event_preprocessor(refuse)
        nonebot.message.handle_event = self._accepting(nonebot.message.handle_event)
        Matcher.simple_run = self._noting_handlers(Matcher.simple_run)  # type: ignore[method-assign]
        bot_connect = Adapter.bot_connect

        @functools.wraps(bot_connect)
        def connect_and_follow(adapter: Adapter, bot: Bot) -> None:
            self._follow(type(bot))
            bot_connect(adapter, bot)

        # Each adapter has a Bot class of its own, whose handle_event is no method of NoneBot's.
        Adapter.bot_connect = connect_and_follow  # type: ignore[method-assign, assignment]

    # --- from any thread ----------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Take up no events from now on, and count what is lost."""
        if self.refusing:
            return
        for handling in list(self._accepted):
            coroutine = None if handling.coroutine is None else handling.coroutine()
            if coroutine is not None and inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
                # Cancelled before its first step. Somebody still refers to the coroutine, so nothing has been called.
                self._accepted.pop(handling, None)
        self.refusing = True

    @property
    def none_runs(self) -> bool:
        """Whether no event is taken up."""
        return not self._taken_up

    def losses(self) -> Losses:
        """Return what would be lost if the bot ended now, in addition to what has been lost since :meth:`refuse`."""
        not_begun = self._refused + sum(not _is_meta(handling.event) for handling in list(self._accepted))
        unfinished = self._cut_off
        words, named = list(self._cut_off_names), self._cut_off_named
        for handling in list(self._taken_up):
            handlers = list(handling.handlers())
            if handlers:
                unfinished += 1
                if len(words) < MAX_NAMED:
                    words += _in_words(handling.event, handlers)
                    named += 1
            elif not (handling.finished or handling.counted or _is_meta(handling.event)):
                not_begun += 1
        more = unfinished - named
        return Losses(not_begun, unfinished, [*words, f"and {more:,} more"] if more else words)

    # --- an event is accepted -------------------------------------------------------------------------------------

    def _follow(self, kind: type[Bot]) -> None:
        """Wrap the ``handle_event`` of an adapter's class of bots, and of its bases, once each."""
        for owner in kind.__mro__:
            own = vars(owner).get("handle_event")
            if inspect.iscoroutinefunction(own) and not hasattr(own, "_lycomm_accepts"):
                owner.handle_event = self._accepting(own)  # type: ignore[attr-defined]

    def _accepting(self, function: HandleEvent) -> HandleEvent:
        """*function*, a coroutine function that takes a bot and an event, with a note when it is called."""

        @functools.wraps(function)
        def handle_event(*args: Any, **kwargs: Any) -> Awaitable[Any]:
            event = kwargs.get("event", args[1] if len(args) > 1 else None)
            outer = _current.get()
            # An adapter's handle_event calls NoneBot's, which is wrapped, too: that is the same event.
            if event is None or (outer is not None and not outer.taken_up):
                return function(*args, **kwargs)  # type: ignore[no-any-return]
            handling = _Handling(event)
            self._accepted[handling] = None
            coroutine = self._handle(handling, function, args, kwargs)
            # A task that is cancelled before its first step does not run a line of it.
            handling.coroutine = weakref.ref(coroutine, lambda _: self._never_begun(handling))
            return coroutine

        handle_event._lycomm_accepts = True  # type: ignore[attr-defined]
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(handle_event)
        return handle_event

    async def _handle(self, handling: _Handling, function: HandleEvent, args: Any, kwargs: Any) -> Any:
        """Await what handles the event; note if it ends before the event was taken up."""
        token = _current.set(handling)
        try:
            return await function(*args, **kwargs)
        except BaseException:
            self._never_begun(handling)
            raise
        finally:
            self._accepted.pop(handling, None)  # returned without passing it on: the adapter had a reason
            with contextlib.suppress(ValueError):  # closed from another context
                _current.reset(token)

    def _never_begun(self, handling: _Handling) -> None:
        """Note that the event was given up before it was taken up. Also called when its coroutine is gone."""
        if handling in self._accepted:
            self._accepted.pop(handling, None)
            self._count_refused(handling)

    def _count_refused(self, handling: _Handling) -> None:
        """Count the event as one of which nothing has run, if losses are counted."""
        if self.refusing and not _is_meta(handling.event):
            handling.counted = True
            self._refused += 1
            self._changed()

    # --- it is taken up, begun and finished -----------------------------------------------------------------------

    async def _take_up(self, event: Event) -> AsyncIterator[bool]:
        """Decide whether the event is taken up, yield that, and note the event's end. NoneBot is in the ``yield`` while
        it handles the event."""
        handling = _current.get()
        if handling is None or handling.taken_up:  # the adapter calls a handle_event that was not wrapped
            handling = _Handling(event)
        if self.refusing:
            self._accepted.pop(handling, None)
            self._count_refused(handling)
            yield False
            return
        handling.taken_up = True
        self._taken_up[handling] = None  # before it leaves the other, so that it is always in one of the two
        self._accepted.pop(handling, None)
        try:
            yield True
        except BaseException:
            self._cut(handling)
            raise
        finally:
            del self._taken_up[handling]
            if self.refusing:
                self._changed()

    def _noting_handlers(self, simple_run: HandleEvent) -> HandleEvent:
        """*simple_run*, which runs a matcher's handlers, with a note of its begin and its end.

        It ends in the same step of the event loop as the last handler; NoneBot's hook after a run may come much later.
        """

        @functools.wraps(simple_run)
        async def run(matcher: Matcher, bot: Bot, event: Event, *args: Any, **kwargs: Any) -> Any:
            handling = _current.get()
            # Without the context variable, in a task that somebody has made in another context, the event itself tells.
            if handling is None or handling.event is not event:
                handling = next((other for other in self._taken_up if other.event is event), None)
            if handling is None:  # somebody runs a matcher by hand
                return await simple_run(matcher, bot, event, *args, **kwargs)
            handling.running[matcher] = time.monotonic()
            try:
                result = await simple_run(matcher, bot, event, *args, **kwargs)
            except Exception:  # finish(), pause() and reject() are exceptions too
                handling.finished = True
                raise
            except BaseException:
                self._cut(handling)
                raise
            else:
                handling.finished = True
                return result
            finally:
                handling.running.pop(matcher, None)
                if self.refusing:
                    self._changed()

        return run

    def _cut(self, handling: _Handling) -> None:
        """Note that the event is cancelled: the handlers that run do not finish. Counts it once, if losses are
        counted."""
        handlers, handling.running = list(handling.handlers()), {}
        if not self.refusing or handling.counted:
            return
        if handlers:
            handling.counted = True
            self._cut_off += 1
            if len(self._cut_off_names) < MAX_NAMED:
                self._cut_off_names += _in_words(handling.event, handlers)
                self._cut_off_named += 1
        elif not handling.finished:
            self._count_refused(handling)


def _in_words(event: Event, handlers: Iterable[tuple[str, float]]) -> list[str]:
    """Return a text for each handler: what it is, for which event, and for how long it has run."""
    name, now = _event_name(event), time.monotonic()
    return [f"{handler} ({name}), running for {now - since:.0f} s"[:MAX_WORDS] for handler, since in handlers]


def _is_meta(event: Event) -> bool:
    """Whether it is a heartbeat or the like, which nobody misses."""
    with contextlib.suppress(Exception):  # an adapter's code; its own trouble shows elsewhere
        return event.get_type() == "meta_event"
    return False


def _event_name(event: Event) -> str:
    """Return the adapter's name of the event; that of its class if the adapter fails."""
    with contextlib.suppress(Exception):
        return event.get_event_name()
    return type(event).__name__


def _handler_name(matcher: Matcher) -> str | None:
    """Return the running handler's name, ``plugins.weather.forecast``; for a function called ``_`` its module and line.
    None: no handler of the matcher runs yet, as its rule or permission is being checked."""
    # NoneBot takes a handler off the remaining ones before it runs it.
    begun = len(matcher.handlers) - len(matcher.remain_handlers)
    if begun <= 0:
        return None
    function: Any = matcher.handlers[begun - 1].call
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", matcher.module_name)
    code = getattr(function, "__code__", None)
    return f"{module}, line {code.co_firstlineno}" if name == "_" and code is not None else f"{module}.{name}"
