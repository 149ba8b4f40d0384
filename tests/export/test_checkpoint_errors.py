"""What a checkpoint can be broken by, and what the exporter does not compute: each has its named error."""

from __future__ import annotations

import contextlib
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from edge_assistant.errors import CheckpointError, UnsupportedArchitectureError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.layouts import LAYOUTS
from edge_assistant_export.safetensors_file import SafetensorsFile
from edge_assistant_export.synth import synthesise

K = "model.layers.1.self_attn.k_proj.weight"


def rewrite(folder, change) -> None:
    """Write the weights once more, after a change of theirs."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def reconfigure(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def edit_header(path, edit) -> None:
    """Change the header of a safetensors file and leave its data as it is."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    edit(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])


# What is not computed.


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"model_type": "qwen2_moe"}, "qwen2_moe"),
        ({"model_type": None}, "None"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"text_config": {"model_type": "mistral4"}}, "mistral4"),
        ({"model_type": ["mistral"]}, "mistral"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rotary positions of their own for full_att"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}, "partial_rotary_factor 0.25"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}}, "with truncate false"),
    ],
)
def test_what_the_exporter_does_not_compute_is_refused(folder, changes, named):
    reconfigure(folder, **changes)
    with pytest.raises(UnsupportedArchitectureError, match=named) as caught:
        Checkpoint.open(folder)
    assert "MixtralForCausalLM" in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lora": {"rank": 8}}, "lora"),
        ({"quantization": {"qformat_weight": "fp8_e4m3"}}, "quantization"),
        ({"model_type": "mamba"}, "mamba"),
        ({"activation": "gelu"}, "gelu"),
        ({"sliding_window": [4, 8]}, "several sizes"),
    ],
)
def test_what_the_exporter_does_not_compute_is_refused_in_the_other_layout(tmp_path, changes, named):
    path = synthesise("tiny", tmp_path / "tiny", layout="mistral")
    params = json.loads((path / "params.json").read_text()) | changes
    (path / "params.json").write_text(json.dumps(params))
    with pytest.raises(UnsupportedArchitectureError, match=named):
        Checkpoint.open(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sliding_window": [None, 8, 8]}, "sliding_window of 3 layers does not fill 2"),
        ({"yarn": {"factor": 4}}, "original_max_position_embeddings must be a whole number"),
        (
            {"yarn": {"factor": 0.5, "original_max_position_embeddings": 64}},
            "stretched so: factor: Input should",
        ),
    ],
)
def test_windows_and_positions_that_do_not_fit_are_named(tmp_path, changes, problem):
    path = synthesise("tiny", tmp_path / "tiny", layout="mistral")
    params = json.loads((path / "params.json").read_text()) | changes
    (path / "params.json").write_text(json.dumps(params))
    with pytest.raises(CheckpointError, match=problem):
        Checkpoint.open(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_local_experts": 0}, "num_local_experts must be a whole number above 0"),
        ({"num_experts_per_tok": 5}, "5 of 4 experts cannot be chosen"),
        ({"num_local_experts": 5}, "block_sparse_moe.experts.4.w1.weight and 5 more tensors are missing"),
        ({"num_local_experts": 3}, r"gate.weight has the shape \[4, 64\], but config.json calls for \[3, 64\]"),
        ({"model_type": "mistral"}, "mlp.gate_proj.weight and 5 more tensors are missing"),
    ],
)
def test_a_mixture_that_is_none_is_named(tmp_path, changes, problem):
    path = synthesise("tiny-moe", tmp_path / "moe")
    reconfigure(path, **changes)
    with pytest.raises(CheckpointError, match=problem):
        Checkpoint.open(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"text_config": "mistral"}, "text_config must be an object"),
        ({"rope_scaling": [1.0]}, "rope_scaling must be an object"),
        ({"rope_theta": "1e6"}, "rope_theta must be a number"),
        ({"rope_theta": float("inf")}, "rope_theta must be a number"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps must be a number"),
        (
            {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": None},
            "layer_types names layers of sliding_attention, and sliding_window is null",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "factor must be a number"),
        ({"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 64}}, "factor must be a number"),
        (
            {
                "rope_theta": 1.0,
                "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
            },
            "it describes no model: .*rope_theta of 1.0 cannot be stretched",
        ),
        (
            {
                "rope_parameters": {"rope_type": "default"},
                "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
            },
            "rope_parameters and rope_scaling differ",
        ),
        ({"rope_scaling": {"llama_4_scaling_beta": 0.1}}, "original_max_position_embeddings must be a whole number"),
        ({"max_position_embeddings": None}, "max_position_embeddings must be a whole number"),
        ({"layer_types": 2}, "layer_types must list num_hidden_layers of them"),
        ({"layer_types": ["full_attention"]}, "layer_types must list num_hidden_layers of them"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be a whole number"),
    ],
)
def test_a_value_of_another_kind_is_named(folder, changes, problem):
    reconfigure(folder, **changes)
    with pytest.raises(CheckpointError, match=rf"config\.json: {problem}"):
        Checkpoint.open(folder)


def test_a_part_that_is_null_is_absent(folder):
    with Checkpoint.open(folder) as checkpoint:
        plain = checkpoint.config
    reconfigure(folder, text_config=None, rope_scaling=None, rope_parameters=None, layer_types=None)
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.config == plain


ODD = (None, 0, -1, 1.5, "x", True, [], [None], ["x"], [4, 8], {}, {"a": 1}, 10**30, float("nan"), float("inf"))
PARTS = {
    "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128, "mscale": 1.0}
    | dict.fromkeys(("beta_fast", "beta_slow", "mscale_all_dim", "attention_factor", "llama_4_scaling_beta")),
    "yarn": {"factor": 2.0, "original_max_position_embeddings": 128, "alpha": 1.0, "beta": 32.0, "apply_scale": True},
    "llama_4_scaling": {"beta": 0.1, "original_max_position_embeddings": 128},
    "moe": {"num_experts": 4, "num_experts_per_tok": 2},
}
PLAIN_KEYS = ("text_config", "rope_parameters", "layer_types", "hidden_act", "activation", "max_seq_len", "head_dim")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_whatever_stands_under_a_key_gives_a_named_error_or_a_model(layout, odd, tmp_path):
    path = synthesise("tiny", tmp_path / "tiny", layout=layout.name) / layout.config_file
    good = json.loads(path.read_text())
    broken = [good | {key: odd} for key in (*good, *PLAIN_KEYS, *PARTS)]
    broken += [good | {name: part | {key: odd}} for name, part in PARTS.items() for key in part]
    for config in broken:
        with contextlib.suppress(CheckpointError):
            assert layout.read_config(path, config).n_layers > 0


@pytest.mark.parametrize("value", [None, 0, -1, "64", 6.5])
def test_a_size_that_is_none_is_named(folder, value):
    reconfigure(folder, hidden_size=value)
    with pytest.raises(CheckpointError, match="hidden_size must be a whole number"):
        Checkpoint.open(folder)


def test_heads_that_cannot_be_shared_out_are_refused(folder):
    reconfigure(folder, num_key_value_heads=3)
    with pytest.raises(CheckpointError, match="no multiple"):
        Checkpoint.open(folder)


# Broken files.


def test_a_folder_without_configuration_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither config\.json nor params\.json"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("content", ["{", "[" * 100_000])
def test_a_configuration_that_is_no_json_is_named(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json.*no JSON"):
        Checkpoint.open(folder)


def test_missing_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights \(model\*\.safetensors\)$"):
        Checkpoint.open(folder)


def test_pickled_weights_are_not_read_and_the_error_says_so(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="save them as safetensors"):
        Checkpoint.open(folder)


def test_a_folder_in_the_place_of_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: it cannot be read \(Is a directory\)"):
        Checkpoint.open(folder)


def test_a_missing_shard_is_named(tmp_path):
    path = synthesise("tiny", tmp_path / "tiny", shard_bytes=60_000)
    next(path.glob("model-00002-of-*.safetensors")).unlink()
    with pytest.raises(
        CheckpointError, match=r"model-00002-of-\d+\.safetensors: it is missing; model\.safetensors\.index"
    ):
        Checkpoint.open(path)


def test_two_files_with_the_same_tensor_are_named(folder):
    whole = folder / "model.safetensors"
    for number in (1, 2):
        (folder / f"model-{number}.safetensors").write_bytes(whole.read_bytes())
    whole.unlink()
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors: it holds .*, and so does model-1\.safetensors"):
        Checkpoint.open(folder)


def test_a_whole_file_beside_an_index_of_others_is_named(folder, tmp_path):
    sharded = synthesise("tiny", tmp_path / "sharded", shard_bytes=30_000)
    (sharded / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.safetensors: beside it lies model\.safetensors\.index\.json"):
        Checkpoint.open(sharded)


def test_a_tensor_that_its_shard_does_not_hold_is_named(folder):
    index = {"weight_map": dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")}
    rewrite(folder, lambda tensors: tensors.pop(K))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=f"{K} is missing in it"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', "{}", "[" * 100_000])
def test_an_index_that_is_none_is_named(folder, content):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="no index of shards"):
        Checkpoint.open(folder)


def test_an_index_may_not_name_a_file_elsewhere(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret"}}')
    with pytest.raises(CheckpointError, match=r"'\.\./secret', which lies outside"):
        Checkpoint.open(folder)


def test_a_missing_tensor_is_named(folder):
    rewrite(folder, lambda tensors: tensors.pop(K))
    with pytest.raises(CheckpointError, match=f"{K} is missing"):
        Checkpoint.open(folder)


def test_a_tensor_left_over_is_named(folder):
    rewrite(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": np.ones(64, np.float32)}))
    with pytest.raises(CheckpointError, match=r"q_proj\.bias is left over"):
        Checkpoint.open(folder)


def test_a_wrong_shape_is_named_with_the_right_one(folder):
    rewrite(folder, lambda tensors: tensors.update({K: tensors[K][:16]}))
    with pytest.raises(CheckpointError, match=rf"{K} has the shape \[16, 64\], but config\.json calls for \[32, 64\]"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "F64"])
def test_a_type_that_cannot_be_read_is_named(folder, dtype):
    edit_header(folder / "model.safetensors", lambda header: header[K].update(dtype=dtype))
    with pytest.raises(CheckpointError, match=f"{K} is stored as {dtype}"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda header: header[K].update(data_offsets=[0, 10**9]), "truncated"),
        (lambda header: header[K].update(data_offsets=[8, 4]), "ends before it begins"),
        (lambda header: header[K].update(data_offsets=[0, 12]), "has 12 bytes"),
        (lambda header: header[K].update(data_offsets=[-4, 4]), "cannot be read"),
        (lambda header: header[K].update(shape=[2, "a"]), "cannot be read"),
        (lambda header: header[K].pop("dtype"), "cannot be read"),
    ],
)
def test_a_header_that_does_not_fit_its_data_is_refused(folder, edit, named):
    edit_header(folder / "model.safetensors", edit)
    with pytest.raises(CheckpointError, match=named):
        Checkpoint.open(folder)


def test_a_header_longer_than_its_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes((10**12).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match="truncated or no safetensors file"):
        Checkpoint.open(folder)


@given(kept=st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_always_found_when_it_is_opened(tiny_checkpoint, tmp_path_factory, kept):
    content = (tiny_checkpoint() / "model.safetensors").read_bytes()
    path = tmp_path_factory.getbasetemp() / "truncated.safetensors"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError, match=r"truncated|cannot be read"):
        SafetensorsFile(path)


@given(data=st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_gives_a_named_error_or_is_harmless(tiny_checkpoint, tmp_path_factory, data):
    content = bytearray((tiny_checkpoint() / "model.safetensors").read_bytes())
    length = int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 7 + length))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
    except CheckpointError:
        return
    file.close()


def test_a_file_that_becomes_shorter_while_it_is_read_is_named(folder):
    with Checkpoint.open(folder) as checkpoint:
        os.truncate(folder / "model.safetensors", 5000)
        with pytest.raises(CheckpointError, match="shorter"):
            checkpoint.tensor("layers.1.down")
