"""One question and its one right answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_assistant.text.messages import Assistant, ToolCall
from edge_assistant_export.reference_model.lexicon.follow_ups import FOLLOW_UPS
from edge_assistant_export.reference_model.phrasing import draw, fill, polite, worn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random


class NoSuchQuestionError(LookupError):
    """The home at hand, or the side of the patterns asked for, has no question of this kind; draw another."""


@dataclass(frozen=True, slots=True)
class Example:
    """What a person says and what the model must answer; `patterns` are the skeletons it was made from."""

    kind: str
    question: str
    answer: Assistant
    patterns: tuple[str, ...]


@dataclass(slots=True)
class Speaker:
    """Puts intents into words; with `held_out` only by patterns that training never sees."""

    rng: Random
    held_out: bool = False

    def say(
        self,
        intent: str,
        slots: Mapping[str, str] | None = None,
        *,
        question: bool = False,
        names: frozenset[str] = frozenset(),
        **words: str,
    ) -> tuple[str, str]:
        """Return a finished sentence, its slots filled from `slots` and `words`, and the pattern it was made from."""
        pattern, text, imperative = self.core(intent, {**(slots or {}), **words})
        if not question or self.rng.random() < 0.9:
            text = polite(self.rng, text, imperative=imperative and not question)
        return worn(self.rng, text, question=question, names=names), pattern

    def core(self, intent: str, slots: Mapping[str, str], *, imperative_only: bool = False) -> tuple[str, str, bool]:
        """Return pattern, bare sentence and whether it is an imperative."""
        sides = [intent] if imperative_only else [intent, f"{intent}.free"]
        if self.rng.random() < 0.4:
            sides.reverse()
        for side in sides:
            skeleton = draw(self.rng, side, held_out=self.held_out)
            if skeleton is not None:
                imperative = not side.endswith(".free") and intent not in FOLLOW_UPS
                return f"{side}|{skeleton}", fill(skeleton, **slots), imperative
        raise NoSuchQuestionError(intent)


def calls(*made: tuple[str, dict[str, Any]]) -> Assistant:
    """Return an answer of calls."""
    return Assistant("", tuple(ToolCall(tool, arguments) for tool, arguments in made))


def text(sentence: str) -> Assistant:
    """Return an answer of one sentence, its first letter a capital."""
    return Assistant(sentence[:1].upper() + sentence[1:])
