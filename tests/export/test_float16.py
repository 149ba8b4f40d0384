"""Bundles that compute in float16, on the processor, which casts to float32 where it has no such kernel.

Of a GPU nothing is tested here: that its kernels take these types is read in onnxruntime's sources, not run.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import CacheSpec, Manifest, key_scale, read_constants
from edge_assistant.config import EngineSettings
from edge_assistant.device.boards import Accelerator, Target, target
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant.engine.adapter import Adapter
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.roofline import weight_bytes_per_token
from edge_assistant.engine.session import Session
from edge_assistant.errors import BundleManifestError, Float16RangeError, RecipeError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.cli import main
from edge_assistant_export.estimate import estimate
from edge_assistant_export.explain import explain
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward
from edge_assistant_export.synth import SHAPES
from edge_assistant_export.target import Given, choose
from edge_assistant_export.verify import verify
from edge_assistant_export.write import export

CORNERS = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "heads the kernel cannot rotate": {"head_dim": 24},
    "sizes that no block divides": {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1},
    "sliding window": {"sliding_window": 9},
    "stretched positions": {
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 2.0}
    },
}
TYPES = ((32, "float32"), (16, "float16"))
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 128}
IDS = [1, *np.random.default_rng(0).integers(14, 270, 39).tolist()]
SETTINGS = EngineSettings(threads=1)
# Of the spread of the logits, what float16 changes: it keeps 11 digits of a weight and of what each step gives, and
# where heads attend sharply, as with stretched positions, a little goes a long way.
ROUNDING = 0.01
# Products in int8, and a cache of int8, round to 8 digits, of which float16 moves some by one.
IN_INT8 = 0.07


def distance(found, expected) -> float:
    """Return the root mean square of what two sets of logits differ by, as a share of their spread."""
    return float(np.sqrt(np.square(found - expected).mean()) / expected.std())


def logits(bundle, ids=IDS) -> np.ndarray:
    with Engine.load(bundle, SETTINGS) as engine:
        return engine.score(ids)


def greedy(bundle, n_tokens: int) -> list[int]:
    with Engine.load(bundle, SETTINGS) as engine:
        return list(engine.generate([1], SamplingParams(temperature=0, max_tokens=n_tokens)))


@pytest.mark.parametrize("shape", CORNERS.values(), ids=CORNERS)
def test_unquantised_it_is_the_reference(shape, tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(**shape)
    with Checkpoint.open(path) as checkpoint:
        expected = forward(checkpoint, IDS)
    assert distance(logits(export_bundle(path, bits=16, dtype="float16")), expected) < ROUNDING


@pytest.mark.parametrize("shape", CORNERS.values(), ids=CORNERS)
@pytest.mark.parametrize(
    "recipe",
    [
        {"bits": 4, "block_size": 32},
        {"bits": 4, "block_size": 128, "zero_points": True},
        {"bits": 8, "block_size": 64},
        {"eight_bits": ("layers.0.down", "embedding")},
        {"cache": "int8", "calibration": "text"},
        {"lora_rank": 4},
    ],
    ids=str,
)
def test_quantised_it_is_the_same_in_float32(recipe, shape, tiny_checkpoint, export_bundle, tmp_path):
    if "calibration" in recipe:
        (tmp_path / "text").write_text("The lamp in the hall is on.\n\nThe door is locked.")
        recipe = recipe | {"calibration": tmp_path / "text"}
    path = tiny_checkpoint(**shape)
    exact, half = (export_bundle(path, **recipe, accuracy_level=0, dtype=dtype) for dtype in ("float32", "float16"))
    assert distance(logits(half), logits(exact)) < (IN_INT8 if "cache" in recipe else ROUNDING)


def test_products_in_int8_are_taken_too(tiny_checkpoint, export_bundle):
    exact, half = (export_bundle(tiny_checkpoint(), dtype=dtype) for dtype in ("float32", "float16"))
    assert half.manifest.quantization.accuracy_level == 4
    assert distance(logits(half), logits(exact)) < IN_INT8


@pytest.mark.parametrize("bits", [4, 8, "float"])
def test_a_mixture_is_the_same_in_float32(bits, tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(**MIXTURE)
    exact, half = (
        export_bundle(path, bits=floats if bits == "float" else bits, accuracy_level=0, dtype=dtype)
        for floats, dtype in TYPES
    )
    assert distance(logits(half), logits(exact)) < (IN_INT8 if bits == 8 else ROUNDING)


def test_cuda_is_told_that_the_experts_weights_are_as_they_are(tiny_checkpoint, export_bundle):
    import onnx_ir as ir

    said = {
        dtype: [
            node.attributes.get_int("weights_prepacked", -1)
            for node in ir.load(export_bundle(tiny_checkpoint(**MIXTURE), dtype=dtype).graph_path).graph
            if node.op_type == "QMoE"
        ]
        for dtype in ("float32", "float16")
    }
    assert said == {"float32": [-1, -1], "float16": [0, 0]}


@pytest.mark.parametrize("recipe", [{"bits": "float"}, {"bits": 4, "accuracy_level": 0}], ids=["floats", "4 bits"])
def test_a_trained_model_writes_the_same(recipe, stories, export_bundle):
    whole = recipe["bits"] == "float"
    exact = export_bundle(stories, **(recipe | ({"bits": 32} if whole else {})))
    half = export_bundle(stories, **(recipe | ({"bits": 16} if whole else {})), dtype="float16")
    assert distance(logits(half), logits(exact)) < ROUNDING
    # In the first 50 the likeliest token leads by 0.1 or more, in the next by as little as 0.03.
    assert greedy(half, 50) == greedy(exact, 50)


@pytest.mark.parametrize("cache", ["float", "int8"])
@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_a_prompt_in_chunks_is_the_prompt(chunk, cache, tiny_bundle, tmp_path):
    (tmp_path / "text").write_text("The lamp in the hall is on.")
    calibrated = {"calibration": tmp_path / "text"} if cache == "int8" else {}
    bundle = tiny_bundle(bits=16, dtype="float16", cache=cache, **calibrated)
    whole, pieces = (Session(bundle, KvCache(bundle.manifest, len(IDS)), SETTINGS) for _ in range(2))
    expected = whole.run(IDS).copy()
    for start in range(0, len(IDS), chunk):
        found = pieces.run(IDS[start : start + chunk])
    assert distance(found, expected) < (IN_INT8 if cache == "int8" else ROUNDING)


@pytest.mark.parametrize("window", [None, 9])
def test_the_cache_takes_what_was_computed(window, tiny_bundle):
    exact, half = (tiny_bundle({"sliding_window": window}, bits=bits, dtype=dtype).manifest for bits, dtype in TYPES)
    assert (half.cache.type, half.cache.item_bytes) == ("float16", 2)
    for capacity in (8, 500):
        assert 2 * half.cache_size.of(capacity) == exact.cache_size.of(capacity)
    held = sum(buffer.nbytes for layer in KvCache(half, 8).layers for buffer in layer)
    assert held == half.cache_size.of(8) if window is None else held >= half.cache_size.of(8)


def test_going_back_and_evicting_leave_what_a_fresh_prompt_gives(tiny_bundle):
    bundle = tiny_bundle({"num_hidden_layers": 1}, bits=16, dtype="float16")
    session, fresh = (Session(bundle, KvCache(bundle.manifest, 64), SETTINGS) for _ in range(2))
    session.run(IDS)
    session.cache.rewind(20)
    session.cache.evict(4, 9)
    # Of one layer nothing has seen what was evicted, but for the rounding of keys that were turned twice.
    expected = fresh.run([*IDS[:4], *IDS[9:20], 50])
    assert distance(session.run([50]), expected) < ROUNDING


def test_types_in_the_graph_are_those_that_cuda_s_kernels_are_registered_for(tiny_bundle, tmp_path):
    import onnx_ir as ir

    (tmp_path / "text").write_text("The lamp in the hall is on.")
    bundle = tiny_bundle(bits=4, dtype="float16", cache="int8", calibration=tmp_path / "text", zero_points=True)
    graph = ir.load(bundle.graph_path).graph
    floats = {name: value.dtype for name, value in graph.initializers.items() if value.dtype.is_floating_point()}
    scales = {name for name in floats if name.endswith(("k_scale", "v_scale"))}
    assert scales
    assert all(floats.pop(name) == ir.DataType.FLOAT for name in scales)
    assert set(floats.values()) == {ir.DataType.FLOAT16}
    assert graph.outputs[0].dtype == ir.DataType.FLOAT
    assert {value.dtype for value in graph.outputs[1:]} == {ir.DataType.INT8}
    assert all(scale.all() for scale in read_constants(bundle.graph_path, [key_scale(0), key_scale(1)]).values())


def test_verify_measures_it(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint()
    with Checkpoint.open(path) as checkpoint:
        found = verify(export_bundle(path, bits=16, dtype="float16").path, checkpoint, tokens=64)
    assert 0 <= found.kl < 1e-4


def test_an_adapter_is_float16_where_the_graph_is(tiny_bundle, lora_file, tmp_path):
    exact, half = (tiny_bundle(bits=bits, dtype=dtype, lora_rank=4) for bits, dtype in TYPES)
    found = {}
    for bundle in (exact, half):
        adapter = Adapter.load(lora_file(tmp_path / f"{bundle.manifest.bits}.npz", bundle), bundle.manifest)
        assert {factor.dtype.name for factor in adapter.factors.values()} == {bundle.manifest.quantization.dtype}
        session = Session(bundle, KvCache(bundle.manifest, len(IDS)), SETTINGS)
        found["without", bundle] = session.run(IDS).copy()
        session.use(adapter)
        found["with", bundle] = session.run(IDS).copy()
    for which in ("without", "with"):
        assert distance(found[which, half], found[which, exact]) < ROUNDING
    assert distance(found["with", half], found["without", half]) > 10 * ROUNDING


def test_half_of_what_is_no_integer_is_spared(tiny_bundle):
    exact, half = (tiny_bundle(bits=bits, dtype=dtype).manifest for bits, dtype in TYPES)
    assert estimate(half).read_per_token * 2 == estimate(exact).read_per_token
    for manifest in (half, tiny_bundle(bits=4, dtype="float16").manifest):
        assert weight_bytes_per_token(manifest) == estimate(manifest).read_per_token
        assert manifest.files["model.onnx.data"].bytes == estimate(manifest).bundle


def test_a_number_that_float16_does_not_hold_is_refused_by_name(folder, tmp_path):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = 70_000
    save_file(tensors, path)
    with Checkpoint.open(folder) as checkpoint:
        export(checkpoint, Recipe(), tmp_path / "exact")
        with pytest.raises(Float16RangeError, match="norm holds 70000"):
            export(checkpoint, Recipe(dtype="float16"), tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_scales_too_large_are_refused_too(folder, tmp_path):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"][0] = 1e6
    save_file(tensors, path)
    with Checkpoint.open(folder) as checkpoint, pytest.raises(Float16RangeError, match=r"lm_head\.scales"):
        export(checkpoint, Recipe(dtype="float16"), tmp_path / "half")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"bits": 32, "dtype": "float16"}, "bits cannot be 32: the nearest that can is 16, as dtype is float16"),
        ({"bits": 16}, "bits cannot be 16: the nearest that can is 32, as dtype is float32"),
        ({"dtype": "float61"}, "dtype cannot be float61: the nearest that can is float16"),
    ],
)
def test_what_cannot_be_multiplied_is_refused(recipe, said):
    with pytest.raises(RecipeError, match=said):
        Recipe(**recipe)


def test_a_manifest_of_two_float_types_is_refused(tiny_bundle):
    manifest = tiny_bundle(bits=16, dtype="float16").manifest
    with pytest.raises(ValueError, match="float32 where attention computes in float16"):
        replace(manifest, cache=CacheSpec("float32", None))
    text = json.loads(manifest.to_json())
    assert text["quantization"]["dtype"] == "float16"
    assert Manifest.from_json(json.dumps(text)) == manifest
    text["quantization"]["bits"] = 32
    with pytest.raises(BundleManifestError, match="weights of 32 bits cannot be multiplied in float16"):
        Manifest.from_json(json.dumps(text))


def test_a_manifest_that_says_nothing_of_it_is_float32(tiny_bundle):
    text = json.loads(tiny_bundle().manifest.to_json())
    del text["quantization"]["dtype"]
    assert Manifest.from_json(json.dumps(text)) == tiny_bundle().manifest


def test_a_plan_says_it(tiny_checkpoint, tmp_path, capsys):
    argv = ["model", str(tiny_checkpoint()), str(tmp_path / "half"), "--dtype", "float16", "--dry-run"]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "float16 cache" in said
    assert "computes in float16" in said
    assert main([*argv, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["dtype"] == "float16"
    assert plan["cache_bytes_per_token"] == 2 * 2 * 2 * 16 * 2  # layers, keys and values, heads, channels, bytes


def board_with_gpu() -> Target:
    """Return a board whose GPU onnxruntime's wheels have code for; of those that are known none has."""
    plain = target("agx-orin-64gb")
    gpu = Accelerator(name="some GPU", compute="sm_90", in_wheels=True)
    return Target(plain.board.model_copy(update={"accelerators": (gpu,)}), plain.variant)


