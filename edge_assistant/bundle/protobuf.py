"""Protocol Buffers as far as a graph's own file is read and patched: the board has no onnx package.

A message is a row of fields, each a key (number << 3 | wire type) and a value; those that hold text or messages give
their length first. The numbers of ONNX's fields are in onnx.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

_BYTES: Final = 2
"""The wire type of what has a length: strings and messages."""


def inside(message: bytes, *path: int) -> Iterator[bytes]:
    """Give the payloads of the fields of these numbers, one inside the other."""
    for number, _, payload in fields(message):
        if number == path[0]:
            yield from inside(payload, *path[1:]) if path[1:] else (payload,)


def replaced(message: bytes, wanted: int, change: Callable[[bytes], bytes]) -> bytes:
    """Return the message with the payloads of a field changed, all else as it was and in the same order."""
    parts = (field(number, change(payload)) if number == wanted else raw for number, raw, payload in fields(message))
    return b"".join(parts)


def fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Give each field's number, the field as it stands, and its payload, which is empty for numbers."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        payload = b""
        match tag & 7:
            case 0:
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(message, at)
                payload = message[at : at + length]
                at += length
            case 5:
                at += 4
            case wire_type:
                raise ValueError(f"a field of wire type {wire_type}")
        yield tag >> 3, message[start:at], payload


def field(number: int, payload: bytes) -> bytes:
    """Return a field that holds text or a message."""
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(payload)) + payload


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _as_varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))
