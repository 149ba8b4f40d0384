"""One turn: a prompt from the home and the session, a generation, acts on the home, and words for what came of them.

    assistant = Assistant(model, home, actuator, settings.assistant)
    answer = await assistant.answer(Ask("turn off the hall lamp"))
    print(answer.text)                      # Turned off the hall lamp.

A turn is one generation: the model answers in text, or calls tools; the runtime carries the calls out, waits for
the home to follow, and itself says what happened. The model reads the devices and the time of day at the head of the
last question; earlier questions of a session carry their text alone. A turn waits for the model in a thread of its
own, so that the event loop goes on taking in what the home reports; whose turn is computed when is the engine's affair.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from edge_assistant.engine import Claim, Constraint, Priority, SamplingParams, Usage
from edge_assistant.errors import IncompleteAnswerError
from edge_assistant.home.actions import Actuator
from edge_assistant.home.meant import Said
from edge_assistant.home.outcomes import CallOutcome
from edge_assistant.home.perform import Performer
from edge_assistant.home.registry import Device, Home, describe
from edge_assistant.home.relevant import as_many_as_fit, in_home_order, relevant
from edge_assistant.home.said import legible
from edge_assistant.home.timers import Timer, Timers
from edge_assistant.home.tools import TOOLS
from edge_assistant.text.instruct import InstructFormat
from edge_assistant.text.messages import Assistant as AssistantMessage
from edge_assistant.text.messages import Message, System, Tool, ToolCall, ToolResult, User, spoken

if TYPE_CHECKING:
    from edge_assistant.bundle import Manifest
    from edge_assistant.config import AssistantSettings
    from edge_assistant.engine import Adapter
    from edge_assistant.text.chat import Reply

__all__ = ["Actuator", "Answer", "Ask", "Assistant", "LanguageModel", "Timer"]

SYSTEM = (
    "You are the voice of a home. Each question starts with the time and the home's devices, area by area. "
    "Answer in one short sentence, or call a tool to act or to look states up. "
    "In a call, name a device as it was said: the tools find it, say when there is none, and ask back when several fit."
)
"""The instructions of a model whose bundle brings none."""

SCHEMA = "Answer with JSON for this schema: "

EMPTY = "I have no answer to that."

_MOST_THREADS = 64
"""Turns that wait for the model at a time; they are bounded by who takes the questions in, and by the engine."""

OnText = Callable[[str], None]


class LanguageModel(Protocol):
    """What a turn needs of `text.chat.ChatModel`."""

    manifest: Manifest

    @property
    def capacity(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        ...

    def count(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> int:
        """Return the tokens of a prompt."""
        ...

    def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        params: SamplingParams,
        *,
        on_text: OnText | None = None,
        cancel: threading.Event | None = None,
        constraint: Constraint | None = None,
        claim: Claim | None = None,
        adapter: Adapter | None = None,
    ) -> Reply:
        """Answer a conversation; blocks."""
        ...

    def adapter(self, name: str) -> Adapter:
        """Return the adapter of that name; LoraNameError where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """One question or command. Turns of one `session` follow up on each other; without one nothing is kept.

    With a `schema` (JSON Schema) the answer is JSON that fits it, and no tool is offered: nothing is done in the home.
    """

    text: str
    id: str | None = None
    session: str | None = None
    max_tokens: int | None = None
    adapter: str | None = None
    """One of those that the configuration names; without one the model answers as it was loaded."""
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AnswerTiming:
    """Seconds of a turn: reading the prompt, writing the answer, all of the model's part, acting, and the whole.

    The model's part has in it that others were first.
    """

    prefill_s: float
    decode_s: float
    model_s: float
    act_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a turn came to. `calls` are JSON objects: name, arguments, status, text."""

    id: str
    text: str
    calls: tuple[CallOutcome, ...]
    finish_reason: str
    usage: Usage
    timing: AnswerTiming

    def to_json(self) -> str:
        """Return the answer as MQTT gives it, on one line."""
        timing = {name: round(seconds, 6) for name, seconds in asdict(self.timing).items()}
        document = {
            "id": self.id,
            "status": "ok",
            "text": self.text,
            "calls": [outcome.as_json() for outcome in self.calls],
            "finish_reason": self.finish_reason,
            "usage": asdict(self.usage),
            "timing": timing,
        }
        return json.dumps(document, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """Read what `to_json` wrote; ValueError or KeyError where it is something else."""
        document: dict[str, Any] = json.loads(text)
        return cls(
            id=document["id"],
            text=document["text"],
            calls=tuple(CallOutcome.from_json(call) for call in document["calls"]),
            finish_reason=document["finish_reason"],
            usage=Usage(**document["usage"]),
            timing=AnswerTiming(**document["timing"]),
        )


@dataclass(slots=True)
class _Session:
    """The last turns of one conversation. One turn at a time: a second one waits for the first."""

    turns: deque[tuple[Message, ...]] = field(default_factory=deque)
    calls: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def remember(self, turn: tuple[Message, ...], settings: AssistantSettings) -> None:
        """Keep a turn, and forget the oldest ones beyond the bounds in number and bytes."""
        self.turns.append(turn)
        sizes = deque(_bytes(turn) for turn in self.turns)
        while self.turns and (len(self.turns) > settings.session_turns or sum(sizes) > settings.session_bytes):
            self.turns.popleft()
            sizes.popleft()

    def said(self, text: str) -> Said:
        """Return a question with the turn before it."""
        if not self.turns:
            return Said(text)
        first, *_, last = self.turns[-1]
        return Said(text, spoken([first]), spoken([last]))

    def numbered(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Return the calls with ids of this conversation: `call00001`, ..."""
        start = self.calls
        self.calls += len(calls)
        return tuple(
            ToolCall(call.name, call.arguments, f"call{(start + number) % 100_000:05d}")
            for number, call in enumerate(calls, 1)
        )


