"""Guesses change an answer only where what is drawn hangs on less than the kernels' own noise.

Of several rows a product of int8 activations, and float attention, round in another order than of one row: the logits
of one and the same position differ a little. Where the two best are that close another token is the best, and a draw by
chance may fall to the other side of an edge. Where there is no such noise, no answer differs; nor does one that is
asked for with a seed, for which nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.engine.speculate import Pace
from edge_assistant.text.tokenizer import Tokenizer

HOME_MINI = Path(__file__).parents[2] / "models/home-mini"
TEXT = Path(__file__).parents[1] / "data/stories.txt"
SETTINGS = EngineSettings(threads=1)
ANSWERS, LENGTH, ROWS = 16, 97, 8
WARM = 0.8
DEVICES = ("wobbling zimbar lamp", "front door", "ceiling light", "bath fan", "kitchen blind")
QUESTIONS = ("is the {} on?", "turn off the {}", "what do you know of the {}?", "which lights are on, the {} too?")
IN_FLOATS = [{"bits": 32}, {"bits": 4, "accuracy_level": 0}]
ROUNDED = [{"bits": 4}, {"bits": 4, "cache": "int8"}, {"bits": 4, "block_size": 128, "cache": "int8"}]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Guess whenever there is something to guess, however little it pays."""
    monkeypatch.setattr(Pace, "look", lambda self: True)
    monkeypatch.setattr(Pace, "worth", lambda self, guess, others: len(guess.tokens))


class Asked(NamedTuple):
    """A bundle, prompts, and whether its products are of floats."""

    bundle: Bundle
    prompts: list[list[int]]
    in_floats: bool


@pytest.fixture(params=[*IN_FLOATS, *ROUNDED, "home-mini"], ids=str)
def asked(request, stories, export_bundle):
    if request.param == "home-mini":
        return about_homes()
    bundle = export_bundle(stories, **request.param)
    ids = Tokenizer(bundle.tokenizer_path).encode(TEXT.read_text(encoding="utf-8"))
    prompts = [[1, *ids[97 * number : 97 * number + 40]] for number in range(ANSWERS)]
    return Asked(bundle, prompts, request.param in IN_FLOATS)


def about_homes():
    if not (HOME_MINI / "manifest.json").is_file():
        pytest.skip("models/home-mini holds no bundle")
    bundle = Bundle.open(HOME_MINI)
    tokenizer = Tokenizer(bundle.tokenizer_path)
    begin, end = ([tokenizer.control_id(name) for name in names] for names in (("<s>", "[INST]"), ("[/INST]",)))
    prompts = []
    for number in range(ANSWERS):
        random = np.random.default_rng(number)
        named = [DEVICES[at] for at in random.permutation(len(DEVICES))[:3]]
        home = "".join(f"- light: {name}, {random.choice(['on', 'off'])}\n" for name in named)
        text = f"hall:\n{home}\n{QUESTIONS[number % len(QUESTIONS)].format(named[0])}"
        prompts.append([*begin, *tokenizer.encode(text), *end])
    return Asked(bundle, prompts, in_floats=False)


def answers(asked: Asked, guesses: int, temperature: float, *, seeded: bool = False):
    """Return what an engine answers to the prompts in turn, and what came of guesses.

    The number of a prompt is the seed: that it asks for, or that chance gives it.
    """
    said, accepted, rejected = [], 0, 0
    chance = patch("edge_assistant.engine.sampling.secrets.randbits", side_effect=range(ANSWERS))
    with Engine.load(asked.bundle, SETTINGS.model_copy(update={"guesses": guesses})) as engine, chance:
        for number, prompt in enumerate(asked.prompts):
            seed = number if seeded else None
            answer = engine.generate(prompt, SamplingParams(LENGTH, temperature=temperature, seed=seed))
            said.append(list(answer))
            accepted += answer.usage.accepted_prediction_tokens
            rejected += answer.usage.rejected_prediction_tokens
    return said, accepted, rejected


@dataclass
class Left:
    """Where an answer with guesses leaves the one without: both tokens, and the logits [2, n, vocab] of all positions.

    Those are of one row a run, as without guesses, and of several.
    """

    seed: int
    position: int
    at: int | None
    tokens: tuple[int, int]
    logits: np.ndarray


def compared(asked: Asked, temperature: float) -> list[Left]:
    """Answer with guesses and without."""
    plain, *none = answers(asked, 0, temperature)
    guessing, accepted, rejected = answers(asked, 8, temperature)
    assert none == [0, 0]
    assert min(accepted, rejected) > ANSWERS
    session = Session(asked.bundle, KvCache(asked.bundle.manifest, 512), SETTINGS)
    found = []
    for seed, (prompt, one, other) in enumerate(zip(asked.prompts, plain, guessing, strict=True)):
        at = None if one == other else next(at for at in count() if one[at] != other[at])
        tokens = (0, 0) if at is None else (one[at], other[at])
        found.append(Left(seed, len(prompt) + (at or 0), at, tokens, both_ways(session, prompt, one[:-1])))
    print(f"{sum(left.at is not None for left in found)} of {ANSWERS} answers differ, {accepted} guesses came true; ")
    return found


def both_ways(session: Session, prompt, answer) -> np.ndarray:
    """Return the logits [2, n, vocab] after a prompt and each token of an answer, run one by one and in eights."""
    session.cache.rewind(0)
    first = session.run(prompt).copy()
    one = [session.run([token]).copy() for token in answer]
    session.cache.rewind(len(prompt))
    eights = [session.run_rows(answer[at : at + ROWS], ROWS) for at in range(0, len(answer), ROWS)]
    return np.stack([np.vstack([first, *rows]) for rows in (one, eights)])


def test_the_best_token_is_another_at_near_ties_alone(asked):
    noise = logit_noise = widest = 0.0
    differing = 0
    for left in compared(asked, temperature=0):
        best = np.argsort(left.logits[0], axis=1)[:, -2:]
        gaps = np.stack([np.diff(np.take_along_axis(rows, best, axis=1))[:, 0] for rows in left.logits])
        noise = max(noise, np.abs(gaps[0] - gaps[1]).max())
        logit_noise = max(logit_noise, np.abs(left.logits[0] - left.logits[1]).max())
        if left.at is not None:
            differing += 1
            widest = max(widest, gaps[0, left.at])
    print(f"the widest gap of the two best where one does: {widest:.2g}")
    print(f"noise: {noise:.2g} of a gap, {logit_noise:.2g} of any logit")
    assert widest <= noise
    if asked.in_floats:
        assert logit_noise < 1e-3
    if asked.in_floats or logit_noise == 0:
        assert differing == 0


def test_a_token_drawn_by_chance_is_another_at_the_edge_of_its_share_alone(asked):
    """Of one chance. The draw is a point between 0 and 1, which falls to the token whose share of it it lies in."""
    noise = furthest = 0.0
    differing = 0
    for left in compared(asked, WARM):
        ends = shares(left.logits)
        noise = max(noise, np.abs(ends[0] - ends[1]).max())
        if left.at is not None:
            differing += 1
            point = np.random.Generator(np.random.Philox(key=np.array([left.seed, left.position], np.uint64))).random()
            one, other = left.tokens
            edge = ends[0, left.at, other - 1 if other > one else other]
            furthest = max(furthest, abs(edge - point))
    print(f"the furthest from an edge where one does: {furthest:.2g}; noise: {noise:.2g} of an edge")
    assert furthest <= noise
    if asked.in_floats or noise == 0:
        assert differing == 0


def test_a_seed_gives_one_text_with_guesses_and_without(asked):
    plain, *_ = answers(asked, 0, WARM, seeded=True)
    guessing, accepted, rejected = answers(asked, 8, WARM, seeded=True)
    assert guessing == plain
    assert accepted == rejected == 0
    assert len({tuple(said) for said in plain}) == ANSWERS


def shares(logits: np.ndarray) -> np.ndarray:
    """Return where each token's share ends, of logits [..., vocab]."""
    weights = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype(np.float64) / WARM)
    return np.cumsum(weights, axis=-1) / weights.sum(axis=-1, keepdims=True)
