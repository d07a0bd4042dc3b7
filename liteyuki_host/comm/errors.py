"""Every error of lycomm, in one tree.

::

    LycommError
    ├── HostNotAttached              this process does not run under a host
    ├── WouldBlockEventLoop          a call that waits was made on a running event loop
    ├── AsyncioNeeded                an ``a...`` form was awaited where no event loop of asyncio runs (trio)
    ├── ReentrantCall                a finalizer or signal handler called from the middle of our own work
    ├── ValueRefused                 (TypeError) this value cannot travel; the message names the place in it
    ├── ValueTooLarge                (ValueError) it can, but not at this size
    ├── ValueUnreadable              (ValueError) what arrived or was stored cannot be decoded; only this call fails
    ├── ProtocolError
    │   ├── LocalProtocolError       we tried something the protocol forbids: a bug here
    │   └── RemoteProtocolError      the peer did: the link is closed, and says why
    ├── LinkError
    │   ├── LinkClosed               we closed it
    │   └── LinkBroken               it went away; the message has the cause
    ├── RequestError
    │   ├── RequestTimeout           (TimeoutError) no answer in time; the other end may still do the work
    │   ├── RequestCycle             callbacks wait for each other's answers
    │   └── RemoteError              the peer's handler failed; its traceback is in ``remote_traceback``
    ├── ChannelError
    │   ├── UnknownChannel           (KeyError) no channel of that name has been declared
    │   ├── ChannelModeError         the other of the two receive modes is already in use here
    │   ├── ChannelTaken             two other processes are already the two ends of this channel
    │   ├── ChannelFull              the window is full, and waiting would freeze the event loop
    │   ├── ChannelClosed            we closed it, or this process is shutting down
    │   ├── ChannelBroken            the other end went away while somebody waited for its answer
    │   └── ReceiveTimeout           (TimeoutError) nothing arrived in time
    ├── SharedMemoryError
    │   ├── SharedMemoryFull         the shared memory has reached its size limit; nothing was written
    │   ├── NotANumber               (TypeError) ``incr`` of something that is not a number
    │   ├── LockNotHeld              releasing a lock that is not, or no longer, ours
    │   ├── LockTimeout              (RequestTimeout) another holder kept the lock too long
    │   └── WatchOverrun             a watch was read too slowly; read the current state and watch again
    └── HostError
        ├── HostNotRunning           there is no running host in this process
        ├── SettingsError            a setting is wrong; one line for each
        └── ProcessError
            ├── UnknownProcess       (KeyError) no process of that name is declared
            └── ProcessFailed        it could not be started, or did not become ready

The first branch answers whose fault it was. Errors that end a link never leave it: whoever used a
channel over it gets a ChannelError, whoever waited for an answer a RequestError.
"""

from __future__ import annotations

__all__ = [
    "AsyncioNeeded",
    "ChannelBroken",
    "ChannelClosed",
    "ChannelError",
    "ChannelFull",
    "ChannelModeError",
    "ChannelTaken",
    "HostError",
    "HostNotAttached",
    "HostNotRunning",
    "LinkBroken",
    "LinkClosed",
    "LinkError",
    "LocalProtocolError",
    "LockNotHeld",
    "LockTimeout",
    "LycommError",
    "NotANumber",
    "ProcessError",
    "ProcessFailed",
    "ProtocolError",
    "ReceiveTimeout",
    "ReentrantCall",
    "RemoteError",
    "RemoteProtocolError",
    "RequestCycle",
    "RequestError",
    "RequestTimeout",
    "SettingsError",
    "SharedMemoryError",
    "SharedMemoryFull",
    "UnknownChannel",
    "UnknownProcess",
    "ValueRefused",
    "ValueTooLarge",
    "ValueUnreadable",
    "WatchOverrun",
    "WouldBlockEventLoop",
]


class LycommError(Exception):
    """Root of every error that lycomm raises on purpose."""


