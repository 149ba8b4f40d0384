"""The file of a LoRA adapter for one bundle, an .npz: numpy alone reads it.

    about               uint8 [n], a JSON object: for which weights it was made, and of what
    layers.0.q.A        float32 [row_size, rank]
    layers.0.q.B        float32 [rank, n_rows], with the scaling by alpha and rank in it
    layers.0.down.A     and so on: the parts of `lora.PARTS`, those that the adapter changes

It belongs to a bundle's file of weights, byte for byte: what was trained on one model, or quantised otherwise, is not
another's. The exporter checks what it writes as the board checks what it reads.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from edge_assistant.bundle.folder import STRICT, Sha256
from edge_assistant.bundle.language import WEIGHTS_FILE, AdapterSource
from edge_assistant.bundle.lora import PARTS, LoraMatrix, LoraSpec, Shape, part_shapes
from edge_assistant.errors import LoraBaseError, LoraFileError, LoraGraphError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edge_assistant.bundle.language import Manifest

LORA_VERSION: Final = 1

_ABOUT: Final = "about"
_NAME: Final = re.compile(r"layers\.(?P<layer>0|[1-9]\d*)\.(?P<part>\w+)")
_READ_ERRORS: Final = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, OverflowError, TypeError, tokenize.TokenError),
)
"""What numpy raises for a file that is no .npz, or a damaged one; the last are for headers that somebody made up."""


class Factors(NamedTuple):
    """What is added to one matrix: x A B."""

    a: NDArray[np.float32]
    """[row_size, rank]"""
    b: NDArray[np.float32]
    """[rank, n_rows]"""

    @property
    def rank(self) -> int:
        """The size that both have in common."""
        return len(self.b)


@dataclass(frozen=True, slots=True, config=STRICT)
class LoraAbout:
    """What an adapter says of itself."""

    format_version: int
    base: Sha256
    """Of the file of weights of the bundle that it was made for."""
    base_name: str
    """That bundle's name."""
    source: AdapterSource
    parts: tuple[str, ...]
    """Those that it changes: an archive that has lost some of its list is still one."""

    @classmethod
    def of(cls, source: AdapterSource, manifest: Manifest, parts: Iterable[str]) -> LoraAbout:
        """Describe an adapter that is made for a bundle."""
        return cls(LORA_VERSION, manifest.files[WEIGHTS_FILE].sha256, manifest.name, source, tuple(parts))


class LoraFile(NamedTuple):
    """The content of the file."""

    about: LoraAbout
    factors: Mapping[str, Factors]
    """By the part of a layer that they change, such as `layers.0.q`."""

    @classmethod
    def read(cls, path: Path) -> LoraFile:
        """Read a file; whether it fits a bundle is `check`'s affair.

        Raises:
            LoraFileError: It is missing, damaged, or no adapter of a version that is known.
        """
        arrays = _read_arrays(path)
        about = _read_about(path, arrays.pop(_ABOUT, None))
        factors = {}
        for part in about.parts:
            pair = [arrays.pop(f"{part}.{factor}", None) for factor in "AB"]
            if pair[0] is None or pair[1] is None:
                raise LoraFileError(path, f"one of the two factors of {part} is missing")
            factors[part] = Factors(pair[0], pair[1])
        if arrays:
            raise LoraFileError(path, f"{min(arrays)} is no factor that {_ABOUT} names")
        return cls(about, factors)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        content = io.BytesIO()
        arrays: dict[str, NDArray[Any]] = {_ABOUT: np.frombuffer(json.dumps(asdict(self.about)).encode(), np.uint8)}
        for part, factors in self.factors.items():
            arrays |= {f"{part}.A": factors.a, f"{part}.B": factors.b}
        np.savez(content, allow_pickle=False, **arrays)
        return content.getvalue()

    def check(self, path: Path, manifest: Manifest) -> LoraSpec:
        """Hold an adapter against a bundle, and return what that takes; `path` is for the messages.

        Raises:
            LoraBaseError: It was made for other weights.
            LoraGraphError: The bundle takes no adapter, none of its rank, or none for one of its matrices.
            LoraFileError: A matrix has another shape or type than it must, or a name that there is not.
        """
        if manifest.lora is None:
            raise LoraGraphError(path, manifest.name)
        check_base(path, self.about, manifest)
        shapes = _shapes(manifest)
        taken = {part for matrix in manifest.lora.matrices for part in PARTS[matrix]}
        for name, factors in self.factors.items():
            found = _NAME.fullmatch(name)
            if found is None or found["part"] not in shapes or int(found["layer"]) >= manifest.architecture.n_layers:
                raise LoraFileError(path, f"{name} is no part of this model")
            if found["part"] not in taken:
                mend = f"only {', '.join(manifest.lora.matrices)} can be changed while it runs"
                raise LoraGraphError(path, manifest.name, f"{name} is none of what its graph takes: {mend}")
            _check_factors(path, name, factors, shapes[found["part"]])
            if factors.rank > manifest.lora.rank:
                problem = f"{name} has rank {factors.rank}, and its graph takes up to {manifest.lora.rank}"
                raise LoraGraphError(path, manifest.name, f"{problem}; export it with a higher --lora-rank")
        return manifest.lora


def check_base(path: Path, about: LoraAbout, manifest: Manifest) -> None:
    """Refuse an adapter that was made for other weights than a bundle's.

    Raises:
        LoraBaseError
    """
    if about.base != manifest.files[WEIGHTS_FILE].sha256:
        raise LoraBaseError(path, about.base_name, manifest.name)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:  # numpy does not close a path's file where that is no archive
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise LoraFileError(path, "it holds a single array")
            return dict(stored)
    except _READ_ERRORS as error:
        if isinstance(error, LoraFileError):
            raise
        raise LoraFileError(path, getattr(error, "strerror", None) or str(error)) from error


def _read_about(path: Path, stored: NDArray[Any] | None) -> LoraAbout:
    if stored is None or stored.dtype != np.uint8:
        raise LoraFileError(path, f"it has no {_ABOUT}")
    try:
        about = TypeAdapter(LoraAbout).validate_json(stored.tobytes())
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, (_ABOUT, *item['loc'])))}: {item['msg']}" for item in error.errors())
        raise LoraFileError(path, "; ".join(problems)) from error
    if about.format_version != LORA_VERSION:
        raise LoraFileError(path, f"its format_version is {about.format_version}, where {LORA_VERSION} is known")
    return about


def _shapes(manifest: Manifest) -> dict[str, Shape]:
    """Return the shapes of all parts that a layer of such a model can have."""
    kinds: tuple[LoraMatrix, ...] = get_args(LoraMatrix)
    return {part: shape for kind in kinds for part, shape in part_shapes(manifest.architecture, kind).items()}


def _check_factors(path: Path, name: str, factors: Factors, shape: Shape) -> None:
    for factor, array in factors._asdict().items():
        if array.dtype != np.float32 or array.ndim != 2:
            raise LoraFileError(path, f"{name}.{factor.upper()} is no matrix of float32")
    (row_size, rank), (rank_b, n_rows) = factors.a.shape, factors.b.shape
    if (n_rows, row_size) != shape or rank != rank_b or not rank:
        found = f"{list(factors.a.shape)} times {list(factors.b.shape)}"
        raise LoraFileError(path, f"{name} is {found}, where [{shape.row_size}, {shape.n_rows}] must come of it")
