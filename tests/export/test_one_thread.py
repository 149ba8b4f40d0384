"""Threads of our own multiply with one thread each, and afterwards all is as it was."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info

from edge_assistant_export.one_thread import one_thread_each


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_numpy_multiplies_in_one_thread_within():
    assert np.ones((2, 2)).dot(np.ones(2)).sum() == 4
    before = blas_threads()
    assert before
    with one_thread_each():
        assert blas_threads() == [1] * len(before)
    assert blas_threads() == before
