"""Block quantisation of weight matrices, in plain numpy.

Contract: a weight matrix [n_rows, row_size] becomes what onnxruntime's MatMulNBits and GatherBlockQuantized read. Every
row is cut into blocks (the last one filled up with zeros); a block of weights w is stored as unsigned integers q and
one scale, and read back as `(q - zero) * scale`: zero is 2**(bits - 1), or an integer of the block's own. Of two 4-bit
values in a byte the first is the low half.

    least_squares   of a few candidate scales the one whose integers, refitted, leave the least squared error
    maximum         the largest weight of a block becomes the largest integer; kept for comparison

(`compensate.py` has a third way, which needs to know what the matrix multiplies; `methods.py` lists them all.)

Without zero points a scale may be negative: the peak of a block then takes the integer without a positive twin. With
them a block is fitted from its lowest weight to its highest, for `bits` more bits a block.

Scales are rounded to bf16 *before* the weights are rounded to them, because the ARM kernels (KleidiAI) cut scales to
bf16: so every board computes with the same numbers. They are stored as float32, or as float16, which holds the same
numbers from 2**-17 on, and smaller ones to 2**-25.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Rounding = Literal["least_squares", "maximum"]

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

# How many integers beyond the last one the peak of a block is aimed at: a positive aim cuts the peak itself off, a
# negative one makes the grid coarser. On trained and on Gaussian weights more aims gain under 0.5 % of the error.
_AIMS: Final = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
# Shares of the span from a block's lowest weight to its highest that a grid with a zero point covers.
_WIDTHS: Final = (0.82, 0.88, 0.94, 1.0)
# Weights worked on at a time: few enough to stay near the core, enough that numpy's loops, which let go
# of the interpreter lock, outweigh the calls, so that two threads quantise twice as fast.
_PIECE: Final = 320_000
_TINY: Final = np.float32(1e-30)
_LEAST_SCALE: Final = np.finfo(np.float32).tiny
_LARGEST_POWER: Final = 126
"""Of two, of which the inverse is a normal number as well."""


class Packed(NamedTuple):
    """Quantised rows: `data` uint8 [n_rows, n_blocks, block_size * bits / 8], `scales` float32 [n_rows, n_blocks]."""

    data: UInt8
    scales: Float32
    zero_points: UInt8 | None = None
    """Where blocks have their own: uint8 [n_rows, n_blocks * bits / 8, rounded up]."""


class Quantizer(Protocol):
    """Makes some rows of matrices that read the same input into integers and scales."""

    def __call__(self, weight: Float32, rows: slice, *, bits: int, block_size: int, zero_points: bool) -> Packed:
        """Return `weight` [n_rows, row_size], which is these rows, with so many bits a weight and weights a scale.

        It may be called in several threads at once.
        """


def n_blocks(row_size: int, block_size: int) -> int:
    """Return how many blocks a row of `row_size` weights is cut into."""
    return -(-row_size // block_size)


def round_to_bf16(values: Float32) -> Float32:
    """Return the nearest values that bf16 holds (ties to even), as float32; the values are finite."""
    raw = values.view(np.uint32)
    nearest = raw + (np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1)))
    return (nearest & np.uint32(0xFFFF0000)).view(np.float32)


def quantize(
    weight: Float32, bits: int, block_size: int, method: Rounding = "least_squares", *, zero_points: bool = False
) -> Packed:
    """Quantise a matrix [n_rows, row_size] of finite float32 weights to 4 or 8 bits a weight.

    With zero points scales are found by least squares. Needs little memory beyond its result, and may run in several
    threads at once.
    """
    n_rows, row_size = weight.shape
    blocks = n_blocks(row_size, block_size)
    data = np.empty((n_rows, blocks, block_size * bits // 8), np.uint8)
    scales, zeros = (np.empty((n_rows, blocks), np.float32) for _ in range(2))
    rows_at_a_time = max(1, _PIECE // (blocks * block_size))
    for start in range(0, n_rows, rows_at_a_time):
        piece = slice(start, start + rows_at_a_time)
        columns = _to_columns(weight[piece], blocks, block_size)
        found, zero = grid(columns, bits, method, zero_points=zero_points)
        scales[piece], zeros[piece] = found.reshape(-1, blocks), zero.reshape(-1, blocks)
        data[piece] = _pack(columns, found, zero, bits).reshape(-1, *data.shape[1:])
    return Packed(data, scales, pack_zero_points(zeros, bits) if zero_points else None)


def dequantize(packed: Packed, bits: int, row_size: int) -> Float32:
    """Return what a board computes with, [n_rows, row_size]."""
    n_rows, blocks = packed.scales.shape
    integers, zeros = unpack(packed, bits)
    weight = integers.reshape(n_rows, blocks, -1).astype(np.float32)
    weight -= zeros[..., np.newaxis].astype(np.float32)
    weight *= packed.scales[..., np.newaxis]
    return weight.reshape(n_rows, -1)[:, :row_size]


def unpack(packed: Packed, bits: int) -> tuple[UInt8, UInt8]:
    """Return the unsigned integers [n_rows, n_blocks * block_size] and zero points [n_rows, n_blocks]."""
    n_rows, blocks = packed.scales.shape
    integers = _unpack(packed.data.reshape(n_rows, -1), bits)
    if packed.zero_points is None:
        return integers, np.full((n_rows, blocks), 2 ** (bits - 1), np.uint8)
    return integers, _unpack(packed.zero_points, bits)[:, :blocks]


def grid(
    columns: Float32, bits: int, method: Rounding = "least_squares", *, zero_points: bool
) -> tuple[Float32, Float32]:
    """Return the scales, as bf16 holds them, and zero points [columns] of blocks [block_size, columns]."""
    power = _power_of_peak(columns)
    # Of squares of numbers about 1 none is beyond float32; a power of two changes no digit of what is found.
    columns = columns * np.ldexp(np.float32(1), -power)
    if zero_points:
        scales, zeros = _zero_point_grid(columns, bits)
    else:
        found = _peak_scales(columns, bits) if method == "maximum" else _least_squares_scales(columns, bits)
        scales, zeros = round_to_bf16(found), np.full(columns.shape[1], 2 ** (bits - 1), np.float32)
    with np.errstate(over="ignore"):  # what is beyond float32 then is refused where it is written
        scales = np.ldexp(scales, power)
    # Of a scale that is not normal too few digits are left, and its inverse is beyond float32.
    return np.where(np.abs(scales) < _LEAST_SCALE, np.float32(0), scales), zeros


def _power_of_peak(columns: Float32) -> npt.NDArray[np.int32]:
    """Return for every column [block_size, columns] the power of two that its largest weight is about."""
    peak = np.maximum(columns.max(axis=0), -columns.min(axis=0))
    power: npt.NDArray[np.int32] = np.frexp(peak)[1]
    return np.clip(power, -_LARGEST_POWER, _LARGEST_POWER)


def _to_columns(weight: Float32, blocks: int, block_size: int) -> Float32:
    """Return a copy [block_size, n_rows * blocks]: with one block a column, numpy's loops run along many blocks."""
    n_rows, row_size = weight.shape
    if row_size != blocks * block_size:
        padded = np.zeros((n_rows, blocks * block_size), np.float32)
        padded[:, :row_size] = weight
        weight = padded
    return np.ascontiguousarray(weight.reshape(n_rows * blocks, block_size).T)


