"""Vocabularies: every id of a converted tokenizer.json is the one that mistral-common gives."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import mistral_common
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer

from edge_assistant.errors import CheckpointError
from edge_assistant_export.vocab import Vocabulary, tekken_tokenizer

DATA = Path(mistral_common.__file__).parent / "data"
FILES = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "v3-tekken": "tekken_240911.json",
}
TEXTS = [
    "",
    "Turn on the light in the living room, please.",
    "Schalte das Licht im Wohnzimmer aus; die Tür bleibt geöffnet, größer!",
    "Éteins la lumière du séjour, s'il te plaît. Où est l'œuf ?",
    "Включи свет на кухне. Який сьогодні день?",
    "打开客厅的灯。リビングの電気をつけて。거실 불을 켜 줘.",
    "أطفئ الضوء في غرفة المعيشة. כבה את האור בסלון.",
    "बैठक की बत्ती जलाओ। เปิดไฟห้องนั่งเล่น ላሊበላ",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 e\u0301 ﬁ Å",
    "def f(x: int) -> str:\n\treturn f'{x:>08}'  # ok\r\n\r\n\n",
    "SELECT * FROM t WHERE a >= 3.14159 AND b != '1234567890';",
    "[INST] x [/INST]</s><s><unk><pad>[TOOL_CALLS]<SPECIAL_20>[control_9]<0x0A>",
    "▁ a▁b \x00 \ufeff \u200b \x7f",
    *("a" + " " * n + "b" for n in range(1, 40)),
    *(" " * n for n in range(1, 40)),
    *(character * 33 for character in "\n\tx-=é日"),
]
SOME_LETTERS = st.text(st.sampled_from("  \n\tabcdet'.,[]/INST<>s0129éß日本한🙂\u0301\u200d▁_-="), max_size=40)


@cache
def vocabulary(version: str) -> Vocabulary:
    """Return what is read from a folder that holds one of mistral-common's files under its public name."""
    file = DATA / FILES[version]
    with tempfile.TemporaryDirectory() as folder:
        name = "tekken.json" if file.suffix == ".json" else f"tokenizer.model{file.suffix}"
        shutil.copy(file, Path(folder) / name)
        return Vocabulary.read(Path(folder))


@cache
def tokenizer(version: str) -> Tokenizer:
    """Return the converted tokenizer."""
    tokenizer = Tokenizer.from_buffer(vocabulary(version).json)
    tokenizer.encode_special_tokens = True
    return tokenizer


@cache
def encoders(version: str):
    """Return two functions from text to ids: of the converted tokenizer, and of mistral-common."""
    ours = tokenizer(version)
    file = DATA / FILES[version]
    theirs = Tekkenizer.from_file(file) if file.suffix == ".json" else SentencePieceTokenizer(file)
    return (
        lambda text: ours.encode(text, add_special_tokens=False).ids,
        lambda text: theirs.encode(text, bos=False, eos=False),
    )


@pytest.mark.parametrize("version", FILES)
@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_mistral_common(version, text):
    ours, theirs = encoders(version)
    assert ours(text) == theirs(text)


@pytest.mark.parametrize("version", FILES)
@given(text=SOME_LETTERS | st.text(max_size=40))
@settings(max_examples=150)
def test_ids_of_any_text_are_those_of_mistral_common(version, text):
    ours, theirs = encoders(version)
    assert ours(text) == theirs(text)


@pytest.mark.parametrize("version", FILES)
@given(text=SOME_LETTERS | st.text(max_size=40))
@settings(max_examples=30)
def test_decoding_gives_the_text_back(version, text):
    ours, _ = encoders(version)
    # SentencePiece writes a space as this letter, and cannot tell them apart again.
    expected = text if version == "v3-tekken" else text.replace("▁", " ")
    assert tokenizer(version).decode(ours(text)) == expected


@pytest.mark.parametrize(("version", "size"), [("v1", 32000), ("v3", 32768), ("v3-tekken", 131072)])
def test_size_and_version_are_those_of_the_file(version, size):
    assert vocabulary(version).size == size
    assert vocabulary(version).instruct == version


@pytest.mark.parametrize("version", FILES)
def test_control_tokens_have_the_ids_of_mistral_common(version):
    file = DATA / FILES[version]
    theirs = Tekkenizer.from_file(file) if file.suffix == ".json" else SentencePieceTokenizer(file)
    ids = vocabulary(version).special_ids
    assert {"<unk>", "<s>", "</s>"} <= ids.keys()
    assert len(ids) < 40, "the unnamed ones are left out"
    for name, number in ids.items():
        assert theirs.id_to_piece(number) == name


