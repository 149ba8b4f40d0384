# mypy: disable-error-code="untyped-decorator"
"""A quick measure while training: how many answers come out exactly, on homes that training never sees.

Greedy decoding writes the right answer exactly when, given the right answer so far, each next token is the most
likely one; so one forward pass over a pack of questions measures what generating them one by one would.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch

from edge_assistant_export.reference_model.packing import mask, pack, random_branches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_assistant.text.tokenizer import Tokenizer
    from edge_assistant_export.reference_model.model import Mistral
    from edge_assistant_export.reference_model.packing import Branch


def exact_matches(model: Mistral, tokenizer: Tokenizer, seed: int, packs: int) -> tuple[Counter[str], Counter[str]]:
    """Return, by kind, how many answers were exactly right and how many were asked for."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for number in range(packs):
        prefix, branches, examples = random_branches(tokenizer, Random(f"probe-{seed}-{number}"), 512)
        best = best_answers(model, prefix, branches)
        for said, one, example in zip(best, branches, examples, strict=True):
            right[example.kind] += is_right(said, one)
            asked[example.kind] += 1
    return right, asked


@torch.no_grad()
def best_answers(model: Mistral, prefix: list[int], branches: Sequence[Branch]) -> list[list[int]]:
    """Return for each question behind the prefix the likeliest tokens, each given the right answer before it."""
    length = len(prefix) + sum(len(one.ids) for one in branches)
    laid = pack(Random(0), prefix, branches, length)
    device = next(model.parameters()).device
    ids, positions = (torch.from_numpy(array)[None].to(device) for array in (laid.ids, laid.positions))
    seen = torch.from_numpy(mask(laid.segments))[None].to(device)
    starts = len(prefix) + np.cumsum([0, *(len(one.ids) for one in branches[:-1])])
    spans = [
        np.arange(start + one.answer_at - 1, start + len(one.ids) - 1)
        for start, one in zip(starts, branches, strict=True)
    ]
    at = torch.from_numpy(np.concatenate(spans))[None].to(device)
    best = model(ids, positions, seen, at)[0].argmax(-1).cpu().numpy()
    ends = np.cumsum([len(span) for span in spans])
    return [part.tolist() for part in np.split(best, ends[:-1])]


def is_right(best: list[int], one: Branch) -> bool:
    """Return whether greedy decoding writes the answer."""
    return best == one.ids[one.answer_at :]