def _peak_scales(columns: Float32, bits: int) -> Float32:
    """Return the scales [columns] that put the weight farthest from zero on the integer -2**(bits - 1)."""
    low, high = columns.min(axis=0), columns.max(axis=0)
    peak: Float32 = np.where(-low > high, low, high)
    scales: Float32 = np.divide(peak, -(2 ** (bits - 1)), dtype=np.float32)
    return scales


def _least_squares_scales(columns: Float32, bits: int) -> Float32:
    """Return the scales [columns] of least squared error of blocks [block_size, columns], of those the aims lead to.

    For integers q the best scale is s = w.q / q.q, and the squared error it leaves is w.w - (w.q)**2 / q.q.
    """
    inverse, half = inverse_of(_peak_scales(columns, bits)), 2 ** (bits - 1)
    integers = np.empty_like(columns)
    best_gain = np.full(columns.shape[1], -1, np.float32)
    best = np.zeros_like(best_gain)
    for aim in _AIMS:
        _round(columns, inverse * np.float32(1 + aim / half), -half, half - 1, integers)
        dot = np.einsum("ij,ij->j", columns, integers)
        scales = dot / np.maximum(np.einsum("ij,ij->j", integers, integers), _TINY)
        gain = dot * scales
        np.copyto(best, scales, where=gain > best_gain)
        np.maximum(best_gain, gain, out=best_gain)
    return best


