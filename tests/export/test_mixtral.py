"""Mixtures of experts: the exported graph against the numpy reference, and the same experts chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine
from edge_assistant.errors import RecipeError
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.quantize import dequantize, quantize
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import Observer, forward, hidden_states
from edge_assistant_export.reference_model.packing import FORMAT
from edge_assistant_export.reference_model.splits import cases
from edge_assistant_export.synth import synthesise
from edge_assistant_export.verify import verify
from edge_assistant_export.write import export

MIXTURES = {
    "2 of 4": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "1 of 3": {"num_local_experts": 3, "num_experts_per_tok": 1},
    "2 of 8, tied": {"num_local_experts": 8, "num_experts_per_tok": 2, "tie_word_embeddings": True},
    "all of 2, windowed": {"num_local_experts": 2, "num_experts_per_tok": 2, "sliding_window": 9, "head_dim": 24},
}
TRAINED = Path(__file__).parents[2] / "models/home-mini-moe/checkpoint"
IDS = [1, *np.random.default_rng(0).integers(14, 270, 39).tolist()]
# Products of some hundred float32 numbers of order one, of two experts, summed in another order.
ROUNDING = 1e-4


class Rounded:
    """A checkpoint whose matrices are what a board reads from the quantised ones."""

    def __init__(self, checkpoint: Checkpoint, bits: int, block_size: int, *, zero_points: bool = False) -> None:
        self.config, self._checkpoint = checkpoint.config, checkpoint
        self._bits, self._block_size, self._zero_points = bits, block_size, zero_points

    def tensor(self, name, rows=None):
        weight = self._checkpoint.tensor(name, rows)
        if weight.ndim == 1 or name.endswith("router"):
            return weight
        packed = quantize(weight, self._bits, self._block_size, zero_points=self._zero_points)
        return dequantize(packed, self._bits, weight.shape[1])


def logits(bundle) -> np.ndarray:
    with Engine.load(bundle, EngineSettings(threads=1)) as engine:
        return engine.score(IDS)


@pytest.mark.parametrize("shape", MIXTURES.values(), ids=MIXTURES)
def test_float32_export_is_the_reference(shape, tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(**shape)
    with Checkpoint.open(path) as checkpoint:
        expected = forward(checkpoint, IDS)
    np.testing.assert_allclose(logits(export_bundle(path, bits=32)), expected, atol=ROUNDING)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("shape", MIXTURES.values(), ids=MIXTURES)
def test_int4_export_is_the_reference_of_the_rounded_weights(shape, zero_points, tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(**shape)
    with Checkpoint.open(path) as checkpoint:
        expected = forward(Rounded(checkpoint, 4, 32, zero_points=zero_points), IDS)
    found = logits(export_bundle(path, zero_points=zero_points, accuracy_level=0))
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


@pytest.mark.parametrize("bits", [4, 8])
def test_computing_in_int8_stays_near(bits, tiny_checkpoint, export_bundle):
    # onnxruntime 1.31 computes 8-bit experts in int8 at any accuracy level.
    path = tiny_checkpoint(**MIXTURES["2 of 4"])
    with Checkpoint.open(path) as checkpoint:
        expected = forward(Rounded(checkpoint, bits, 32), IDS)
    found = logits(export_bundle(path, bits=bits, accuracy_level=4))
    # A near tie between experts may go the other way and change a position as a whole, hence the median.
    distance = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0 < np.median(distance) < 0.05


@pytest.fixture(params=["random", "trained"])
def mixture_and_texts(request, tmp_path):
    """A mixture's checkpoint, and 10,000 tokens or more for it to read."""
    if request.param == "random":
        texts = [np.random.default_rng(seed).integers(3, 500, 250).tolist() for seed in range(40)]
        return synthesise("tiny-moe", tmp_path / "checkpoint", dtype="float32"), texts
    if not TRAINED.is_dir():
        pytest.skip(f"{TRAINED} is not there")
    tokenizer, texts = Tokenizer(TRAINED / "tokenizer.json"), []
    for case in cases("a", 60):
        texts.append(FORMAT.encode(tokenizer, [*case.talk.messages(case.example.question), case.example.answer]))
    return TRAINED, texts


