"""Writes a bundle: the weights streamed from the checkpoint through the quantiser into their places, then the rest.

Contract: whatever happens, the bundle's folder appears whole or not at all. All is written into `.NAME.partial` beside
it, made durable, and renamed at the end. A folder that a killed export left behind is emptied and used again.

Every worker holds one piece of one matrix; nothing grows with the size of the checkpoint. Space for the weights is
taken from the disk at the start, so that a disk that is too small says so at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

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
    OutputBusyError,
    OutputExistsError,
    OutputWriteError,
)
from edge_assistant_export import __version__
from edge_assistant_export.cache_scales import cache_scales
from edge_assistant_export.calibration_text import calibration_texts
from edge_assistant_export.compensate import Inputs, compensated
from edge_assistant_export.graph import Place, serialize
from edge_assistant_export.mistral import Matrix, Weights, build_graph, plan_weights, rotary_tables
from edge_assistant_export.neighbours import genai_config, huggingface_config
from edge_assistant_export.quantize import Float32, Packed, Rounding, quantize
from edge_assistant_export.reference import hidden_states

if TYPE_CHECKING:
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.recipe import Method, Recipe

BUNDLE_FILES: Final = frozenset(
    {GRAPH_FILE, WEIGHTS_FILE, TOKENIZER_FILE, MANIFEST_FILE, "config.json", "genai_config.json"}
)
"""All that a bundle's folder holds."""

Progress = Callable[[str, int, int], None]
"""Told the name of a stage, "calibration" or "weights", and how much of how much of it is done."""


class Quantizer(Protocol):
    """Makes some rows of a matrix into integers and scales."""

    def __call__(self, weight: Float32, *, bits: int, block_size: int) -> Packed:
        """Return the rows of `weight` [n_rows, row_size] with so many bits a weight and weights a scale."""


# Weights a worker takes at a time: 16 MB as float32.
_PIECE: Final = 4 << 20


def export(
    checkpoint: Checkpoint, recipe: Recipe, out: Path, progress: Progress | None = None, *, overwrite: bool = False
) -> Manifest:
    """Write the bundle that the recipe makes of a checkpoint, and return its manifest.

    Raises:
        OutputExistsError: `out` exists and is not to be overwritten, or holds what is not a bundle's.
        OutputBusyError: Another export writes it.
        OutputWriteError: The disk is full or otherwise refuses.
        CheckpointError: A tensor cannot be read.
        RecipeError: The recipe asks for what the checkpoint does not have.
    """
    out = out.absolute()
    check_output(out, overwrite=overwrite)
    manifest = describe(checkpoint, recipe, out.name)
    weights = plan_weights(manifest.architecture, manifest.quantization)
    progress = progress or _silent
    try:
        with _partial_folder(out) as folder:
            _take_space(folder / WEIGHTS_FILE, weights.file.size)
            texts: list[list[int]] = []
            if recipe.calibrates:
                texts = calibration_texts(checkpoint, recipe.calibration, partial(progress, "calibration"))
            with (folder / WEIGHTS_FILE).open("r+b") as file:
                for place, table in zip((weights.cos, weights.sin), rotary_tables(manifest.architecture), strict=True):
                    _write_rows(file.fileno(), place, 0, table)
                _write_weights(file.fileno(), weights, checkpoint, recipe.method, texts, progress)
                os.fsync(file.fileno())
            scales = cache_scales(checkpoint, texts) if recipe.cache == "int8" else None
            model = build_graph(manifest.architecture, manifest.quantization, weights, checkpoint.tensor, scales)
            _write(folder / GRAPH_FILE, serialize(model))
            _write(folder / TOKENIZER_FILE, checkpoint.tokenizer_json())
            _write_json(folder / "config.json", huggingface_config(manifest.architecture, manifest.special_ids))
            _write_json(folder / "genai_config.json", genai_config(manifest))
            files = {file.name: FileEntry.of(file) for file in sorted(folder.iterdir())}
            manifest = replace(manifest, files=files)
            _write(folder / MANIFEST_FILE, manifest.to_json().encode())
            _publish(folder, out)
    except EdgeAssistantError:
        raise
    except OSError as error:
        raise OutputWriteError(out, weights.file.size, error) from error
    return manifest


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is there already; one that holds a bundle and nothing else may be overwritten.

    Raises:
        OutputExistsError
    """
    if out.exists():
        names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        strangers = sorted(names - BUNDLE_FILES)
        if strangers or not overwrite:
            raise OutputExistsError(out, strangers=strangers)


def describe(checkpoint: Checkpoint, recipe: Recipe, name: str) -> Manifest:
    """Return the manifest of the bundle to be, with no files in it yet.

    Raises:
        RecipeError: The recipe asks for what the checkpoint does not have.
    """
    architecture = replace(checkpoint.config, max_positions=recipe.positions(checkpoint.config))
    adapter = checkpoint.adapter.source if checkpoint.adapter else None
    return Manifest(
        format_version=FORMAT_VERSION,
        name=recipe.name or name,
        created_by=f"edge-assistant-export {__version__}",
        architecture=architecture,
        quantization=recipe.quantization(architecture),
        cache=recipe.cache_spec,
        instruct=recipe.instruct or checkpoint.instruct,
        special_ids=checkpoint.special_ids(),
        licence=recipe.licence or checkpoint.licence,
        source=Source(checkpoint.source_name, checkpoint.layout, checkpoint.revision, adapter),
        assistant=checkpoint.assistant,
        files={},
        quality=None,
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows of a matrix: `rows` of the tensor `source`, which go to `first_row` and the following."""

    matrix: Matrix
    source: str
    rows: slice
    first_row: int


