"""What verify says of bundles whose distance from their checkpoint is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import Bundle
from edge_assistant.errors import VerificationError
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward, forward_all
from edge_assistant_export.verify import compare, distance, record, texts_of, verify
from edge_assistant_export.write import export

STORIES_TEXT = Path(__file__).parents[1] / "data" / "stories.txt"
TEXT = "the lamp in the hall\n\nis on, and so is the one in the kitchen"


def verification(bundle, checkpoint, **options):
    with Checkpoint.open(checkpoint) as opened:
        return verify(bundle.path, opened, **options)


def test_a_float32_bundle_is_its_checkpoint(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint()
    result = verification(export_bundle(path, bits=32), path, text=TEXT)
    assert result.tokens == len(TEXT) - len("\n\n")
    assert abs(result.kl) < 1e-6
    assert result.top1_agreement == 1
    assert result.perplexity == pytest.approx(result.reference_perplexity, rel=1e-4)


@pytest.mark.parametrize("apart", [0, 1e-5, 1e-2])
@pytest.mark.parametrize("vocab", [7, 32_768])
def test_the_distance_of_two_distributions_is_what_the_formula_says(vocab, apart):
    """To the last digits: a divergence of 1e-9 is not lost, and none is below zero, in what float32 cannot hold."""
    rng = np.random.default_rng(0)
    expected = (3 * rng.standard_normal((70, vocab))).astype(np.float32)
    found = (expected + apart * rng.standard_normal((70, vocab)) + 4).astype(np.float32)
    ids = rng.integers(vocab, size=70).tolist()
    p, q = (np.exp(one.astype(np.float64)) for one in (expected[:-1], found[:-1]))
    p, q = (one / one.sum(axis=1, keepdims=True) for one in (p, q))
    result = distance([ids], [expected], [found])
    assert result.tokens == 69
    assert result.kl == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4, abs=1e-15)
    assert result.top1_agreement == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    for found_perplexity, chances in ((result.perplexity, q), (result.reference_perplexity, p)):
        assert found_perplexity == pytest.approx(np.exp(-np.log(chances[np.arange(69), ids[1:]]).mean()))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_no_number_is_not_recorded(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * np.float32(1e18) for name, tensor in tensors.items()}, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        export(checkpoint, Recipe(bits=32), tmp_path / "out")
    with pytest.raises(VerificationError, match="computes what is no number"):
        verification(Bundle.open(tmp_path / "out"), folder, text=TEXT)


def test_fewer_bits_are_farther_off(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint()
    coarse, fine = (verification(export_bundle(path, bits=bits), path, text=TEXT) for bits in (4, 8))
    assert 0 < fine.kl < coarse.kl
    assert coarse.top1_agreement <= fine.top1_agreement <= 1


def test_perplexity_is_that_of_the_text(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint()
    bundle = export_bundle(path, bits=32)
    ids = [bundle.manifest.special_ids["<s>"], *Tokenizer(bundle.tokenizer_path).encode("aaaaaaaaaaaa")]
    with Checkpoint.open(path) as opened:
        logits = forward(opened, ids)[:-1].astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]
    result = verification(bundle, path, text="aaaaaaaaaaaa")
    assert result.reference_perplexity == pytest.approx(np.exp(losses.mean()), rel=1e-4)


def test_only_so_many_tokens_are_read(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint()
    bundle = export_bundle(path, bits=32)
    # Each of the two paragraphs begins with <s>, of which nothing is expected.
    assert verification(bundle, path, text=TEXT, tokens=31).tokens == 29
    assert verification(bundle, path, tokens=100).tokens <= 2 * 63


def test_a_paragraph_that_is_too_long_is_read_in_parts(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint()
    bundle = export_bundle(path, bits=32)
    texts = texts_of("ab" * 50, Tokenizer(bundle.tokenizer_path), 1, 32, 1000)
    assert [len(ids) for ids in texts] == [32, 32, 32, 8]
    assert {ids[0] for ids in texts} == {1}
    assert [one for ids in texts for one in ids[1:]] == Tokenizer(bundle.tokenizer_path).encode("ab" * 50)
    assert sum(map(len, texts_of("ab" * 50, Tokenizer(bundle.tokenizer_path), 1, 32, 50))) == 50


def test_another_checkpoint_is_refused(tiny_checkpoint, export_bundle):
    bundle = export_bundle(tiny_checkpoint(), bits=32)
    with pytest.raises(VerificationError, match=r"n_layers is 2, and that of .* is 3"):
        verification(bundle, tiny_checkpoint(num_hidden_layers=3), text=TEXT)


@pytest.mark.parametrize("text", ["", "\n\n \n\n"])
def test_nothing_to_read_is_refused(text, tiny_checkpoint, export_bundle):
    path = tiny_checkpoint()
    with pytest.raises(VerificationError, match="too little text"):
        verification(export_bundle(path, bits=32), path, text=text)


def test_what_was_measured_is_kept_with_the_bundle(tiny_checkpoint, tmp_path):
    path = tiny_checkpoint()
    with Checkpoint.open(path) as opened:
        export(opened, Recipe(), tmp_path / "bundle")
        result = verify(tmp_path / "bundle", opened, TEXT)
    record(tmp_path / "bundle", result)
    assert Bundle.open(tmp_path / "bundle").manifest.quality == dataclasses.asdict(result)


@pytest.fixture(scope="module")
def lost_on_stories(stories, export_bundle):
    """A function: the part of its perplexity that a trained model loses on its own stories, stored by a recipe."""

    with Checkpoint.open(stories) as opened:
        tokenizer = Tokenizer(stories / "tokenizer.json")
        paragraphs = STORIES_TEXT.read_text(encoding="utf-8").split("\n\n")
        texts = [[1, *tokenizer.encode(paragraph.strip())][:512] for paragraph in paragraphs]
        expected = list(forward_all(opened, texts))

    def lost(**recipe):
        result = compare(export_bundle(stories, **recipe), texts, expected)
        return result.perplexity / result.reference_perplexity - 1

    return lost


@pytest.mark.parametrize(
    ("recipe", "at_most"),
    [
        ({"bits": 32}, 1e-5),
        ({"bits": 32, "cache": "int8"}, 0.01),
        ({"bits": 8}, 0.01),
        ({"bits": 4, "eight_bits": ("embedding",)}, 0.11),
        ({"bits": 4}, 0.13),
        ({"bits": 4, "method": "awq"}, 0.13),
        ({"bits": 4, "method": "gptq"}, 0.08),
        ({"bits": 4, "method": "gptq", "zero_points": True}, 0.06),
    ],
    ids=[
        "float32",
        "int8 cache",
        "int8",
        "int4 with an int8 head",
        "int4",
        "int4 by AWQ",
        "int4 by GPTQ",
        "int4 by GPTQ, zero points",
    ],
)
def test_a_trained_model_keeps_its_perplexity(recipe, at_most, lost_on_stories):
    assert abs(lost_on_stories(**recipe)) < at_most


def test_least_squares_loses_less_than_the_maximum(lost_on_stories):
    assert lost_on_stories(bits=4) < 0.9 * lost_on_stories(bits=4, method="maximum")
