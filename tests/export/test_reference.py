"""The numpy model: the same however the text is cut, and equal to a slow one written by other rules."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.reference import (
    Observer,
    Past,
    attention,
    forward,
    forward_all,
    hidden_states,
    logits,
    rotate,
)

SHAPES = [
    {},
    {"head_dim": 32},
    {"tie_word_embeddings": True},
    {"sliding_window": 5},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1},
    {"num_local_experts": 4, "num_experts_per_tok": 2},
    {"num_local_experts": 3, "num_experts_per_tok": 1},
]
IDS = np.random.default_rng(3).integers(0, 270, 24).tolist()
# float32 against float64: sums of 96 products in each of two layers.
TOLERANCE = 1e-4


def slow_forward(path, ids) -> np.ndarray:
    """Return the logits by Mistral's own layout, position by position in float64, rotations as complex numbers."""
    params = json.loads((path / "params.json").read_text())
    weights = {name: tensor.astype(np.float64) for name, tensor in load_file(path / "consolidated.safetensors").items()}
    head_dim, n_kv_heads = params["head_dim"], params["n_kv_heads"]
    repeats = params["n_heads"] // n_kv_heads
    window = params["sliding_window"] or len(ids)

    def norm(x, name):
        return x / np.sqrt(np.mean(x**2) + params["norm_eps"]) * weights[name]

    def turned(x, position):
        pairs = x.reshape(-1, head_dim // 2, 2)
        numbers = pairs[..., 0] + 1j * pairs[..., 1]
        frequencies = params["rope_theta"] ** (-2 * np.arange(head_dim // 2) / head_dim)
        return numbers * np.exp(1j * position * frequencies)

    def feed_forward(x, at):
        gate, up = (weights[f"{at}.{name}.weight"] @ x for name in ("w1", "w3"))
        return weights[f"{at}.w2.weight"] @ (gate / (1 + np.exp(-gate)) * up)

    def mixture(x, at):
        # As in Mixtral's paper: the softmax of all logits, those not among the largest left out, and made to sum to 1.
        shares = np.exp(weights[f"{at}.gate.weight"] @ x)
        shares[np.argsort(shares)[: -params["moe"]["num_experts_per_tok"]]] = 0
        return sum(
            share / shares.sum() * feed_forward(x, f"{at}.experts.{expert}") for expert, share in enumerate(shares)
        )

    hidden = [weights["tok_embeddings.weight"][token] for token in ids]
    for i in range(params["n_layers"]):
        at = f"layers.{i}"
        keys, values = [], []
        for position, h in enumerate(hidden):
            x = norm(h, f"{at}.attention_norm.weight")
            query = turned(weights[f"{at}.attention.wq.weight"] @ x, position)
            keys.append(turned(weights[f"{at}.attention.wk.weight"] @ x, position))
            values.append((weights[f"{at}.attention.wv.weight"] @ x).reshape(n_kv_heads, head_dim))
            heads = []
            for head, q in enumerate(query):
                seen = range(max(0, position - window + 1), position + 1)
                scores = np.array([np.real(np.vdot(keys[j][head // repeats], q)) for j in seen]) / head_dim**0.5
                shares = np.exp(scores) / np.exp(scores).sum()
                heads.append(sum(share * values[j][head // repeats] for share, j in zip(shares, seen, strict=True)))
            attended = h + weights[f"{at}.attention.wo.weight"] @ np.concatenate(heads)
            x = norm(attended, f"{at}.ffn_norm.weight")
            layer = mixture if "moe" in params else feed_forward
            hidden[position] = attended + layer(x, f"{at}.feed_forward")
    head = weights["tok_embeddings.weight" if params["tied_embeddings"] else "output.weight"]
    return np.stack([head @ norm(h, "norm.weight") for h in hidden])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_slow_model(tiny_checkpoint, mistral_layout, tmp_path, shape):
    path = tiny_checkpoint(**shape)
    expected = slow_forward(mistral_layout(path, tmp_path / "mistral"), IDS)
    with Checkpoint.open(path) as checkpoint:
        found = forward(checkpoint, IDS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_the_trained_model_writes_its_story(stories):
    with Checkpoint.open(stories) as checkpoint:
        ids, new, past = [1], [1], Past(checkpoint.config)
        for _ in range(60):
            new = [int(logits(checkpoint, hidden_states(checkpoint, [new], [past])[0])[-1].argmax())]
            ids += new
        text = Tokenizer.from_buffer(checkpoint.tokenizer_json()).decode(ids)
        assert forward(checkpoint, ids).argmax(axis=-1)[:-1].tolist() == ids[1:]
    assert text.startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
        "One day, she saw a big, red ball."
    )


@pytest.mark.parametrize("shape", [{}, {"sliding_window": 5}], ids=str)
@given(data=st.data())
@settings(max_examples=15)
def test_a_text_cut_in_pieces_is_the_whole(tiny_checkpoint, shape, data):
    cuts = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=8))
    ids = IDS[: sum(cuts)]
    with Checkpoint.open(tiny_checkpoint(**shape)) as checkpoint:
        past = Past(checkpoint.config)
        pieces = []
        for size in cuts:
            if len(past) < len(ids):
                piece = ids[len(past) : len(past) + size]
                pieces += hidden_states(checkpoint, [piece], [past])
        assert len(past) == len(ids)
        np.testing.assert_allclose(np.concatenate(pieces), hidden_states(checkpoint, [ids])[0], atol=TOLERANCE)


@given(lengths=st.lists(st.integers(1, 24), min_size=1, max_size=5))
@settings(max_examples=15)
def test_texts_read_together_are_each_alone(tiny_checkpoint, lengths):
    texts = [IDS[-length:] for length in lengths]
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        for text, found in zip(texts, forward_all(checkpoint, texts), strict=True):
            np.testing.assert_allclose(found, forward(checkpoint, text), atol=TOLERANCE)


def test_layers_are_read_once_whatever_the_number_of_texts(tiny_checkpoint, monkeypatch):
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        read: Counter[str] = Counter()
        tensor = checkpoint.tensor
        monkeypatch.setattr(checkpoint, "tensor", lambda name, rows=None: (read.update([name]), tensor(name, rows))[1])
        hidden_states(checkpoint, [IDS, IDS[:3], IDS[5:]])
    assert read.pop("embedding") == len(set(IDS)), "no row but those of the text"
    assert set(read.values()) == {1}


def test_an_observer_is_shown_to_each_expert_who_chose_it(tiny_checkpoint):
    class Routes(Observer):
        def __init__(self):
            self.chosen, self.shown = {}, {}

        def routes(self, layer, chosen):
            self.chosen[layer] = chosen
            return chosen

        def inputs(self, name, x, residual=None):
            if name.endswith(".gate"):
                self.shown[name] = len(x)

    seen = Routes()
    with Checkpoint.open(tiny_checkpoint(num_local_experts=4, num_experts_per_tok=2)) as checkpoint:
        hidden_states(checkpoint, [IDS, IDS[:5]], observer=seen)
    for layer, chosen in seen.chosen.items():
        assert chosen.shape == (len(IDS) + 5, 2)
        assert all(len(set(row)) == 2 for row in chosen.tolist())
        counts = Counter(chosen.flatten().tolist())
        assert {f"layers.{layer}.experts.{expert}.gate": count for expert, count in counts.items()}.items() <= (
            seen.shown.items()
        )


def test_a_position_sees_what_is_before_it_only(tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        changed = forward(checkpoint, [*IDS[:12], 7, *IDS[13:]]) != forward(checkpoint, IDS)
    assert not changed[:12].any()
    assert changed[12:].any(axis=-1).all()


def test_a_window_shuts_out_what_lies_farther_back(tiny_checkpoint):
    window, n_layers = 5, 2
    with Checkpoint.open(tiny_checkpoint(sliding_window=window)) as checkpoint:
        changed = (forward(checkpoint, [7, *IDS[1:]]) != forward(checkpoint, IDS)).any(axis=-1)
    farthest = n_layers * (window - 1)
    assert changed[: farthest + 1].all()
    assert not changed[farthest + 1 :].any()


@given(distance=st.integers(0, 50), shift=st.integers(0, 1000), seed=st.integers(0, 99))
def test_rotated_products_depend_on_the_distance_only(distance, shift, seed):
    q, k = np.random.default_rng(seed).standard_normal((2, 1, 1, 16), dtype=np.float32)
    frequencies = (10_000.0 ** (-np.arange(8) / 8)).astype(np.float32)

    def product(q_position, k_position):
        turned = [rotate(x, frequencies[np.newaxis] * at) for x, at in ((q, q_position), (k, k_position))]
        return float((turned[0] * turned[1]).sum())

    assert product(distance, 0) == pytest.approx(product(distance + shift, shift), abs=1e-2)


def test_attention_to_equal_keys_is_the_mean_of_the_values():
    q = np.random.default_rng(0).standard_normal((3, 2, 4), dtype=np.float32)
    values = np.arange(12, dtype=np.float32).reshape(3, 1, 4)
    found = attention(q, np.ones((3, 1, 4), np.float32), values, None).reshape(3, 2, 4)
    for position in range(3):
        np.testing.assert_allclose(found[position, 0], values[: position + 1, 0].mean(axis=0), rtol=1e-6)
