"""Adapters at run time: a bundle with one computes what an export of the merged checkpoint does.

In float32 within 1e-4, on logits that spread over some +-20. Where weights are quantised the adapter is not, as it is
added beside them: then it is the reference of the rounded checkpoint with the adapter merged into that. With int8
products, whose inputs are rounded as well, within 1.5 (0.9 seen).
"""

from __future__ import annotations

import shutil

import numpy as np
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import (
    FORMAT_VERSION,
    Bundle,
    EmbeddingManifest,
    EncoderArchitecture,
    LoraFile,
    LoraSpec,
    Origin,
)
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine
from edge_assistant.errors import (
    AdapterError,
    BundleKindError,
    LoraBaseError,
    LoraGraphError,
    OutputExistsError,
    OutputWriteError,
    RecipeError,
)
from edge_assistant_export import publish
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.cli import main
from edge_assistant_export.hub import locate_adapter
from edge_assistant_export.lora import convert
from edge_assistant_export.quantize import dequantize, quantize
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward
from edge_assistant_export.write import export

IDS = [1, *np.random.default_rng(0).integers(14, 270, 39).tolist()]
SHAPES = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "heads the kernel cannot rotate": {"head_dim": 24},
    "sizes that no block divides": {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1},
    "a window in one layer of two": {"sliding_window": 9, "layer_types": ["full_attention", "sliding_attention"]},
    "one layer": {"num_hidden_layers": 1},
}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
FLOAT32, INT8_PRODUCTS = 1e-4, 1.5


def ready(adapter, bundle, out):
    """Convert an adapter for a bundle."""
    convert(locate_adapter(adapter), bundle.path, out)
    return out


def run_time(bundle, path) -> np.ndarray:
    """Return the logits [n, vocab] of a bundle that runs with an adapter."""
    with Engine.load(bundle, EngineSettings(threads=1)) as engine:
        return engine.score(IDS, adapter=engine.load_adapter(path))


def merged(checkpoint, adapter, out, **recipe) -> np.ndarray:
    """Return the logits of an export with the adapter merged."""
    with Checkpoint.open(checkpoint, adapter=adapter) as opened:
        export(opened, Recipe(**recipe), out)
    with Engine.load(Bundle.open(out), EngineSettings(threads=1)) as engine:
        return engine.score(IDS)


# Numbers.


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_float32_logits_are_those_of_a_merged_export(tiny_checkpoint, export_bundle, lora_adapter, tmp_path, shape):
    checkpoint = tiny_checkpoint(**shape)
    adapter = lora_adapter(tmp_path / "adapter", checkpoint)
    bundle = export_bundle(checkpoint, bits=32, lora_rank=4)
    found = run_time(bundle, ready(adapter, bundle, tmp_path / "adapter.npz"))
    expected = merged(checkpoint, adapter, tmp_path / "merged", bits=32)
    np.testing.assert_allclose(found, expected, atol=FLOAT32)
    with Engine.load(bundle, EngineSettings(threads=1)) as engine:
        assert np.abs(engine.score(IDS) - expected).max() > 1


