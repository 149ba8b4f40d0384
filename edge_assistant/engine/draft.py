"""A draft model: a small model of the same vocabulary, which writes ahead what the large one may write.

    text so far      turn off the lamp in the
    draft            hall . </s>                 three runs of the small model
    drawn            hall , please               one run of the large one: "hall" was guessed, the rest is forgotten

What it writes are guesses like those of prompt lookup (`lookup.py`; Leviathan et al., arXiv 2211.17192, with a draft
that always takes its best token): run with the token that is due, in one batch, and counted only where they are drawn.

Each sequence of the large model has one of the draft beside it, with a cache of its own, which follows the text: what
was not accepted is taken back, what it has not read is read, a chunk a step, and until it has caught up it guesses
nothing. Both caches come out of `engine.kv_cache_bytes`, in proportion to what a token takes in each, so that both
hold as many tokens. Beside Mistral 7B with an int8 cache (65,536 bytes a token), a draft of 8,192 bytes has a ninth:

    1,073,741,824 bytes / (65,536 + 8,192 bytes) = 14,563 tokens in either

Whether drafting pays is weighed by what was accepted of late and what a token of the draft takes (`Pace.to_draft`); and
before it reads a prompt, whether an answer as long as those of late would bring in what that takes (`Pace.to_read`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_assistant.bundle import TOKENIZER_FILE, WEIGHTS_FILE
from edge_assistant.engine.kv_cache import KvCache, capacity_of, slots
from edge_assistant.engine.session import Session
from edge_assistant.errors import CacheBudgetError, DraftError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from edge_assistant.bundle import Bundle, Manifest
    from edge_assistant.config import EngineSettings


class Draft:
    """A loaded draft model, with a sequence beside each of the large model's."""

    def __init__(self, beside: dict[KvCache, Session], cache_bytes: int) -> None:
        """Take what `load` has made."""
        self._beside = beside
        self.cache_bytes = cache_bytes
        """Of all its sequences together."""

    @classmethod
    def load(cls, bundle: Bundle, settings: EngineSettings, budget: int, caches: Sequence[KvCache]) -> Self:
        """Load a draft beside the caches of a large model; its own take `budget` bytes together.

        Raises:
            CacheBudgetError, BundleGraphError: As for `Engine.load`.
        """
        manifest = bundle.manifest
        capacity = min(caches[0].capacity, capacity_of(manifest, budget, len(caches)))
        loaded = Session(bundle, KvCache(manifest, 1), settings)
        _, own = slots(manifest, capacity, len(caches), (), loaded.device)
        sessions = [loaded.another(cache) for cache in own]
        return cls(dict(zip(caches, sessions, strict=True)), len(caches) * manifest.cache_size.of(capacity))

    def unread(self, cache: KvCache, due: Sequence[int]) -> int:
        """Return how many tokens it would read of a cache's context and the tokens due behind it."""
        text = np.concatenate([cache.context, due])
        return len(text) - self._beside[cache].cache.shared(text)

    def guess(self, cache: KvCache, due: Sequence[int], most: int) -> tuple[tuple[int, ...], int]:
        """Return `most` tokens that may follow a cache's context and the tokens due behind it, and how many it read.

        It guesses none where it has not caught up with them, or has no room for them.
        """
        session, text = self._beside[cache], np.concatenate([cache.context, due])
        if len(text) + most - 1 > session.cache.capacity:
            return (), 0
        unread = text[session.cache.keep_prefix(text) :]
        chunk = next(session.chunks(unread))
        guesses = [int(session.run(chunk).argmax())]
        if len(chunk) < len(unread):
            return (), len(chunk)
        while len(guesses) < most:
            guesses.append(int(session.run(guesses[-1:]).argmax()))
        return tuple(guesses), len(unread)


def check_vocabulary(manifest: Manifest, draft: Manifest) -> None:
    """Refuse a draft of which a token is not the same token of the large model.

    Raises:
        DraftError: Their vocabularies differ.
    """
    hashes = (manifest.files[TOKENIZER_FILE].sha256, draft.files[TOKENIZER_FILE].sha256)
    sizes = (manifest.architecture.vocab_size, draft.architecture.vocab_size)
    if len(set(hashes)) > 1 or len(set(sizes)) > 1:
        raise DraftError(draft.name, manifest.name, sizes)


def draft_budget(manifest: Manifest, draft: Manifest, settings: EngineSettings) -> int:
    """Return what of settings.kv_cache_bytes the draft's caches may take, so that both models hold as many tokens.

    Raises:
        CacheBudgetError: It does not hold a token of each sequence of both.
    """
    own, large = draft.cache_size, manifest.cache_size
    budget, sequences = settings.kv_cache_bytes, max(1, settings.sequences)
    both = own.per_token + large.per_token
    if budget < sequences * both:
        longest = min(own.max_positions, large.max_positions)
        raise CacheBudgetError(budget, sequences * both, sequences * (own.of(longest) + large.of(longest)), longest)
    return budget * own.per_token // both


def weighed(manifest: Manifest, draft: Manifest) -> float:
    """Return what a token of the draft is taken to cost before it was measured, in steps of the large model.

    A step reads the weights, so it is the share of their bytes.
    """
    return draft.files[WEIGHTS_FILE].bytes / manifest.files[WEIGHTS_FILE].bytes
