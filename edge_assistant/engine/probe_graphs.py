"""What a provider has to compute as the processor does before a bundle is trusted to it: its kinds of operators, small.

An operator that there is code for may still be wrong: it may read weights in another order, or have been built for
another GPU. So each is a graph of its own, with the attributes, types and blocks that the bundle has; what is given to
it is drawn at random, always the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge_assistant.engine.onnx_file import Attribute, Constant, Value, one_operator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from edge_assistant.bundle import Manifest, Quantization

_SIZE: Final = 256
"""Rows and columns of the weights: a multiple of every block, and of what kernels for GPUs take at once."""
_ROWS: Final = 8
"""Of the cache."""
_TOKENS: Final = 3
_EXPERTS: Final = 4
_CHOSEN: Final = 2
# As the exporter's mixtures have it, which the board cannot import: a test holds the two together.
_SWIGLU: Final[dict[str, Attribute]] = {
    "activation_type": "swiglu",
    "swiglu_fusion": 1,
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
    "normalize_routing_weights": 1,
}


class Probe(NamedTuple):
    """An operator, and what to compute with it."""

    what: str
    graph: bytes
    feeds: tuple[Mapping[str, NDArray[Any]], ...]
    """Of one run each; the first output is what has to be right."""


class _Kind(NamedTuple):
    """How a matrix is stored."""

    bits: int
    block_size: int | None
    """None for floats."""

    def __str__(self) -> str:
        return f"{self.bits} bits" + (f" in blocks of {self.block_size}" if self.block_size else "")


def probes(manifest: Manifest) -> Iterator[Probe]:
    """Yield the operators that a bundle's graph is made of: attention, products of quantised weights, experts."""
    architecture, quantization = manifest.architecture, manifest.quantization
    for window in sorted({architecture.window_of(layer) or 0 for layer in range(architecture.n_layers)}):
        yield _attention(manifest, window)
    names = ["embedding", "lm_head"]
    parts = ("qkv", "o") if architecture.n_experts else ("qkv", "o", "gate_up", "down")
    names += [f"layers.{layer}.{part}" for layer in range(architecture.n_layers) for part in parts]
    for kind in _kinds(quantization, names) if quantization.quantized else ():
        yield _product(quantization, kind)
    experts = [f"layers.{layer}.experts" for layer in range(architecture.n_layers)] if architecture.n_experts else []
    for kind in _kinds(quantization, experts):
        yield _experts(quantization, kind)


def _kinds(quantization: Quantization, names: list[str]) -> list[_Kind]:
    return sorted({_Kind(quantization.bits_of(name), quantization.block_size_of(name)) for name in names})


def _attention(manifest: Manifest, window: int) -> Probe:
    """Attention of heads that share a key; a window of 0 is none."""
    architecture, dtype, cache = manifest.architecture, manifest.quantization.dtype, manifest.cache.type
    group, head = architecture.n_heads // architecture.n_kv_heads, architecture.head_dim
    rotary, rotates = _rotary(head, dtype)
    scales, quantizes = _cache_scales(head) if cache == "int8" else ([], {})
    sizes = {"qkv": group + 2} if rotates else {"query": group, "key": 1, "value": 1}
    read = [Value(name, dtype, (1, None, n_heads * head)) for name, n_heads in sizes.items()]
    rows = (1, 1, _ROWS, head)
    past = [Value("past_key", cache, rows), Value("past_value", cache, rows)]
    lengths = [Value("last_positions", "int32", (1,)), Value("total", "int32", ())]
    outputs = [
        Value("attended", dtype, (1, None, group * head)),
        Value("present_key", cache, rows),
        Value("present_value", cache, rows),
    ]
    attributes: dict[str, Attribute] = {"num_heads": group, "kv_num_heads": 1, "scale": head**-0.5}
    attributes |= {"local_window_size": min(window, _TOKENS)} if window else {}
    inputs: list[Value | Constant | None] = [*read, *[None] * (3 - len(read)), *past, *lengths, *rotary, *scales]
    graph = one_operator("GroupQueryAttention", inputs, outputs, attributes | rotates | quantizes)
    # A prompt, and a token behind it: other kernels attend there.
    steps = ((0, _TOKENS), (_TOKENS, 1))
    feeds = tuple(_read(read, tokens) | _past(past, start) | _lengths(start + tokens) for start, tokens in steps)
    return Probe(f"attention in {dtype} over a cache of {cache}", graph, feeds)


def _read(values: list[Value], tokens: int) -> dict[str, NDArray[Any]]:
    return {value.name: _drawn((1, tokens, value.shape[-1] or 0), value.dtype) for value in values}


