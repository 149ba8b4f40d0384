"""The model in plain numpy: what every other implementation is held against.

    h = embedding[ids]
    for each layer:
        q, k, v = W_q x, W_k x, W_v x                  x = rms_norm(h)
        h += W_o attention(rotate(q), rotate(k), v)
        h += W_down (silu(W_gate x) * W_up x)          x = rms_norm(h), or a mixture of such
    logits = W_head rms_norm(h)

Everything is float32. The checkpoint is read once, a layer's matrices at a time, for all texts together: they lie one
after the other along the first axis of h [n, hidden], and part only where a text attends to itself. So a 7B is read
once, whatever the number of texts, and at most three of its matrices are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

import numpy as np

from edge_assistant.bundle import frequencies
from edge_assistant_export.checkpoint import ModelConfig
from edge_assistant_export.rotary import attention_factor
from edge_assistant_export.safetensors_file import Float32

Int64 = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class Tensors(Protocol):
    """Where the weights of a model come from: a `Checkpoint`, or one that something was done to."""

    @property
    def config(self) -> ModelConfig:
        """The architecture."""

    def tensor(self, name: str, rows: slice | None = None) -> Float32:
        """Return a tensor, or some rows of it, by its canonical name."""


class Observer:
    """Told what passes through the layers, of all texts together; by itself it lets everything pass.

    It may also change what passes: rows of the embedding, products and routes go through it.
    """

    positions = 1024
    """How many pass through a feed-forward layer at a time."""

    def start(self, model: Tensors, ids: Int64) -> tuple[int, Float32]:
        """Return the first layer that texts are to pass, and what goes into it, [n, hidden]."""
        return 0, self.embed(model, ids)

    def passed(self, layers: int, hidden: Float32) -> None:
        """See what has passed so many layers, [n, hidden]."""

    def keys_and_values(self, layer: int, keys: Float32, values: Float32) -> None:
        """See a layer's keys before rotation and its values, [n, n_kv_heads, head_dim] each."""

    def inputs(self, name: str, x: Float32, residual: Float32 | None = None) -> None:
        """See what a matrix is about to multiply, [n, in], by the matrix's canonical name.

        Matrices that read the same are told of once, by the first: q for k and v, gate for up. What goes into `down`
        comes in parts. An expert is shown the positions that chose it. `residual`
        [n, out] is what the product will be added to, where that is all that happens to it.
        """

    def routes(self, layer: int, chosen: Int64) -> Int64:  # noqa: ARG002
        """See which experts each position chose, [n, n_experts_per_token], and return which it is to have."""
        return chosen

    def embed(self, model: Tensors, ids: Int64) -> Float32:
        """Return the embedding's rows [n, hidden]; only those are read, since the whole can be gigabytes."""
        unique, places = np.unique(ids, return_inverse=True)
        rows = [model.tensor("embedding", slice(number, number + 1)) for number in unique.tolist()]
        return np.concatenate(rows)[places]

    def product(self, model: Tensors, name: str) -> Callable[[Float32], Float32]:
        """Return what makes the product with a matrix, [n, in] -> [n, out]; its inputs have been told of."""
        return partial(_linear, weight=model.tensor(name))


# Rows of lm_head that are in memory at a time.
_HEAD_ROWS: Final = 8192
# Rows that are made into silu of them at a time.
_SILU_ROWS: Final = 256


class Past:
    """The rotated keys and the values of one text so far, so that it can be continued."""

    def __init__(self, config: ModelConfig) -> None:
        """Begin with nothing; one token of the text is n_kv_heads * head_dim numbers twice a layer."""
        nothing = np.empty((0, config.n_kv_heads, config.head_dim), np.float32)
        self.layers = [(nothing, nothing)] * config.n_layers

    def __len__(self) -> int:
        """Return how many positions it holds."""
        return len(self.layers[0][0])

    def extend(self, layer: int, keys: Float32, values: Float32) -> tuple[Float32, Float32]:
        """Append the keys and values of new positions to a layer, and return all of them."""
        old_keys, old_values = self.layers[layer]
        self.layers[layer] = np.concatenate((old_keys, keys)), np.concatenate((old_values, values))
        return self.layers[layer]


