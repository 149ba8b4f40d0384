"""The Mistral architecture as an ONNX graph; the feed-forward layers of Mixtral are in `mixtral.py`.

    h = embedding[input_ids]
    for each layer:
        h += o(attention(rotate(q, k), v))      q, k, v = qkv(rms_norm(h))
        h += down(silu(gate) * up)              gate, up = gate_up(rms_norm(h))
    logits = lm_head(rms_norm(h))

Choices, each measured (onnxruntime 1.31, CPU):
- q, k and v are one matrix, and so are gate and up: fewer and larger products.
- GroupQueryAttention rotates q and k itself (heads whose size divides by 16; others are rotated before it) and writes
  keys and values into the cache that it was given: no copy of it.
- sliding_window_cache lets GroupQueryAttention drop what has left a layer's window, on the spot and exactly; the graph
  then refuses an empty past, with which other runtimes begin. local_window_size alone saves no memory and no time.
- SkipSimplifiedLayerNormalization adds a layer's output to the residual stream while it normalises the sum.
- Only the positions whose logits are asked for pass through the last layer's products and lm_head.
- In float16 all that attention reads or writes is float16, as CUDA wants it, but for the scales of an int8 cache. The
  logits become float32 at the end; a mixture's router computes in float32. Where a processor has no kernel for float16
  onnxruntime itself casts around it, and is slower for that.
- An embedding that is tied to lm_head lies once in the file: both read the same bytes, each by a name and shape of its
  own, because a Reshape of the weight would be folded into a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import onnx_ir as ir

from edge_assistant.bundle import (
    ATTENTION_MASK,
    INPUT_IDS,
    LOGITS,
    LOGITS_TO_KEEP,
    Architecture,
    LoraSpec,
    Quantization,
    key_scale,
    lora_a,
    lora_b,
    past_key,
    past_value,
    present_key,
    present_value,
    value_scale,
)
from edge_assistant_export import __version__
from edge_assistant_export.graph import MICROSOFT, GraphWriter
from edge_assistant_export.mixtral import mixture
from edge_assistant_export.quantize import Float32
from edge_assistant_export.stored import as_stored
from edge_assistant_export.weights import DenseMatrices, ExpertMatrices, Matrix, Weights

_END: Final = np.iinfo(np.int64).max


class CacheScales(NamedTuple):
    """What one step of an int8 cache is worth, float32 [n_layers, n_kv_heads, head_dim] each."""

    keys: Float32
    values: Float32


def build_graph(
    architecture: Architecture,
    quantization: Quantization,
    weights: Weights,
    norm: Callable[[str], Float32],
    cache_scales: CacheScales | None = None,
    *,
    bounded_window: bool = False,
    lora: LoraSpec | None = None,
) -> ir.Model:
    """Return the graph whose weights lie where `weights` says.

    `norm` gives the vectors of the RMS norms by their canonical names; `cache_scales` make the cache int8. With
    `bounded_window` layers that have a window drop what has left it: their past and present are one buffer, at least as
    long as the window and as much longer as its owner likes. `lora` says which matrices take an adapter's factors.
    """
    return _Mistral(
        architecture, quantization, weights, norm, cache_scales, bounded_window=bounded_window, lora=lora
    ).build()


class _Lengths(NamedTuple):
    """What attention wants to know of the rows of a batch."""

    last_positions: ir.Value
    """int32 [batch]: of each row the number of its tokens, less one."""
    total: ir.Value
    """int32 scalar: the length of the longest row."""
    positions: ir.Value | None
    """int64 [batch, seq], where heads are rotated outside of GroupQueryAttention."""


class _Mistral:
    """One graph in the making."""

    def __init__(
        self,
        architecture: Architecture,
        quantization: Quantization,
        weights: Weights,
        norm: Callable[[str], Float32],
        cache_scales: CacheScales | None,
        *,
        bounded_window: bool,
        lora: LoraSpec | None,
    ) -> None:
        self.architecture = architecture
        self.quantization = quantization
        self.float = np.dtype(quantization.dtype)
        self.weights = weights
        self.norm = norm
        self.cache_scales = cache_scales
        self.bounded_layers = architecture.windowed_layers if bounded_window else ()
        self.lora_matrices = lora.matrices if lora else ()
        self.graph = GraphWriter("mistral", weights.file)

    def build(self) -> ir.Model:
        """Write the inputs, the layers and the head."""
        graph = self.graph
        ids = graph.input(INPUT_IDS, ir.DataType.INT64, ("batch", "seq"))
        mask = graph.input(ATTENTION_MASK, ir.DataType.INT64, ("batch", "total"))
        lengths = self._lengths(ids, mask)
        past = [self._past(number) for number in range(self.architecture.n_layers)]
        first_kept = self._first_kept(ids)

        last = self.architecture.n_layers - 1
        residual = self._embed(ids)
        normed = self._first_norm(residual)
        presents: list[ir.Value] = []
        for number, layer in enumerate(self.weights.layers):
            at = f"layers.{number}."
            attended, *present = self._attention(number, normed, past[number], lengths)
            presents += present
            if number == last:
                attended, residual = (
                    self._slice(value, first_kept, _END, axis=1, name=f"{value.name}_kept")
                    for value in (attended, residual)
                )
            output = self._project(attended, layer.o, f"{at}o")
            normed, residual = self._add_and_norm(output, residual, f"{at}ffn_norm")
            output = self._feed_forward(normed, layer.feed_forward, at)
            following = "norm" if number == last else f"layers.{number + 1}.attention_norm"
            normed, residual = self._add_and_norm(output, residual, following)
        logits = self._matmul(normed, self.weights.lm_head, "lm_head_out")
        if self.float != np.float32:
            logits = graph.node("Cast", [logits], "lm_head_out_float32", to=ir.DataType.FLOAT.value)

        graph.output(logits, LOGITS, ir.DataType.FLOAT, ("batch", 1, self.architecture.vocab_size))
        for number in range(self.architecture.n_layers):
            for value, name in zip(presents[2 * number :], (present_key(number), present_value(number)), strict=False):
                graph.output(value, name, self._cache_dtype, self._cache_shape(number, "total"))
        return graph.model("edge-assistant-export", __version__, {})

    @property
    def _cache_dtype(self) -> ir.DataType:
        return self._dtype if self.cache_scales is None else ir.DataType.INT8

    @property
    def _dtype(self) -> ir.DataType:
        return ir.DataType.from_numpy(self.float)

    def _norm_weight(self, name: str) -> ir.Value:
        return self.graph.constant(name, as_stored(self.norm(name), self.float, name))

    def _cache_shape(self, number: int, positions: str) -> tuple[int | str, ...]:
        rows = "window" if number in self.bounded_layers else positions
        return ("batch", self.architecture.n_kv_heads, rows, self.architecture.head_dim)

    def _past(self, number: int) -> tuple[ir.Value, ir.Value]:
        shape = self._cache_shape(number, "past")
        return (
            self.graph.input(past_key(number), self._cache_dtype, shape),
            self.graph.input(past_value(number), self._cache_dtype, shape),
        )

    def _first_kept(self, ids: ir.Value) -> ir.Value:
        """Return the number, int64 [1], of the first token whose logits are asked for.

        It is counted from the shape of the tokens, although -keep would do: what comes of a shape onnxruntime computes
        on the CPU, and there a slice wants it. So a GPU need not be waited for in the middle of a step.
        """
        graph = self.graph
        keep = graph.input(LOGITS_TO_KEEP, ir.DataType.INT64, (), default=np.array(1, np.int64))
        seq = graph.node("Shape", [ids], "steps_shape", start=1)
        return graph.node("Max", [graph.node("Sub", [seq, keep], "before_kept"), self._index(0)], "first_kept")

    def _lengths(self, ids: ir.Value, mask: ir.Value) -> _Lengths:
        graph = self.graph
        one = graph.constant("one", np.array(1, np.int64))
        last = graph.node("Sub", [graph.node("ReduceSum", [mask, self._index(1)], "counts", keepdims=0), one], "last")
        total = graph.node("Gather", [graph.node("Shape", [mask], "mask_shape"), one], "total", axis=0)
        int32 = ir.DataType.INT32.value
        return _Lengths(
            graph.node("Cast", [last], "last_positions", to=int32),
            graph.node("Cast", [total], "total_sequence_length", to=int32),
            None if self._rotates_in_kernel else self._positions(ids, last),
        )

    def _positions(self, ids: ir.Value, last: ir.Value) -> ir.Value:
        """Return the position of every token [batch, seq]: they end with `last`, and a padded prompt begins at 0."""
        graph = self.graph
        zero, one = (graph.constant(name, np.array(number, np.int64)) for number, name in enumerate(("zero", "one")))
        seq = graph.node("Gather", [graph.node("Shape", [ids], "ids_shape"), one], "seq", axis=0)
        steps = graph.node("Range", [zero, seq, one], "steps")
        before = graph.node("Sub", [graph.node("Add", [last, one], "lengths"), seq], "before")
        first = graph.node("Unsqueeze", [graph.node("Max", [before, zero], "first"), one], "first_positions")
        return graph.node("Add", [first, steps], "positions")

    def _embed(self, ids: ir.Value) -> ir.Value:
        graph, matrix = self.graph, self.weights.embedding
        if matrix.scales is None:
            return graph.node("Gather", [graph.weight(matrix.data), ids], "embedding_out", axis=0)
        flat = (matrix.n_rows, matrix.data.nbytes // matrix.n_rows)
        inputs = [graph.weight(matrix.data, shape=flat, suffix=".rows"), ids, *map(graph.weight, matrix.places[1:])]
        hidden = graph.node(
            "GatherBlockQuantized",
            inputs,
            "embedding_out",
            domain=MICROSOFT,
            bits=matrix.bits,
            block_size=matrix.block_size,
            gather_axis=0,
            quantize_axis=1,
        )
        if matrix.row_size % matrix.block_size:
            hidden = self._slice(hidden, self._index(0), matrix.row_size, axis=2, name="embedding_cut")
        return hidden

    def _slice(self, value: ir.Value, start: ir.Value, end: int, axis: int, name: str) -> ir.Value:
        bounds = [self._index(number) for number in (end, axis)]
        return self.graph.node("Slice", [value, start, *bounds], name)

    def _index(self, number: int) -> ir.Value:
        """Return a constant of one number, int64 [1]."""
        return self.graph.constant(f"index_{number}", np.array([number], np.int64))

    def _first_norm(self, hidden: ir.Value) -> ir.Value:
        name = "layers.0.attention_norm"
        return self.graph.node(
            "SimplifiedLayerNormalization",
            [hidden, self._norm_weight(name)],
            f"{name}_out",
            axis=-1,
            epsilon=self.architecture.norm_eps,
            stash_type=1,
        )

    def _add_and_norm(self, output: ir.Value, residual: ir.Value, name: str) -> tuple[ir.Value, ir.Value]:
        """Return the norm of the sum, and the sum: the new residual stream."""
        normed, _, _, total = self.graph.nodes(
            "SkipSimplifiedLayerNormalization",
            [output, residual, self._norm_weight(name)],
            (f"{name}_out", "", "", f"{name}_residual"),
            domain=MICROSOFT,
            epsilon=self.architecture.norm_eps,
        )
        return normed, total

    def _matmul(self, value: ir.Value, matrix: Matrix, name: str) -> ir.Value:
        """Return value [batch, seq, row_size] times the transposed matrix: [batch, seq, n_rows]."""
        graph = self.graph
        if matrix.scales is None:
            return graph.node("FusedMatMul", [value, graph.weight(matrix.data)], name, domain=MICROSOFT, transB=1)
        return graph.node(
            "MatMulNBits",
            [value, *map(graph.weight, matrix.places)],
            name,
            domain=MICROSOFT,
            N=matrix.n_rows,
            K=matrix.row_size,
            bits=matrix.bits,
            block_size=matrix.block_size,
            accuracy_level=self.quantization.accuracy_level,
        )

    def _project(self, value: ir.Value, matrix: Matrix, name: str) -> ir.Value:
        """Return the product with a matrix of a layer, and with an adapter's factors where the graph takes any."""
        output = self._matmul(value, matrix, f"{name}_out")
        if name.rpartition(".")[2] not in self.lora_matrices:
            return output
        graph, rank = self.graph, f"{name}.rank"
        # By default nothing times nothing: a column of zeros, which is broadcast, and costs less than a matrix of them.
        defaults = np.zeros((matrix.row_size, 0), self.float), np.zeros((0, 1), self.float)
        a = graph.input(lora_a(name), self._dtype, (matrix.row_size, rank), defaults[0])
        b = graph.input(lora_b(name), self._dtype, (rank, f"{name}.rows"), defaults[1])
        change = graph.node("MatMul", [graph.node("MatMul", [value, a], f"{name}_narrow"), b], f"{name}_change")
        return graph.node("Add", [output, change], f"{name}_adapted")

    def _attention(
        self, number: int, normed: ir.Value, past: tuple[ir.Value, ir.Value], lengths: _Lengths
    ) -> tuple[ir.Value, ...]:
        """Return the attended values [batch, seq, n_heads * head_dim] and the present keys and values."""
        architecture = self.architecture
        at = f"layers.{number}."
        qkv = self._project(normed, self.weights.layers[number].qkv, f"{at}qkv")
        attributes: dict[str, int | float | str] = {
            "num_heads": architecture.n_heads,
            "kv_num_heads": architecture.n_kv_heads,
            "scale": architecture.head_dim**-0.5,
        }
        inputs: list[ir.Value | None]
        if self._rotates_in_kernel:
            inputs = [qkv, None, None, *past, lengths.last_positions, lengths.total, *self._rotary()]
            attributes["do_rotary"] = 1
        else:
            inputs = [
                *self._rotated(qkv, lengths, at),
                *past,
                lengths.last_positions,
                lengths.total,
                None,
                None,
            ]
        if (window := architecture.window_of(number)) is not None:
            attributes["local_window_size"] = window
        if number in self.bounded_layers:
            attributes["sliding_window_cache"] = 1
        if self.cache_scales is not None:
            inputs += [None, None, None, *self._scales(number, self.cache_scales)]
            attributes |= {"kv_cache_bit_width": 8, "k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        names = (f"{at}attended", f"{at}present_key", f"{at}present_value")
        return tuple(self.graph.nodes("GroupQueryAttention", inputs, names, domain=MICROSOFT, **attributes))

    @property
    def _rotates_in_kernel(self) -> bool:
        """GroupQueryAttention rotates only heads whose size divides by 16."""
        return self.architecture.head_dim % 16 == 0

    def _rotary(self) -> tuple[ir.Value, ir.Value]:
        return self.graph.weight(self.weights.cos), self.graph.weight(self.weights.sin)

    def _rotated(self, qkv: ir.Value, lengths: _Lengths, at: str) -> list[ir.Value]:
        """Return q and k, rotated, and v."""
        graph, architecture = self.graph, self.architecture
        heads = (architecture.n_heads, architecture.n_kv_heads, architecture.n_kv_heads)
        sizes = graph.constant("qkv_sizes", np.array(heads, np.int64) * architecture.head_dim)
        q, k, v = graph.nodes("Split", [qkv, sizes], (f"{at}q", f"{at}k", f"{at}v"), axis=-1)
        q, k = (
            graph.node(
                "RotaryEmbedding",
                [value, lengths.positions, *self._rotary()],
                f"{value.name}_rotated",
                domain=MICROSOFT,
                num_heads=n_heads,
            )
            for value, n_heads in zip((q, k), heads, strict=False)
        )
        return [q, k, v]

    def _scales(self, number: int, scales: CacheScales) -> list[ir.Value]:
        """Return what a step of the layer's keys and values is worth, [1, n_kv_heads, 1, head_dim] each."""
        return [
            self.graph.constant(name(number), array[number][np.newaxis, :, np.newaxis, :])
            for name, array in zip((key_scale, value_scale), scales, strict=True)
        ]

    def _feed_forward(self, normed: ir.Value, matrices: DenseMatrices | ExpertMatrices, at: str) -> ir.Value:
        """Return down(silu(gate) * up) (SwiGLU, arXiv 2002.05202), or a mixture of such."""
        graph = self.graph
        if isinstance(matrices, ExpertMatrices):
            return mixture(graph, self.architecture, matrices, self.quantization, normed, at)
        gate_up = self._project(normed, matrices.gate_up, f"{at}gate_up")
        gate, up = graph.nodes("Split", [gate_up], (f"{at}gate", f"{at}up"), axis=-1, num_outputs=2)
        silu = graph.node("Mul", [gate, graph.node("Sigmoid", [gate], f"{at}sigmoid")], f"{at}silu")
        return self._project(graph.node("Mul", [silu, up], f"{at}gated"), matrices.down, f"{at}down")
