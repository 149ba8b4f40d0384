"""The loaded graph, with the cache bound to it: with `runtime.py`, which loads it, all that knows onnxruntime.

Every layer's cache is bound as past and as present, the same memory, so a step copies nothing; the logits of the last
position land in one buffer that the next step overwrites. What a step still has to bind is the tokens and the
attention mask, both views of buffers that are allocated once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from edge_assistant import bundle as names
from edge_assistant.engine.runtime import load_graph
from edge_assistant.errors import BundleGraphError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from edge_assistant.bundle import Bundle, Manifest
    from edge_assistant.config import EngineSettings
    from edge_assistant.engine.kv_cache import KvCache

_ONNX_TYPES = {"float32": "tensor(float)", "int8": "tensor(int8)"}


class Session:
    """A graph and one sequence: `run` reads tokens at the end of the context and extends it by them."""

    def __init__(
        self,
        bundle: Bundle,
        cache: KvCache,
        settings: EngineSettings,
        prepacked: Path | None = None,
        profile: Path | None = None,
    ) -> None:
        """Load the graph and bind the cache; `prepacked` and `profile` are as for `load_graph`.

        Raises:
            BundleGraphError: onnxruntime cannot load the graph, or it is not the one the manifest describes.
        """
        self.cache = cache
        self.vocab_size = bundle.manifest.architecture.vocab_size
        self._prefill_chunk = settings.prefill_chunk
        self._session = load_graph(bundle, settings, prepacked, profile)
        if problems := _mismatches(self._session, bundle.manifest):
            raise BundleGraphError(bundle.graph_path, problems)
        self._mask = np.ones((1, cache.capacity), np.int64)
        self._logits: NDArray[np.float32] = np.empty((1, 1, self.vocab_size), np.float32)
        self._step = self._bind_cache()
        self._step.bind_ortvalue_output(names.LOGITS, ort.OrtValue.ortvalue_from_numpy(self._logits))
        self._rows_step = self._bind_cache()

    def chunks(self, ids: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Cut tokens [n] into what one run reads of them; each is to be run before the next is asked for."""
        start = 0
        while start < len(ids):
            end = start + self.cache.longest_step(self._prefill_chunk)
            yield ids[start:end]
            start = end

    def run(self, ids: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """Append tokens [n] to the context; return the logits [vocab] after the last, valid until the next run."""
        self._feed(self._step, ids)
        return self._logits.reshape(-1)

    def run_rows(self, ids: NDArray[np.int64] | Sequence[int], rows: int) -> NDArray[np.float32]:
        """Append tokens [n] to the context; return the logits [rows, vocab] after the last `rows` of them."""
        binding = self._rows_step
        # The output is declared with one row, which a buffer bound to it would be held against: let it be allocated.
        binding.bind_output(names.LOGITS, "cpu")
        # `bind_cpu_input` does not know inputs that have a default.
        binding.bind_ortvalue_input(names.LOGITS_TO_KEEP, ort.OrtValue.ortvalue_from_numpy(np.array(rows, np.int64)))
        self._feed(binding, ids)
        logits: NDArray[np.float32] = binding.get_outputs()[-1].numpy()
        return logits.reshape(-1, self.vocab_size)

    def end_profiling(self) -> Path:
        """Return the file of the profile that was asked for when this was loaded; nothing is timed any more."""
        return Path(self._session.end_profiling())

    def _feed(self, binding: ort.IOBinding, ids: NDArray[np.int64] | Sequence[int]) -> None:
        end = self.cache.length + len(ids)
        with self.cache.step(ids) as tokens:
            binding.bind_cpu_input(names.INPUT_IDS, tokens)
            binding.bind_cpu_input(names.ATTENTION_MASK, self._mask[:, :end])
            self._session.run_with_iobinding(binding)

    def _bind_cache(self) -> ort.IOBinding:
        # An OrtValue borrows the array's memory: the cache, which self holds, outlives the binding.
        binding = self._session.io_binding()
        for layer, (key, value) in enumerate(self.cache.layers):
            keys, values = ort.OrtValue.ortvalue_from_numpy(key), ort.OrtValue.ortvalue_from_numpy(value)
            binding.bind_ortvalue_input(names.past_key(layer), keys)
            binding.bind_ortvalue_output(names.present_key(layer), keys)
            binding.bind_ortvalue_input(names.past_value(layer), values)
            binding.bind_ortvalue_output(names.present_value(layer), values)
        return binding


def _mismatches(session: ort.InferenceSession, manifest: Manifest) -> list[str]:
    """Return where the graph's inputs and outputs are not those the manifest promises."""
    architecture = manifest.architecture
    cache = (_ONNX_TYPES[manifest.cache.type], architecture.n_kv_heads, architecture.head_dim)
    expected: dict[str, tuple[str | int, ...]] = {
        names.INPUT_IDS: ("tensor(int64)",),
        names.ATTENTION_MASK: ("tensor(int64)",),
        names.LOGITS_TO_KEEP: ("tensor(int64)",),
        names.LOGITS: ("tensor(float)", 1, architecture.vocab_size),
    }
    for name in (names.past_key, names.past_value, names.present_key, names.present_value):
        expected |= {name(layer): cache for layer in range(architecture.n_layers)}
    nodes = (*session.get_inputs(), *session.get_overridable_initializers(), *session.get_outputs())
    found = {node.name: (node.type, *(size for size in node.shape if isinstance(size, int))) for node in nodes}
    return [
        f"{name} is {found.get(name, 'missing')}, the manifest promises {expected.get(name, 'none of that name')}"
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]
