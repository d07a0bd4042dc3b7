"""A link: one connection over one transport, callable from any thread.

Sending is the writer's (``writer.py``); the link hands its functions on as they are.

Receiving. The reader (``reader.py``) feeds bytes; what arrives is told to the link's handler by whoever reads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from liteyuki_host.comm.errors import LinkBroken, LinkClosed, LinkError, RemoteProtocolError
from liteyuki_host.comm.link.closer import StreamCloser
from liteyuki_host.comm.link.reader import Reader, ReadTarget, ThreadReader
from liteyuki_host.comm.link.receiver import receiver
from liteyuki_host.comm.link.writer import Writer
from liteyuki_host.comm.protocol.connection import Connection
from liteyuki_host.comm.protocol.messages import Close, Closed, CloseRefused, Control, Goodbye, Hello, Ping, Pong
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.shortage import describe, is_shortage, remedy
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.monitor import Monitor

if sys.platform == "linux":
    from liteyuki_host.comm.link.shared_reader import SharedReader
    from liteyuki_host.comm.transport.posix import SocketTransport

__all__ = ["Link", "LinkHandler"]


class LinkHandler(Protocol):
    """Who the link works for. Called by whoever reads: a thread of the link, one that waits for something, or the event
    loop; never by two at once. Must return soon and never raise."""

    def on_hello(self, hello: Hello) -> None:
        """The peer greeted."""
        ...

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        """Messages arrived, in order."""
        ...

    def on_control(self, message: Control) -> None:
        """A control message other than greeting, ping, and the pong that somebody waits for."""
        ...

    def on_opened(self, stream: Stream) -> None:
        """The peer numbered a stream. Its messages come after this call."""
        ...

    def on_credit(self, stream: Stream) -> None:
        """The peer consumed something of *stream*."""
        ...

    def on_close(self, stream: Stream) -> None:
        """The peer does not use *stream* any more: answer by ``Link.closer``, before this returns."""
        ...

    def on_close_answered(self, stream: Stream, closed: bool) -> None:
        """The peer has answered that *stream*, which we asked about, is *closed*, or stays open."""
        ...

    def on_end(self, cause: LinkError) -> None:
        """The link is over. Called exactly once, after everything that arrived was delivered."""
        ...


class Link:
    """See the module's docstring.

    Args:
        name: for thread names and messages.
        monitor: guards the link, with everything else of its exchange; None: one of its own.
        reader: who reads; by default the fastest that this system and the transport allow.
    """

    __slots__ = (
        "_close_reason",
        "_handler",
        "_over",
        "_pong",
        "attach_loop",
        "closer",
        "connection",
        "consumed",
        "decoder",
        "detach_loop",
        "flush",
        "lead",
        "look",
        "monitor",
        "name",
        "on_credit",
        "on_message",
        "on_opened",
        "open_stream",
        "reader",
        "received",
        "replies_written",
        "send",
        "send_control",
        "settle",
        "settled",
        "shortcut",
        "transport",
        "wait",
        "write_queued",
        "writer",
    )

    def __init__(
        self,
        transport: Transport,
        connection: Connection,
        handler: LinkHandler,
        *,
        name: str,
        monitor: Monitor | None = None,
        reader: Callable[[Transport, ReadTarget, str], Reader] | None = None,
    ) -> None:
        self.transport = transport
        self.connection = connection
        self.name = name
        self._handler = handler
        self.decoder = connection.decoder
        self.on_message = handler.on_message
        self.on_opened = handler.on_opened
        self.on_credit = handler.on_credit
        self._close_reason: str | None = None
        self._over = False  # the handler has been told of the end; set by the reader
        self._pong: dict[int, threading.Lock] = {}
        self.settled = True
        """What arrives may go straight to who waits for it; False: the handler has to be asked first."""
        self.monitor = monitor or Monitor()
        self.writer = writer = Writer(transport, connection, name, self.monitor)
        self.closer = StreamCloser(writer)
        self.send = writer.send
        self.shortcut = writer.shortcut
        self.settle = writer.settle
        self.send_control = writer.send_control
        self.open_stream = writer.open_stream
        self.consumed = writer.consumed
        self.flush = writer.flush
        self.replies_written = writer.replies_written
        self.write_queued = writer.write_queued
        self.received = receiver(self)
        self.reader = (reader or _fastest_reader)(transport, self, name)
        self.wait = self.reader.wait
        self.lead = self.reader.lead
        self.look = self.reader.look
        self.attach_loop = self.reader.attach_loop
        self.detach_loop = self.reader.detach_loop

    def start(self) -> None:
        """Start the reader and the flusher, and send the greeting.

        Raises:
            OSError, RuntimeError, MemoryError: there is a shortage. The link is over, and the transport given back.
        """
        try:
            self.reader.start()
        except BaseException:
            self.transport.close()
            self.release_transport()
            raise
        try:
            self.writer.start()
        except BaseException:
            self.transport.close()  # the reader sees the end, and gives the rest back
            raise

    @property
    def ended(self) -> bool:
        """No more data is accepted: the link is over, or about to be."""
        return self.writer.closed

    def ping(self, timeout: float) -> float | None:
        """Seconds until the peer's link answered, or None after *timeout* seconds. Blocks the calling thread."""
        answered = threading.Lock()
        answered.acquire()
        with self.writer.lock:
            number = len(self._pong) + time.monotonic_ns()
            self._pong[number] = answered
        started = time.perf_counter()
        self.send_control(Ping(number))
        try:
            return time.perf_counter() - started if answered.acquire(timeout=timeout) else None
        finally:
            with self.writer.lock:
                self._pong.pop(number, None)

    def close(self, reason: str = "", *, timeout: float = 1.0) -> bool:
        """Say goodbye, send what is queued (at most *timeout* seconds) and end the link. More calls do nothing. No data
        is accepted after the goodbye, so what this returns holds for everything that was accepted.

        Returns whether everything was sent.
        """
        writer = self.writer

        def say_goodbye() -> bool:
            if writer.ended or self._close_reason is not None:
                return False
            self._close_reason = reason or "closed"
            self.connection.send_control(Goodbye(reason))
            writer.close()
            return True

        if not writer.queue_and_write(say_goodbye):
            return not self.connection.has_output
        sent = self.flush(timeout)
        self.transport.close()
        return sent

    def refuse_data(self) -> None:
        """Accept no more data, because somebody is about to take back what was not consumed: a message accepted after
        that would be forgotten."""
        with self.writer.lock:
            self.writer.close()

    def join(self, timeout: float) -> None:
        """Wait for the link's threads to end, at most *timeout* seconds each."""
        self.reader.join(timeout)
        self.writer.join(timeout)

    # --- receiving ------------------------------------------------------------------------------------------

    def received_more(self, count: int) -> bool:
        """Take in what has been read, in the general way. See ``ReadTarget.received``."""
        try:
            if count:
                self.connection.receive(count, self)
                return True
            self.connection.receive_eof()
            cause = self._end_cause()
        except Exception as error:
            return self.failed(error)
        self._end(cause)
        return False

    def failed(self, error: BaseException) -> bool:
        """End the link because of *error*: the peer sent what it may not send, or something failed in this process that
        nobody expects. The reader stops then; so this never raises, and says why. Returns False."""
        cause = LinkBroken(f"the link to {self.name} failed inside lycomm: {type(error).__name__}: {error}")
        cause.__cause__ = error
        try:
            if isinstance(error, RemoteProtocolError):
                cause = LinkBroken(f"{self.name} broke the link's protocol: {error}")
                cause.__cause__ = error
                self.send_control(Goodbye(str(error)))
            else:
                self._report(error, "reading")
        except Exception as failure:  # no memory for a goodbye
            self._report(failure, "the goodbye")
        self._end(cause)
        return False

    def _report(self, error: BaseException, work: str) -> None:
        """Log that *work* on the link has failed, when the lock and the reader's role have been given up."""
        if is_shortage(error):
            line = f"the link to {self.name} ends: {work} failed: {describe(error)}. What helps: {remedy(error)}"
            self.monitor.say(lambda: log().error(line))
        else:
            line = f"the link to {self.name} ends: {work} failed inside lycomm; please report this"
            self.monitor.say(lambda: log().opt(exception=error).error(line))

    # Inbound.

    def on_control(self, message: Control) -> None:
        if type(message) is Ping:
            self.send_control(Pong(message.id))
        elif type(message) is Pong:
            with self.writer.lock:
                waiting = self._pong.pop(message.id, None)
            if waiting is not None:
                waiting.release()
            else:  # nobody waits for this one; it is a sign of life
                self._handler.on_control(message)
        elif type(message) is Hello:
            self._handler.on_hello(message)
        elif type(message) is Close:
            stream = self.connection.closing.stream(message.stream, asked_by_us=False)
            if stream.take_in(message.ack):
                self._handler.on_credit(stream)
            self._handler.on_close(stream)
        elif type(message) is Closed or type(message) is CloseRefused:
            closed = type(message) is Closed
            stream = self.connection.closing.stream(message.stream, asked_by_us=True)
            self.closer.answered(stream, closed=closed)
            self._handler.on_close_answered(stream, closed)
        elif type(message) is not Goodbye:
            self._handler.on_control(message)

    def _end_cause(self) -> LinkError:
        if self._close_reason is not None:
            return LinkClosed(self._close_reason)
        if self.connection.goodbye is not None:
            return LinkClosed(self.connection.goodbye or "goodbye")
        failure = self.writer.failure
        if failure is not None:
            self._report(failure, "writing")
            cause = LinkBroken(f"writing to {self.name} failed inside lycomm: {type(failure).__name__}: {failure}")
            cause.__cause__ = failure
            return cause
        return LinkBroken(f"{self.name} went away without a goodbye")

    def _end(self, cause: LinkError) -> None:
        """End the link. Each step is taken whatever becomes of the one before: a link that ends in part is one that
        nobody hears of. Nothing happens the second time."""
        if self._over:
            return
        self._over = True
        steps: tuple[Callable[[], object], ...] = (
            lambda: self.writer.end(self._left),
            self.transport.close,
            lambda: self._handler.on_end(cause),
            self._detach_sources,
            self.writer.look_whether_left,
        )
        for step in steps:
            try:
                step()
            except Exception as error:
                self._report(error, "its end")

    def _detach_sources(self) -> None:
        """Let go of the link: messages that nobody has consumed outlive it, and refer to where they came from."""
        for stream in list(self.connection.streams.values()):
            if stream.source is not None:
                stream.source.detach()

    def _left(self) -> None:
        """Nobody writes any more, nor will."""
        self.reader.at_end(self.release_transport)

    def release_transport(self) -> None:
        """Give the descriptor and the read buffer back. Only when no thread can be inside the transport any more."""
        self.decoder.release()
        release = getattr(self.transport, "release", None)
        if release is not None:
            release()


def _fastest_reader(transport: Transport, inbound: ReadTarget, name: str) -> Reader:
    if sys.platform == "linux" and isinstance(transport, SocketTransport):
        return SharedReader(transport, inbound, name)
    return ThreadReader(transport, inbound, name)
