"""A link: one connection over one transport, callable from any thread.

Theory of operation
-------------------

**Parts.** A :class:`Link` joins four objects and owns all of them:

- the transport, which carries bytes (``transport/``);
- the connection, which holds the rules of the protocol and has no lock (``protocol/connection.py``);
- the writer, which takes the lock, queues and writes (``writer.py``), and has one thread, the flusher;
- the reader, which decides which thread reads (``reader.py``, ``shared_reader.py``), and has one thread as well.

The link hands on the functions of writer and reader as attributes of its own: they are called for each message, and a
method in between would cost a call.

**Lock.** There is one, that of the :class:`Monitor`. It guards the outbound half of the connection, the writer, and
everything else of the exchange that the link belongs to. The reader does not take it: what handles a message takes it
where it has to.

**What arrives** goes from the reader through :attr:`Link.received`, a short way for a lone plain message
(``receiver.py``), or :meth:`Link.received_more`, the general way through the connection. The connection tells the link,
which implements its ``EventHandler``; the link handles ping and pong and the closing of streams, and tells the rest to
its :class:`LinkHandler`. All of that happens in the thread that reads.

**The end.** Whatever ends a link, its reader notices: somebody here has closed the transport, the peer has, or reading
has failed. So :meth:`Link._end` runs in the thread that reads, once, after everything that arrived was handled:

1. the writer accepts nothing more, and its thread ends;
2. the transport is closed, which wakes whoever is blocked in it;
3. the handler is told, with the cause;
4. messages that nobody has consumed yet let go of the link;
5. the transport's descriptors and the read buffer are given back, when neither a writer nor the reader's thread can be
   inside the transport any more. Earlier, another file could get the descriptor's number, and a write would go there.
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
    """Handles what arrives on a link: the hub's session in the host, the node in a child.

    Called by the thread that reads: one of the link, one that waits for something of it, or that of the event loop;
    never by two at once, and without the link's lock. A method must return soon, as nothing is read meanwhile. An
    exception ends the link: as the peer's fault if it is a RemoteProtocolError, else as a fault of lycomm.
    """

    def on_hello(self, hello: Hello) -> None:
        """Take the peer's greeting. The first call, unless the link ends without a greeting."""
        ...

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        """Take messages of one stream, in the order sent. Not called for a lone message that ``receiver.py`` gives to
        the stream's receiver.

        Args:
            payloads: more than one only without any flag but RAW.
            request_id: of a request or an answer; else 0.
        """
        ...

    def on_control(self, message: Control) -> None:
        """Take a control message. The link handles Hello, Goodbye, Ping, a Pong that :meth:`Link.ping` waits for, Open,
        Close and its answers itself, so that they do not come here."""
        ...

    def on_opened(self, stream: Stream) -> None:
        """Join a stream to which the peer has given a number. Its messages come after this call."""
        ...

    def on_credit(self, stream: Stream) -> None:
        """Note that the peer has consumed something of *stream*, so that there is new credit."""
        ...

    def on_close(self, stream: Stream) -> None:
        """Answer the peer, which asks to close *stream*: by ``Link.closer.answer``, before this returns."""
        ...

    def on_close_answered(self, stream: Stream, closed: bool) -> None:
        """Act on the peer's answer about *stream*, which this side has asked to close.

        Args:
            closed: True: the stream is gone, and its number may be given to another one. False: it stays open.
        """
        ...

    def on_end(self, cause: LinkError) -> None:
        """Take note of the link's end. Called exactly once, after everything that arrived was handed on.

        Args:
            cause: LinkClosed after a goodbye of either side, else LinkBroken.
        """
        ...


class Link:
    """One connection over one transport, as the module describes it.

    Args:
        transport: the link owns it from now on, and closes it.
        name: of the peer, for thread names and messages.
        monitor: guards the link, with everything else of its exchange; None: one of its own.
        reader: makes the reader; by default the fastest that this system and the transport allow.

    Attributes, all set once by the constructor except *settled*:
        transport, connection, name, monitor: as given. *connection* is only to be changed under the monitor's lock, but
            for its inbound half.
        writer, reader: the two halves of the link that have threads.
        closer: closes streams, from any thread (``closer.py``).
        settled: True: ``receiver.py`` may give a lone message to the stream's receiver. False: every message goes
            through ``LinkHandler.on_message``, e.g. to be kept for a standby. Set by the handler, before the
            link starts or under the lock; read by the reader without it.
        send, shortcut, settle, send_control, open_stream, consumed, flush, replies_written, write_queued: the methods
            of ``Writer``.
        wait, lead, look, attach_loop, detach_loop: the methods of ``Reader``.
        received, decoder: what the reader calls for what it has read, and where it reads it to (``ReadTarget``).
        on_message, on_opened, on_credit: the methods of the handler, for the connection and the short way.
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
        self._close_reason: str | None = None  # given to the first `close`; set under the lock, read at the end
        self._over = False  # the end has begun; set once, by the thread that reads
        # The pings that wait for an answer, by number. Under the lock; an entry goes with its ping.
        self._pong: dict[int, threading.Lock] = {}
        self.settled = True
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
            OSError, RuntimeError, MemoryError: no thread, descriptor or memory was to be had. The link is over. The
                transport is given back at once, or soon by the reader if that runs already; the handler hears of the
                end only in the latter case.
        """
        try:
            self.reader.start()
        except BaseException:
            self.transport.close()
            self.release_transport()  # no thread of the link has been started, so none can be inside
            raise
        try:
            self.writer.start()
        except BaseException:
            self.transport.close()  # the reader comes to the end of the stream and does the rest, see `_end`
            raise

    @property
    def ended(self) -> bool:
        """Whether no more data is accepted: the link is over, or about to be. From any thread, without the lock."""
        return self.writer.closed

    def ping(self, timeout: float) -> float | None:
        """Measure a round trip to the peer's link, which answers where it reads, whatever the peer's loop does.

        Returns the seconds it took; None if there was no answer within *timeout* seconds. Blocks the calling thread,
        which must not be one that reads just now.
        """
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
        """Say goodbye, write what is queued, and end the link. From any thread that may be blocked.

        No data is accepted after the goodbye, so what this returns holds for everything that was accepted. May
        return before the handler is told of the end; :meth:`join` waits for that. Further calls change nothing.

        Args:
            reason: for the peer, and for ``LinkClosed`` on this side.
            timeout: seconds that may pass until everything is written; what is not by then is dropped.

        Returns whether everything was given to the transport.
        """
        writer = self.writer

        def say_goodbye() -> bool:
            if writer.ended or self._close_reason is not None:
                return False
            self._close_reason = reason or "closed"
            self.connection.send_control(Goodbye(reason))
            writer.close()  # in the same step as the goodbye: no message is accepted behind it
            return True

        if not writer.queue_and_write(say_goodbye):  # another call has, or the link is over
            return not self.connection.has_output
        sent = self.flush(timeout)
        self.transport.close()
        return sent

    def refuse_data(self) -> None:
        """Accept no more data: from now on senders get LinkClosed. Called before somebody takes back what the peer has
        not consumed, as a message accepted after that would be forgotten."""
        with self.writer.lock:
            self.writer.close()

    def join(self, timeout: float) -> None:
        """Wait for the link's two threads to end, at most *timeout* seconds each. One that calls this itself is not
        waited for."""
        self.reader.join(timeout)
        self.writer.join(timeout)

    # --- receiving: called by the thread that reads -------------------------------------------------------------

    def received_more(self, count: int) -> bool:
        """Handle *count* bytes in the decoder's buffer, in the general way; 0: the stream has ended. Never raises.

        Returns whether to read on. False: the link is over, and the handler has been told.
        """
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
        """End the link because of *error*, raised where something is read or handled. Never raises, as the reader could
        do nothing about it; says in the log, or to the peer, what happened.

        A RemoteProtocolError is the peer's fault: the peer is told in the goodbye, and the handler by its cause.
        Anything else is a shortage or a fault of lycomm, and is logged.

        Returns False, so that the reader reads no more.
        """
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
        """Have it logged that *work* on the link has failed: when the lock and the reader's role have been given up, as
        a log line runs code of the user (the sinks)."""
        if is_shortage(error):
            line = f"the link to {self.name} ends: {work} failed: {describe(error)}. What helps: {remedy(error)}"
            self.monitor.say(lambda: log().error(line))
        else:
            line = f"the link to {self.name} ends: {work} failed inside lycomm; please report this"
            self.monitor.say(lambda: log().opt(exception=error).error(line))

    def on_control(self, message: Control) -> None:
        """Handle a control message, or hand it to the handler. Part of the connection's ``EventHandler``.

        Raises:
            RemoteProtocolError: a Close, or an answer to one, that the peer may not send.
        """
        if type(message) is Ping:
            self.send_control(Pong(message.id))
        elif type(message) is Pong:
            with self.writer.lock:
                waiting = self._pong.pop(message.id, None)
            if waiting is not None:
                waiting.release()
            else:  # no `ping` waits for it, or no more; to the handler it is a sign of life
                self._handler.on_control(message)
        elif type(message) is Hello:
            self._handler.on_hello(message)
        elif type(message) is Close:
            stream = self.connection.closing.stream(message.stream, asked_by_us=False)
            # A Close carries a grant of its own, as control frames may overtake a GRANT frame. With it, what this side
            # has sent is acknowledged before the handler looks whether the stream is idle.
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

    # --- the end ------------------------------------------------------------------------------------------------

    def _end_cause(self) -> LinkError:
        """Return why the byte stream has ended: our goodbye, the peer's, a failure of our writer, or none of these."""
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
        """End the link, in the steps that the module describes. By the thread that reads; a second call does nothing.

        A step that fails is logged, and the next ones are taken all the same. Otherwise the handler might never hear of
        the end, or the descriptors stay open.
        """
        if self._over:
            return
        self._over = True
        steps: tuple[Callable[[], object], ...] = (
            lambda: self.writer.end(self._left),  # first: senders get LinkClosed from here on
            self.transport.close,
            lambda: self._handler.on_end(cause),
            self._detach_sources,
            self.writer.look_whether_left,  # if nobody has the writing role, nobody would give it up and call `_left`
        )
        for step in steps:
            try:
                step()
            except Exception as error:
                self._report(error, "its end")

    def _detach_sources(self) -> None:
        """Detach each stream's source from the link. Messages that nobody has consumed outlive the link and refer to
        their source, which would keep the whole link in memory."""
        for stream in list(self.connection.streams.values()):
            if stream.source is not None:
                stream.source.detach()

    def _left(self) -> None:
        """Have the transport given back as soon as the reader's thread has left it. Called by the writer, with the lock
        held, when nobody writes any more, nor will; perhaps twice."""
        self.reader.at_end(self.release_transport)

    def release_transport(self) -> None:
        """Give the descriptors and the read buffer back. Only when no thread can be inside the transport any more; a
        second call changes nothing."""
        self.decoder.release()
        release = getattr(self.transport, "release", None)
        if release is not None:
            release()


def _fastest_reader(transport: Transport, inbound: ReadTarget, name: str) -> Reader:
    """Make the reader for *transport*: the shared one for sockets on Linux, which needs epoll; else a thread."""
    if sys.platform == "linux" and isinstance(transport, SocketTransport):
        return SharedReader(transport, inbound, name)
    return ThreadReader(transport, inbound, name)
