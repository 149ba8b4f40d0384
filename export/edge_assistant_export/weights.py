"""Where every weight of a bundle lies, and from which tensors of the checkpoint it is made.

Contract: all is planned from the architecture alone, before a weight is read, so that sizes can be told and space be
taken first; `read_rows` then gives any rows of a matrix, and holds no more of the checkpoint than those.

Matrices that read the same input are one: q, k and v on top of each other, gate on top of up. Of a mixture all experts
lie in one matrix, one after the other, gate and up there with their rows in turn, which is how onnxruntime's QMoE
wants them:

    dense  gate_up = [gate; up]                                    [2 * ffn, hidden]
    experts  fc1 = [gate 0 and up 0 in turn; gate 1 and up 1; ...] [n_experts * 2 * ffn, hidden]
             fc2 = [down 0; down 1; ...]                           [n_experts * hidden, ffn]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_assistant.bundle import WEIGHTS_FILE, Architecture, Quantization
from edge_assistant_export.graph import DataFile, Place
from edge_assistant_export.quantize import Float32, n_blocks

ReadTensor = Callable[[str, slice], Float32]
"""Gives some rows of a tensor of the checkpoint by its canonical name."""


class Part(NamedTuple):
    """Some rows of a matrix: a tensor of the checkpoint, or several of one shape with their rows in turn."""

    names: tuple[str, ...]
    n_rows: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix [n_rows, row_size] of the bundle."""

    parts: tuple[Part, ...]
    """From the top."""
    n_rows: int
    row_size: int
    bits: int
    block_size: int
    """Weights to a scale; 0 for floats."""
    data: Place
    scales: Place | None
    """None for floats."""
    zero_points: Place | None
    """None where every block has the same."""
    n_experts: int = 1
    """How many equal shares of the rows multiply inputs of their own."""

    @property
    def places(self) -> tuple[Place, ...]:
        """All of its parts in the file."""
        return tuple(place for place in (self.data, self.scales, self.zero_points) if place is not None)

    @property
    def nbytes(self) -> int:
        """Bytes of all of its parts."""
        return sum(place.nbytes for place in self.places)

    def shares(self) -> Iterator[tuple[str, slice]]:
        """Give the rows that multiply the same input, by the name of their first tensor."""
        per_share, rows = len(self.parts) // self.n_experts, self.n_rows // self.n_experts
        for number in range(self.n_experts):
            yield self.parts[number * per_share].names[0], slice(number * rows, (number + 1) * rows)


class DenseMatrices(NamedTuple):
    """A feed-forward layer that every token passes."""

    gate_up: Matrix
    down: Matrix


class ExpertMatrices(NamedTuple):
    """A mixture of feed-forward layers, of which a router picks some for each token (arXiv 2401.04088)."""

    router: Matrix
    fc1: Matrix
    fc2: Matrix


class LayerMatrices(NamedTuple):
    """The matrices of a layer."""

    qkv: Matrix
    o: Matrix
    feed_forward: DenseMatrices | ExpertMatrices

    def by_name(self, at: str) -> dict[str, tuple[Matrix, ...]]:
        """Return what is quantised, by the names of `Quantization`, which begin with `at`: experts share their bits."""
        named: dict[str, tuple[Matrix, ...]] = {f"{at}qkv": (self.qkv,), f"{at}o": (self.o,)}
        if isinstance(self.feed_forward, ExpertMatrices):
            return {**named, f"{at}experts": (self.feed_forward.fc1, self.feed_forward.fc2)}
        return {**named, f"{at}gate_up": (self.feed_forward.gate_up,), f"{at}down": (self.feed_forward.down,)}


