"""Writes matrices of a bundle, piece by piece, in as many threads as there are cores.

A piece is some rows of one matrix: what a worker reads of the checkpoint, quantises and writes at a time. The journal
has the hash of each that is finished: an export that was killed goes on with those that are not, and with those whose
bytes the disk has lost.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from edge_assistant.errors import CheckpointError
from edge_assistant_export.effort import Effort
from edge_assistant_export.graph import Place
from edge_assistant_export.journal import Journal
from edge_assistant_export.one_thread import one_thread_each
from edge_assistant_export.quantize import Float32, Quantizer
from edge_assistant_export.reference import Tensors
from edge_assistant_export.stored import as_stored
from edge_assistant_export.weights import Matrix, Weights, read_rows
from edge_assistant_export.written import Written

if TYPE_CHECKING:
    from edge_assistant_export.checkpoint import Checkpoint

Progress = Callable[[str, int, int], None]
"""Told the name of a stage, "calibration" or "weights", and how much of how much of it is done."""

WEIGHTS_AT_A_TIME: Final = 4 << 20
"""16 MB as float32."""


class MatrixWriter:
    """Quantises and writes matrices; threads do, as numpy's loops let go of the interpreter lock."""

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
            with np.errstate(over="ignore"):  # what is read back is finite where so many steps are
                finite = np.isfinite(packed.scales * np.float32(2**matrix.bits)).all()
            if not finite:
                problem = f"{matrix.data.name} holds numbers that are too large to be rounded to {matrix.bits} bits"
                raise CheckpointError(self._checkpoint.source_name, f"{problem}: are its weights broken?")
            written = [part for part in packed if part is not None]
        sha256 = hashlib.sha256()
        for place, part in zip(matrix.places, written, strict=True):
            sha256.update(write_rows(self._file, place, first_row, as_stored(part, place.dtype, place.name)))
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


def write_rows(file: int, place: Place, first_row: int, rows: npt.NDArray[Any]) -> memoryview:
    """Write rows to their place, and return their bytes."""
    row_bytes = place.nbytes // place.shape[0]
    offset = place.offset + first_row * row_bytes
    whole = left = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written
    return whole


class _Piece(NamedTuple):
    """Some rows of a matrix."""

    matrix: Matrix
    rows: slice


def _pieces(matrix: Matrix, rows: slice) -> Iterator[_Piece]:
    """Cut rows of a matrix into what a worker takes at a time."""
    step = max(1, WEIGHTS_AT_A_TIME // matrix.row_size)
    for start in range(rows.start, rows.stop, step):
        yield _Piece(matrix, slice(start, min(start + step, rows.stop)))


def _name(piece: _Piece) -> str:
    """Return what the journal calls a piece."""
    return f"{piece.matrix.data.name} {piece.rows.start}-{piece.rows.stop}"
