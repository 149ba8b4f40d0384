"""One thread for each product of matrices, while threads of our own share the work."""

from __future__ import annotations

from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController


def one_thread_each() -> AbstractContextManager[object]:
    """Return a context in which numpy's products start no threads.

    Products of several threads at once would each wait, spinning, for the threads of the others: many times slower.
    """
    limited: AbstractContextManager[object] = ThreadpoolController().limit(limits=1, user_api="blas")
    return limited
