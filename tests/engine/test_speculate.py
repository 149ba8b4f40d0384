"""Guesses: found where the text's end stood before, held to the grammar, and made only where they pay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.engine import Constraint, Grammars
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.lookup import Guess, Part, held, look_up
from edge_assistant.engine.speculate import Pace, Speculator
from edge_assistant.text.tokenizer import Tokenizer

TOKENIZER = Path(__file__).parents[2] / "models/home-mini/checkpoint/tokenizer.json"
STOP = 2
SURE, SPLIT, ALONE = (5, 2), (2, 2), (5, 1)


def guessed(*tokens: int, grounds=SURE) -> Guess:
    return Guess(tuple(Part((token,), grounds) for token in tokens))


def places(ids: list[int]) -> list[tuple[float, list[int]]]:
    """Return for each place where the last token stood before its weight, and what followed, which -1 ends."""
    found = []
    for end in (end for end in range(1, len(ids)) if ids[end - 1] == ids[-1]):
        shared = max(length for length in range(1, min(8, end) + 1) if ids[end - length : end] == ids[-length:])
        found.append((4.0**shared, ids[end : end + 8] + [-1] * (8 - len(ids[end:]))))
    return found


@given(st.lists(st.integers(0, 5), max_size=60))
def test_a_guess_is_what_most_of_the_places_say_and_tells_how_far_they_agree(ids):
    found = places(ids)
    guess = look_up(np.array(ids, np.int64), 8)
    votes = {token: sum(weight for weight, after in found if after[0] == token) for token in ids}
    chosen = [after for _, after in found if votes[after[0]] == max(votes.values())][-1] if found else [-1]
    assert [*guess.tokens] == [token for token in chosen if token != -1]
    agreeing = found
    for at, part in enumerate(guess.parts):
        before, agreeing = agreeing, [(weight, after) for weight, after in agreeing if after[at] == chosen[at]]
        share = sum(weight for weight, _ in agreeing) / sum(weight for weight, _ in before)
        assert part.grounds == (int(5 * share), min(2, len(agreeing)))


def test_a_text_that_says_nothing_twice_is_not_guessed():
    assert look_up(np.arange(20), 8) == Guess()
    assert look_up(np.arange(0), 8) == Guess()


def test_one_place_that_shares_much_counts_more_than_many_that_share_little():
    text = np.array([1, 2, 3, 50, 9, 3, 60, 8, 3, 60, 7, 3, 60, 1, 2, 3])
    assert look_up(text, 1).tokens == (50,)


def test_nothing_is_guessed_across_the_end_of_an_answer(tiny_bundle):
    """What followed a remembered answer is another, which does not follow it again."""
    speculator, cache = Speculator(8, Pace(row_cost=0.0)), KvCache(tiny_bundle().manifest, 20)
    speculator.remember([3, 4, 5])
    speculator.remember([6, 7])
    assert speculator.guess(cache, [3], 8, None, set()).run == (4, 5)
    assert speculator.guess(cache, [5], 8, None, set()).run == ()


def test_what_ends_an_answer_is_not_guessed_nor_what_follows_it():
    assert held(guessed(4, 5, STOP, 6), None, {STOP}, 8).tokens == (4, 5)
    assert held(guessed(STOP, 4), None, {STOP}, 8) == Guess()
    assert held(guessed(4, 5, 6), None, {STOP}, 2).tokens == (4, 5)


@pytest.fixture(scope="module")
def grammars():
    return Grammars(TOKENIZER.read_bytes(), 3072, {STOP}, leading_space=False)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(TOKENIZER)


@pytest.mark.parametrize("seed", range(30))
def test_no_guess_is_what_the_grammar_refuses(grammars, tokenizer, seed):
    """Wherever an answer has come to and whatever is guessed: of what is kept any token may be drawn, or is forced."""
    rng = np.random.default_rng(seed)
    wanted = {"type": "array", "items": {"enum": ["lamp", "lantern", "lock"]}, "minItems": 3, "maxItems": 5}
    grammar = grammars.compile(Constraint.json_schema(wanted))
    match = grammar.begin()
    written = match.forced()
    said = tokenizer.encode('["lamp", "lock", "lantern", "lock", "lamp"]')
    kept = 0
    while not match.ended:
        start = int(rng.integers(len(said)))
        allowed = [*match.allowed()]
        ids = [int(rng.choice(allowed)), *said[start:]] if rng.random() < 0.7 else said[start:]
        guess = held(guessed(*ids), match, {STOP}, 8)
        assert [*match.allowed()] == allowed, "a guess moves nothing"
        assert len(guess.tokens) <= 8
        ahead = grammar.begin()
        for token in written:
            ahead.accept(token)
        for part in guess.parts:
            assert part.tokens[0] in ahead.allowed()
            ahead.accept(part.tokens[0])
            assert ahead.forced() == [*part.tokens[1:]]
            assert not ahead.ended
            kept += 1
        token = int(rng.choice([token for token in allowed if token != STOP]))
        match.accept(token)
        written += [token, *match.forced()]
    assert kept


def test_what_the_grammar_forces_is_a_part_of_the_guess_whatever_was_said_there(grammars, tokenizer):
    match = grammars.compile(Constraint.regex("(a|b)!!!(c|d)")).begin()
    a, mark, c = tokenizer.encode("a!c")
    guess = held(guessed(a, c), match, {STOP}, 8)
    assert tokenizer.decode(guess.tokens) == "a!!!"
    assert [part.tokens[0] for part in guess.parts] == [a]
    assert held(guessed(c, a), match, {STOP}, 8) == Guess()
    assert held(guessed(a, mark), match, {STOP}, len(guess.tokens) - 1) == Guess()


@pytest.fixture
def guess():
    return guessed(1, 2, 3, 4, 5, 6, 7, 8)


def test_what_always_comes_true_is_guessed_as_far_as_it_goes(guess):
    pace = Pace()
    for _ in range(100):
        pace.came(guess, [1])
        pace.ran(1, 0.1)
        pace.ran(5, 0.2)
    assert pace.worth(guess) == 8
    assert pace.worth(guessed(1, 2)) == 2


def test_what_never_comes_true_is_not_guessed_until_it_would_have(guess):
    pace = Pace()
    for _ in range(100):
        pace.came(guess, [9])
    assert pace.worth(guess) == 0
    for _ in range(100):
        pace.came(guess, [1])
    assert pace.worth(guess) > 0


def test_each_token_that_was_drawn_is_learnt_from_up_to_the_first_that_is_wrong():
    pace = Pace()
    guess = Guess((Part((1,), SURE), Part((2, 3), ALONE), Part((4,), SPLIT), Part((5,), (0, 1))))
    for _ in range(100):
        pace.came(guess, [1, 2, 3, 9, 5])
    assert pace.worth(guessed(1, grounds=SURE)) == pace.worth(guessed(1, grounds=ALONE)) == 1
    assert pace.worth(guessed(1, grounds=SPLIT)) == 0
    assert pace.worth(guessed(1, grounds=(0, 1))) == Pace().worth(guessed(1))


def test_where_rows_cost_as_much_as_steps_nothing_is_guessed(guess):
    pace = Pace()
    for _ in range(100):
        pace.ran(1, 0.1)
        pace.ran(4, 0.41)
    assert pace.worth(guess) == 0


def test_what_a_row_was_measured_to_cost_holds_until_it_is_measured_again(guess):
    assert Pace(row_cost=1.0).worth(guess) == 0
    assert Pace(row_cost=0.0).worth(guess) == 8
    assert 0 < Pace(row_cost=0.2).worth(guess) < 8
    pace = Pace(row_cost=1.0)
    for _ in range(100):
        pace.ran(1, 0.1)
        pace.ran(5, 0.1)
    assert pace.worth(guess) == 8


def test_rows_that_were_measured_to_cost_too_much_are_tried_again_later(guess):
    pace = Pace()
    pace.ran(1, 0.1)
    for _ in range(100):
        pace.came(guess, [1])
        pace.ran(5, 0.6)
    declined = 0
    while not pace.worth(guess):
        declined += 1
        assert declined < 10_000
    assert declined > 100


def test_one_slow_run_does_not_end_guesses(guess):
    pace = Pace(row_cost=0.2)
    pace.ran(1, 0.1)
    for _ in range(100):
        pace.came(guess, [1])
    pace.ran(2, 100.0)
    assert pace.worth(guess) == 8


def test_a_part_is_run_whole_or_not_at_all():
    whole = Guess((Part((1, 2, 3, 4), SURE), Part((5, 6, 7, 8), SPLIT)))
    for row_cost in np.linspace(0, 1, 21):
        assert Pace(row_cost).worth(whole) in (0, 4, 8)


def test_where_places_agree_is_trusted_apart_from_where_they_do_not(guess):
    pace, split = Pace(), guessed(1, 2, grounds=SPLIT)
    for _ in range(100):
        pace.came(guess, [1])
        pace.came(split, [7])
    assert pace.worth(guess) > 0
    assert pace.worth(split) == 0


def test_no_guess_is_worth_nothing():
    assert Pace().worth(Guess()) == 0


def test_looking_that_takes_longer_than_it_saves_is_given_up_and_tried_again_later(guess):
    pace = Pace(row_cost=0.2)
    pace.ran(1, 0.001)
    while pace.look():
        pace.looked(guessed(), 0.0001)
    declined = 0
    while not pace.look():
        declined += 1
        assert declined < 10_000
    for _ in range(1000):
        pace.came(guess, [1])
        pace.looked(guess, 0.0001)
        assert pace.look()


def test_sequences_step_together_where_that_is_measured_to_pay():
    pace = Pace()
    pace.ran(1, 0.1)
    for _ in range(100):
        pace.ran_together(4, 0.1 * (1 + 3 * 0.3))
    assert pace.together(1)
    assert pace.together(3)
    assert not pace.together(4)


@pytest.fixture
def batches():
    """Return a function that makes a pace by what a sequence more costs in a batch; all guesses have come true."""

    def of(sequence, row_cost=0.15):
        pace = Pace(row_cost)
        pace.ran(1, 0.1)
        for _ in range(300):
            pace.ran_together(2, 0.1 * (1 + sequence))
            pace.came(guessed(1), [1])
        return pace

    return of


def test_a_guess_is_run_alone_only_where_it_saves_more_than_a_step_together(batches, guess):
    pace = batches(0.15)
    assert pace.worth(guessed(1)) == 1
    assert pace.worth(guessed(1), 1) == pace.worth(guessed(1), 3) == 0
    assert pace.worth(guess) == pace.worth(guess, 1) == pace.worth(guess, 3) == 8


@pytest.mark.parametrize("others", [1, 3, 7])
@pytest.mark.parametrize("sequence", [0.1, 0.4, 0.8])
def test_what_is_run_alone_gives_more_tokens_in_the_time_than_all_together(batches, sequence, others):
    """With as many callers as there are, all of whom have the same to guess."""
    pace = batches(sequence)
    together = (1 + others) / (1 + sequence * others)
    for count in range(1, 9):
        if run := pace.worth(guessed(*range(1, count + 1)), others):
            assert (1 + run) / (1 + run * pace.row_cost) > together


def test_where_sequences_had_better_step_alone_guesses_are_held_against_that(batches, guess):
    pace = batches(1.5)
    for count in range(1, 9):
        assert pace.worth(guessed(*range(1, count + 1)), 3) == pace.worth(guessed(*range(1, count + 1)))


def test_a_draft_does_not_write_what_a_step_together_does_for_less(batches):
    pace = batches(0.15)
    pace.draft_cost = 0.1
    assert pace.to_draft(2, Guess()) == 2
    assert pace.to_draft(2, Guess(), 3) == 0


def test_what_was_measured_not_to_pay_is_tried_again_later():
    pace = Pace()
    pace.ran(1, 0.1)
    for _ in range(100):
        pace.ran_together(2, 0.25)
    declined = 0
    while not pace.together(1):
        declined += 1
        assert declined < 10_000
    assert declined > 100


def test_one_slow_batch_does_not_end_batches():
    pace = Pace()
    pace.ran(1, 0.1)
    pace.ran_together(2, 100.0)
    assert pace.together(1)
