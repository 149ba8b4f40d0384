"""Where keys and values lie: in the processor's memory, or in a device's, of which the processor gets copies.

A buffer in the processor's memory is a numpy array, which the graph reads and writes where it lies: nothing is copied.
One on a device is a `DeviceBuffer`. What is done to rows beside attention (to keep a prefix, to evict, to move a
window) is done on the host: there and back they are copied, all rows of a buffer, as onnxruntime copies no part of one.
That comes once a prompt, not once a token.

    with on_host(buffer) as rows:       rows is the buffer itself, or a copy that is written back
        rows[:, :, new] = rows[:, :, old]
"""

from __future__ import annotations

import math
import mmap
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

import numpy as np
import onnxruntime as ort

from edge_assistant.errors import DeviceMemoryError

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

_ALIGNMENT = 64
"""A cache line, and the widest vector register."""


class Device(NamedTuple):
    """What a graph computes on, by onnxruntime's name and number."""

    type: str
    id: int
    addressable: bool
    """Whether its memory is the processor's own."""


HOST: Final = Device("cpu", 0, addressable=True)
CUDA_DEVICE: Final = Device("cuda", 0, addressable=False)


@dataclass(frozen=True, slots=True)
class DeviceBuffer:
    """Sequences [first, end) of a buffer [sequences, n_kv_heads, rows, head_dim] in a device's memory."""

    value: ort.OrtValue
    device: Device
    dtype: np.dtype[Any]
    first: int
    end: int

    @classmethod
    def zeros(cls, shape: tuple[int, ...], dtype: np.dtype[Any], device: Device) -> Self:
        """Allocate a buffer; all of its memory is taken at once.

        Raises:
            DeviceMemoryError: The device has not so much, or this onnxruntime does not know it.
        """
        try:
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype.type, device.type, device.id)
        except (MemoryError, RuntimeError) as error:
            raise DeviceMemoryError(device.type, math.prod(shape) * dtype.itemsize, str(error)) from error
        # Attention may multiply rows that were never written by a weight of zero: they must not be NaN.
        value.update_inplace(np.zeros(shape, dtype))
        return cls(value, device, dtype, 0, shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of these sequences."""
        return (self.end - self.first, *self.value.shape()[1:])

    @property
    def pointer(self) -> int:
        """Where they begin, in the device's memory."""
        sequence = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        return int(self.value.data_ptr()) + self.first * sequence

    def __getitem__(self, sequences: slice) -> DeviceBuffer:
        """Return some of these sequences, in the same memory."""
        first, end, _ = sequences.indices(self.end - self.first)
        return replace(self, first=self.first + first, end=self.first + end)

    def read(self) -> NDArray[Any]:
        """Return a copy of the whole buffer, other sequences too: what is not their own must not be lost in `write`."""
        return np.array(self.value.numpy())

    def write(self, whole: NDArray[Any]) -> None:
        """Take back what `read` has given."""
        self.value.update_inplace(whole)


Buffer: TypeAlias = "NDArray[Any] | DeviceBuffer"


class Place(NamedTuple):
    """A buffer as `bind_input` and `bind_output` of onnxruntime take it."""

    device_type: str
    device_id: int
    element_type: type
    shape: tuple[int, ...]
    pointer: int


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any], device: Device, *, sparse: bool = False) -> Buffer:
    """Allocate a buffer of zeros; of a `sparse` one on the host only the pages that are written take memory."""
    if not device.addressable:
        return DeviceBuffer.zeros(shape, dtype, device)
    return _sparse(shape, dtype) if sparse else _aligned(shape, dtype)


def place(buffer: Buffer) -> Place:
    """Return where a contiguous buffer lies; whoever binds it must hold it."""
    device, pointer = (
        (buffer.device, buffer.pointer) if isinstance(buffer, DeviceBuffer) else (HOST, buffer.ctypes.data)
    )
    return Place(device.type, device.id, buffer.dtype.type, buffer.shape, pointer)


def rows_of(buffer: Buffer) -> NDArray[Any]:
    """Return a buffer's content to be read: the buffer itself, or a copy."""
    return buffer.read()[buffer.first : buffer.end] if isinstance(buffer, DeviceBuffer) else buffer


@contextmanager
def on_host(buffer: Buffer) -> Generator[NDArray[Any]]:
    """Give a buffer's content to be read and written: the buffer itself, or a copy that is written back."""
    if isinstance(buffer, DeviceBuffer):
        whole = buffer.read()
        yield whole[buffer.first : buffer.end]
        buffer.write(whole)
    else:
        yield buffer


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that start at a multiple of the alignment, which numpy alone does not promise."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def _sparse(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return aligned zeros of which only the pages that are written take memory, also where huge pages are the rule."""
    memory = mmap.mmap(-1, int(np.prod(shape)) * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages does not know the word
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)
