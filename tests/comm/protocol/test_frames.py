"""Frames do not depend on how their bytes arrive, and are judged by their header alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol.frames import (
    BUFFER_SIZE,
    HEADER,
    KINDS,
    MAX_FRAME_PAYLOAD,
    FrameDecoder,
    Kind,
    encode_frame,
)

Plain = tuple[int, int, int, int, bytes]

ONE_OF_EACH: list[Plain] = [
    (Kind.CONTROL, 0, 0, 0, b""),
    (Kind.MESSAGE, 1, 2, 3, b"a"),
    (Kind.BATCH, 0, 0, 0, b"\x90" * 300),
    (Kind.CHUNK, 96, 65535, 0, b"x" * 5000),
    (Kind.GRANT, 0, 7, 0xFFFFFFFF, bytes(range(256))),
]
STREAM = b"".join(encode_frame(k, p, flags=f, stream=s, ack=a) for k, f, s, a, p in ONE_OF_EACH)


def feed(decoder: FrameDecoder, data: bytes) -> list[Plain]:
    """Give *data* to the decoder as one read and copy out what it completes."""
    decoder.free[: len(data)] = data
    frames = [(*head, bytes(payload)) for *head, payload in decoder.buffer_updated(len(data))]
    decoder.compact()
    return frames


def feed_in_steps(decoder: FrameDecoder, data: bytes, step: int) -> list[Plain]:
    return [frame for i in range(0, len(data), step) for frame in feed(decoder, data[i : i + step])]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 11, 13, len(STREAM)], ids=lambda n: f"{n}-byte reads")
def test_frames_do_not_depend_on_how_the_bytes_arrive(step: int) -> None:
    assert feed_in_steps(FrameDecoder(), STREAM, step) == ONE_OF_EACH


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_every_kind_in_every_chunking(kind: int, step: int) -> None:
    data = encode_frame(kind, b"payload", flags=5, stream=6, ack=7)
    assert feed_in_steps(FrameDecoder(), data + data, step) == [(kind, 5, 6, 7, b"payload")] * 2


@pytest.mark.parametrize("missing", range(1, 20))
def test_an_unfinished_frame_waits_for_the_rest(missing: int) -> None:
    whole = encode_frame(Kind.MESSAGE, b"1234567")  # 12 + 7 bytes
    decoder = FrameDecoder()
    assert feed(decoder, whole + whole[:-missing]) == [(Kind.MESSAGE, 0, 0, 0, b"1234567")]
    assert feed(decoder, whole[-missing:]) == [(Kind.MESSAGE, 0, 0, 0, b"1234567")]


def test_nothing_makes_nothing() -> None:
    decoder = FrameDecoder()
    assert feed(decoder, b"") == []
    assert feed(decoder, STREAM[:1]) == []
    assert feed(decoder, b"") == []
    assert feed(decoder, STREAM[1:]) == ONE_OF_EACH


def test_an_oversized_frame_is_refused_on_its_header() -> None:
    decoder = FrameDecoder()
    header = HEADER.pack(MAX_FRAME_PAYLOAD + 1, Kind.MESSAGE, 0, 2, 0)
    assert feed(decoder, header[:11]) == []
    with pytest.raises(RemoteProtocolError, match="a frame of 262,209 bytes, the limit is 262,208 bytes"):
        feed(decoder, header[11:])


def test_the_largest_frame_fits_the_buffer_behind_an_unfinished_one() -> None:
    decoder = FrameDecoder()
    payload = b"z" * MAX_FRAME_PAYLOAD
    data = encode_frame(Kind.CHUNK, payload)
    assert feed(decoder, data[:-1]) == []
    room = decoder.free
    assert len(room) == BUFFER_SIZE - len(data) + 1
    assert feed(decoder, data[-1:] + data[: len(room) - 1]) == [(Kind.CHUNK, 0, 0, 0, payload)]
    assert len(decoder.free) > 0
    assert feed(decoder, data[len(room) - 1 :]) == [(Kind.CHUNK, 0, 0, 0, payload)]


@pytest.mark.parametrize("kind", [0, 6, 17, 255])
def test_an_unknown_kind_is_refused_on_its_header(kind: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"unknown kind {kind}; the other side speaks another protocol"):
        feed(FrameDecoder(), HEADER.pack(1000, kind, 0, 0, 0))


@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_good_frames_before_a_bad_one_are_handed_out_in_every_chunking(step: int) -> None:
    """They used to be dropped when the bad header came with the same read."""
    decoder = FrameDecoder()
    data = STREAM + HEADER.pack(1 << 31, Kind.MESSAGE, 0, 0, 0)
    got: list[Plain] = []
    with pytest.raises(RemoteProtocolError, match="a frame of 2,147,483,648 bytes"):  # noqa: PT012
        for i in range(0, len(data), step):
            part = data[i : i + step]
            decoder.free[: len(part)] = part
            got += [(*head, bytes(payload)) for *head, payload in decoder.buffer_updated(len(part))]
            decoder.compact()
    assert got == ONE_OF_EACH


def test_an_ack_is_sent_modulo_two_to_the_32() -> None:
    [frame] = feed(FrameDecoder(), encode_frame(Kind.MESSAGE, ack=(1 << 32) + 5))
    assert frame[3] == 5


frames = st.lists(
    st.tuples(
        st.sampled_from(sorted(KINDS)),
        st.integers(0, 255),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=200),
    ),
    max_size=20,
)


@given(frames, st.data())
def test_any_frames_in_any_chunking_are_the_same_frames(sent: list[Plain], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(k, p, flags=f, stream=s, ack=a) for k, f, s, a, p in sent)
    decoder = FrameDecoder()
    got: list[Plain] = []
    while stream:
        step = data.draw(st.integers(1, len(stream)))
        got += feed(decoder, stream[:step])
        stream = stream[step:]
    assert got == sent
