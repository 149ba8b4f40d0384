"""Writes a bundle: the weights streamed from the checkpoint through the quantiser into their places, then the rest.

Contract: whatever happens, the bundle's folder appears whole or not at all (`publish.py`), and an export that was
killed goes on with the piece at which it was (`journal.py`).

The matrices are written in pieces (`pieces.py`); nothing grows with the size of the checkpoint. Space for the weights
is taken from the disk at the start, so that a disk that is too small says so at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant.bundle import (
    FORMAT_VERSION,
    GRAPH_FILE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    FileEntry,
    Manifest,
    Source,
)
from edge_assistant.errors import (
    CheckpointError,
    EdgeAssistantError,
    OutputWriteError,
    RecipeError,
)
from edge_assistant_export import __version__, pieces
from edge_assistant_export.awq import Blocks
from edge_assistant_export.cache_scales import cache_scales
from edge_assistant_export.calibration_text import calibration_texts
from edge_assistant_export.graph import serialize
from edge_assistant_export.journal import Journal, kept
from edge_assistant_export.methods import Job
from edge_assistant_export.mistral import CacheScales, build_graph
from edge_assistant_export.neighbours import bundle_config, genai_config
from edge_assistant_export.pieces import MatrixWriter, Progress, write_rows
from edge_assistant_export.publish import (
    check_output,
    check_space,
    partial_folder,
    publish,
    write_file,
    write_json,
)
from edge_assistant_export.quantize import Float32
from edge_assistant_export.reference import Tensors
from edge_assistant_export.rotary import rotary_tables
from edge_assistant_export.stored import as_stored
from edge_assistant_export.weights import Weights, plan_weights

if TYPE_CHECKING:
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.recipe import Recipe

BUNDLE_FILES: Final = frozenset(
    {GRAPH_FILE, WEIGHTS_FILE, TOKENIZER_FILE, MANIFEST_FILE, "config.json", "genai_config.json"}
)
"""All that a bundle's folder holds."""

_LAYER_NORMS: Final = ("attention_norm", "ffn_norm")
_JOURNAL: Final = ".finished.jsonl"
TEXTS: Final = ".texts.json"
"""Where texts are kept in a partial folder: what a model samples itself takes long."""


def export(
    checkpoint: Checkpoint,
    recipe: Recipe,
    out: Path,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    texts: list[list[int]] | None = None,
) -> Manifest:
    """Write the bundle that the recipe makes of a checkpoint, and return its manifest.

    `texts` are ids to calibrate with in place of those that the recipe names.

    Raises:
        OutputExistsError: `out` exists and is not to be overwritten, or holds what is not a bundle's; now or at the
            end, where what is finished is kept.
        OutputBusyError: Another export writes it.
        OutputSpaceError: The disk has not room enough.
        OutputWriteError: The disk is full or otherwise refuses.
        CheckpointError: A tensor cannot be read, holds what is no number, or has changed in the meantime.
        RecipeError: The recipe asks for what the checkpoint does not have.
        Float16RangeError: It is to compute in float16, and holds numbers beyond that.
    """
    out = out.absolute()
    check_output(out, BUNDLE_FILES, overwrite=overwrite)
    manifest = describe(checkpoint, recipe, out.name)
    weights = plan_weights(manifest.architecture, manifest.quantization)
    check_space(out, weights.file.size + recipe.rounding.keeps(manifest.architecture))
    check_norms(checkpoint)
    progress = progress or _silent
    try:
        with partial_folder(out, fingerprint(checkpoint, recipe, manifest, texts)) as folder:
            _take_space(folder / WEIGHTS_FILE, weights.file.size)
            if texts is None:
                read = partial(calibration_texts, checkpoint, recipe.calibration, partial(progress, "calibration"))
                texts = kept(folder / TEXTS, read) if recipe.calibrates else []
            job = Job(checkpoint, texts, _blocks(weights), folder)
            rounded = _write_weights(job, manifest, weights, recipe, progress)
            scales = _finite(cache_scales(rounded, texts), checkpoint) if recipe.cache == "int8" else None
            checkpoint.check_unchanged()
            write_file(folder / GRAPH_FILE, graph_of(manifest, weights, rounded.tensor, scales))
            write_file(folder / TOKENIZER_FILE, checkpoint.tokenizer_json())
            write_json(folder / "config.json", bundle_config(manifest))
            write_json(folder / "genai_config.json", genai_config(manifest))
            # A killed export may have left a manifest of its own here.
            present = [file for file in sorted(folder.glob("[!.]*")) if file.name != MANIFEST_FILE]
            files = {file.name: FileEntry.of(file) for file in present}
            manifest = replace(manifest, files=files)
            write_file(folder / MANIFEST_FILE, manifest.to_json().encode())
            publish(folder, out, BUNDLE_FILES, overwrite=overwrite)
    except EdgeAssistantError:
        raise
    except OSError as error:
        raise OutputWriteError(out, weights.file.size, error) from error
    return manifest


