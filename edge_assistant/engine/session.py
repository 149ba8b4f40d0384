"""The loaded graph, with the caches bound to it.

Every layer's cache is bound as past and as present, the same memory, so a step copies nothing; the logits of the last
position land in one buffer that the next step overwrites. What a step still has to bind is the tokens and the
attention mask, both views of buffers that are allocated once. On a GPU the caches lie in its memory, and of a step only
tokens, mask and logits are copied.

Several sequences are sessions of one graph. `Together` runs a step of one token for some of them at once: the graph
takes rows of different lengths, each with a mask of its own, and reads the weights once. It takes caches that are rows
of one buffer and stand side by side; one between them that has no step to do gets a token behind its end, which the
next step overwrites. A row of a batch is computed as it would be alone, but for the last bits of a quantised product.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnxruntime as ort

from edge_assistant import bundle as names
from edge_assistant.engine.memory import place
from edge_assistant.engine.ort_errors import ORT_ERRORS
from edge_assistant.engine.runtime import device_of, give_back, load_graph
from edge_assistant.errors import BundleGraphError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edge_assistant.bundle import Bundle, Manifest
    from edge_assistant.config import EngineSettings
    from edge_assistant.engine.adapter import Adapter
    from edge_assistant.engine.kv_cache import KvCache, Layer

_ONNX_TYPES = {"float32": "tensor(float)", "float16": "tensor(float16)", "int8": "tensor(int8)"}


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
        """Load the graph and bind the cache, or an empty one like it in the memory of the device that computes.

        `prepacked` and `profile` are as for `load_graph`.

        Raises:
            BundleGraphError: onnxruntime cannot load the graph, or it is not the one the manifest describes.
        """
        self.manifest = bundle.manifest
        self._graph_path = bundle.graph_path
        self.vocab_size = bundle.manifest.architecture.vocab_size
        self._prefill_chunk = settings.prefill_chunk
        self._cache_reuse = settings.cache_reuse
        self._session = load_graph(bundle, settings, prepacked, profile)
        if problems := _mismatches(self._session, bundle.manifest):
            raise BundleGraphError(bundle.graph_path, problems)
        self.device = device_of(self._session)
        """Where it computes, and its caches lie."""
        self._logits: NDArray[np.float32] = np.empty((1, 1, self.vocab_size), np.float32)
        self.bind(cache.on(self.device))

    def another(self, cache: KvCache) -> Session:
        """Return a session of the same graph for another sequence; the two must not run at the same time."""
        session = copy(self)
        session.bind(cache)
        return session

    def together(self, layers: Sequence[Layer], caches: Sequence[KvCache]) -> Together:
        """Return the batched steps of sequences that are rows of `layers`; none may run meanwhile."""
        return Together(self._session, layers, caches, self.vocab_size)

    def keep_shared(self, prompt: NDArray[np.int64]) -> int:
        """Forget what the context does not share with a prompt [n]; return how many tokens of it need no reading."""
        return self.cache.keep_shared(prompt, self._cache_reuse)

    def keeps(self, prompt: NDArray[np.int64]) -> int:
        """Return how many tokens `keep_shared` would keep."""
        return self.cache.keeps(prompt, self._cache_reuse)

    def chunks(self, ids: NDArray[np.int64], most: int | None = None) -> Iterator[NDArray[np.int64]]:
        """Cut tokens [n] into what one run reads of them, `most` or fewer where that is said.

        Each is to be run before the next is asked for.
        """
        start = 0
        while start < len(ids):
            end = start + self.cache.longest_step(min(most or self._prefill_chunk, self._prefill_chunk))
            yield ids[start:end]
            start = end

    def warm_up(self) -> None:
        """Run a token over the empty cache and forget it: the first run of all reads the weights from the disk.

        So that happens while it loads, not when the first question waits. What the load has freed goes back then.

        Raises:
            BundleGraphError: The graph loads, and does not run.
        """
        try:
            self._feed(self._bound.step, self.cache.step([0]), 1)
        except ORT_ERRORS as error:
            raise BundleGraphError(self._graph_path, [str(error)]) from error
        self.cache.rewind(0)
        give_back()

    def run(self, ids: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """Append tokens [n] to the context; return the logits [vocab] after the last, valid until the next run."""
        self._feed(self._bound.step, self.cache.step(ids), self.cache.length + len(ids))
        return self._logits.reshape(-1)

    def run_again(self, most: int) -> None:
        """Compute the rows anew of the first tokens, at most so many, that an eviction has moved."""
        end = self.cache.exact + min(most, self.cache.moved)
        self._feed(self._bound.step, self.cache.step_again(most), end)

    def run_rows(self, ids: NDArray[np.int64] | Sequence[int], rows: int) -> NDArray[np.float32]:
        """Append tokens [n] to the context; return the logits [rows, vocab] after the last `rows` of them."""
        binding = self._bound.rows_step
        # The output is declared with one row, which a buffer bound to it would be held against: let it be allocated.
        binding.bind_output(names.LOGITS, "cpu")
        # `bind_cpu_input` does not know inputs that have a default.
        binding.bind_ortvalue_input(names.LOGITS_TO_KEEP, ort.OrtValue.ortvalue_from_numpy(np.array(rows, np.int64)))
        self._feed(binding, self.cache.step(ids), self.cache.length + len(ids))
        logits: NDArray[np.float32] = binding.get_outputs()[-1].numpy()
        return logits.reshape(-1, self.vocab_size)

    def end_profiling(self) -> Path:
        """Return the file of the profile that was asked for when this was loaded; nothing is timed any more."""
        return Path(self._session.end_profiling())

    def _feed(self, binding: ort.IOBinding, step: AbstractContextManager[NDArray[np.int64]], end: int) -> None:
        """Run the tokens that a step of the cache gives, the last of which is the context's token `end` - 1."""
        with step as tokens:
            binding.bind_cpu_input(names.INPUT_IDS, tokens)
            binding.bind_cpu_input(names.ATTENTION_MASK, self._bound.mask[:, :end])
            self._session.run_with_iobinding(binding)

    def bind(self, cache: KvCache, adapter: Adapter | None = None) -> None:
        """Go on with another sequence, whose rows are those of an adapter."""
        # A binding borrows memory: cache and adapter, which self holds, outlive it.
        step, rows_step = (_bound(self._session, cache.layers, adapter) for _ in range(2))
        step.bind_ortvalue_output(names.LOGITS, ort.OrtValue.ortvalue_from_numpy(self._logits))
        self.cache, self._bound = cache, _Bound(step, rows_step, np.ones((1, cache.capacity), np.int64), adapter)

    @property
    def adapter(self) -> Adapter | None:
        """What it runs with, and has computed its cache with."""
        return self._bound.adapter

    def use(self, adapter: Adapter | None) -> None:
        """Run with an adapter from here on, or with none; a change of it empties the cache.

        Keys and values that one adapter made are no other's, not even where the tokens are the same.
        """
        if adapter is not self.adapter:
            self.cache.rewind(0)
            self.bind(self.cache, adapter)


