"""The channels as the host joins them: which names are known, which two processes are the ends, over which links.

Theory of operation
-------------------

A channel exists here as a :class:`~liteyuki_host.hub.routes.Route`, from the moment its name is declared until nothing
uses it. It goes through these steps, each of which may happen again:

1. *Declared*: its name is known, and every child has been told (:meth:`Switchboard.declare`).
2. *Claimed*: a process becomes one of its two ends (:meth:`Switchboard.claim`). The third one that tries is refused.
3. *Joined*, with the second claim: what a child sends goes to the host's own end, or, by way of a relay, to the outbox
   of the other child.
4. *Bound*, whenever a session of an end serves: the route gets a stream of that session's link. When the session goes,
   what was not consumed waits in the route for the next incarnation (:meth:`Switchboard.release`).
5. *Dropped*, when nothing uses the channel: no process has a stream for it, the host's own end is unused, nothing
   waits, and no process that has declared the name may still use it. Claims do not count: they go with the route, and
   a process that comes back claims its end anew.

Whose queue is it? With the host as one end, messages to the child wait in the outbox of the host's ``ChannelEnd``, and
those from the child in its inbox. Between two children, each receiver has an outbox of its own in the route, and each
sender a relay, which holds what the outbox has no room for (``routes.py``).

Unused routes are looked for where one may have become unused (a withdrawn name, a closed stream) and by a sweep, which
the hub starts after enough new names (``Exchange._sweep_if_due``). So the memory is bounded by the names in use.

Everything here is guarded by the hub's lock. Methods take it, unless they say that the caller holds it. Those with a
session parameter are called in the thread that reads that child's link.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.channel.end import UNREAD_TOO_LONG, ChannelEnd, join
from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.errors import ChannelTaken, LocalProtocolError, LycommError
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.names import check_name
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.hub.roster import Roster
from liteyuki_host.hub.routes import Route

if TYPE_CHECKING:
    from liteyuki_host.hub.session import Session

__all__ = ["Switchboard"]


class Switchboard:
    """The routes of all channels. There is one per hub.

    Args:
        host: the host's exchange, whose ends of channels are joined here.
        roster: the connected sessions.
        is_kept: returns whether the host itself keeps a name known, used or not.
        drop_end: drops an end of the host that nothing uses. Returns False when something has just begun to use it.
        on_new: called, under the lock, when a route has been made.

    Attributes:
        routes: by name. Changed under the lock. Single names may be looked up without it; whoever goes through all of
            them copies the dict first.
    """

    def __init__(
        self,
        host: Exchange,
        roster: Roster,
        *,
        is_kept: Callable[[str], bool],
        drop_end: Callable[[ChannelEnd], bool],
        on_new: Callable[[], None],
    ) -> None:
        self.routes: dict[str, Route] = {}
        self._host = host
        self._roster = roster
        self._lock = host.monitor.lock
        self._is_kept = is_kept
        self._drop_end = drop_end
        self._on_new = on_new

    # --- names ----------------------------------------------------------------------------------------------

    def declare(self, name: str) -> Route:
        """Return the route of that name. If it is new, it is made, and every child is told.

        Raises:
            TypeError, ValueError: the name is not allowed.
        """
        check_name(name, "channel")
        with self._lock:
            route = self.routes.get(name)
            if route is None:
                route = self.routes[name] = Route(name, self._host.monitor)
                self._on_new()
                # Under the lock, so that the children hear of names in the order in which they come and go.
                self._roster.broadcast(messages.encode_message(messages.Declared(name)))
            return route

    def declare_for(self, session: Session, name: str) -> None:
        """Declare a channel for a child, and remember that this incarnation of it has done so."""
        with self._lock:
            self.declare(name).declared_by[session.process] = session.owner

    def withdraw_for(self, session: Session, name: str) -> None:
        """Take back what the child has declared. Nothing happens if another incarnation of it has declared it since."""
        with self._lock:
            route = self.routes.get(name)
            if route is not None and route.declared_by.get(session.process) == session.owner:
                del route.declared_by[session.process]
                self._forget_if_unused(route)

    # --- ends and links -------------------------------------------------------------------------------------

    def open_channel(self, session: Session, name: str) -> str | None:
        """Make the child an end of the channel, and bind the route to its link. Returns why it cannot be an end, in
        words that its user reads; None when it is."""
        try:
            with self._lock:
                route = self.declare(name)
                self.claim(route, session.process)
                # Else it was dismissed meanwhile, and another incarnation has the process's channels.
                if self._roster.serving.get(session.process) is session:
                    self._bind(route, session)
        except (LycommError, ValueError) as error:
            return str(error)
        return None

    def close_channel(self, session: Session, stream: Stream) -> None:
        """Answer a child that does not use a channel any more: its stream is closed, unless something waits for it
        here, or is on its way."""
        name = stream.key[1]
        with self._lock:
            route = self.routes.get(name)
            willing = route is None or session.process not in route.ends or not self._waits_for(route, session.process)
            if session.link.closer.answer(stream, willing=willing) and route is not None:
                # Whatever sends on the stream lets go of it: the host's own end, or the outbox for this child.
                own = self._host.end_if_used(name)
                if own is not None and own.outbox.stream is stream:
                    own.release(stream)
                for outbox in route.outbox.values():
                    outbox.release(stream)
                self._forget_if_unused(route)

    def claim(self, route: Route, process: str) -> None:
        """Make *process* an end of the route, and join both ends when it is the second. The caller holds the lock.

        Raises:
            ChannelTaken: two other processes are its ends.
        """
        if process in route.ends:
            return
        if len(route.ends) == 2:
            raise ChannelTaken(
                f"channel {route.name!r} already joins {route.ends[0]} and {route.ends[1]}; a channel has two ends. "
                "Use a channel of its own for each pair, or publish/subscribe for many"
            )
        route.ends.append(process)
        if len(route.ends) < 2:
            return
        # From here on both ends are known. What one of them has sent before has waited in its relay.
        first, second = route.ends
        if self._host.process in route.ends:
            child = second if first == self._host.process else first
            route.relay(child).set_target(self._host.end(route.name).inbox)
        else:
            for receiver, sender in ((first, second), (second, first)):
                outbox = route.outbox[receiver] = Outbox(
                    window=self._host.window,
                    on_lost=lambda count, why: self._host.losses.add(route.name, count, why),
                    monitor=self._host.monitor,
                )
                route.relay(sender).set_target(outbox)
        for end in route.ends:
            session = self._roster.serving.get(end)
            if session is not None:
                self._bind(route, session)

    def _bind(self, route: Route, session: Session) -> None:
        """Join the route with the link of one of its ends. The caller holds the lock. Nothing happens for a direction
        that is bound to this link already.

        Raises:
            LocalProtocolError: the link has no number left for another stream.
        """
        link = session.link
        own = self._host.end(route.name) if route.other(session.process) == self._host.process else None
        # What arrives: for the host's inbox, or a relay. A relay also keeps what comes before the other end is known.
        receiver = route.relay(session.process) if own is None else own.inbox
        stream = link.open_stream("channel", route.name, lambda stream: join(receiver, link, stream))
        # What is sent: from the host's end, or the child's outbox in the route. It may be bound already, as both sides
        # may open the stream of a channel, and a claim binds it again.
        outbox = route.outbox.get(session.process)
        if own is not None and stream.user is not own.outbox:
            own.bind(link, stream)
        elif own is None and outbox is not None and stream.user is not outbox:
            outbox.bind(link, stream)

    def begin(self, session: Session) -> LocalProtocolError | None:
        """Bind the routes of a process to the link of its session, which serves from now on. What has waited for it is
        sent by that. The caller holds the lock.

        Returns why some of them could not be bound; None when all could. The others are bound all the same.
        """
        no_room: LocalProtocolError | None = None
        for route in list(self.routes.values()):
            # An unused one is bound when its process opens it, if it does.
            if session.process in route.ends and not self._is_unused(route):
                try:
                    self._bind(route, session)
                except LocalProtocolError as error:
                    no_room = no_room or error
        return no_room

    def release(self, session: Session, cause: str, *, again: bool) -> None:
        """Take back what the link of a session that has ended, for this *cause*, had of its routes. What was not
        consumed waits for the next incarnation; requests whose answer cannot come any more fail. The caller holds the
        lock.

        Args:
            again: this was done before, and the next incarnation may have sent something since. That is kept.
        """
        process = session.process
        for route in list(self.routes.values()):
            if process not in route.ends:
                continue
            # What it sent itself: a relay may keep up to a window, so that many incarnations do not add up.
            relay = route.relays.get(process)
            if not again and relay is not None and (dropped := relay.sender_died(self._host.window)):
                self._host.losses.add(route.name, dropped, UNREAD_TOO_LONG)
            # What was sent to it.
            outbox = route.outbox.get(process)
            if outbox is not None:
                route.fail_requests(process, outbox.unbind(session.link), cause)
            elif route.other(process) == self._host.process:
                self._host.end(route.name).unbind(session.link, cause)

    def give_up(self, reason: str) -> None:
        """Report what nobody will consume any more as lost, for this *reason*. Called when the host ends and all links
        are over."""
        for route in list(self.routes.values()):
            for outbox in route.outbox.values():
                outbox.give_up(reason)
            stranded = sum(relay.stranded() for relay in route.relays.values())
            if stranded:
                self._host.losses.add(route.name, stranded, reason)

    # --- what nothing uses ----------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Drop every route that nothing uses."""
        with self._lock:
            for route in list(self.routes.values()):
                self._forget_if_unused(route)

    def _waits_for(self, route: Route, process: str) -> bool:
        """Whether messages wait for *process* here, or always may, as on the two channels that every process has. The
        caller holds the lock."""
        own = self._host.end_if_used(route.name)
        outbox = route.outbox.get(process, None if own is None else own.outbox)
        return route.kept or (outbox is not None and bool(outbox.backlog))

    def _is_unused(self, route: Route) -> bool:
        """Whether nothing uses the channel, here or in a child. The caller holds the lock."""
        if route.kept or route.waits or self._is_kept(route.name) or self._is_declared(route):
            return False
        own = self._host.end_if_used(route.name)
        if own is not None and own.in_use:
            return False
        # Last, as it costs a look at every link: a child that has a stream for the channel may use it at any moment.
        return not any(session.link.connection.table.find("channel", route.name) for session in self._roster.everybody)

    def _is_declared(self, route: Route) -> bool:
        """Whether a process that has declared the name may still use it. A process that is not connected may: it may
        come back. Once its next incarnation serves, only what that one declares counts."""
        for process, owner in route.declared_by.items():
            session = self._roster.serving.get(process)
            if session is None or session.owner == owner:
                return True
        return False

    def _forget_if_unused(self, route: Route) -> None:
        """Drop the route if nothing uses it. The caller holds the lock."""
        if self._is_unused(route):
            self._forget(route)

    def _forget(self, route: Route) -> None:
        """Drop an unused route, and tell everybody that its name is not known any more. The caller holds the
        lock."""
        own = self._host.end_if_used(route.name)
        if own is not None and not self._drop_end(own):
            return  # something has just begun to use it
        del self.routes[route.name]
        with self._lock:
            for session in self._roster.everybody:
                if session.link.closer.possible:  # an older child knows nothing of closing, nor of this message
                    session.send_memory(messages.encode_message(messages.Undeclared(route.name)))
