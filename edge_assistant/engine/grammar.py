"""Grammars: what an answer may be, held to token by token (llguidance, an Earley parser over the vocabulary's bytes).

    grammars = Grammars(tokenizer_json, vocab_size, stop_ids, leading_space=False)      # once a bundle
    grammar = grammars.compile(Constraint.json_schema({"type": "object", ...}))
    engine.generate(prompt, SamplingParams(max_tokens=200, grammar=grammar))

A constraint is a JSON schema, a regular expression or a Lark grammar. It is compiled once and kept; what cannot be
compiled, matched by any text, or held to in full (a keyword of a schema that is not known) is refused before anything
is generated. JSON is written with one space behind a comma and a colon and none elsewhere: a model cannot run on in
white space, and everything between two values is forced.

Where only one way is left to go on, the tokens are forced: they are not drawn, and are read in one batch with the token
before them.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from math import lcm
from typing import TYPE_CHECKING, Any, Final, Literal

import llguidance
import numpy as np

from edge_assistant.errors import GrammarError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_KEPT = 64
"""Compiled grammars that are kept, those used last."""
_MOST_REMAINDERS: Final = 20_000
"""Compiling takes some 10 microseconds and half a kilobyte for each; nothing else bounds it."""
JSON_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is written, as the key `x-guidance` of a schema says it."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must be."""

    kind: Literal["json_schema", "regex", "lark"]
    source: str

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any]) -> Constraint:
        """Return the constraint to JSON that a schema describes; GrammarError for one that is nested too deep."""
        try:
            return cls("json_schema", json.dumps(schema))
        except RecursionError as error:
            raise GrammarError("json_schema", "it is nested too deep") from error

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """Return the constraint to text that as a whole matches a pattern, in the syntax of Rust's regex."""
        return cls("regex", pattern)

    @classmethod
    def lark(cls, grammar: str) -> Constraint:
        """Return the constraint to a grammar in llguidance's dialect of Lark, from its rule `start`."""
        return cls("lark", grammar)

    def grammar(self, *, leading_space: bool) -> str:
        """Return it as llguidance takes it; ValueError for a schema that is no JSON object."""
        if self.kind == "json_schema":
            schema = json.loads(self.source)
            if not isinstance(schema, dict):
                raise ValueError("it is not an object")
            if _remainders(schema) > _MOST_REMAINDERS:
                raise ValueError("what multipleOf asks for takes too long to prepare")
            body: dict[str, Any] = {"json_schema": {**schema, "x-guidance": JSON_OPTIONS}}
        else:
            body = {"lark_grammar": self.source if self.kind == "lark" else f"start: /{_slashes(self.source)}/"}
        whole = "start: / ?/ @body" if leading_space else "start: @body"
        return json.dumps({"grammars": [{"lark_grammar": whole}, {"name": "body", **body}]})


def _remainders(schema: object) -> int:
    """Return how many remainders tell, digit by digit, whether a number is a multiple of all that a schema names.

    Decimals give those of 2 and 5 away.
    """
    if isinstance(schema, list):
        return lcm(*map(_remainders, schema))
    if not isinstance(schema, dict):
        return 1
    own = schema.get("multipleOf")
    return lcm(_without_tens(own) if isinstance(own, (int, float)) else 1, *map(_remainders, schema.values()))


def _without_tens(number: float) -> int:
    digits = int("".join(map(str, Decimal(str(number)).as_tuple().digits))) or 1
    for prime in (2, 5):
        while digits % prime == 0:
            digits //= prime
    return digits


def _slashes(pattern: str) -> str:
    """Return the pattern with its slashes escaped, where they are not already."""
    escaped, out = False, []
    for letter in pattern:
        out.append("\\/" if letter == "/" and not escaped else letter)
        escaped = letter == "\\" and not escaped
    return "".join(out)


class Grammars:
    """The grammars of one vocabulary."""

    def __init__(self, tokenizer_json: bytes, vocab_size: int, stop_ids: Iterable[int], *, leading_space: bool) -> None:
        """`tokenizer_json` is the bundle's file; any of `stop_ids` may end an answer that is complete.

        With `leading_space` an answer may start with one, as SentencePiece writes it, which is no part of the answer.
        """
        self._tokenizer = llguidance.LLTokenizer(tokenizer_json.decode(), vocab_size, sorted(stop_ids))
        self._vocab_size = vocab_size
        self._leading_space = leading_space
        self._compiled: OrderedDict[Constraint, Grammar] = OrderedDict()

    def compile(self, constraint: Constraint) -> Grammar:
        """Return the compiled constraint.

        Raises:
            GrammarError: It is malformed, no text can match it, or it asks for what cannot be held to.
        """
        grammar = self._compiled.pop(constraint, None) or self._compile(constraint)
        self._compiled[constraint] = grammar
        while len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return grammar

    def _compile(self, constraint: Constraint) -> Grammar:
        try:
            text = constraint.grammar(leading_space=self._leading_space)
        except (ValueError, RecursionError) as error:
            raise GrammarError(constraint.kind, str(error)) from error
        matcher = llguidance.LLMatcher(self._tokenizer, text, log_level=0)
        _begin(matcher.deep_copy(), constraint.kind)
        return Grammar(matcher, self._vocab_size)


def _begin(matcher: llguidance.LLMatcher, kind: str) -> None:
    """Look for the first token: some grammars that no text matches, such as endless ones, compile and fail here."""
    if not matcher.is_error():
        matcher.consume_tokens(matcher.compute_ff_tokens())
    if not matcher.is_error() and not matcher.is_stopped():
        matcher.compute_bitmask()
    if matcher.is_error():
        raise GrammarError(kind, _problem(matcher))


def _problem(matcher: llguidance.LLMatcher) -> str:
    """Return what is wrong, without the state of the parser."""
    return str(matcher.get_error()).partition("<state>")[0]


class Grammar:
    """A compiled constraint; generations that run at once may share it."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        """Take what `Grammars` has compiled."""
        self._matcher = matcher
        self._vocab_size = vocab_size

    def begin(self) -> Match:
        """Return the state at the start of an answer."""
        return Match(self._matcher.deep_copy(), self._vocab_size)


class Match:
    """How far an answer has come in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    @property
    def complete(self) -> bool:
        """Whether what was written so far is a whole answer."""
        return bool(self._matcher.is_accepting()) and not self._matcher.is_error()

    @property
    def ended(self) -> bool:
        """Whether nothing more may follow."""
        return self._matcher.is_stopped()

    def allowed(self) -> NDArray[np.int64]:
        """Return the ids [n] that may stand next, a stop id among them where the answer is complete."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.flatnonzero(np.unpackbits(bits, bitorder="little")[: self._vocab_size])

    def accept(self, token: int) -> None:
        """Go on by one of the allowed ids."""
        self._matcher.consume_token(token)
        self._check()

    def forced(self) -> list[int]:
        """Return the ids that alone can follow, and go on by them."""
        ids: list[int] = self._matcher.compute_ff_tokens()
        self._matcher.consume_tokens(ids)
        self._check()
        return ids

    def follow(self, ids: Sequence[int]) -> list[list[int]]:
        """Return ids as far as they may follow, each with those that it forces behind it, and go on by none of them.

        The last is forced to go on otherwise than the ids do, where that is so; what ends the answer is left out.
        """
        ahead, chains, at = self._matcher.deep_copy(), list[list[int]](), 0
        while at < len(ids) and ahead.consume_token(ids[at]):
            forced: list[int] = ahead.compute_ff_tokens()
            ahead.consume_tokens(forced)
            if ahead.is_stopped():  # as one with an error is: that may come true, and is told then
                break
            chains.append([ids[at], *forced])
            if [*ids[at + 1 : at + 1 + len(forced)]] != forced:
                break
            at += 1 + len(forced)
        return chains

    def _check(self) -> None:
        """Raise GrammarError where the grammar has become too large to go on with."""
        if self._matcher.is_error():
            raise GrammarError("grammar", _problem(self._matcher))
