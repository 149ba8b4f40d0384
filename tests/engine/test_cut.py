"""The cut between a context and a prompt: that which keeps most, found among all there are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.engine.cut import Cut, common, find_cut

tokens = st.lists(st.integers(0, 1), max_size=30)


def by_hand(context: list[int], prompt: list[int]) -> int:
    """Return the most tokens that any cut keeps behind what the two have in common."""
    start = common(np.array(context), np.array(prompt))
    kept = [common(np.array(context[end:]), np.array(prompt[start:])) for end in range(start + 1, len(context))]
    return max(kept, default=0)


@given(tokens, tokens, tokens, tokens)
def test_no_cut_keeps_more(before, gone, behind, new):
    context, prompt = before + gone + behind, before + behind + new
    cut = find_cut(np.array(context, np.int64), np.array(prompt, np.int64))
    most = by_hand(context, prompt)
    assert (0 if cut is None else cut.kept) == (most if most >= 8 else 0)
    if cut:
        left = context[: cut.start] + context[cut.end :]
        assert left[: cut.start + cut.kept] == prompt[: cut.start + cut.kept]
        assert cut.start < cut.end


def test_the_example_holds():
    system, *turns = np.arange(50).reshape(5, 10)
    context = np.concatenate([system, *turns])
    prompt = np.concatenate([system, turns[1], turns[2], [99, 98]])
    assert find_cut(context, prompt) == Cut(10, 20, 20)
    assert find_cut(context, context) is None
    assert find_cut(context[:0], prompt) is None
