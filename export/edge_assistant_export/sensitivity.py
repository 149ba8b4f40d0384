"""What rounding one matrix to 4 bits does to the whole model: measured, for every matrix, in one pass of the layers.

    sensitivity   mean KL divergence, in nats, from the checkpoint's distribution of the next token to that of the
                  checkpoint with this matrix alone in 4 bits

Nothing is estimated on the way: the texts pass through the reference (`reference.py`) once as they are, and once for
every matrix with that one rounded. All these streams grow out of the exact one where their matrix lies, so that what is
before it is computed once. Only what is then made of the numbers rests on an assumption, that what two matrices cost
adds up; on home-mini the sum of all is within 11 % of what all of them cost together.

Matrices are rounded by `quantize.py`, also where the bundle's will be by a method that reads text: that one mends all
of them, and the order stays. On home-mini the sets chosen by either were as near to the checkpoint as each other.
What 8 bits cost is left out: their steps are a seventeenth, and the KL divergence goes with the square.

Of the texts, 1,024 to 2,048 tokens are read, about 512 at a time. For n layers that is 2n + 3 times the reference's
work on them; the streams are in memory, 4n + 2 of them with 512 * hidden numbers each, and no more of the checkpoint
than the reference holds. A 7B: the work of some 70,000 to 140,000 tokens in float32, and a gigabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant.bundle import SMALL_BLOCK
from edge_assistant_export.quantize import Float32, dequantize, quantize
from edge_assistant_export.reference import (
    Observer,
    Past,
    Positions,
    Tensors,
    attend,
    feed_forward,
    last_norm,
    logits,
)
from edge_assistant_export.verify import log_softmax
from edge_assistant_export.weights import plan_weights

if TYPE_CHECKING:
    from collections.abc import Set

    from edge_assistant.bundle import Quantization
    from edge_assistant_export.sample import Progress
    from edge_assistant_export.weights import Matrix

_BITS: Final = 4
_LEAST_TOKENS: Final = 1024
_TOKENS_AT_ONCE: Final = 512
# Rows of a tensor by which blocks of two sizes are compared.
_ROWS: Final = 512
# A step reads its matrices once for so many streams.
_STREAMS_AT_ONCE: Final = 8

Step = Callable[[Tensors, Float32], Float32]
"""Part of a layer: gives what it adds to texts [n, hidden], which may be several streams one after the other."""


def sensitivities(
    checkpoint: Tensors, how: Quantization, texts: Sequence[Sequence[int]], progress: Progress | None = None
) -> dict[str, float]:
    """Return the sensitivity of all that is quantised, by the names of `Quantization`, in the order of the file.

    `how` says in which blocks and whether with zero points; `progress` is told of the layers.
    """
    weights = plan_weights(checkpoint.config, how)
    rounded = {name: _Rounded(checkpoint, _tensors(matrices), how) for name, matrices in weights.by_name.items()}
    batches = list(_batches(texts))
    n_layers, n_tokens = checkpoint.config.n_layers, sum(len(text) for batch in batches for text in batch)
    found = dict.fromkeys(rounded, 0.0)
    for number, batch in enumerate(batches):

        def tell(layers: int, done: int = number * n_layers) -> None:
            if progress is not None:
                progress(done + layers, len(batches) * n_layers)

        for name, kl in _divergences(checkpoint, rounded, batch, tell):
            found[name] += kl / n_tokens
    return found


def saved_by_small_blocks(checkpoint: Tensors, how: Quantization, matrices: Sequence[Matrix]) -> float:
    """Return the share of a matrix's squared error in 4 bits that blocks of 32 spare, by some of its rows."""
    small = replace(how, block_size=SMALL_BLOCK)
    errors = np.zeros(2)
    for name in sorted(_tensors(matrices)):
        n_rows = next(
            part.n_rows // len(part.names) for matrix in matrices for part in matrix.parts if name in part.names
        )
        start = max(0, n_rows - _ROWS) // 2
        weight = checkpoint.tensor(name, slice(start, start + min(n_rows, _ROWS)))
        errors += [np.square(_in_4_bits(weight, blocks) - weight, dtype=np.float64).sum() for blocks in (how, small)]
    return float(1 - errors[1] / errors[0]) if errors[0] else 0.0


