"""A checkpoint's vocabulary as a tokenizer.json, converted from Mistral's own formats without changing an id.

    tekken.json         byte-level BPE in tiktoken's form: bytes with ranks, a pattern that cuts text into words
    tokenizer.model.vN  SentencePiece BPE: pieces with scores, bytes for characters that no piece has
    tokenizer.json      taken as it is

They are looked for in this order: where a repository holds several, Mistral's own file is the one it was trained with.
Only where the tokenizer.json has tokens with names that the other lacks was a model trained on with those.

Both formats choose the next merge by the piece it makes, a tokenizer.json by the pair it joins. So every split of a
piece into two pieces becomes a merge, in the order of the pieces. SentencePiece gives all runs of spaces one score
and takes the leftmost pair first, which grows the leftmost run: there, the longer left side comes first.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from edge_assistant.bundle import InstructVersion
from edge_assistant.errors import CheckpointError

_SPACE: Final = "▁"
# Names given to control ids that mean nothing yet.
_FILLER: Final = re.compile(r"<SPECIAL_\d+>|\[control_\d+\]|<filler_\d+>")
_UNNAMED: Final = "<SPECIAL_{}>"
# The control tokens of tekken files that do not list theirs, in the order of their ids.
_TEKKEN_CONTROLS: Final = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
# Pieces of a SentencePiece model whose text it and its conversion must cut alike: a unigram model does not.
_SAMPLED_PIECES: Final = 1000
_SPM_VERSIONS: Final[Mapping[str, InstructVersion]] = {"v1": "v1", "v2": "v2", "v3": "v3", "v7": "v7"}
_TEKKEN_VERSIONS: Final[Mapping[str, InstructVersion]] = {
    "v3": "v3-tekken",
    "v7": "v7-tekken",
    "v11": "v11",
    "v13": "v13",
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer.json and what it shows."""

    path: Path
    """The file it was made from."""
    json: bytes
    size: int
    """One more than the largest id."""
    special_ids: Mapping[str, int]
    """The ids of control tokens that have a name of their own."""
    instruct: InstructVersion | None
    """The format of a chat that the vocabulary is for; None where it is for none that is known."""
    names_version: bool
    """Whether the file itself says the version of its format, which otherwise its control tokens let one guess."""

    @classmethod
    def read(cls, folder: Path) -> Vocabulary:
        """Read the vocabulary of a checkpoint's folder.

        Raises:
            CheckpointError: There is none, or it cannot be read.
        """
        vocabulary = _read(_find(folder))
        later = folder / "tokenizer.json"
        if vocabulary.path != later and _added_names(later) - vocabulary.special_ids.keys():
            return _read(later)
        return vocabulary


