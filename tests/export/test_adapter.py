"""LoRA adapters: what is read with one is the checkpoint that a merge beforehand would have made.

The merge beforehand is written here once more, plainly: whole matrices, names and scaling spelt out. PEFT itself is
held against it in tests/oracles/test_adapter_peft.py.
"""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import AdapterSource, Bundle, FileEntry
from edge_assistant.errors import AdapterError, VerificationError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.cli import main
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward
from edge_assistant_export.verify import verify
from edge_assistant_export.write import export

CANONICAL = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
MATRICES = {f"model.layers.{i}.{end}": f"layers.{i}.{name}" for i in range(2) for end, name in CANONICAL.items()}
Q, O_PROJ = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj"
TEXT = "the lamp in the hall is on, and so is the one in the kitchen"


def merge_beforehand(checkpoint, adapter, out, scaling) -> Path:
    """Write the checkpoint with the adapter in it; `scaling` is one number, or one by module."""
    shutil.copytree(checkpoint, out)
    weights = load_file(out / "model.safetensors")
    factors = load_file(adapter / "adapter_model.safetensors")
    for name, a in factors.items():
        module, _, kind = name.removeprefix("base_model.model.").partition(".lora_")
        if kind not in ("A.weight", "embedding_A"):
            continue
        other = name.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")
        left, right = factors[other].astype(np.float64), a.astype(np.float64)
        delta = left @ right if kind == "A.weight" else (left @ right).T
        times = scaling if isinstance(scaling, float) else scaling[module]
        weights[f"{module}.weight"] = (weights[f"{module}.weight"] + times * delta).astype(np.float32)
    save_file(weights, out / "model.safetensors")
    return out


def change(adapter, edit) -> None:
    """Write the adapter's tensors once more, after a change of theirs."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


def reconfigure(adapter, **changes) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text()) | changes
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def read_all(checkpoint) -> dict[str, np.ndarray]:
    head = [] if checkpoint.config.tied_embedding else ["lm_head"]
    norms = [f"layers.{i}.{name}" for i in range(2) for name in ("attention_norm", "ffn_norm")]
    return {name: checkpoint.tensor(name) for name in ("embedding", "norm", *head, *norms, *MATRICES.values())}


def assert_reads_as(merged, checkpoint, adapter) -> None:
    with Checkpoint.open(merged) as one, Checkpoint.open(checkpoint, adapter=adapter) as other:
        expected, found = read_all(one), read_all(other)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


# What is read.


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, 2.0),
        ({"lora_alpha": 1.5}, 0.375),
        ({"use_rslora": True}, 4.0),
        ({"r": 8, "lora_alpha": 4, "use_rslora": True}, 4 / 8**0.5),
    ],
)
@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
def test_reads_are_those_of_a_merged_checkpoint(
    folder, mistral_layout, lora_adapter, tmp_path, layout, config, scaling
):
    adapter = lora_adapter(tmp_path / "adapter", folder, **config)
    merged = merge_beforehand(folder, adapter, tmp_path / "merged", scaling)
    given = folder if layout == "huggingface" else mistral_layout(folder, tmp_path / "mistral")
    assert_reads_as(merged, given, adapter)
    before, after = (load_file(path / "model.safetensors") for path in (folder, merged))
    assert all(np.any(before[f"{module}.weight"] != after[f"{module}.weight"]) for module in MATRICES)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_adapters_are_merged_in_full(folder, lora_adapter, tmp_path, dtype):
    adapter = lora_adapter(tmp_path / "adapter", folder, dtype=dtype)
    assert_reads_as(merge_beforehand(folder, adapter, tmp_path / "merged", 2.0), folder, adapter)


def test_ranks_and_alphas_of_a_pattern(folder, lora_adapter, tmp_path):
    """A key is the module's name or an end of it after a dot, as an expression; the first that fits counts."""
    ranks = {"model.layers.0.self_attn.q_proj": 2, "model.layers.1.self_attn.q_proj": 16}
    ranks |= {f"model.layers.{i}.mlp.down_proj": 6 for i in range(2)}
    adapter = lora_adapter(
        tmp_path / "adapter",
        folder,
        ranks=ranks,
        rank_pattern={"layers.0.self_attn.q_proj": 2, "q_proj": 16, "down_proj": 6, "proj": 99, "o_pro": 98},
        alpha_pattern={r"^model\.layers\.\d+\.mlp\.(up|down)_proj": 3, "1.self_attn.k_proj": 32, "k_proj": 2.5},
    )
    scaling = dict.fromkeys(MATRICES, 8 / 4)
    scaling |= {module: 8 / rank for module, rank in ranks.items()}
    for i in range(2):
        scaling |= {f"model.layers.{i}.mlp.up_proj": 3 / 4, f"model.layers.{i}.mlp.down_proj": 3 / 6}
    scaling |= {"model.layers.0.self_attn.k_proj": 2.5 / 4, "model.layers.1.self_attn.k_proj": 32 / 4}
    assert_reads_as(merge_beforehand(folder, adapter, tmp_path / "merged", scaling), folder, adapter)


