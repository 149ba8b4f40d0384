"""Rotary positions: plain ones turn by their place, and YaRN's are plain, slowed down, or between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.bundle import Yarn, frequencies
from edge_assistant_export.rotary import attention_factor, rotary_tables
from edge_assistant_export.synth import SHAPES

PLAIN = replace(SHAPES["tiny"], head_dim=64, max_positions=300)


def stretched(factor=8.0, original=128, fast=4.0, slow=1.0, attention=1.0):
    return replace(PLAIN, yarn=Yarn(factor, original, fast, slow, attention))


def test_tables_are_cos_and_sin_of_the_place():
    cos, sin = rotary_tables(PLAIN)
    assert cos.shape == sin.shape == (300, 32)
    np.testing.assert_allclose(np.arctan2(sin[1], cos[1]), 10000.0 ** (-np.arange(32) / 32), rtol=1e-6)
    np.testing.assert_allclose(cos[6] + 1j * sin[6], (cos[2] + 1j * sin[2]) * (cos[4] + 1j * sin[4]), atol=1e-6)


@given(factor=st.floats(1, 64), original=st.integers(64, 4096))
def test_pairs_that_turn_often_stay_and_those_that_turn_seldom_slow_down(factor, original):
    plain, slowed = frequencies(PLAIN), frequencies(stretched(factor, original))
    turns = plain * original / (2 * np.pi)
    # The bounds of the blend are whole pairs: the next pair beyond each of them is surely outside.
    step = plain[0] / plain[1]
    np.testing.assert_array_equal(slowed[turns > 4 * step], plain[turns > 4 * step])
    np.testing.assert_allclose(slowed[turns < 1 / step], plain[turns < 1 / step] / factor)
    assert (slowed <= plain * (1 + 1e-12)).all()
    assert (slowed >= plain / factor * (1 - 1e-12)).all()


def test_a_factor_of_one_changes_nothing():
    np.testing.assert_allclose(frequencies(stretched(1.0)), frequencies(PLAIN))


def test_the_attention_factor_lengthens_what_is_rotated():
    plain, longer = (rotary_tables(stretched(attention=factor)) for factor in (1.0, 1.25))
    for one, other in zip(plain, longer, strict=True):
        np.testing.assert_allclose(other, one * 1.25, rtol=1e-6)
    assert attention_factor(stretched(attention=1.25)) == 1.25
    assert attention_factor(PLAIN) == 1.0
