"""A LoRA adapter in memory, as the graph takes it: factors by the names of its inputs.

    adapter = engine.load_adapter(Path("kitchen.npz"))
    engine.generate(prompt, params, adapter=adapter)

Several may be loaded and used in turn: a change of adapter copies nothing, but empties the cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edge_assistant.bundle import PARTS, Factors, LoraFile, check_base, lora_a, lora_b, part_shapes
from edge_assistant.errors import LoraGraphError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from edge_assistant.bundle import LoraAbout, LoraSpec, Manifest, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """What a generation may be run with; it is itself alone, even beside another that was loaded from the same file."""

    path: Path
    about: LoraAbout
    identity: str
    """The hash of the factors: by it, what was computed with the adapter is known again."""
    spec: LoraSpec
    """Of the graph that it was loaded for."""
    factors: Mapping[str, NDArray[Any]]
    """By the graph's input, in the type that it computes in; matrices that the adapter leaves alone have none."""

    @classmethod
    def load(cls, path: Path, manifest: Manifest) -> Self:
        """Read an adapter for a bundle.

        Raises:
            LoraFileError, LoraBaseError, LoraGraphError: As `LoraFile.read` and `LoraFile.check` say.
        """
        file = LoraFile.read(path)
        spec = file.check(path, manifest)
        factors: dict[str, NDArray[Any]] = {}
        dtype = np.dtype(manifest.quantization.dtype)
        for matrix in spec.matrices:
            shapes = part_shapes(manifest.architecture, matrix)
            for layer in range(manifest.architecture.n_layers):
                at = f"layers.{layer}."
                parts = {part: file.factors[f"{at}{part}"] for part in PARTS[matrix] if f"{at}{part}" in file.factors}
                if parts:
                    a, b = (factor.astype(dtype, copy=False) for factor in _joined(parts, shapes))
                    factors |= {lora_a(f"{at}{matrix}"): a, lora_b(f"{at}{matrix}"): b}
        return cls(path, file.about, _identity(factors), spec, factors)

    @property
    def nbytes(self) -> int:
        """What it takes of memory."""
        return sum(factor.nbytes for factor in self.factors.values())

    def check(self, manifest: Manifest) -> None:
        """Refuse to be used with another bundle than it was loaded for.

        Raises:
            LoraBaseError: That has other weights.
            LoraGraphError: That has the same weights, and a graph that takes other adapters.
        """
        check_base(self.path, self.about, manifest)
        if manifest.lora != self.spec:
            raise LoraGraphError(self.path, manifest.name, "it was loaded for another graph; load it for this one")


def _identity(factors: Mapping[str, NDArray[Any]]) -> str:
    """Return the hash of what was read; the file may be another by now."""
    digest = hashlib.sha256()
    for name, factor in sorted(factors.items()):
        digest.update(f"{name} {factor.dtype.str} {factor.shape} ".encode())
        digest.update(np.ascontiguousarray(factor).data)
    return digest.hexdigest()


def _joined(parts: Mapping[str, Factors], shapes: Mapping[str, Shape]) -> Factors:
    """Return the factors of the matrix whose rows are those of the parts of these shapes, one after the other."""
    if len(shapes) == 1:
        return Factors(*(np.ascontiguousarray(factor) for factor in next(iter(parts.values()))))
    a = np.concatenate([factors.a for factors in parts.values()], axis=1)
    b = np.zeros((a.shape[1], sum(shape.n_rows for shape in shapes.values())), np.float32)
    rank = row = 0
    for part, shape in shapes.items():
        if part in parts:
            b[rank : rank + parts[part].rank, row : row + shape.n_rows] = parts[part].b
            rank += parts[part].rank
        row += shape.n_rows
    return Factors(a, b)