class Positions(NamedTuple):
    """Where texts that lie one after the other along an axis have their places."""

    places: tuple[slice, ...]
    """Of each text."""
    angles: Float32
    """By how much each pair of channels is turned, [n, head_dim/2]."""
    stretch: np.float32
    """By how much rotated queries and keys are longer."""

    @classmethod
    def of(cls, config: ModelConfig, texts: Sequence[Sequence[int]], pasts: Sequence[Past]) -> Positions:
        """Return those of texts that continue their pasts."""
        bounds = np.cumsum([0, *(len(text) for text in texts)]).tolist()
        numbers = [len(past) + np.arange(len(text)) for past, text in zip(pasts, texts, strict=True)]
        angles = rotary_angles(config, np.concatenate(numbers))
        places = tuple(slice(start, stop) for start, stop in pairwise(bounds))
        return cls(places, angles, np.float32(attention_factor(config)))


def forward(model: Tensors, ids: Sequence[int]) -> Float32:
    """Return the logits [n, vocab] of every position of a text."""
    return next(forward_all(model, [ids]))


def forward_all(model: Tensors, texts: Sequence[Sequence[int]]) -> Iterator[Float32]:
    """Give the logits [n, vocab] of each text in turn; the layers are read once, lm_head once a text."""
    for hidden in hidden_states(model, texts):
        yield logits(model, hidden)


def hidden_states(
    model: Tensors,
    texts: Sequence[Sequence[int]],
    pasts: Sequence[Past] | None = None,
    observer: Observer | None = None,
) -> list[Float32]:
    """Return what each text is after the last norm, [n, hidden] each; with pasts, the texts continue those."""
    config, observer = model.config, observer or Observer()
    pasts = pasts or [Past(config) for _ in texts]
    positions = Positions.of(config, texts, pasts)
    first, hidden = observer.start(model, np.concatenate(texts))
    for layer in range(first, config.n_layers):
        hidden += attend(model, layer, hidden, positions, pasts, observer)
        hidden += feed_forward(model, layer, hidden, observer)
        observer.passed(layer + 1, hidden)
    hidden = last_norm(model, hidden)
    observer.inputs(_head(config), hidden)
    return [hidden[place] for place in positions.places]


def attend(
    model: Tensors,
    layer: int,
    hidden: Float32,
    positions: Positions,
    pasts: Sequence[Past],
    observer: Observer,
) -> Float32:
    """Return what a layer's attention adds to texts [n, hidden], whose keys and values the pasts take in."""
    config, at = model.config, f"layers.{layer}"
    x = rms_norm(hidden, model.tensor(f"{at}.attention_norm"), config.norm_eps)
    observer.inputs(f"{at}.q", x)
    q, k, v = (
        observer.product(model, f"{at}.{name}")(x).reshape(len(x), -1, config.head_dim) for name in ("q", "k", "v")
    )
    observer.keys_and_values(layer, k, v)
    q, k = (rotate(one, positions.angles) * positions.stretch for one in (q, k))
    attended = np.concatenate(
        [
            attention(q[place], *past.extend(layer, k[place], v[place]), config.window_of(layer))
            for place, past in zip(positions.places, pasts, strict=True)
        ]
    )
    observer.inputs(f"{at}.o", attended, hidden)
    return observer.product(model, f"{at}.o")(attended)


def feed_forward(model: Tensors, layer: int, hidden: Float32, observer: Observer) -> Float32:
    """Return what a layer's feed-forward part, or mixture of such, adds to texts [n, hidden]."""
    config, at = model.config, f"layers.{layer}"
    x = rms_norm(hidden, model.tensor(f"{at}.ffn_norm"), config.norm_eps)
    if config.n_experts:
        return _mixture(model, layer, x, observer)
    return _feed_forward(model, at, x, observer, hidden)


def last_norm(model: Tensors, hidden: Float32) -> Float32:
    """Return what lm_head multiplies, [n, hidden], of what left the last layer."""
    return rms_norm(hidden, model.tensor("norm"), model.config.norm_eps)


def logits(model: Tensors, hidden: Float32) -> Float32:
    """Return the logits [n, vocab] of hidden states [n, hidden]."""
    head = _head(model.config)
    result = np.empty((len(hidden), model.config.vocab_size), np.float32)
    for start in range(0, result.shape[1], _HEAD_ROWS):
        rows = slice(start, start + _HEAD_ROWS)
        result[:, rows] = _linear(hidden, model.tensor(head, rows))
    return result


