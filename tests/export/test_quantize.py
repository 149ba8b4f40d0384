"""Quantised weights: what onnxruntime reads back, how far it is from what went in, and that all boards agree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_assistant_export.quantize import dequantize, quantize, round_to_bf16


def gaussian(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize("method", ["least_squares", "maximum"])
@pytest.mark.parametrize("block_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_no_weight_is_farther_off_than_the_grid_allows(bits, block_size, method):
    weight = gaussian(40, 172)
    packed = quantize(weight, bits, block_size, method)
    assert packed.data.shape == (40, -(-172 // block_size), block_size * bits // 8)
    step = np.repeat(packed.scales, block_size, axis=1)[:, :172]
    half = 2 ** (bits - 1)
    # A weight beyond the last integer is cut off: least squares does that on purpose, but never by two steps.
    beyond = np.maximum(np.maximum(-half - weight / step, weight / step - (half - 1)), 0)
    assert beyond.max() < 2
    error = np.abs(dequantize(packed, bits, 172) - weight) / np.abs(step)
    assert (error <= np.maximum(beyond, 0.5) + 1e-4).all()


@pytest.mark.parametrize("block_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_with_zero_points_no_weight_is_farther_off_than_the_grid_allows(bits, block_size):
    weight = gaussian(40, 172) + np.linspace(-2, 2, 40, dtype=np.float32)[:, np.newaxis]
    packed = quantize(weight, bits, block_size, zero_points=True)
    blocks = -(-172 // block_size)
    assert packed.zero_points.shape == (40, -(-blocks * bits // 8))
    assert not (packed.scales.view(np.uint32) & 0xFFFF).any()
    assert (packed.scales > 0).all()
    # The narrowest grid covers 0.82 of a block, and its scale is refitted.
    step = np.repeat(packed.scales, block_size, axis=1)[:, :172]
    assert (np.abs(dequantize(packed, bits, 172) - weight) / step).max() < 0.2 * 2**bits


@pytest.mark.parametrize("mean", [0.0, 0.7, -3.0])
@pytest.mark.parametrize("bits", [4, 8])
def test_zero_points_beat_their_absence_the_more_the_less_even_a_block_is(bits, mean):
    weight = gaussian(256, 512) + np.float32(mean)
    errors = [
        np.square(dequantize(quantize(weight, bits, 32, zero_points=chosen), bits, 512) - weight).mean()
        for chosen in (False, True)
    ]
    assert errors[1] < (0.95 if mean == 0 else 0.8) * errors[0]


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_on_a_grid_with_zero_points_come_back_exactly(bits):
    rng = np.random.default_rng(0)
    integers = rng.integers(0, 2**bits, (16, 96))
    integers[:, ::32], integers[:, 1::32] = 0, 2**bits - 1
    zeros = np.repeat(rng.integers(1, 2**bits - 1, (16, 3)), 32, axis=1)
    weight = ((integers - zeros) * np.float32(0.03125)).astype(np.float32)
    np.testing.assert_array_equal(dequantize(quantize(weight, bits, 32, zero_points=True), bits, 96), weight)


@pytest.mark.parametrize("block_size", [32, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_least_squares_beats_the_maximum_in_every_matrix(bits, block_size):
    weight = gaussian(256, 512)
    errors = {
        method: np.square(dequantize(quantize(weight, bits, block_size, method), bits, 512) - weight).mean()
        for method in ("least_squares", "maximum")
    }
    assert errors["least_squares"] < 0.97 * errors["maximum"]


def test_no_scale_of_a_fine_search_is_much_better():
    weight = gaussian(64, 32)
    best = np.full(64, np.inf)
    for step in np.linspace(0.08, 0.6, 1500, dtype=np.float32):
        integers = np.clip(np.rint(weight / step), -8, 7)
        best = np.minimum(best, np.square(integers * step - weight).sum(axis=1))
        best = np.minimum(best, np.square(np.clip(np.rint(-weight / step), -8, 7) * -step - weight).sum(axis=1))
    error = np.square(dequantize(quantize(weight, 4, 32), 4, 32) - weight).sum(axis=1)
    assert error.mean() < 1.04 * best.mean()


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_are_bf16_values_so_that_arm_and_x86_agree(bits):
    scales = quantize(gaussian(32, 256), bits, 32).scales
    assert not (scales.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_on_the_grid_come_back_exactly(bits):
    half = 2 ** (bits - 1)
    integers = np.random.default_rng(0).integers(-half, half, (16, 64))
    integers[:, ::32] = -half
    weight = (integers * np.float32(0.03125)).astype(np.float32)
    np.testing.assert_array_equal(dequantize(quantize(weight, bits, 32), bits, 64), weight)


@pytest.mark.parametrize("zero_points", [False, True])
def test_blocks_of_zeros_stay_zero(zero_points):
    weight = gaussian(4, 96)
    weight[:, 32:64] = 0
    restored = dequantize(quantize(weight, 4, 32, zero_points=zero_points), 4, 96)
    assert not restored[:, 32:64].any()
    assert restored[:, :32].any()


@pytest.mark.parametrize(
    ("method", "zero_points"), [("least_squares", False), ("least_squares", True), ("maximum", False)]
)
@pytest.mark.parametrize("power", [-110, -60, 63, 120])
@pytest.mark.parametrize("bits", [4, 8])
def test_how_large_all_weights_are_changes_no_integer(bits, power, method, zero_points):
    """Squares of weights beyond 2**64 are beyond float32, and those below 2**-75 are nothing in it."""
    weight = gaussian(24, 172)
    plain, other = (
        quantize(one, bits, 32, method, zero_points=zero_points) for one in (weight, np.ldexp(weight, power))
    )
    np.testing.assert_array_equal(other.data, plain.data)
    np.testing.assert_array_equal(other.scales, np.ldexp(plain.scales, power))
    if zero_points:
        np.testing.assert_array_equal(other.zero_points, plain.zero_points)


@pytest.mark.parametrize("zero_points", [False, True])
def test_blocks_of_numbers_that_are_hardly_any_become_zeros(zero_points):
    weight = gaussian(24, 172)
    weight[:, 32:64] *= np.float32(1e-40)
    weight[:, 40:50] = 0
    found = dequantize(quantize(weight, 4, 32, zero_points=zero_points), 4, 172)
    assert not found[:, 32:64].any()
    assert np.square(found - weight).sum() < 0.02 * np.square(weight).sum()


def test_low_half_of_a_byte_is_the_first_weight():
    weight = np.zeros((1, 32), np.float32)
    weight[0, :2] = -8, 3
    packed = quantize(weight, 4, 32)
    assert packed.data[0, 0, 0] == (3 + 8) << 4 | 0
    assert packed.scales[0, 0] == 1


def test_rows_do_not_depend_on_their_neighbours_nor_on_threads():
    weight = gaussian(3000, 200)
    whole = quantize(weight, 4, 32, zero_points=True)

    def piece(start):
        return quantize(weight[start : start + 7], 4, 32, zero_points=True)

    with ThreadPoolExecutor(4) as pool:
        pieces = list(pool.map(piece, range(0, 3000, 7)))
    for of_whole, *of_pieces in zip(whole, *pieces, strict=True):
        np.testing.assert_array_equal(np.concatenate(of_pieces), of_whole)


@given(arrays.arrays(np.float32, 50, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_bf16_is_the_nearest_of_its_neighbours(values):
    rounded = round_to_bf16(values)
    below = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    above = ((values.view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
    nearest = np.minimum(np.abs(values - below), np.abs(above.astype(np.float64) - values))
    np.testing.assert_array_equal(np.abs(rounded.astype(np.float64) - values), nearest)
