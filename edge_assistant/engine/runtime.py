"""How onnxruntime loads a graph: options, providers, prepacked weights, profiles.

Whatever was to make a load better and cannot be used (a GPU, prepacked weights) is left out with a warning that says
why; the bundle's own graph on the CPU always remains.
"""

from __future__ import annotations

import ctypes
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import onnxruntime as ort

from edge_assistant.bundle import GRAPH_FILE, WEIGHTS_FILE
from edge_assistant.engine.memory import CUDA_DEVICE, HOST
from edge_assistant.engine.ort_errors import ORT_ERRORS
from edge_assistant.engine.probe import probe
from edge_assistant.engine.providers import CPU, Provider, choose
from edge_assistant.errors import BundleGraphError, PrepackedError

if TYPE_CHECKING:
    from pathlib import Path

    from edge_assistant.bundle import Bundle, Manifest
    from edge_assistant.config import EngineSettings
    from edge_assistant.engine.memory import Device

VERSION: Final[str] = ort.__version__
"""Of onnxruntime; another one may compute other last bits."""

_LOG = logging.getLogger(__name__)
_ON_CPU: Final[tuple[Provider, ...]] = ((CPU, {}),)
_LOG_ERRORS_ONLY = 3


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
        except (*ORT_ERRORS, ValueError, RuntimeError) as error:
            _LOG.warning("%s on %s is not used: %s", path, providers[0][0], error)
        else:
            if session.get_providers()[0] == providers[0][0]:
                return session
            _LOG.warning("%s is not used: onnxruntime took %s", providers[0][0], session.get_providers()[0])
    try:
        return ort.InferenceSession(bundle.graph_path, _options(settings, profile), providers=_ON_CPU)
    except ORT_ERRORS as error:
        raise BundleGraphError(bundle.graph_path, [str(error)]) from error


def give_back() -> None:
    """Return to the system what a load has freed: the GNU C library keeps it, and on a board it counts as held."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other libraries have none, and need none
    if trim is not None:
        trim(0)


def device_of(session: ort.InferenceSession) -> Device:
    """Return what the loaded graph computes on."""
    return HOST if session.get_providers()[0] == CPU else CUDA_DEVICE


def save_prepacked(bundle: Bundle, settings: EngineSettings, folder: Path) -> None:
    """Write the bundle's graph and weights into a folder, with what this processor's kernels pack of them.

    Raises:
        PrepackedError: onnxruntime cannot write there, or not load the graph.
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
    except ORT_ERRORS as error:  # the bundle's own graph was checked: it is the disk, most likely
        raise PrepackedError(folder, str(error)) from error
    if missing := [name for name in (GRAPH_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]:
        raise PrepackedError(folder, f"onnxruntime {VERSION} has not written {', '.join(missing)}")


def _attempts(
    bundle: Bundle, settings: EngineSettings, prepacked: Path | None
) -> list[tuple[Path, tuple[Provider, ...]]]:
    """Return what is to be tried before the bundle's graph on the CPU: a graph's file, and where it runs."""
    manifest = bundle.manifest
    choice = choose(settings, ort.get_available_providers(), partial(probe, manifest=manifest))
    for reason in choice.reasons:
        _LOG.warning("%s", reason)
    problem = _other_on_gpu(manifest)
    if choice.on_gpu and problem is None:
        return [(bundle.graph_path, choice.providers)]
    if choice.on_gpu:
        _LOG.warning("%s is not used: %s", choice.providers[0][0], problem)
    return [(prepacked / GRAPH_FILE, _ON_CPU)] if prepacked else []


def _other_on_gpu(manifest: Manifest) -> str | None:
    """Return what of a graph a kernel for GPUs would take for something else, and give wrong answers without a word."""
    if manifest.cache.window == "bounded":  # the attribute that drops positions is the CPU's
        return "the cache of this model's windows is bounded (export it with --window-cache full)"
    return None


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
