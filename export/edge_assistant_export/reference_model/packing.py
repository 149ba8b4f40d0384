r"""Many questions behind one home: token ids, who sees whom, and what counts.

    [system][history][INST]home \n\n   | question[/INST]answer</s> | question[/INST]answer</s> | ...
     segment 0, positions 0..P-1       | segment 1, P..            | segment 2, P..            |

Each question sees the shared prefix and itself alone, at the positions it has when it is asked alone: training on a
pack equals training on the single conversations. Answers weigh 1, the rest 0.1 (a home cannot be foretold, but
reading it teaches the embeddings). The loss is taken at `PREDICTED` of the positions: all answers, and some others.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_assistant.text.instruct import InstructFormat
from edge_assistant.text.messages import Assistant, User
from edge_assistant_export.reference_model.conversations import questions, random_conversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_assistant.text.messages import Message
    from edge_assistant.text.tokenizer import Tokenizer
    from edge_assistant_export.reference_model.examples.base import Example

FORMAT = InstructFormat.named("v7-tekken")
CONTEXT_WEIGHT = 0.1
PREDICTED = 0.5
PADDING = -1
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Branch:
    """One question with its answer: ids, and where the answer begins."""

    ids: list[int]
    answer_at: int


@dataclass(frozen=True, slots=True)
class Pack:
    """One sequence of fixed length: arrays `[length]`, but `predicted`, `targets`, `weights` `[length * PREDICTED]`."""

    ids: Ints
    positions: Ints
    segments: Ints
    predicted: Ints
    targets: Ints
    weights: NDArray[np.float32]


def prefix_ids(tokenizer: Tokenizer, before: Sequence[Message], head: str) -> list[int]:
    """Return the ids up to the question: all of the prompt but the closing `[/INST]`."""
    return FORMAT.encode(tokenizer, [*before, User(head)])[:-1]


def branch(tokenizer: Tokenizer, question: str, answer: Assistant) -> Branch:
    """Return question, `[/INST]`, answer and `</s>` as they follow the prefix."""
    ids = FORMAT.encode(tokenizer, [User(question), answer])[2:]
    return Branch(ids, ids.index(tokenizer.control_id("[/INST]")) + 1)


def pack(rng: Random, prefix: list[int], branches: Sequence[Branch], length: int) -> Pack:
    """Lay prefix and branches out in `length` tokens; what is left over is padding that sees only itself."""
    ids, positions, segments = list(prefix), list(range(len(prefix))), [0] * len(prefix)
    answers: list[tuple[int, int]] = []
    context = [(at, prefix[at + 1]) for at in range(len(prefix) - 1)]
    for number, one in enumerate(branches, 1):
        start = len(ids)
        for at in range(len(one.ids) - 1):
            (answers if at + 1 >= one.answer_at else context).append((start + at, one.ids[at + 1]))
        ids += one.ids
        positions += range(len(prefix), len(prefix) + len(one.ids))
        segments += [number] * len(one.ids)
    room = int(length * PREDICTED)
    answers = answers[:room]
    chosen = answers + rng.sample(context, min(len(context), room - len(answers)))
    weights = [1.0] * len(answers) + [CONTEXT_WEIGHT] * (len(chosen) - len(answers)) + [0.0] * (room - len(chosen))
    chosen += [(0, 0)] * (room - len(chosen))
    spare = length - len(ids)
    return Pack(
        np.array(ids + [0] * spare),
        np.array(positions + [0] * spare),
        np.array(segments + [PADDING] * spare),
        np.array([at for at, _ in chosen]),
        np.array([target for _, target in chosen]),
        np.array(weights, np.float32),
    )


def mask(segments: Ints) -> NDArray[np.bool_]:
    """Return who sees whom, `[query, key]`: what came before, of the prefix or of the same question."""
    causal = np.tri(len(segments), dtype=bool)
    same = segments[:, None] == segments[None, :]
    padding = segments == PADDING
    seen: NDArray[np.bool_] = causal & (same | (segments == 0)[None, :]) & ~padding[None, :]
    np.fill_diagonal(seen, True)
    return seen


def random_branches(tokenizer: Tokenizer, rng: Random, length: int) -> tuple[list[int], list[Branch], list[Example]]:
    """Return a fresh home's prefix with as many questions as fit behind it; `length` also says how large it may be."""
    while True:
        low, high = (2, 14) if length <= 512 else (8, 44)
        speaker, talk = random_conversation(rng, low, high)
        prefix = prefix_ids(tokenizer, talk.before, talk.head)
        room = length - len(prefix)
        if room < 0.3 * length:
            continue
        branches: list[Branch] = []
        examples: list[Example] = []
        for one in questions(speaker, talk):
            made = branch(tokenizer, one.question, one.answer)
            room -= len(made.ids)
            if room < 0:
                return prefix, branches, examples
            branches.append(made)
            examples.append(one)


def random_pack(tokenizer: Tokenizer, rng: Random, length: int) -> Pack:
    """Return a pack about a fresh home."""
    prefix, branches, _ = random_branches(tokenizer, rng, length)
    return pack(rng, prefix, branches, length)


@dataclass(frozen=True, slots=True)
class Batch:
    """Packs of one length, stacked: `[batch, length]`."""

    ids: Ints
    positions: Ints
    seen: NDArray[np.bool_]
    predicted: Ints
    targets: Ints
    weights: NDArray[np.float32]


def batch(tokenizer: Tokenizer, seed: int, step: int, tokens: int) -> Batch:
    """Return the batch of a step, always the same one: 512 tokens a pack, every second time 1,024."""
    rng = Random(f"{seed}-{step}")
    length = 1024 if step % 2 else 512
    packs = [random_pack(tokenizer, rng, length) for _ in range(tokens // length)]
    return Batch(
        np.stack([one.ids for one in packs]),
        np.stack([one.positions for one in packs]),
        np.stack([mask(one.segments) for one in packs]),
        np.stack([one.predicted for one in packs]),
        np.stack([one.targets for one in packs]),
        np.stack([one.weights for one in packs]),
    )
