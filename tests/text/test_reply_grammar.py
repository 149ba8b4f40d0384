"""The grammar of replies with tools: what a trained model writes is let through, and no call that cannot be made."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest

from edge_assistant.engine import Grammars
from edge_assistant.errors import GrammarError
from edge_assistant.text.instruct import FORMATS, Control, InstructFormat
from edge_assistant.text.messages import Assistant, Tool, ToolCall, User
from edge_assistant.text.reply_grammar import reply_grammar

TOOL_FORMATS = [name for name in FORMATS if name != "v1"]
MARKED = ["v11", "v13"]
LAMP = Tool(
    "SetLamp",
    "Set a lamp",
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 4},
            "brightness": {"type": "integer", "minimum": 0, "maximum": 100},
        },
        "required": ["name"],
        "additionalProperties": False,
    },
)
STOP = Tool('Stop "now"', "Stop all", {"type": "object", "properties": {}, "additionalProperties": False})
TOOLS = [LAMP, STOP]
LOWER, HALT = ToolCall("SetLamp", {"name": "é☺", "brightness": 7}), ToolCall('Stop "now"', {})
LONGEST = 250


class Replies:
    """What a model may write in a format, with a vocabulary."""

    def __init__(self, name: str, tokenizer, file) -> None:
        self.layout, self.tokenizer = InstructFormat.named(name), tokenizer
        self.marks = self.layout.marks(tokenizer)
        self.stop_ids = self.layout.stop_ids(tokenizer)
        vocab_size = 1 + max(tokenizer._tokenizer.get_vocab().values())
        grammars = Grammars(file.read_bytes(), vocab_size, self.stop_ids, leading_space=tokenizer.adds_space)
        both = self.layout.text_with_calls
        self.grammar = grammars.compile(
            reply_grammar(TOOLS, self.marks, text_with_calls=both, leading_space=tokenizer.adds_space)
        )

    def ids(self, *answer: Control | str) -> list[int]:
        ids: list[int] = []
        for part in answer:
            control = isinstance(part, Control)
            ids += [self.tokenizer.control_id(part.name)] if control else self.tokenizer.encode(part)
        return ids

    def written(self, answer: Assistant) -> list[int]:
        question = [User("on")]
        before = len(self.layout.encode(self.tokenizer, question))
        return self.layout.encode(self.tokenizer, [*question, answer])[before:-1]

    def lets(self, ids: list[int]) -> bool:
        """Return whether the ids may be written, and may end there."""
        match = self.grammar.begin()
        for token_id in ids:
            if token_id not in match.allowed():
                return False
            match.accept(token_id)
        return match.complete

    def without_sense(self, seed: int) -> tuple[list[int], bool]:
        """Return what a model writes that knows nothing, and whether it came to an end."""
        rng, match = np.random.default_rng(seed), self.grammar.begin()
        controls = {self.marks.calls, self.marks.args, self.marks.call_id, self.marks.end_think}
        ends = [t for t in range(1000) if self.tokenizer.token_bytes(t)[:1] in (b'"', b"}", b"]")]
        ids = match.forced()
        while not match.ended and len(ids) < LONGEST:
            allowed = match.allowed()
            liked = [token_id for token_id in allowed if token_id in controls or token_id in ends]
            token_id = int(rng.choice(liked if liked and rng.random() < 0.5 else allowed))
            if token_id in self.stop_ids:
                return ids, True
            match.accept(token_id)
            ids += [token_id, *match.forced()]
        return ids, match.complete


@pytest.fixture(params=TOOL_FORMATS)
def replies(request, tokenizer, tokenizer_file):
    return Replies(request.param, tokenizer, tokenizer_file)


def test_what_a_trained_model_writes_is_let_through(replies):
    answers = [Assistant("Grüße ☺\nand more"), Assistant(calls=(LOWER,)), Assistant(calls=(HALT, LOWER))]
    answers += [Assistant("Well, then.", (LOWER,))] if replies.layout.text_with_calls else []
    assert replies.lets([])
    for answer in answers:
        assert replies.lets(replies.written(answer)), answer


def test_whatever_is_let_through_can_be_read_and_carried_out(replies):
    schemas, called, whole = {tool.name: tool.parameters for tool in TOOLS}, 0, 0
    for seed in range(150):
        ids, complete = replies.without_sense(seed)
        if complete:
            answer = replies.layout.parse(replies.tokenizer, ids)
            whole += 1
            called += len(answer.calls)
            for call in answer.calls:
                jsonschema.validate(dict(call.arguments), schemas[call.name])
    assert whole > 50
    assert called > 10


@pytest.mark.parametrize("name", MARKED)
def test_other_tools_other_arguments_and_calls_without_marks_are_not_let_through(name, tokenizer, tokenizer_file):
    replies = Replies(name, tokenizer, tokenizer_file)
    calls, args = Control("[TOOL_CALLS]"), Control("[ARGS]")
    assert replies.lets(replies.ids(calls, "SetLamp", args, '{"name": "a"}'))
    for wrong in (
        (calls, "SetLam", args, '{"name": "a"}'),
        (calls, "SetLamp", args, '{"brightness": 3}'),
        (calls, "SetLamp", args, '{"name": "a", "brightness": 101}'),
        (calls, "SetLamp", args, '{"name": "a"} '),
        (calls, "SetLamp", '{"name": "a"}'),
        (calls, "SetLamp", args),
        (calls,),
        (args, "{}"),
    ):
        assert not replies.lets(replies.ids(*wrong)), wrong


def test_a_thought_stands_first_and_ends(byte_level, tokenizer_file):
    replies = Replies("v13", byte_level, tokenizer_file)
    think, end = Control("[THINK]"), Control("[/THINK]")
    assert replies.lets(replies.ids(think, "Which?", end, "Yes."))
    assert not replies.lets(replies.ids(think, "Which?"))
    assert not replies.lets(replies.ids("Yes.", think, "Which?", end))


def test_a_tool_whose_schema_cannot_be_held_to_is_refused(tokenizer, tokenizer_file):
    odd = Tool("T", "", {"type": "object", "properties": {"a": {"not": {"type": "string"}}}})
    layout = InstructFormat.named("v7")
    grammars = Grammars(tokenizer_file.read_bytes(), 400, layout.stop_ids(tokenizer), leading_space=False)
    constraint = reply_grammar([odd], layout.marks(tokenizer), text_with_calls=True, leading_space=False)
    with pytest.raises(GrammarError, match="not"):
        grammars.compile(constraint)
