"""Questions and commands through a real broker."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.errors import EngineBusyError
from edge_assistant.text.chat import ChatModel

HALF_A_PAIR = rb'{"text": "hi", "response_format": {"type": "json_schema", "json_schema": {"schema": {}, "\ud800": 1}}}'
LAMP_ON = {"HassTurnOn": {"name": "lamp"}}


def script(text):
    return (
        LAMP_ON
        if text == "lamp on"
        else {"HassStartTimer": {"seconds": 1, "name": "eggs"}}
        if text == "timer"
        else "yes"
    )


async def with_lamp(someone, state="off"):
    await someone.tell("home/hall/lamp/meta", '{"domain": "light"}', retain=True)
    await someone.tell("home/hall/lamp/state", state, retain=True)


async def test_plain_text_is_answered_on_a_topic_of_its_own(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    await service(scripted_model(script), settings(broker.port))
    someone = await person(broker.port)
    answer, message = await someone.ask("are you there?")
    assert (answer["status"], answer["text"], answer["calls"]) == ("ok", "yes", [])
    assert str(message.topic) == f"assistant/home/answer/{answer['id']}"
    assert not message.retain
    assert answer["usage"]["completion_tokens"] == 1
    assert set(answer["timing"]) == {"prefill_s", "decode_s", "model_s", "act_s", "total_s"}


async def test_the_answer_goes_to_the_response_topic_with_its_correlation(
    mosquitto, settings, service, person, scripted_model
):
    broker = mosquitto()
    await service(scripted_model(script), settings(broker.port))
    someone = await person(broker.port, "replies/7")
    answer, message = await someone.ask('{"text": "hi", "id": "q7"}', "replies/7", b"\x00\xff", hear="replies/7")
    assert answer["id"] == "q7"
    assert message.properties.CorrelationData == b"\x00\xff"


async def test_a_response_format_holds_the_answer_and_what_it_cannot_be_is_an_error(
    mosquitto, settings, service, person, tiny_bundle
):
    broker = mosquitto()
    with ChatModel.load(tiny_bundle({"max_position_embeddings": 4096}), EngineSettings(threads=1)) as model:
        await service(model, settings(broker.port))
        someone = await person(broker.port)

        async def ask(schema, max_tokens=40):
            form = {"type": "json_schema", "json_schema": {"schema": schema}}
            asked = {"text": "on?", "max_tokens": max_tokens, "response_format": form}
            return (await someone.ask(json.dumps(asked)))[0]

        answer = await ask({"enum": ["on", "off"]})
        assert (answer["status"], json.loads(answer["text"]) in ("on", "off")) == ("ok", True)
        cut = await ask({"type": "array", "items": {"type": "boolean"}, "minItems": 20}, max_tokens=9)
        refused = await ask({"enum": []})
        broken = await ask(True)
        assert [error["error"]["code"] for error in (cut, refused, broken)] == [
            "incomplete",
            "invalid_schema",
            "invalid_field",
        ]


@pytest.mark.parametrize(
    "topic",
    [
        "home/hall/lamp/state/set",
        "home/hall/lamp/state",
        "assistant/home/ask",
        "cmnd/lamp/POWER",
        "$SYS/x",
        pytest.param("/" * 300, id="levels"),  # on which Mosquitto lets nobody publish
    ],
)
async def test_a_response_topic_that_commands_or_is_read_is_refused(
    mosquitto, settings, service, person, scripted_model, topic
):
    broker = mosquitto()
    model = scripted_model(script)
    await service(model, settings(broker.port))
    someone = await person(broker.port)
    answer, message = await someone.ask('{"text": "hi", "id": "q7"}', topic, b"c")
    assert answer["error"]["code"] == "response_topic_refused"
    assert str(message.topic) == "assistant/home/answer/q7"
    assert message.properties.CorrelationData == b"c"
    assert not model.prompts


async def test_a_command_is_published_and_done_once_the_state_follows(
    mosquitto, settings, service, person, scripted_model
):
    broker = mosquitto()
    await service(scripted_model(script), settings(broker.port, assistant={"settle_seconds": 10}))
    someone = await person(broker.port, "home/+/+/+/set")
    await with_lamp(someone)
    await someone.tell("assistant/home/ask", "lamp on")
    command = await someone.hear("home/#")
    assert (str(command.topic), command.payload, command.retain) == ("home/hall/lamp/state/set", b"on", False)
    await someone.tell("home/hall/lamp/state", "ON")
    answer = json.loads((await someone.hear("assistant/home/answer/+")).payload)
    assert answer["text"] == "Turned on the lamp."
    assert answer["calls"] == [
        {
            "id": "call00001",
            "name": "HassTurnOn",
            "arguments": {"name": "lamp"},
            "status": "done",
            "text": answer["text"],
        }
    ]


async def test_a_device_that_does_not_follow_is_not_called_done(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    await service(scripted_model(script), settings(broker.port))
    someone = await person(broker.port)
    await with_lamp(someone)
    answer, _ = await someone.ask("lamp on")
    assert answer["text"] == "The lamp did not follow: it still reports off."
    assert answer["calls"][0]["status"] == "not_followed"


async def test_only_what_the_home_lists_is_commanded(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    await service(scripted_model(script), settings(broker.port))
    someone = await person(broker.port, "#")
    answer, _ = await someone.ask("lamp on")
    assert answer["calls"][0]["status"] == "refused"
    await someone.tell("assistant/home/ask", "hello")
    heard = [str((await someone.hear()).topic) for _ in range(2)]
    assert not any(topic.endswith("/set") for topic in heard)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"x" * 10_000_000, "too_large"),
        (b'{"text": ', "invalid_json"),
        (b"\xff\xfe", "invalid_utf8"),
        (b'{"text": "hi", "tokens": 5}', "invalid_field"),
        (HALF_A_PAIR, "invalid_field"),
        (b"", "empty"),
        (b"why? " * 2000, "context_overflow"),
    ],
)
async def test_a_bad_question_is_a_named_error_and_the_next_is_answered(
    mosquitto, settings, service, person, scripted_model, payload, code
):
    broker = mosquitto()
    await service(scripted_model(script), settings(broker.port))
    someone = await person(broker.port)
    answer, message = await someone.ask(payload)
    assert (answer["status"], answer["error"]["code"]) == ("error", code)
    assert str(message.topic) == f"assistant/home/answer/{answer['id']}"
    answer, _ = await someone.ask("still there?")
    assert answer["text"] == "yes"


async def test_states_are_taken_in_while_the_model_thinks(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    model = scripted_model(script)
    model.gate.clear()
    await service(model, settings(broker.port))
    someone = await person(broker.port)
    await someone.tell("assistant/home/ask", "think")
    await asyncio.to_thread(model.started.wait, 10)
    await with_lamp(someone, "on")
    await someone.tell("assistant/home/ask", "what is on?")
    model.gate.set()
    await someone.hear("assistant/home/answer/+")
    await someone.hear("assistant/home/answer/+")
    assert "light: lamp, on" not in model.prompts[0][-1].text
    assert "light: lamp, on" in model.prompts[1][-1].text


async def test_more_questions_than_may_wait_are_refused_with_a_hint(
    mosquitto, settings, service, person, scripted_model
):
    broker = mosquitto()
    model = scripted_model(script)
    model.gate.clear()
    await service(model, settings(broker.port, assistant={"queue": 2}))
    someone = await person(broker.port)
    for number in range(4):
        await someone.tell("assistant/home/ask", f'{{"text": "hi", "id": "{number}"}}')
    busy = json.loads((await someone.hear("assistant/home/answer/+")).payload)
    assert (busy["id"], busy["error"]["code"]) == ("3", "busy")
    assert busy["error"]["retry_after_s"] > 0
    model.gate.set()
    answered = {json.loads((await someone.hear("assistant/home/answer/+")).payload)["id"] for _ in range(3)}
    assert answered == {"0", "1", "2"}


async def test_a_model_that_has_no_place_is_busy_and_says_until_when(
    mosquitto, settings, service, person, scripted_model
):
    def full(text):
        raise EngineBusyError(16, 2.53)

    broker = mosquitto()
    await service(scripted_model(full), settings(broker.port))
    answer, _ = await (await person(broker.port)).ask("hi")
    assert (answer["error"]["code"], answer["error"]["retry_after_s"]) == ("busy", 2.5)


async def test_a_question_is_answered_with_the_adapter_that_it_names(
    mosquitto, settings, service, person, scripted_model
):
    broker, model = mosquitto(), scripted_model(script)
    await service(model, settings(broker.port))
    someone = await person(broker.port)
    for adapter in ("kitchen", None, "garden"):
        answer, _ = await someone.ask(json.dumps({"text": "hi", "session": "a", "adapter": adapter}))
        assert answer["text"] == "yes"
    assert model.adapters == ["the kitchen's", None, "the garden's"]
    answer, _ = await someone.ask('{"text": "hi", "id": "q7", "adapter": "cellar"}')
    assert answer["id"] == "q7"
    message = "no adapter is called 'cellar'; there are garden, kitchen"
    assert answer["error"] == {"code": "unknown_adapter", "message": message}
    assert len(model.prompts) == 3


async def test_a_real_model_answers_with_each_adapter_as_if_it_had_no_other(
    mosquitto, settings, service, person, tiny_bundle, lora_file, tmp_path, stopped_clock
):
    """One without an instruct format, so that no tools are described to it: its context is short."""
    bundle = tiny_bundle(lora_rank=4)
    bundle = Bundle(bundle.path, replace(bundle.manifest, instruct=None))
    files = {name: lora_file(tmp_path / f"{name}.npz", bundle, seed) for seed, name in enumerate(("kitchen", "garden"))}
    engine = EngineSettings(threads=1)

    async def texts(model, names):
        broker = mosquitto()
        await service(model, settings(broker.port, assistant={"max_tokens": 12}))
        someone = await person(broker.port)
        asked = [json.dumps({"text": "are you there?", "adapter": name}) for name in names]
        return [(await someone.ask(payload))[0]["text"] for payload in asked]

    alone = []
    for file in (None, *files.values()):
        with ChatModel.load(bundle, engine, adapter=file) as model:
            alone += await texts(model, [None])
    assert len(set(alone)) == 3
    with ChatModel.load(bundle, engine, adapters=files) as model:
        answers = await texts(model, [None, "kitchen", "garden", "kitchen", None])
    assert answers == [alone[0], alone[1], alone[2], alone[1], alone[0]]


async def test_a_retained_question_is_not_answered_again_and_again(
    mosquitto, settings, service, person, scripted_model
):
    broker = mosquitto()
    someone = await person(broker.port)
    await someone.tell("assistant/home/ask", "lamp on", retain=True)
    model = scripted_model(script)
    await service(model, settings(broker.port))
    answer, _ = await someone.ask("hi")
    assert (answer["text"], len(model.prompts)) == ("yes", 1)


async def test_the_end_of_a_timer_is_an_event(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    await service(scripted_model(script), settings(broker.port))
    someone = await person(broker.port, "assistant/home/event")
    answer, _ = await someone.ask("timer")
    assert answer["text"] == "Started a 1 second timer for eggs."
    event = await someone.hear("assistant/home/event")
    assert json.loads(event.payload) == {"event": "timer", "name": "eggs", "seconds": 1}


async def test_it_is_online_until_it_is_stopped_and_says_so(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    model = scripted_model(script)
    online = await service(model, settings(broker.port))
    someone = await person(broker.port, "assistant/home/state")
    message = await someone.hear("assistant/home/state")
    assert (message.payload, message.retain) == (b"online", True)
    model.gate.clear()
    await someone.tell("assistant/home/ask", "think")
    await asyncio.to_thread(model.started.wait, 10)
    online.task.cancel()
    farewell = json.loads((await someone.hear("assistant/home/answer/+")).payload)
    assert farewell["error"]["code"] == "shutting_down"
    assert (await someone.hear("assistant/home/state")).payload == b"offline"
    with pytest.raises(asyncio.CancelledError):
        await online.task


async def test_a_fault_of_ours_is_answered_and_the_service_goes_on(
    mosquitto, settings, service, person, scripted_model, caplog
):
    def faulty(text):
        return "yes" if text == "hi" else 1 // 0

    broker = mosquitto()
    await service(scripted_model(faulty), settings(broker.port))
    someone = await person(broker.port)
    answer, _ = await someone.ask("break")
    assert answer["error"]["code"] == "internal"
    answer, _ = await someone.ask("hi")
    assert answer["text"] == "yes"


async def test_sessions_are_kept_by_name(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    model = scripted_model(script)
    await service(model, settings(broker.port))
    someone = await person(broker.port)
    for session in ("a", "a", "b"):
        await someone.ask(json.dumps({"text": "hi", "session": session}))
    assert [len(prompt) for prompt in model.prompts] == [2, 4, 2]