@pytest.mark.parametrize(
    ("config", "modules"),
    [
        ({"target_modules": ["q_proj", "mlp.up_proj"]}, [m for m in MATRICES if m.endswith(("q_proj", "up_proj"))]),
        (
            {"target_modules": r".*\.1\..*\.[qk]_proj"},
            [m for m in MATRICES if "1.self_attn.q" in m or "1.self_attn.k" in m],
        ),
        ({"target_modules": "all-linear"}, list(MATRICES)),
        ({"target_modules": None}, [m for m in MATRICES if m.endswith(("q_proj", "v_proj"))]),
        ({"target_modules": [Q]}, [Q]),
        ({"layers_to_transform": 1}, [m for m in MATRICES if ".1." in m]),
        ({"layers_to_transform": [0], "layers_pattern": "layers"}, [m for m in MATRICES if ".0." in m]),
        (
            {"exclude_modules": ["mlp.up_proj", O_PROJ]},
            [m for m in MATRICES if "up_" not in m and m != O_PROJ],
        ),
        ({"exclude_modules": r".*mlp.*"}, [m for m in MATRICES if "mlp" not in m]),
        ({"target_modules": ["q_proj", "lm_head"]}, [*(m for m in MATRICES if m.endswith("q_proj")), "lm_head"]),
        ({"target_modules": ["embed_tokens", "v_proj"]}, ["model.embed_tokens", *(m for m in MATRICES if "v_" in m)]),
    ],
    ids=str,
)
def test_the_matrices_that_are_targeted(folder, lora_adapter, tmp_path, config, modules):
    adapter = lora_adapter(tmp_path / "adapter", folder, modules, **config)
    assert_reads_as(merge_beforehand(folder, adapter, tmp_path / "merged", 2.0), folder, adapter)


def test_base_weights_of_the_embedding_and_the_head_are_those_saved_with_the_adapter(folder, lora_adapter, tmp_path):
    modules = ["model.embed_tokens", "lm_head"]
    adapter = lora_adapter(tmp_path / "adapter", folder, modules, target_modules=["embed_tokens", "lm_head"])
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    for module in modules:
        weights[f"{module}.weight"] = np.flip(weights[f"{module}.weight"]).copy()
        saved = {f"base_model.model.{module}.base_layer.weight": weights[f"{module}.weight"]}
        change(adapter, lambda tensors, saved=saved: tensors.update(saved))
    save_file(weights, other / "model.safetensors")
    plain = lora_adapter(tmp_path / "plain", folder, modules)
    assert_reads_as(merge_beforehand(other, plain, tmp_path / "merged", 2.0), folder, adapter)


