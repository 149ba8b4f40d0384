"""A bundle of embeddings makes of a text the vector that transformers makes with the checkpoint, on a board's packages.

Checkpoints are small and random. In float32 the cosine of both vectors is at least 0.99999, in 8 bits at least 0.98.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_assistant.bundle import EmbeddingBundle
from edge_assistant.errors import VerificationError
from edge_assistant_export.cli import main
from edge_assistant_export.embedding import EmbeddingRecipe, describe_embedding, open_embedding

torch = pytest.importorskip("torch", reason="runs in the environment of transformers: make test-oracles")
transformers = pytest.importorskip("transformers", reason="runs in an environment of its own: make test-oracles")
pytest.importorskip("optimum.exporters.onnx", reason="make test-oracles installs optimum-onnx")

from edge_assistant_export.faithful import embedding_quality  # noqa: E402

TOLERANCE = {32: 1e-5, 8: 0.02}
ON_BOARD = Path(__file__).with_name("on_board.py")
TEXTS = ["the lamp is on", "a Lamp", "lamp", "the hall light on the lamp is off and a light is the " * 3]
WORDS = ["the", "a", "lamp", "light", "hall", "is", "on", "off", "and", "query", "passage", ":", "##s", "##lamp"]
SMALL = {
    "vocab_size": 60,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "initializer_range": 0.3,
}
FAMILIES = {
    "bert": lambda: transformers.BertConfig(**SMALL, intermediate_size=64, max_position_embeddings=40),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=60, dim=48, n_heads=4, n_layers=3, hidden_dim=64, max_position_embeddings=40, initializer_range=0.3
    ),
    "roberta": lambda: transformers.RobertaConfig(**SMALL, intermediate_size=64, max_position_embeddings=42),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**SMALL, intermediate_size=64, max_position_embeddings=42),
}


def make_checkpoint(path: Path, family: str, pooling: str = "mean", *, normalize: bool = True, **length) -> Path:
    """Write a checkpoint as sentence-transformers does, with a WordPiece vocabulary; `length` is of its own file."""
    torch.manual_seed(4)
    transformers.AutoModel.from_config(FAMILIES[family]()).save_pretrained(path)
    write_tokenizer(path)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")][: 3 if normalize else 2]
    modules = [{"idx": n, "name": str(n), "path": where, "type": f"st.{kind}"} for n, (kind, where) in enumerate(kinds)]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}": mode == f"{pooling}_token" + "s" * (pooling == "mean") for mode in
             ("cls_token", "mean_tokens", "max_tokens")}  # fmt: skip
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48, **modes}))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24, "do_lower_case": True, **length}))
    return path


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "aehlnost")]
    vocab = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *letters])
    assert len(vocab) <= SMALL["vocab_size"]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(7)
    tokenizer.save(str(path / "tokenizer.json"))


def vectors_of(checkpoint: Path, manifest, texts) -> np.ndarray:
    """What torch makes of each text by itself, pooled as sentence-transformers says."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(24)
    model = transformers.AutoModel.from_pretrained(checkpoint).eval()
    vectors = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text.lower()).ids])
        with torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        vector = hidden[0] if manifest.pooling == "cls" else hidden.mean(0)
        vectors.append((vector / vector.norm() if manifest.normalize else vector).numpy())
    return np.array(vectors)


