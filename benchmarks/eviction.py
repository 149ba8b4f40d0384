r"""What evicting from a cached context costs, beside a fresh prefill of the same tokens.

    edge-assistant-export model STORIES260K stories --bits 32
    edge-assistant-export model STORIES260K stories-int8 --bits 32 --cache int8
    python benchmarks/eviction.py --bundle stories --bundle stories-int8 --text tests/data/stories.txt \
        --home-mini models/home-mini --questions 300

Perplexity of a text's next 96 tokens after 320 others, in three caches:

    whole     with all 320
    evicted   with the oldest half but the first 4 evicted
    fresh     with the same tokens as `evicted`, read anew

and of all texts as one, read 32 tokens at a time through a cache of 256 that evicts a quarter whenever it is full,
beside one that reads anew what is left. Exact match of home-mini, each question behind another prompt of which
one span goes:

    turns     older turns in front, and it asked something else: newer turns stay, as a board's engine has it
    all       older turns and the same question: the whole prompt stays but those turns
    devices   the whole home, where the question's own prompt shows a part of it: the rest of that part stays
    home      the home as it was some turns ago in front of the last turn: the last turn stays

The last three are what the engine does not do (it moves only what a prompt says will come again), and why.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from machine import machine

from edge_assistant.bundle import Bundle
from edge_assistant.config import AssistantSettings, EngineSettings
from edge_assistant.engine import Engine, Keep, SamplingParams
from edge_assistant.engine.evict import key_scales
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.errors import ToolCallError
from edge_assistant.home.registry import describe
from edge_assistant.home.tools import TOOLS
from edge_assistant.text.chat import ChatModel, Reply
from edge_assistant.text.messages import Message, System, User
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.reference_model import homes
from edge_assistant_export.reference_model.conversations import SYSTEM, Conversation, conversation, questions
from edge_assistant_export.reference_model.examples.base import Example, Speaker
from edge_assistant_export.reference_model.packing import FORMAT
from edge_assistant_export.reference_model.splits import same

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

CONTEXT, EVICTED, MEASURED = 320, 160, 96
SINKS, CAPACITY, STEP = 4, 256, 32
REUSE = 16
ANSWER = 160


def session_of(bundle: Bundle, capacity: int) -> Session:
    """Return a session of its own cache."""
    cache = KvCache(bundle.manifest, capacity, key_scales=key_scales(bundle))
    return Session(bundle, cache, EngineSettings(threads=1))


def read(session: Session, ids: Ints) -> None:
    """Read tokens in chunks."""
    for chunk in session.chunks(ids):
        session.run(chunk)


def nats(session: Session, before: int, ids: Ints) -> float:
    """Read `before` and what follows it, and return the sum of what the tokens [n] that follow cost."""
    logits = session.run_rows([before, *ids[:-1]], len(ids)).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids)), ids]).sum())


def perplexities(bundle: Bundle, texts: list[Ints]) -> dict[str, float]:
    """Return the perplexity behind a whole, an evicted and a fresh context."""
    sums = dict.fromkeys(("whole", "evicted", "fresh"), 0.0)
    session = session_of(bundle, CONTEXT + MEASURED)
    cache = session.cache
    for text in texts:
        context, last, measured = text[: CONTEXT - 1], int(text[CONTEXT - 1]), text[CONTEXT : CONTEXT + MEASURED]
        cache.rewind(0)
        read(session, context)
        sums["whole"] += nats(session, last, measured)
        cache.rewind(len(context))
        cache.evict(SINKS, SINKS + EVICTED)
        kept = cache.context.copy()
        sums["evicted"] += nats(session, last, measured)
        cache.rewind(0)
        read(session, kept)
        sums["fresh"] += nats(session, last, measured)
    return {name: float(np.exp(total / (len(texts) * MEASURED))) for name, total in sums.items()}


def streamed(bundle: Bundle, text: Ints) -> dict[str, float]:
    """Return the perplexity of one long text that slides through a cache, and with what is left read anew each time."""
    sums = dict.fromkeys(("sliding", "fresh"), 0.0)
    sliding, fresh = session_of(bundle, CAPACITY), session_of(bundle, CAPACITY)
    sliding.run(text[:1])
    n_steps = (len(text) - 2) // STEP
    for start in range(1, 1 + n_steps * STEP, STEP):
        sliding.cache.make_room(STEP)
        before, ids = int(text[start]), text[start + 1 : start + 1 + STEP]
        fresh.cache.rewind(0)
        read(fresh, sliding.cache.context)
        sums["sliding"] += nats(sliding, before, ids)
        sums["fresh"] += nats(fresh, before, ids)
    return {name: float(np.exp(total / (n_steps * STEP))) for name, total in sums.items()}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question behind newer turns, and the messages of older ones that stood before them."""

    older: tuple[Message, ...]
    then: homes.House
    talk: Conversation
    example: Example
    other: Example

    def messages(self, example: Example, *, with_older: bool) -> list[Message]:
        """Return the prompt that a board makes for a question, with the older turns or without."""
        system, *newer = self.talk.as_asked(example.question, AssistantSettings().prompt_devices)
        return [system, *(self.older if with_older else ()), *newer]

    def before(self, tokenizer: Tokenizer) -> Iterator[tuple[str, list[int], int]]:
        """Give what is to be read before by its name, and how many tokens of it may be moved."""
        turns = FORMAT.encode(tokenizer, self.messages(self.other, with_older=True))
        history = FORMAT.encode(tokenizer, [*self.messages(self.other, with_older=True)[:-1], User("")])
        yield "turns", turns, len(history) - 1
        for name, messages in (
            ("all", self.messages(self.example, with_older=True)),
            ("devices", self.talk.messages(self.other.question)),
            ("home", self._last_turn()),
        ):
            ids = FORMAT.encode(tokenizer, messages)
            yield name, ids, len(ids)

    def _last_turn(self) -> list[Message]:
        """Return the conversation as it was when its last turn was answered."""
        messages = list(self.talk.before)
        at = max(index for index, message in enumerate(messages) if isinstance(message, User))
        home = describe(self.then.devices, self.then.time)
        messages[at] = User(f"{home}\n\n{messages[at].text}")
        return messages


