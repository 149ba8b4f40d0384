"""Where a graph takes a LoRA adapter (arXiv 2106.09685) while it runs, and what the two have to agree on.

A graph that does so adds, to the product of an input x with each of some matrices of its layers, two factors more:

    y = x W' + (x A) B          A [row_size, rank], B [rank, n_rows], both inputs of the graph

    layers.N.qkv.lora_A         float [hidden, rank], an input with the default [hidden, 0]
    layers.N.qkv.lora_B         float [rank, (n_heads + 2 n_kv_heads) * head_dim], one with the default [0, 1]
    layers.N.o.lora_A           and so on for `.o`, `.gate_up` and `.down`

A float is of the type that the graph computes in; an adapter's file is float32 for either.

So without an adapter zeros are added, and a runtime that knows of none runs the same graph. A scaling by alpha and rank
is in B. Matrices that are one in the graph are apart in an adapter: A of qkv is those of q, k and v beside each other,
and B has theirs on its diagonal, so that the graph's rank is the sum of three:

    A = [A_q A_k A_v]           B = | B_q  0    0  |
                                    |  0  B_k   0  |
                                    |  0   0   B_v |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pydantic.dataclasses import dataclass

from edge_assistant.bundle.folder import STRICT, Size

if TYPE_CHECKING:
    from edge_assistant.bundle.language import Architecture

LoraMatrix = Literal["qkv", "o", "gate_up", "down"]

PARTS: Final[dict[LoraMatrix, tuple[str, ...]]] = {
    "qkv": ("q", "k", "v"),
    "o": ("o",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
}
"""What each of the graph's matrices is made of, in the order of its rows."""


@dataclass(frozen=True, slots=True, config=STRICT)
class LoraSpec:
    """The adapters that a graph takes."""

    rank: Size
    """The highest of an adapter's factors, before those of one matrix are put together."""
    matrices: tuple[LoraMatrix, ...]
    """Of each layer."""


class Shape(NamedTuple):
    """The shape of a matrix."""

    n_rows: int
    row_size: int


def lora_a(matrix: str) -> str:
    """Return the name of the input A of a matrix such as `layers.0.qkv`."""
    return f"{matrix}.lora_A"


def lora_b(matrix: str) -> str:
    """Return the name of the input B of a matrix such as `layers.0.qkv`."""
    return f"{matrix}.lora_B"


def part_shapes(architecture: Architecture, kind: LoraMatrix) -> dict[str, Shape]:
    """Return the shapes of a matrix's parts, by their names in `PARTS`."""
    hidden, ffn = architecture.hidden_size, architecture.ffn_size
    queries, keys = (count * architecture.head_dim for count in (architecture.n_heads, architecture.n_kv_heads))
    shapes = {
        "q": Shape(queries, hidden),
        "k": Shape(keys, hidden),
        "v": Shape(keys, hidden),
        "o": Shape(hidden, queries),
        "gate": Shape(ffn, hidden),
        "up": Shape(ffn, hidden),
        "down": Shape(hidden, ffn),
    }
    return {part: shapes[part] for part in PARTS[kind]}


def matrix_shape(architecture: Architecture, kind: LoraMatrix) -> Shape:
    """Return the shape of a matrix with all of its parts."""
    shapes = part_shapes(architecture, kind).values()
    return Shape(sum(shape.n_rows for shape in shapes), max(shape.row_size for shape in shapes))
