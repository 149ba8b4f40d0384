"""Prefixes that are kept: what many prompts begin with is computed once.

A prompt says by `Keep` how many of its first tokens will come again: the system block and the tools, the turns of a
conversation so far. Their keys and values are copied out of the cache into a radix tree, where prefixes share what
they have in common:

    prompts kept    S S S a a          tree    S S S ── a a
                    S S S b                         └── b ── c c
                    S S S b c c

A later prompt walks down as far as its tokens agree, and its rows are copied back: a copy where a prefill was. One that
is a conversation without its oldest turns (S S S c c) finds it too: those turns are evicted from what was copied, as
they are from a slot's own context, and only of what was said to come again. The tree
stays within a budget in bytes; the leaf that was not used for longest goes first. Behind it stands a folder
(`prefix_files.py`), so that what lasts outlives a restart. A prefix has an owner, the adapter that it was computed
with: there is a tree for each, and nothing is one owner's that was another's.

What several ask at once about one home or document begins alike as well, though it may not come again: before each
chunk of a prompt is read, what another slot has read of the same tokens by then is copied from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_assistant.engine.cut import Cut, common, find_cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from edge_assistant.engine.kv_cache import KvCache
    from edge_assistant.engine.prefix_files import PrefixFiles
    from edge_assistant.engine.session import Session

SHORTEST = 8
"""Tokens under which a prefix is not worth a copy."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How many of a prompt's first tokens other prompts will begin with, or will but for some of the oldest turns."""

    tokens: int = 0
    lasting: bool = False
    """Also those after a restart."""


@dataclass(eq=False, slots=True)
class _Node:
    """A run of tokens [n] that all prefixes below share, with their rows [n_layers, 2, n_kv_heads, n, head_dim]."""

    tokens: NDArray[np.int64]
    rows: NDArray[Any]
    parent: _Node | None
    children: dict[int, _Node] = field(default_factory=dict)
    """By their first token."""
    used: int = 0
    comes_again: bool = True