def tekken_tokenizer(document: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a tekken.json: control tokens first, then the bytes in the order of their ranks."""
    config = document["config"]
    n_controls = config["default_num_special_tokens"]
    listed = document.get("special_tokens")
    names = {token["rank"]: token["token_str"] for token in listed} if listed else dict(enumerate(_TEKKEN_CONTROLS))
    controls = [names.get(number, _UNNAMED.format(number)) for number in range(n_controls)]
    letters = _letter_of_byte()
    n_words = config["default_vocab_size"] - n_controls
    if any(token.get("rank", number) != number for number, token in enumerate(document["vocab"])):
        raise ValueError("its words are not in the order of their ranks")
    stored = [base64.b64decode(token["token_bytes"], validate=True) for token in document["vocab"][:n_words]]
    ranks = {"".join(letters[byte] for byte in word): rank for rank, word in enumerate(stored)}
    if not 0 < n_words == len(ranks) or "" in ranks:
        raise ValueError(f"it has {len(ranks)} words, and says that they are {n_words}")
    model = BPE(
        vocab={name: number for number, name in enumerate(controls)}
        | {word: n_controls + rank for word, rank in ranks.items()},
        merges=_merges({word: float(rank) for word, rank in ranks.items()}),
        ignore_merges=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(config["pattern"]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in controls])
    return tokenizer


def sentencepiece_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a SentencePiece BPE model with bytes to fall back on.

    Raises:
        CheckpointError: It changes text before it encodes it, other than by writing a space in front, or is no BPE.
        RuntimeError: It is no SentencePiece model.
    """
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    if pieces.normalize("  a  ﬁ") != "▁▁▁a▁▁ﬁ":
        raise CheckpointError(path, "it normalises text in a way that Mistral's vocabularies do not")
    names = [pieces.id_to_piece(number) for number in range(pieces.vocab_size())]
    controls = [name for number, name in enumerate(names) if pieces.is_control(number) or pieces.is_unknown(number)]
    ranks = {
        name: -pieces.get_score(number)
        for number, name in enumerate(names)
        if not (pieces.is_control(number) or pieces.is_unknown(number) or pieces.is_byte(number))
    }
    model = BPE(
        vocab={name: number for number, name in enumerate(names)},
        merges=_merges(ranks),
        unk_token=names[pieces.unk_id()],
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in controls])
    learnt = [name for name, rank in ranks.items() if rank]  # 0 is that of pieces which a person has named
    text = "".join(learnt[:: -(-len(learnt) // _SAMPLED_PIECES) or 1]).replace(_SPACE, " ")
    if tokenizer.encode(text, add_special_tokens=False).ids != pieces.encode(text):
        raise CheckpointError(path, "it does not join pieces as byte-pair encoding does: save it as a tokenizer.json")
    return tokenizer


def _read(path: Path) -> Vocabulary:
    """Read one file."""
    try:
        if path.name == "tekken.json":
            document = json.loads(path.read_bytes())
            version = _TEKKEN_VERSIONS.get(document["config"].get("version"))
            return _vocabulary(path, tekken_tokenizer(document), version, names_version=True)
        if path.name == "tokenizer.json":
            content = path.read_bytes()
            tokenizer = Tokenizer.from_buffer(content)
            return _vocabulary(path, tokenizer, _version_of(tokenizer), content)
        tokenizer = sentencepiece_tokenizer(path)
        suffix = path.suffix.removeprefix(".").partition("m")[0]  # v7m1: as v7, with images
        named = _SPM_VERSIONS.get(suffix)
        return _vocabulary(path, tokenizer, named or _version_of(tokenizer), names_version=named is not None)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers raises nothing more special for a pattern or a merge that it cannot take
        raise _unreadable(path, error) from error


def _added_names(path: Path) -> set[str]:
    """Return the names of the tokens that a tokenizer.json adds; none where there is no such file that can be read."""
    try:
        names = {str(token["content"]) for token in json.loads(path.read_bytes())["added_tokens"]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()
    return {name for name in names if not _FILLER.fullmatch(name)}


def _find(folder: Path) -> Path:
    candidates = [
        folder / "tekken.json",
        *sorted(folder.glob("tokenizer.model.v*"), reverse=True),
        folder / "tokenizer.json",
        folder / "tokenizer.model",
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise CheckpointError(
        folder, "it has no tokenizer: put the tekken.json, tokenizer.model.vN or tokenizer.json of the model there"
    )


def _vocabulary(
    path: Path,
    tokenizer: Tokenizer,
    instruct: InstructVersion | None,
    content: bytes | None = None,
    *,
    names_version: bool = False,
) -> Vocabulary:
    added = tokenizer.get_added_tokens_decoder()
    return Vocabulary(
        path=path,
        json=content or tokenizer.to_str().encode(),
        size=max(tokenizer.get_vocab().values()) + 1,
        special_ids={token.content: number for number, token in added.items() if not _FILLER.fullmatch(token.content)},
        instruct=instruct,
        names_version=names_version,
    )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(path, f"it cannot be read as a vocabulary ({error}); download it again")


def _version_of(tokenizer: Tokenizer) -> InstructVersion | None:
    """Return the chat format that the control tokens of a tokenizer.json speak for.

    Version 2 has the same ones as version 3, whose models are the public ones. Version 13 has those of version 11, and
    its models that reason have the marks of thoughts besides.
    """
    names = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
    if "[MODEL_SETTINGS]" in names or "[INST]" not in names:
        return None  # version 15 and later, or version 1 and models without a chat, which write no control tokens
    if "[ARGS]" in names:
        return "v13" if "[THINK]" in names else "v11"
    if "[SYSTEM_PROMPT]" in names:
        return "v7-tekken" if byte_level else "v7"
    return "v3-tekken" if byte_level else "v3"


def _merges(ranks: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return every split of every piece into two pieces, by the rank of the piece, the longer left side first."""
    splits = [
        (rank, -cut, piece[:cut], piece[cut:])
        for piece, rank in ranks.items()
        for cut in range(1, len(piece))
        if piece[:cut] in ranks and piece[cut:] in ranks
    ]
    splits.sort(key=lambda split: split[:2])
    return [(left, right) for _, _, left, right in splits]


def _letter_of_byte() -> dict[int, str]:
    """Return the letter that stands for each byte in byte-level pieces (GPT-2): printable ones are themselves."""
    printable: Iterable[int] = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + number) for number, byte in enumerate(others)}
