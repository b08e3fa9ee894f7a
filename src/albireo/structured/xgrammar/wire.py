"""What host.py and worker.py say to each other: frames over sockets of one machine, and orders with a descriptor
beside.

A frame is the length of its payload, four bytes little-endian, and the payload; an answer has its status in front.
"""

from __future__ import annotations

import array
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

#: What became of a question: an answer; the library's reason; too little memory; a token outside the grammar, whose
#: place follows; a matcher that is not known, so all of its tokens have to be told.
DONE, FAILED, NO_MEMORY, REFUSED, UNKNOWN = range(5)
#: Orders: a grammar, whose socket comes with it; the end of one.
BEGIN, END = b"b", b"e"
STATUS = struct.Struct("<i")
_LENGTH = struct.Struct("<I")
_ANSWER = struct.Struct("<IB")
_ORDER = struct.Struct("<cI")


@dataclass(frozen=True, slots=True)
class Question:
    """Which tokens may come after these.

    Fields:
        matcher_id: of the sequence.
        num_kept: tokens that the process has read of it before; what it has read behind them is to be forgotten.
        dropped: matchers that nobody asks any more.
        token_ids: those behind num_kept.
    """

    matcher_id: int
    num_kept: int
    dropped: Sequence[int]
    token_ids: Sequence[int]

    def pack(self) -> bytes:
        """As a payload."""
        numbers = [self.matcher_id, self.num_kept, len(self.dropped), *self.dropped, *self.token_ids]
        return struct.pack(f"<{len(numbers)}I", *numbers)

    @classmethod
    def unpack(cls, payload: bytes) -> Question:
        """From a payload."""
        matcher_id, num_kept, num_dropped, *rest = struct.unpack(f"<{len(payload) // 4}I", payload)
        return cls(matcher_id, num_kept, rest[:num_dropped], rest[num_dropped:])


def send(connection: socket.socket, status: int, payload: bytes) -> None:
    """An answer."""
    connection.sendall(_ANSWER.pack(len(payload), status) + payload)


def receive_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and payload. Raises: EOFError when the other side is gone; TimeoutError as the socket has it."""
    length, status = _ANSWER.unpack(_exactly(connection, _ANSWER.size))
    return status, _exactly(connection, length)


def ask(connection: socket.socket, payload: bytes) -> None:
    """A frame."""
    connection.sendall(_LENGTH.pack(len(payload)) + payload)


def receive(connection: socket.socket) -> bytes:
    """The payload of a frame. Raises: EOFError when the other side is gone."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return _exactly(connection, length)


def order(connection: socket.socket, kind: bytes, pid: int = 0, descriptor: int | None = None) -> int:
    """Tell the worker. Returns: the number it answers with. Raises: OSError, EOFError when it is gone."""
    socket.send_fds(connection, [_ORDER.pack(kind, pid)], [] if descriptor is None else [descriptor])
    (status,) = STATUS.unpack(_exactly(connection, STATUS.size))
    return int(status)


def receive_order(connection: socket.socket) -> tuple[tuple[bytes, int] | None, list[int]]:
    """Kind and process of an order, and the descriptors beside it; None when the other side is gone."""
    data, descriptors, _, _ = socket.recv_fds(connection, _ORDER.size, 1, socket.MSG_WAITALL)
    if len(data) < _ORDER.size:
        return None, []
    kind, pid = _ORDER.unpack(data)
    return (kind, pid), list(descriptors)


def pack_tokens(tokens: Sequence[bytes]) -> bytes:
    """The tokens of a vocabulary, one after the other, behind their lengths."""
    lengths = array.array("I", [len(tokens), *map(len, tokens)])
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths.tobytes() + b"".join(tokens)


def unpack_tokens(payload: bytes) -> list[bytes]:
    """See pack_tokens()."""
    (num,) = _LENGTH.unpack_from(payload)
    lengths = struct.unpack_from(f"<{num}I", payload, 4)
    tokens, at = [], 4 + 4 * num
    for length in lengths:
        tokens.append(payload[at : at + length])
        at += length
    return tokens


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError("the other side is gone")
        parts += part
    return bytes(parts)
