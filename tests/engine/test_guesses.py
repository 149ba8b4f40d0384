"""Guessed tokens change how answers are computed, and not what they are."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Constraint, Engine, Grammars, SamplingParams
from edge_assistant.engine.speculate import Pace
from edge_assistant.text.tokenizer import Tokenizer

HOME_MINI = Path(__file__).parents[2] / "models/home-mini"
REPEATED = [1, *(list(np.random.default_rng(2).integers(14, 270, 12)) * 4)]
GREEDY = SamplingParams(max_tokens=60)
LIVELY = SamplingParams(max_tokens=60, temperature=0.7, top_k=50, top_p=0.95, repetition_penalty=1.05)
HOME = "[SYSTEM_PROMPT]You are the assistant of this home.[/SYSTEM_PROMPT][INST]"

pytestmark = pytest.mark.usefixtures("one_chance")


@pytest.fixture(params=[GREEDY, LIVELY], ids=["greedy", "lively"])
def params(request):
    return request.param


@pytest.fixture
def always(monkeypatch):
    """Guess whenever there is something to guess, though a tiny model's runs are too cheap for it to pay."""
    monkeypatch.setattr(Pace, "look", lambda self: True)
    monkeypatch.setattr(Pace, "worth", lambda self, guess, others: len(guess.tokens))


def answers(bundle, params, guesses: int, *prompts):
    """Return what an engine answers to prompts in turn, with what it guessed and what came true."""
    with Engine.load(bundle, EngineSettings(threads=1, guesses=guesses)) as engine:
        said, usages = [], []
        for prompt in prompts:
            generation = engine.generate(prompt, params)
            said.append(list(generation))
            usages.append(generation.usage)
        counts = engine.metrics().by_priority["interactive"]
    accepted = sum(usage.accepted_prediction_tokens for usage in usages)
    rejected = sum(usage.rejected_prediction_tokens for usage in usages)
    assert (accepted, rejected) == (counts.accepted_prediction_tokens, counts.rejected_prediction_tokens)
    assert all(usage.accepted_prediction_tokens <= usage.completion_tokens + 1 for usage in usages)
    return said, accepted + rejected, accepted


@pytest.mark.parametrize("recipe", [{"bits": 32}, {"bits": 32, "cache": "int8"}], ids=["float", "int8 cache"])
def test_an_answer_is_the_same_with_and_without(tiny_bundle, recipe, params, always):
    bundle = tiny_bundle(**recipe)
    prompts = [REPEATED, REPEATED[:30], REPEATED[:20] + REPEATED]
    plain, none, _ = answers(bundle, params, 0, *prompts)
    guessing, tried, _ = answers(bundle, params, 8, *prompts)
    assert guessing == plain
    assert tried > none == 0


def test_an_answer_of_a_bounded_window_is_the_same_with_and_without(tiny_bundle, params, always):
    bundle = tiny_bundle({"sliding_window": 16})
    plain, *_ = answers(bundle, params, 0, REPEATED, REPEATED[:40])
    guessing, tried, _ = answers(bundle, params, 8, REPEATED, REPEATED[:40])
    assert guessing == plain
    assert tried


def test_where_rows_were_measured_to_cost_as_much_as_steps_nothing_is_guessed(tiny_bundle):
    guessed = []
    for row_cost in (0.0, 1.5):
        with Engine.load(tiny_bundle(), EngineSettings(threads=1), row_cost=row_cost) as engine:
            answer = engine.generate(REPEATED, GREEDY)
            list(answer)
            guessed.append(answer.usage.accepted_prediction_tokens + answer.usage.rejected_prediction_tokens)
    assert guessed[0] > guessed[1] == 0


@pytest.mark.parametrize("most", range(1, 9))
def test_an_answer_ends_where_it_would_have(tiny_bundle, most, always):
    short = SamplingParams(max_tokens=most)
    assert answers(tiny_bundle(), short, 8, REPEATED)[0] == answers(tiny_bundle(), short, 0, REPEATED)[0]
    plain = answers(tiny_bundle(), GREEDY, 0, REPEATED)[0][0]
    stopping = SamplingParams(max_tokens=60, stop_ids=frozenset({plain[most]}))
    assert answers(tiny_bundle(), stopping, 8, REPEATED)[0] == [plain[: plain.index(plain[most])]]


def test_guesses_and_a_grammar_get_on(tiny_bundle, params, always):
    bundle = tiny_bundle()
    file = bundle.tokenizer_path
    vocab_size = bundle.manifest.architecture.vocab_size
    schema = {"type": "array", "items": {"enum": ["lamp", "lock"]}, "minItems": 6, "maxItems": 9}
    grammar = Grammars(file.read_bytes(), vocab_size, {2}, leading_space=False).compile(Constraint.json_schema(schema))
    held = SamplingParams(max_tokens=90, temperature=params.temperature, stop_ids=frozenset({2}), grammar=grammar)
    plain, *_ = answers(bundle, held, 0, REPEATED)
    guessing, tried, accepted = answers(bundle, held, 8, REPEATED)
    assert guessing == plain
    assert accepted <= tried
    assert Tokenizer(file).decode(plain[0]).startswith('["l')


def test_what_was_said_before_is_guessed_again(tiny_bundle, always):
    """The second time the whole answer is among the earlier ones, and each of its tokens can be guessed."""
    _, _, once = answers(tiny_bundle(), GREEDY, 8, REPEATED[:9])
    _, tried, twice = answers(tiny_bundle(), GREEDY, 8, REPEATED[:9], REPEATED[:9])
    assert twice - once > 30
    assert tried >= twice


@pytest.mark.skipif(not (HOME_MINI / "manifest.json").is_file(), reason="models/home-mini holds no bundle")
def test_a_trained_model_copies_and_its_guesses_come_true(always):
    """int4 products of one row and of several differ in their last bits: where the two best logits are that close,
    and nowhere else, the answer may be another."""
    bundle, tokenizer = Bundle.open(HOME_MINI), Tokenizer(HOME_MINI / "tokenizer.json")
    devices = "hall:\n- light: wobbling zimbar lamp, on\n- lock: front door, locked\n\n"
    asked = ["is the wobbling zimbar lamp on?", "turn off the wobbling zimbar lamp", "is the front door locked?"]
    prompts = []
    for question in asked:
        prompt = [tokenizer.control_id("<s>"), tokenizer.control_id("[INST]"), *tokenizer.encode(devices + question)]
        prompts.append([*prompt, tokenizer.control_id("[/INST]")])
    params = SamplingParams(max_tokens=40, stop_ids=frozenset({2}))
    plain, *_ = answers(bundle, params, 0, *prompts)
    guessing, tried, accepted = answers(bundle, params, 8, *prompts)
    assert guessing == plain
    assert 0 < accepted < tried


def test_requests_that_get_no_answer_do_not_displace_what_was_said(tiny_bundle):
    """Many may be refused, or given up while they wait; what may come again is what was said."""
    given_up = threading.Event()
    given_up.set()
    with Engine.load(tiny_bundle(), EngineSettings(threads=1)) as engine:
        list(engine.generate(REPEATED, GREEDY))
        speculator = engine._speculator
        remembered, length = speculator._answers, speculator._answer
        for _ in range(5):
            assert not list(engine.generate(REPEATED, GREEDY, given_up))
    np.testing.assert_array_equal(speculator._answers, remembered)
    assert speculator._answer == length