class RadixTree:
    """Prefixes in memory, in at most `budget` bytes of rows, of all owners together."""

    def __init__(self, budget: int) -> None:
        """Start empty; a budget of 0 keeps nothing."""
        self._budget = budget
        self._roots: dict[str, _Node] = {}
        self._clock = count(1)
        self.bytes = 0

    def find(self, tokens: NDArray[np.int64], owner: str = "") -> Iterator[NDArray[Any]]:
        """Yield the rows of as many of the tokens [n] as are held, in pieces from the first token on."""
        for node, shared in self._path(self._root(owner), tokens):
            yield node.rows[..., :shared, :]

    def find_cut(self, tokens: NDArray[np.int64], owner: str = "") -> tuple[NDArray[np.int64], Cut] | None:
        """Return of the texts that come again the one of which tokens [n] have most, but for a span, and that cut."""
        cuts = ((text, find_cut(text, tokens)) for text in self._come_again(self._root(owner)))
        found = ((text, cut) for text, cut in cuts if cut)
        return max(found, key=lambda pair: pair[1].start + pair[1].kept, default=None)

    def insert(
        self,
        tokens: NDArray[np.int64],
        token_bytes: int,
        rows_of: Callable[[int, int], NDArray[Any]],
        owner: str = "",
        *,
        comes_again: bool = True,
    ) -> None:
        """Hold a prefix [n], where it fits; `rows_of(start, end)` copies the rows of its tokens out of the cache.

        Those of one token are `token_bytes`: nothing is copied that there is no room for. Nothing is cut out of what
        does not come again.
        """
        node, held = self._root(owner), 0
        for step, shared in self._path(node, tokens):
            held += shared
            node = step if shared == len(step.tokens) else self._split(step, shared)
            node.comes_again |= comes_again
        if held < len(tokens) and self._make_room((len(tokens) - held) * token_bytes, node):
            rows = rows_of(held, len(tokens))
            new = _Node(tokens[held:].copy(), rows, node, used=next(self._clock), comes_again=comes_again)
            node.children[int(tokens[held])] = new
            self.bytes += rows.nbytes

    def _root(self, owner: str) -> _Node:
        return self._roots.setdefault(owner, _Node(np.empty(0, np.int64), np.empty(0, np.uint8), None))

    def _path(self, root: _Node, tokens: NDArray[np.int64]) -> list[tuple[_Node, int]]:
        """Return the nodes that tokens [n] lead through, and how many tokens of each they share; all count as used."""
        path: list[tuple[_Node, int]] = []
        node, now, start = root, next(self._clock), 0
        while start < len(tokens) and (child := node.children.get(int(tokens[start]))):
            shared = common(child.tokens, tokens[start:])
            child.used = now
            path.append((child, shared))
            if shared < len(child.tokens):
                break
            node, start = child, start + shared
        return path

    def _come_again(self, root: _Node) -> Iterator[NDArray[np.int64]]:
        """Yield the texts below a root that come again, each as far as it does."""
        # Not by recursion: of an answer that is interrupted again and again, each piece lies below the one before.
        below = [(root, root.tokens)]
        while below:
            node, text = below.pop()
            longer = [child for child in node.children.values() if child.comes_again]
            below += ((child, np.concatenate([text, child.tokens])) for child in longer)
            if not longer:
                yield text

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut a node in two and return the upper one; rows are copied, so that each part can be freed alone."""
        assert node.parent is not None  # noqa: S101 - the root is never split
        rows = node.rows[..., :at, :].copy()
        upper = _Node(node.tokens[:at], rows, node.parent, used=node.used, comes_again=node.comes_again)
        upper.children[int(node.tokens[at])] = node
        node.parent.children[int(node.tokens[0])] = upper
        node.tokens, node.rows, node.parent = node.tokens[at:], node.rows[..., at:, :].copy(), upper
        return upper

    def _make_room(self, size: int, parent: _Node) -> bool:
        """Drop leaves until so many bytes fit, and return whether they do; one that is to have a child stays."""
        if size > self._budget:
            return False
        while self.bytes + size > self._budget:
            leaf = min((one for one in self._leaves() if one is not parent), key=_last_used, default=None)
            if leaf is None:
                return False
            self._drop(leaf)
        return True

    def _drop(self, leaf: _Node) -> None:
        assert leaf.parent is not None  # noqa: S101 - the root is no leaf
        del leaf.parent.children[int(leaf.tokens[0])]
        self.bytes -= leaf.rows.nbytes

    def _leaves(self) -> Iterator[_Node]:
        below = [child for root in self._roots.values() for child in root.children.values()]
        while below:
            node = below.pop()
            below += node.children.values()
            if not node.children:
                yield node


def _last_used(node: _Node) -> int:
    return node.used


class Prefixes:
    """The prefixes of one model, in memory and, where there is a folder, on disk; and what its slots hold."""

    def __init__(
        self, budget: int, sessions: Sequence[Session], files: PrefixFiles | None = None, cache_reuse: int = 0
    ) -> None:
        """`budget` bounds what is held in memory, in bytes; `cache_reuse` is as for `KvCache.keep_shared`.

        `sessions` are those of the slots.
        """
        self._tree, self._cache_reuse = RadixTree(budget), cache_reuse
        self._sessions, self._files = sessions, files
        self._files_of: dict[str, PrefixFiles] = {}

    def begin(self) -> None:
        """Put into the first slot what the last prompts began with: the first one after a restart copies nothing."""
        if self._files and (latest := self._files.latest()):
            cache, (tokens, rows) = self._sessions[0].cache, latest
            count = min(len(tokens), cache.longest_prefix)
            _extend(cache, tokens[:count], 0, rows[..., :count, :])

    def restore(self, cache: KvCache, prompt: NDArray[np.int64], owner: str = "") -> None:
        """Extend the cache, whose context the prompt [n] begins with, by what is kept of the prompt for an owner.

        The prompt's last token is left out: it has to be run for its logits.
        """
        wanted = prompt[: min(len(prompt) - 1, cache.longest_prefix)]
        start = 0
        for piece in self._tree.find(wanted, owner):
            start = _extend(cache, wanted, start, piece)
        files = self._owned(owner)
        if files and start < len(wanted) and (rows := files.find(wanted, longer_than=cache.length)) is not None:
            _extend(cache, wanted, 0, rows)
        if 0 < self._cache_reuse <= len(wanted) - cache.length and cache.can_evict:
            self._restore_cut(cache, wanted, owner)

    def take_over(self, session: Session, text: NDArray[np.int64]) -> int:
        """Extend a session's context, with which a text [n] begins, by what another slot holds of the text.

        Returns how many tokens that is. The rows are those of a prefill with the same adapter.
        """
        cache = session.cache
        if not cache.device.addressable:  # copying by way of the host takes longer there than reading
            return 0
        wanted, start = text[: cache.longest_prefix], cache.length
        others = [one.cache for one in self._sessions if one is not session and one.adapter is session.adapter]
        lent = [(other.lends(wanted), other) for other in others]
        end, source = max(lent, key=itemgetter(0), default=(0, cache))
        if end - start < SHORTEST:
            return 0
        cache.put(wanted[start:end], source.rows(start, end))
        return end - start

    def keep(self, cache: KvCache, keep: Keep, owner: str = "", *, comes_again: bool = True) -> None:
        """Keep the first tokens of the cache's context, which an owner has computed.

        What does not come again is what an answer was interrupted at.
        """
        if keep.tokens < SHORTEST or not cache.holds_prefix(keep.tokens):
            return
        tokens = cache.context[: keep.tokens].copy()
        self._tree.insert(tokens, cache.token_bytes, cache.copy_rows, owner, comes_again=comes_again)
        if keep.lasting and (files := self._owned(owner)):
            files.keep(tokens, cache.token_bytes, lambda: cache.copy_rows(0, keep.tokens))

    def close(self) -> None:
        """Wait until what is being written is on disk."""
        for files in (self._files, *self._files_of.values()):
            if files:
                files.close()

    def _restore_cut(self, cache: KvCache, wanted: NDArray[np.int64], owner: str) -> None:
        """Put a text in the cache's place that has more of what is wanted behind a cut, and evict what is not."""
        text, cut = self._tree.find_cut(wanted, owner) or (wanted, Cut(0, 0, 0))
        end = cut.end + cut.kept
        gained = cut.start + cut.kept - cache.length
        if min(gained, cut.kept) < self._cache_reuse or end > cache.capacity:
            return
        cache.rewind(cut.start)
        start = 0
        for piece in self._tree.find(text[:end], owner):
            start = _extend(cache, text, start, piece)
        cache.evict(cut.start, cut.end)

    def _owned(self, owner: str) -> PrefixFiles | None:
        """Return the files of an adapter, which are read when it is first used; those of none are there already."""
        if not owner or self._files is None:
            return self._files
        if owner not in self._files_of:
            self._files_of[owner] = self._files.of(owner)
        return self._files_of[owner]


def _extend(cache: KvCache, tokens: NDArray[np.int64], start: int, rows: NDArray[Any]) -> int:
    """Put rows of tokens from `start` on behind what the cache holds; return where they end."""
    end: int = start + rows.shape[-2]
    if end > cache.length:
        missing = slice(cache.length - start, None)
        cache.put(tokens[cache.length : end], rows[..., missing, :])
    return end
