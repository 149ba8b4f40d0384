"""How many answers are right, by kind and split: of a checkpoint in torch, or of a bundle on the board's engine."""

from __future__ import annotations

# ruff: noqa: PLC0415 - torch is imported by what needs it alone
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from edge_assistant_export.reference_model.splits import Case, Split, cases, same

if TYPE_CHECKING:
    from pathlib import Path

    from edge_assistant.text.messages import Assistant
    from edge_assistant.text.tokenizer import Tokenizer
    from edge_assistant_export.reference_model.model import Mistral


Judge = Callable[[Iterable["Case"]], Iterator[tuple["Case", bool, str]]]
"""Says of each question whether the answer was right, and what it was."""


@dataclass(slots=True)
class Score:
    """What came of one split."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    misses: list[dict[str, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of answers that are exactly right."""
        return sum(self.right.values()) / max(1, sum(self.asked.values()))

    def count(self, case: Case, right: bool, said: str) -> None:
        """Add one answer."""
        self.asked[case.example.kind] += 1
        self.right[case.example.kind] += right
        if not right:
            wanted = written(case.example.answer)
            self.misses.append(
                {"kind": case.example.kind, "question": case.example.question, "wanted": wanted, "said": said}
            )


def written(answer: Assistant) -> str:
    """Return an answer on one line."""
    if answer.calls:
        return json.dumps([{call.name: dict(call.arguments)} for call in answer.calls], ensure_ascii=False)
    return answer.text


def by_checkpoint(model: Mistral, tokenizer: Tokenizer) -> Judge:
    """Return a judge that asks the checkpoint itself, all questions of a home in one pass (see `probe`)."""
    from edge_assistant_export.reference_model.packing import branch, prefix_ids
    from edge_assistant_export.reference_model.probe import best_answers, is_right

    def judge(asked: Iterable[Case]) -> Iterator[tuple[Case, bool, str]]:
        for _, group in groupby(asked, lambda case: id(case.talk)):
            together = list(group)
            prefix = prefix_ids(tokenizer, together[0].talk.before, together[0].talk.head)
            branches = [branch(tokenizer, case.example.question, case.example.answer) for case in together]
            best = best_answers(model, prefix, branches)
            for case, said, one in zip(together, best, branches, strict=True):
                yield case, is_right(said, one), tokenizer.decode(said)

    return judge


def by_bundle(folder: Path, threads: int) -> Judge:
    """Return a judge that generates each answer greedily on the board's own engine, with a board's prompt."""
    from edge_assistant.config import AssistantSettings, EngineSettings
    from edge_assistant.engine import SamplingParams
    from edge_assistant.errors import ToolCallError
    from edge_assistant.home.tools import TOOLS
    from edge_assistant.text.chat import ChatModel

    def judge(asked: Iterable[Case]) -> Iterator[tuple[Case, bool, str]]:
        # What an answer is must not depend on the question before.
        with ChatModel.load(folder, EngineSettings(threads=threads, cache_reuse=0)) as model:
            for case in asked:
                messages = case.talk.as_asked(case.example.question, AssistantSettings().prompt_devices)
                try:
                    reply = model.chat(messages, TOOLS, SamplingParams(max_tokens=160)).message
                except ToolCallError as error:
                    yield case, False, error.text
                else:
                    yield case, same(reply, case.example.answer), written(reply)

    return judge


def evaluate(judge: Judge, splits: Iterable[Split], count: int) -> dict[Split, Score]:
    """Put every question of the splits to the judge."""
    scores: dict[Split, Score] = {}
    for split in splits:
        scores[split] = Score()
        for case, right, said in judge(cases(split, count)):
            scores[split].count(case, right, said)
    return scores


def table(scores: dict[Split, Score]) -> str:
    """Return the scores by kind as a Markdown table."""
    kinds = sorted({kind for score in scores.values() for kind in score.asked})
    lines = ["| kind | " + " | ".join(f"({split})" for split in scores) + " |", "|---|" + "---|" * len(scores)]
    for kind in kinds:
        cells = [f"{score.right[kind]}/{score.asked[kind]}" if score.asked[kind] else "" for score in scores.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines.append("| **all** | " + " | ".join(f"**{score.share:.1%}**" for score in scores.values()) + " |")
    return "\n".join(lines)


def as_json(scores: dict[Split, Score]) -> dict[str, Any]:
    """Return the scores as a document, misses included."""
    return {
        split: {
            "exact_match": round(score.share, 4),
            "asked": sum(score.asked.values()),
            "by_kind": {kind: [score.right[kind], score.asked[kind]] for kind in sorted(score.asked)},
            "misses": score.misses,
        }
        for split, score in scores.items()
    }
