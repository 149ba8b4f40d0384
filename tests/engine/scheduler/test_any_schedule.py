"""Whatever is asked, cancelled and waited for between any two runs, each answer is that of an engine of its own.

The worker is held at every run of the model, and what happens meanwhile is drawn from a seed: so a schedule comes again
as it was. Of the model with one layer what an eviction leaves is exact, so that there answers that outgrow the cache,
conversations without their oldest turns and contexts that are read anew are compared as well.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from scheduling import with_clock

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Claim, Constraint, Engine, Grammar, Grammars, Keep, SamplingParams
from edge_assistant.engine.session import Session, Together
from edge_assistant.engine.speculate import Pace
from edge_assistant.errors import DeadlineError, EngineBusyError

CAPACITY = 110
STOP = frozenset({2})
PRIORITIES = ("voice", "interactive", "batch")
CONSTRAINTS = (
    Constraint.regex("[a-z]{2,30}"),
    Constraint.regex("(ab){10,20}|x"),
    Constraint.lark('start: "turn " ("on" | "off") " the " /[a-z]+/'),
    Constraint.json_schema(
        {"type": "array", "items": {"enum": ["lamp", "lock", "lake"]}, "minItems": 2, "maxItems": 5}
    ),
)
OPERATIONS = 250


class Gate:
    """Lets runs of the model through one by one."""

    def __init__(self) -> None:
        self.closed = False
        self._here, self._go = threading.Semaphore(0), threading.Semaphore(0)
        self._held = False

    def passes(self) -> None:
        """Called by a run."""
        if self.closed:
            self._here.release()
            assert self._go.acquire(timeout=60)

    def settle(self, engine: Engine) -> None:
        """Wait until a run is held, or there is nothing to run."""
        while not self._held and engine._scheduler._worker is not None:
            self._held = self._here.acquire(timeout=0.002)

    def step(self, engine: Engine) -> None:
        """Let a run go, and wait for the next."""
        if self._held:
            self._held = False
            self._go.release()
        self.settle(engine)

    def open(self) -> None:
        """Let all go."""
        self.closed = self._held = False
        self._go.release()


@dataclass
class Asked:
    """What was asked, how it was cancelled, and what came."""

    prompt: list[int]
    params: SamplingParams
    adapter: int | None
    claim: Claim
    generation: Any = None
    cancel: threading.Event = field(default_factory=threading.Event)
    ids: list[int] = field(default_factory=list)
    error: Exception | None = None

    def fetch(self, *, wait: bool) -> bool:
        """Take what is there, or all; return whether that is the end."""
        while wait or not self.generation._request.out.empty():
            try:
                self.ids.append(next(self.generation))
            except (StopIteration, DeadlineError, EngineBusyError) as error:
                self.error = None if isinstance(error, StopIteration) else error
                return True
        return False


class World:
    """One bundle with adapters, and what it answers alone."""

    def __init__(self, bundle, adapters) -> None:
        self.bundle, self._files = bundle, adapters
        vocabulary = Grammars(bundle.tokenizer_path.read_bytes(), 270, STOP, leading_space=False)
        self.grammars: list[Grammar] = [vocabulary.compile(constraint) for constraint in CONSTRAINTS]
        self._alone = Engine.load(bundle, self.settings(1, guesses=0, prefix_bytes=0, cache_reuse=0))
        self._adapters = self.adapters(self._alone)
        self._known: dict[object, tuple[list[int], str]] = {}

    def settings(self, sequences: int, **values) -> EngineSettings:
        """Return those of an engine whose slots have the same capacity."""
        nbytes = sequences * self.bundle.manifest.cache_size.of(CAPACITY)
        return EngineSettings(threads=1, sequences=sequences, kv_cache_bytes=nbytes, **values)

    def adapters(self, engine: Engine) -> list[Any]:
        """Load the adapters for an engine; the first is none."""
        return [None, *map(engine.load_adapter, self._files)]

    def alone(self, asked: Asked) -> tuple[list[int], str]:
        """Return the answer, and why it ends, of an engine that has nothing else to do and knows nothing."""
        key = (tuple(asked.prompt), asked.params, asked.adapter)
        if key not in self._known:
            self._alone._scheduler._slots.all[0].cache.rewind(0)
            generation = self._alone.generate(*key[:2], adapter=self._adapters[asked.adapter or 0])
            self._known[key] = (list(generation), generation.finish_reason)
        return self._known[key]


class Schedule:
    """A random schedule of one engine."""

    def __init__(self, world: World, gate: Gate, seed: int, *, evicts: bool) -> None:
        self._world, self._gate, self._random, self._evicts = world, gate, Random(seed), evicts
        random, token_bytes = self._random, world.bundle.manifest.cache_size.per_token
        values = {
            "guesses": random.choice((0, 8)),
            "prefix_bytes": random.choice((0, 40, 200, 4000)) * token_bytes,
            "queue": random.choice((2, 4, 16)),
            "prefill_chunk": random.choice((5, 16, 128)),
            "cache_reuse": 8 if evicts else 0,
            "refresh_when_idle": evicts and random.random() < 0.5,
        }
        self.engine = Engine.load(world.bundle, world.settings(random.choice((1, 2, 3, 4)), **values))
        self._adapters = world.adapters(self.engine)
        self._clock = with_clock(self.engine)
        self._system = self._tokens(20)
        self._turns = [self._tokens(random.choice((3, 8, 12))) for _ in range(6)]
        self._live: list[Asked] = []
        self.submitted = self.compared = 0

    def run(self) -> None:
        """Do what is drawn, and then wait for all."""
        self._gate.closed = True
        try:
            for _ in range(OPERATIONS):
                self._operate()
                for asked in [asked for asked in self._live if asked.fetch(wait=False)]:
                    self._compare(asked)
        finally:
            self._gate.open()
        for asked in list(self._live):
            assert asked.fetch(wait=True)
            self._compare(asked)

    def _operate(self) -> None:
        roll, live = self._random.random(), self._live
        if roll < 0.25:
            self._submit()
            self._gate.settle(self.engine)
        elif roll < 0.3 and live:
            self._random.choice(live).cancel.set()
        elif roll < 0.33 and live:
            live.pop(self._random.randrange(len(live))).generation.close()
        elif roll < 0.35:
            self._clock.now += self._random.choice((1, 3, 6))
        else:
            for _ in range(self._random.choice((1, 1, 4))):
                self._gate.step(self.engine)

    def _submit(self) -> None:
        random = self._random
        asked = Asked(self._prompt(), self._params(), random.choice((None, None, 1, 2)), self._claim())
        if asked.params.overflow == "slide":
            asked.prompt = (asked.prompt * CAPACITY)[: random.choice((60, CAPACITY - 1, CAPACITY))]
        keep = Keep(random.choice((0, len(asked.prompt), random.randrange(len(asked.prompt) + 1))))
        self.submitted += 1
        try:
            asked.generation = self.engine.generate(
                asked.prompt, asked.params, asked.cancel, keep, asked.claim, adapter=self._adapters[asked.adapter or 0]
            )
        except EngineBusyError:
            return
        self._live.append(asked)

    def _prompt(self) -> list[int]:
        first = self._random.randrange(4)
        turns = self._turns[first : self._random.randrange(first, 6) + 1]
        conversation = [*self._system, *(token for turn in turns for token in turn)]
        return self._random.choice((conversation, conversation, self._tokens(30), self._turns[first] * 4))[:80]

    def _params(self) -> SamplingParams:
        random = self._random
        chosen: dict[str, Any] = {"max_tokens": random.choice((1, 2, 8, 30)), "stop_ids": STOP}
        if random.random() < 0.5:
            chosen |= {"temperature": 1.2, "top_k": 50, "repetition_penalty": 1.1, "seed": random.choice((None, 3))}
        if random.random() < 0.3:
            chosen["grammar"] = random.choice(self._world.grammars)
        if self._evicts and random.random() < 0.2:
            chosen["overflow"] = "slide"
        return SamplingParams(**chosen)

    def _claim(self) -> Claim:
        deadline_s = self._random.choice((None, None, None, 5.0))
        return Claim(str(self._random.randrange(3)), self._random.choice(PRIORITIES), deadline_s)

    def _tokens(self, number: int) -> list[int]:
        return [self._random.randrange(14, 270) for _ in range(number)]

    def _compare(self, asked: Asked) -> None:
        self._live.remove(asked)
        usage, reason = asked.generation.usage, asked.generation.finish_reason
        if asked.error is not None:
            assert isinstance(asked.error, EngineBusyError) or asked.claim.deadline_s is not None
            return
        closed, self._gate.closed = self._gate.closed, False
        ids, why = self._world.alone(asked)
        self._gate.closed = closed
        assert asked.ids == (ids[: len(asked.ids)] if asked.cancel.is_set() else ids)
        assert reason == why or (reason == "cancelled" and asked.cancel.is_set())
        assert usage.completion_tokens == len(asked.ids)
        assert usage.cached_tokens < len(asked.prompt)
        self.compared += 1


@pytest.fixture
def gate(monkeypatch):
    """Return the gate that every run of the model passes."""
    gate = Gate()
    for kind, name in ((Session, "run"), (Session, "run_rows"), (Session, "run_again"), (Together, "run")):
        monkeypatch.setattr(kind, name, _gated(gate, getattr(kind, name)))
    return gate


def _gated(gate: Gate, run):
    def gated(*args):
        gate.passes()
        return run(*args)

    return gated


@pytest.fixture(scope="module", params=[1, 2], ids=["one layer", "two layers"])
def world(request, tiny_bundle, lora_file, tmp_path_factory):
    bundle = tiny_bundle({"num_hidden_layers": request.param}, lora_rank=4)
    folder = tmp_path_factory.mktemp("adapters")
    return World(bundle, [lora_file(folder / f"{seed}.npz", bundle, seed) for seed in (1, 2)])


@pytest.mark.parametrize("seed", range(10))
def test_answers_are_those_of_an_engine_of_their_own(world, gate, monkeypatch, seed):
    chance = Random(seed)
    monkeypatch.setattr(Pace, "look", lambda self: chance.random() < 0.8)
    monkeypatch.setattr(Pace, "worth", lambda self, guess, others: chance.randrange(len(guess.tokens) + 1))
    monkeypatch.setattr(Pace, "together", lambda self, more: chance.random() < 0.8)
    schedule = Schedule(world, gate, seed, evicts=world.bundle.manifest.architecture.n_layers == 1)
    with schedule.engine as engine:
        schedule.run()
        if worker := engine._scheduler._worker:
            worker.join()
        counts = engine.metrics().by_priority.values()
    ended = (sum((one.finished, one.cancelled, one.late, one.shed)) for one in counts)
    assert sum(ended) == schedule.submitted
    assert schedule.compared > 5
