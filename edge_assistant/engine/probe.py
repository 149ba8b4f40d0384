"""Whether a provider computes as the processor does: it runs each of `probe_graphs` alone, and so does the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from edge_assistant.engine.ort_errors import ORT_ERRORS
from edge_assistant.engine.probe_graphs import Probe, probes
from edge_assistant.engine.providers import CPU, Provider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_assistant.bundle import Manifest

_LOG_FATAL_ONLY: Final = 4
_TOLERANCE: Final = 0.05
"""Of the largest number: far above what rounding does, in float16 and in int8, and far below what a mistake does."""


def probe(providers: Sequence[Provider], manifest: Manifest) -> str | None:
    """Run a bundle's operators on these providers and not on the CPU; return why that fails, None where it is right."""
    for one in probes(manifest):
        try:
            computed = _compute(one, providers)
        except (*ORT_ERRORS, ValueError, RuntimeError) as error:
            return f"{one.what} does not run there: {error}"
        if not agree(computed, _compute(one, [(CPU, {})])):
            return f"{one.what} is computed wrongly there"
    return None


def agree(computed: Sequence[NDArray[Any]], right: Sequence[NDArray[Any]]) -> bool:
    """Return whether results are the same but for rounding; what is not a number is wrong."""
    return all(
        bool(
            np.isfinite(one).all() and np.abs(one.astype(np.float32) - other).max() <= _TOLERANCE * np.abs(other).max()
        )
        for one, other in zip(computed, right, strict=True)
    )


def _compute(one: Probe, providers: Sequence[Provider]) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY  # a kernel that is missing is the answer, not an error
    if providers[0][0] != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(one.graph, options, providers=providers, enable_fallback=0)
    if (used := session.get_providers()[0]) != providers[0][0]:
        raise RuntimeError(f"onnxruntime took {used} instead")
    return [session.run(None, feed)[0] for feed in one.feeds]
