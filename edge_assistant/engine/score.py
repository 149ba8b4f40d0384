"""The work of a score: a text is read for the logits after each of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_assistant.engine.request import Progress, Said, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_assistant.engine.adapter import Adapter
    from edge_assistant.engine.session import Session


class Score:
    """A text [n] that is read, and the logits [n, vocab] that this gives."""

    unread = True
    """It has no steps but reading."""
    begun = False

    def __init__(self, text: NDArray[np.int64], vocab_size: int, adapter: Adapter | None = None) -> None:
        self.adapter = adapter
        self.ended = False
        self.progress = Progress(Usage(len(text)))
        self.logits = np.empty((len(text), vocab_size), np.float32)
        self._text = text
        self._session: Session | None = None

    @property
    def text(self) -> NDArray[np.int64]:
        """No token of it is taken from a cache, which holds no logits."""
        return self._text[:0]

    def place(self, session: Session) -> None:
        """Begin, anew after an interruption."""
        session.use(self.adapter)
        session.cache.rewind(0)
        self._session = session

    def read(self, most: int | None = None) -> list[Said]:
        """Read one chunk, of so many tokens at most."""
        assert self._session is not None, "a step is taken only where it was placed"  # noqa: S101
        start = self._session.cache.length
        chunk = next(self._session.chunks(self._text[start:], most))
        end = start + len(chunk)
        self.logits[start:end] = self._session.run_rows(chunk, len(chunk))
        self.ended = end == len(self._text)
        return [Said(None, self.progress)] if self.ended else []

    def leave(self) -> None:
        """Stop, for another takes the session; `place` begins anew."""
        self._session = None

    def close(self) -> None:
        """Let go of the session."""
        self._session = None