def _write_weights(job: Job, manifest: Manifest, weights: Weights, recipe: Recipe, progress: Progress) -> Tensors:
    """Write the file of weights into the job's folder, and return the model that was rounded."""
    efforts = recipe.rounding.efforts(weights, job.checkpoint.config, sum(map(len, job.texts)))
    with (job.folder / WEIGHTS_FILE).open("r+b") as file, Journal(job.folder / _JOURNAL) as journal:
        for place, table in zip((weights.cos, weights.sin), rotary_tables(manifest.architecture), strict=True):
            write_rows(file.fileno(), place, 0, as_stored(table, place.dtype, place.name))
        with MatrixWriter(file.fileno(), weights, job.checkpoint, journal, efforts, progress) as writer:
            rounded = recipe.rounding(job, writer)
        os.fsync(file.fileno())
    return rounded


def graph_of(manifest: Manifest, weights: Weights, norm: Callable[[str], Float32], scales: CacheScales | None) -> bytes:
    """Return the file of the graph that the manifest describes; see `build_graph`."""
    model = build_graph(
        manifest.architecture,
        manifest.quantization,
        weights,
        norm,
        scales,
        bounded_window=manifest.cache.window == "bounded",
        lora=manifest.lora,
    )
    return serialize(model)


def describe(checkpoint: Checkpoint, recipe: Recipe, name: str) -> Manifest:
    """Return the manifest of the bundle to be, with no files in it yet.

    Raises:
        RecipeError: The recipe asks for what the checkpoint does not have, or the name is none.
    """
    name = recipe.name or name
    if "/" in name or not name.strip(".") or not name.isprintable():
        raise RecipeError("name", repr(name), "one of letters that can be read, without a slash")
    architecture = replace(checkpoint.config, max_positions=recipe.positions(checkpoint.config))
    adapter = checkpoint.adapter.source if checkpoint.adapter else None
    return Manifest(
        format_version=FORMAT_VERSION,
        kind="language",
        name=name,
        created_by=f"edge-assistant-export {__version__}",
        architecture=architecture,
        quantization=recipe.quantization(architecture),
        cache=recipe.cache_spec(architecture),
        instruct=recipe.instruct or checkpoint.instruct,
        special_ids=checkpoint.special_ids(),
        licence=recipe.licence or checkpoint.licence,
        source=Source(checkpoint.source_name, checkpoint.layout, checkpoint.revision, adapter),
        assistant=checkpoint.assistant,
        files={},
        quality=None,
        lora=recipe.lora(architecture),
    )


def check_norms(checkpoint: Checkpoint) -> None:
    """Refuse norms that hold what is no number: they are read here already, as they are small and used last.

    Raises:
        CheckpointError
    """
    layers = (f"layers.{layer}.{norm}" for layer in range(checkpoint.config.n_layers) for norm in _LAYER_NORMS)
    for name in ("norm", *layers):
        if not np.isfinite(checkpoint.tensor(name)).all():
            raise checkpoint.not_finite(name)


def _finite(scales: CacheScales, checkpoint: Checkpoint) -> CacheScales:
    for name, found in scales._asdict().items():
        if not np.isfinite(found).all():
            layer = int(np.argwhere(~np.isfinite(found))[0, 0])
            problem = f"{name} of layer {layer} are beyond float32 on the texts that it is calibrated with"
            raise CheckpointError(checkpoint.source_name, f"{problem}: an int8 cache cannot hold them")
    return scales


def _blocks(weights: Weights) -> dict[str, Blocks]:
    """Return how each tensor that a matrix is made of will be rounded."""
    return {
        name: Blocks(matrix.bits, matrix.block_size, matrix.zero_points is not None)
        for matrix in weights.matrices
        for part in matrix.parts
        for name in part.names
    }


def fingerprint(checkpoint: Checkpoint, recipe: Recipe, manifest: Manifest, given: object) -> str:
    """Return what two exports share whose finished pieces are the same: what is read, how, and by which exporter.

    `given` is whatever else decides what comes of it.
    """
    tokenizer = hashlib.sha256(checkpoint.tokenizer_json()).hexdigest()
    mark = mark_of(recipe.calibration) if recipe.calibration else None
    parts = (manifest.to_json(), repr(recipe), checkpoint.marks, tokenizer, mark, given, pieces.WEIGHTS_AT_A_TIME)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def mark_of(text: Path) -> tuple[int, int]:
    """Return the size and the time of change of a text.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        status = text.stat()
    except OSError as error:
        raise CheckpointError(text, f"it cannot be read ({error.strerror}): name another text") from error
    return status.st_size, status.st_mtime_ns


def _take_space(path: Path, size: int) -> None:
    with path.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass
