"""Sampling: what stays, what is drawn, and that nothing but seed and position decides the draw."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_assistant.engine.sampling import Sampler, SamplingParams, candidates
from edge_assistant.errors import LogitsError, SamplingError

VOCAB = 40
LOGITS = arrays(np.float32, st.integers(1, VOCAB), elements=st.floats(-30, 30, width=32))
TEMPERATURES = st.floats(0.05, 5)


def params(**values) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 1, "temperature": 1.0} | values)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def sample(logits: np.ndarray, position: int = 0, seen: tuple[int, ...] = (), **values) -> int:
    sampler = Sampler(params(**values), len(logits))
    sampler.see(list(seen))
    return sampler.sample(logits, position)


@given(LOGITS, TEMPERATURES, st.integers(0, VOCAB), st.floats(0.01, 1), st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_the_best_always_stays_and_what_is_drawn_is_among_what_stays(logits, temperature, top_k, top_p, min_p, seed):
    values = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    ids, weights = candidates(logits, params(**values))
    assert logits.max() in logits[ids]
    assert (np.diff(ids) > 0).all()
    assert weights.max() == 1
    assert sample(logits, seed=seed, **values) in ids


@given(LOGITS, TEMPERATURES)
def test_without_limits_the_weights_are_the_softmax(logits, temperature):
    ids, weights = candidates(logits, params(temperature=temperature))
    assert len(ids) == len(logits)
    np.testing.assert_allclose(weights / weights.sum(), softmax(logits / np.float32(temperature)), rtol=2e-4, atol=1e-7)


@given(LOGITS, st.integers(1, VOCAB))
def test_top_k_keeps_k_and_ties_with_the_last(logits, top_k):
    ids, _ = candidates(logits, params(top_k=top_k))
    edge = np.sort(logits)[::-1][: min(top_k, len(logits))][-1]
    assert set(ids) == set(np.flatnonzero(logits >= edge))


@given(LOGITS, TEMPERATURES, st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_that_reach_p(logits, temperature, top_p):
    probabilities = softmax(logits / np.float32(temperature))
    ids, _ = candidates(logits, params(temperature=temperature, top_p=top_p))
    kept = probabilities[ids]
    assert kept.sum() >= top_p - 1e-5
    # Without the least probable (and all that are tied with it) the rest does not reach p.
    assert kept[kept > kept.min() * (1 + 1e-4)].sum() < top_p + 1e-5
    assert len(ids) == len(logits) or kept.min() >= np.delete(probabilities, ids).max() * (1 - 1e-5)


@given(LOGITS, TEMPERATURES, st.floats(0.01, 1))
def test_min_p_keeps_what_is_near_the_best(logits, temperature, min_p):
    relative = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    assume((abs(relative - min_p) > 1e-4).all())
    ids, _ = candidates(logits, params(temperature=temperature, min_p=min_p))
    assert set(ids) == set(np.flatnonzero(relative > min_p))


@given(LOGITS)
def test_temperature_0_and_top_k_1_take_the_best(logits):
    assert sample(logits, temperature=0) == logits.argmax()
    assert logits[sample(logits, top_k=1)] == logits.max()


@given(LOGITS, st.sets(st.integers(0, VOCAB - 1)), st.floats(1.01, 5))
def test_a_repetition_penalty_only_lowers_what_was_seen(logits, seen, penalty):
    seen = tuple(token for token in seen if token < len(logits))
    before = logits.copy()
    token = sample(logits, seen=seen, temperature=0, repetition_penalty=penalty)
    assert (logits == before).all()
    lowered = logits.astype(np.float64)
    for said in seen:
        lowered[said] = lowered[said] / penalty if lowered[said] > 0 else lowered[said] * penalty
    assert lowered[token] == pytest.approx(lowered.max(), rel=1e-6)


def test_a_drawn_token_counts_as_seen():
    sampler = Sampler(params(temperature=0, repetition_penalty=10), 3)
    logits = np.array([3, 2, 1], np.float32)
    assert [sampler.sample(logits, position) for position in range(3)] == [0, 1, 2]


@given(LOGITS, st.integers(0, 2**64 - 1), st.integers(0, 2**20))
def test_a_draw_depends_on_seed_and_position_alone(logits, seed, position):
    alone = sample(logits, position, seed=seed)
    sampler = Sampler(params(seed=seed), len(logits))
    for earlier in (7, 3):
        sampler.sample(logits, earlier)
    assert sampler.sample(logits, position) == alone


def test_draws_follow_the_probabilities():
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125, 1e-9], np.float32))
    counts = {"position": np.zeros(5), "seed": np.zeros(5)}
    draws = 4000
    for number in range(draws):
        counts["position"][sample(logits, position=number)] += 1
        counts["seed"][sample(logits, seed=number)] += 1
    for count in counts.values():
        # Four standard deviations of a share of a half; the draws are seeded, so this holds for good.
        np.testing.assert_allclose(count / draws, softmax(logits), atol=4 * math.sqrt(0.25 / draws))


def test_the_smallest_temperature_does_not_overflow():
    assert sample(np.array([1e4, -1e4, 9999], np.float32), temperature=1e-3) == 0


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("values", [{"temperature": 0}, {}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_what_is_no_number_is_no_token(number, values):
    """A model whose weights are broken, or are too large for float16."""
    logits = np.array([1, 2, number, 0.5], np.float32)
    with pytest.raises(LogitsError, match="the token at position 7"):
        sample(logits, 7, **values)
    assert Sampler(params(**values), 4).sample(logits, 7, allowed=np.array([0, 1])) in (0, 1)


def test_tokens_out_of_the_question_may_be_infinitely_so():
    logits = np.array([1, -math.inf, 2], np.float32)
    assert sample(logits, temperature=0) == 2
    assert sample(logits) in (0, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 1e-46),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", 1e39),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("repetition_penalty", 1e-40),
        ("repetition_penalty", 1e38),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_a_value_out_of_its_range_is_named(name, value):
    with pytest.raises(SamplingError, match=f"{name} = "):
        params(**{name: value})
