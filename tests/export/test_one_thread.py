"""Threads of our own multiply with one thread each, and afterwards all is as it was."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from edge_assistant_export.one_thread import one_thread_each


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_numpy_multiplies_in_one_thread_within():
    assert np.ones((2, 2)).dot(np.ones(2)).sum() == 4
    with threadpool_limits(2, "blas"):
        assert blas_threads() == {2}
        with one_thread_each():
            assert blas_threads() == {1}
        assert blas_threads() == {2}
