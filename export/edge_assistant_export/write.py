"""Writes a bundle: the weights streamed from the checkpoint through the quantiser into their places, then the rest.

Contract: whatever happens, the bundle's folder appears whole or not at all (`publish.py`), and an export that was
killed goes on with the piece at which it was (`journal.py`).

Every worker holds one piece of one matrix; nothing grows with the size of the checkpoint. Space for the weights is
taken from the disk at the start, so that a disk that is too small says so at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

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
    OutputWriteError,
    RecipeError,
)
from edge_assistant_export import __version__
from edge_assistant_export.awq import Blocks
from edge_assistant_export.cache_scales import cache_scales
from edge_assistant_export.calibration_text import calibration_texts
from edge_assistant_export.effort import Effort
from edge_assistant_export.graph import Place, serialize
from edge_assistant_export.journal import Journal, kept
from edge_assistant_export.methods import Job
from edge_assistant_export.mistral import CacheScales, build_graph
from edge_assistant_export.neighbours import bundle_config, genai_config
from edge_assistant_export.one_thread import one_thread_each
from edge_assistant_export.publish import (
    check_output,
    check_space,
    partial_folder,
    publish,
    write_file,
    write_json,
)
from edge_assistant_export.quantize import Float32, Quantizer
from edge_assistant_export.reference import Tensors
from edge_assistant_export.rotary import rotary_tables
from edge_assistant_export.stored import as_stored
from edge_assistant_export.weights import Matrix, Weights, plan_weights, read_rows
from edge_assistant_export.written import Written

if TYPE_CHECKING:
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.recipe import Recipe

BUNDLE_FILES: Final = frozenset(
    {GRAPH_FILE, WEIGHTS_FILE, TOKENIZER_FILE, MANIFEST_FILE, "config.json", "genai_config.json"}
)
"""All that a bundle's folder holds."""

Progress = Callable[[str, int, int], None]
"""Told the name of a stage, "calibration" or "weights", and how much of how much of it is done."""


# Weights a worker takes at a time: 16 MB as float32.
_PIECE: Final = 4 << 20
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
        OutputExistsError: `out` exists and is not to be overwritten, or holds what is not a bundle's.
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
            write_file(folder / GRAPH_FILE, _graph(manifest, weights, rounded, scales))
            write_file(folder / TOKENIZER_FILE, checkpoint.tokenizer_json())
            write_json(folder / "config.json", bundle_config(manifest))
            write_json(folder / "genai_config.json", genai_config(manifest))
            files = {file.name: FileEntry.of(file) for file in sorted(folder.glob("[!.]*"))}
            manifest = replace(manifest, files=files)
            write_file(folder / MANIFEST_FILE, manifest.to_json().encode())
            publish(folder, out)
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
            _write_rows(file.fileno(), place, 0, as_stored(table, place.dtype, place.name))
        with _Writer(file.fileno(), weights, job.checkpoint, journal, efforts, progress) as writer:
            rounded = recipe.rounding(job, writer)
        os.fsync(file.fileno())
    return rounded


