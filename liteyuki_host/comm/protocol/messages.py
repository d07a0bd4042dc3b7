"""What the link says: control messages, and the requests and events of the shared memory.

Rules of evolution: a message is an array tagged with a number; new fields go to the end and have a default, old
ones never change their type, a tag is never reused. ``PROTOCOL_VERSION`` grows when that is not enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from liteyuki_host._version import PROTOCOL_VERSION
from liteyuki_host.comm.errors import LocalProtocolError, RemoteProtocolError
from liteyuki_host.comm.protocol.frames import MAX_FRAME_PAYLOAD, Flag

__all__ = ["PROTOCOL_VERSION", "decode_control", "decode_event", "decode_request", "encode_message", "encode_tagged"]

STORE_STREAM = 0
"""Stream that carries the shared memory: requests to the host, events back."""

PUBLISH_STREAM = 1
"""Stream that carries publications to the host."""


# What a process sends is handed on to others, so its bounds are checked where it comes in: each type below is checked
# when a message is decoded. What breaks them ends the link of its sender, and reaches nobody else.

RequestId = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
"""A request's number. It comes back in the answer, and is counted on from; so it leaves room for that in 64 bits."""

Key = Annotated[str, msgspec.Meta(max_length=512)]
"""A key of the shared memory; ``MAX_KEY_SIZE`` of the store, which counts bytes, is not less strict."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
"""A channel's or topic's; ``check_name`` says what else it may not have in it."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]
"""A time to live. No NaN, which is neither before nor after anything and would upset the order of deadlines."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of everything below."""


# --- control lane -------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag=1):
    """First message of both sides."""

    version: int
    process: str
    pid: int
    software: str = ""
    window: int = 4 * 1024 * 1024
    message_limit: int = 16 * 1024 * 1024
    closes: bool = False  # knows Close and its answers, Undeclare and Undeclared; they are sent only if both sides do


class Goodbye(Message, frozen=True, tag=2):
    """Last message of a side that leaves on purpose, or refuses the other's greeting."""

    reason: str = ""


class Open(Message, frozen=True, tag=3):
    """From now on this stream number means this channel, or deliveries of this topic."""

    stream: int
    kind: str  # "channel" or "topic"
    name: str


class OpenRefused(Message, frozen=True, tag=4):
    stream: int
    reason: str


class Unsubscribe(Message, frozen=True, tag=5):
    """No more deliveries of the topic that this stream carries. The host closes the stream when it is idle."""

    stream: int


class HooksDone(Message, frozen=True, tag=6):
    """NoneBot's start-up hooks have returned."""

    adapters: list[str] = []
    failed_plugins: list[str] = []  # that NoneBot could not load; the bot runs without them


class Ready(Message, frozen=True, tag=7):
    """The bot can be reached (its port accepts), or has no port."""

    address: str | None = None
    details: dict[str, str] = {}


class Stop(Message, frozen=True, tag=8):
    """Please end, as if the user had pressed Ctrl+C."""

    reason: str = ""


class Ping(Message, frozen=True, tag=9):
    id: int


class Pong(Message, frozen=True, tag=10):
    id: int


class ControlRequest(Message, frozen=True, tag=11):
    """A child asks the host to do something; id 0 wants no reply."""

    id: int
    verb: str
    process: str | None = None


class ControlReply(Message, frozen=True, tag=12):
    id: int
    error: str | None = None
    value: bytes = b"\xc0"


class Subscribe(Message, frozen=True, tag=13):
    """Deliveries of the topic that this stream carries, again after an Unsubscribe; Open asks the first time."""

    stream: int


class WatchLoop(Message, frozen=True, tag=14):
    """From the host: send a Beat every `interval` seconds from now on; 0: no more."""

    interval: float


class Beat(Message, frozen=True, tag=15):
    """The bot's event loop is alive. Sent from that loop, so no beat means that it does not turn."""

    late: float = 0.0  # seconds between when the loop should have sent it and when it did


class MoreTime(Message, frozen=True, tag=16):
    """A child asks that whatever limit runs against it now (start, loop, drain, stop) be put off."""

    seconds: float
    reason: str = ""


class Drain(Message, frozen=True, tag=17):
    """Begin no new events, let the running handlers finish, and say Drained; after `timeout` seconds in any case."""

    timeout: float