def _head(config: ModelConfig) -> str:
    return "embedding" if config.tied_embedding else "lm_head"


def rms_norm(x: Float32, weight: Float32, eps: float) -> Float32:
    """Divide each row by its root mean square (arXiv 1910.07467)."""
    mean_square: Float32 = np.mean(x * x, axis=-1, keepdims=True)
    normed: Float32 = x / np.sqrt(mean_square + np.float32(eps)) * weight
    return normed


def rotary_angles(config: ModelConfig, positions: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Float32:
    """Return by how much each pair of channels is turned at positions [n]: [n, head_dim/2]."""
    # In float64 and less than a turn, since float32 has too few digits for the angle of a late position.
    turns: Float32 = (np.outer(positions, frequencies(config)) % (2 * np.pi)).astype(np.float32)
    return turns


def rotate(x: Float32, angles: Float32) -> Float32:
    """Turn the pairs (j, j + head_dim/2) of every head of x [n, heads, head_dim] by their angles [n, head_dim/2]."""
    cos, sin = np.cos(angles)[:, np.newaxis], np.sin(angles)[:, np.newaxis]
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)


def attention(q: Float32, keys: Float32, values: Float32, window: int | None) -> Float32:
    """Return [n, n_heads * head_dim]: each of the last n of `total` positions attends to itself and what is before.

    q is [n, n_heads, head_dim], keys and values are [total, n_kv_heads, head_dim]: n_heads / n_kv_heads heads share
    one of keys and values (arXiv 2305.13245). With a window, a position sees that many, itself among them.
    """
    (n, n_heads, head_dim), (total, n_kv_heads, _) = q.shape, keys.shape
    distance = np.arange(total - n, total)[:, np.newaxis] - np.arange(total)
    seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    mask = np.where(seen, np.float32(0), np.float32(-np.inf))
    out = np.empty_like(q)
    for shared, heads in enumerate(np.split(np.arange(n_heads), n_kv_heads)):
        scores = q[:, heads].swapaxes(0, 1) @ keys[:, shared].T * np.float32(head_dim**-0.5) + mask
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[:, heads] = (weights @ values[:, shared]).swapaxes(0, 1)
    return out.reshape(n, -1)


def _feed_forward(model: Tensors, at: str, x: Float32, observer: Observer, residual: Float32 | None = None) -> Float32:
    """Return SwiGLU's output [n, hidden] (arXiv 2002.05202)."""
    down: Callable[[Float32], Float32] | None = None
    observer.inputs(f"{at}.gate", x)
    gate, up = (observer.product(model, f"{at}.{name}") for name in ("gate", "up"))
    out = np.empty_like(x)
    for start in range(0, len(x), observer.positions):
        some = slice(start, start + observer.positions)
        gated = _silu(gate(x[some]))
        gated *= up(x[some])
        observer.inputs(f"{at}.down", gated, None if residual is None else residual[some])
        down = down or observer.product(model, f"{at}.down")
        out[some] = down(gated)
    return out


def _silu(x: Float32) -> Float32:
    """Make g into silu(g) = g / (1 + e^-g), in place, a few rows at a time."""
    for start in range(0, len(x), _SILU_ROWS):
        some = x[start : start + _SILU_ROWS]
        # tanh says the same without overflow.
        some *= (np.tanh(some / 2) + 1) / 2
    return x


def _mixture(model: Tensors, layer: int, x: Float32, observer: Observer) -> Float32:
    """Return the weighted sum of each position's experts [n, hidden] (arXiv 2401.04088); read one expert at a time."""
    at, config = f"layers.{layer}", model.config
    observer.inputs(f"{at}.router", x)
    wanted = observer.product(model, f"{at}.router")(x)
    chosen = np.argsort(-wanted, axis=-1, kind="stable")[:, : config.n_experts_per_token]
    chosen = observer.routes(layer, chosen)
    weights = np.take_along_axis(wanted, chosen, axis=-1)
    weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = np.zeros_like(x)
    for expert in range(config.n_experts):
        positions, rank = np.nonzero(chosen == expert)
        if len(positions):
            said = _feed_forward(model, f"{at}.experts.{expert}", x[positions], observer)
            out[positions] += weights[positions, rank, np.newaxis] * said
    return out


def _linear(x: Float32, weight: Float32) -> Float32:
    """Return x [n, in] times the transposed weight [out, in]."""
    return x @ weight.T
