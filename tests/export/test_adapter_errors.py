"""What an adapter can be broken by, and what is not merged: each has its named error."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.errors import AdapterError, CheckpointError, UnsupportedAdapterError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.write import export

Q = "model.layers.0.self_attn.q_proj"


def change(adapter, edit) -> None:
    """Write the adapter's tensors once more, after a change of theirs."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


def reconfigure(adapter, **changes) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text()) | changes
    (adapter / "adapter_config.json").write_text(json.dumps(config))


# What is not merged.


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA'"),
        ({"peft_type": "ADALORA"}, "peft_type 'ADALORA'"),
        ({"bias": "lora_only"}, "bias 'lora_only'"),
        ({"use_dora": True}, "use_dora True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"use_qalora": True}, "use_qalora"),
        ({"trainable_token_indices": [7]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights 'pissa_niter_4', which changes the base weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights 'olora'"),
        ({"use_tomorrows_variant": 1}, "use_tomorrows_variant 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_no_plain_lora_is_refused_by_its_key(folder, adapter, changes, named):
    reconfigure(adapter, **changes)
    with pytest.raises(UnsupportedAdapterError, match=named) as caught:
        Checkpoint.open(folder, adapter=adapter)
    assert str(adapter / "adapter_config.json") in str(caught.value)
    assert "merge_and_unload" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"r": 0}, "r: .*greater than 0"),
        ({"r": "4"}, "r: .*integer"),
        ({"r": True}, "r: .*integer"),
        ({"lora_alpha": None}, "lora_alpha: .*number"),
        ({"rank_pattern": {"q_proj": -1}}, r"rank_pattern\.q_proj: "),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern.*is no regular expression"),
        ({"target_modules": "*"}, "target_modules.*is no regular expression"),
        ({"use_rslora": "no"}, "use_rslora: "),
    ],
    ids=str,
)
def test_a_key_of_the_wrong_kind_is_named(folder, adapter, changes, named):
    reconfigure(adapter, **changes)
    with pytest.raises(AdapterError, match=rf"adapter_config\.json: it is no configuration of an adapter: {named}"):
        Checkpoint.open(folder, adapter=adapter)


@pytest.mark.parametrize("key", ["peft_type", "r", "lora_alpha"])
def test_a_missing_key_is_named(folder, adapter, key):
    config = json.loads((adapter / "adapter_config.json").read_text())
    del config[key]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=f"{key}: Field required"):
        Checkpoint.open(folder, adapter=adapter)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"r": NaN}'])
def test_a_configuration_that_is_none_is_named(folder, adapter, content):
    (adapter / "adapter_config.json").write_bytes(content)
    with pytest.raises(AdapterError, match=r"adapter_config\.json: it is no configuration of an adapter"):
        Checkpoint.open(folder, adapter=adapter)


def test_missing_files_are_named(folder, adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors: it is missing; an adapter_model\.bin"):
        Checkpoint.open(folder, adapter=adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json: it is missing: name the folder of an adapter"):
        Checkpoint.open(folder, adapter=adapter)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        Checkpoint.open(folder, adapter=adapter / "nowhere")
    with pytest.raises(CheckpointError, match="name the folder that holds the adapter"):
        Checkpoint.open(folder, adapter=adapter / "adapter_model.bin")


def test_an_adapter_in_the_checkpoint_s_place_is_recognised(adapter):
    with pytest.raises(CheckpointError, match=r"it is an adapter, not a checkpoint: .* --adapter"):
        Checkpoint.open(adapter)


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.999])
def test_a_truncated_file_is_found_when_it_is_opened(folder, adapter, kept):
    path = adapter / "adapter_model.safetensors"
    os.truncate(path, kept if isinstance(kept, int) else int(path.stat().st_size * kept))
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: .*truncated"):
        Checkpoint.open(folder, adapter=adapter)


def test_a_file_that_becomes_shorter_while_it_is_read_is_named(folder, adapter):
    with Checkpoint.open(folder, adapter=adapter) as checkpoint:
        os.truncate(adapter / "adapter_model.safetensors", 5000)
        with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: it has become shorter"):
            checkpoint.tensor("layers.1.v")


