"""A real bundle, loaded and talked to: what ends a reply, what is handed on, what is refused.

Most models here recite: their layers add nothing, and their output head holds, for every piece of a script, the
piece that follows it.
"""

from __future__ import annotations

import json
import threading
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Constraint, SamplingParams
from edge_assistant.engine.prefixes import SHORTEST
from edge_assistant.errors import (
    ContextOverflowError,
    ConversationError,
    GrammarError,
    LoraFileError,
    LoraGraphError,
    LoraNameError,
    ToolCallError,
)
from edge_assistant.text.chat import ChatModel
from edge_assistant.text.messages import Assistant, System, Tool, ToolCall, User
from edge_assistant.text.tokenizer import _byte_of_letter

QUESTION = [User("Is it on?")]
PARAMS = SamplingParams(max_tokens=20)
CALL = ["[TOOL_CALLS]", '[{"name": ', '"HassTurnOn", ', '"arguments": {"name": "fan"}', "}]"]
MARKED_CALL = ["[TOOL_CALLS]", "HassTurn", "On", "[ARGS]", '{"name": ', '"fan"}']
LATER_CONTROLS = ("[CALL_ID]", "[ARGS]", "[THINK]", "[/THINK]")
ANYTHING = Constraint.regex("(?s:.*)")
EXPECTED_CALL = ToolCall("HassTurnOn", {"name": "fan"})


@pytest.fixture
def reciting(tiny_checkpoint, export_bundle, tmp_path):
    """Return a function that loads a model which answers everything with this script, of pieces that differ."""
    models = []

    def load(*script: str | bytes, instruct: str = "v7-tekken") -> ChatModel:
        plain = tiny_checkpoint(num_hidden_layers=1)
        document = json.loads((plain / "tokenizer.json").read_bytes())
        ids = document["model"]["vocab"]
        for name in [] if instruct == "v7-tekken" else LATER_CONTROLS:
            ids[name] = len(ids)
            document["added_tokens"].append(document["added_tokens"][0] | {"id": ids[name], "content": name})
        controls = {token["content"] for token in document["added_tokens"]}
        pieces = [piece if piece in controls else as_letters(piece) for piece in ("[/INST]", *script, "</s>")]
        for piece in pieces:
            ids.setdefault(piece, len(ids))
        checkpoint = tmp_path / f"checkpoint-{len(models)}"
        checkpoint.mkdir()
        shape = json.loads((plain / "config.json").read_bytes()) | {"vocab_size": len(ids)}
        (checkpoint / "config.json").write_text(json.dumps(shape))
        (checkpoint / "tokenizer.json").write_text(json.dumps(document))
        weights = reciting_weights(load_file(plain / "model.safetensors"), [ids[piece] for piece in pieces], len(ids))
        save_file(weights, checkpoint / "model.safetensors")
        models.append(ChatModel.load(export_bundle(checkpoint, bits=32, instruct=instruct), EngineSettings()))
        return models[-1]

    yield load
    for model in models:
        model.close()


def as_letters(piece: str | bytes) -> str:
    """Write a piece as a byte-level vocabulary has it."""
    letters = {byte: letter for letter, byte in _byte_of_letter().items()}
    return "".join(letters[byte] for byte in (piece.encode() if isinstance(piece, str) else piece))


def reciting_weights(tensors, script: list[int], vocab_size: int):
    """Return weights under which each id of the script is followed by the next."""
    hidden = tensors["model.norm.weight"].size
    embedding = np.random.default_rng(0).choice([-1.0, 1.0], (vocab_size, hidden)).astype(np.float32)
    head = np.zeros_like(embedding)
    for token, following in pairwise(script):
        head[following] += embedding[token]
    silent = {name: np.zeros_like(tensors[name]) for name in tensors if "o_proj" in name or "down_proj" in name}
    tensors |= silent | {"model.norm.weight": np.ones(hidden, np.float32)}
    return tensors | {"model.embed_tokens.weight": embedding, "lm_head.weight": head}


