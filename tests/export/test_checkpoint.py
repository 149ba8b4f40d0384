"""Checkpoints: one model whatever its layout, type and number of files, and what lies beside the weights."""

from __future__ import annotations

import base64
import json
import math
import shutil
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mistral_common.integrations.chat_templates.chat_templates import generate_chat_template
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import AssistantSpec, Yarn
from edge_assistant.errors import CheckpointError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.safetensors_file import SafetensorsFile
from edge_assistant_export.synth import synthesise

COMMIT = "0123456789abcdef0123456789abcdef01234567"
K = "model.layers.1.self_attn.k_proj.weight"


def read_all(path) -> dict[str, np.ndarray]:
    with Checkpoint.open(path) as checkpoint:
        return {name: checkpoint.tensor(name) for name in names(checkpoint)}


def names(checkpoint) -> list[str]:
    layer = ("attention_norm", "q", "k", "v", "o", "ffn_norm", "gate", "up", "down")
    head = [] if checkpoint.config.tied_embedding else ["lm_head"]
    return [
        "embedding",
        "norm",
        *head,
        *(f"layers.{i}.{name}" for i in range(checkpoint.config.n_layers) for name in layer),
    ]


def rewrite(folder, change) -> None:
    """Write the weights once more, after a change of theirs."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def reconfigure(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


# One model, many forms.


@pytest.mark.parametrize("shape", [{}, {"head_dim": 32}, {"tie_word_embeddings": True}, {"sliding_window": 8}])
def test_both_layouts_give_the_same_model(tiny_checkpoint, mistral_layout, tmp_path, shape):
    ours = tiny_checkpoint(**shape)
    theirs = mistral_layout(ours, tmp_path / "mistral")
    with Checkpoint.open(ours) as one, Checkpoint.open(theirs) as other:
        assert (one.layout, other.layout) == ("huggingface", "mistral")
        assert one.config == other.config
    expected, found = read_all(ours), read_all(theirs)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
def test_shards_hold_what_one_file_holds(tmp_path, layout):
    whole = synthesise("tiny", tmp_path / "whole", layout=layout)
    sharded = synthesise("tiny", tmp_path / "sharded", layout=layout, shard_bytes=30_000)
    assert len(list(sharded.glob("*.safetensors"))) > 3
    expected, found = read_all(whole), read_all(sharded)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_type_is_read_exactly(folder, dtype):
    stored = load_file(folder / "model.safetensors")[K].astype(dtype)
    rewrite(folder, lambda tensors: tensors.update({K: stored}))
    with Checkpoint.open(folder) as checkpoint:
        found = checkpoint.tensor("layers.1.k")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored.astype(np.float32))


@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
@pytest.mark.parametrize("name", ["embedding", "norm", "layers.0.q", "layers.1.k", "layers.1.down"])
@given(data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_the_rows_of_the_whole(tmp_path_factory, layout, name, data):
    path = tmp_path_factory.getbasetemp() / f"rows-{layout}"
    if not path.exists():
        synthesise("tiny", path, layout=layout)
    with Checkpoint.open(path) as checkpoint:
        whole = checkpoint.tensor(name)
        assert whole.shape == checkpoint.shape(name)
        bound = st.integers(0, len(whole) + 3)
        rows = slice(data.draw(bound), data.draw(bound))
        np.testing.assert_array_equal(checkpoint.tensor(name, rows), whole[rows])


def test_reading_some_rows_takes_the_memory_of_some_rows(tmp_path):
    rows, width = 4096, 1024
    save_file({"weight": np.ones((rows, width), ml_dtypes.bfloat16)}, tmp_path / "a.safetensors")
    file = SafetensorsFile(tmp_path / "a.safetensors")
    tracemalloc.start()
    try:
        for start in range(0, rows, 64):
            assert file.read("weight", slice(start, start + 64)).sum() == 64 * width
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        file.close()
    assert peak < 64 * width * (2 + 4 + 4)


def test_the_language_part_of_a_model_that_sees_is_read(folder):
    config = json.loads((folder / "config.json").read_text())
    top = {"model_type": "mistral3", "tie_word_embeddings": False, "vision_config": {"model_type": "pixtral"}}
    (folder / "config.json").write_text(json.dumps(top | {"text_config": config}))
    expected = load_file(folder / "model.safetensors")
    tensors = {f"language_model.{name}": tensor for name, tensor in expected.items()}
    save_file(tensors | {"vision_tower.patch_conv.weight": np.ones(3)}, folder / "model.safetensors")
    np.testing.assert_array_equal(read_all(folder)["layers.1.k"], expected[K])


def test_the_language_part_is_read_by_the_names_that_its_modules_have(folder):
    config = json.loads((folder / "config.json").read_text())
    top = {"model_type": "mistral3", "tie_word_embeddings": False, "vision_config": {"model_type": "pixtral"}}
    (folder / "config.json").write_text(json.dumps(top | {"text_config": config}))
    expected = load_file(folder / "model.safetensors")
    tensors = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in expected.items()}
    for part in ("vision_tower.patch_conv", "multi_modal_projector.norm"):
        tensors[f"model.{part}.weight"] = np.ones(3)
    save_file(tensors, folder / "model.safetensors")
    found = read_all(folder)
    np.testing.assert_array_equal(found["layers.1.k"], expected[K])
    np.testing.assert_array_equal(found["lm_head"], expected["lm_head.weight"])


def test_a_head_beside_a_tied_embedding_is_the_embedding(tiny_checkpoint, tmp_path):
    folder = Path(shutil.copytree(tiny_checkpoint(tie_word_embeddings=True), tmp_path / "tied"))
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}))
    with Checkpoint.open(folder) as checkpoint, pytest.raises(KeyError):
        checkpoint.tensor("lm_head")


@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
def test_a_head_of_its_own_is_read_whatever_the_configuration_says(folder, mistral_layout, tmp_path, layout):
    reconfigure(folder, tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    path = folder if layout == "huggingface" else mistral_layout(folder, tmp_path / "mistral")
    with Checkpoint.open(path) as checkpoint:
        assert not checkpoint.config.tied_embedding
        np.testing.assert_array_equal(checkpoint.tensor("lm_head"), tensors["lm_head.weight"])


def test_a_head_that_differs_in_its_last_number_is_one_of_its_own(tiny_checkpoint, tmp_path):
    folder = Path(shutil.copytree(tiny_checkpoint(tie_word_embeddings=True), tmp_path / "tied"))
    head = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].copy()
    head[-1, -1] += 1
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": head}))
    with Checkpoint.open(folder) as checkpoint:
        assert not checkpoint.config.tied_embedding


@pytest.mark.parametrize("head", [True, False])
def test_a_model_that_sees_and_says_nothing_is_tied_where_it_has_no_head(folder, head):
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral3", "text_config": config}))
    tensors = {f"language_model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    if not head:
        del tensors["language_model.lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.config.tied_embedding != head


def test_without_weights_the_index_tells_of_a_head(tmp_path):
    folder = synthesise("tiny", tmp_path / "sharded", shard_bytes=30_000)
    reconfigure(folder, tie_word_embeddings=True)
    for weights in (True, False):
        with Checkpoint.open(folder, weights=weights) as checkpoint:
            assert not checkpoint.config.tied_embedding


def test_of_several_files_without_an_index_the_whole_one_is_read(folder):
    expected = load_file(folder / "model.safetensors")
    save_file({name: -tensor for name, tensor in expected.items()}, folder / "model_fp16.safetensors")
    np.testing.assert_array_equal(read_all(folder)["layers.1.k"], expected[K])


def test_weights_of_the_layout_that_has_them_are_read(folder, mistral_layout, tmp_path):
    theirs = mistral_layout(folder, tmp_path / "mistral")
    shutil.copy(folder / "config.json", theirs)
    for weights in (True, False):
        with Checkpoint.open(theirs, weights=weights) as checkpoint:
            assert checkpoint.layout == "mistral"
    shutil.copy(folder / "model.safetensors", theirs)
    with Checkpoint.open(theirs) as checkpoint:
        assert checkpoint.layout == "huggingface"


def test_a_closed_checkpoint_holds_no_file(folder):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Checkpoint.open(folder) as checkpoint:
        assert len(list(Path("/proc/self/fd").iterdir())) > before
    checkpoint.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Configuration.


def test_absent_keys_have_the_defaults_of_transformers(folder):
    config = json.loads((folder / "config.json").read_text())
    absent = (
        "head_dim",
        "rope_theta",
        "rms_norm_eps",
        "sliding_window",
        "max_position_embeddings",
        "tie_word_embeddings",
    )
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key not in absent}))
    with Checkpoint.open(folder) as checkpoint:
        found = checkpoint.config
    assert (found.head_dim, found.rope_theta, found.norm_eps, found.sliding_window) == (16, 10_000.0, 1e-6, 4096)
    assert (found.max_positions, found.tied_embedding) == (131_072, False)


def test_rotary_parameters_are_read_in_the_newer_form(folder):
    reconfigure(folder, rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0})
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.config.rope_theta == 500_000.0


def test_a_ministral_3_that_says_nothing_of_its_positions_has_those_of_transformers(folder):
    config = json.loads((folder / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("rope_theta", "max_position_embeddings")}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "ministral3"}))
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.config.yarn == Yarn(16.0, 16384, 32.0, 1.0, 1.0)
        assert (checkpoint.config.rope_theta, checkpoint.config.max_positions) == (1e6, 16384)


@pytest.mark.parametrize(("window", "theta"), [(None, 1_000_000.0), (4096, 10_000.0)])
def test_params_without_theta_have_that_of_their_time(tmp_path, window, theta):
    path = synthesise("tiny", tmp_path / "tiny", layout="mistral")
    params = json.loads((path / "params.json").read_text()) | {"sliding_window": window}
    del params["rope_theta"]
    (path / "params.json").write_text(json.dumps(params))
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.config.rope_theta == theta


def rewrite_params(path, **changes):
    params = json.loads((path / "params.json").read_text()) | changes
    (path / "params.json").write_text(json.dumps(params))


@pytest.mark.parametrize("key", ["sliding_window", "_sliding_window"])
def test_a_pattern_of_windows_is_repeated_over_the_layers(tmp_path, key):
    path = synthesise("tiny", tmp_path / "tiny", layout="mistral", n_layers=6)
    rewrite_params(path, **{"sliding_window": None, key: [None, 16, 16]})
    with Checkpoint.open(path) as checkpoint:
        config = checkpoint.config
    assert config.full_attention_layers == (0, 3)
    assert [config.window_of(layer) for layer in range(6)] == [None, 16, 16, None, 16, 16]


def test_layers_are_of_the_types_that_the_configuration_names(folder):
    reconfigure(folder, sliding_window=8, layer_types=["sliding_attention", "full_attention"], model_type="ministral")
    with Checkpoint.open(folder) as checkpoint:
        assert [checkpoint.config.window_of(layer) for layer in range(2)] == [8, None]


def test_both_layouts_stretch_positions_alike(folder, tmp_path):
    stretch = {"factor": 4.0, "original_max_position_embeddings": 64}
    reconfigure(folder, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "beta_fast": 8.0, **stretch})
    other = synthesise("tiny", tmp_path / "tiny", layout="mistral")
    rewrite_params(other, yarn={"beta": 8.0, "alpha": 1.0, "apply_scale": True, **stretch})
    with Checkpoint.open(folder) as one, Checkpoint.open(other) as two:
        assert one.config.yarn == two.config.yarn == Yarn(4.0, 64, 8.0, 1.0, 0.1 * math.log(4) + 1)


def test_positions_end_where_queries_would_be_scaled(folder, tmp_path):
    stretch = {"factor": 4.0, "original_max_position_embeddings": 64}
    reconfigure(folder, rope_parameters={"type": "yarn", "rope_theta": 1e4, "llama_4_scaling_beta": 0.1, **stretch})
    other = synthesise("tiny", tmp_path / "tiny", layout="mistral")
    scaling = {"beta": 0.1, "original_max_position_embeddings": 64}
    rewrite_params(other, yarn=stretch, llama_4_scaling=scaling)
    for path in (folder, other):
        with Checkpoint.open(path) as checkpoint:
            assert checkpoint.config.max_positions == 64


# What lies beside the weights.


def test_a_checkpoint_without_a_tokenizer_says_what_to_put_there(folder):
    (folder / "tokenizer.json").unlink()
    with (
        Checkpoint.open(folder) as checkpoint,
        pytest.raises(CheckpointError, match=r"no tokenizer: put the tekken\.json"),
    ):
        checkpoint.tokenizer_json()


def test_the_tokenizer_of_another_model_is_refused(folder, tmp_path):
    shutil.copy(synthesise("tiny", tmp_path / "larger") / "tokenizer.json", folder)
    with Checkpoint.open(folder) as checkpoint, pytest.raises(CheckpointError, match=r"512 tokens.*rows for 270"):
        checkpoint.tokenizer_json()


def test_control_tokens_are_known_by_name(folder):
    with Checkpoint.open(folder) as checkpoint:
        ids = checkpoint.special_ids()
    assert (ids["<s>"], ids["</s>"], ids["[INST]"]) == (1, 2, 3)


@pytest.mark.parametrize(
    ("config", "version"),
    [
        (None, "v7-tekken"),
        ({"chat_template": "{{ '[SYSTEM_PROMPT]' }} {{ '[INST]' }}"}, "v7-tekken"),
        ({"chat_template": [{"name": "default", "template": "[SYSTEM_PROMPT] [INST]"}]}, "v7-tekken"),
        ({"chat_template": "{{ '[INST]' }}"}, "v3-tekken"),
        ({"chat_template": "{{ '<|im_start|>' }}"}, None),
        ({"bos_token": "<s>"}, None),
    ],
)
def test_the_chat_template_says_which_format_it_is(folder, config, version):
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.instruct == version


def template_of(version: str) -> str:
    """Return the chat template that mistral-common writes for a version."""
    effort = {"reasoning_effort_values": ("none", "high"), "reasoning_effort_default": "none"}
    return generate_chat_template(
        spm=False,
        tokenizer_version=TokenizerVersion(version),
        image_support=False,
        audio_support=False,
        thinking_support=False,
        default_system_prompt=None,
        plain_thinking_support=False,
        use_special_token_variables=True,
        model_settings_fields=None,
        **(effort if version == "v15" else dict.fromkeys(effort)),
    )


@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize(
    ("version", "instruct"), [("v3", "v3-tekken"), ("v7", "v7-tekken"), ("v11", "v11"), ("v13", "v13")]
)
def test_a_template_of_mistrals_tells_what_the_control_tokens_leave_open(folder, version, instruct, thinks):
    add_controls(folder, "[ARGS]", "[CALL_ID]", *(["[THINK]", "[/THINK]"] if thinks else []))
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.instruct == ("v13" if thinks else "v11")
    (folder / "chat_template.jinja").write_text(template_of(version))
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.instruct == instruct


def test_a_version_after_those_that_are_known_has_no_chat(folder):
    add_controls(folder, "[ARGS]", "[THINK]", "[/THINK]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]")
    (folder / "chat_template.jinja").write_text(template_of("v15"))
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.instruct is None


@pytest.mark.parametrize("version", ["v11", "v13"])
def test_a_template_does_not_overrule_the_version_that_tekken_names(folder, version):
    words = [{"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode()} for byte in range(256)]
    listed = [{"rank": 1, "token_str": "<s>"}, {"rank": 3, "token_str": "[INST]"}]
    config = {"pattern": r"\S+", "default_vocab_size": 270, "default_num_special_tokens": 14, "version": version}
    (folder / "tekken.json").write_text(json.dumps({"config": config, "vocab": words, "special_tokens": listed}))
    (folder / "tokenizer.json").unlink()
    (folder / "chat_template.jinja").write_text("[SYSTEM_PROMPT] [INST] [TOOL_CALLS]")
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.instruct == version


def add_controls(folder, *names) -> None:
    """Let control tokens take the places of the last bytes of a tokenizer.json."""
    document = json.loads((folder / "tokenizer.json").read_bytes())
    ids = document["model"]["vocab"]
    for name, letter in zip(names, sorted(ids, key=ids.__getitem__)[-len(names) :], strict=True):
        ids[name] = ids.pop(letter)
        document["added_tokens"].append(document["added_tokens"][0] | {"id": ids[name], "content": name})
    (folder / "tokenizer.json").write_text(json.dumps(document))


def test_a_model_without_control_tokens_has_no_chat(stories):
    with Checkpoint.open(stories) as checkpoint:
        assert checkpoint.instruct is None
        assert checkpoint.special_ids() == {"<unk>": 0, "<s>": 1, "</s>": 2}


def test_a_template_with_inst_in_plain_text_is_version_1(stories, tmp_path):
    folder = Path(shutil.copytree(stories, tmp_path / "v1"))
    folder.chmod(0o755)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}[INST] {{ message }} [/INST]")
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.instruct == "v1"


def test_the_assistant_is_read(folder):
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.assistant is None
        (folder / "assistant.json").write_text('{"system": "Be kind.", "tools": "learnt"}')
        assert checkpoint.assistant == AssistantSpec("Be kind.", "learnt")
        (folder / "assistant.json").write_text('{"system": "Be kind."}')
        with pytest.raises(CheckpointError, match="tools") as caught:
            _ = checkpoint.assistant
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_a_template_that_is_not_in_utf_8_is_named(folder, name):
    (folder / name).write_bytes("{{ 'Grüße' }} [INST]".encode("latin-1"))
    with Checkpoint.open(folder) as checkpoint, pytest.raises(CheckpointError, match=f"{name}: .*utf-8"):
        _ = checkpoint.instruct


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (None, None),
        ("# A model", None),
        ("---\nlicense: apache-2.0\n---\n# A model", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: mrl\n---\n", "mrl"),
        ("---\n- a: [\n---\n", None),
        ("---\ndate: 2024-13-45\n---\n", None),
        ("---\n" + "[" * 3000 + "\n---\n", None),
    ],
)
def test_the_licence_is_that_of_the_card(folder, card, licence):
    if card is not None:
        (folder / "README.md").write_text(card)
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.licence == licence