class Assistant:
    """Answers questions about one home and carries out commands to it."""

    def __init__(
        self,
        model: LanguageModel,
        home: Home,
        actuator: Actuator,
        settings: AssistantSettings,
        on_timer: Callable[[Timer], Awaitable[None]] | None = None,
    ) -> None:
        """`home` is read at each turn. `on_timer` is awaited when a timer ends; without it none can be set."""
        self._model = model
        self._home = home
        self._settings = settings
        self._timers = Timers(on_timer) if on_timer else None
        self._performer = Performer(home, actuator, self._timers)
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._threads = ThreadPoolExecutor(_MOST_THREADS, "turn")
        spec = model.manifest.assistant
        self._system = System(spec.system if spec else SYSTEM)
        instruct = model.manifest.instruct
        self._tools = TOOLS if instruct and InstructFormat.named(instruct).knows_tools else ()

    async def answer(
        self,
        ask: Ask,
        on_text: OnText | None = None,
        cancel: threading.Event | None = None,
        priority: Priority = "interactive",
    ) -> Answer:
        """Take one turn, before those of a lower priority.

        `on_text` gets the answer piece by piece, from the model's thread while it writes. Cancelling the awaiting
        task, or setting `cancel`, ends the generation before its next token.

        Raises:
            ContextOverflowError: the question does not fit the model's context even alone.
            EngineBusyError: too many requests wait for the model; it says when to ask again.
            LoraNameError: no adapter has the name that the question gives.
            GrammarError: the answer cannot be held to the schema; nothing was generated.
            IncompleteAnswerError: it ended before it was what the schema says.
        """
        started = perf_counter()
        ask = replace(ask, text=legible(ask.text))
        adapter = self._model.adapter(ask.adapter) if ask.adapter else None
        session = self._session(ask.session)
        async with session.lock:
            begun = perf_counter()
            claim = Claim(ask.session or "", priority)
            cancel = cancel or threading.Event()
            reply = await self._generate(ask, tuple(session.turns), on_text, cancel, claim, adapter)
            answered = perf_counter()
            if ask.schema is not None and reply.finish_reason != "stop":
                raise IncompleteAnswerError(reply.message.text, reply.finish_reason, reply.usage.completion_tokens)
            calls = session.numbered(reply.message.calls)
            outcomes = await self._performer.perform(calls, session.said(ask.text))
            text = " ".join(outcome.text for outcome in outcomes) if outcomes else reply.message.text.strip() or EMPTY
            if outcomes and on_text:
                on_text(text)
            results = [ToolResult(outcome.call.id or "", _result(outcome)) for outcome in outcomes]
            acts: tuple[Message, ...] = (AssistantMessage("", calls), *results) if calls else ()
            session.remember((User(ask.text), *acts, AssistantMessage(text)), self._settings)
        ended = perf_counter()
        timing = AnswerTiming(
            prefill_s=reply.timing.prefill_s,
            decode_s=reply.timing.decode_s,
            model_s=answered - begun,
            act_s=ended - answered,
            total_s=ended - started,
        )
        return Answer(ask.id or new_id(), text, outcomes, reply.finish_reason, reply.usage, timing)

    async def close(self) -> None:
        """Cancel the timers that run, and let the threads go."""
        if self._timers:
            await self._timers.close()
        self._threads.shutdown(wait=False)

    def _session(self, name: str | None) -> _Session:
        """Return the conversation of that name, a fresh one where there is none; the one unused for longest goes."""
        if name is None:
            return _Session()
        session = self._sessions.pop(name, None) or _Session()
        self._sessions[name] = session
        while len(self._sessions) > self._settings.sessions:
            self._sessions.popitem(last=False)
        return session

    async def _generate(
        self,
        ask: Ask,
        history: tuple[tuple[Message, ...], ...],
        on_text: OnText | None,
        cancel: threading.Event,
        claim: Claim,
        adapter: Adapter | None,
    ) -> Reply:
        """Run the model in a thread; when this task is cancelled, stop the model and wait until it has stopped."""
        devices = tuple(self._home)
        params = SamplingParams(
            max_tokens=ask.max_tokens or self._settings.max_tokens, temperature=self._settings.temperature
        )
        tools = self._tools if ask.schema is None else ()
        constraint = None if ask.schema is None else Constraint.json_schema(ask.schema)

        def turn() -> Reply:
            messages = self._prompt(ask, devices, history, tools, params.max_tokens)
            return self._model.chat(
                messages,
                tools,
                params,
                on_text=on_text,
                cancel=cancel,
                constraint=constraint,
                claim=claim,
                adapter=adapter,
            )

        work = asyncio.get_running_loop().run_in_executor(self._threads, turn)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancel.set()
            await asyncio.wait([work])
            work.exception()  # is for nobody now, and asyncio would complain that nobody looked
            raise

    def _prompt(
        self,
        ask: Ask,
        devices: Sequence[Device],
        history: Sequence[tuple[Message, ...]],
        tools: Sequence[Tool],
        max_tokens: int,
    ) -> list[Message]:
        """Return the messages of a turn that fit the context: what the question mentions, then turns, then the rest."""
        budget = self._model.capacity - max_tokens
        time = datetime.now().astimezone().strftime("%A %H:%M")
        shown = relevant(devices, ask.text, spoken(chain(*history)), self._settings.prompt_devices)

        def messages(chosen: Sequence[Device]) -> list[Message]:
            head = describe(in_home_order(devices, chosen), time)
            return [self._system, *chain(*history), User(f"{head}\n\n{_question(ask)}")]

        def fits(chosen: Sequence[Device]) -> bool:
            return self._model.count(messages(chosen), tools) <= budget

        count = as_many_as_fit(shown.devices, fits)
        while history and (count < shown.mentioned or not (count or fits(()))):
            history = history[1:]
            count = as_many_as_fit(shown.devices, fits)
        return messages(shown.devices[:count])


def new_id() -> str:
    """Return an id for a question that came without one."""
    return uuid4().hex[:12]


def _question(ask: Ask) -> str:
    """Return what is asked, with the schema: being held to it alone, a model would not know what its names mean."""
    return ask.text if ask.schema is None else f"{ask.text}\n\n{SCHEMA}{json.dumps(ask.schema, ensure_ascii=False)}"


def _result(outcome: CallOutcome) -> str:
    return "done" if outcome.status == "done" and outcome.call.name != "HassGetState" else outcome.text


def _bytes(turn: Sequence[Message]) -> int:
    """Return about how much text a turn holds, calls and results included."""
    return sum(len(str(message).encode()) for message in turn)