@dataclass(frozen=True, slots=True)
class Weights:
    """All that lies in the file of weights, in the order of the file."""

    file: DataFile
    cos: Place
    sin: Place
    embedding: Matrix
    layers: tuple[LayerMatrices, ...]
    lm_head: Matrix
    """The embedding itself where they are tied."""

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Every matrix once."""
        of_layers = (matrix for layer in self.layers for matrix in (layer.qkv, layer.o, *layer.feed_forward))
        return (self.embedding, *of_layers, *(() if self.lm_head is self.embedding else (self.lm_head,)))

    @property
    def by_name(self) -> dict[str, tuple[Matrix, ...]]:
        """All that is quantised, by the names of `Quantization`, in the order of the file."""
        named: dict[str, tuple[Matrix, ...]] = {"embedding": (self.embedding,)}
        for number, layer in enumerate(self.layers):
            named |= layer.by_name(f"layers.{number}.")
        return named if self.lm_head is self.embedding else {**named, "lm_head": (self.lm_head,)}


def plan_weights(architecture: Architecture, quantization: Quantization) -> Weights:
    """Decide where every weight lies."""
    return _Plan(architecture, quantization).whole()


def read_rows(matrix: Matrix, read: ReadTensor, rows: slice) -> Float32:
    """Return some rows of a matrix, `rows.start` to `rows.stop`, as float32 [rows, row_size]."""
    found, first = [], 0
    for part in matrix.parts:
        start, stop = max(rows.start - first, 0), min(rows.stop - first, part.n_rows)
        if start < stop:
            found.append(_rows_in_turn(part.names, read, start, stop))
        first += part.n_rows
    return found[0] if len(found) == 1 else np.concatenate(found)


def _rows_in_turn(names: Sequence[str], read: ReadTensor, start: int, stop: int) -> Float32:
    """Return rows `start` to `stop` of tensors whose rows take turns."""
    if len(names) == 1:
        return read(names[0], slice(start, stop))
    first, last = start // len(names), -(-stop // len(names))
    turns = np.stack([read(name, slice(first, last)) for name in names], axis=1)
    return turns.reshape(-1, turns.shape[-1])[start - first * len(names) : stop - first * len(names)]


class _Plan:
    """The file of weights in the making."""

    def __init__(self, architecture: Architecture, quantization: Quantization) -> None:
        self._architecture = architecture
        self._quantization = quantization
        self._float = np.dtype(quantization.dtype)
        self._file = DataFile(WEIGHTS_FILE)

    def whole(self) -> Weights:
        architecture = self._architecture
        vocab, hidden = architecture.vocab_size, architecture.hidden_size
        cos, sin = (
            self._file.place(f"rotary.{name}", self._float, (architecture.max_positions, architecture.head_dim // 2))
            for name in ("cos", "sin")
        )
        embedding = self._matrix("embedding", [Part(("embedding",), vocab)], hidden)
        layers = tuple(self._layer(number) for number in range(architecture.n_layers))
        lm_head = embedding
        if not architecture.tied_embedding:
            lm_head = self._matrix("lm_head", [Part(("lm_head",), vocab)], hidden)
        return Weights(self._file, cos, sin, embedding, layers, lm_head)

    def _layer(self, number: int) -> LayerMatrices:
        architecture, at = self._architecture, f"layers.{number}."
        q_size, kv_size = (heads * architecture.head_dim for heads in (architecture.n_heads, architecture.n_kv_heads))
        hidden = architecture.hidden_size
        qkv = [Part((f"{at}{name}",), size) for name, size in (("q", q_size), ("k", kv_size), ("v", kv_size))]
        return LayerMatrices(
            qkv=self._matrix(f"{at}qkv", qkv, hidden),
            o=self._matrix(f"{at}o", [Part((f"{at}o",), hidden)], q_size),
            feed_forward=self._experts(at) if architecture.n_experts else self._dense(at),
        )

    def _dense(self, at: str) -> DenseMatrices:
        hidden, ffn = self._architecture.hidden_size, self._architecture.ffn_size
        gate_up = [Part((f"{at}gate",), ffn), Part((f"{at}up",), ffn)]
        return DenseMatrices(
            gate_up=self._matrix(f"{at}gate_up", gate_up, hidden),
            down=self._matrix(f"{at}down", [Part((f"{at}down",), hidden)], ffn),
        )

    def _experts(self, at: str) -> ExpertMatrices:
        """Plan a mixture: a router, which stays float32 as it is small and decides all, and two matrices of experts."""
        hidden, ffn = self._architecture.hidden_size, self._architecture.ffn_size
        experts = [f"{at}experts.{number}." for number in range(self._architecture.n_experts)]
        fc1 = [Part((f"{expert}gate", f"{expert}up"), 2 * ffn) for expert in experts]
        fc2 = [Part((f"{expert}down",), hidden) for expert in experts]
        router = self._file.place(f"{at}router", np.float32, (len(experts), hidden))
        return ExpertMatrices(
            router=Matrix((Part((f"{at}router",), len(experts)),), len(experts), hidden, 32, 0, router, None, None),
            fc1=self._matrix(f"{at}fc1", fc1, hidden, f"{at}experts", len(experts)),
            fc2=self._matrix(f"{at}fc2", fc2, ffn, f"{at}experts", len(experts)),
        )

    def _matrix(
        self, name: str, parts: Sequence[Part], row_size: int, known_as: str | None = None, n_experts: int = 1
    ) -> Matrix:
        """Plan a matrix, of which the quantisation speaks by its own name or by another."""
        bits = self._quantization.bits_of(known_as or name)
        n_rows, block_size = sum(part.n_rows for part in parts), self._quantization.block_size_of(known_as or name) or 0
        if bits == self._quantization.float_bits:
            data = self._file.place(name, self._float, (n_rows, row_size))
            return Matrix(tuple(parts), n_rows, row_size, bits, 0, data, None, None, n_experts)
        blocks, zeros = n_blocks(row_size, block_size), None
        data = self._file.place(name, np.uint8, (n_rows, blocks, block_size * bits // 8))
        scales = self._file.place(f"{name}.scales", self._float, (n_rows, blocks))
        if self._quantization.zero_points:
            zeros = self._file.place(f"{name}.zero_points", np.uint8, (n_rows, -(-blocks * bits // 8)))
        return Matrix(tuple(parts), n_rows, row_size, bits, block_size, data, scales, zeros, n_experts)