class Drained(Message, frozen=True, tag=18):
    """No event is being handled any more, or the time was up; after that again when the numbers have changed."""

    unfinished: list[str] = []  # handlers that still ran, in words for the log
    refused: int = 0  # events that were not begun
    unfinished_events: int = 0  # those that were begun and not finished


class DumpStacks(Message, frozen=True, tag=19):
    """Write the stack of every thread to stderr. Done by whoever reads the link, so also while the loop is blocked."""


class ShutdownWork(Message, frozen=True, tag=20):
    """In a start that was interrupted: the shutdown hooks, or what the project does after them, run from now on; or no
    more, and only threads are waited for."""

    running: bool


class OwnExit(Message, frozen=True, tag=21):
    """The bot's own code ends it by ``sys.exit()``: its exit code is none of the launcher's."""

    place: str  # of that call, in words


class CannotStart(Message, frozen=True, tag=22):
    """The bot ends before it is ready, and no start works before somebody changes something."""

    reason: str  # what, in one line


class Close(Message, frozen=True, tag=23):
    """The sender does not use this stream any more, and nothing of it is on its way as far as the sender knows: may it
    be closed? A child asks for channels, the host for topics. The sender sends nothing on it before the answer."""

    stream: int
    ack: int  # as in a grant: control messages may go ahead of grants


class Closed(Message, frozen=True, tag=24):
    """The answer yes: its numbers are free. Nothing of either side is on its way on the stream."""

    stream: int


class CloseRefused(Message, frozen=True, tag=25):
    """The answer no: the stream is used, or something is on its way. It stays as it was."""

    stream: int


Control = (
    Hello
    | Goodbye
    | Open
    | OpenRefused
    | Unsubscribe
    | HooksDone
    | Ready
    | Stop
    | Ping
    | Pong
    | ControlRequest
    | ControlReply
    | Subscribe
    | WatchLoop
    | Beat
    | MoreTime
    | Drain
    | Drained
    | DumpStacks
    | ShutdownWork
    | OwnExit
    | CannotStart
    | Close
    | Closed
    | CloseRefused
)

# --- the shared memory: requests to the host ----------------------------------------------------------------
# `id` numbers a process's requests from 1; each is answered by one Done with the same id, or is one of an Ordered.


PUT = 1


class Put(Message, frozen=True, tag=PUT):
    id: RequestId
    key: Key
    value: bytes
    ttl: Seconds | None = None
    ephemeral: bool = False


class Remove(Message, frozen=True, tag=2):
    id: RequestId
    key: Key


class Increment(Message, frozen=True, tag=3):
    id: RequestId
    key: Key
    by: int | float


class Compare(Message, frozen=True, tag=4):
    """Write `value` (None: delete) only if the key holds `expected` (None: is missing; an encoded nil: holds that, or
    is missing), or, when `revision` is given, only if the key was last changed at that revision (0: is missing)."""

    id: RequestId
    key: Key
    expected: bytes | None
    value: bytes | None
    revision: int | None = None


class Acquire(Message, frozen=True, tag=5):
    id: RequestId
    key: Key


class Release(Message, frozen=True, tag=6):
    """Give back, or stop waiting for, the lock that the Acquire with id `holder` asked for."""

    id: RequestId
    key: Key
    holder: RequestId


class Sync(Message, frozen=True, tag=7):
    """Answered when everything that any process had written before is ordered, and sent to who asks."""

    id: RequestId


class Declare(Message, frozen=True, tag=8):
    id: RequestId
    channel: Name


class Withdraw(Message, frozen=True, tag=9):
    """Stop waiting for the lock that the Acquire with id `holder` asked for, unless it has been granted. If it has not,
    the answer is the error `held`, and its value is the name of the process that holds it."""

    id: int
    key: str
    holder: int


LOADED = 0
"""The first barrier of every child, which it reaches by itself when it has loaded its snapshot. The host answers with
the same number: from then on it waits for this child at barriers, and the child may write."""


class Reached(Message, frozen=True, tag=10):
    """Everything written before the Barrier with this number has been sent. `id` is 0: no Done answers it."""

    id: int
    barrier: int


class Undeclare(Message, frozen=True, tag=11):
    """This process does not use a channel any more that it has declared; another one may."""

    id: int
    channel: str


Request = Put | Remove | Increment | Compare | Acquire | Release | Sync | Declare | Withdraw | Reached | Undeclare

