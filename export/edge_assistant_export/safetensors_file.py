"""Reads tensors from one safetensors file (https://huggingface.co/docs/safetensors): 8 bytes of length, JSON, data.

The whole header is checked when the file is opened, so that a truncated download is found before an hour of work.
Rows are read with pread into memory of their own: what a caller holds is all that is resident, and threads can share
one file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from edge_assistant.errors import CheckpointError

Float32 = npt.NDArray[np.float32]

_READ_AS: Final[Mapping[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# The reference implementation's own limit: a longer header is not one.
_LONGEST_HEADER: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies, and as what."""

    dtype: str
    """As the header names it, such as `BF16`."""
    shape: tuple[int, ...]
    offset: int
    """Of the first byte, from the start of the file."""


class SafetensorsFile:
    """One open file; `tensors` lists what it holds, `mark` tells whether it is still the same."""

    def __init__(self, path: Path) -> None:
        """Open a file and check its header.

        Raises:
            CheckpointError: There is no such file, it is truncated, or it is no safetensors file.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            self.mark = self._mark()
            self.tensors = self._read_header()
        except OSError as error:
            self.close()
            raise _unreadable(path, error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def check_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened: what was read of it may be of two states.

        Raises:
            CheckpointError
        """
        if self._mark() != self.mark:
            raise CheckpointError(self.path, "it has changed while it was read; run the same command again")

    def read(self, name: str, rows: slice | None = None) -> Float32:
        """Return a tensor, or some rows of its first axis, as float32.

        Raises:
            CheckpointError: Its type is none of float32, float16 and bfloat16, or the file has become shorter.
        """
        info = self.tensors[name]
        dtype = self.check_dtype(name)
        shape = info.shape
        start = 0
        if rows is not None:
            start, stop, _ = rows.indices(shape[0])
            shape = (max(0, stop - start), *shape[1:])
        raw = np.empty(shape, dtype)
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._read_into(raw.reshape(-1).view(np.uint8).data, info.offset + start * row_bytes)
        return raw.astype(np.float32, copy=False)

    def check_dtype(self, name: str) -> np.dtype[Any]:
        """Return the type a tensor is stored as, once it is known to be one that can be read.

        Raises:
            CheckpointError: It is not.
        """
        dtype = self.tensors[name].dtype
        if dtype not in _READ_AS:
            raise CheckpointError(
                self.path,
                f"{name} is stored as {dtype}; only F32, F16 and BF16 can be read: "
                f"take the checkpoint as it was before it was quantised",
            )
        return _READ_AS[dtype]

    def _mark(self) -> tuple[int, int]:
        """Return the size in bytes and the time of change, of the open file whatever its name means by now."""
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer; one call of the system gives 2 GiB at most."""
        while buffer:
            try:
                n_bytes = os.preadv(self._descriptor, [buffer], offset)
            except OSError as error:
                raise _unreadable(self.path, error) from error
            if n_bytes == 0:
                raise CheckpointError(self.path, "it has become shorter while it was read")
            buffer, offset = buffer[n_bytes:], offset + n_bytes

    def _read_header(self) -> dict[str, TensorInfo]:
        size = os.fstat(self._descriptor).st_size
        length = int.from_bytes(os.pread(self._descriptor, 8, 0), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(
                self.path,
                f"it is truncated or no safetensors file: the header ends at byte {8 + length} of {size}; "
                f"download it again",
            )
        if length > _LONGEST_HEADER:
            raise CheckpointError(
                self.path, f"it is no safetensors file: a header of {length} bytes is beyond the format"
            )
        try:
            header = json.loads(os.pread(self._descriptor, length, 8))
            entries = {
                name: _tensor_info(entry, 8 + length) for name, entry in header.items() if name != "__metadata__"
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CheckpointError(self.path, f"its header cannot be read ({error}); download it again") from error
        for name, (info, end) in entries.items():
            self._check_extent(name, info, end, size)
        return {name: info for name, (info, _) in entries.items()}

    def _check_extent(self, name: str, info: TensorInfo, end: int, size: int) -> None:
        if not 0 <= info.offset <= end:
            raise CheckpointError(self.path, f"{name} ends before it begins; download the file again")
        if end > size:
            raise CheckpointError(
                self.path, f"it is truncated: {name} ends at byte {end}, the file at {size}; download it again"
            )
        dtype = _READ_AS.get(info.dtype)
        if dtype is not None and (takes := math.prod(info.shape) * dtype.itemsize) != (has := end - info.offset):
            raise CheckpointError(
                self.path,
                f"{name} has {has} bytes, but {info.dtype} {list(info.shape)} takes {takes}; download the file again",
            )


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(path, f"it cannot be read ({error.strerror}); download it again, or look at the disk")


def _tensor_info(entry: Any, data: int) -> tuple[TensorInfo, int]:
    """Return what a header's entry says, and where the tensor ends; `data` is where the first begins."""
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(isinstance(number, int) and number >= 0 for number in (start, end, *shape)):
        raise ValueError("an offset or a size is no whole number")
    return TensorInfo(str(entry["dtype"]), shape, data + start), data + end
