"""What a run of several tokens takes, by how many they are and of how many the logits are wanted.

A run reads the weights once for all of its tokens; the head is computed for each token whose logits are wanted:

    seconds(tokens, logits) = last(tokens) + head(tokens) * (logits - 1)

`last` is what was measured with the logits of the last token alone, `head` what those of all took more, for each.
Between two numbers of tokens that were measured, and beyond the largest, both are on a straight line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

from worker import Worker

TOKENS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 16, 24, 64, 128)
"""The token that is due with up to 8 guesses of ours or 11 of llama.cpp's; a grammar forces more at times.

And what is read of a prompt at a time.
"""
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class BatchCost:
    """Seconds by the number of tokens, with the logits of the last one, and with all."""

    last: Mapping[int, float]
    everyone: Mapping[int, float]

    def seconds(self, tokens: int, logits: int) -> float:
        """Return what a run of so many tokens takes, with the logits of the last so many."""
        head = {
            number: (self.everyone[number] - last) / (number - 1) for number, last in self.last.items() if number > 1
        }
        return _on_a_line(self.last, tokens) + max(0.0, _on_a_line(head, tokens)) * (logits - 1)

    def over_one(self) -> dict[str, float]:
        """Return what runs with all their logits take, beside one of one token."""
        return {str(number): round(seconds / self.everyone[1], 2) for number, seconds in self.everyone.items()}


def measure(workers: Sequence[Worker], context: int, rounds: int) -> dict[str, BatchCost]:
    """Let workers run steps behind `context` tokens, in turn; return the medians by the worker's name."""
    found: dict[str, list[dict[str, dict[str, list[float]]]]] = {worker.name: [] for worker in workers}
    for index in range(rounds + 1):
        for worker in workers:
            took = worker.do("rows", context=context, rows=TOKENS, repeats=_REPEATS)
            if index:  # the first round warms up
                found[worker.name].append(took)
    return {
        name: BatchCost(_medians(took["last"] for took in rows), _medians(took["all"] for took in rows))
        for name, rows in found.items()
    }


def _medians(rounds: Iterable[Mapping[str, list[float]]]) -> dict[int, float]:
    rows = [*rounds]
    return {number: median(chain.from_iterable(row[str(number)] for row in rows)) for number in TOKENS}


def _on_a_line(known: Mapping[int, float], at: int) -> float:
    """Return the value between the two known neighbours of a number, or beyond the last two."""
    if at in known:
        return known[at]
    numbers = sorted(known)
    upper = next((index for index, number in enumerate(numbers) if index and number > at), len(numbers) - 1)
    low, high = numbers[upper - 1], numbers[upper]
    return known[low] + (known[high] - known[low]) * (at - low) / (high - low)
