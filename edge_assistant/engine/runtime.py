"""How onnxruntime loads a graph: options, providers, prepacked weights, profiles. With `session.py` all that knows it.

Whatever was to make a load better and cannot be used (a GPU, prepacked weights) is left out with a warning that says
why; the bundle's own graph on the CPU always remains.
"""

from __future__ import annotations

import base64
import logging
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    RuntimeException,
)
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as OperatorNotImplemented

from edge_assistant.bundle import GRAPH_FILE, WEIGHTS_FILE
from edge_assistant.engine.providers import CPU, Provider, choose
from edge_assistant.errors import BundleGraphError, PrepackedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edge_assistant.bundle import Bundle
    from edge_assistant.config import EngineSettings

VERSION: Final[str] = ort.__version__
"""Of onnxruntime; another one may compute other last bits."""

_LOG = logging.getLogger(__name__)
_ON_CPU: Final[tuple[Provider, ...]] = ((CPU, {}),)
_LOG_FATAL_ONLY = 4
_LOG_ERRORS_ONLY = 3
_LOAD_ERRORS = (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    OperatorNotImplemented,
    RuntimeException,
)
"""What onnxruntime raises for a graph it cannot load; these have no base of their own."""
PROBE_GRAPH: Final = zlib.decompress(
    base64.b64decode(
        "eNp1kL9qwzAQxq3UDso1oarSf6TQIbQUMpTM2Zolc1YvQo6vNNiWHEkO5G36KN37UrVNQmxaIw6k777j9P0oLH4u4JtAsCvQHMArD82ldSLBA0B9"
        "28u0QBhY3KWorEggcNrJlFPpHKoYY36ZG7So6iE+Oj3quclE6RjFyugiX1cr3qsht9VKzKfjf+QZg4EqMvGJMrYP5Iv0ZmMYJnvRFhejjc7esu3G"
        "aKs/HA9yoyMMH49BOAdGCR9Cj5JjzcPpORq/g5uyzxp9WhYLn5uhO133DRwcgNI+9ytDeHWC0we/FL3oCc6Y/v6JRS/QgtexMHqFNtYu49IHj90u"
        "r6GNh5FfgVpyUw=="
    )
)
"""One GroupQueryAttention in float32: a head of 16, a buffer of 8 positions, and one token that is read."""


def load_graph(
    bundle: Bundle, settings: EngineSettings, prepacked: Path | None = None, profile: Path | None = None
) -> ort.InferenceSession:
    """Load a bundle's graph as the settings say, from the folder of `prepacked` weights where that can be.

    With `profile`, how a file's name begins, every run is timed; `end_profiling` writes the file.

    Raises:
        BundleGraphError: onnxruntime cannot load the graph.
    """
    for path, providers in _attempts(bundle, settings, prepacked):
        try:
            session = ort.InferenceSession(path, _options(settings, profile), providers=providers, enable_fallback=0)
        except (*_LOAD_ERRORS, ValueError, RuntimeError) as error:
            _LOG.warning("%s on %s is not used: %s", path, providers[0][0], error)
        else:
            if session.get_providers()[0] == providers[0][0]:
                return session
            _LOG.warning("%s is not used: onnxruntime took %s", providers[0][0], session.get_providers()[0])
    try:
        return ort.InferenceSession(bundle.graph_path, _options(settings, profile), providers=_ON_CPU)
    except _LOAD_ERRORS as error:
        raise BundleGraphError(bundle.graph_path, [str(error)]) from error


def probe(providers: Sequence[Provider]) -> str | None:
    """Run attention on these providers and not on the CPU; return why that fails, None where it is right."""
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY  # a kernel that is missing is the answer, not an error
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    query = np.arange(48, dtype=np.float32).reshape(1, 1, 48) / 48
    past = np.zeros((1, 1, 8, 16), np.float32)
    feeds = {"query": query, "past_key": past, "past_value": past}
    feeds |= {"seqlens_k": np.zeros(1, np.int32), "total": np.array(1, np.int32)}
    try:
        session = ort.InferenceSession(PROBE_GRAPH, options, providers=providers, enable_fallback=0)
        if (used := session.get_providers()[0]) != providers[0][0]:
            return f"onnxruntime took {used} instead"
        attended = session.run(["attended"], feeds)[0]
    except (*_LOAD_ERRORS, ValueError, RuntimeError) as error:
        return f"attention in float32 does not run there: {error}"
    # A token that sees itself alone attends to its own value.
    return None if np.allclose(attended, query[..., 32:], atol=1e-2) else "attention is computed wrongly there"


def save_prepacked(bundle: Bundle, settings: EngineSettings, folder: Path) -> None:
    """Write the bundle's graph and weights into a folder, with what this processor's kernels pack of them.

    Raises:
        BundleGraphError: onnxruntime cannot load the graph.
        PrepackedError: It cannot write there.
    """
    options = _options(settings, None)
    options.optimized_model_filepath = str(folder / GRAPH_FILE)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": WEIGHTS_FILE,
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(key, value)
    try:
        ort.InferenceSession(bundle.graph_path, options, providers=_ON_CPU)
    except _LOAD_ERRORS as error:
        raise BundleGraphError(bundle.graph_path, [str(error)]) from error
    if missing := [name for name in (GRAPH_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]:
        raise PrepackedError(folder, f"onnxruntime {VERSION} has not written {', '.join(missing)}")


def _attempts(
    bundle: Bundle, settings: EngineSettings, prepacked: Path | None
) -> list[tuple[Path, tuple[Provider, ...]]]:
    """Return what is to be tried before the bundle's graph on the CPU: a graph's file, and where it runs."""
    choice = choose(settings, ort.get_available_providers(), probe)
    for reason in choice.reasons:
        _LOG.warning("%s", reason)
    if choice.on_gpu and bundle.manifest.cache.window != "bounded":
        return [(bundle.graph_path, choice.providers)]
    if choice.on_gpu:  # the attribute that drops positions is the CPU's: another kernel would not know it
        _LOG.warning("%s is not used: the cache of this model's windows is bounded", choice.providers[0][0])
    return [(prepacked / GRAPH_FILE, _ON_CPU)] if prepacked else []


def _options(settings: EngineSettings, profile: Path | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.intra_op_num_threads = settings.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spinning)))
    # A memory pattern is kept for every shape of the inputs, and the mask's changes with every token.
    options.enable_mem_pattern = False
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return options