@pytest.mark.parametrize("version", ["v3", "v7"])
def test_a_converted_tokenizer_is_known_again(version, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(vocabulary(version).json)
    again = Vocabulary.read(tmp_path)
    assert again.json == vocabulary(version).json
    assert again.instruct == version
    assert again.special_ids == vocabulary(version).special_ids


def tekken(**changes) -> dict:
    """Return a tekken file of the 256 bytes and two words."""
    words = [bytes([byte]) for byte in range(256)] + [b"ab", b"abc"]
    config = {"pattern": r"\S+|\s+", "default_vocab_size": 278, "default_num_special_tokens": 20, "version": "v7"}
    vocab = [{"rank": rank, "token_bytes": base64.b64encode(word).decode()} for rank, word in enumerate(words)]
    return {"config": config | changes, "vocab": vocab}


@pytest.mark.parametrize(
    ("version", "instruct"),
    [("v3", "v3-tekken"), ("v7", "v7-tekken"), ("v11", "v11"), ("v13", "v13"), ("v15", None), ("v99", None)],
)
def test_tekken_says_its_version(tmp_path, version, instruct):
    (tmp_path / "tekken.json").write_text(json.dumps(tekken(version=version)))
    vocabulary = Vocabulary.read(tmp_path)
    assert (vocabulary.instruct, vocabulary.names_version) == (instruct, True)


@pytest.mark.parametrize(
    ("names", "instruct"),
    [
        (["<s>"], None),
        (["[INST]"], "v3-tekken"),
        (["[INST]", "[SYSTEM_PROMPT]"], "v7-tekken"),
        (["[INST]", "[SYSTEM_PROMPT]", "[ARGS]", "[CALL_ID]"], "v11"),
        (["[INST]", "[SYSTEM_PROMPT]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"], "v13"),
        (["[INST]", "[SYSTEM_PROMPT]", "[ARGS]", "[THINK]", "[MODEL_SETTINGS]"], None),
    ],
)
def test_the_control_tokens_of_a_tokenizer_json_let_guess_its_version(tmp_path, names, instruct):
    listed = [{"rank": rank, "token_str": name} for rank, name in enumerate(names)]
    (tmp_path / "tokenizer.json").write_text(tekken_tokenizer(tekken() | {"special_tokens": listed}).to_str())
    vocabulary = Vocabulary.read(tmp_path)
    assert (vocabulary.instruct, vocabulary.names_version) == (instruct, False)


def test_tekken_lists_its_control_tokens_by_rank(tmp_path):
    listed = [{"rank": 2, "token_str": "</s>"}, {"rank": 1, "token_str": "<s>"}, {"rank": 7, "token_str": "[ARGS]"}]
    (tmp_path / "tekken.json").write_text(json.dumps(tekken() | {"special_tokens": listed}))
    vocabulary = Vocabulary.read(tmp_path)
    assert vocabulary.special_ids == {"<s>": 1, "</s>": 2, "[ARGS]": 7}
    assert Tokenizer.from_buffer(vocabulary.json).encode("abc ab").ids == [277, 20 + 32, 276]


def test_mistrals_own_file_goes_before_a_tokenizer_json(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    shutil.copy(DATA / FILES["v3"], tmp_path / "tokenizer.model.v3")
    assert Vocabulary.read(tmp_path).path.name == "tokenizer.model.v3"
    (tmp_path / "tekken.json").write_text(json.dumps(tekken()))
    assert Vocabulary.read(tmp_path).path.name == "tekken.json"


@pytest.mark.parametrize("own", ["tekken.json", "tokenizer.model.v3"])
@pytest.mark.parametrize(("added", "read"), [("<|im_start|>", True), ("[INST]", False), ("<SPECIAL_19>", False)])
def test_a_tokenizer_json_with_tokens_of_its_own_goes_before_mistrals_file(tmp_path, own, added, read):
    if own == "tekken.json":
        (tmp_path / own).write_text(json.dumps(tekken()))
    else:
        shutil.copy(DATA / FILES["v3"], tmp_path / own)
    tuned = Tokenizer.from_buffer(Vocabulary.read(tmp_path).json)
    tuned.add_special_tokens([added])
    tuned.save(str(tmp_path / "tokenizer.json"))
    vocabulary = Vocabulary.read(tmp_path)
    assert (vocabulary.path.name == "tokenizer.json") == read
    assert ("<|im_start|>" in vocabulary.special_ids) == read


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "not JSON"),
        ("tekken.json", "{}"),
        ("tekken.json", "[]"),
        ("tekken.json", '{"config": {"default_num_special_tokens": "x"}, "vocab": 3}'),
        ("tekken.json", json.dumps(tekken(pattern="["))),
        ("tekken.json", json.dumps(tekken(default_vocab_size=1000))),
        ("tekken.json", json.dumps(tekken() | {"vocab": [{"token_bytes": "*"}]})),
        ("tekken.json", json.dumps(tekken() | {"vocab": tekken()["vocab"][::-1]})),
        ("tokenizer.model.v3", "not a model"),
        ("tokenizer.model", ""),
    ],
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=name):
        Vocabulary.read(tmp_path)


def test_a_folder_without_vocabulary_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer"):
        Vocabulary.read(tmp_path)


def test_a_sentencepiece_model_that_normalises_is_refused(tmp_path):
    import sentencepiece

    text = "\n".join(f"word{number} and another{number % 7} ones" for number in range(200))
    (tmp_path / "text").write_text(text)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "other"),
        vocab_size=60,
        model_type="bpe",
        minloglevel=9,
    )
    (tmp_path / "other.model").rename(tmp_path / "tokenizer.model")
    with pytest.raises(CheckpointError, match="normalises"):
        Vocabulary.read(tmp_path)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_sentencepiece_model_that_is_no_byte_pair_encoding_is_refused(tmp_path, kind):
    import sentencepiece

    chance = np.random.default_rng(0)
    words = ["".join(chance.choice(list("abcdefgh"), chance.integers(2, 9))) for _ in range(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(chance.choice(words, 12)) for _ in range(400)] + TEXTS[1:2]),
        model_prefix=str(tmp_path / "other"),
        vocab_size=450,
        model_type=kind,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=9,
    )
    (tmp_path / "other.model").rename(tmp_path / "tokenizer.model")
    if kind == "bpe":
        found = Tokenizer.from_buffer(Vocabulary.read(tmp_path).json).encode(TEXTS[1]).ids
        assert found == sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model")).encode(TEXTS[1])
        return
    with pytest.raises(CheckpointError, match="as byte-pair encoding does"):
        Vocabulary.read(tmp_path)
