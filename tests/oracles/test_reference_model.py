"""Training the reference model: a pack is its questions one by one, a resumed run is an uninterrupted one, and
what is saved is a MistralForCausalLM."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.quantize import dequantize, quantize
from edge_assistant_export.reference import forward
from edge_assistant_export.reference_model.packing import mask, pack, random_branches

torch = pytest.importorskip("torch", reason="runs in the environment of transformers: make test-oracles")
transformers = pytest.importorskip("transformers", reason="runs in an environment of its own: make test-oracles")

from edge_assistant_export.reference_model.mixture import Mixture, upcycled  # noqa: E402
from edge_assistant_export.reference_model.model import Mistral, Shape  # noqa: E402
from edge_assistant_export.reference_model.muon import orthogonal  # noqa: E402
from edge_assistant_export.reference_model.saving import load_checkpoint, load_state, save_checkpoint  # noqa: E402
from edge_assistant_export.reference_model.train import Recipe, Run, int4_weights, train  # noqa: E402

TOKENIZER = Path(__file__).parents[2] / "models/home-mini/checkpoint/tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(TOKENIZER)


@pytest.fixture(scope="module")
def model() -> Mistral:
    torch.manual_seed(0)
    return Mistral(Shape()).eval()


@pytest.fixture
def one_thread():
    """With more, sums are taken in an order that changes from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
def test_a_pack_is_its_questions_asked_alone(tokenizer, model):
    prefix, branches, _ = random_branches(tokenizer, Random(2), 512)
    laid = pack(Random(0), prefix, branches, 512)
    everywhere = torch.arange(512)[None]
    ids, positions = torch.from_numpy(laid.ids)[None], torch.from_numpy(laid.positions)[None]
    together = model(ids, positions, torch.from_numpy(mask(laid.segments))[None], everywhere)[0]
    at = len(prefix)
    for one in branches:
        alone = torch.tensor([prefix + one.ids])
        length = alone.shape[1]
        causal = torch.ones(1, length, length, dtype=torch.bool).tril()
        logits = model(alone, torch.arange(length)[None], causal, torch.arange(length)[None])[0]
        torch.testing.assert_close(together[at : at + len(one.ids)], logits[len(prefix) :], atol=2e-4, rtol=0)
        at += len(one.ids)


def test_a_saved_checkpoint_is_what_was_trained(tmp_path, model, tokenizer):
    save_checkpoint(model, TOKENIZER.read_bytes(), tmp_path)
    ids = np.random.default_rng(1).integers(20, 3000, 40).tolist()
    theirs = transformers.MistralForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    read = load_checkpoint(tmp_path)
    causal = torch.ones(1, 40, 40, dtype=torch.bool).tril()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0]
        ours = read(torch.tensor([ids]), torch.arange(40)[None], causal, torch.arange(40)[None])[0]
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)
    with Checkpoint.open(tmp_path) as checkpoint:
        assert checkpoint.instruct == "v7-tekken"
        assert checkpoint.licence == "apache-2.0"
        assert checkpoint.assistant.tools == "learnt"
        np.testing.assert_allclose(forward(checkpoint, ids), expected.numpy(), atol=2e-4)


@pytest.mark.parametrize("n_experts", [2, 4])
def test_a_dense_model_made_into_a_mixture_is_itself_at_first(model, n_experts):
    mixture = upcycled(model, n_experts, 2).eval()
    ids, causal = torch.arange(40)[None] + 100, torch.ones(1, 40, 40, dtype=torch.bool).tril()
    with torch.no_grad():
        dense, sparse = (each(ids, torch.arange(40)[None], causal, torch.arange(40)[None]) for each in (model, mixture))
    torch.testing.assert_close(sparse, dense, atol=1e-4, rtol=0)
    assert len(mixture.mixtures) == Shape().num_hidden_layers


def test_experts_that_do_not_come_out_even_are_refused(model):
    with pytest.raises(ValueError, match="3 experts of 768 / 2 cannot be made"):
        upcycled(model, 3, 2)