@pytest.mark.parametrize(
    ("config", "ranks"),
    [
        ({"lora_alpha": 1.5}, {}),
        ({"use_rslora": True}, {}),
        ({"r": 8, "lora_alpha": 4, "use_rslora": True}, {}),
        (
            {"rank_pattern": {"layers.0.self_attn.q_proj": 2, "k_proj": 7}, "alpha_pattern": {"v_proj": 1}},
            {"model.layers.0.self_attn.q_proj": 2}
            | {f"model.layers.{layer}.self_attn.k_proj": 7 for layer in range(2)},
        ),
        ({"target_modules": ["q_proj", "v_proj"]}, None),
        ({"target_modules": ["v_proj", "up_proj"]}, None),
        ({"target_modules": ["k_proj", "gate_proj", "down_proj"], "layers_to_transform": [1]}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
def test_scaling_ranks_and_targets_are_those_of_the_merge(
    folder, mistral_layout, lora_adapter, tmp_path, layout, config, ranks
):
    modules = None
    if ranks is None:
        layers = config.get("layers_to_transform", range(2))
        inside = {"gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp"}
        targets = config["target_modules"]
        modules = [f"model.layers.{n}.{inside.get(one, 'self_attn')}.{one}" for n in layers for one in targets]
    adapter = lora_adapter(tmp_path / "adapter", folder, modules, ranks, **config)
    given = folder if layout == "huggingface" else mistral_layout(folder, tmp_path / "mistral")
    with Checkpoint.open(given) as checkpoint:
        export(checkpoint, Recipe(bits=32, lora_rank=8), tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    found = run_time(bundle, ready(adapter, bundle, tmp_path / "adapter.npz"))
    np.testing.assert_allclose(found, merged(given, adapter, tmp_path / "merged", bits=32), atol=FLOAT32)


@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [
        ({"bits": 4, "accuracy_level": 0}, FLOAT32),
        ({"bits": 4, "zero_points": True, "accuracy_level": 0}, FLOAT32),
        ({"bits": 8, "block_size": 64, "accuracy_level": 0}, FLOAT32),
        ({"bits": 4}, INT8_PRODUCTS),
        ({"bits": 8}, INT8_PRODUCTS),
    ],
    ids=str,
)
def test_quantised_weights_are_rounded_before_the_adapter_is_added(folder, lora_adapter, tmp_path, recipe, tolerance):
    adapter = lora_adapter(tmp_path / "adapter", folder)
    with Checkpoint.open(folder) as checkpoint:
        export(checkpoint, Recipe(**recipe, lora_rank=4), tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    found = run_time(bundle, ready(adapter, bundle, tmp_path / "adapter.npz"))
    rounded = tmp_path / "rounded"
    shutil.copytree(folder, rounded)
    tensors = load_file(rounded / "model.safetensors")
    for name, weight in tensors.items():
        if weight.ndim == 2:
            how = {"zero_points": recipe.get("zero_points", False)}
            packed = quantize(weight, recipe["bits"], recipe.get("block_size", 32), **how)
            tensors[name] = np.ascontiguousarray(dequantize(packed, recipe["bits"], weight.shape[1]))
    save_file(tensors, rounded / "model.safetensors")
    with Checkpoint.open(rounded, adapter=adapter) as checkpoint:
        np.testing.assert_allclose(found, forward(checkpoint, IDS), atol=tolerance)


def test_a_mixture_takes_adapters_of_its_attention(tiny_checkpoint, export_bundle, lora_adapter, tmp_path):
    checkpoint = tiny_checkpoint(**MIXTURE)
    adapter = lora_adapter(tmp_path / "adapter", checkpoint, target_modules=ATTENTION)
    bundle = export_bundle(checkpoint, bits=32, lora_rank=4)
    assert bundle.manifest.lora == LoraSpec(4, ("qkv", "o"))
    found = run_time(bundle, ready(adapter, bundle, tmp_path / "adapter.npz"))
    expected = merged(checkpoint, adapter, tmp_path / "merged", bits=32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=FLOAT32)  # some logits are far from 0 here


# The graph.


def test_other_runtimes_see_the_graph_that_they_know(folder, tmp_path):
    recipes = {"plain": Recipe(), "tunable": Recipe(lora_rank=4)}
    sessions = {}
    for name, recipe in recipes.items():
        with Checkpoint.open(folder) as checkpoint:
            export(checkpoint, recipe, tmp_path / name)
        sessions[name] = ort.InferenceSession(tmp_path / name / "model.onnx", providers=["CPUExecutionProvider"])
    for nodes in ("get_inputs", "get_outputs"):
        plain, tunable = ([(n.name, n.type, n.shape) for n in getattr(one, nodes)()] for one in sessions.values())
        assert tunable == plain
    for file in ("model.onnx.data", "tokenizer.json", "config.json", "genai_config.json"):
        assert (tmp_path / "tunable" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes().replace(
            b'"plain"', b'"tunable"'
        )
    assert Bundle.open(tmp_path / "tunable").manifest.lora == LoraSpec(4, ("qkv", "o", "gate_up", "down"))
    assert Bundle.open(tmp_path / "plain").manifest.lora is None


# What is refused.


@pytest.mark.parametrize("recipe", [{"lora_rank": 0}, {"lora_rank": -1}, {"lora_rank": 4, "method": "awq"}], ids=str)
def test_a_rank_that_cannot_be_is_refused(recipe):
    with pytest.raises(RecipeError, match=rf"lora_rank cannot be {recipe['lora_rank']}"):
        Recipe(**recipe)


def test_what_is_made_for_a_board_takes_adapters_too(folder, tmp_path, capsys):
    words = ["model", str(folder), str(tmp_path / "out"), "--for", "pi5-8gb", "--lora-rank", "8", "--dry-run"]
    assert main(words) == 0
    assert "takes adapters of up to rank 8 for qkv, o, gate_up, down" in capsys.readouterr().out


@pytest.fixture
def tunable(folder, tmp_path) -> Bundle:
    with Checkpoint.open(folder) as checkpoint:
        export(checkpoint, Recipe(bits=32, lora_rank=4), tmp_path / "tunable")
    return Bundle.open(tmp_path / "tunable")


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens"])
def test_what_no_graph_lets_change_is_refused(folder, lora_adapter, tunable, tmp_path, module):
    adapter = lora_adapter(tmp_path / "adapter", folder, [module], target_modules=[module.rpartition(".")[2]])
    with pytest.raises(LoraGraphError, match=r"its graph lets only qkv, .* change; merge it with `model --adapter`"):
        ready(adapter, tunable, tmp_path / "adapter.npz")
    assert not (tmp_path / "adapter.npz").exists()


def test_experts_are_refused(tiny_checkpoint, export_bundle, lora_adapter, tmp_path):
    checkpoint = tiny_checkpoint(**MIXTURE)
    bundle = export_bundle(checkpoint, bits=32, lora_rank=4)
    expert = "model.layers.0.block_sparse_moe.experts.1.w1"
    adapter = lora_adapter(tmp_path / "adapter", checkpoint, [expert], target_modules=[expert])
    with pytest.raises(LoraGraphError, match=r"experts\.1\.gate, and its graph lets only qkv, o change"):
        ready(adapter, bundle, tmp_path / "adapter.npz")


def test_a_rank_above_the_graphs_and_a_graph_without_are_refused(folder, lora_adapter, tunable, tmp_path):
    adapter = lora_adapter(tmp_path / "adapter", folder, r=5)
    with pytest.raises(LoraGraphError, match=r"rank 5, and its graph takes up to 4; .* higher --lora-rank"):
        ready(adapter, tunable, tmp_path / "adapter.npz")
    with Checkpoint.open(folder) as checkpoint:
        export(checkpoint, Recipe(bits=32), tmp_path / "plain")
    with pytest.raises(LoraGraphError, match="plain: its graph takes no adapter; export it with --lora-rank"):
        ready(adapter, Bundle.open(tmp_path / "plain"), tmp_path / "adapter.npz")


def test_an_adapter_of_another_model_is_refused(tiny_checkpoint, lora_adapter, tunable, tmp_path):
    adapter = lora_adapter(tmp_path / "adapter", tiny_checkpoint(hidden_size=96))
    with pytest.raises(AdapterError, match="trained on another model"):
        ready(adapter, tunable, tmp_path / "adapter.npz")


def test_a_bundle_of_another_kind_is_refused(adapter, tmp_path):
    encoder = EncoderArchitecture("bert", 2, 64, 4, 270)
    manifest = EmbeddingManifest(
        format_version=FORMAT_VERSION,
        kind="embedding",
        name="finder",
        created_by="a test",
        architecture=encoder,
        bits=32,
        embedding_size=64,
        pooling="cls",
        normalize=True,
        max_length=512,
        pad_id=0,
        query_prompt="",
        passage_prompt="",
        licence=None,
        source=Origin("finder", None),
        files={},
        quality={},
    )
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    with pytest.raises(BundleKindError, match="embedding"):
        convert(locate_adapter(adapter), tmp_path, tmp_path / "adapter.npz")


def test_it_is_of_use_with_its_own_bundle_alone(folder, adapter, tunable, tmp_path):
    path = ready(adapter, tunable, tmp_path / "adapter.npz")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][3, 5] += 1
    save_file(weights, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        export(checkpoint, Recipe(bits=32, lora_rank=4, name="tunable"), tmp_path / "other")
    with pytest.raises(LoraBaseError, match="made for other weights"):
        run_time(Bundle.open(tmp_path / "other"), path)


# Writing.


def test_what_is_there_is_kept_unless_it_is_to_be_overwritten(adapter, tunable, tmp_path):
    path = tmp_path / "adapter.npz"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        ready(adapter, tunable, path)
    assert path.read_bytes() == b"mine"
    convert(locate_adapter(adapter), tunable.path, path, overwrite=True)
    assert len(LoraFile.read(path).factors) == 14


def test_a_full_disk_leaves_what_was_there(adapter, tunable, tmp_path, monkeypatch):
    path = ready(adapter, tunable, tmp_path / "adapter.npz")
    before = path.read_bytes()

    def full(partial, content):
        partial.write_bytes(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, "write_file", full)
    with pytest.raises(OutputWriteError, match="No space left"):
        convert(locate_adapter(adapter), tunable.path, path, overwrite=True)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []


def test_the_command_line(folder, adapter, tmp_path, capsys):
    out, path = str(tmp_path / "bundle"), str(tmp_path / "adapter.npz")
    assert main(["model", str(folder), out, "--bits", "32", "--lora-rank", "4"]) == 0
    assert "takes adapters of up to rank 4 for qkv, o, gate_up, down" in capsys.readouterr().out
    assert main(["adapter", str(adapter), path, "--for", out]) == 0
    assert "is ready for bundle: adapter, rank 4, trained on tiny/base\n  14 matrices" in capsys.readouterr().out
    assert main(["adapter", str(adapter), path, "--for", out]) == 1
    assert "already there" in capsys.readouterr().err
    assert main(["model", str(folder), str(tmp_path / "awq"), "--method", "awq", "--lora-rank", "4"]) == 2
