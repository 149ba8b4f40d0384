"""How many guesses come true where home-mini answers questions about homes: ours, and those of llama.cpp's lookup."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf_file import write_checkpoint
from hindsight import GUESSES, Again, shared
from quality import quantise
from recorded import Cost, RecordingEngine, Run, recorded_runs

from edge_assistant.bundle import Bundle
from edge_assistant.config import AssistantSettings, EngineSettings
from edge_assistant.engine import SamplingParams
from edge_assistant.errors import ToolCallError
from edge_assistant.home.tools import TOOLS
from edge_assistant.text.chat import ChatModel
from edge_assistant.text.messages import Assistant, Message
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.reference_model.packing import FORMAT
from edge_assistant_export.reference_model.splits import Case

KINDS: Final = ("grounded", "json")
LONGEST_ANSWER: Final = 160
WARM_UP: Final = 20
"""Questions that are not counted: the engine learns what pays."""
_GGUF_TYPE: Final = "Q4_0"
_GUESSES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 11)
"""Of llama-cpp-python's lookup, which makes always as many as it can; 10 is its default."""
Draft = Callable[[np.ndarray], Sequence[int]]


@dataclass(slots=True)
class Answers:
    """What the answers of one kind took together."""

    answers: int = 0
    tokens: int = 0
    """Those behind the first, which the prompt brings; without the one that ends an answer."""
    runs: int = 0
    guessed: int = 0
    accepted: int = 0
    forced: int = 0
    """Tokens that were run and neither drawn nor guessed."""
    seconds: float = 0.0
    least: float = 0.0
    """Seconds with hindsight."""
    fixed: dict[int, float] = field(default_factory=lambda: dict.fromkeys(range(GUESSES + 1), 0.0))
    """Seconds with always so many guesses, or as many as there are."""

    def count(self, written: Sequence[int], runs: Sequence[Run], cost: Cost) -> None:
        """Add an answer [n], without the token that ended it."""
        self.answers += 1
        self.tokens += len(written) - 1
        start = 0
        for run in runs:
            true = shared(run.guessed, written[start + run.due :])
            start += run.due + true
            self.runs += 1
            self.guessed += len(run.guessed)
            self.accepted += true
            self.forced += run.due - 1
            self.seconds += cost(len(run.ids), run.logits)

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Return the counts, tokens a run, the share of guesses that came true, and tokens a second."""
        return {
            "answers": self.answers,
            "tokens": self.tokens,
            "runs": self.runs,
            "tokens_per_run": round(self.tokens / self.runs, 3),
            "guessed": self.guessed,
            "accepted": self.accepted,
            "acceptance": round(self.accepted / max(1, self.guessed), 3),
            "forced": self.forced,
            "tok_s": round(self.speed, 2),
        }


def ours(folder: Path, asked: Sequence[Case], cost: Cost) -> dict[str, Answers]:
    """Return what our engine guesses of a bundle's answers, by their kind, where runs cost so many seconds."""
    found = {kind: Answers() for kind in KINDS}
    bundle = Bundle.open(folder)
    settings = EngineSettings(threads=len(os.sched_getaffinity(0)), sequences=1)
    with recorded_runs(cost) as recording, RecordingEngine.load(bundle, settings) as engine:
        model = ChatModel(bundle, engine, Tokenizer(bundle.tokenizer_path))
        for number, case in enumerate(asked):
            recording.runs.clear()
            try:
                reply = model.chat(messages(case), TOOLS, SamplingParams(max_tokens=LONGEST_ANSWER))
            except ToolCallError:
                continue
            if number >= WARM_UP:
                answers = found[kind_of(reply.message)]
                behind = _behind(recording.runs, reply.usage.prompt_tokens - reply.usage.cached_tokens)
                answers.count(engine.written, behind, cost)
                again = Again.of(engine, stopped=reply.finish_reason == "stop")
                answers.least += again.least_seconds(cost)
                for most in range(GUESSES + 1):
                    answers.fixed[most] += again.seconds(cost, most)
    return found


def llamas(folder: Path, asked: Sequence[Case], cost: Cost) -> dict[int, dict[str, Answers]]:
    """Return what llama.cpp's lookup guesses of the answers of a bundle's GGUF twin, by their number and kind."""
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    lookups: dict[int, Draft] = {0: lambda _: ()}
    lookups |= {most: LlamaPromptLookupDecoding(num_pred_tokens=most) for most in _GUESSES}
    found = {name: {kind: Answers() for kind in KINDS} for name in lookups}
    tokenizer = Tokenizer(folder / "tokenizer.json")
    for prompt, answer in islice(by_llama(folder, asked, tokenizer), WARM_UP, None):
        try:
            kind = kind_of(FORMAT.parse(tokenizer, answer[:-1]))
        except ToolCallError:
            continue
        for name, lookup in lookups.items():
            found[name][kind].count(answer[:-1], replay(prompt, answer, lookup), cost)
    return found


def replay(prompt: Sequence[int], answer: Sequence[int], draft: Draft) -> list[Run]:
    """Return the runs in which `Llama.generate` writes an answer [n], its end included.

    It runs the last token that was drawn with what the draft says to follow, and draws until one is not as guessed.
    """
    runs, at = [], 0
    while at < len(answer) - 1:
        guess = draft(np.array([*prompt, *answer[: at + 1]], np.intc))
        runs.append(Run((answer[at], *map(int, guess)), 1 + len(guess)))
        at += 1 + shared(guess, answer[at + 1 :])
    return runs


def by_llama(folder: Path, asked: Sequence[Case], tokenizer: Tokenizer) -> Iterator[tuple[list[int], list[int]]]:
    """Give each prompt, and the answer of the checkpoint's GGUF twin to it, with the token that ends it."""
    from llama_cpp import Llama

    stop_ids = FORMAT.stop_ids(tokenizer)
    with tempfile.TemporaryDirectory() as scratch, Checkpoint.open(folder / "checkpoint") as checkpoint:
        whole, path = Path(scratch) / "whole.gguf", Path(scratch) / "twin.gguf"
        write_checkpoint(checkpoint, whole)
        quantise(whole, path, _GGUF_TYPE)
        model = Llama(str(path), n_ctx=1024, verbose=False)
        for case in asked:
            prompt = FORMAT.encode(tokenizer, messages(case))
            answer: list[int] = []
            for token in islice(model.generate(prompt, temp=0.0), LONGEST_ANSWER):
                answer.append(token)
                if token in stop_ids:
                    break
            yield prompt, answer
        model.close()


def messages(case: Case) -> list[Message]:
    """Return the prompt that a board makes of a question."""
    return case.talk.as_asked(case.example.question, AssistantSettings().prompt_devices)


def kind_of(message: Assistant) -> str:
    """Return which of `KINDS` an answer is."""
    return "json" if message.calls else "grounded"


def _behind(runs: Sequence[Run], tokens: int) -> list[Run]:
    """Return the runs behind those that have read so many tokens."""
    read = 0
    for number, run in enumerate(runs):
        if read == tokens:
            return list(runs[number:])
        read += len(run.ids)
    return []