def test_the_experts_of_a_mixture_grow_apart_and_its_checkpoint_is_a_mixtral(tmp_path, model, tokenizer):
    run = Run(Recipe(tokens_per_step=1024), tokenizer, tmp_path / "run", model=upcycled(model, 4, 2))
    losses = []
    for _ in range(4):
        run.step = 0
        losses.append(run.take_step(0.5)[1])
    assert losses == sorted(losses, reverse=True)
    experts = run.model.mixtures[0].experts
    assert not torch.equal(experts[0].w1.weight, experts[2].w1.weight)
    run.save()
    save_checkpoint(load_state(tmp_path / "run/state.pt"), TOKENIZER.read_bytes(), tmp_path / "mixture/checkpoint")
    ids = np.random.default_rng(1).integers(20, 3000, 40).tolist()
    theirs = transformers.MixtralForCausalLM.from_pretrained(tmp_path / "mixture/checkpoint", dtype=torch.float32)
    read, causal = load_checkpoint(tmp_path / "mixture/checkpoint"), torch.ones(1, 40, 40, dtype=torch.bool).tril()
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor([ids])).logits[0]
        ours = read(torch.tensor([ids]), torch.arange(40)[None], causal, torch.arange(40)[None])[0]
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)
    with Checkpoint.open(tmp_path / "mixture/checkpoint") as checkpoint:
        np.testing.assert_allclose(forward(checkpoint, ids), expected.numpy(), atol=2e-4)


@pytest.mark.parametrize("often", [[0, 1], [0, 0]])
def test_choosing_all_experts_alike_costs_least(often):
    shape = Shape(hidden_size=4, intermediate_size=8, num_local_experts=2, num_experts_per_tok=1)
    mixture = Mixture(shape)
    x = torch.eye(4)[None, often]
    with torch.no_grad():
        mixture.gate.weight.copy_(torch.eye(4)[:2] * 10)
        mixture(x)
    assert float(mixture.imbalance) == pytest.approx(1.0 if often == [0, 1] else 2.0, abs=1e-3)


def test_a_resumed_run_is_an_uninterrupted_one(tmp_path, tokenizer, one_thread):
    recipe = Recipe(tokens_per_step=1024, probe_steps=10**9)
    whole = Run(recipe, tokenizer, tmp_path / "whole")
    train(whole, until_tokens=4 * 1024)
    train(Run(recipe, tokenizer, tmp_path / "parts"), until_tokens=2 * 1024)
    second = Run(recipe, tokenizer, tmp_path / "parts")
    second.load(tmp_path / "parts/state.pt")
    train(second, until_tokens=4 * 1024)
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], weight, atol=1e-6, rtol=0)


def test_a_decay_ends_where_it_says(tmp_path, tokenizer):
    run = Run(Recipe(tokens_per_step=1024, probe_steps=10**9), tokenizer, tmp_path)
    train(run, until_tokens=1024)
    train(run, decay_tokens=2048)
    assert (run.decay_started, run.tokens) == (1024, 3072)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_step_lowers_the_loss_of_its_batch(tmp_path, tokenizer, bfloat16):
    run = Run(Recipe(tokens_per_step=1024), tokenizer, tmp_path, bfloat16=bfloat16)
    losses = []
    for _ in range(4):
        run.step = 0
        losses.append(run.take_step(0.5)[1])
    assert losses == sorted(losses, reverse=True)


def test_a_run_starts_from_the_weights_of_a_checkpoint(tmp_path, model, tokenizer):
    save_checkpoint(model, TOKENIZER.read_bytes(), tmp_path / "checkpoint")
    run = Run(Recipe(seed=5), tokenizer, tmp_path / "run", model=load_checkpoint(tmp_path / "checkpoint"))
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], weight, atol=0, rtol=2**-8)
    assert (run.step, run.tokens) == (0, 0)


def test_int4_training_computes_with_what_the_bundle_will_hold(tmp_path, tokenizer):
    run = Run(Recipe(tokens_per_step=1024), tokenizer, tmp_path, int4=True)
    weight = run.model.model.layers[0].mlp.up_proj.weight
    own = weight.detach().clone()
    with int4_weights(run.model):
        held = dequantize(quantize(own.numpy(), 4, 32), 4, own.shape[1])
        np.testing.assert_array_equal(weight.detach().numpy(), held)
    assert torch.equal(weight, own)
    run.take_step(0.5)
    assert not torch.equal(weight, own)


def test_muon_takes_steps_that_are_nearly_orthogonal():
    step = orthogonal(torch.randn(3, 64, 96))
    singular = torch.linalg.svdvals(step)
    assert singular.min() > 0.4
    assert singular.max() < 1.4