def test_float16_is_chosen_where_a_gpu_is_used_and_only_there():
    shape = replace(SHAPES["mistral-7b"], sliding_window=4096)
    chosen = choose(shape, board_with_gpu(), {})
    assert (chosen.recipe.dtype, chosen.recipe.window_cache) == ("float16", "full")
    said = explain(shape, board_with_gpu(), {}, chosen)
    assert any(text.startswith("It computes in float16, for the some GPU") for text in said)
    assert any(
        text.endswith("hold the whole context, as only the processor drops what has left a window.") for text in said
    )
    asked: Given = {"window_cache": "full"}
    said = explain(shape, target("pi5-8gb"), asked, choose(shape, target("pi5-8gb"), asked))
    assert any(text.endswith("hold the whole context, as asked.") for text in said)
    for name in ("orin-nano-8gb", "pi5-8gb"):
        elsewhere = choose(shape, target(name), {})
        assert (elsewhere.recipe.dtype, elsewhere.recipe.window_cache) == ("float32", "bounded")
    said = explain(shape, target("orin-nano-8gb"), {}, choose(shape, target("orin-nano-8gb"), {}))
    assert any("--dtype float16 makes a bundle that runs there" in text for text in said)


def test_a_mixture_stays_with_the_processor():
    shape = SHAPES["mixtral-8x7b"]
    chosen = choose(shape, board_with_gpu(), {})
    assert chosen.recipe.dtype == "float32"
    said = explain(shape, board_with_gpu(), {}, chosen)
    assert any(text.startswith("It computes in float32, on the processor") for text in said)


def test_what_was_asked_for_stays():
    shape, gpu = SHAPES["mistral-7b"], board_with_gpu()
    assert choose(shape, gpu, {"dtype": "float32"}).recipe.dtype == "float32"
    assert choose(shape, gpu, {"bits": 32}).recipe.dtype == "float32"
    assert choose(shape, gpu, {"window_cache": "bounded"}).recipe.window_cache == "bounded"
    asked = choose(shape, target("orin-nano-8gb"), {"dtype": "float16"})
    assert asked.recipe.dtype == "float16"
    said = explain(shape, target("orin-nano-8gb"), {"dtype": "float16"}, asked)
    assert any(text.startswith("It computes in float16, as asked") for text in said)


def test_the_processor_runs_it_whole(tiny_bundle):
    session = ort.InferenceSession(tiny_bundle(bits=4, dtype="float16").graph_path, providers=["CPUExecutionProvider"])
    assert {node.type for node in session.get_inputs()} == {"tensor(int64)", "tensor(float16)"}
    assert session.get_outputs()[0].type == "tensor(float)"