def _pieces(matrix: Matrix, checkpoint: Checkpoint) -> Iterator[_Piece]:
    step = max(1, _PIECE // matrix.row_size)
    first_row = 0
    for source in matrix.sources:
        n_rows = checkpoint.shape(source)[0]
        for start in range(0, n_rows, step):
            yield _Piece(matrix, source, slice(start, min(start + step, n_rows)), first_row + start)
        first_row += n_rows


def _take_space(path: Path, size: int) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _write_weights(
    file: int,
    weights: Weights,
    checkpoint: Checkpoint,
    method: Method,
    texts: list[list[int]],
    progress: Progress,
) -> None:
    """Write every matrix; with GPTQ while the texts pass through the model, as soon as what it multiplies is known."""
    left = {matrix.sources[0]: matrix for matrix in weights.matrices}
    total = sum(matrix.n_rows * matrix.row_size for matrix in weights.matrices)
    with _Writer(file, checkpoint, lambda done: progress("weights", done, total)) as writer:
        if method == "gptq" and weights.layers[0].qkv.scales is not None:

            def write(name: str, factor: Float32) -> None:
                writer.write([left.pop(name)], partial(compensated, factor=factor))

            inputs = Inputs(write)
            try:
                hidden_states(checkpoint, texts, observer=inputs)
                inputs.finish()
            except np.linalg.LinAlgError as error:
                problem = f"GPTQ cannot weigh what passes through its layers ({error}): try --method least-squares"
                raise CheckpointError(checkpoint.source_name, problem) from error
        rounding: Rounding = "maximum" if method == "maximum" else "least_squares"
        writer.write(left.values(), partial(quantize, method=rounding))


class _Writer:
    """Quantises matrices in as many threads as there are cores: numpy's loops let go of the interpreter lock."""

    def __init__(self, file: int, checkpoint: Checkpoint, progress: Callable[[int], None]) -> None:
        """`progress` is told how many weights are done."""
        self._file, self._checkpoint, self._progress = file, checkpoint, progress
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "quantise")
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def write(self, matrices: Iterable[Matrix], quantizer: Quantizer) -> None:
        """Write some matrices, and return when they are."""
        futures = [
            self._pool.submit(self._write_piece, piece, quantizer)
            for matrix in matrices
            for piece in _pieces(matrix, self._checkpoint)
        ]
        for future in as_completed(futures):
            self._done += future.result()
            self._progress(self._done)

    def _write_piece(self, piece: _Piece, quantizer: Quantizer) -> int:
        """Quantise and write a piece; return how many weights that were."""
        rows = self._checkpoint.tensor(piece.source, piece.rows)
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(rows.sum())
        if not finite:
            raise CheckpointError(self._checkpoint.source_name, f"{piece.source} holds numbers that are not finite")
        matrix = piece.matrix
        if matrix.scales is None:
            _write_rows(self._file, matrix.data, piece.first_row, rows)
        else:
            packed = quantizer(rows, bits=matrix.bits, block_size=matrix.block_size)
            _write_rows(self._file, matrix.data, piece.first_row, packed.data)
            _write_rows(self._file, matrix.scales, piece.first_row, packed.scales)
        return int(rows.size)


def _write_rows(file: int, place: Place, first_row: int, rows: npt.NDArray[Any]) -> None:
    row_bytes = place.nbytes // place.shape[0]
    offset = place.offset + first_row * row_bytes
    left = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out`, which is locked while it is used and removed unless it was published."""
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputBusyError(out) from error
        try:
            for stale in folder.iterdir():
                stale.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _publish(folder: Path, out: Path) -> None:
    """Give the finished folder its name; a bundle that had it steps aside first and is then removed."""
    _sync_folder(folder)
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    folder.rename(out)
    _sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a small file, which is at every moment either the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    _write(partial, content)
    partial.replace(path)
    _sync_folder(path.parent)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass
