"""Grammars: no answer that is called whole is invalid, and what cannot be held to is refused at once."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from pathlib import Path
from random import Random
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Constraint, Engine, Grammars, SamplingParams
from edge_assistant.engine.sampling import Sampler
from edge_assistant.errors import GrammarError
from edge_assistant.text.tokenizer import Tokenizer

TOKENIZER = Path(__file__).parents[2] / "models/home-mini/checkpoint/tokenizer.json"
STOP = 2
PROMPT = [1, 20, 30]
LONGEST = 400
# jsonschema's own checks know neither offsets of a time nor leap seconds, which RFC 3339 has.
CHECKER = jsonschema.FormatChecker(("date", "email", "ipv4", "uuid"))
TIME = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
CHECKER.checks("time")(lambda said: re.fullmatch(TIME, said) is not None)
CHECKER.checks("date-time")(lambda said: re.fullmatch(rf"\d{{4}}-\d\d-\d\d[Tt ]{TIME}", said) is not None)
LAMP = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "brightness": {"type": "integer", "minimum": 0, "maximum": 100},
    },
    "required": ["name", "brightness"],
    "additionalProperties": False,
}


ENDLESS = {"type": "object", "properties": {"more": {"$ref": "#"}}, "required": ["more"]}


def nested(depth: int) -> dict:
    """Return a schema of lists of lists of ..."""
    schema: dict = {}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.fixture(scope="module")
def vocabulary():
    """Return a trained vocabulary of bytes and what grammars make of it."""
    tokenizer = Tokenizer(TOKENIZER)
    grammars = Grammars(TOKENIZER.read_bytes(), 3072, {STOP}, leading_space=False)
    ends = np.array([bool(re.search(rb'^["\]},:]+', tokenizer.token_bytes(token))) for token in range(3072)])
    return SimpleNamespace(tokenizer=tokenizer, grammars=grammars, ends=ends)


def written(vocabulary, constraint: Constraint, seed: int) -> tuple[str, bool]:
    """Return what a model without any sense writes under a constraint, and whether that is called whole.

    It likes to end what it has begun, else it would never come to the end of a string.
    """
    match = vocabulary.grammars.compile(constraint).begin()
    sampler = Sampler(SamplingParams(max_tokens=1, temperature=1.0, seed=seed), 3072)
    rng = np.random.default_rng(seed)
    ids = match.forced()
    while not match.ended and len(ids) < LONGEST:
        logits = rng.normal(size=3072).astype(np.float32) + 6 * vocabulary.ends
        logits[STOP] = 9
        token = sampler.sample(logits.astype(np.float32), len(ids), match.allowed())
        if token == STOP:
            break
        match.accept(token)
        ids += [token, *match.forced()]
    return vocabulary.tokenizer.decode(ids), match.complete


@pytest.mark.parametrize("part", range(10))
def test_no_whole_answer_breaks_its_schema(vocabulary, random_schema, part):
    whole = 0
    for number in range(100 * part, 100 * (part + 1)):
        wanted = random_schema(Random(number))
        said, complete = written(vocabulary, Constraint.json_schema(wanted), number)
        if complete:
            jsonschema.validate(json.loads(said), wanted, format_checker=CHECKER)
        whole += complete
    assert whole >= 95


@pytest.mark.parametrize(
    "pattern",
    ["[0-9]{3}", "(on|off)", "a/b", r"a\/b", "[äöü]{2,5}", "(yes|no), (sir|madam)", "x*", r"[0-9]+(\.[0-9])?"],
)
def test_a_whole_answer_matches_its_pattern(vocabulary, pattern):
    for seed in range(20):
        said, complete = written(vocabulary, Constraint.regex(pattern), seed)
        assert not complete or re.fullmatch(pattern, said)


def test_a_lark_grammar_holds_for_brackets_that_no_pattern_can_count(vocabulary):
    brackets = Constraint.lark('start: "(" start ")" | "x"')
    for seed in range(20):
        said, complete = written(vocabulary, brackets, seed)
        depth = list(accumulate({"(": 1, ")": -1}.get(letter, 0) for letter in said))
        assert not complete or (depth[-1] == 0 and min(depth) == 0 and "x" in said)


@pytest.mark.parametrize(
    ("constraint", "problem"),
    [
        (Constraint.json_schema({"type": "object", "properties": {"a": False}, "required": ["a"]}), "nsatisfiable"),
        (Constraint.json_schema({"type": "integer", "minimum": 3, "maximum": 2}), "nsatisfiable"),
        (Constraint.json_schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
        (Constraint.json_schema({"type": "strnig"}), "strnig"),
        (Constraint.json_schema({"$ref": "#/nowhere"}), "nowhere"),
        (Constraint.json_schema({"$ref": "http://example.com/schema.json"}), "not present"),
        (Constraint.json_schema({"$ref": "#"}), "NoExtensionBias"),
        (Constraint.json_schema(ENDLESS), "Too many items"),
        (Constraint.json_schema(nested(300)), "recursion limit"),
        (Constraint("json_schema", "[1"), "Expecting"),
        (Constraint("json_schema", "[]"), "not an object"),
        (Constraint.regex("(a"), "unclosed group"),
        (Constraint.regex("a(?=b)"), "look-around"),
        (Constraint.lark("start: other"), "other"),
        (Constraint.lark("beginning: /a/"), "start"),
    ],
)
def test_what_cannot_be_held_to_is_refused(vocabulary, constraint, problem):
    with pytest.raises(GrammarError, match=problem) as caught:
        vocabulary.grammars.compile(constraint)
    assert str(caught.value).startswith(f"the answer cannot be held to this {constraint.kind}: ")
    assert len(str(caught.value)) < 300


def test_a_schema_that_is_nested_too_deep_to_be_written_is_refused():
    with pytest.raises(GrammarError, match="nested too deep"):
        Constraint.json_schema(nested(100_000))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 62_615_533},
        {"type": "integer", "multipleOf": 9999.83},
        {"type": "array", "items": {"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}},
        {"$defs": {"a": {"multipleOf": 997}, "b": {"multipleOf": 991}}, "allOf": [{"$ref": "#/$defs/a"}]},
        {"type": "number", "multipleOf": 10**4000 + 1},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_multiples_that_would_take_minutes_and_gigabytes_to_compile_are_refused(vocabulary, schema):
    with pytest.raises(GrammarError, match="multipleOf asks for takes too long"):
        vocabulary.grammars.compile(Constraint.json_schema(schema))


@pytest.mark.parametrize("step", [7, 360, 0.01, 0.25, 1e-6, 65_536, 86_400, 10**9, 9973])
def test_multiples_that_people_ask_for_are_held_to(vocabulary, step):
    for kind in ("integer", "number"):
        schema = {"type": "object", "properties": {"multipleOf": {"type": kind, "multipleOf": step}}}
        assert vocabulary.grammars.compile(Constraint.json_schema(schema)).begin().forced() is not None


def test_a_constraint_is_compiled_once(vocabulary):
    constraint = Constraint.json_schema(LAMP)
    assert vocabulary.grammars.compile(constraint) is vocabulary.grammars.compile(Constraint.json_schema(dict(LAMP)))
    for number in range(100):
        vocabulary.grammars.compile(Constraint.regex(f"a{{{number}}}"))
    assert len(vocabulary.grammars._compiled) == 64


@pytest.fixture(params=["greedy", "lively"])
def params(request):
    lively = {"temperature": 1.0, "seed": 3, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1}
    return {"max_tokens": 60, "stop_ids": frozenset({STOP}), **(lively if request.param == "lively" else {})}


def generated(bundle, constraint: Constraint, **params):
    """Return a generation that has ended, and its ids."""
    tokenizer = bundle.tokenizer_path.read_bytes()
    grammars = Grammars(tokenizer, bundle.manifest.architecture.vocab_size, {STOP}, leading_space=False)
    with Engine.load(bundle, EngineSettings(threads=1)) as engine:
        generation = engine.generate(PROMPT, SamplingParams(grammar=grammars.compile(constraint), **params))
        ids = list(generation)
    return generation, ids


def test_a_model_without_sense_writes_what_the_schema_says(tiny_bundle, params):
    bundle = tiny_bundle()
    generation, ids = generated(bundle, Constraint.json_schema(LAMP), **params)
    jsonschema.validate(json.loads(Tokenizer(bundle.tokenizer_path).decode(ids)), LAMP)
    assert generation.finish_reason == "stop"
    assert generation.usage.completion_tokens == len(ids)


def test_forced_tokens_are_not_drawn_and_take_one_run_together(tiny_bundle, params, monkeypatch):
    from edge_assistant.engine.session import Session

    runs = []
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda self, ids: runs.append(len(ids)) or run(self, ids))
    generation, ids = generated(tiny_bundle(), Constraint.regex("0123456789(a|b)9876543210"), **params)
    assert len(ids) == 21
    assert runs == [len(PROMPT), 10]
    assert generation.finish_reason == "stop"


def test_an_answer_that_is_cut_is_called_so_and_one_that_just_fits_is_not(tiny_bundle, params):
    short = params | {"max_tokens": 20}
    assert generated(tiny_bundle(), Constraint.regex("0123456789(a|b)9876543210"), **short)[0].finish_reason == "length"
    exact = params | {"max_tokens": 21}
    assert generated(tiny_bundle(), Constraint.regex("0123456789(a|b)9876543210"), **exact)[0].finish_reason == "stop"


def test_a_vocabulary_with_a_space_before_all_text_may_write_it(stories):
    path = stories / "tokenizer.json"
    tokenizer = Tokenizer(path)
    match = (
        Grammars(path.read_bytes(), 512, {STOP}, leading_space=tokenizer.adds_space)
        .compile(Constraint.regex("Once upon a time"))
        .begin()
    )
    for token in tokenizer.encode("Once upon a time"):
        assert token in match.allowed()
        match.accept(token)
    assert match.complete
    assert match.ended


@pytest.mark.parametrize("pattern", ["[a-z]{20,30}", "abcdefghijkl", '\\{"on": (true|false), "name": "[a-z]*"\\}'])
def test_a_stop_id_that_the_grammar_writes_cuts_no_answer_short(tiny_bundle, params, pattern):
    """The letters end an answer only where it is whole."""
    bundle = tiny_bundle()
    tokenizer = Tokenizer(bundle.tokenizer_path)
    params["stop_ids"] |= frozenset(tokenizer.encode("aeiounrstl"))
    generation, ids = generated(bundle, Constraint.regex(pattern), **params)
    assert generation.finish_reason == "stop" or len(ids) == params["max_tokens"]
    if generation.finish_reason == "stop":
        assert re.fullmatch(pattern, tokenizer.decode(ids))
