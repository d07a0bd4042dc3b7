"""One process's end of a channel: what it sends, what it receives, and the requests it waits for.

Theory of operation
-------------------

A :class:`ChannelEnd` combines an :class:`Outbox`, an :class:`Inbox`, the callbacks and the open requests of one channel
in one process. All handles (``Channel`` objects) with the same name share it. It exists before there is a link and
survives its links: :meth:`ChannelEnd.bind` connects it to a stream of a link, :meth:`ChannelEnd.unbind` takes it off
again when the link has ended, and :meth:`ChannelEnd.release` when both sides have closed the stream.

``usable`` is the short cut for senders and receivers: while it is True, there is nothing to check before the end is
used. Everything that may change the answer sets it to False, and :meth:`ChannelEnd.use` finds the answer anew.

A channel has two ends. A third process that wants to be one is refused (:meth:`ChannelEnd.refuse`), and every use
raises ChannelTaken from then on.

Threads and locks
-----------------

Users' threads and loops use an end; the link's reader, and the thread that attaches or detaches the process, change it.
The parts have the exchange's lock (``waiting/monitor.py``). The end's own attributes are single values that are
assigned and read without a lock; the order of the assignments matters where a comment says so.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from liteyuki_host.comm.channel.calling import (
    SKIPPED,
    Callback,
    Callbacks,
    Failure,
    call_one,
    error_text,
)
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.channel.requests import Requests, reply, reply_error, reply_failure
from liteyuki_host.comm.channel.unit import Received, Source
from liteyuki_host.comm.errors import (
    ChannelTaken,
    LycommError,
)
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.waiting.monitor import Monitor

if TYPE_CHECKING:
    from liteyuki_host.comm.link.writer import Writer

__all__ = ["UNREAD_TOO_LONG", "ChannelEnd", "ChannelStatistics", "Lease", "StreamSource", "join"]

UNREAD_TOO_LONG = "nobody has read them, and their sender has ended more than once meanwhile"
"""Why messages are given up that a dead incarnation left, when those of later ones would add up."""


class ChannelStatistics(NamedTuple):
    """A channel's figures in this process, since it began."""

    name: str
    mode: str | None
    """``passive``, ``active``, or None as long as nothing here receives."""
    sent: int
    """Messages that ``send`` accepted."""
    waiting_to_be_consumed: int
    """Of those, the ones that the other side has not consumed."""
    redelivered: int
    """Messages handed to a later incarnation of the other side."""
    lost: int
    """Messages given up, each reported in the log."""
    received: int
    """Messages that arrived here."""
    waiting_to_be_read: int
    """Of those, the ones that nobody here has taken: the depth of the queue."""
    last_error: str | None
    """The last failure of a callback or filter here, as one line."""


class _EndedWriter:
    """Stands in for the writer of a link that has ended. Every method has no effect, since the peer is gone."""

    def grant(self, stream: Stream) -> None:
        pass

    def consumed(self, stream: Stream, cost: int) -> None:
        pass

    def used(self, stream: Stream, cost: int) -> None:
        pass

    def send(self, stream: Stream, payload: bytes, flags: int, request_id: int) -> bool:
        return True

    async def replies_written(self) -> None:
        pass


_ENDED_WRITER: Final = _EndedWriter()
_ENDED_STREAM: Final = Stream(0, ("ended", ""))
"""Takes the counts of all links that have ended; nobody reads them."""


class StreamSource:
    """The sender at the other end of a stream, as the receiver of its messages sees it. Kept with each message until
    that is consumed.

    Attributes:
        count: counts bytes as consumed; a grant follows at once when it is worth a frame, else soon. For one consumer
            at a time. It is the ledger's own function, as it is called for each message.
        _stream, _writer: where consumption is counted and reported. Like *count* they are replaced by :meth:`detach`,
            without a lock; read ``_stream`` before ``_writer``.
    """

    __slots__ = ("_stream", "_writer", "count")

    def __init__(self, link: Link, stream: Stream) -> None:
        self._writer: Writer | _EndedWriter = link.writer
        self._stream = stream
        self.count: Callable[[int], None] = stream.consume

    def detach(self) -> None:
        """Let go of the link, which has ended. Otherwise one message that nobody reads would keep the whole link in
        memory.

        From any thread, also while somebody counts. Counts and answers have no effect from now on.
        """
        # The writer is replaced before the stream, and the methods below read them in the opposite order. So no thread
        # can combine the live writer with the stand-in stream and write frames for a stream that does not exist.
        self._writer = _ENDED_WRITER
        self._stream = _ENDED_STREAM
        self.count = _ENDED_STREAM.consume_quietly

    def consumed(self, cost: int) -> None:
        """Count *cost* bytes as consumed and grant them, also when others consume at the same time."""
        stream = self._stream  # before the writer, see `detach`
        self._writer.consumed(stream, cost)

    def used(self, cost: int) -> None:
        """Count *cost* bytes as consumed without granting them yet: the next message on the stream carries the grant,
        or :meth:`grant` sends it."""
        stream = self._stream  # before the writer, see `detach`
        self._writer.used(stream, cost)

    def grant(self) -> None:
        """Grant what was :meth:`used`, unless a message has carried that already."""
        stream = self._stream  # before the writer, see `detach`
        if stream.owes:
            self._writer.grant(stream)

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        """Answer a request. Nothing happens when the link is over: who asked is gone."""
        stream = self._stream  # before the writer, see `detach`
        try:
            self._writer.send(stream, payload, flags | Flag.REPLY, request_id)
        except LycommError:
            pass

    async def replied(self) -> None:
        """Wait until few bytes of answers wait to be written, as answers have no credit that bounds them."""
        await self._writer.replies_written()


def join(receiver: Any, link: Link, stream: Stream) -> None:
    """Have what arrives on *stream* delivered to *receiver*, which has a ``deliver`` method as ``Inbox`` has it."""
    stream.inbox = None  # set by `Inbox.follow`, when *receiver* is one that may be passed lone messages directly
    stream.receiver = receiver
    stream.source = StreamSource(link, stream)


class Lease:
    """A token that every handle of one end holds. The end refers to it weakly, so that :attr:`ChannelEnd.in_use` can
    tell whether a handle is left. No finalizer is needed: nothing runs when the last handle goes."""

    __slots__ = ("__weakref__",)


class ChannelEnd:
    """See the module's docstring. Lives as long as its process; links come and go under it.

    Args:
        before_use: called before every send or receive: makes this process one of the channel's two ends, or
            raises what keeps it from that.
        on_lost: called with the name, a count and a reason when messages are given up; the lock may be held.
        monitor: that of the exchange.

    Attributes:
        outbox, inbox, requests, callbacks: the parts. Set once.
        usable: whether the end may be used without calling :meth:`use` first. Set to True by :meth:`use` only; set to
            False by whatever ends that: the end of the link or of the stream, a refusal, the end of the process.
        refused: why this process is no end of the channel; None: it may be one. Set by :meth:`refuse`.
        last_error: the last failure of a callback or filter, as one line. Set by the task that calls the callbacks.
        _lease: refers to the token of the handles that there are. Under the exchange's lock of ends.
    """

    def __init__(
        self,
        name: str,
        *,
        window: int,
        before_use: Callable[[ChannelEnd], None],
        on_lost: Callable[[str, int, str], None],
        monitor: Monitor,
    ) -> None:
        self.name = name
        self.monitor = monitor
        self.outbox = Outbox(window=window, on_lost=lambda count, why: on_lost(name, count, why), monitor=monitor)
        self.requests = Requests(name, self.outbox)
        self.callbacks = Callbacks(monitor)
        self.inbox = Inbox(
            name,
            self._handle,
            callbacks=self.callbacks,
            failed=self._callback_failed,
            replied=self.requests.answered,
            asked=self.requests.arrived,
            monitor=monitor,
        )
        self.inbox.worker.requests = self.requests
        self.usable = False
        self._lease: weakref.ref[Lease] | None = None
        self.refused: str | None = None
        self.last_error: str | None = None
        self._before_use = before_use

    # --- who uses it ----------------------------------------------------------------------------------------

    def lease(self) -> Lease:
        """Return the token that a handle keeps as long as it may use this end. The caller holds the exchange's lock of
        ends."""
        lease = None if self._lease is None else self._lease()
        if lease is None:
            lease = Lease()
            self._lease = weakref.ref(lease)
        return lease

    @property
    def in_use(self) -> bool:
        """Whether something in this process still needs this end: a handle, a callback, a message that was not read or
        not consumed, or a request that waits for its answer."""
        return bool(
            (self._lease is not None and self._lease() is not None)
            or self.callbacks.any
            or self.inbox.units
            or self.requests
            or self.outbox.backlog
            or self.outbox.waiting()
        )

    def use(self) -> None:
        """Check that this process may use the channel, and make it an end on first use.

        Raises:
            ChannelTaken: two other processes are the ends.
            LycommError: what else keeps the process from it, as *before_use* raises it.
        """
        if self.refused is not None:
            raise ChannelTaken(self.refused)
        self._before_use(self)
        self.usable = True
        # Checked after the assignment: the end of the link or the refusal may arrive meanwhile, in the reading thread,
        # and its own assignment of False may have been overwritten by the line above.
        if self.refused is not None or not self.outbox.bound:
            self.usable = False

    def accept(self, payload: bytes, flags: int) -> None:
        """Send a message that was put off (see ``waiting/monitor.py``). Its sender has been told that it is accepted:
        if the link has ended meanwhile, it is reported as lost. The caller holds the lock.

        Raises:
            LycommError: this process may not use the channel.
        """
        if not self.usable and (self.refused is not None or not self.outbox.closed):
            self.use()
        self.outbox.accept(payload, flags)

    # --- the link comes and goes ----------------------------------------------------------------------------

    def open(self, link: Link) -> None:
        """Open a stream to the other end on *link*, and bind this end to it."""
        self.bind(link, link.open_stream("channel", self.name, lambda stream: join(self.inbox, link, stream)))

    def bind(self, link: Link, stream: Stream) -> None:
        """Send and receive over *stream* of *link* from now on. Messages that waited are sent first."""
        join(self.inbox, link, stream)
        self.outbox.bind(link, stream)
        self.inbox.follow(link, stream)

    def unbind(self, link: Link, cause: str) -> None:
        """Let go of *link*, which has ended. Open requests fail with *cause*; messages that were not consumed wait for
        the next incarnation of the other process.

        Messages that arrived and that nobody here has read stay, up to one window of bytes. A single incarnation never
        leaves more than that. If several incarnations have left messages, the oldest ones beyond the window are dropped
        and reported as lost.
        """
        if not self.outbox.bound_to(link):
            return
        unanswered = self.outbox.unbind(link)
        self.inbox.unfollow()
        lost = self.inbox.drop_oldest(link.connection.window)
        if lost:
            self.outbox.lose(lost, UNREAD_TOO_LONG)
        self.usable = False
        for number in unanswered:
            self.requests.fail(number, cause)
        self.requests.forget_arrived()
        self.requests.fail_all(cause)  # those that were consumed there, but whose answer cannot come any more

    def release(self, stream: Stream) -> None:
        """Let go of *stream*, which both sides have closed with nothing on its way. The next use opens another one."""
        self.outbox.release(stream)
        self.usable = False  # after the release: `use` sets it to True first and then looks whether a link is bound
        self.inbox.unfollow()

    def refuse(self, reason: str) -> None:
        """Stop being an end of the channel, as the host has decided. Whoever waits here gets ChannelTaken; what was not
        consumed is reported as lost."""
        self.refused = reason
        self.usable = False
        self.outbox.give_up(reason)
        self.inbox.close(reason)
        self.requests.refuse(reason)

    def close(self, reason: str) -> None:
        """End all waits with an error, because this process leaves. Open requests fail with *reason*."""
        self.usable = False
        self.inbox.close()
        self.outbox.room.wake()
        self.requests.fail_all(reason)

    # --- receiving ------------------------------------------------------------------------------------------

    async def _handle(self, message: Received) -> None:
        """Give one message to every callback whose filter takes it, in the order of registration. The first result
        (or failure) answers a request."""
        wants_reply = bool(message.flags & Flag.REQUEST)
        if wants_reply and self.requests.begin(message.request_id, message.source):
            return
        replied = not wants_reply
        for callback in self.callbacks:
            result = await call_one(callback, message.payload, message.flags)
            if result is SKIPPED:
                continue
            failure = result if type(result) is Failure else None
            if failure is None and not replied:
                try:
                    reply(result, message)
                except Exception as error:  # the result cannot be encoded
                    failure = Failure("the callback", error)
            if failure is not None:
                self._callback_failed(failure.what, callback, failure.error)
                if not replied:
                    reply_failure(failure.error, message)
            replied = True
        if not replied:
            reply_error("LookupError", f"no callback of channel {self.name!r} took the request", "", *message[2:])
        if wants_reply:
            self.requests.finish(message.request_id)
            await message.source.replied()

    def refuse_request(self, request_id: int, source: Source) -> None:
        """Answer a request that was taken by ``receive()``, which cannot answer, with an error."""
        self.requests.finish(request_id)
        text = f"channel {self.name!r} is read by receive() there, which cannot answer requests"
        reply_error("LookupError", text, "", request_id, source)

    def _callback_failed(self, what: str, callback: Callback, error: BaseException) -> None:
        """Log the failure of *what*: the callback, its filter or the decoding of its message."""
        self.last_error = f"{type(error).__name__}: {error_text(error)}"
        log().opt(exception=error).error(
            f"channel {self.name!r}: {what} of {callback.name} failed; the next message is handled as usual"
        )

    def statistics(self) -> ChannelStatistics:
        """The figures of this end, since the process began. They are not taken at one instant: traffic goes on."""
        return ChannelStatistics(
            name=self.name,
            mode=self.inbox.mode,
            sent=self.outbox.sent,
            waiting_to_be_consumed=self.outbox.waiting(),
            redelivered=self.outbox.redelivered,
            lost=self.outbox.lost,
            received=self.inbox.received,
            waiting_to_be_read=self.inbox.waiting(),
            last_error=self.last_error,
        )