# --- the shared memory: events from the host ----------------------------------------------------------------


CHANGE = 1
ORDERED = 6


class Change(Message, frozen=True, tag=CHANGE):
    """Step `revision` of the one order of all writes: `key` has `value` now (None: is gone)."""

    revision: int
    key: str
    value: bytes | None
    ttl: float | None = None  # seconds from arrival


class Done(Message, frozen=True, tag=2):
    """The request `id` is finished. `revision` is that of its change, which came before, or the current one."""

    id: int
    error: str | None = None  # a code of `Refusal`
    value: bytes | None = None
    revision: int = 0


class Ordered(Message, frozen=True, tag=ORDERED):
    """The `count` requests from `id` on, each a Put or a Remove, are done, as the steps from `revision` on. The process
    that has asked for them gets no Change for these: it knows what it wrote."""

    id: int
    count: int
    revision: int


class SnapshotPart(Message, frozen=True, tag=3):
    items: list[tuple[str, bytes, int, float | None]]  # key, value, revision, ttl


class SnapshotEnd(Message, frozen=True, tag=4):
    """The parts before this one are the whole state at `revision`; and `channels`, with each that was Declared before
    on this link, are the names of all channels. There may be too many for one message."""

    revision: int
    channels: list[str]


class Declared(Message, frozen=True, tag=5):
    channel: str


class Barrier(Message, frozen=True, tag=7):
    """Answer with Reached, behind everything that has been written. Done by whoever reads the link, without a loop."""

    number: int


class Undeclared(Message, frozen=True, tag=8):
    """No process uses the channel any more, and its name is not known any more."""

    channel: str


Event = Change | Done | Ordered | SnapshotPart | SnapshotEnd | Declared | Barrier | Undeclared


class Publication(Message, frozen=True):
    """One publish on its way to the host."""

    topic: Name
    payload: bytes
    flags: Annotated[int, msgspec.Meta(ge=0, le=Flag.RAW)] = 0  # RAW or none


_encoder = msgspec.msgpack.Encoder()
_control_decoder: msgspec.msgpack.Decoder[Control] = msgspec.msgpack.Decoder(Control)
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_event_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_publication_decoder = msgspec.msgpack.Decoder(Publication)


def encode_message(message: Message) -> bytes:
    return _encoder.encode(message)


encode_tagged: Callable[[tuple[Any, ...]], bytes] = _encoder.encode
"""``encode_tagged((PUT, 7, "key", ...))`` is ``encode_message(Put(7, "key", ...))``, in half of the time. Every field
has to be there, also those with a default."""


def encode_change(revision: int, key: str, value: bytes | None, ttl: float | None) -> bytes:
    """A :class:`Change`, encoded."""
    return encode_tagged((CHANGE, revision, key, value, ttl))


def encode_control(message: Message) -> bytes:
    """Encode for the control lane, whose messages travel in one frame.

    Raises:
        LocalProtocolError: it would not fit.
    """
    payload = _encoder.encode(message)
    if len(payload) > MAX_FRAME_PAYLOAD:
        raise LocalProtocolError(f"a control message of {len(payload):,} bytes, the limit is {MAX_FRAME_PAYLOAD:,}")
    return payload


_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def _unreadable(what: str, error: Exception) -> RemoteProtocolError:
    return RemoteProtocolError(f"{what} that cannot be read ({error})")


def decode_control(payload: bytes | memoryview) -> Control:
    try:
        return _control_decoder.decode(payload)
    except _UNREADABLE as error:
        raise _unreadable("a control message", error) from error


def decode_request(payload: bytes | memoryview) -> Request:
    try:
        return _request_decoder.decode(payload)
    except _UNREADABLE as error:
        raise _unreadable("a shared-memory request", error) from error


def decode_event(payload: bytes | memoryview) -> Event:
    try:
        return _event_decoder.decode(payload)
    except _UNREADABLE as error:
        raise _unreadable("a shared-memory event", error) from error


decode_change: Callable[[bytes], Change] = msgspec.msgpack.Decoder(Change).decode
"""What :func:`encode_change` has made, or :func:`decode_event` has read before."""


def decode_publication(payload: bytes | memoryview) -> Publication:
    try:
        return _publication_decoder.decode(payload)
    except _UNREADABLE as error:
        raise _unreadable("a publication", error) from error
