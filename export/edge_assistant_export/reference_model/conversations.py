"""Whole conversations: a home, perhaps some turns before, and many questions that each stand alone behind them.

The runtime's own functions carry the earlier calls out and word what came of them, so that a history reads in
training as it will on the board.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_assistant.errors import EdgeAssistantError
from edge_assistant.home.actions import awaited, plan
from edge_assistant.home.outcomes import Result, outcome
from edge_assistant.home.registry import Home, describe
from edge_assistant.home.relevant import in_home_order, relevant
from edge_assistant.home.resolve import resolve, target_of
from edge_assistant.home.said import legible
from edge_assistant.home.wording import states
from edge_assistant.text.messages import Assistant, Message, System, ToolCall, ToolResult, User, spoken
from edge_assistant_export.reference_model import homes
from edge_assistant_export.reference_model.examples import example
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker
from edge_assistant_export.reference_model.examples.follow_ups import Turn, ambiguous_turn, follow_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from edge_assistant_export.reference_model.homes import House

SYSTEM = "You are the assistant of this home."
_OTHER_SYSTEMS = (
    "You are a home assistant. Answer briefly or call a tool.",
    "You look after this home.",
    "You are the voice of this home. Be short.",
)
HISTORY_SHARE = 0.4
"""How many of the conversations start with earlier turns."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What all questions of a pack share: the messages before the last user turn, and the home at its head."""

    before: tuple[Message, ...]
    house: House
    last: Turn | None

    @property
    def head(self) -> str:
        """The text that stands before the question in the last user turn."""
        return describe(self.house.devices, self.house.time) + "\n\n"

    def messages(self, question: str) -> list[Message]:
        """Return the prompt for one question."""
        return [*self.before, User(self.head + question)]

    def as_asked(self, question: str, devices: int) -> list[Message]:
        """Return the prompt that a board makes for one question: legible, with what is relevant of the home."""
        said = legible(question)
        before = [User(legible(turn.text)) if isinstance(turn, User) else turn for turn in self.before]
        shown = relevant(self.house.devices, said, spoken(before), devices).devices
        head = describe(in_home_order(self.house.devices, shown), self.house.time)
        return [*before, User(f"{head}\n\n{said}")]


def conversation(speaker: Speaker, house: House, *, history: bool | None = None) -> Conversation:
    """Return a conversation about the home, with earlier turns by chance."""
    rng = speaker.rng
    system = System(SYSTEM if rng.random() < 0.6 else rng.choice(_OTHER_SYSTEMS))
    if not (rng.random() < HISTORY_SHARE if history is None else history):
        return Conversation((system,), house, None)
    messages: list[Message] = [system]
    last: Turn | None = None
    count = 0
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        last = _turn(Speaker(rng), house)
        turn, house, count = _carried_out(rng, last.example, house, count)
        messages += turn
    return Conversation(tuple(messages), house, last)


def questions(speaker: Speaker, talk: Conversation) -> Iterator[Example]:
    """Yield questions without end; behind a history about half of them follow up on it."""
    while True:
        if talk.last is not None and speaker.rng.random() < 0.6:
            try:
                yield follow_up(speaker, talk.house, talk.last)
            except NoSuchQuestionError:
                yield example(speaker, talk.house)
        else:
            yield example(speaker, talk.house)


def _turn(speaker: Speaker, house: House) -> Turn:
    if speaker.rng.random() < 0.25:
        try:
            return ambiguous_turn(speaker, house)
        except NoSuchQuestionError:
            pass
    return Turn(example(speaker, house))


def _carried_out(rng: Random, done: Example, house: House, count: int) -> tuple[list[Message], House, int]:
    """Return the messages of a finished turn, the home after it, and how many calls the conversation has had."""
    messages: list[Message] = [User(done.question)]
    spoken, results = done.answer.text, []
    numbered = tuple(
        ToolCall(call.name, call.arguments, f"call{count + number:05d}")
        for number, call in enumerate(done.answer.calls, 1)
    )
    for call in numbered:
        said, acted, house = carry_out(rng, call, house)
        results.append(ToolResult(call.id or "", acted))
        spoken = f"{spoken} {said}".strip()
    if numbered:
        messages += [Assistant("", numbered), *results]
    return [*messages, Assistant(spoken)], house, count + len(numbered)


def carry_out(rng: Random, call: ToolCall, house: House) -> tuple[str, str, House]:
    """Return what the runtime says of a call, its result, and the home then: as it was where the call is refused."""
    home = Home(house.devices)
    try:
        if call.name == "HassGetState":
            said = states(resolve(home, target_of(call.arguments)), home, call.arguments.get("state"))
            return said, said, house
        if call.name in ("HassStartTimer", "HassCancelTimer"):
            return ("Started a timer." if call.name == "HassStartTimer" else "Cancelled the timer."), "done", house
        writes = plan(call, home)
    except EdgeAssistantError as error:
        return str(error), str(error), house
    for write in writes:
        if awaited(write.device, write.property_name):
            home.report(write.device.area, write.device.name, write.property_name, write.value)
    results = [
        Result(write, home.get(write.device.area, write.device.name) or write.device, followed=True) for write in writes
    ]
    said = outcome(call, results, home).text
    return said, "done", replace(house, devices=tuple(home)) if rng.random() < 0.85 else house


def random_conversation(rng: Random, low: int, high: int) -> tuple[Speaker, Conversation]:
    """Return a fresh home of about `low` to `high` devices, and a conversation about it."""
    speaker = Speaker(rng)
    return speaker, conversation(speaker, homes.house(rng, low, high))
