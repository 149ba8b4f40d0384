"""What is chosen for a board fits it, follows from the rules, and a refusal names what would fit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from edge_assistant.bundle import Architecture
from edge_assistant.device.boards import Target, target, targets
from edge_assistant.errors import BoardTooSmallError, RecipeError
from edge_assistant_export.estimate import estimate_of
from edge_assistant_export.explain import explain
from edge_assistant_export.recipe import LONGEST_DEFAULT
from edge_assistant_export.synth import SHAPES
from edge_assistant_export.target import COMFORTABLE, READING, SHORTEST, check, choose

MISTRAL_7B, ONE_B, SMALL = SHAPES["mistral-7b"], SHAPES["1b"], SHAPES["mistral-small"]

architectures = st.builds(
    lambda layers, heads, ffn, vocab, positions, tied, window, full: replace(
        MISTRAL_7B,
        n_layers=layers,
        hidden_size=heads * 128,
        n_heads=heads,
        n_kv_heads=heads // 4,
        ffn_size=ffn * 256,
        vocab_size=vocab,
        max_positions=positions,
        tied_embedding=tied,
        sliding_window=window,
        full_attention_layers=tuple(range(0, layers, 4)) if full else (),
    ),
    st.integers(1, 60),
    st.sampled_from([4, 8, 16, 32, 40]),
    st.integers(1, 130),
    st.sampled_from([512, 32_768, 131_072]),
    st.sampled_from([100, 1500, 4096, 32_768, 131_072]),
    st.booleans(),
    st.sampled_from([None, 64, 4096]),
    st.booleans(),
)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "bits": st.sampled_from([4, 8]),
        "block_size": st.sampled_from([32, 64, 128]),
        "eight_bits": st.just(("embedding", "layers.0.down")),
        "accuracy_level": st.sampled_from([0, 4]),
        "cache": st.sampled_from(["float", "int8"]),
        "window_cache": st.sampled_from(["bounded", "full"]),
        "sequence_length": st.integers(1, 100),
    },
).filter(lambda given: given.get("bits", 4) == 4 or "eight_bits" not in given)


def used(architecture: Architecture, on: Target, recipe) -> int:
    """Return the bytes a bundle of this recipe takes on the board with its whole context."""
    quantization = recipe.quantization(architecture)
    if not on.board.has_dot_products:
        quantization = replace(quantization, accuracy_level=0)
    needs = estimate_of(architecture, quantization, recipe.cache_spec(architecture))
    return needs.memory_with(recipe.positions(architecture))


@drawn(architectures, st.sampled_from(targets()), wishes)
def test_a_choice_fits_the_board_and_keeps_what_was_given(architecture, on, given):
    try:
        choice = choose(architecture, on, given)
    except BoardTooSmallError:
        level = 4 if on.board.has_dot_products else 0
        least = {"bits": 4, "block_size": 128, "cache": "int8", "accuracy_level": level}
        smallest = replace(check(given), **(least | given))
        tokens = given.get("sequence_length", min(architecture.max_positions, SHORTEST))
        assert used(architecture, on, replace(smallest, sequence_length=tokens)) > on.usable_bytes
        return
    recipe = choice.recipe
    assert used(architecture, on, recipe) <= on.usable_bytes
    assert {option: getattr(recipe, option) for option in given} == given
    own = min(architecture.max_positions, LONGEST_DEFAULT)
    assert "sequence_length" in given or min(own, SHORTEST) <= recipe.positions(architecture) <= own
    assert all(sentence.endswith(".") for sentence in explain(architecture, on, given, choice))


@drawn(architectures, st.sampled_from(targets()))
def test_the_context_could_not_be_a_step_longer(architecture, on):
    try:
        recipe = choose(architecture, on, {}).recipe
    except BoardTooSmallError:
        return
    longer = recipe.positions(architecture) + 256
    if longer <= min(architecture.max_positions, LONGEST_DEFAULT):
        assert used(architecture, on, replace(recipe, sequence_length=longer)) > on.usable_bytes


@drawn(architectures, st.sampled_from(targets()))
def test_slower_or_less_exact_is_taken_only_for_a_reason(architecture, on):
    """Where eight bits or smaller blocks were passed over, they do not fit or are read too slowly."""
    try:
        choice = choose(architecture, on, {})
    except BoardTooSmallError:
        return
    exact = replace(choice.recipe, bits=8 if on.board.has_dot_products else 4, block_size=32, cache="int8")
    if (choice.recipe.bits, choice.recipe.block_size) == (exact.bits, 32):
        return
    tokens = min(architecture.max_positions, COMFORTABLE)
    needs = estimate_of(architecture, exact.quantization(architecture), exact.cache_spec(architecture))
    too_slow = on.board.copy_bandwidth / needs.read_per_token < READING
    assert too_slow or used(architecture, on, replace(exact, sequence_length=tokens)) > on.usable_bytes


# A board by its size; bits, block, cache, accuracy level; the least and the most context the arithmetic leaves.
EXPECTED = {
    "pi4-8gb": (4, 128, "float", 0, 8192, 16_384),  # no dot products: float32
    "pi5-8gb": (4, 128, "float", 4, 8192, 16_384),  # 3.9 GB left beside 4.2 of weights, 256 KiB a token
    "pi5-16gb": (4, 128, "float", 4, 32_768, 32_768),  # 8.6 GB of cache fit
    "orin-nano-8gb": (4, 128, "float", 4, 4096, 8192),  # 5.6 GB are left
    "orin-nx-16gb": (4, 128, "float", 4, 32_768, 32_768),
    "agx-orin-32gb": (4, 128, "float", 4, 32_768, 32_768),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_mistral_7b_on(name):
    *expected, least, most = EXPECTED[name]
    recipe = choose(MISTRAL_7B, target(name), {}).recipe
    assert [recipe.bits, recipe.block_size, recipe.cache, recipe.accuracy_level] == expected
    assert least <= recipe.sequence_length <= most


@pytest.mark.parametrize("name", ["zero2w", "pi3", "pi4", "pi4-4gb", "pi5", "pi5-4gb", "nano", "orin-nano"])
def test_mistral_7b_is_refused_by_a_board_that_cannot_hold_it(name):
    on = target(name)
    with pytest.raises(BoardTooSmallError, match=f"^{on.title} is too small") as raised:
        choose(MISTRAL_7B, on, {}, targets())
    named = re.findall(r"--for (\S+) ", str(raised.value))
    assert named
    for other in named:
        choose(MISTRAL_7B, target(other), {})
    if any(choice.board == on.board and choice.usable_bytes > 4.3e9 for choice in targets()):
        assert [target(other).board for other in named] == [on.board]
    millions = re.search(r"a model like it of ([\d,]+) million", str(raised.value))
    if millions and (layers := int(millions[1].replace(",", "")) // 219):  # a layer has 218.1, the head next to nothing
        choose(replace(MISTRAL_7B, n_layers=layers, vocab_size=1024), on, {})


def test_nothing_is_promised_where_no_board_is_large_enough():
    huge = replace(SMALL, hidden_size=40_960, n_heads=320)
    with pytest.raises(BoardTooSmallError) as raised:
        choose(huge, target("agx-orin-64gb"), {}, targets())
    assert "--for" not in str(raised.value)


def test_exactness_is_kept_where_it_is_fast_enough():
    assert choose(ONE_B, target("pi5-8gb"), {}).recipe.bits == 8
    assert choose(ONE_B, target("pi5-8gb"), {"accuracy_level": 0}).recipe.bits == 4  # 8 bits have no such kernel
    for level in ({}, {"accuracy_level": 4}):
        assert choose(SHAPES["tiny"], target("pi4-8gb"), level).recipe.bits == 4


def test_an_int8_cache_is_taken_where_the_context_wanted_does_not_fit_in_float():
    on = target("pi5-8gb")
    choice = choose(MISTRAL_7B, on, {"sequence_length": 32_768})
    assert (choice.recipe.cache, choice.recipe.sequence_length) == ("int8", 32_768)
    reasons = " ".join(explain(MISTRAL_7B, on, {"sequence_length": 32_768}, choice))
    assert "32,768 tokens do not fit in float32" in reasons
    assert "--calibration FILE" in reasons
    assert f"engine.kv_cache_bytes = {32_768 * 65_536}" in reasons


@pytest.mark.parametrize(
    ("name", "given", "mend"),
    [
        ("pi5-8gb", {"cache": "float", "sequence_length": 32_768}, ["--cache int8", "--sequence-length 14592"]),
        ("pi5-8gb", {"cache": "float", "sequence_length": 32_768}, ["--for raspberry-pi-5-16gb"]),
        ("orin-nano-8gb", {"bits": 8}, ["--bits 4", "--for raspberry-pi-5-8gb"]),
    ],
)
def test_a_refusal_names_the_option_that_would_have_to_change(name, given, mend):
    on = target(name)
    with pytest.raises(BoardTooSmallError) as raised:
        choose(MISTRAL_7B, on, given, targets())
    for said in mend:
        assert said in str(raised.value)
    for option, value in re.findall(r"\n  --(cache|sequence-length|bits) (\w+)", str(raised.value)):
        key = option.replace("-", "_")
        choose(MISTRAL_7B, on, given | {key: int(value) if value.isdigit() else value})


def test_a_bounded_window_leaves_room_for_the_whole_context():
    """Mistral 7B v0.1: its cache stops growing at 5,120 tokens, where one of full length takes 8.6 GB."""
    on, shape = target("pi5-8gb"), replace(MISTRAL_7B, sliding_window=4096)
    choice = choose(shape, on, {})
    assert (choice.recipe.cache, choice.recipe.sequence_length) == ("float", 32_768)
    reasons = " ".join(explain(shape, on, {}, choice))
    assert "All layers have a window of 4,096 and hold at most 5,120 tokens." in reasons
    assert "engine.kv_cache_bytes = 1342177280" in reasons
    some = replace(shape, full_attention_layers=(0, 4))
    assert "30 of the 32 layers have a window" in " ".join(explain(some, on, {}, choose(some, on, {})))


def test_a_full_window_cache_that_does_not_fit_is_named():
    on, shape = target("pi5-8gb"), replace(MISTRAL_7B, sliding_window=4096)
    given = {"window_cache": "full", "sequence_length": 32_768, "cache": "float"}
    with pytest.raises(BoardTooSmallError, match="--window-cache bounded"):
        choose(shape, on, given)
    choice = choose(shape, on, {"window_cache": "full"})
    assert choice.recipe.sequence_length < 32_768
    assert "hold the whole context, as asked" in " ".join(explain(shape, on, {"window_cache": "full"}, choice))


def test_a_calibration_text_is_kept_only_where_it_is_read(tmp_path):
    on, text = target("pi5-8gb"), tmp_path / "text"
    unread = choose(MISTRAL_7B, on, {"calibration": text})
    assert unread.recipe.calibration is None
    assert f"{text} is not read" in " ".join(explain(MISTRAL_7B, on, {"calibration": text}, unread))
    for given in ({"cache": "int8"}, {"method": "gptq"}):
        assert choose(MISTRAL_7B, on, {"calibration": text} | given).recipe.calibration == text


def test_the_processor_and_the_idle_gpu_are_named():
    def said(name, **given):
        return " ".join(explain(MISTRAL_7B, target(name), given, choose(MISTRAL_7B, target(name), given)))

    assert "Cortex-A72 has no dot products" in said("pi4-8gb")
    assert "computes in float32 all the same" in said("pi4-8gb", accuracy_level=4)
    assert "bfloat16" in said("pi5-8gb")
    assert "Ampere GPU is not used" in said("orin-nano-8gb")
    assert "at most 4.5 tokens/s" in said("pi5-8gb")
    assert "made float32 anew" in said("pi4-8gb", eight_bits=("lm_head",))


def test_wrong_values_are_refused_as_without_a_board():
    with pytest.raises(RecipeError, match="nearest that can is 4"):
        check({"bits": 5})
    with pytest.raises(RecipeError, match="sequence_length"):
        choose(MISTRAL_7B, target("pi5-8gb"), {"sequence_length": 40_000})