def _in_4_bits(weight: Float32, how: Quantization) -> Float32:
    """Return what a board reads of rows in 4 bits."""
    packed = quantize(weight, _BITS, how.block_size or weight.shape[1], zero_points=how.zero_points)
    return dequantize(packed, _BITS, weight.shape[1])


class _Rounded:
    """A checkpoint some of whose tensors are what a board reads of them in 4 bits."""

    def __init__(self, checkpoint: Tensors, tensors: Set[str], how: Quantization) -> None:
        self.config = checkpoint.config
        self._checkpoint, self._tensors, self._how = checkpoint, tensors, how

    def tensor(self, name: str, rows: slice | None = None) -> Float32:
        """Return a tensor, or some rows of it."""
        weight = self._checkpoint.tensor(name, rows)
        return _in_4_bits(weight, self._how) if name in self._tensors else weight


def _tensors(matrices: Sequence[Matrix]) -> frozenset[str]:
    return frozenset(name for matrix in matrices for part in matrix.parts for name in part.names)


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Give texts from all over, as many as are read at a time."""
    batch: list[Sequence[int]] = []
    for text in texts[:: max(1, sum(map(len, texts)) // _LEAST_TOKENS)]:
        if batch and sum(map(len, batch)) + len(text) > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(text)
    yield batch


def _divergences(
    checkpoint: Tensors, rounded: Mapping[str, Tensors], texts: Sequence[Sequence[int]], tell: Callable[[int], None]
) -> Iterator[tuple[str, float]]:
    """Give of each name the KL divergence, summed over the positions of the texts."""
    ids = np.concatenate(texts)
    exact, streams = Observer().embed(checkpoint, ids), {"embedding": Observer().embed(rounded["embedding"], ids)}
    for layer in range(checkpoint.config.n_layers):
        inside = [name for name in rounded if name.startswith(f"layers.{layer}.")]
        attention = [name for name in inside if name.endswith((".qkv", ".o"))]
        rest = [name for name in inside if name not in attention]
        for names, step in ((attention, _attention(layer, texts)), (rest, _feed_forward(layer))):
            begun = {name: exact + step(rounded[name], exact) for name in names}
            _advance(checkpoint, step, [exact, *streams.values()])
            streams |= begun
        tell(layer + 1)
    if not checkpoint.config.tied_embedding:
        streams["lm_head"] = exact
    log_p = log_softmax(logits(checkpoint, last_norm(checkpoint, exact)))
    for name, hidden in streams.items():
        log_q = log_softmax(logits(rounded[name], last_norm(checkpoint, hidden)))
        yield name, float((np.exp(log_p) * (log_p - log_q)).sum(dtype=np.float64))


def _attention(layer: int, texts: Sequence[Sequence[int]]) -> Step:
    def step(model: Tensors, hidden: Float32) -> Float32:
        all_texts = list(texts) * (len(hidden) // sum(map(len, texts)))
        pasts = [Past(model.config) for _ in all_texts]
        return attend(model, layer, hidden, Positions.of(model.config, all_texts, pasts), pasts, Observer())

    return step


def _feed_forward(layer: int) -> Step:
    return lambda model, hidden: feed_forward(model, layer, hidden, Observer())


def _advance(model: Tensors, step: Step, streams: Sequence[Float32]) -> None:
    """Add to each stream what a step adds."""
    for start in range(0, len(streams), _STREAMS_AT_ONCE):
        some = streams[start : start + _STREAMS_AT_ONCE]
        added = step(model, np.concatenate(some))
        for hidden, part in zip(some, np.split(added, len(some)), strict=True):
            np.add(hidden, part, out=hidden)