@pytest.mark.parametrize(
    ("model", "head"), [("model.language_model.", "lm_head"), ("language_model.model.", "language_model.lm_head")]
)
def test_an_adapter_of_a_model_that_sees_changes_its_language_part(folder, lora_adapter, tmp_path, model, head):
    adapter = lora_adapter(tmp_path / "adapter", folder, [*MATRICES, "lm_head"])
    merged = merge_beforehand(folder, adapter, tmp_path / "merged", 2.0)

    def rename(tensors):
        for name in list(tensors):
            at = name.removeprefix("base_model.model.")
            at = at.replace("lm_head", head) if at.startswith("lm_head") else at.replace("model.", model, 1)
            tensors[f"base_model.model.{at}"] = tensors.pop(name)
        seeing = "base_model.model.model.vision_tower.transformer.layers.0.attention.q_proj.lora_A.weight"
        tensors[seeing] = np.ones((4, 3), np.float32)

    change(adapter, rename)
    reconfigure(adapter, target_modules=rf"{model}layers\..*_proj|{head}|.*vision_tower.*q_proj")
    assert_reads_as(merged, folder, adapter)


@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
@pytest.mark.parametrize("name", ["embedding", "lm_head", "layers.0.q", "layers.1.k", "layers.1.down", "norm"])
@given(data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_the_rows_of_the_whole(
    tiny_checkpoint, mistral_layout, lora_adapter, tmp_path_factory, layout, name, data
):
    base = tmp_path_factory.getbasetemp()
    path, adapter = base / f"lora-rows-{layout}", base / f"lora-rows-{layout}-adapter"
    if not adapter.exists():
        targets = [*(module.rpartition(".")[2] for module in MATRICES), "lm_head", "embed_tokens"]
        modules = [*MATRICES, "lm_head", "model.embed_tokens"]
        lora_adapter(adapter, tiny_checkpoint(), modules, target_modules=targets)
        _ = (
            shutil.copytree(tiny_checkpoint(), path)
            if layout == "huggingface"
            else mistral_layout(tiny_checkpoint(), path)
        )
    with Checkpoint.open(path, adapter=adapter) as checkpoint:
        whole = checkpoint.tensor(name)
        bound = st.integers(0, len(whole) + 3)
        rows = slice(data.draw(bound), data.draw(bound))
        np.testing.assert_array_equal(checkpoint.tensor(name, rows), whole[rows])


def test_reading_some_rows_takes_the_memory_of_some_rows(tiny_checkpoint, lora_adapter, tmp_path):
    path = tiny_checkpoint(intermediate_size=20_000)
    gate = "model.layers.0.mlp.gate_proj"
    adapter = lora_adapter(tmp_path / "adapter", path, [gate], target_modules=[gate])
    with Checkpoint.open(path, adapter=adapter) as checkpoint:
        tracemalloc.start()
        try:
            for start in range(0, 20_000, 1000):
                checkpoint.tensor("layers.0.gate", slice(start, start + 1000))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8 * 1000 * 64 * 4 < 20_000 * 64 * 4


def test_a_closed_checkpoint_holds_no_file(folder, adapter):
    before = len(list(Path("/proc/self/fd").iterdir()))
    checkpoint = Checkpoint.open(folder, adapter=adapter)
    checkpoint.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    reconfigure(adapter, r=5)
    with pytest.raises(AdapterError):
        Checkpoint.open(folder, adapter=adapter)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Whoever reads it sees the merged model.


@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
@pytest.mark.parametrize(
    "recipe",
    [
        {"bits": 32},
        {"method": "least_squares"},
        {"method": "maximum", "bits": 8},
        {"method": "gptq"},  # calibrated with text that the model samples itself
        {"cache": "int8", "calibration": True},
    ],
    ids=str,
)
def test_the_bundle_is_that_of_the_merged_checkpoint(folder, mistral_layout, lora_adapter, tmp_path, layout, recipe):
    adapter = lora_adapter(tmp_path / "adapter", folder)
    merged = merge_beforehand(folder, adapter, tmp_path / "merged", 2.0)
    given = folder if layout == "huggingface" else mistral_layout(folder, tmp_path / "mistral")
    if recipe.get("calibration"):
        (tmp_path / "text").write_text(TEXT)
        recipe = recipe | {"calibration": tmp_path / "text"}
    with Checkpoint.open(merged) as one, Checkpoint.open(given, adapter=adapter) as other:
        np.testing.assert_array_equal(forward(one, [1, 30, 40]), forward(other, [1, 30, 40]))
        export(one, Recipe(**recipe), tmp_path / "expected")
        export(other, Recipe(**recipe), tmp_path / "found")
    for name in ("model.onnx", "model.onnx.data", "tokenizer.json"):
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_the_manifest_records_the_adapter(folder, adapter, tmp_path):
    with Checkpoint.open(folder, adapter=adapter) as checkpoint:
        export(checkpoint, Recipe(), tmp_path / "bundle")
    sha256 = FileEntry.of(adapter / "adapter_model.safetensors").sha256
    expected = AdapterSource("adapter", None, sha256, rank=4, alpha=8.0, scaling=2.0, base_model="tiny/base")
    assert Bundle.open(tmp_path / "bundle").manifest.source.adapter == expected


def test_the_command_line_merges_and_verifies(folder, adapter, tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    out, text = str(tmp_path / "bundle"), str(tmp_path / "text")
    assert main(["model", str(folder), out, "--bits", "32", "--adapter", str(adapter)]) == 0
    assert "with the adapter adapter: rank 4, trained on tiny/base" in capsys.readouterr().out
    check = ["verify", out, "--reference", str(folder), "--text", text]
    assert main([*check, "--adapter", str(adapter)]) == 0
    assert abs(json.loads(capsys.readouterr().out.splitlines()[-1])["kl"]) < 1e-6
    assert main(check) == 1
    assert "name it with --adapter (adapter)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*check, "--adapter-revision", "main"])
    assert "--adapter-revision says nothing without --adapter" in capsys.readouterr().err


def test_verify_takes_the_adapter_that_was_merged_and_no_other(folder, adapter, tmp_path):
    with Checkpoint.open(folder) as checkpoint:
        export(checkpoint, Recipe(bits=32), tmp_path / "plain")
    with Checkpoint.open(folder, adapter=adapter) as checkpoint:
        export(checkpoint, Recipe(bits=32), tmp_path / "tuned")
        with pytest.raises(VerificationError, match=r"made without an adapter: leave out --adapter"):
            verify(tmp_path / "plain", checkpoint, TEXT)
    moved = adapter.rename(tmp_path / "under another name")
    with Checkpoint.open(folder, adapter=moved) as checkpoint:
        assert verify(tmp_path / "tuned", checkpoint, TEXT).top1_agreement == 1
    for edit in (
        lambda: change(moved, lambda tensors: tensors.update({f: -tensors[f] for f in list(tensors)[:1]})),
        lambda: reconfigure(moved, lora_alpha=9),
    ):
        edit()
        with (
            Checkpoint.open(folder, adapter=moved) as checkpoint,
            pytest.raises(
                VerificationError, match=r"under another name is not the adapter it was made with \(adapter\)"
            ),
        ):
            verify(tmp_path / "tuned", checkpoint, TEXT)


def test_a_tokenizer_and_a_chat_template_beside_the_adapter_are_not_read(folder, adapter):
    (adapter / "tokenizer.json").write_text("{}")
    (adapter / "chat_template.jinja").write_text("<|im_start|>")
    with Checkpoint.open(folder) as plain, Checkpoint.open(folder, adapter=adapter) as tuned:
        assert tuned.tokenizer_json() == plain.tokenizer_json()
        assert tuned.instruct == plain.instruct