def test_the_same_experts_are_chosen_for_ten_thousand_tokens(mixture_and_texts, tmp_path):
    """Router logits closer than float32 sums in another order are apart may change places; they are counted."""
    path, texts = mixture_and_texts
    seen = Routes()
    with Checkpoint.open(path) as checkpoint:
        manifest = export(checkpoint, Recipe(accuracy_level=0), tmp_path / "bundle")
        hidden_states(Rounded(checkpoint, 4, 32), texts, observer=seen)
    found = router_logits(tmp_path / "bundle", manifest.architecture, texts)
    undecided = choices = 0
    for layer, chosen in seen.chosen.items():
        ranked = np.sort(found[layer], axis=1)[:, ::-1]
        differs = (np.argsort(-found[layer], axis=1, kind="stable")[:, :2] != chosen).any(axis=1)
        gap = np.minimum(ranked[:, 0] - ranked[:, 1], ranked[:, 1] - ranked[:, 2])
        assert not (differs & (gap > 1e-4)).any()
        undecided += int(differs.sum())
        choices += len(chosen)
    assert choices >= 10_000 * manifest.architecture.n_layers
    assert undecided <= choices / 5_000


class Routes(Observer):
    """Keeps what each layer's positions chose."""

    def __init__(self) -> None:
        self.chosen: dict[int, np.ndarray] = {}

    def routes(self, layer, chosen):
        self.chosen[layer] = chosen
        return chosen


def router_logits(bundle, architecture, texts) -> list[np.ndarray]:
    """Return what the exported graph's routers say, [n, n_experts] for each layer."""
    model = ir.load(bundle / "model.onnx")
    routers = [f"layers.{layer}.router_out" for layer in range(architecture.n_layers)]
    values = {value.name: value for node in model.graph for value in node.outputs}
    for name in routers:
        values[name].type, values[name].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(("batch", "kept", 4))
        model.graph.outputs.append(values[name])
    ir.save(model, bundle / "routers.onnx")
    session = ort.InferenceSession(bundle / "routers.onnx", providers=["CPUExecutionProvider"])
    nothing = np.zeros((1, architecture.n_kv_heads, 0, architecture.head_dim), np.float32)
    past = {one.name: nothing for one in session.get_inputs() if one.name.startswith("past")}
    said = []
    for ids in texts:
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        feed["logits_to_keep"] = np.array(len(ids))
        said.append(session.run(routers, past | feed))
    return [np.concatenate([one[layer][0] for one in said]) for layer in range(len(routers))]


@pytest.mark.parametrize(("bits", "block_size"), [(4, 64), (8, 128)])
def test_rows_that_are_no_whole_blocks_are_refused_with_what_fits(bits, block_size, tiny_checkpoint, tmp_path):
    path = tiny_checkpoint(**MIXTURES["2 of 4"])
    with Checkpoint.open(path) as checkpoint, pytest.raises(RecipeError, match=r"block_size.* 32"):
        export(checkpoint, Recipe(bits=bits, block_size=block_size), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_compensated_experts_are_nearer(tiny_checkpoint, tmp_path):
    distances = {}
    with Checkpoint.open(tiny_checkpoint(**MIXTURES["2 of 4"])) as checkpoint:
        for method in ("maximum", "gptq", "awq"):
            export(checkpoint, Recipe(method=method, accuracy_level=0), tmp_path / method)
            distances[method] = verify(tmp_path / method, checkpoint, tokens=1024).kl
    assert max(distances["gptq"], distances["awq"]) < distances["maximum"]


def test_both_layouts_make_the_same_weights(tiny_checkpoint, mistral_layout, export_bundle, tmp_path):
    path = tiny_checkpoint(**MIXTURES["2 of 4"])
    other = mistral_layout(path, tmp_path / "mistral")
    one, two = (export_bundle(checkpoint).manifest.files["model.onnx.data"] for checkpoint in (path, other))
    assert one == two


def test_neighbours_are_told_of_a_mistral(tiny_checkpoint, export_bundle):
    """Neither has a Mixtral, and what they load is a graph: that of a Mistral has the same inputs and outputs."""
    bundle = export_bundle(tiny_checkpoint(**MIXTURES["2 of 4"]))
    assert '"model_type": "mistral"' in (bundle.path / "config.json").read_text()
    assert "experts" not in (bundle.path / "config.json").read_text()
    assert '"type": "mistral"' in (bundle.path / "genai_config.json").read_text()
    assert bundle.manifest.architecture.n_experts == 4