def asked(count: int) -> Iterator[Asked]:
    """Give questions about homes as in training, each behind a conversation of its own, always the same ones."""
    for number in range(count):
        speaker = Speaker(Random(f"eviction-{number}"))
        older = conversation(speaker, homes.house(speaker.rng, 3, 18), history=True)
        newer = conversation(speaker, older.house, history=True)
        talk = Conversation((System(SYSTEM), *newer.before[1:]), newer.house, newer.last)
        example, other = (one for one, _ in zip(questions(speaker, talk), range(2), strict=False))
        yield Asked(older.before[1:], older.house, talk, example, other)


@dataclass(slots=True)
class Answers:
    """What came of questions: how many were right, and how many were answered as with a fresh prefill."""

    asked: int = 0
    right: int = 0
    same_as_fresh: int = 0
    evictions: int = 0
    cached_share: list[float] = field(default_factory=list)

    def count(self, reply: Reply | None, fresh: Reply | None, example: Example) -> None:
        """Add one reply, and the one that was had without eviction."""
        self.asked += 1
        self.right += reply is not None and same(reply.message, example.answer)
        self.same_as_fresh += (
            reply.message == fresh.message if reply is not None and fresh is not None else reply is fresh
        )
        if reply is not None and fresh is not None:
            self.evictions += reply.usage.cached_tokens > fresh.usage.cached_tokens
            self.cached_share.append(reply.usage.cached_tokens / reply.usage.prompt_tokens)

    def as_json(self) -> dict[str, Any]:
        """Return the counts, and what share of a prompt was in the cache."""
        return asdict(self) | {"cached_share": float(np.mean(self.cached_share))}


class Reader:
    """home-mini with an engine that can be made to have read any conversation."""

    def __init__(self, bundle: Bundle, cache_reuse: int) -> None:
        self.tokenizer = Tokenizer(bundle.tokenizer_path)
        self.engine = Engine.load(
            bundle, EngineSettings(threads=1, sequences=1, cache_reuse=cache_reuse, prefix_bytes=0)
        )
        self._model = ChatModel(bundle, self.engine, self.tokenizer)

    def ask(self, before: list[int], movable: int, messages: list[Message]) -> Reply | None:
        """Return the reply to a prompt behind another context, None where a call cannot be read."""
        list(self.engine.generate(before, SamplingParams(max_tokens=1), keep=Keep(movable)))
        try:
            return self._model.chat(messages, TOOLS, SamplingParams(max_tokens=ANSWER))
        except ToolCallError:
            return None


def exact_match(path: Path, count: int) -> dict[str, Any]:
    """Ask home-mini each question behind a fresh prefill, and behind contexts of which a part goes."""
    results = {name: Answers() for name in ("fresh", "turns", "all", "devices", "home")}
    bundle = Bundle.open(path)
    fresh, evicting = Reader(bundle, 0), Reader(bundle, REUSE)
    for one in asked(count):
        messages = one.messages(one.example, with_older=False)
        before = list(one.before(fresh.tokenizer))
        if max(len(ids) for _, ids, _ in before) > fresh.engine.capacity - ANSWER:
            continue
        for name, ids, movable in before:
            answer = fresh.ask(ids, movable, messages)
            results[name].count(evicting.ask(ids, movable, messages), answer, one.example)
        results["fresh"].count(answer, answer, one.example)
    return {name: result.as_json() for name, result in results.items()}


def main() -> None:
    """Read the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", default=[], type=Path, help="a model to read the text with")
    parser.add_argument("--text", type=Path, help="blank lines part texts; short ones are left out")
    parser.add_argument("--home-mini", type=Path, help="the bundle of home-mini, to ask questions")
    parser.add_argument("--questions", type=int, default=300)
    options = parser.parse_args()
    result: dict[str, Any] = {"bundles": {}, "machine": machine()}
    for path in options.bundle:
        bundle, tokenizer = Bundle.open(path), Tokenizer(path / "tokenizer.json")
        begin = bundle.manifest.special_ids["<s>"]
        texts = [
            np.array([begin, *tokenizer.encode(text.strip())], np.int64)
            for text in options.text.read_text(encoding="utf-8").split("\n\n")
        ]
        long = [text for text in texts if len(text) >= CONTEXT + MEASURED]
        found = {"texts": len(long), **perplexities(bundle, long), "streamed": streamed(bundle, np.concatenate(texts))}
        result["bundles"][path.name] = found
        print(path.name, found, flush=True)
    if options.home_mini:
        result["home_mini"] = exact_match(options.home_mini, options.questions)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
