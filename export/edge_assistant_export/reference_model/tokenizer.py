r"""The model's tokenizer: byte-level BPE with Mistral's control tokens, made so that a name copies token by token.

A word has the same tokens wherever it stands: the merges are learnt without the space before a word, and only at the
very end whole frequent words are merged with it. `zorvik` is `zor` `vik` at the start of a YAML key, in JSON and (after
a lone space) in a sentence. Digits stand apart; a mark takes the spaces and line breaks after it along (`", "`, `: `).

Ids follow tekken: control tokens first, then the 256 bytes in order, then the merges by rank.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from edge_assistant.text.messages import User
from edge_assistant_export.reference_model import made_up
from edge_assistant_export.reference_model.conversations import questions, random_conversation
from edge_assistant_export.reference_model.lexicon import LEXICON
from edge_assistant_export.reference_model.lexicon.names import WORDS

if TYPE_CHECKING:
    from pathlib import Path

CONTROLS = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
)
"""In the order that mistral-common gives them."""

VOCABULARY = 3072
SPACED_WORDS = 700
_WORD = r"[\p{L}\p{M}]+(?:'[\p{L}\p{M}]+)*"
_MARKS = r" ?[^\s\p{L}\p{M}\p{N}]+(?: [^\s\p{L}\p{M}\p{N}]+)*\s*"
PATTERN = rf" ?°C| ?{_WORD}|\p{{N}}|{_MARKS}|\s+"
_LEARNING_PATTERN = rf" ?°C|{_WORD}|\p{{N}}|{_MARKS}|\s+"
_SPACE = "Ġ"


def sample_text(seed: int, homes: int) -> list[str]:
    """Return what the merges are learnt from: conversations, the lexicon, and words of all kinds."""
    rng = Random(seed)
    texts: list[str] = []
    for _ in range(homes):
        speaker, talk = random_conversation(rng, 3, 14)
        texts += [message.text for message in talk.messages("") if isinstance(message, User)]
        for one, _ in zip(questions(speaker, talk), range(8), strict=False):
            calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in one.answer.calls]
            texts += [one.question, one.answer.text or json.dumps(calls, ensure_ascii=False)]
    texts += [" ".join(WORDS)] * 6
    texts += [re.sub(r"[(){}|]", " ", line) for lines in LEXICON.values() for line in lines] * 6
    texts += [made_up.name(rng) for _ in range(4000)]
    return texts


def train(seed: int = 1, homes: int = 2500, vocabulary: int = VOCABULARY) -> Tokenizer:
    """Return the tokenizer; the same seed gives the same one."""
    texts = sample_text(seed, homes)
    learnt = _learn(texts, vocabulary - len(CONTROLS) - SPACED_WORDS)
    words = Counter(word for text in texts for word in re.findall(r"(?<= )[^\W\d_]+(?:'[^\W\d_]+)*", text))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_of)
    merges = [tuple(merge) for merge in json.loads(learnt.to_str())["model"]["merges"]]
    known = {first + second for first, second in merges} | set(letters)
    spaced = [word for word, _ in words.most_common() if word in known][:SPACED_WORDS]
    merges += [(_SPACE, word) for word in spaced]
    pieces = list(dict.fromkeys([*CONTROLS, *letters, *(first + second for first, second in merges)]))
    return assemble({piece: number for number, piece in enumerate(pieces)}, merges)


def assemble(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """Return a tokenizer of this vocabulary and these merges."""
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = _pre_tokenizer(PATTERN)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROLS])
    return made


def _learn(texts: list[str], size: int) -> Tokenizer:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _pre_tokenizer(_LEARNING_PATTERN)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return learner


def _pre_tokenizer(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _byte_of(letter: str) -> int:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return ord(letter) if ord(letter) in printable else others[ord(letter) - 256]


def save(path: Path, seed: int = 1) -> None:
    """Train and write `tokenizer.json`."""
    train(seed).save(str(path))
