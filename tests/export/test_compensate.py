"""Coordinate descent: products stay nearer to what they were than plain rounding leaves them."""

from __future__ import annotations

import numpy as np
import pytest

from edge_assistant_export import compensate
from edge_assistant_export.compensate import compensated, products_of
from edge_assistant_export.descent import SHARES
from edge_assistant_export.effort import of_products
from edge_assistant_export.quantize import dequantize, quantize, unpack

ROWS, IN = 24, 172


def random(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def x():
    """Inputs whose channels move together, as those of a trained model do."""
    return random(400, 20) @ np.random.default_rng(7).standard_normal((20, IN), np.float32) + 0.1 * random(400, IN)


@pytest.fixture(scope="module")
def products(x):
    return products_of(x)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("bits", "block_size"), [(4, 32), (4, 64), (4, 128), (8, 32)])
def test_the_product_is_nearer_than_plain_rounding_leaves_it(x, products, bits, block_size, zero_points):
    weight = random(ROWS, IN)

    def error(packed):
        return np.square(x @ (dequantize(packed, bits, IN) - weight).T).sum()

    mended = error(compensated(weight, products, bits, block_size, zero_points=zero_points))
    assert mended < 0.3 * error(quantize(weight, bits, block_size, zero_points=zero_points))


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("pulled", [False, True])
def test_no_sweep_makes_it_worse(products, zero_points, pulled, monkeypatch):
    weight = random(ROWS, IN)
    pull = 30 * random(ROWS, IN, 1)[..., 0] if pulled else None

    def costs(sweeps):
        monkeypatch.setattr(compensate, "_SWEEPS", (SHARES, SHARES[:1])[:sweeps])
        aim = weight if pull is None else weight + products.by_inverse(pull)
        found = compensated(aim, products, 4, 32, zero_points=zero_points)
        change = (dequantize(found, 4, IN) - weight).astype(np.float64)
        linear = 0 if pull is None else 2 * (change * pull).sum(axis=1)
        return ((change @ products.damped) * change).sum(axis=1) - linear

    none, one, two = (costs(sweeps) for sweeps in (0, 1, 2))
    slack = 1e-3 * np.abs(none)
    assert (one <= none + slack).all()
    assert (two <= one + slack).all()
    assert one.sum() < none.sum()


def test_it_follows_the_pull(x, products):
    """Asked to move the product by what a change of the matrix would do, it becomes the changed matrix."""
    weight, step = random(ROWS, IN), 0.3 * random(ROWS, IN, 1)[..., 0]
    aim = weight + products.by_inverse(step @ products.damped)
    found = dequantize(compensated(aim, products, 8, 32), 8, IN)
    left = np.square(x @ (found - weight - step).T).sum()
    assert left < 0.01 * np.square(x @ step.T).sum()


@pytest.mark.parametrize("zero_points", [False, True])
def test_it_has_the_layout_of_plain_rounding(products, zero_points):
    weight = random(ROWS, IN)
    found = compensated(weight, products, 4, 32, zero_points=zero_points)
    plain = quantize(weight, 4, 32, zero_points=zero_points)
    for one, other in zip(found, plain, strict=True):
        assert (one is None and other is None) or (one.shape, one.dtype) == (other.shape, other.dtype)
    assert not (found.scales.view(np.uint32) & 0xFFFF).any(), "bf16 values, so that ARM and x86 agree"
    integers, zeros = unpack(found, 4)
    assert (integers[:, IN:] == zeros[:, -1:]).all(), "what fills up the last block is worth nothing"


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_on_the_grid_come_back_exactly(bits, products):
    half = 2 ** (bits - 1)
    integers = np.random.default_rng(0).integers(-half, half, (16, IN))
    integers[:, ::32] = -half
    weight = (integers * np.float32(0.03125)).astype(np.float32)
    np.testing.assert_array_equal(dequantize(compensated(weight, products, bits, 32), bits, IN), weight)