def test_text_is_handed_on_as_it_comes(reciting):
    model, heard = reciting("Yes, ", b"it is \xe2\x98", b"\xba", "."), []
    reply = model.chat(QUESTION, (), PARAMS, on_text=heard.append)
    assert reply.message == Assistant("Yes, it is ☺.")
    assert heard == ["Yes, ", "it is ", "☺", "."]
    assert reply.finish_reason == "stop"
    assert reply.usage.prompt_tokens == model.count(QUESTION)
    assert reply.usage.completion_tokens == 4


def test_calls_are_read_and_not_handed_on(reciting):
    model, heard = reciting("Sure.", *CALL), []
    reply = model.chat(QUESTION, (), PARAMS, on_text=heard.append)
    assert reply.message == Assistant("Sure.", (EXPECTED_CALL,))
    assert heard == ["Sure."]


@pytest.mark.parametrize("instruct", ["v11", "v13"])
def test_calls_with_marks_are_read_and_not_handed_on(reciting, instruct):
    model, heard = reciting("Sure.", *MARKED_CALL, instruct=instruct), []
    reply = model.chat(QUESTION, (), PARAMS, on_text=heard.append)
    assert reply.message == Assistant("Sure.", (EXPECTED_CALL,))
    assert heard == ["Sure."]
    for max_tokens in range(2, 8):
        with pytest.raises(ToolCallError, match=f"cut off after {max_tokens} tokens"):
            model.chat(QUESTION, (), SamplingParams(max_tokens=max_tokens))


TOOL = Tool("HassTurnOn", "Turn something on.", {"type": "object", "properties": {"name": {"type": "string"}}})
HOUSE = System("You look after a house, its lamps and its doors.")
TURNS = [HOUSE, User("Is the lamp on?"), Assistant("Yes, it is.")]
SHARING = {
    "another question": ([HOUSE, User("Why is it?")], [HOUSE, User("How so?")]),
    "the next turn": (
        [*TURNS, User("lamp: on. Why is it?")],
        [*TURNS, User("Why is it?"), Assistant("So."), User("lamp: on. How so?")],
    ),
}


