"""Packs: laid out so that each question stands as it does alone, in the format that mistral-common writes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from edge_assistant.text.messages import Assistant, Message, System, ToolCall, ToolResult, User
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.reference_model import tokenizer as recipe
from edge_assistant_export.reference_model.conversations import conversation, questions
from edge_assistant_export.reference_model.examples.base import Speaker
from edge_assistant_export.reference_model.homes import house
from edge_assistant_export.reference_model.packing import (
    FORMAT,
    PADDING,
    batch,
    branch,
    mask,
    pack,
    prefix_ids,
    random_branches,
)

PATH = Path(__file__).parents[3] / "models/home-mini/checkpoint/tokenizer.json"
TOKENIZER = Tokenizer(PATH)


@pytest.mark.parametrize("seed", range(20))
def test_prefix_and_branch_are_the_whole_conversation(seed: int) -> None:
    rng = Random(seed)
    speaker = Speaker(rng)
    talk = conversation(speaker, house(rng), history=bool(seed % 2))
    prefix = prefix_ids(TOKENIZER, talk.before, talk.head)
    for example, _ in zip(questions(speaker, talk), range(6), strict=False):
        whole = FORMAT.encode(TOKENIZER, [*talk.messages(example.question), example.answer])
        made = branch(TOKENIZER, example.question, example.answer)
        assert prefix + made.ids == whole
        assert FORMAT.parse(TOKENIZER, made.ids[made.answer_at :]) == example.answer


def test_a_question_sees_the_prefix_and_itself() -> None:
    seen = mask(np.array([0, 0, 1, 1, 2, 2, PADDING]))
    rows = ["".join(".x"[int(flag)] for flag in row) for row in seen]
    assert rows == ["x......", "xx.....", "xxx....", "xxxx...", "xx..x..", "xx..xx.", "xx....x"]


def test_positions_and_targets_of_a_pack() -> None:
    prefix, branches, _ = random_branches(TOKENIZER, Random(5), 512)
    made = pack(Random(0), prefix, branches, 512)
    at = len(prefix)
    for one in branches:
        span = slice(at, at + len(one.ids))
        assert made.ids[span].tolist() == one.ids
        assert made.positions[span].tolist() == list(range(len(prefix), len(prefix) + len(one.ids)))
        at += len(one.ids)
    kept = made.weights > 0
    assert (made.targets[kept] == made.ids[made.predicted[kept] + 1]).all()
    assert (made.segments[made.predicted[kept]] == made.segments[made.predicted[kept] + 1]).all()


def test_every_token_of_an_answer_counts() -> None:
    prefix, branches, _ = random_branches(TOKENIZER, Random(6), 512)
    made = pack(Random(0), prefix, branches, 512)
    wanted = sum(len(one.ids) - one.answer_at for one in branches)
    assert (made.weights == 1).sum() == wanted
    ends = made.targets[made.weights == 1] == TOKENIZER.control_id("</s>")
    assert ends.sum() == len(branches)


def test_a_batch_is_given_by_seed_and_step() -> None:
    one, again, other = (batch(TOKENIZER, 1, step, 1024) for step in (4, 4, 6))
    assert (one.ids == again.ids).all()
    assert (one.weights == again.weights).all()
    assert not (one.ids == other.ids).all()


def test_the_layout_is_that_of_mistral_common(tmp_path: Path) -> None:
    official = _official(tmp_path)
    rng = Random(9)
    for _ in range(12):
        talk = conversation(Speaker(rng), house(rng), history=True)
        messages = talk.messages("Is the lamp on?")
        assert FORMAT.encode(TOKENIZER, messages) == official(messages)


def _official(folder: Path) -> Any:
    """Return mistral-common's own v7 encoding over our vocabulary, written as a tekken.json."""
    pytest.importorskip("mistral_common")
    from mistral_common.protocol.instruct.request import InstructRequest
    from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV7
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    first = len(recipe.CONTROLS)
    words = [TOKENIZER.token_bytes(first + rank) for rank in range(recipe.VOCABULARY - first)]
    document = {
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(word).decode(), "token_str": None}
            for rank, word in enumerate(words)
        ],
        "config": {
            "pattern": recipe.PATTERN,
            "num_vocab_tokens": len(words),
            "default_vocab_size": recipe.VOCABULARY,
            "default_num_special_tokens": first,
            "version": "v7",
        },
    }
    path = folder / "tekken.json"
    path.write_text(json.dumps(document))
    instruct = InstructTokenizerV7(Tekkenizer.from_file(path))

    def encode(messages: list[Message]) -> list[int]:
        request = InstructRequest(messages=[_official_message(one) for one in messages], system_prompt=None)
        return list(instruct.encode_instruct(request).tokens)

    return encode


def _official_message(message: Message) -> Any:
    from mistral_common.protocol.instruct import messages as official
    from mistral_common.protocol.instruct.tool_calls import FunctionCall
    from mistral_common.protocol.instruct.tool_calls import ToolCall as OfficialCall

    def call(made: ToolCall) -> OfficialCall:
        function = FunctionCall(name=made.name, arguments=json.dumps(dict(made.arguments), ensure_ascii=False))
        return OfficialCall(id=made.id or "", function=function)

    match message:
        case System(text):
            return official.SystemMessage(content=text)
        case User(text):
            return official.UserMessage(content=text)
        case ToolResult(call_id, text):
            return official.ToolMessage(content=text, tool_call_id=call_id)
        case Assistant(text, calls):
            return official.AssistantMessage(content=text or None, tool_calls=[call(made) for made in calls] or None)
