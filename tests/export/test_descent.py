"""A block is rounded as plain coordinate descent does it, and what is kept costs least of what was tried."""

from __future__ import annotations

import numpy as np
import pytest

from edge_assistant_export import descent
from edge_assistant_export.descent import Grid, improved
from edge_assistant_export.quantize import round_to_bf16

COLUMNS, ROWS, TOP = 40, 30, 15


def random(*shape):
    return np.random.default_rng(shape[0]).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def products():
    x = random(90, COLUMNS) @ (np.eye(COLUMNS, dtype=np.float32) + 0.3 * random(COLUMNS, COLUMNS))
    return x.T @ x


@pytest.fixture(params=[False, True], ids=["fixed zeros", "free zeros"])
def free_zeros(request):
    return request.param


@pytest.fixture
def block(products):
    """Return signed integers, their grid, and the slope that they have for a weight nearby."""
    integers = np.clip(np.rint(3 * random(COLUMNS, ROWS)), -8, 7)
    grid = Grid(round_to_bf16(0.02 + 0.01 * np.abs(random(ROWS))), np.full(ROWS, 8, np.float32))
    aim = integers * grid.scale + 0.03 * random(COLUMNS, ROWS)
    return integers, grid, products @ (integers * grid.scale - aim)


def cost(products, change, slope):
    """Return by how much a change [columns] of one row raises the cost."""
    return change @ products @ change + 2 * change @ slope


def plain(products, integers, slope, scale, zero, tried_scale, tried_zero, passes):
    """Round a row [columns], one weight after the other."""
    now, g = integers * scale, slope.copy()
    found = np.empty_like(now)
    for _ in range(passes):
        for at in range(len(now)):
            best = (now[at] - g[at] / products[at, at]) / tried_scale
            found[at] = np.clip(np.rint(best), -tried_zero, TOP - tried_zero)
            g += products[at] * (found[at] * tried_scale - now[at])
            now[at] = found[at] * tried_scale
    return found


def best_of_all(products, integers, slope, scale, zero, free):
    """Return the least cost of a row over all scales and zero points, refitted or not, in float64."""
    now = integers * scale
    target = products @ now - slope

    def fitted(q, otherwise):
        squares = q @ products @ q
        s = round_to_bf16(np.array([q @ target / squares], np.float32))[0] if squares > 0 else otherwise
        return s if (s > 0 if free else s != 0) else otherwise

    first, costs = fitted(integers, scale), [0.0]
    for shift in (0, -1, 1) if free else (0,):
        for share in (1.0, 0.94, 1.06, 0.88, 1.12):
            tried = round_to_bf16(np.array([np.float32(share) * np.float32(first)]))[0]
            zero_tried = np.clip(zero + shift, 0, TOP)
            q = plain(products, integers, slope, scale, zero, tried, zero_tried, 2)
            costs += [cost(products, q * s - now, slope) for s in (tried, fitted(q, tried))]
    return min(costs)


def test_it_finds_what_plain_coordinate_descent_finds(products, block, free_zeros):
    integers, grid, slope = block
    found, new = improved(integers, grid, products, slope, TOP, free_zeros=free_zeros)
    wide = [array.astype(np.float64) for array in (products, integers, slope, grid.scale, grid.zero)]
    moved = found * new.scale - integers * grid.scale
    for row in range(ROWS):
        expected = best_of_all(wide[0], wide[1][:, row], wide[2][:, row], wide[3][row], wide[4][row], free_zeros)
        reached = cost(wide[0], moved[:, row].astype(np.float64), wide[2][:, row])
        assert reached == pytest.approx(expected, rel=0.02), "a rounding may fall the other way"


def test_it_never_costs_more_and_stays_on_its_grid(products, block, free_zeros):
    integers, grid, slope = block
    for _ in range(4):
        found, new = improved(integers, grid, products, slope, TOP, free_zeros=free_zeros)
        change = found * new.scale - integers * grid.scale
        costs = [cost(products, change[:, row], slope[:, row]) for row in range(ROWS)]
        assert max(costs) <= 1e-3
        assert ((found + new.zero >= 0) & (found + new.zero <= TOP)).all()
        np.testing.assert_array_equal(found, np.rint(found))
        np.testing.assert_array_equal(new.scale, round_to_bf16(new.scale))
        if not free_zeros:
            np.testing.assert_array_equal(new.zero, grid.zero)
        integers, grid, slope = found, new, slope + products @ change


def test_rows_in_parts_are_rows_of_the_whole(products, block, free_zeros, monkeypatch):
    integers, grid, slope = block
    whole, _ = improved(integers, grid, products, slope, TOP, free_zeros=free_zeros)
    monkeypatch.setattr(descent, "_WIDE", 60)
    parts, _ = improved(integers, grid, products, slope, TOP, free_zeros=free_zeros)
    assert (whole == parts).mean() > 0.95, "a rounding that falls the other way moves a few behind it"


def test_blocks_of_zeros_stay_zeros(products, free_zeros):
    integers, slope = np.zeros((COLUMNS, ROWS), np.float32), np.zeros((COLUMNS, ROWS), np.float32)
    grid = Grid(np.zeros(ROWS, np.float32), np.full(ROWS, 8, np.float32))
    found, new = improved(integers, grid, products, slope, TOP, free_zeros=free_zeros)
    assert not (found * new.scale).any()