class _Lookup(LycommError, KeyError):
    """A missing name. KeyError prints its argument's repr; people should read the sentence."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class HostNotAttached(LycommError):
    """The call needs the host, and this process was not started by one (a plain ``nb run``, a test)."""


class ReentrantCall(LycommError):
    """A finalizer, a signal handler or the like, which Python ran in the middle of lycomm's own work on this thread,
    has called something that cannot be put off until that work is done. Nothing was done."""


class WouldBlockEventLoop(LycommError, RuntimeError):
    """A call that waits was made on a running event loop, which it would freeze. Use its ``a...`` form."""


class AsyncioNeeded(LycommError, RuntimeError):
    """An ``a...`` form was awaited, or a hook called, where no event loop of asyncio runs: on trio, or on none. Nothing
    was done."""


class ValueRefused(LycommError, TypeError):
    """The value cannot travel between processes. Nothing was sent; the message names the place in the value."""


class ValueTooLarge(LycommError, ValueError):
    """The encoded value is above the size limit. Nothing was sent."""


class ValueUnreadable(LycommError, ValueError):
    """A value that arrived, or lies in the shared memory, cannot be decoded, or is not of the expected type.

    Only this call fails: the link, the channel and the other values are as they were. A message is consumed by it.
    """


class ProtocolError(LycommError):
    """The rules of the link were broken."""


class LocalProtocolError(ProtocolError):
    """We tried something that the protocol forbids: a bug in lycomm, please report it."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol forbids. The link is closed and nothing of it is used."""


class LinkError(LycommError):
    """The link to the other process cannot be used."""


class LinkClosed(LinkError):
    """This process closed the link."""


class LinkBroken(LinkError):
    """The link went away under us: the other process ended or broke the protocol."""


class RequestError(LycommError):
    """A request got no good answer."""


class RequestTimeout(RequestError, TimeoutError):
    """No answer in time. The other end may still do the work."""


class RequestCycle(RequestError):
    """The request could never be answered: the callback that would answer it is waiting, directly or through others,
    for the callback that made it. It was not handled there."""


class RemoteError(RequestError):
    """The other end's handler raised.

    Attributes:
        type_name: the class of its exception, as text.
        remote_traceback: its traceback, as text; not for chat users' eyes.
    """

    def __init__(self, type_name: str, message: str, remote_traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.remote_traceback = remote_traceback


class ChannelError(LycommError):
    """A channel cannot do what was asked."""


class UnknownChannel(_Lookup, ChannelError):
    """No channel of that name has been declared by any process."""


class ChannelModeError(ChannelError):
    """This side of the channel is already used in the other receive mode. Nothing changed."""


class ChannelTaken(ChannelError):
    """Two other processes are the two ends of this channel; it has no third."""


class ChannelFull(ChannelError):
    """The channel's window is full and waiting would freeze the event loop. Nothing was sent: use ``asend``."""


class ChannelClosed(ChannelError):
    """This process closed the channel, or is shutting down. A receive loop may end on it."""


class ChannelBroken(ChannelError):
    """The other end went away while a call waited for its answer. Whether the work was done is unknown."""


class ReceiveTimeout(ChannelError, TimeoutError):
    """Nothing arrived in time. The channel is as it was."""


class SharedMemoryError(LycommError):
    """An operation on the shared memory was refused. Nothing was written."""


class SharedMemoryFull(SharedMemoryError):
    """The write would exceed the shared memory's size limit. Nothing was written."""


class NotANumber(SharedMemoryError, TypeError):
    """``incr`` was asked of a value that is not a number. Nothing was written."""


class LockNotHeld(SharedMemoryError):
    """The lock to release is not, or no longer, held by this holder."""


class LockTimeout(SharedMemoryError, RequestTimeout):
    """The lock was held by somebody else for the whole time limit. The host has decided so: who asked waits no longer.
    Also a RequestTimeout, and so a TimeoutError, for programs that treat all time limits alike.

    Attributes:
        key: the lock's name.
        holder: the process that held it when the time was up.
    """

    def __init__(self, message: str, *, key: str, holder: str) -> None:
        super().__init__(message)
        self.key = key
        self.holder = holder


class WatchOverrun(SharedMemoryError):
    """Changes came faster than the watch was read. Read the current state, then watch again."""


class HostError(LycommError):
    """The host cannot do what was asked."""


class HostNotRunning(HostError):
    """There is no host in this process."""


class SettingsError(HostError):
    """One or more settings are wrong; the text has one line for each."""


class ProcessError(HostError):
    """A supervised process cannot do what was asked."""


class UnknownProcess(_Lookup, ProcessError):
    """No process of that name is declared."""


class ProcessFailed(ProcessError):
    """The process could not be started or did not become ready; the text says why and what to do."""
