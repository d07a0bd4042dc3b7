"""ZeroMQ's PAIR socket over a socket file, with msgspec: the fastest library for this that is not a bare pipe."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.peers.base import DuplexPeer, End


class ZmqEnd(End):
    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode
        self._async: Any = None

    def send(self, value: Any) -> None:
        self._socket.send(self._encode(value))

    def receive(self) -> Any:
        return self._decode(self._socket.recv())

    async def areceive(self) -> Any:
        if self._async is None:
            import zmq.asyncio

            self._async = zmq.asyncio.Socket.from_socket(self._socket)
        return self._decode(await self._async.recv())


class ZmqPair(DuplexPeer):
    name = "zmq + msgspec"
    modules = ("zmq",)

    def seats(self) -> tuple[Any, Any]:
        address = f"ipc://{Path(tempfile.mkdtemp(prefix='lycomm-benchmarks-')) / 'pair'}"
        return ("bind", address), ("connect", address)

    def end(self, seat: Any, payload: Any) -> End:
        import zmq

        verb, address = seat
        sock: Any = zmq.Context.instance().socket(zmq.PAIR)
        sock.linger = 0
        getattr(sock, verb)(address)
        return ZmqEnd(sock)
