"""Products and inverses in parts are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from edge_assistant_export import triangular
from edge_assistant_export.triangular import factor_of_inverse, times_upper, times_upper_transposed


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(triangular, "_FACTORED", 4)
    monkeypatch.setattr(triangular, "_MULTIPLIED", 8)


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


@pytest.mark.parametrize("n", [1, 4, 5, 37, 64])
def test_the_factor_is_upper_and_its_square_the_inverse(n):
    x = random(3 * n, n)
    symmetric = x.T @ x + n * np.eye(n, dtype=np.float32)
    before = symmetric.copy()
    factor = factor_of_inverse(symmetric).astype(np.float64)
    np.testing.assert_array_equal(symmetric, before)
    np.testing.assert_array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(symmetric.astype(np.float64)), atol=1e-5)


def test_a_matrix_that_has_no_factor_is_refused():
    with pytest.raises(np.linalg.LinAlgError):
        factor_of_inverse(-np.eye(3, dtype=np.float32))


@pytest.mark.parametrize("n", [1, 7, 8, 37])
def test_products_in_parts_are_whole_products(n):
    left, upper = random(5, n), np.triu(random(n, n))
    np.testing.assert_allclose(times_upper(left, upper), left @ upper, atol=1e-4)
    np.testing.assert_allclose(times_upper_transposed(left, upper), left @ upper.T, atol=1e-4)
