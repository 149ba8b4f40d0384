"""Vocabularies to test with: two small ones made here, and Mistral's own, which mistral-common carries."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import mistral_common
import pytest
from hypothesis import HealthCheck, settings
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from tokenizers import Tokenizer as TokenizerFile
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from edge_assistant.text.instruct import END_THINK, FORMATS, THINK
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.vocab import Vocabulary

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # a busy machine is no fault of the code

CONTROLS = ["<unk>", *sorted({mark.name for row in FORMATS.values() for mark in row.controls | {THINK, END_THINK}})]
SENTENCES = [
    "Turn on the light in the kitchen, please.",
    "Is the door open? Grüße, naïve café ☺",
    "[INST] </s> [/INST]",
]

MISTRAL_FILES = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v3-tekken": "tekken_240718.json",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "v7-tekken": "tekken_240718.json",
    "v11": "tekken_240718.json",
    "v13": "tekken_240718.json",
}
FILES: dict[Tokenizer, Path] = {}
"""Where each of the small vocabularies lies."""
LATER_VERSIONS = {"v7-tekken": "v7", "v11": "v11", "v13": "v13"}


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory):
    """A byte-level vocabulary, as tekken and the reference model have it."""
    file = TokenizerFile(models.BPE())
    file.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    file.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=CONTROLS, initial_alphabet=alphabet, show_progress=False
    )
    file.train_from_iterator(SENTENCES * 9, trainer)
    return _saved(file, tmp_path_factory.mktemp("byte-level"))


@pytest.fixture(scope="session")
def spm(tmp_path_factory):
    """A SentencePiece vocabulary with byte fallback, as Mistral 7B has it."""
    pieces = [*CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted({*"".join(SENTENCES), "▁"} - {" "})]
    merges = [("▁", letter) for letter in "tdlio"] + [("t", "h"), ("▁t", "h"), ("▁th", "e"), ("i", "n"), ("o", "p")]
    pieces += dict.fromkeys("".join(merge) for merge in merges)
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    file = TokenizerFile(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    file.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    file.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    file.add_special_tokens(CONTROLS)
    return _saved(file, tmp_path_factory.mktemp("spm"))


@pytest.fixture(params=["byte_level", "spm"])
def tokenizer(request):
    """Either small vocabulary."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def tokenizer_file(tokenizer):
    """The file of the same vocabulary."""
    return FILES[tokenizer]


@pytest.fixture(scope="session")
def mistral(tmp_path_factory):
    """Give, for a format's name, our tokenizer and mistral-common's, of the same vocabulary."""

    @cache
    def pair(name: str) -> tuple[Tokenizer, MistralTokenizer]:
        folder = tmp_path_factory.mktemp(name)
        bundled = Path(mistral_common.__file__).parent / "data" / MISTRAL_FILES[name]
        source = folder / ("tekken.json" if bundled.suffix == ".json" else f"tokenizer.model.{name}")
        content = bundled.read_bytes()
        source.write_bytes(_as_later_version(content, LATER_VERSIONS[name]) if name in LATER_VERSIONS else content)
        converted = folder / "tokenizer.json"
        converted.write_bytes(Vocabulary.read(folder).json)
        return Tokenizer(converted), MistralTokenizer.from_file(source)

    return pair


def _as_later_version(tekken: bytes, version: str) -> bytes:
    """Return a tekken.json as one of another version, cut to 20,000 ids: the package has none after version 3."""
    document = json.loads(tekken)
    document["config"] |= {"version": version, "default_vocab_size": 20_000}
    if version != "v7":  # the later ones list their control tokens, and thoughts came with version 13
        names = [str(name) for name in SpecialTokens if version != "v11" or "THINK" not in name]
        document["special_tokens"] = [
            {"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)
        ]
    return json.dumps(document).encode()


def _saved(file: TokenizerFile, folder: Path) -> Tokenizer:
    file.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder / "tokenizer.json")
    FILES[tokenizer] = folder / "tokenizer.json"
    return tokenizer
