"""Guesses: found where the text's end stood before, and made only where they pay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.engine.speculate import Guess, Pace, look_up


@given(st.lists(st.integers(0, 5), max_size=60))
def test_a_guess_is_what_followed_the_longest_end_that_stood_before(ids):
    expected = Guess()
    for length in (3, 2, 1):
        ends = [end for end in range(length, len(ids)) if ids[end - length : end] == ids[-length:]]
        if ends:
            expected = Guess(tuple(ids[ends[-1] : ends[-1] + 8]), length)
            break
    assert look_up(np.array(ids, np.int64), 8) == expected


def test_a_text_that_says_nothing_twice_is_not_guessed():
    assert look_up(np.arange(20), 8) == Guess()
    assert look_up(np.arange(0), 8) == Guess()


@pytest.fixture
def guess():
    return Guess((1, 2, 3, 4, 5, 6, 7, 8), matched=3)


def test_what_always_comes_true_is_guessed_as_far_as_it_goes(guess):
    pace = Pace()
    for _ in range(100):
        pace.came(guess, [1])
        pace.ran(1, 0.1)
        pace.ran(5, 0.2)
    assert pace.worth(guess) == 8
    assert pace.worth(Guess((1, 2), 3)) == 2


def test_what_never_comes_true_is_not_guessed_until_it_would_have(guess):
    pace = Pace()
    for _ in range(100):
        pace.came(guess, [9])
    assert pace.worth(guess) == 0
    for _ in range(100):
        pace.came(guess, [1])
    assert pace.worth(guess) > 0


def test_where_rows_cost_as_much_as_steps_nothing_is_guessed(guess):
    pace = Pace()
    for _ in range(100):
        pace.ran(1, 0.1)
        pace.ran(4, 0.41)
    assert pace.worth(guess) == 0


def test_what_a_row_was_measured_to_cost_holds_until_it_is_measured_again(guess):
    assert Pace(row_cost=1.0).worth(guess) == 0
    assert Pace(row_cost=0.0).worth(guess) == 8
    assert 0 < Pace(row_cost=0.3).worth(guess) < 8
    pace = Pace(row_cost=1.0)
    for _ in range(100):
        pace.ran(1, 0.1)
        pace.ran(5, 0.1)
    assert pace.worth(guess) == 8


def test_a_long_match_is_trusted_apart_from_a_short_one(guess):
    pace, short = Pace(), Guess((1, 2), matched=1)
    for _ in range(100):
        pace.came(guess, [1])
        pace.came(short, [7])
    assert pace.worth(guess) > 0
    assert pace.worth(short) == 0


def test_no_guess_is_worth_nothing():
    assert Pace().worth(Guess()) == 0


def test_sequences_step_together_where_that_is_measured_to_pay():
    pace = Pace()
    pace.ran(1, 0.1)
    for _ in range(100):
        pace.ran_together(4, 0.1 * (1 + 3 * 0.3))
    assert pace.together(1)
    assert pace.together(3)
    assert not pace.together(4)


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