def on_board(bundle: EmbeddingBundle, tmp_path: Path, texts) -> np.ndarray:
    np.savez(tmp_path / "given.npz", texts=texts)
    command = [sys.executable, ON_BOARD, bundle.path, tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(command, check=True, timeout=120)
    return np.load(tmp_path / "found.npz")["vectors"]


def export(checkpoint: Path, out: Path, *options: object) -> EmbeddingBundle:
    assert main(["embedding", str(checkpoint), str(out), *map(str, options)]) == 0
    return EmbeddingBundle.open(out)


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_board_makes_the_vectors_of_transformers(tmp_path, family, bits):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", family)
    bundle = export(checkpoint, tmp_path / "out", "--bits", bits)
    found, expected = on_board(bundle, tmp_path, TEXTS), vectors_of(checkpoint, bundle.manifest, TEXTS)
    cosines = (found * expected).sum(axis=1)
    print(f"{family}, {bits} bits: least cosine {cosines.min():.6f}, recorded {dict(bundle.manifest.quality)}")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert cosines.min() > 1 - TOLERANCE[bits]
    assert (found @ expected.T).argmax(axis=1).tolist() == list(range(len(TEXTS))), "each is the likest to itself"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_and_length_are_the_checkpoint_s(tmp_path, pooling):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", pooling, normalize=False)
    bundle = export(checkpoint, tmp_path / "out", "--bits", 32)
    manifest = bundle.manifest
    assert (manifest.pooling, manifest.normalize, manifest.max_length, manifest.pad_id) == (pooling, False, 24, 0)
    assert (manifest.embedding_size, manifest.architecture.n_layers) == (48, 3)
    expected = vectors_of(checkpoint, manifest, TEXTS)
    np.testing.assert_allclose(on_board(bundle, tmp_path, TEXTS), expected, atol=1e-3)


def test_optimum_loads_the_folder_as_it_lies_there(tmp_path):
    optimum = pytest.importorskip("optimum.onnxruntime", reason="make test-oracles installs optimum-onnx")
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert")
    bundle = export(checkpoint, tmp_path / "out", "--bits", 32)
    ids = torch.tensor([[2, 4, 6, 10, 3]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    theirs = optimum.ORTModelForFeatureExtraction.from_pretrained(bundle.path)(**given).last_hidden_state
    with torch.no_grad():
        expected = transformers.AutoModel.from_pretrained(checkpoint)(**given).last_hidden_state
    torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=0)


def test_a_float32_graph_of_other_weights_is_refused(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert")
    bundle = export(checkpoint, tmp_path / "out", "--bits", 32)
    manifest = describe_embedding(open_embedding(checkpoint), EmbeddingRecipe(bits=32), "x")
    torch.manual_seed(5)
    other = transformers.AutoModel.from_config(FAMILIES["bert"]()).eval()
    with pytest.raises(VerificationError, match="cosine"):
        embedding_quality(other, bundle.path, manifest)


@pytest.mark.parametrize("bits", [8, 32])
def test_vectors_of_nothing_are_refused(tmp_path, capsys, bits):
    from safetensors.numpy import load_file, save_file

    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert")
    tensors = {name: 0 * tensor for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    assert main(["embedding", str(checkpoint), str(tmp_path / "out"), "--bits", str(bits)]) == 1
    assert "computes what is no number" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_without_the_pooler_that_is_not_used_will_do(tmp_path):
    from safetensors.numpy import load_file, save_file

    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert")
    tensors = load_file(checkpoint / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    assert len(kept) < len(tensors)
    save_file(kept, checkpoint / "model.safetensors", {"format": "pt"})
    assert export(checkpoint, tmp_path / "out", "--bits", 32).manifest.quality["min_cosine"] > 0.9999
    del kept["encoder.layer.0.output.dense.weight"]
    save_file(kept, checkpoint / "model.safetensors", {"format": "pt"})
    assert main(["embedding", str(checkpoint), str(tmp_path / "other")]) == 1


def test_a_pooling_may_be_named_where_the_checkpoint_says_none(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert")
    (checkpoint / "modules.json").unlink()
    shutil.rmtree(checkpoint / "1_Pooling")
    assert main(["embedding", str(checkpoint), str(tmp_path / "out")]) == 1
    assert "--pooling mean|cls" in capsys.readouterr().err
    prompts = ("--query-prompt", "query: ", "--passage-prompt", "passage: ")
    manifest = export(checkpoint, tmp_path / "out", "--pooling", "cls", *prompts).manifest
    assert (manifest.pooling, manifest.normalize) == ("cls", True)
    assert (manifest.query_prompt, manifest.passage_prompt) == ("query: ", "passage: ")