def _past(values: list[Value], tokens: int) -> dict[str, NDArray[Any]]:
    """Return caches that hold so many tokens."""
    feed = {}
    for number, value in enumerate(values):
        rows = np.random.default_rng(number).integers(-64, 65, [size or 0 for size in value.shape])
        rows[:, :, tokens:] = 0
        feed[value.name] = rows.astype(np.int8) if value.dtype == "int8" else (rows / 64).astype(value.dtype)
    return feed


def _lengths(total: int) -> dict[str, NDArray[Any]]:
    return {"last_positions": np.array([total - 1], np.int32), "total": np.array(total, np.int32)}


def _rotary(head: int, dtype: str) -> tuple[list[Constant | None], dict[str, Attribute]]:
    if head % 16:  # the exporter lets the kernel rotate no such heads
        return [None, None], {}
    angles = np.outer(np.arange(_ROWS), 0.5 ** np.arange(head // 2))
    tables: list[Constant | None] = [
        Constant("cos", np.cos(angles).astype(dtype)),
        Constant("sin", np.sin(angles).astype(dtype)),
    ]
    return tables, {"do_rotary": 1}


def _cache_scales(head: int) -> tuple[list[Constant | None], dict[str, Attribute]]:
    scale = Constant("scale", np.full((1, 1, 1, head), 1 / 64, np.float32))
    types: dict[str, Attribute] = {
        "kv_cache_bit_width": 8,
        "k_quant_type": "PER_CHANNEL",
        "v_quant_type": "PER_CHANNEL",
    }
    return [None, None, None, scale, scale], types


def _product(quantization: Quantization, kind: _Kind) -> Probe:
    block = kind.block_size or _SIZE
    data, *grid = _weights(quantization, kind, "weights", (_SIZE,))
    data = data._replace(array=data.array.reshape(_SIZE, _SIZE // block, -1))
    inputs: list[Value | Constant] = [Value("x", quantization.dtype, (None, _SIZE)), data, *grid]
    attributes = {"N": _SIZE, "K": _SIZE, "bits": kind.bits, "block_size": block}
    graph = one_operator("MatMulNBits", inputs, [Value("y", quantization.dtype, (None, _SIZE))], attributes)
    # One row is multiplied by another kernel than several.
    feeds = tuple({"x": _drawn((tokens, _SIZE), quantization.dtype)} for tokens in (1, _TOKENS))
    return Probe(f"a product with weights of {kind} in {quantization.dtype}", graph, feeds)


def _experts(quantization: Quantization, kind: _Kind) -> Probe:
    dtype = quantization.dtype
    fc1 = _weights(quantization, kind, "fc1", (_EXPERTS, 2 * _SIZE))
    fc2 = _weights(quantization, kind, "fc2", (_EXPERTS, _SIZE))
    sizes = {"x": _SIZE, "routes": _EXPERTS}
    inputs = [*(Value(name, dtype, (None, size)) for name, size in sizes.items()), *fc1[:2], None, *fc2[:2]]
    inputs += [None, None, None, None, *fc1[2:], *fc2[2:]] if quantization.zero_points else []
    op_type, attributes = "MoE", _SWIGLU | {"k": _CHOSEN}
    if kind.block_size is not None:
        op_type, attributes = "QMoE", attributes | {"expert_weight_bits": kind.bits, "block_size": kind.block_size}
        attributes |= {} if dtype == "float32" else {"weights_prepacked": 0}
    graph = one_operator(op_type, inputs, [Value("y", dtype, (None, _SIZE))], attributes)
    # A token alone is routed by a kernel of its own.
    feeds = tuple({name: _drawn((tokens, size), dtype) for name, size in sizes.items()} for tokens in (1, _TOKENS))
    return Probe(f"a mixture of experts of {kind} in {dtype}", graph, feeds)


def _weights(quantization: Quantization, kind: _Kind, name: str, rows: tuple[int, ...]) -> list[Constant]:
    """Return `rows` of _SIZE weights each as operators take them: floats, or integers, scales, perhaps zero points."""
    if kind.block_size is None:
        return [Constant(name, _drawn((*rows, _SIZE), quantization.dtype) / np.dtype(quantization.dtype).type(16))]
    blocks = _SIZE // kind.block_size
    step = np.full((*rows, blocks), 2.0 ** (1 - kind.bits) / 16, quantization.dtype)
    matrix = [Constant(name, _bytes((*rows, _SIZE * kind.bits // 8))), Constant(f"{name}.scales", step)]
    if quantization.zero_points:
        matrix.append(Constant(f"{name}.zero_points", _bytes((*rows, -(-blocks * kind.bits // 8)))))
    return matrix


def _bytes(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _drawn(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype)
