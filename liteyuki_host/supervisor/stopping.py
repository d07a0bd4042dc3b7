"""How a child is ended: it finishes its work, the stop ladder runs, its link is closed.

:func:`drain` lets it finish, :func:`end` makes it go and :func:`close_link` reads what it has said and written until
then, and gives back what the host holds for it. :func:`end_at_once` is for everything that went wrong: it kills, and
cannot fail.

The operator may get impatient at any moment, which is told by the event *hurry*: what waits for the child then goes on
with the kill.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial

from loguru import logger

from liteyuki_host.boundary import Boundary, in_thread_or_here
from liteyuki_host.supervisor.exits import describe_exit
from liteyuki_host.supervisor.ladder import climb, first_of, rungs_for
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.spec import ProcessSpec

STARTING_SECONDS = 1.2
"""For a child whose start-up hooks have not returned to end after the stop message. The message interrupts the hook
that runs at once, so this is for what that hook cleans up. The shutdown hooks that follow get ``stop_timeout`` as in
any other stop, since they close what earlier start-up hooks have opened; when they are over, this is for the rest. The
next rung ends a hook that did not notice, or a wait for a thread; it comes later than the second within which a bot
takes several signals for one request."""

LAST_WORDS_SECONDS = 1.0
"""From the child's end to the end of its link: what it sent before is still being read."""

STACKS_SECONDS = 0.3
"""For the stacks of all threads to be written; a C-level handler does it in milliseconds and says nothing after."""

LAST_REPORT_SECONDS = 0.2
"""For the link's thread of a child to answer; it takes milliseconds while the interpreter's lock can be had."""

DRAIN_ANSWER_SECONDS = 1.0
"""Beyond ``drain_timeout`` for the child to say how it went, before the ladder begins without a word of it."""


async def drain(spec: ProcessSpec, life: Life, hurry: asyncio.Event) -> None:
    """Let running handlers finish and begin no new events, for ``drain_timeout`` seconds or what the child asks for.

    Returns when the child has told the outcome, or its time is over, or it is gone. Does nothing for a child that is
    not ready or cannot be reached.
    """
    if not (life.ready and spec.drain_timeout > 0) or life.link_closed.is_set() or hurry.is_set():
        return
    life.is_to_end()
    life.live_session.drain(spec.drain_timeout)
    deadline = time.monotonic() + spec.drain_timeout + DRAIN_ANSWER_SECONDS
    ends = (life.drained, life.link_closed, life.gone, hurry)
    while (left := life.put_off(deadline) - time.monotonic()) > 0 and not any(end.is_set() for end in ends):
        await first_of(*ends, timeout=left)
    # What it loses is told when it is gone: until then some more may finish.
    if not any(end.is_set() for end in ends):
        logger.warning(f"child {spec.name} did not say within {spec.drain_timeout:g} s that its handlers have finished")


async def show_stacks(life: Life, hurry: asyncio.Event) -> None:
    """Have the stack of every thread written to the child's output, and the child tell what it loses. For before a
    kill; waits for up to ``STACKS_SECONDS``, as nothing says when it is done."""
    if not life.greeting.is_set():  # it may not listen to that signal yet, and would die of it
        return
    life.live_child.show_stacks(over_link=life.live_session.dump_stacks)
    life.live_session.drain(0.0)
    await first_of(life.gone, hurry, timeout=STACKS_SECONDS)


async def _last_report(life: Life) -> None:
    """Let the child tell what it loses, if it can do so at once. For before a kill that somebody is impatient for."""
    if life.ready and not life.link_closed.is_set():
        life.drained.clear()
        life.live_session.drain(0.0)
        await first_of(life.drained, life.link_closed, life.gone, timeout=LAST_REPORT_SECONDS)


async def end(spec: ProcessSpec, life: Life, reason: str, hurry: asyncio.Event, *, kill: bool = False) -> str | None:
    """The stop ladder, and the end of the link. Returns the rung that worked, None when none was needed.

    It does not fail: a child that cannot be ended in order, for a shortage in the host, is killed.

    Args:
        reason: what the child is told.
        kill: no rung before the last: nobody there would act on them.
    """
    life.is_to_end()
    try:
        return await _end(spec, life, reason, hurry, kill=kill)
    except Exception as error:
        Boundary(f"child {spec.name}: ending it in order").failed(error)
        await end_at_once(spec, life)
        return "a kill"


async def end_at_once(spec: ProcessSpec, life: Life) -> None:
    """Kill the child, wait for that and give back what the host holds for it, whatever fails on the way."""
    if life.child is None:
        return
    life.child.kill()
    await life.gone.wait()
    try:
        await close_link(spec, life)
    except Exception as error:
        Boundary(f"child {spec.name}: closing its link").failed(error)
        life.belongings.close()


async def _end(spec: ProcessSpec, life: Life, reason: str, hurry: asyncio.Event, *, kill: bool) -> str | None:
    """Do what :func:`end` says, and fail where something is short."""
    if kill:
        rung = await climb(spec.name, [], life.live_child, gone=life.gone, hurry=hurry)
        await close_link(spec, life)
        return rung
    if hurry.is_set():
        await _last_report(life)
    session = life.live_session
    reachable = life.greeting.is_set() and not life.link_closed.is_set()
    ask = (lambda: session.stop(reason)) if reachable else None
    put_off = life.put_off
    if not life.hooks_done:
        put_off = partial(_put_off_in_start, life, time.monotonic() + spec.stop_timeout)
        spec = replace(spec, stop_timeout=min(spec.stop_timeout, STARTING_SECONDS))
    rung = await climb(
        spec.name,
        rungs_for(spec, life.live_child, ask, greeted=life.greeting.is_set()),
        life.live_child,
        gone=life.gone,
        hurry=hurry,
        put_off=put_off,
        look_again=life.shutdown_work_told,
        before_kill=lambda: show_stacks(life, hurry),
    )
    await close_link(spec, life)
    return rung


def _put_off_in_start(life: Life, latest: float, deadline: float) -> float:
    """The deadline for a child that is interrupted while it starts, by what has been heard of it so far.

    Args:
        latest: the end of ``stop_timeout``, which counts from the stop message.
    """
    if life.hooks_done or life.shutdown_work:  # its hooks may have returned just before the message came
        deadline = max(deadline, latest)
    elif life.shutdown_work_ended_at is not None:
        deadline = max(deadline, min(latest, life.shutdown_work_ended_at + STARTING_SECONDS))
    return life.put_off(deadline)


async def close_link(spec: ProcessSpec, life: Life) -> None:
    """After the child's end: read what it sent and wrote before, then forget the link."""
    await first_of(life.link_closed, timeout=LAST_WORDS_SECONDS)
    _tell_losses(spec, life)
    if life.session is not None:
        life.session.close(f"{spec.name} {describe_exit(life.exit_code)}")
    await in_thread_or_here(life.belongings.close)


def _tell_losses(spec: ProcessSpec, life: Life) -> None:
    """Warn of the events that a child had taken and that ended with it, by what it told last."""
    if life.not_begun:
        events = _events(life.not_begun)
        logger.warning(f"child {spec.name}: {events} came while it was stopping, or before, and were not begun")
    if life.unfinished or life.unfinished_names:
        events = _events(life.unfinished or len(life.unfinished_names))
        names = "; ".join(life.unfinished_names)
        logger.warning(f"child {spec.name}: {events} not finished and ended with the bot: {names}")


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"
