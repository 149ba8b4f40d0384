"""The service: questions in, answers out, the home's states taken in all the while.

    async with open_broker(settings.mqtt) as address: ...      # see service.py

Each question is a task of its own and bounded in number, so that neither a long answer nor a slow device keeps
the home's states from being read. The broker may come and go: answers that are ready meanwhile wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import aiomqtt

from edge_assistant.assistant import Ask, Assistant, new_id
from edge_assistant.errors import EdgeAssistantError, RequestError
from edge_assistant.mqtt.link import Backoff, Link
from edge_assistant.mqtt.protocol import OFFLINE, ONLINE, ErrorAnswer, read_ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edge_assistant.config import Settings
    from edge_assistant.mqtt.feed import HomeFeed
    from edge_assistant.mqtt.topics import Topics

_MAX_ERRORS = 64
"""Errors that may wait to be sent."""

_GOODBYE_SECONDS = 2.0
_RETAINED_SECONDS = 10.0
"""By then a broker has sent what it retains of the home; none says when that is all."""

_NAMESAKE_AFTER = 3
"""Connections that were lost at once, one after the other: of two clients of one name a broker keeps the latest."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ReplyTo:
    """Where the answer to one question goes."""

    question_id: str
    topic: str
    correlation: bytes | None


class Bridge:
    """Answers what arrives over one link."""

    def __init__(self, link: Link, feed: HomeFeed, assistant: Assistant, topics: Topics, settings: Settings) -> None:
        """All parts are made by `service.serve`."""
        self._link = link
        self._feed = feed
        self._assistant = assistant
        self._topics = topics
        self._settings = settings
        self._questions: dict[asyncio.Task[None], _ReplyTo] = {}
        self._errors: set[asyncio.Task[None]] = set()
        self._last_turn_s = 1.0
        self._is_online = False
        self._thrown_off = 0

    async def run(self, on_online: Callable[[], None] | None = None) -> None:
        """Answer until cancelled; `on_online` is called at each connection, once questions are answered.

        Raises:
            BrokerLoginError: the broker refuses the login; trying again would not help.
        """
        mqtt = self._settings.mqtt
        backoff = Backoff(mqtt.reconnect_min_seconds, mqtt.reconnect_max_seconds)
        clock = asyncio.get_running_loop().time
        try:
            while True:
                began = clock()
                self._is_online = False
                try:
                    async with self._link.connected() as client:
                        await self._serve(client, on_online)
                except aiomqtt.MqttError as error:
                    if _is_cancelled():
                        raise asyncio.CancelledError from error
                    lasted = clock() - began > mqtt.reconnect_max_seconds
                    if lasted:
                        backoff.reset()
                    delay = backoff.next()
                    self._tell_lost(error, lasted=lasted, delay=delay)
                    await asyncio.sleep(delay)
        finally:
            await _cancelled(self._questions)
            await _cancelled(self._errors)

    async def _serve(self, client: aiomqtt.Client, on_online: Callable[[], None] | None) -> None:
        self._feed.listen_anew()
        await self._link.subscribe(client)
        heard_all = asyncio.get_running_loop().call_later(_RETAINED_SECONDS, self._feed.forget_unheard)
        try:
            await self._link.publish(self._topics.state, ONLINE, retain=True)
            self._is_online = True
            log.info("answering %s at %s", self._topics.ask, self._link.address)
            if on_online:
                on_online()
            async for message in client.messages:
                self._receive(message)
        except asyncio.CancelledError:
            await self._say_goodbye()
            raise
        finally:
            heard_all.cancel()

    def _tell_lost(self, error: aiomqtt.MqttError, *, lasted: bool, delay: float) -> None:
        """Say that there is no connection, and what is likely where one after the other is lost again at once."""
        lost = "lost the broker" if self._is_online else "no broker"
        log.warning("%s at %s (%s): next attempt in %.1f s", lost, self._link.address, error, delay)
        self._thrown_off = self._thrown_off + 1 if self._is_online and not lasted else 0
        if self._thrown_off == _NAMESAKE_AFTER:
            log.warning(
                "%s hangs up on %s again and again: another node may have that name; assistant.node gives each its own",
                self._link.address,
                self._link.name,
            )

    def _receive(self, message: aiomqtt.Message) -> None:
        topic = str(message.topic)
        home_topic = self._topics.parse_home(topic)
        if home_topic is not None:
            self._feed.receive(home_topic, message.payload, retained=message.retain)
        elif topic == self._topics.ask:
            if message.retain:
                log.warning("a retained message on %s is no question: clear it with an empty one", topic)
            else:
                self._receive_question(message)

    def _receive_question(self, message: aiomqtt.Message) -> None:
        """Start a task that answers, or refuse at once."""
        wanted = getattr(message.properties, "ResponseTopic", None)
        correlation = getattr(message.properties, "CorrelationData", None)
        why_not = None if wanted is None else self._topics.why_no_answer(wanted)
        made_id = new_id()

        def reply_to(question_id: str | None) -> _ReplyTo:
            known_id = question_id or made_id
            topic = wanted if wanted is not None and why_not is None else self._topics.answer(known_id)
            return _ReplyTo(known_id, topic, correlation)

        try:
            ask = read_ask(message.payload, self._settings.mqtt.max_payload_bytes)
            if why_not is not None:
                problem = f"the response topic {wanted!r} {why_not}: name another"
                raise RequestError("response_topic_refused", problem, ask.id)
        except RequestError as error:
            self._refuse(reply_to(error.request_id), error.code, str(error))
            return
        if len(self._questions) > self._settings.assistant.queue:
            retry_after = round(max(0.1, self._last_turn_s), 1)
            problem = f"{len(self._questions)} questions are waiting already: ask again in {retry_after} s"
            self._refuse(reply_to(ask.id), "busy", problem, retry_after)
            return
        self._start(ask, reply_to(ask.id))

    def _start(self, ask: Ask, reply_to: _ReplyTo) -> None:
        question = replace(ask, id=reply_to.question_id)
        task = asyncio.create_task(self._answer(question, reply_to), name=f"question {question.id}")
        self._questions[task] = reply_to
        task.add_done_callback(self._ended)

    def _refuse(self, reply_to: _ReplyTo, code: str, problem: str, retry_after: float | None = None) -> None:
        """Send an error, in a task of its own: a broker that is slow to take it must not keep us from reading."""
        if len(self._errors) >= _MAX_ERRORS:
            log.warning("question %s gets no answer: too many errors wait to be sent", reply_to.question_id)
            return
        payload = ErrorAnswer(reply_to.question_id, code, problem, retry_after).to_payload()
        task = asyncio.create_task(self._deliver(reply_to, payload), name=f"error {reply_to.question_id}")
        self._errors.add(task)
        task.add_done_callback(self._errors.discard)

    async def _answer(self, ask: Ask, reply_to: _ReplyTo) -> None:
        try:
            answer = await self._assistant.answer(ask)
        except EdgeAssistantError as error:
            await self._deliver(reply_to, ErrorAnswer.of(reply_to.question_id, error).to_payload())
        except asyncio.CancelledError:
            self._refuse(reply_to, "shutting_down", "the assistant is being stopped")
            raise
        else:
            self._last_turn_s = answer.timing.total_s
            await self._deliver(reply_to, answer.to_json().encode())

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Forget a question; one that a fault of ours ended is answered as an error, and the service goes on."""
        reply_to = self._questions.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        log.error("question %s failed", reply_to.question_id, exc_info=error)
        self._refuse(reply_to, "internal", f"a fault of ours: {error!r}")

    async def _deliver(self, reply_to: _ReplyTo, payload: bytes) -> None:
        await self._link.deliver(reply_to.topic, payload, correlation=reply_to.correlation)

    async def _say_goodbye(self) -> None:
        """Stop what is being answered, say so to whoever asked, then that we are gone."""
        await _cancelled(self._questions)
        if self._errors:
            await asyncio.wait(self._errors, timeout=_GOODBYE_SECONDS)
        with contextlib.suppress(aiomqtt.MqttError):
            await self._link.publish(self._topics.state, OFFLINE, retain=True)


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended: a question's model stops at its next token."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def _is_cancelled() -> bool:
    """Return whether this task is being cancelled: losing the broker while it says goodbye must not hide that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
