"""Text to token ids and back, over a `tokenizer.json`.

The rule this module exists for: *what a person types never becomes a control id*. `encode` gives ids of text alone;
control ids such as `[INST]` or `</s>` are asked for by name, and only our own code asks.

Ids become bytes, and bytes become text. A byte of broken UTF-8 is shown as U+FFFD, as Python and browsers do it.
SentencePiece vocabularies put a space before every text they encode; `decode` takes that one space away again, at
the start of each run of text between control ids.

    tokenizer.encode("[INST] hi")       -> ordinary ids
    tokenizer.control_id("[INST]")      -> 3
    tokenizer.decode([3, *ids, 4])      -> "[INST] hi" (control ids have no text)
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path

import tokenizers

from edge_assistant.errors import ControlTokenError, InvalidTextError, TokenizerFileError, UnsafeVocabularyError

_SPACE = "▁"
"""How SentencePiece writes a space in its pieces."""


class Tokenizer:
    """A vocabulary: byte-level (tekken, the reference model's) or SentencePiece with byte fallback."""

    def __init__(self, path: Path) -> None:
        """Read a `tokenizer.json`; TokenizerFileError where it is none."""
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(path.read_bytes())
        except (OSError, ValueError) as error:
            raise TokenizerFileError(path, str(error)) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._controls = self._shut_out_controls()
        self._control_names = {token_id: name for name, token_id in self._controls.items()}
        self._never_text = frozenset(self._control_names) - {self._controls.get("<unk>")}
        self._byte_level = isinstance(self._tokenizer.decoder, tokenizers.decoders.ByteLevel)
        self._bytes: dict[int, bytes] = {}
        self.adds_space = any(self.token_bytes(token_id).startswith(b" ") for token_id in self.encode("a")[:1])
        """Whether `encode` puts a space before the text, which `decode` takes away."""

    def _shut_out_controls(self) -> dict[str, int]:
        """Return the control ids by name, having seen to it that no added token, however marked, is found in text."""
        added = self._tokenizer.get_added_tokens_decoder()
        names = [token.content for token in added.values() if not token.special]
        self._tokenizer.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in names])
        self._tokenizer.encode_special_tokens = True
        return {token.content: token_id for token_id, token in added.items()}

    def control_id(self, name: str) -> int:
        """Return the id of a control token such as `[INST]`; ControlTokenError where the vocabulary has none."""
        token_id = self.find_control(name)
        if token_id is None:
            raise ControlTokenError(name)
        return token_id

    def find_control(self, name: str) -> int | None:
        """Return the id of a control token that not every vocabulary has, None where this one lacks it."""
        return self._controls.get(name)

    def is_control(self, token_id: int) -> bool:
        """Say whether the id stands for a control token, which has no text."""
        return token_id in self._control_names

    def encode(self, text: str) -> list[int]:
        """Return the ids of the text.

        Raises:
            InvalidTextError: The text is not Unicode.
            UnsafeVocabularyError: The file's own rules give a control id. `<unk>` alone may stand for text.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidTextError(text[error.start], error.start) from error
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        for token_id in self._never_text.intersection(ids):
            raise UnsafeVocabularyError(self._control_names[token_id])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids; control ids have none."""
        return "".join(self._decode_run(run) for control, run in groupby(ids, self.is_control) if not control)

    def spell(self, ids: Iterable[int]) -> str:
        """Return the text of the ids with control tokens by their names, for people to read."""
        runs = groupby(ids, self.is_control)
        return "".join(
            "".join(self._control_names[token_id] for token_id in run) if control else self._decode_run(run)
            for control, run in runs
        )

    def _decode_run(self, ids: Iterable[int]) -> str:
        data = b"".join(self.token_bytes(token_id) for token_id in ids)
        return (data.removeprefix(b" ") if self.adds_space else data).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one id: part of a character, or many; none for a control id and one out of range."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._piece_bytes(token_id)
        return known

    def _piece_bytes(self, token_id: int) -> bytes:
        piece = None if self.is_control(token_id) else self._tokenizer.id_to_token(token_id)
        if piece is None:
            return b""
        if self._byte_level:
            table = _byte_of_letter()
            return bytes(table[letter] for letter in piece)
        if len(piece) == len("<0x0A>") and piece.startswith("<0x"):
            return bytes.fromhex(piece[3:5])
        return piece.replace(_SPACE, " ").encode()


@cache
def _byte_of_letter() -> dict[str, int]:
    """Return the byte behind each letter of a byte-level piece, as GPT-2 wrote them: printable bytes are themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
