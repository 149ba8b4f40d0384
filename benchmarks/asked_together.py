"""What several callers get together who ask real questions: whole answers a second, reading and guesses included.

`callers.py` lets random models write to random prompts. Here the callers ask home-mini what it is evaluated with, each
the next question when it has its answer; what a run of several tokens takes is measured at the shape of the bundle and
of its GGUF twin, in turn. Tokens a second are the product: those of the answers, by the time of reading and writing.

    ours        the engine itself, through `ChatModel`, with as many sequences; its clock tells what a run would take
    llama.cpp   the answers of home-mini's own GGUF twin, run as its server does: a sequence for each caller, which
                keeps what its context shares with the next prompt (a free one that shares most); in each run a token of
                every answer that is written, and of prompts that wait as many as fit the batch. Nothing is guessed.
                And as it would be if it copied what any of its sequences shares with a prompt, as ours does

The last line is one JSON object.

    python benchmarks/asked_together.py build/bench/int4-b128 --gguf build/bench/twin.gguf --callers 4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import batch_cost
import runtimes
from acceptance import KINDS, LONGEST_ANSWER, WARM_UP, by_llama, kind_of, messages
from hindsight import shared
from recorded import Cost, recorded_runs

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant.errors import ToolCallError
from edge_assistant.home.tools import TOOLS
from edge_assistant.text.chat import ChatModel
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.reference_model.splits import Case, cases

OURS = "edge-assistant"
_LLAMA_BATCH = 512
"""Tokens of a run, as llama.cpp has it by default."""


@dataclass(slots=True)
class Took:
    """What some answers took together."""

    answers: int = 0
    tokens: int = 0
    """Of the answers, without those that end them."""
    read: int = 0
    """Of the prompts, without those that a cache held."""
    seconds: float = 0.0

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Return the counts, and tokens a second."""
        return {"answers": self.answers, "tokens": self.tokens, "read": self.read, "tok_s": round(self.speed, 2)}


