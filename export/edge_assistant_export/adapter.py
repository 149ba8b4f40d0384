"""A LoRA adapter (arXiv 2106.09685) in PEFT's layout, merged into a checkpoint's weights as they are read.

    adapter_config.json          rank, alpha, which matrices: see adapter_config.py
    adapter_model.safetensors    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight    [rank, in]
                                 base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight    [out, rank]

    W' = W + scaling B A

Only the rows that are asked for are computed, in float64 and rounded to float32 once, so that a row does not depend on
which others were read with it. Names and the order of rows are those of transformers, which are the checkpoint's
whatever its layout. Opening reads headers only and holds every tensor against the configuration and the checkpoint:
PEFT leaves silently out what it does not expect, and starts afresh what it misses; here either is an error.

The embedding and the output head may be among the matrices. PEFT then saves their base weights too and takes those
instead of the model's; so is done here. Where both are one tensor a merge of one would change the other: refused.

The tokenizer and the chat template that trainers save beside an adapter are not read, as PEFT does not: the
checkpoint's count. An adapter for which tokens were added holds an embedding of more rows, and is refused by that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from edge_assistant.bundle import AdapterSource, FileEntry
from edge_assistant.errors import AdapterError, UnsupportedAdapterError
from edge_assistant_export.adapter_config import LoraConfig
from edge_assistant_export.hub import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from edge_assistant_export.layouts import HUGGINGFACE, expected_shapes
from edge_assistant_export.safetensors_file import Float32, SafetensorsFile

if TYPE_CHECKING:
    from edge_assistant.bundle import Architecture as ModelConfig
    from edge_assistant_export.hub import Location

_PREFIX: Final = "base_model.model."
# What a model and its head are called: a language model, one that sees, and one that sees before transformers 4.52.
_NAMINGS: Final = (
    ("model.", "lm_head"),
    ("model.language_model.", "lm_head"),
    ("language_model.model.", "language_model.lm_head"),
)
# Parts of a model that sees: PEFT wraps their matrices too where names end alike, and a bundle has none of them.
_SEEING: Final = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\.")
_FACTOR: Final = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(?(embedding)|\.weight)")
_SAVED: Final = re.compile(r"(?P<module>.+)\.base_layer\.weight")
_WHOLE_EMBEDDING: Final = re.compile(r".*(embed_tokens|lm_head)\.weight")
# Weights that are merged at a time: 8 MB as float64.
_PART: Final = 1 << 20

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Update:
    """What is added to one matrix: scaling times `b` times `a`, by their names in the file."""

    a: str
    b: str
    scaling: float


class Adapter:
    """An open adapter; threads may merge at the same time."""

    def __init__(self, location: Location, config: ModelConfig) -> None:
        """Read the configuration and the header, and hold them against the checkpoint's configuration.

        Raises:
            AdapterError: A file is missing, or a tensor is missing, left over, of a wrong rank or of another model.
            UnsupportedAdapterError: It is no plain LoRA.
            CheckpointError: The file is truncated, or of a type that cannot be read.
        """
        self._location = location
        self._lora = LoraConfig.read(location.folder / ADAPTER_CONFIG)
        self._path = location.folder / ADAPTER_WEIGHTS
        if not self._path.is_file():
            mend = "an adapter_model.bin, which PyTorch pickled, is not read: let PEFT load it and save it again"
            raise AdapterError(self._path, f"it is missing; {mend}")
        self._file = SafetensorsFile(self._path)
        try:
            self._saved, self._updates = self._find(config)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    def check_unchanged(self) -> None:
        """Refuse weights that were written to since they were opened.

        Raises:
            CheckpointError
        """
        self._file.check_unchanged()

    @cached_property
    def source(self) -> AdapterSource:
        """What a manifest says of it."""
        lora = self._lora
        return AdapterSource(
            name=self._location.name,
            revision=self._location.revision,
            sha256=FileEntry.of(self._path).sha256,
            rank=lora.r,
            alpha=lora.lora_alpha,
            scaling=lora.scaling(),
            base_model=lora.base_model_name_or_path,
        )

    @property
    def changed(self) -> tuple[str, ...]:
        """The canonical names of the matrices that it changes."""
        return tuple(self._updates)

    def factors(self, name: str) -> tuple[Float32, Float32]:
        """Return what makes a matrix's change, A [row_size, rank] and scaling times B [rank, n_rows]: x A B is added.

        Raises:
            AdapterError: The adapter holds numbers that are not finite.
            CheckpointError: The file has changed since it was opened.
        """
        update = self._updates[name]
        left, right = self._read(update.a).T, update.scaling * self._read(update.b).T
        return np.ascontiguousarray(left, np.float32), np.ascontiguousarray(right, np.float32)

    def merge(self, name: str, weight: Float32, rows: slice | None = None) -> Float32:
        """Return what a tensor's rows become, given as they are; `weight` may be changed in place.

        Raises:
            AdapterError: The adapter holds numbers that are not finite.
            CheckpointError: The file has changed since it was opened.
        """
        if name in self._saved:
            weight = self._file.read(self._saved[name], rows)
        if name not in self._updates:
            return weight
        update = self._updates[name]
        if name == "embedding":
            left, right = self._embedding_factors[0][rows or slice(None)], self._embedding_factors[1]
        else:
            left, right = self._read(update.b, rows), self._read(update.a)
        step = max(1, _PART // weight.shape[1])
        for start in range(0, len(weight), step):
            part = slice(start, start + step)
            weight[part] += update.scaling * (left[part] @ right)
        return weight

    @cached_property
    def _embedding_factors(self) -> tuple[_Float64, _Float64]:
        """[vocab, rank] and [rank, hidden]: stored the other way round, and asked for a row at a time, so kept."""
        update = self._updates["embedding"]
        return np.ascontiguousarray(self._read(update.a).T), np.ascontiguousarray(self._read(update.b).T)

    def _read(self, stored: str, rows: slice | None = None) -> _Float64:
        factor = self._file.read(stored, rows)
        if not np.isfinite(factor).all():
            raise AdapterError(self._path, f"{stored} holds numbers that are not finite: its training went astray")
        return factor.astype(np.float64)

    def _find(self, config: ModelConfig) -> tuple[dict[str, str], dict[str, _Update]]:
        """Return the stored name of saved base weights and the updates, by canonical name, all of them checked."""
        factors, saved, unknown = _sorted_by_kind(self._file.tensors.keys())
        modules = _modules(config, factors.keys())
        if config.tied_embedding and any(module.endswith(("embed_tokens", "lm_head")) for module in factors):
            found = "an adapter of embed_tokens or lm_head, where the checkpoint's head is the embedding itself,"
            raise UnsupportedAdapterError(self._path, found)
        self._refuse_left_over([*unknown, *(saved[module] for module in saved.keys() - factors.keys())])
        self._check_targets(modules, factors)
        shapes = expected_shapes(config)
        updates = {}
        for module, pair in factors.items():
            name = modules[module]
            self._check_shapes(pair, module, name, shapes[name])
            if module in saved:
                self._check_saved(saved[module], shapes[name])
            updates[name] = _Update(pair["A"], pair["B"], self._lora.scaling(module))
        return {modules[module]: stored for module, stored in saved.items()}, updates

    def _refuse_left_over(self, unknown: list[str]) -> None:
        for stored in sorted(unknown):
            if _WHOLE_EMBEDDING.fullmatch(stored):
                raise UnsupportedAdapterError(self._path, f"{stored}, an embedding saved whole (for added tokens?),")
            raise AdapterError(self._path, f"{stored} is left over: it is no factor of a plain LoRA in PEFT's naming")

    def _check_targets(self, modules: Mapping[str, str], factors: Mapping[str, Mapping[str, str]]) -> None:
        """Hold the modules that have factors against those the configuration targets, and both against the model."""
        if strangers := sorted(factors.keys() - modules.keys()):
            problem = f"it changes {strangers[0]}, which the checkpoint does not have: {self._another_model()}"
            raise AdapterError(self._path, problem)
        targets = {module for module in modules if self._lora.targets(module)}
        if untargeted := sorted(factors.keys() - targets):
            problem = f"it changes {untargeted[0]}, which target_modules in {ADAPTER_CONFIG} leaves out"
            raise AdapterError(self._path, f"{problem}: the two files are not of one training")
        for module in sorted(targets):
            for factor in "AB":
                if factor not in factors.get(module, {}):
                    problem = f"lora_{factor} of {module} is missing, which target_modules in {ADAPTER_CONFIG} names"
                    raise AdapterError(self._path, f"{problem}: save or download the adapter again")
        if not targets:
            problem = "target_modules names no matrix that the checkpoint has"
            raise AdapterError(self._location.folder / ADAPTER_CONFIG, f"{problem}: {self._another_model()}")

    def _check_shapes(self, pair: Mapping[str, str], module: str, name: str, shape: tuple[int, ...]) -> None:
        """Refuse factors of another rank than the configuration says, or that do not multiply to the matrix's shape."""
        rank, (n_rows, row_size) = self._lora.rank(module), shape
        expected = {"A": (rank, row_size), "B": (n_rows, rank)}
        if name == "embedding":
            expected = {"A": (rank, n_rows), "B": (row_size, rank)}
        for factor, stored in pair.items():
            self._file.check_dtype(stored)
            if (actual := self._file.tensors[stored].shape) == expected[factor]:
                continue
            if len(actual) == 2 and (found := actual[factor == "B"]) != rank:
                problem = f"{stored} has rank {found}, but r or rank_pattern in {ADAPTER_CONFIG} says {rank}"
                raise AdapterError(self._path, f"{problem}: the two files are not of one training")
            problem = f"{stored} has the shape {list(actual)}, but the checkpoint calls for {list(expected[factor])}"
            raise AdapterError(self._path, f"{problem}: {self._another_model()}")

    def _check_saved(self, stored: str, shape: tuple[int, ...]) -> None:
        self._file.check_dtype(stored)
        if (actual := self._file.tensors[stored].shape) != shape:
            problem = f"{stored} has the shape {list(actual)}, but the checkpoint's is {list(shape)}"
            raise AdapterError(self._path, f"{problem}: tokens were added, or {self._another_model()}")

    def _another_model(self) -> str:
        base = self._lora.base_model_name_or_path
        return f"it was trained on another model ({base})" if base else "it was trained on another model"


