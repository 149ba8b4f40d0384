"""What the export of a sentence encoder reads and refuses before anything heavy is imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edge_assistant.errors import CheckpointError, RecipeError, UnsupportedArchitectureError
from edge_assistant_export.cli import main
from edge_assistant_export.embedding import EmbeddingRecipe, describe_embedding, lowers, open_embedding

MINI_LM = {
    "model_type": "bert",
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
MODULES = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))


def write_modules(path: Path, modules=MODULES) -> None:
    listed = [
        {"idx": number, "name": str(number), "path": where, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, where) in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))


def write_pooling(path: Path, *modes: str, **others: object) -> None:
    said = {f"pooling_mode_{mode}": mode in modes for mode in ("cls_token", "mean_tokens", "max_tokens")}
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 384, **said, **others}))


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """Write all but the weights, of which nothing is read without torch."""
    from tokenizers import Tokenizer, models

    path = tmp_path / "mini"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(MINI_LM))
    Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(path / "tokenizer.json"))
    (path / "model.safetensors").touch()
    write_modules(path)
    write_pooling(path, "mean_tokens")
    return path


def describe(path: Path, **choices):
    return describe_embedding(open_embedding(path), EmbeddingRecipe(**choices), "finder")


def test_a_checkpoint_of_sentence_transformers_is_described(checkpoint):
    manifest = describe(checkpoint)
    assert (manifest.pooling, manifest.normalize, manifest.embedding_size) == ("mean", True, 384)
    assert (manifest.max_length, manifest.pad_id, manifest.bits) == (512, 0, 8)
    assert (manifest.query_prompt, manifest.passage_prompt, manifest.licence) == ("", "", None)
    assert manifest.architecture.n_layers == 6


def test_length_and_lowering_are_read(checkpoint):
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 300}))
    assert (describe(checkpoint).max_length, lowers(open_embedding(checkpoint))) == (300, False)
    said = {"max_seq_length": 256, "do_lower_case": True}
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(said))
    assert (describe(checkpoint).max_length, lowers(open_embedding(checkpoint))) == (256, True)
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 9999}))
    assert describe(checkpoint).max_length == 512
    (checkpoint / "sentence_bert_config.json").unlink()
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"model_max_length": int(1e30)}))
    assert describe(checkpoint).max_length == 512


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_a_roberta_counts_positions_from_its_padding(checkpoint, family):
    config = {**MINI_LM, "model_type": family, "max_position_embeddings": 514, "pad_token_id": 1}
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert (describe(checkpoint).max_length, describe(checkpoint).pad_id) == (512, 1)


def test_a_distilbert_has_names_of_its_own(checkpoint):
    config = {"model_type": "distilbert", "n_layers": 6, "dim": 768, "n_heads": 12, "vocab_size": 30522}
    (checkpoint / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    shape = describe(checkpoint).architecture
    assert (shape.n_layers, shape.hidden_size, shape.n_heads) == (6, 768, 12)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"query": "Q: ", "passage": "P: "}, ("Q: ", "P: ")),
        ({"query": "Q: ", "document": "D: "}, ("Q: ", "D: ")),
        ({"query": "Q: "}, ("Q: ", "")),
        ({}, ("", "")),
        (None, ("", "")),
    ],
)
def test_prompts_are_the_checkpoint_s_unless_chosen(checkpoint, said, expected):
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"prompts": said}))
    manifest = describe(checkpoint)
    assert (manifest.query_prompt, manifest.passage_prompt) == expected
    manifest = describe(checkpoint, query_prompt="", passage_prompt="chosen: ")
    assert (manifest.query_prompt, manifest.passage_prompt) == ("", "chosen: ")


def test_a_default_prompt_stands_before_what_has_none_of_its_own(checkpoint):
    said = {"prompts": {"query": "Q: ", "any": "A: "}, "default_prompt_name": "any"}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(said))
    manifest = describe(checkpoint)
    assert (manifest.query_prompt, manifest.passage_prompt) == ("Q: ", "A: ")


def test_without_modules_the_pooling_must_be_named(checkpoint):
    (checkpoint / "modules.json").unlink()
    with pytest.raises(CheckpointError, match=r"no modules\.json.*--pooling mean\|cls"):
        describe(checkpoint)
    assert describe(checkpoint, pooling="cls").pooling == "cls"


@pytest.mark.parametrize(
    "modules",
    [
        (*MODULES[:2], ("Dense", "2_Dense"), ("Normalize", "3_Normalize")),
        (MODULES[0],),
        (("WordEmbeddings", ""), MODULES[1]),
    ],
)
def test_modules_that_no_board_knows_are_named(checkpoint, modules):
    write_modules(checkpoint, modules)
    with pytest.raises(UnsupportedArchitectureError, match=rf"modules\.json: {modules[0][0]}"):
        describe(checkpoint)


def test_vectors_that_are_not_normalised_stay_so(checkpoint):
    write_modules(checkpoint, MODULES[:2])
    assert not describe(checkpoint).normalize


@pytest.mark.parametrize(
    ("modes", "others", "named"),
    [
        (("max_tokens",), {}, "pooling_mode_max_tokens"),
        (("cls_token", "mean_tokens"), {}, r"pooling_mode_cls_token \+ pooling_mode_mean_tokens"),
        ((), {}, "no pooling"),
        (("mean_tokens",), {"include_prompt": False}, "include_prompt false"),
    ],
)
def test_poolings_that_no_board_knows_are_named(checkpoint, modes, others, named):
    write_pooling(checkpoint, *modes, **others)
    with pytest.raises(UnsupportedArchitectureError, match=rf"1_Pooling/config\.json: {named}"):
        describe(checkpoint)


def test_a_transformer_in_a_folder_of_its_own_is_refused(checkpoint):
    write_modules(checkpoint, (("Transformer", "0_Transformer"), *MODULES[1:]))
    with pytest.raises(CheckpointError, match="lies in 0_Transformer/"):
        describe(checkpoint)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"type": "x.Transformer"}]'])
def test_modules_that_cannot_be_read_are_named(checkpoint, content):
    (checkpoint / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        describe(checkpoint)


@pytest.mark.parametrize(
    ("choice", "nearest"), [({"bits": 4}, "8"), ({"bits": 16}, "8"), ({"pooling": "means"}, "mean")]
)
def test_choices_that_cannot_be_name_the_nearest(choice, nearest):
    with pytest.raises(RecipeError, match=f"nearest that can is {nearest}"):
        EmbeddingRecipe(**choice)


def test_without_its_extra_the_command_says_how_to_install_it(checkpoint, tmp_path, capsys, monkeypatch):
    for name in ("torch", "transformers", "optimum"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "edge_assistant_export.with_optimum", raising=False)
    assert main(["embedding", str(checkpoint), str(tmp_path / "out")]) == 1
    assert "./export[speech]" in capsys.readouterr().err


def test_a_bundle_of_another_kind_is_not_overwritten(checkpoint, tiny_bundle, tmp_path, capsys):
    import shutil

    out = Path(shutil.copytree(tiny_bundle().path, tmp_path / "out"))
    assert main(["embedding", str(checkpoint), str(out), "--overwrite"]) == 1
    assert "in it would be lost" in capsys.readouterr().err
    assert (out / "model.onnx.data").exists()
