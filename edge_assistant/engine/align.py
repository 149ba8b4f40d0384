"""Moves what onnxruntime has packed to where its kernels can read it from a mapped file.

onnxruntime 1.31 lays packed weights out by the address they are packed at, a multiple of 64, and writes them to the
file one behind the other: a blob of a length that is none shifts all that follow, whose kernels then read beside the
numbers or crash. A graph says in each initialiser where its data and packed blobs lie:

    external_data  offset = "492544"  length = "49152"  prepacked_0 = "MatMulNBits+<hash>|<offset>;<length>;<flags>|..."

So the file is written again with every piece at the start of a page, and the graph with the new offsets. The board has
no onnx package: protobuf is a list of numbered fields, of which this follows ModelProto.graph (7),
GraphProto.initializer (5) and TensorProto.external_data (13), and copies all others as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

_ALIGNMENT: Final = 64
_PAGE: Final = 4096
_PIECE: Final = 16 << 20
_GRAPH, _INITIALIZER, _EXTERNAL_DATA, _KEY, _VALUE = 7, 5, 13, 1, 2
_BYTES: Final = 2
"""The wire type of what has a length: strings and messages."""
_BLOB: Final = re.compile(r"\|(\d+);(\d+);")

Place = Callable[[int, int], int]
"""Takes where some bytes lie and how many they are, returns where they are to lie."""


def align(graph: Path, data: Path) -> None:
    """Write a graph and its data anew where packed blobs are not aligned; else leave both as they are.

    For a moment the data takes its space twice.
    """
    model = graph.read_bytes()
    if all(offset % _ALIGNMENT == 0 for offset in _blob_offsets(model)):
        return
    aligned = data.with_name(f"{data.name}.aligned")
    with data.open("rb") as source, aligned.open("wb") as target:
        model = _with_places(model, lambda offset, length: _copy(source, target, offset, length))
    aligned.replace(data)
    graph.write_bytes(model)


def _blob_offsets(model: bytes) -> list[int]:
    """Return where the packed blobs of a graph lie."""
    found: list[int] = []
    for initializer in _inside(model, _GRAPH, _INITIALIZER):
        for key, value in _entries(initializer).items():
            found += [int(offset) for offset, _ in _BLOB.findall(value)] if key.startswith("prepacked_") else []
    return found


def _with_places(model: bytes, place: Place) -> bytes:
    """Return the graph with every piece of its data where `place` says; pieces are asked for in the graph's order."""

    def moved(initializer: bytes) -> bytes:
        places = {key: _moved(key, value, _entries(initializer), place) for key, value in _entries(initializer).items()}
        return _replaced(initializer, _EXTERNAL_DATA, lambda entry: _entry(*_renamed(entry, places)))

    return _replaced(model, _GRAPH, lambda body: _replaced(body, _INITIALIZER, moved))


def _moved(key: str, value: str, entries: dict[str, str], place: Place) -> str:
    if key == "offset":
        return str(place(int(value), int(entries["length"])))
    if key.startswith("prepacked_"):
        return _BLOB.sub(lambda blob: f"|{place(int(blob[1]), int(blob[2]))};{blob[2]};", value)
    return value


def _copy(source: BinaryIO, target: BinaryIO, offset: int, length: int) -> int:
    """Append bytes at the start of the next page; return where that is."""
    start = target.seek(-(-target.tell() // _PAGE) * _PAGE)
    source.seek(offset)
    while length:
        piece = source.read(min(length, _PIECE))
        if not piece:
            raise OSError(f"{source.name} ends {length} bytes before its graph says")
        target.write(piece)
        length -= len(piece)
    return start


def _entries(initializer: bytes) -> dict[str, str]:
    """Return what an initialiser says of its data in the file, nothing where it has none."""
    return dict(_pair(entry) for entry in _inside(initializer, _EXTERNAL_DATA))


def _pair(entry: bytes) -> tuple[str, str]:
    fields = {number: payload.decode() for number, _, payload in _fields(entry)}
    return fields.get(_KEY, ""), fields.get(_VALUE, "")


def _renamed(entry: bytes, values: dict[str, str]) -> tuple[str, str]:
    key, _ = _pair(entry)
    return key, values[key]


def _entry(key: str, value: str) -> bytes:
    return b"".join(_field(number, text.encode()) for number, text in ((_KEY, key), (_VALUE, value)))


def _inside(message: bytes, *path: int) -> Iterator[bytes]:
    """Give the payloads of the fields of these numbers, one inside the other."""
    for number, _, payload in _fields(message):
        if number == path[0]:
            yield from _inside(payload, *path[1:]) if path[1:] else (payload,)


def _replaced(message: bytes, field: int, change: Callable[[bytes], bytes]) -> bytes:
    """Return the message with the payloads of a field changed, all else as it was and in the same order."""
    parts = (_field(field, change(payload)) if number == field else raw for number, raw, payload in _fields(message))
    return b"".join(parts)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
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


def _field(number: int, payload: bytes) -> bytes:
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
