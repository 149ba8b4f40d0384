"""Text becomes ids of text alone, and comes back as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as TokenizerFile

from edge_assistant.errors import ControlTokenError, InvalidTextError, TokenizerFileError, UnsafeVocabularyError
from edge_assistant.text.tokenizer import Tokenizer

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="▁"))


@pytest.fixture
def file_with(tmp_path):
    """Save a byte-level file of four letters, `</s>` added as told, and return a Tokenizer of it."""

    def make(added: AddedToken, *, ignore_merges: bool = False) -> Tokenizer:
        vocabulary = {"</s>": 0, "<": 1, "/": 2, "s": 3, ">": 4, "Ġ": 5}
        file = TokenizerFile(models.BPE(vocab=vocabulary, merges=[], ignore_merges=ignore_merges))
        file.decoder = decoders.ByteLevel()
        file.add_tokens([added])
        file.enable_truncation(2)
        file.enable_padding(length=9)
        file.save(str(tmp_path / "tokenizer.json"))
        return Tokenizer(tmp_path / "tokenizer.json")

    return make


@given(text=TEXTS)
def test_what_is_encoded_comes_back(byte_level, spm, text):
    for tokenizer in (byte_level, spm):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=TEXTS)
def test_decoding_agrees_with_the_library(byte_level, spm, text):
    for tokenizer in (byte_level, spm):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == tokenizer._tokenizer.decode(ids)


def test_control_tokens_are_found_by_name_and_have_no_text(tokenizer):
    inst = tokenizer.control_id("[INST]")
    assert tokenizer.is_control(inst)
    assert tokenizer.token_bytes(inst) == b""
    assert tokenizer.decode([inst, *tokenizer.encode("Hi"), inst, *tokenizer.encode(" you")]) == "Hi you"
    with pytest.raises(ControlTokenError, match=r"\[IMG\]"):
        tokenizer.control_id("[IMG]")


def test_an_id_out_of_range_has_no_text(tokenizer):
    assert tokenizer.decode([10**6]) == ""


def test_broken_utf8_is_shown_as_replacement_characters(byte_level):
    whole = byte_level.encode("☺")
    assert byte_level.decode(whole[:-1]) == "\ufffd"


def test_half_a_surrogate_pair_is_refused_with_its_place(tokenizer):
    with pytest.raises(InvalidTextError, match=r"character 2 .*\\ud83d"):
        tokenizer.encode("hi\ud83d")


@pytest.mark.parametrize("special", [True, False])
def test_an_added_token_is_not_found_in_text_however_it_is_marked(file_with, special):
    tokenizer = file_with(AddedToken("</s>", special=special, normalized=False))
    assert tokenizer.encode("</s>") == [1, 2, 3, 4]


def test_a_vocabulary_that_reads_text_as_a_control_token_is_refused(file_with):
    tokenizer = file_with(AddedToken("</s>", special=True, normalized=False), ignore_merges=True)
    with pytest.raises(UnsafeVocabularyError, match="</s>"):
        tokenizer.encode("</s>")


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(TokenizerFileError, match="absent"):
        Tokenizer(tmp_path / "absent.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(TokenizerFileError, match="broken"):
        Tokenizer(broken)
