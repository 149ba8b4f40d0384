"""Rotary positions as the graph has them: tables of cos and sin, times YaRN's attention factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_assistant.bundle import frequencies

if TYPE_CHECKING:
    from edge_assistant.bundle import Architecture
    from edge_assistant_export.quantize import Float32


def rotary_tables(architecture: Architecture) -> tuple[Float32, Float32]:
    """Return cos and sin of all angles, each [max_positions, head_dim / 2], times YaRN's attention factor."""
    angles = np.outer(np.arange(architecture.max_positions, dtype=np.float64), frequencies(architecture))
    factor = attention_factor(architecture)
    return (np.cos(angles) * factor).astype(np.float32), (np.sin(angles) * factor).astype(np.float32)


def attention_factor(architecture: Architecture) -> float:
    """Return by how much rotated queries and keys are longer than unrotated ones."""
    return 1.0 if architecture.yarn is None else architecture.yarn.attention_factor
