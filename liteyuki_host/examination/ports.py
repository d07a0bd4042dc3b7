"""Where bots would listen, and who is there already. Addresses are bound for a moment; nothing listens."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from liteyuki_host._child.listening import places_of, try_to_bind
from liteyuki_host.wording import one_line, shown, why

EVERY_ADDRESS = {"0.0.0.0", "::"}


@dataclass(frozen=True)
class Place:
    """Where one bot's server would listen."""

    host: str = ""
    port: int = 0
    uds: str | None = None
    """A Unix socket's path, relative to the project's folder, instead of host and port."""

    @classmethod
    def of(cls, listens: Any) -> Place | None:
        """From what a trial or a survey says; None: no server, a port that the system chooses, or unknown."""
        if isinstance(listens, list | tuple) and len(listens) == 2:
            listens = {"host": listens[0], "port": listens[1]}
        if not isinstance(listens, Mapping):
            return None
        host, port, uds = (listens.get(key) for key in ("host", "port", "uds"))
        if isinstance(uds, str):
            return cls(uds=uds)
        if isinstance(host, str) and isinstance(port, int) and 0 < port < 65536:
            return cls(host, port)
        return None

    def __str__(self) -> str:
        return f"port {self.port} on {one_line(self.host, 100)}"


@dataclass(frozen=True)
class Taken:
    """An address that is in use, and the process that listens there."""

    pid: int | None
    """None: the system does not tell."""
    program: str = ""

    def __str__(self) -> str:
        return f"{self.program} (pid {self.pid})" if self.pid is not None else "another program"


@dataclass(frozen=True)
class Refused:
    """An address that cannot be bound for another reason."""

    words: str


def look_at(place: Place) -> Taken | Refused | None:
    """Whether a server could listen there; None: yes. May block for as long as a host name is looked up."""
    try:
        for family, where in places_of(place.host, place.port):
            try_to_bind(family, where)
    except OSError as exc:
        return _listener(place) if exc.errno == errno.EADDRINUSE else Refused(why(exc))
    except (ValueError, OverflowError) as exc:  # a host name that is none
        return Refused(why(exc))
    return None


def both_want(one: Place, folder: Path, other: Place, other_folder: Path) -> bool:
    """Whether two servers would be in each other's way. Host names are not looked up."""
    if one.uds is not None or other.uds is not None:
        if one.uds is None or other.uds is None:
            return False
        return (folder / one.uds).absolute() == (other_folder / other.uds).absolute()
    return one.port == other.port and _meet(_addresses(one.host), _addresses(other.host))


def is_part_of(pid: int, ancestors: Mapping[int, str]) -> str | None:
    """The name in *ancestors* of *pid* itself or of the process that has started it, directly or not."""
    try:
        line = [pid, *(parent.pid for parent in psutil.Process(pid).parents())]
    except psutil.Error:
        line = [pid]
    return next((ancestors[each] for each in line if each in ancestors), None)


def no_socket_folder(place: Place, folder: Path) -> str | None:
    """Why the Unix socket cannot be made; None: nothing speaks against it."""
    assert place.uds is not None
    if not hasattr(socket, "AF_UNIX"):
        return "this system has no Unix sockets: use HOST and PORT"
    parent = (folder / place.uds).parent
    try:
        if parent.is_dir():
            return None
    except (OSError, ValueError):
        pass
    return f"cannot listen on unix:{shown(place.uds)}: folder {shown(parent)} does not exist: create it"


def _addresses(host: str) -> list[str]:
    name = host.strip("[]")
    return ["127.0.0.1", "::1"] if name == "localhost" else [name]


def _meet(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two of them are the same address, or one stands for all of its family."""
    return any(
        (":" in one) == (":" in other) and (one == other or not EVERY_ADDRESS.isdisjoint((one, other)))
        for one in some
        for other in others
    )


def _listener(place: Place) -> Taken:
    for pid, address, port in _listening():
        # "::" may also be every IPv4 address, as its owner likes.
        if port == place.port and (address == "::" or _meet([address], _addresses(place.host))):
            try:
                return Taken(pid, one_line(psutil.Process(pid).name(), 50))
            except psutil.Error:
                return Taken(pid, "a process")
    return Taken(None)


def _listening() -> Iterator[tuple[int, str, int]]:
    """Pid, address and port of each listener that the system tells of; macOS tells root only."""
    with contextlib.suppress(psutil.Error, OSError, RuntimeError):
        for each in psutil.net_connections(kind="tcp"):
            if each.status == psutil.CONN_LISTEN and each.pid and each.laddr:
                yield each.pid, each.laddr.ip, each.laddr.port
