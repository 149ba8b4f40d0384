"""Moves what onnxruntime has packed to where its kernels can read it from a mapped file.

onnxruntime 1.31 lays packed weights out by the address they are packed at, a multiple of 64, and writes them to the
file one behind the other: a blob of a length that is none shifts all that follow, whose kernels then read beside the
numbers or crash. A graph says in each initialiser where its data and packed blobs lie:

    external_data  offset = "492544"  length = "49152"  prepacked_0 = "MatMulNBits+<hash>|<offset>;<length>;<flags>|..."

So the file is written again with every piece at the start of a page, and the graph with the new offsets: of its fields
this follows ModelProto.graph (7), GraphProto.initializer (5) and TensorProto.external_data (13), and copies all others
as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from edge_assistant.bundle.protobuf import field, fields, inside, replaced

_ALIGNMENT: Final = 64
_PAGE: Final = 4096
_PIECE: Final = 16 << 20
_GRAPH, _INITIALIZER, _EXTERNAL_DATA, _KEY, _VALUE = 7, 5, 13, 1, 2
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
    for initializer in inside(model, _GRAPH, _INITIALIZER):
        for key, value in _entries(initializer).items():
            found += [int(offset) for offset, _ in _BLOB.findall(value)] if key.startswith("prepacked_") else []
    return found


def _with_places(model: bytes, place: Place) -> bytes:
    """Return the graph with every piece of its data where `place` says; pieces are asked for in the graph's order."""

    def moved(initializer: bytes) -> bytes:
        places = {key: _moved(key, value, _entries(initializer), place) for key, value in _entries(initializer).items()}
        return replaced(initializer, _EXTERNAL_DATA, lambda entry: _entry(*_renamed(entry, places)))

    return replaced(model, _GRAPH, lambda body: replaced(body, _INITIALIZER, moved))


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
    return dict(_pair(entry) for entry in inside(initializer, _EXTERNAL_DATA))


def _pair(entry: bytes) -> tuple[str, str]:
    texts = {number: payload.decode() for number, _, payload in fields(entry)}
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _renamed(entry: bytes, values: dict[str, str]) -> tuple[str, str]:
    key, _ = _pair(entry)
    return key, values[key]


def _entry(key: str, value: str) -> bytes:
    return b"".join(field(number, text.encode()) for number, text in ((_KEY, key), (_VALUE, value)))