def main() -> None:
    """Read the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="the bundle whose shape counts")
    parser.add_argument("--gguf", type=Path, required=True, metavar="FILE", help="its twin, made by gguf_twin.py")
    parser.add_argument("--home-mini", type=Path, default=Path("models/home-mini"), metavar="DIR")
    parser.add_argument("--callers", type=int, default=4, metavar="N")
    parser.add_argument("--questions", type=int, default=150, metavar="N", help="of each of the splits a, b and c")
    parser.add_argument("--context", type=int, default=200, metavar="N", help="tokens before the measured runs")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="counted rounds, after one that warms up")
    runtimes.add_threads(parser)
    options = parser.parse_args()
    context = options.context + max(batch_cost.TOKENS)
    workers = (
        runtimes.bundle(OURS, options.bundle, options, script="runner_session.py", context=context),
        runtimes.llama(options.gguf, options, context=context),
    )
    costs = batch_cost.measure(workers, options.context, options.rounds)
    for worker in workers:
        worker.close()
    asked = [*chain.from_iterable(cases(split, options.questions) for split in ("a", "b", "c"))]
    found = {kind: of_kind(kind, asked, costs, options) for kind in KINDS}
    cost = {name: cost.over_one() for name, cost in costs.items()}
    print(runtimes.report("asked_together", workers, options, callers=options.callers, batch_cost=cost, **found))


def of_kind(
    kind: str, asked: Sequence[Case], costs: dict[str, batch_cost.BatchCost], options: argparse.Namespace
) -> dict[str, Any]:
    """Return what the questions take that have answers of one kind."""
    chosen = [case for case in asked if kind_of(case.example.answer) == kind]
    print(f"{kind}: {len(chosen)} questions", file=sys.stderr)
    said = list(by_llama(options.home_mini, chosen, Tokenizer(options.home_mini / "tokenizer.json")))
    found: dict[str, Any] = {}
    for callers in (1, options.callers):
        mine = ours(options.home_mini, chosen, costs[OURS].seconds, callers)
        row = found[f"{callers} together"] = {OURS: mine.as_json()}
        for name, copying in ((runtimes.LLAMA, False), (f"{runtimes.LLAMA}, were it to copy", True)):
            theirs = llamas(said, costs[runtimes.LLAMA].seconds, callers, copying=copying)
            row[name] = {**theirs.as_json(), "ours_over_it": round(mine.speed / theirs.speed, 2)}
    return found


def ours(folder: Path, asked: Sequence[Case], cost: Cost, callers: int) -> Took:
    """Return what our engine takes for questions, behind those that warm it up, where runs cost so many seconds."""
    bundle = Bundle.open(folder)
    size = bundle.manifest.cache_size
    budget = callers * size.of(min(1024, size.max_positions))
    settings = EngineSettings(sequences=callers, queue=callers, kv_cache_bytes=budget)
    with recorded_runs(cost) as recording, Engine.load(bundle, settings) as engine:
        model = ChatModel(bundle, engine, Tokenizer(bundle.tokenizer_path))

        def ask(case: Case) -> None:
            with suppress(ToolCallError):  # it was written all the same
                model.chat(messages(case), TOOLS, SamplingParams(max_tokens=LONGEST_ANSWER))

        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(ask, asked[:WARM_UP]))
            before, started = engine.metrics().by_priority["interactive"], recording.seconds
            list(pool.map(ask, asked[WARM_UP:]))
            after = engine.metrics().by_priority["interactive"]
    return Took(
        answers=after.finished - before.finished,
        tokens=after.completion_tokens - before.completion_tokens,
        read=after.prompt_tokens - before.prompt_tokens - after.cached_tokens + before.cached_tokens,
        seconds=recording.seconds - started,
    )


@dataclass(slots=True)
class _Sequence:
    """A sequence of llama.cpp's cache, and what it has to do."""

    context: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    """What of it is to come."""

    @property
    def idle(self) -> bool:
        """Whether it has no question."""
        return not (self.unread or self.answer)

    def begin(self, prompt: list[int], answer: list[int], held: Sequence[list[int]]) -> int:
        """Take a question; return how many tokens of its prompt must be read, where it has what one context shares."""
        kept = max(shared(context, prompt[:-1]) for context in held)
        self.context, self.unread, self.answer = prompt[:kept], prompt[kept:], list(answer)
        return len(self.unread)

    def run(self, room: int) -> int:
        """Run the token that was drawn last, or of the prompt as many as there is room for; return how many that is."""
        if self.unread:
            chunk, self.unread = self.unread[:room], self.unread[room:]
        else:
            chunk = [self.answer.pop(0)]
        self.context += chunk
        if not self.unread and len(self.answer) == 1:  # what is drawn now ends it
            self.answer.clear()
        return len(chunk)


def llamas(said: Sequence[tuple[list[int], list[int]]], cost: Cost, callers: int, *, copying: bool) -> Took:
    """Return what llama.cpp takes for prompts and answers, each with the token that ends it, behind the first few."""
    sequences = [_Sequence() for _ in range(callers)]
    _serve(sequences, said[:WARM_UP], cost, copying=copying)
    return _serve(sequences, said[WARM_UP:], cost, copying=copying)


def _serve(
    sequences: Sequence[_Sequence], said: Sequence[tuple[list[int], list[int]]], cost: Cost, *, copying: bool
) -> Took:
    waiting, took = iter(said), Took()
    while _fill(sequences, waiting, took, copying=copying):
        tokens = 0
        busy = [one for one in sequences if not one.idle]
        for one in sorted(busy, key=lambda one: bool(one.unread)):
            if room := _LLAMA_BATCH - tokens:
                tokens += one.run(room)
        took.seconds += cost(tokens, len(busy))
    return took


def _fill(
    sequences: Sequence[_Sequence], waiting: Iterator[tuple[list[int], list[int]]], took: Took, *, copying: bool
) -> bool:
    """Give the idle sequences what waits; return whether any has something to do."""
    while idle := [one for one in sequences if one.idle]:
        if (question := next(waiting, None)) is None:
            break
        prompt, answer = question
        best = max(idle, key=lambda one: shared(one.context, prompt))
        held = [one.context for one in (sequences if copying else (best,))]
        took.answers, took.tokens = took.answers + 1, took.tokens + len(answer) - 1
        took.read += best.begin(prompt, answer, held)
    return any(not one.idle for one in sequences)


if __name__ == "__main__":
    main()