class _Bound(NamedTuple):
    """What a step reads and writes beside its tokens; one value, so that no interrupt leaves half of it."""

    step: ort.IOBinding
    """Its logits are those of the last position, in one buffer."""
    rows_step: ort.IOBinding
    mask: NDArray[np.int64]
    """Of a full cache, [1, capacity]."""
    adapter: Adapter | None


class Together:
    """Steps of several sequences at once."""

    def __init__(
        self, session: ort.InferenceSession, layers: Sequence[Layer], caches: Sequence[KvCache], vocab_size: int
    ) -> None:
        """`layers` are buffers [sequences, n_kv_heads, rows, head_dim], `caches` the sequences in their order."""
        self._session, self._layers, self._caches = session, layers, caches
        self._logits: NDArray[np.float32] = np.empty((len(caches), 1, vocab_size), np.float32)
        self._positions = np.arange(caches[0].capacity)
        self._bindings: dict[tuple[int, int], ort.IOBinding] = {}
        self._adapter: Adapter | None = None

    def run(self, tokens: Mapping[int, int], adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Append a token to each of some sequences, by their numbers, all of them of one adapter.

        Returns the logits [n, vocab] after each, in the order of the numbers, valid until the next run.
        """
        first, end = min(tokens), max(tokens) + 1
        caches = self._caches[first:end]
        for number, cache in enumerate(caches, first):
            if number not in tokens:
                cache.rewind(cache.capacity - 1)  # room for the token that it gets behind its end
        ids = np.array([[tokens.get(number, 0)] for number in range(first, end)], np.int64)
        lengths = np.array([[cache.length + 1] for cache in caches])
        binding = self._binding(first, end, adapter)
        with ExitStack() as steps:
            for number, token in tokens.items():
                steps.enter_context(self._caches[number].step([token]))
            binding.bind_cpu_input(names.INPUT_IDS, ids)
            binding.bind_cpu_input(names.ATTENTION_MASK, (self._positions[: lengths.max()] < lengths).astype(np.int64))
            self._session.run_with_iobinding(binding)
        return self._logits[[number - first for number in sorted(tokens)], 0]

    def _binding(self, first: int, end: int, adapter: Adapter | None) -> ort.IOBinding:
        if adapter is not self._adapter:
            self._bindings.clear()
            self._adapter = adapter
        if (first, end) not in self._bindings:
            layers = [(key[first:end], value[first:end]) for key, value in self._layers]
            binding = _bound(self._session, layers, adapter)
            logits = ort.OrtValue.ortvalue_from_numpy(self._logits[: end - first])
            binding.bind_ortvalue_output(names.LOGITS, logits)
            self._bindings[first, end] = binding
        return self._bindings[first, end]


def _bound(session: ort.InferenceSession, layers: Sequence[Layer], adapter: Adapter | None) -> ort.IOBinding:
    """Return a binding of a cache as past and as present, and of an adapter.

    Inputs of matrices that the adapter leaves alone have a default of rank 0.
    """
    binding = session.io_binding()
    for name, factor in (adapter.factors if adapter else {}).items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(factor))
    for layer, (key, value) in enumerate(layers):
        keys, values = place(key), place(value)
        binding.bind_input(names.past_key(layer), *keys)
        binding.bind_output(names.present_key(layer), *keys)
        binding.bind_input(names.past_value(layer), *values)
        binding.bind_output(names.present_value(layer), *values)
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
    factor = _ONNX_TYPES[manifest.quantization.dtype]
    for matrix in manifest.lora.matrices if manifest.lora else ():
        row_size = names.matrix_shape(architecture, matrix).row_size
        for layer in range(architecture.n_layers):
            expected[names.lora_a(f"layers.{layer}.{matrix}")] = (factor, row_size)
            expected[names.lora_b(f"layers.{layer}.{matrix}")] = (factor,)
    nodes = (*session.get_inputs(), *session.get_overridable_initializers(), *session.get_outputs())
    found = {node.name: (node.type, *(size for size in node.shape if isinstance(size, int))) for node in nodes}
    return [
        f"{name} is {found.get(name, 'missing')}, the manifest promises {expected.get(name, 'none of that name')}"
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]