def _zero_point_grid(columns: Float32, bits: int) -> tuple[Float32, Float32]:
    """Return the scales, as bf16 holds them, and zero points [columns] that leave blocks the least squared error.

    Tried are grids from a block's lowest weight to its highest, some of them a little narrower, each with the zero
    point that is nearest and its neighbours, and with the scale refitted to the integers that come of it.
    """
    top = 2**bits - 1
    low, high = np.minimum(columns.min(axis=0), 0), np.maximum(columns.max(axis=0), 0)
    best_error = np.full(columns.shape[1], np.inf, np.float32)
    scales, zeros = np.zeros_like(best_error), np.zeros_like(best_error)
    integers = np.empty_like(columns)
    for width in _WIDTHS:
        tried = np.maximum((high - low) * np.float32(width / top), _TINY)
        for shift in (-1, 0, 1):
            zero = np.clip(np.rint(-low * np.float32(width) / tried) + np.float32(shift), 0, top)
            _round(columns, inverse_of(tried), -zero, top - zero, integers)
            dot = np.einsum("ij,ij->j", columns, integers)
            squares = np.einsum("ij,ij->j", integers, integers)
            fitted = np.divide(dot, squares, out=tried.copy(), where=dot > 0)
            scale = round_to_bf16(np.maximum(fitted, _TINY))
            _round(columns, inverse_of(scale), -zero, top - zero, integers)
            integers *= scale
            integers -= columns
            error = np.einsum("ij,ij->j", integers, integers)
            better = error < best_error
            for kept, new in ((best_error, error), (scales, scale), (zeros, zero)):
                np.copyto(kept, new, where=better)
    return scales, zeros


def inverse_of(scales: Float32) -> Float32:
    """Return 1 / scales, and 0 for a scale of 0 (a block of zeros)."""
    return np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)


def _round(columns: Float32, inverse: Float32, lowest: Float32 | float, highest: Float32 | float, out: Float32) -> None:
    """Write the integers from `lowest` to `highest`, as floats, that are nearest to `columns * inverse`."""
    np.multiply(columns, inverse, out=out)
    np.rint(out, out=out)
    np.clip(out, lowest, highest, out=out)


def _pack(columns: Float32, scales: Float32, zeros: Float32, bits: int) -> UInt8:
    """Return the integers nearest to `columns / scales` as bytes [columns, block_size * bits / 8]."""
    integers = np.empty_like(columns)
    _round(columns, inverse_of(scales), -zeros, 2**bits - 1 - zeros, integers)
    return pack(integers + zeros, bits)


def pack(integers: Float32, bits: int) -> UInt8:
    """Return unsigned integers [block_size, columns], given as floats, as bytes [columns, block_size * bits / 8]."""
    stored: UInt8 = integers.astype(np.uint8)
    if bits == 4:
        stored = stored[0::2] | (stored[1::2] << np.uint8(4))
    return stored.T


def pack_zero_points(zeros: Float32, bits: int) -> UInt8:
    """Return zero points [n_rows, n_blocks], given as floats, as bytes [n_rows, n_blocks * bits / 8, rounded up]."""
    columns = zeros.T if bits == 8 or zeros.shape[1] % 2 == 0 else np.pad(zeros.T, ((0, 1), (0, 0)))
    return np.ascontiguousarray(pack(columns, bits))


def _unpack(data: UInt8, bits: int) -> UInt8:
    """Return the integers of rows of bytes."""
    if bits == 8:
        return data
    return np.stack([data & np.uint8(15), data >> np.uint8(4)], axis=-1).reshape(len(data), -1)
