"""Redis, where there is a ``redis-server``: one for each turn, on a socket file, without anything on disk."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.peers.base import DEADLINE, DuplexPeer, End
from benchmarks.peers.stores import StorePeer

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def _missing() -> str | None:
    return None if shutil.which("redis-server") else "no redis-server on this machine"


@functools.cache
def _serve() -> str:
    """This process's server, which ends with it; returns its socket's path."""
    path = str(Path(tempfile.mkdtemp(prefix="lycomm-benchmarks-")) / "redis")
    options = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    atexit.register(server.kill)
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            _client(path).ping()
            return path
        time.sleep(0.02)  # nothing says that it is up
    raise TimeoutError(f"redis-server has not answered in {DEADLINE:g} s")


def _client(path: str) -> Any:
    import redis

    return redis.Redis(unix_socket_path=path)


class ListEnd(End):
    def __init__(self, path: str, outbox: str, inbox: str) -> None:
        client = _client(path)
        self.send = lambda value: client.rpush(outbox, _encode(value))
        self.receive = lambda: _decode(client.blpop([inbox])[1])


class PubSubEnd(End):
    def __init__(self, path: str, outbox: str, inbox: str) -> None:
        client = _client(path)
        subscription = client.pubsub(ignore_subscribe_messages=False)
        subscription.subscribe(inbox)
        messages: Iterator[Any] = subscription.listen()
        next(messages)  # that it is subscribed
        self.send = lambda value: client.publish(outbox, _encode(value))

        def receive() -> Any:
            message = next(messages)
            if message["type"] != "message":  # subscribed again: what came in between is lost
                raise ConnectionError("redis has cut off a subscriber that was too slow")
            return _decode(message["data"])

        self.receive = receive


class RedisList(DuplexPeer):
    name = "redis list"
    modules = ("redis",)

    def missing(self) -> str | None:
        return super().missing() or _missing()

    def seats(self) -> tuple[Any, Any]:
        path, there, back = _serve(), uuid.uuid4().hex, uuid.uuid4().hex
        return (path, there, back), (path, back, there)

    def end(self, seat: Any, payload: Any) -> End:
        return ListEnd(*seat)


class RedisPubSub(RedisList):
    name = "redis pubsub"

    def end(self, seat: Any, payload: Any) -> End:
        return PubSubEnd(*seat)


class RedisStore(StorePeer):
    """Each get and each set is a round trip to the server."""

    name = "redis"
    modules = ("redis",)
    subjects = ("get", "getM", "confirmed")

    def missing(self) -> str | None:
        return super().missing() or _missing()

    def make(self) -> Any:
        return self.open(_serve())

    def seat(self, store: Any) -> Any:
        return _serve()

    def open(self, seat: Any) -> Any:
        return _RedisDict(_client(seat))


class _RedisDict:
    def __init__(self, client: Any) -> None:
        self._client = client

    def get(self, key: str) -> Any:
        return _decode(self._client.get(key))

    def __setitem__(self, key: str, value: Any) -> None:
        self._client.set(key, _encode(value))