def tensors_changed(**changes):
    """Return an edit that sets tensors by their ends: `q_A`, `q_B` are those of Q; None removes."""

    def edit(tensors):
        for key, value in changes.items():
            name = f"base_model.model.{Q}.lora_{key[-1]}.weight"
            if value is None:
                del tensors[name]
            else:
                tensors[name] = np.zeros(value, np.float32)

    return edit


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (tensors_changed(q_A=(3, 64)), rf"{Q}\.lora_A\.weight has rank 3, but r or rank_pattern .* says 4"),
        (tensors_changed(q_B=(64, 8)), rf"{Q}\.lora_B\.weight has rank 8, but r or rank_pattern .* says 4"),
        (tensors_changed(q_A=(4, 128)), r"lora_A\.weight has the shape \[4, 128\], but .* \[4, 64\].*\(tiny/base\)"),
        (tensors_changed(q_B=(32, 4)), r"lora_B\.weight has the shape \[32, 4\], but .* \[64, 4\].*\(tiny/base\)"),
        (tensors_changed(q_A=(4,)), r"lora_A\.weight has the shape \[4\]"),
        (tensors_changed(q_A=(0,)), r"lora_A\.weight has the shape \[0\]"),
        (tensors_changed(q_A=None), f"lora_A of {Q} is missing"),
        (tensors_changed(q_A=None, q_B=None), f"lora_A of {Q} is missing, which target_modules"),
    ],
)
def test_factors_that_do_not_fit_are_named(folder, adapter, edit, named):
    change(adapter, edit)
    with pytest.raises(AdapterError, match=named):
        Checkpoint.open(folder, adapter=adapter)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        (f"base_model.model.{Q}.lora_magnitude_vector", "lora_magnitude_vector is left over"),
        (f"base_model.model.{Q}.lora_B.bias", "lora_B.bias is left over"),
        (f"base_model.model.{Q}.lora_A.default.weight", "lora_A.default.weight is left over"),
        (f"base_model.model.{Q}.lora_embedding_A", "lora_embedding_A is left over"),
        (f"{Q}.lora_A.weight", f"{Q}.lora_A.weight is left over"),
        ("base_model.model.score.weight", "score.weight is left over"),
        ("base_model.model.lm_head.base_layer.weight", "lm_head.base_layer.weight is left over"),
        ("layers.0.attention.wq.lora_A.weight", "layers.0.attention.wq.lora_A.weight is left over"),
        ("base_model.model.model.layers.2.mlp.up_proj.lora_A.weight", r"layers\.2.*the checkpoint does not have"),
        ("base_model.model.model.layers.0.mlp.fc1.lora_A.weight", r"fc1.*trained on another model \(tiny/base\)"),
        ("base_model.model.lm_head.lora_A.weight", "changes lm_head, which target_modules .* leaves out"),
    ],
)
def test_a_tensor_left_over_is_named(folder, adapter, name, named):
    change(adapter, lambda tensors: tensors.update({name: np.zeros((4, 64), np.float32)}))
    with pytest.raises(AdapterError, match=named):
        Checkpoint.open(folder, adapter=adapter)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_an_embedding_saved_whole_is_refused(folder, adapter, name):
    rows = np.zeros((272, 64), np.float32)
    change(adapter, lambda tensors: tensors.update({f"base_model.model.{name}": rows}))
    with pytest.raises(UnsupportedAdapterError, match=f"{name}, an embedding saved whole"):
        Checkpoint.open(folder, adapter=adapter)


def test_an_embedding_to_which_tokens_were_added_is_refused(folder, lora_adapter, tmp_path):
    adapter = lora_adapter(tmp_path / "adapter", folder, ["lm_head"], target_modules=["lm_head"])
    rows = np.zeros((272, 64), np.float32)
    change(adapter, lambda tensors: tensors.update({"base_model.model.lm_head.base_layer.weight": rows}))
    with pytest.raises(AdapterError, match=r"has the shape \[272, 64\], but .* \[270, 64\]: tokens were added"):
        Checkpoint.open(folder, adapter=adapter)


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_one_side_of_a_tied_embedding_is_refused(tiny_checkpoint, folder, lora_adapter, tmp_path, module):
    full = "lm_head" if module == "lm_head" else "model.embed_tokens"
    adapter = lora_adapter(tmp_path / "adapter", folder, [full], target_modules=[module])
    with pytest.raises(UnsupportedAdapterError, match="the checkpoint's head is the embedding itself"):
        Checkpoint.open(tiny_checkpoint(tie_word_embeddings=True), adapter=adapter)


def test_the_adapter_of_another_model_is_refused(tiny_checkpoint, adapter):
    for shape in ({"hidden_size": 128}, {"num_key_value_heads": 4}, {"intermediate_size": 64}):
        with pytest.raises(AdapterError, match=r"has the shape .* trained on another model \(tiny/base\)"):
            Checkpoint.open(tiny_checkpoint(**shape), adapter=adapter)
    with pytest.raises(AdapterError, match=r"layers\.1.*does not have"):
        Checkpoint.open(tiny_checkpoint(num_hidden_layers=1), adapter=adapter)
    with pytest.raises(AdapterError, match=r"lora_A of model\.layers\.2\..* is missing"):
        Checkpoint.open(tiny_checkpoint(num_hidden_layers=3), adapter=adapter)


def test_an_adapter_that_changes_nothing_of_the_model_is_refused(folder, lora_adapter, tmp_path):
    adapter = lora_adapter(tmp_path / "adapter", folder, [], target_modules=["c_attn"])
    with pytest.raises(AdapterError, match="target_modules names no matrix that the checkpoint has"):
        Checkpoint.open(folder, adapter=adapter)


@pytest.mark.parametrize("factor", ["A", "B"])
def test_numbers_that_are_not_finite_are_named(folder, adapter, tmp_path, factor):
    name = f"base_model.model.{Q}.lora_{factor}.weight"
    change(adapter, lambda tensors: tensors[name].__setitem__((3, 1), np.inf))
    with (
        Checkpoint.open(folder, adapter=adapter) as checkpoint,
        pytest.raises(AdapterError, match=rf"{name} holds numbers that are not finite"),
    ):
        export(checkpoint, Recipe(), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_type_that_cannot_be_read_is_named(folder, adapter):
    name = f"base_model.model.{Q}.lora_A.weight"
    change(adapter, lambda tensors: tensors.update({name: tensors[name].astype(np.float64)}))
    with pytest.raises(CheckpointError, match=f"{name} is stored as F64"):
        Checkpoint.open(folder, adapter=adapter)