@pytest.mark.parametrize("instruct", ["v3-tekken", "v7-tekken", "v13"])
@pytest.mark.parametrize("tools", [(), (TOOL,)], ids=["no tools", "tools"])
@pytest.mark.parametrize("prompts", SHARING.values(), ids=SHARING)
def test_what_a_format_lets_stay_of_a_prompt_is_read_once(reciting, instruct, tools, prompts):
    """Another conversation in between leaves nothing in the cache itself."""
    model = reciting("Yes.", instruct=instruct)
    first, second = (model._prompt(messages, tools) for messages in prompts)
    stays = next(at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    assert stays > SHORTEST
    model.chat(prompts[0], tools, PARAMS, constraint=ANYTHING)
    model.chat([User("?" * 80)], (), PARAMS)
    reply = model.chat(prompts[1], tools, PARAMS, constraint=ANYTHING)
    assert reply.usage.cached_tokens == stays


def test_thoughts_are_not_handed_on_and_hold_no_stop_string(reciting):
    script = ("[THINK]", "Is it", " on?", "[/THINK]", "Yes, ", "it is.")
    model, heard = reciting(*script, instruct="v13"), []
    reply = model.chat(QUESTION, (), PARAMS, on_text=heard.append, stop=["on?"])
    assert (reply.message, reply.finish_reason) == (Assistant("Yes, it is."), "stop")
    assert heard == ["Yes, ", "it is."]
    reply = model.chat(QUESTION, (), SamplingParams(max_tokens=3), on_text=heard.append)
    assert (reply.message, reply.finish_reason) == (Assistant(), "length")


def test_a_stop_string_cuts_across_pieces(reciting):
    model, heard = reciting("It is o", "n.\nUs", "er: and", " more"), []
    reply = model.chat(QUESTION, (), PARAMS, on_text=heard.append, stop=["\nUser:"])
    assert reply.message.text == "".join(heard) == "It is on."
    assert reply.finish_reason == "stop"
    assert reply.usage.completion_tokens == 3
    assert model.chat(QUESTION, (), PARAMS).message.text == "It is on.\nUser: and more"


def test_what_might_have_been_a_stop_string_is_released(reciting):
    model = reciting("a\nUs", "ual")
    assert model.chat(QUESTION, (), PARAMS, stop=["\nUser:"]).message.text == "a\nUsual"
    assert model.chat(QUESTION, (), SamplingParams(max_tokens=1), stop=["\nUser:"]).message.text == "a\nUs"
    assert reciting("a\nUs", *CALL).chat(QUESTION, (), PARAMS, stop=["\nUser:"]).message.text == "a\nUs"


def test_stop_strings_are_not_looked_for_in_calls(reciting):
    reply = reciting(*CALL).chat(QUESTION, (), PARAMS, stop=["name"])
    assert reply.message.calls == (EXPECTED_CALL,)


def test_a_reply_ends_before_the_model_speaks_for_the_user(reciting):
    reply = reciting("Yes.", "[INST]", "Thank you").chat(QUESTION, (), PARAMS)
    assert (reply.message.text, reply.finish_reason) == ("Yes.", "stop")


def test_stop_ids_of_the_caller_count_too(reciting):
    model = reciting("Yes", "!")
    (stop_id,) = model._tokenizer.encode("!")
    reply = model.chat(QUESTION, (), SamplingParams(max_tokens=9, stop_ids=frozenset({stop_id})))
    assert (reply.message.text, reply.finish_reason) == ("Yes", "stop")


def test_max_tokens_ends_text_and_refuses_half_a_call(reciting):
    model = reciting("Sure.", *CALL)
    reply = model.chat(QUESTION, (), SamplingParams(max_tokens=1))
    assert (reply.message, reply.finish_reason) == (Assistant("Sure."), "length")
    with pytest.raises(ToolCallError, match="cut off after 4 tokens"):
        model.chat(QUESTION, (), SamplingParams(max_tokens=4))


def test_a_malformed_call_is_refused_and_the_model_goes_on(reciting):
    model = reciting("[TOOL_CALLS]", "[{nonsense", "}]")
    for _ in range(2):
        with pytest.raises(ToolCallError, match="nonsense"):
            model.chat(QUESTION, (), PARAMS)


def test_cancelling_keeps_the_text_and_drops_the_calls(reciting):
    model, cancel, heard = reciting("Sure, ", "at once.", *CALL), threading.Event(), []

    def listen(text: str) -> None:
        heard.append(text)
        cancel.set()

    reply = model.chat(QUESTION, (), PARAMS, on_text=listen, cancel=cancel)
    assert (reply.message, reply.finish_reason) == (Assistant("Sure, "), "cancelled")
    assert heard == ["Sure, "]
    with_calls = reciting(*CALL)
    reply = with_calls.chat(QUESTION, (), PARAMS, cancel=cancel)
    assert (reply.message, reply.finish_reason) == (Assistant(), "cancelled")


def test_a_listener_that_fails_does_not_keep_the_engine(reciting):
    model = reciting("Yes")

    def fail(text: str) -> None:
        raise BrokenPipeError(text)

    with pytest.raises(BrokenPipeError):
        model.chat(QUESTION, (), PARAMS, on_text=fail)
    assert model.chat(QUESTION, (), PARAMS).message.text == "Yes"


def test_a_model_without_a_chat_format_goes_on_writing(stories, export_bundle):
    once = [User("Once upon a time")]
    with ChatModel.load(export_bundle(stories, bits=32).path, EngineSettings()) as model:
        heard: list[str] = []
        reply = model.chat(once, (), SamplingParams(max_tokens=24), on_text=heard.append)
        assert reply.message.text == "".join(heard)
        assert reply.message.text.startswith(", there was a little girl named Lily.")
        assert reply.finish_reason == "length"
        assert model.count([User("old"), Assistant("text"), *once]) == model.count(once)
        with pytest.raises(ConversationError, match="knows no tools"):
            model.chat(once, [Tool("T", "", {})], PARAMS)


def test_a_conversation_that_the_assistant_ended_is_not_answered(reciting):
    with pytest.raises(ConversationError, match=r"turn 2 .*user's turn"):
        reciting("Yes").chat([*QUESTION, Assistant("No.")], (), PARAMS)


def test_a_prompt_that_is_too_long_is_refused(reciting):
    model = reciting("Yes")
    with pytest.raises(ContextOverflowError):
        model.chat([User("x" * model.capacity)], (), PARAMS)


def test_a_reply_is_what_its_constraint_says_whatever_the_model_wants(reciting):
    model, shown = reciting("The lamp", " is on."), []
    schema = {
        "type": "object",
        "properties": {"on": {"type": "boolean"}},
        "required": ["on"],
        "additionalProperties": False,
    }
    reply = model.chat(QUESTION, (), PARAMS, on_text=shown.append, constraint=Constraint.json_schema(schema))
    assert set(json.loads(reply.message.text)) == {"on"}
    assert "".join(shown) == reply.message.text
    assert reply.finish_reason == "stop"


def test_a_reply_that_is_cut_short_of_its_constraint_says_so(reciting):
    short = SamplingParams(max_tokens=3)
    reply = reciting("a").chat(QUESTION, (), short, constraint=Constraint.regex("[0-9]{5}"))
    assert (len(reply.message.text), reply.finish_reason) == (3, "length")


def test_an_impossible_constraint_is_refused_before_anything_runs(reciting):
    model = reciting("a")
    with pytest.raises(GrammarError, match="nsatisfiable"):
        model.chat(
            QUESTION, (), PARAMS, constraint=Constraint.json_schema({"type": "integer", "minimum": 1, "maximum": 0})
        )
    assert model.chat(QUESTION, (), PARAMS).usage.cached_tokens == 0


def test_a_reply_is_written_with_the_adapter_named_else_with_that_of_the_model(tiny_bundle, lora_file, tmp_path):
    bundle = tiny_bundle(lora_rank=4)
    paths = [lora_file(tmp_path / f"{seed}.npz", bundle, seed) for seed in range(2)]

    def ids(model, adapter=None):
        return model.chat(QUESTION, [], PARAMS, adapter=adapter).message.text

    with ChatModel.load(bundle, EngineSettings()) as plain, ChatModel.load(bundle, EngineSettings()) as other:
        without = ids(plain)
        tuned = [ids(plain, plain.load_adapter(path)) for path in paths]
        assert len({without, *tuned}) == 3
        assert ids(plain) == without
        assert [ids(other, other.load_adapter(path)) for path in reversed(paths)] == tuned[::-1]
    with ChatModel.load(bundle, EngineSettings(), adapter=paths[0]) as model:
        assert [ids(model), ids(model, model.load_adapter(paths[1])), ids(model)] == [tuned[0], tuned[1], tuned[0]]
    with pytest.raises(LoraGraphError):
        ChatModel.load(tiny_bundle(), EngineSettings(), adapter=paths[0])


def test_adapters_that_a_model_was_loaded_with_are_read_once_and_had_by_name(tiny_bundle, lora_file, tmp_path):
    bundle = tiny_bundle(lora_rank=4)
    kitchen, garden = (lora_file(tmp_path / f"{seed}.npz", bundle, seed) for seed in range(2))
    named = {"kitchen": kitchen, "garden": garden, "yard": garden}
    with ChatModel.load(bundle, EngineSettings(), adapter=kitchen, adapters=named) as model:
        kitchen.unlink()
        garden.unlink()
        assert model.adapter("garden") is model.adapter("yard") is not model.adapter("kitchen")
        replies = [
            model.chat(QUESTION, [], PARAMS, adapter=name and model.adapter(name)).message.text
            for name in (None, "garden", "kitchen", "yard", None)
        ]
        assert replies == [replies[0], replies[1], replies[0], replies[1], replies[0]]
        assert replies[0] != replies[1]
        with pytest.raises(LoraNameError, match="called 'cellar'; there are garden, kitchen, yard"):
            model.adapter("cellar")
    with ChatModel.load(bundle, EngineSettings()) as model, pytest.raises(LoraNameError, match=r"model\.adapters"):
        model.adapter("kitchen")
    with pytest.raises(LoraFileError):
        ChatModel.load(bundle, EngineSettings(), adapters=named)