def test_rows_do_not_depend_on_each_other(products):
    weight = random(ROWS, IN)
    whole = compensated(weight, products, 4, 32)
    parts = [compensated(weight[rows], products, 4, 32) for rows in (slice(0, 5), slice(5, None))]
    for name in ("data", "scales"):
        together = np.concatenate([getattr(part, name) for part in parts])
        assert (getattr(whole, name) == together).mean() > 0.9, (
            "a rounding that falls the other way moves a few behind it"
        )


@pytest.mark.parametrize("bits", [4, 8])
def test_without_sweeps_it_is_gptq_column_by_column(products, bits, monkeypatch):
    """In halves of halves, errors come to later columns as the plain formula brings them."""
    monkeypatch.setattr(compensate, "_SWEEPS", ())
    weight = random(ROWS, IN)
    packed = compensated(weight, products, bits, 32)
    scales = np.repeat(packed.scales, 32, axis=1)[:, :IN]
    left, factor, half = weight.astype(np.float64), products.factor.astype(np.float64), 2 ** (bits - 1)
    integers = unpack(packed, bits)[0][:, :IN].astype(np.int64) - half
    for at in range(IN):
        nearest = np.clip(left[:, at] / scales[:, at], -half, half - 1)
        assert np.abs(integers[:, at] - nearest).max() < 0.501
        error = (left[:, at] - integers[:, at] * scales[:, at]) / factor[at, at]
        left[:, at:] -= error[:, np.newaxis] * factor[at, at:]


def test_the_effort_that_is_told_is_what_was_foretold(x, monkeypatch):
    monkeypatch.setattr(compensate, "_PANEL", 16)
    told = []
    products_of(x, told.append)
    assert len(told) > 4
    assert sum(told) == pytest.approx(of_products(*x.shape), rel=1e-6)


def test_sums_in_panels_are_the_whole_sum(x, monkeypatch):
    monkeypatch.setattr(compensate, "_PANEL", 48)
    damped = products_of(x).damped
    np.testing.assert_array_equal(damped, damped.T)
    monkeypatch.setattr(compensate, "_PANEL", 4096)
    np.testing.assert_allclose(damped, products_of(x).damped, rtol=1e-4, atol=1e-2)


def test_the_factor_is_that_of_the_damped_inverse(x):
    many = np.concatenate((x, x[::-1] * 2))
    plain = (many.T @ many).astype(np.float64)
    expected = plain + 0.02 * np.diagonal(plain).mean() * np.eye(IN)
    factor = products_of(many).factor.astype(np.float64)
    np.testing.assert_array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor.T @ factor @ expected, np.eye(IN), atol=1e-3)


@pytest.mark.parametrize("count", [8, 32, 96, 192])
def test_few_inputs_are_not_fitted_at_the_cost_of_others(count):
    """As an expert that is seldom chosen meets them: what it meets later is farther off, but not much."""
    rng, weight = np.random.default_rng(0), random(ROWS, IN)
    mixed = np.linalg.qr(rng.standard_normal((IN, IN)))[0] * np.arange(1, IN + 1) ** -0.25
    met, later = ((rng.standard_normal((n, IN)) @ mixed.T).astype(np.float32) for n in (count, 4000))

    def error(packed):
        return np.square(later @ (dequantize(packed, 4, IN) - weight).T).sum()

    assert error(compensated(weight, products_of(met), 4, 32)) < 1.25 * error(quantize(weight, 4, 32))


def test_inputs_that_are_always_zero_do_no_harm():
    weight = random(ROWS, 64)
    found = compensated(weight, products_of(np.zeros((9, 64), np.float32)), 4, 32)
    plain = dequantize(quantize(weight, 4, 32), 4, 64)
    assert np.square(dequantize(found, 4, 64) - weight).sum() <= np.square(plain - weight).sum()


def test_blocks_of_zeros_stay_zeros(products):
    weight = random(ROWS, IN)
    weight[:, 32:64] = 0
    weight[3] = 0
    found = dequantize(compensated(weight, products, 4, 32, zero_points=True), 4, IN)
    assert np.isfinite(found).all()
    assert not found[3].any()


def test_products_that_are_not_finite_are_refused():
    with np.errstate(invalid="ignore"), pytest.raises(np.linalg.LinAlgError, match="not finite"):
        products_of(np.full((2, 2), np.inf, np.float32))