def _sorted_by_kind(names: Set[str]) -> tuple[dict[str, dict[str, str]], dict[str, str], list[str]]:
    """Return the names of the factors A and B by module, those of base weights by module, and what is neither."""
    factors: dict[str, dict[str, str]] = {}
    saved: dict[str, str] = {}
    unknown = []
    for stored in names:
        name = stored.removeprefix(_PREFIX)
        if _SEEING.match(name):
            continue
        found = _FACTOR.fullmatch(name) if name != stored else None
        if found and (found["embedding"] is not None) == found["module"].endswith("embed_tokens"):
            factors.setdefault(found["module"], {})[found["factor"]] = stored
        elif name != stored and (found := _SAVED.fullmatch(name)):
            saved[found["module"]] = stored
        else:
            unknown.append(stored)
    return factors, saved, unknown


def _modules(config: ModelConfig, found: Set[str]) -> dict[str, str]:
    """Return the canonical name of every matrix that a model has by its module, as the adapter calls modules."""
    shapes = expected_shapes(config)
    stored = {name: tensor for name, tensor in HUGGINGFACE.tensor_names(config).items() if len(shapes[name]) == 2}
    namings = [
        {
            head if name == "lm_head" else model + tensor.removeprefix("model.").removesuffix(".weight"): name
            for name, tensor in stored.items()
        }
        for model, head in _NAMINGS
    ]
    return max(namings, key=lambda modules: len(modules.keys() & found))
