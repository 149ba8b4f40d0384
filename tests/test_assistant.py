"""One turn: what the model is shown, what is done, what is said, what is remembered."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from pathlib import Path

import pytest

from edge_assistant.assistant import EMPTY, Answer, Ask, Assistant
from edge_assistant.config import AssistantSettings, EngineSettings
from edge_assistant.engine import Claim, Constraint
from edge_assistant.errors import ContextOverflowError, EngineClosedError, IncompleteAnswerError, LoraNameError
from edge_assistant.home.registry import Device, Home
from edge_assistant.home.tools import TOOLS
from edge_assistant.text.messages import Assistant as Said
from edge_assistant.text.messages import System, ToolCall, ToolResult, User

HOME_MINI = Path(__file__).parents[1] / "models" / "home-mini"


class Follows:
    """An actuator whose devices follow at once."""

    def __init__(self, home):
        self.home = home

    async def set(self, device, property_name, value):
        self.home.report(device.area, device.name, property_name, value)
        return True


def a_home(count=2):
    devices = [Device("hall", "lamp", "light", properties={"state": "off"}), Device("hall", "front door", "lock")]
    spare = [Device("cellar", f"sensor {n}", "sensor", properties={"state": n}) for n in range(count - 2)]
    return Home([*spare, *devices])


def make(model, home=None, **settings):
    home = home or a_home()
    return Assistant(model, home, Follows(home), AssistantSettings(**settings))


async def test_the_model_is_shown_the_home_and_then_the_question(scripted_model):
    model = scripted_model(lambda text: "It is off.")
    answer = await make(model).answer(Ask("is the lamp on?", id="q1"))
    system, user = model.prompts[0]
    time, *devices = user.text.splitlines()
    assert isinstance(system, System)
    assert time.startswith("time: ")
    assert devices == ["hall:", "- light: lamp, off", "- lock: front door", "", "is the lamp on?"]
    assert (answer.id, answer.text, answer.calls) == ("q1", "It is off.", ())


async def test_a_command_is_carried_out_and_then_said_to_be_done(scripted_model):
    home = a_home()
    answer = await make(scripted_model(lambda text: {"HassTurnOn": {"name": "lamp"}}), home).answer(Ask("light!"))
    assert home.get("hall", "lamp").state == "on"
    assert answer.text == "Turned on the lamp."
    assert [(outcome.status, outcome.call.id) for outcome in answer.calls] == [("done", "call00001")]


async def test_a_lock_is_not_opened_by_a_name_that_follows_on_closing(scripted_model):
    model = scripted_model(lambda text: {"HassTurnOff": {"name": "door" if "close" in text else "front door"}})
    assistant = make(model)
    asked = await assistant.answer(Ask("close the door", session="a"))
    answer = await assistant.answer(Ask("the front door", session="a"))
    assert asked.text == "Which one: the front door in the hall?"
    assert answer.text == "I leave the front door as it is. To open it, say unlock."
    assert [call.status for call in answer.calls] == ["refused"]
    assert (await assistant.answer(Ask("unlock the front door", session="a"))).calls[0].status == "done"


async def test_yes_to_nothing_moves_nothing(scripted_model):
    assistant = make(scripted_model(lambda text: {"HassTurnOn": {"name": "lamp"}}))
    for _ in range(2):
        assert (await assistant.answer(Ask("yes", session="a"))).text == "I asked nothing. Say what to do."


async def test_a_call_on_what_the_home_does_not_list_is_refused_in_words(scripted_model):
    answer = await make(scripted_model(lambda text: {"HassTurnOn": {"name": "sauna"}})).answer(Ask("warm up the sauna"))
    assert answer.text == "There is no sauna."
    assert answer.calls[0].status == "refused"


async def test_an_answer_without_words_still_says_something(scripted_model):
    answer = await make(scripted_model(lambda text: " ")).answer(Ask("?"))
    assert answer.text == EMPTY


async def test_with_a_schema_no_tool_is_offered_and_the_answer_is_held_to_it(scripted_model):
    schema = {"type": "boolean"}
    model = scripted_model(lambda text: "true")
    answer = await make(model).answer(Ask("is the lamp on?", schema=schema))
    plain = await make(model).answer(Ask("is the lamp on?"))
    assert answer.text == plain.text == "true"
    assert model.held_to == [(0, Constraint.json_schema(schema)), (len(TOOLS), None)]
    assert model.prompts[0][-1].text.endswith(
        'is the lamp on?\n\nAnswer with JSON for this schema: {"type": "boolean"}'
    )


async def test_a_model_whose_format_knows_no_tools_answers_in_text(tiny_bundle):
    from edge_assistant.text.chat import ChatModel

    with ChatModel.load(tiny_bundle(instruct="v1"), EngineSettings()) as model:
        answer = await make(model, Home()).answer(Ask("?", max_tokens=1))
    assert not answer.calls
    assert answer.usage.completion_tokens == 1


async def test_half_an_answer_to_a_schema_is_an_error_and_is_not_remembered(scripted_model):
    model = scripted_model(lambda text: "true")
    assistant, cancel = make(model), threading.Event()
    model.gate.clear()
    cancel.set()
    with pytest.raises(IncompleteAnswerError, match="finish_reason is cancelled"):
        await assistant.answer(Ask("on?", session="a", schema={}), cancel=cancel)
    model.gate.set()
    await assistant.answer(Ask("on?", session="a"))
    assert len(model.prompts[-1]) == 2


async def test_an_answer_reads_what_it_writes(scripted_model):
    answer = await make(scripted_model(lambda text: {"HassTurnOn": {"name": "lamp"}})).answer(Ask("light!"))
    written = answer.to_json()
    assert Answer.from_json(written).to_json() == written
    assert json.loads(written)["status"] == "ok"


async def test_a_session_follows_up_and_another_does_not(scripted_model):
    model = scripted_model(lambda text: {"HassTurnOn": {"name": "lamp"}} if "on" in text else "fine")
    assistant = make(model)
    await assistant.answer(Ask("lamp on", session="a"))
    await assistant.answer(Ask("thanks", session="a"))
    await assistant.answer(Ask("thanks", session="b"))
    await assistant.answer(Ask("thanks"))
    _, *first, last = model.prompts[1]
    assert first == [
        User("lamp on"),
        Said("", (ToolCall("HassTurnOn", {"name": "lamp"}, "call00001"),)),
        ToolResult("call00001", "done"),
        Said("Turned on the lamp."),
    ]
    assert last.text.endswith("\n\nthanks")
    assert [len(prompt) for prompt in model.prompts] == [2, 6, 2, 2]


async def test_a_question_in_capitals_is_read_in_small_letters(scripted_model):
    model = scripted_model(lambda text: "fine")
    assistant = make(model)
    for said in ("IS THE LAMP ON?", "Is the TV on?"):
        await assistant.answer(Ask(said, session="a"))
    _, first, _, last = model.prompts[1]
    assert first == User("is the lamp on?")
    assert last.text.endswith("\n\nIs the TV on?")


async def test_an_adapter_is_that_of_one_question_and_an_unknown_one_leaves_no_trace(scripted_model):
    model = scripted_model(lambda text: "fine")
    assistant = make(model)
    for adapter in (None, "kitchen", None):
        await assistant.answer(Ask("hi", session="a", adapter=adapter))
    assert model.adapters == [None, "the kitchen's", None]
    with pytest.raises(LoraNameError, match="no adapter is called 'cellar'; there are garden, kitchen"):
        await assistant.answer(Ask("hi", session="a", adapter="cellar"))
    await assistant.answer(Ask("hi", session="a"))
    assert [len(prompt) for prompt in model.prompts] == [2, 4, 6, 8]


@pytest.mark.parametrize("home", [Home(), a_home()])
async def test_a_long_conversation_drops_turns_for_a_question_that_mentions_nothing(scripted_model, home):
    model = scripted_model(lambda text: 400 * "x", capacity=800)
    assistant = make(model, home, max_tokens=100)
    for _ in range(9):
        await assistant.answer(Ask("and then?", session="a"))
    *_, last = model.prompts
    assert len(last) == 2 + 2 * 5  # as many turns as fit, each whole; session_turns is 6


async def test_call_ids_go_on_through_a_session(scripted_model):
    assistant = make(scripted_model(lambda text: {"HassTurnOn": {"name": "lamp"}, "HassTurnOff": {"name": "lamp"}}))
    ids = []
    for _ in range(2):
        answer = await assistant.answer(Ask("blink", session="a"))
        ids += [outcome.call.id for outcome in answer.calls]
    assert ids == ["call00001", "call00002", "call00003", "call00004"]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({"session_turns": 2}, 2), ({"session_turns": 0}, 0), ({"session_bytes": 300}, 2), ({"sessions": 0}, 0)],
)
async def test_sessions_are_bounded(scripted_model, settings, kept):
    model = scripted_model(lambda text: "x" * 60)
    assistant = make(model, **settings)
    for _ in range(6):
        await assistant.answer(Ask("y" * 30, session="a"))
    assert (len(model.prompts[-1]) - 2) // 2 == kept


async def test_of_the_sessions_the_one_unused_for_longest_is_forgotten(scripted_model):
    model = scripted_model(lambda text: "ok")
    assistant = make(model, sessions=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        await assistant.answer(Ask("hello", session=name))
    assert [len(prompt) for prompt in model.prompts] == [2, 2, 4, 2, 6, 2]


async def test_what_the_question_mentions_goes_in_when_not_all_fits(scripted_model):
    model = scripted_model(lambda text: "ok", capacity=600)
    await make(model, a_home(200), prompt_devices=200).answer(Ask("is the front door locked?"))
    prompt = model.prompts[0]
    assert "lock: front door" in prompt[-1].text
    assert 10 < prompt[-1].text.count("sensor") < 198
    assert 600 - 128 - 20 < model.count(prompt) <= 600 - 128


async def test_a_few_devices_of_a_large_home_are_shown(scripted_model):
    model = scripted_model(lambda text: "ok", capacity=6000)
    assistant = make(model, a_home(200), prompt_devices=5)
    await assistant.answer(Ask("is the front door locked?", session="a"))
    await assistant.answer(Ask("and now?", session="a"))
    for prompt in model.prompts:
        assert "lock: front door" in prompt[-1].text
        assert prompt[-1].text.count("sensor: ") == 4


async def test_old_turns_give_way_to_what_the_question_mentions(scripted_model):
    model = scripted_model(lambda text: "z" * 300, capacity=500)
    assistant = make(model, a_home(100))
    for _ in range(5):
        await assistant.answer(Ask("is the front door locked?", session="a"))
    assert all("lock: front door" in prompt[-1].text for prompt in model.prompts)


async def test_a_question_that_does_not_fit_alone_is_a_named_error(scripted_model):
    with pytest.raises(ContextOverflowError):
        await make(scripted_model(lambda text: "ok", capacity=600)).answer(Ask("why? " * 1000))


async def test_the_loop_goes_on_while_the_model_thinks(scripted_model):
    model = scripted_model(lambda text: "done")
    model.gate.clear()
    question = asyncio.create_task(make(model).answer(Ask("think")))
    async with asyncio.timeout(10):
        await asyncio.to_thread(model.started.wait, 10)
        assert not question.done()
        model.gate.set()
        assert (await question).text == "done"


async def test_turns_are_the_session_s_and_as_urgent_as_was_said(scripted_model):
    model = scripted_model(lambda text: "ok")
    assistant = make(model)
    await assistant.answer(Ask("hello", session="a"), priority="voice")
    await assistant.answer(Ask("hello"))
    assert model.claims == [Claim("a", "voice"), Claim("", "interactive")]


async def test_turns_of_different_sessions_do_not_wait_for_each_other(scripted_model):
    met = threading.Barrier(2, timeout=10)

    def meet(text):
        met.wait()
        return "ok"

    assistant = make(scripted_model(meet))
    answers = await asyncio.gather(*(assistant.answer(Ask("hello", session=name)) for name in "ab"))
    assert [answer.text for answer in answers] == ["ok", "ok"]


async def test_a_model_that_fails_after_the_question_was_cancelled_leaves_no_complaint(scripted_model, monkeypatch):
    """Nobody waits for it any more; an engine that is closed with questions under way ends so."""
    model, complaints = scripted_model(lambda text: "never"), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))

    def fails(*_, cancel, **__):
        model.started.set()
        assert cancel.wait(20)
        raise EngineClosedError

    monkeypatch.setattr(model, "chat", fails)
    question = asyncio.create_task(make(model).answer(Ask("think")))
    await asyncio.to_thread(model.started.wait)
    question.cancel()
    await asyncio.wait([question])
    assert question.cancelled()
    del question
    gc.collect()
    assert complaints == []


async def test_cancelling_the_question_stops_the_model(scripted_model):
    model = scripted_model(lambda text: "never")
    model.gate.clear()
    assistant = make(model)
    question = asyncio.create_task(assistant.answer(Ask("think")))
    async with asyncio.timeout(10):
        await asyncio.to_thread(model.started.wait, 10)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        model.gate.set()
        assert (await assistant.answer(Ask("again"))).text == "never"


async def test_the_callers_event_stops_the_model(scripted_model):
    model = scripted_model(lambda text: "never")
    model.gate.clear()
    cancel = threading.Event()
    cancel.set()
    answer = await make(model).answer(Ask("think"), cancel=cancel)
    assert answer.finish_reason == "cancelled"


async def test_text_and_outcomes_are_both_streamed(scripted_model):
    model = scripted_model(lambda text: {"HassTurnOn": {"name": "lamp"}} if "on" in text else "fine")
    said = []
    for text in ("hello", "lamp on"):
        await make(model).answer(Ask(text), on_text=said.append)
    assert said == ["fine", "Turned on the lamp."]


@pytest.mark.skipif(not (HOME_MINI / "model.onnx").is_file(), reason="models/home-mini holds no bundle")
async def test_the_bundled_model_switches_a_lamp_and_answers():
    from edge_assistant.text.chat import ChatModel

    home = Home(
        [
            Device("hall", "lamp", "light", properties={"state": "off"}),
            Device("hall", "front door", "lock", properties={"state": "locked"}),
            Device("kitchen", "window", "binary_sensor", "window", properties={"state": "open"}),
        ]
    )
    with ChatModel.load(HOME_MINI, EngineSettings(threads=1)) as model:
        assistant = make(model, home)
        command = await assistant.answer(Ask("turn on the lamp"))
        question = await assistant.answer(Ask("is the front door locked?"))
    assert home.get("hall", "lamp").state == "on"
    assert command.calls[0].call.name == "HassTurnOn"
    assert "locked" in question.text