def _graph(manifest: Manifest, weights: Weights, rounded: Tensors, scales: CacheScales | None) -> bytes:
    model = build_graph(
        manifest.architecture,
        manifest.quantization,
        weights,
        rounded.tensor,
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


class _Piece(NamedTuple):
    """Some rows of a matrix."""

    matrix: Matrix
    rows: slice


def _pieces(matrix: Matrix, rows: slice) -> Iterator[_Piece]:
    """Cut rows of a matrix into what a worker takes at a time."""
    step = max(1, _PIECE // matrix.row_size)
    for start in range(rows.start, rows.stop, step):
        yield _Piece(matrix, slice(start, min(start + step, rows.stop)))


def _name(piece: _Piece) -> str:
    """Return what the journal calls a piece."""
    return f"{piece.matrix.data.name} {piece.rows.start}-{piece.rows.stop}"


def fingerprint(checkpoint: Checkpoint, recipe: Recipe, manifest: Manifest, given: object) -> str:
    """Return what two exports share whose finished pieces are the same: what is read, how, and by which exporter.

    `given` is whatever else decides what comes of it.
    """
    tokenizer = hashlib.sha256(checkpoint.tokenizer_json()).hexdigest()
    mark = mark_of(recipe.calibration) if recipe.calibration else None
    parts = (manifest.to_json(), repr(recipe), checkpoint.marks, tokenizer, mark, given, _PIECE)
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


class _Writer:
    """Quantises matrices in as many threads as there are cores: numpy's loops let go of the interpreter lock."""

    def __init__(
        self,
        file: int,
        weights: Weights,
        checkpoint: Checkpoint,
        journal: Journal,
        efforts: Mapping[str, Effort],
        progress: Progress,
    ) -> None:
        """`file` is the descriptor of the file of weights; `progress` is told how much of the effort is done."""
        self._file, self._checkpoint, self._journal, self._progress = file, checkpoint, journal, progress
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "quantise")
        self._left = {name: _Piece(matrix, rows) for matrix in weights.matrices for name, rows in matrix.shares()}
        self._efforts = efforts
        self._total = sum(effort.whole for effort in efforts.values())
        self._done = 0.0
        self.written = Written(file, weights, checkpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self.spent(self._total - self._done)  # what was counted beforehand may be a little off

    @property
    def left(self) -> list[str]:
        """What has not been written, by the first tensor's name of what reads the same input."""
        return list(self._left)

    def spent(self, effort: float) -> None:
        """Count effort, and tell of it."""
        self._done = min(self._done + effort, self._total)
        self._progress("weights", int(self._done), int(self._total))

    def skip(self, names: Sequence[str]) -> bool:
        """Count some of what is left as written where every piece of it is there; return whether it is."""
        pieces = [piece for name in names for piece in _pieces(*self._left[name])]
        if not all(self._pool.map(self._is_finished, pieces)):
            return False
        for name in names:
            del self._left[name]
            self._total -= self._efforts[name].whole
        return True

    def write(self, names: Iterable[str], prepare: Callable[[], Quantizer], source: Tensors | None = None) -> None:
        """Write some of what is left, and return when it is; from the checkpoint if no other source is named.

        Interrupted, it lets the pieces that are being written come to their end.
        """
        pieces = [one for name in names for one in self._missing(name)]
        if not pieces:
            return
        write = partial(self._write_piece, quantizer=prepare(), source=source or self._checkpoint)
        with one_thread_each():
            futures = {self._pool.submit(write, piece): effort for piece, effort in pieces}
            try:
                for future in as_completed(futures):
                    future.result()
                    self.spent(futures[future])
            except BaseException:
                for future in futures:
                    future.cancel()
                wait(futures)
                raise

    def _missing(self, name: str) -> list[tuple[_Piece, float]]:
        """Return the pieces of a share that are not there yet, with their efforts; what is there is effort no more."""
        share, effort = self._left.pop(name), self._efforts[name]
        pieces = list(_pieces(*share))
        finished = list(self._pool.map(self._is_finished, pieces))
        per_row = effort.rounding / (share.rows.stop - share.rows.start)
        efforts = [per_row * (piece.rows.stop - piece.rows.start) for piece in pieces]
        self._total -= sum(one for one, there in zip(efforts, finished, strict=True) if there)
        if all(finished):
            self._total -= effort.preparing
        return [each for each, there in zip(zip(pieces, efforts, strict=True), finished, strict=True) if not there]

    def _is_finished(self, piece: _Piece) -> bool:
        finished = self._journal.hash_of(_name(piece))
        return finished is not None and finished == self._hash_on_disk(piece)

    def _write_piece(self, piece: _Piece, quantizer: Quantizer, source: Tensors) -> None:
        """Quantise and write a piece."""
        matrix, first_row = piece.matrix, piece.rows.start
        rows = read_rows(matrix, partial(self._read, source), piece.rows)
        written: Sequence[npt.NDArray[Any]] = [rows]
        if matrix.scales is not None:
            zeros = matrix.zero_points is not None
            packed = quantizer(rows, piece.rows, bits=matrix.bits, block_size=matrix.block_size, zero_points=zeros)
            if not np.isfinite(packed.scales).all():
                problem = f"{matrix.data.name} holds numbers that are too large to be rounded to {matrix.bits} bits"
                raise CheckpointError(self._checkpoint.source_name, f"{problem}: are its weights broken?")
            written = [part for part in packed if part is not None]
        sha256 = hashlib.sha256()
        for place, part in zip(matrix.places, written, strict=True):
            sha256.update(_write_rows(self._file, place, first_row, as_stored(part, place.dtype, place.name)))
        self._journal.add(_name(piece), sha256.hexdigest())

    def _hash_on_disk(self, piece: _Piece) -> str:
        sha256 = hashlib.sha256()
        for place in piece.matrix.places:
            row_bytes = place.nbytes // place.shape[0]
            length = (piece.rows.stop - piece.rows.start) * row_bytes
            sha256.update(os.pread(self._file, length, place.offset + piece.rows.start * row_bytes))
        return sha256.hexdigest()

    def _read(self, source: Tensors, name: str, rows: slice) -> Float32:
        """Return rows of a tensor whose numbers are finite."""
        found = source.tensor(name, rows)
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(found.sum())  # which large numbers alone can pass beyond float32
        if not finite and not np.isfinite(found).all():
            raise self._checkpoint.not_finite(name)
        return found


def _write_rows(file: int, place: Place, first_row: int, rows: npt.NDArray[Any]) -> memoryview:
    """Write rows to their place, and return their bytes."""
    row_bytes = place.nbytes // place.shape[0]
    offset = place.offset + first_row * row_bytes
    whole = left = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written
    return whole


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass
