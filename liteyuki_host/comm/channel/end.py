"""One process's end of a channel: what it sends, what it receives, and the requests it waits for."""

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
    """Stands in for the writer of a link that has ended: what is consumed is told to nobody."""

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
        _stream, _writer: where consumption is counted and told. Like *count* they are replaced by :meth:`detach`.
    """

    __slots__ = ("_stream", "_writer", "count")

    def __init__(self, link: Link, stream: Stream) -> None:
        self._writer: Writer | _EndedWriter = link.writer
        self._stream = stream
        self.count: Callable[[int], None] = stream.consume

    def detach(self) -> None:
        """Let go of the link, which has ended: a message of it that nobody reads would keep all of it in memory.

        From any thread, also while somebody counts. Counts and answers have no effect from now on.
        """
        # The writer before the stream, and those who use both read them the other way round: a thread that is switched
        # in between would have a living link send something on the stream that stands for all ended ones.
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
    """Held by every handle of one end; the end refers to it weakly. So an end knows, whenever somebody asks, whether
    handles are left, and nothing of ours runs when the last one goes."""

    __slots__ = ("__weakref__",)


class ChannelEnd:
    """See the module's docstring. Lives as long as its process; links come and go under it.

    Args:
        before_use: called before every send or receive: makes this process one of the channel's two ends, or
            raises what keeps it from that.
        on_lost: called with the name, a count and a reason when messages are given up; the lock may be held.
        monitor: that of the exchange.
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
        self.usable = False  # known to be usable: `use` has nothing to find out
        self._lease: weakref.ref[Lease] | None = None  # of the handles that there are; under the exchange's lock
        self.refused: str | None = None
        self.last_error: str | None = None
        self._before_use = before_use

    # --- who uses it ----------------------------------------------------------------------------------------

    def lease(self) -> Lease:
        """What a handle keeps as long as it may use this end. The caller holds the exchange's lock of ends."""
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
        """Check that this process may use the channel, and make it an end on first use."""
        if self.refused is not None:
            raise ChannelTaken(self.refused)
        self._before_use(self)
        self.usable = True
        # Both are asked last: the end of the link and the refusal may arrive meanwhile, in the thread that reads.
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
        """Ask the peer for a stream to the other end, and be bound to it."""
        self.bind(link, link.open_stream("channel", self.name, lambda stream: join(self.inbox, link, stream)))

    def bind(self, link: Link, stream: Stream) -> None:
        """The other end can be reached over *stream*."""
        join(self.inbox, link, stream)
        self.outbox.bind(link, stream)
        self.inbox.follow(link, stream)

    def unbind(self, link: Link, cause: str) -> None:
        """Let go of *link*, which has ended: who waits for an answer fails, the rest waits for the next incarnation.

        What the other side sent and nobody here has read stays, up to a window: each of its incarnations may leave
        one, and what is more than one in all is reported as lost, oldest first. What a single one has left is never
        more.
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
        """Both sides have closed *stream*; nothing was on its way. The next use opens another one."""
        self.outbox.release(stream)
        self.usable = False  # behind it, as `use` says that it is usable and then looks whether it is bound
        self.inbox.unfollow()

    def refuse(self, reason: str) -> None:
        """Be no end of the channel, as the host has decided: whoever waits for something of it gets ChannelTaken."""
        self.refused = reason
        self.usable = False
        self.outbox.give_up(reason)
        self.inbox.close(reason)
        self.requests.refuse(reason)

    def close(self, reason: str) -> None:
        """This process leaves: whoever waits is woken with an error."""
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
                except Exception as error:  # the result cannot travel
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
        """Answer a request that arrived where nothing can answer."""
        self.requests.finish(request_id)
        text = f"channel {self.name!r} is read by receive() there, which cannot answer requests"
        reply_error("LookupError", text, "", request_id, source)

    def _callback_failed(self, what: str, callback: Callback, error: BaseException) -> None:
        self.last_error = f"{type(error).__name__}: {error_text(error)}"
        log().opt(exception=error).error(
            f"channel {self.name!r}: {what} of {callback.name} failed; the next message is handled as usual"
        )

    def statistics(self) -> ChannelStatistics:
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
