"""What travels on the topics: a dataclass for each message, and its payload. Pure: bytes in, messages out.

`assistant.Ask` and `assistant.Answer` travel as they are; docs/protocol.md shows every payload.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from edge_assistant.assistant import Ask
from edge_assistant.config import NAME
from edge_assistant.errors import (
    ContextOverflowError,
    EdgeAssistantError,
    EngineBusyError,
    GrammarError,
    IncompleteAnswerError,
    LoraNameError,
    RequestError,
)
from edge_assistant.home.timers import Timer
from edge_assistant.home.values import one_line
from edge_assistant.text.response_format import read_response_format, write_response_format

ONLINE, OFFLINE = b"online", b"offline"

_ASK_FIELDS = {"text": str, "id": str, "session": str, "max_tokens": int, "adapter": str, "response_format": dict}
_KINDS = {str: "text", int: "a whole number", dict: "an object"}
_META_TEXTS = ("domain", "device_class", "floor", "unit", "name", "area")
_MAX_ALIASES = 16
_CODES = {
    ContextOverflowError: "context_overflow",
    IncompleteAnswerError: "incomplete",
    LoraNameError: "unknown_adapter",
}


def read_ask(payload: bytes, max_bytes: int) -> Ask:
    """Read a question: JSON where the first byte that is not a space is `{`, else plain text.

    Raises:
        RequestError: with code too_large, invalid_utf8, invalid_json, invalid_field or empty.
    """
    if len(payload) > max_bytes:
        raise RequestError("too_large", f"the question has {len(payload)} bytes, at most {max_bytes} are read")
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise RequestError("invalid_utf8", f"the question is not UTF-8: byte {error.start} cannot be read") from error
    ask = _from_json(text) if text.lstrip().startswith("{") else Ask(text.strip())
    if not one_line(ask.text):  # of control characters alone a model makes what it likes
        raise RequestError("empty", "the question is empty", ask.id)
    return ask


def write_ask(ask: Ask) -> bytes:
    """Return a question as JSON."""
    fields = {name: value for name, value in asdict(ask).items() if value is not None}
    if "schema" in fields:
        fields["response_format"] = write_response_format(fields.pop("schema"))
    return _dump(fields)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """A question that was not answered, and why; `retry_after_s` where asking again later may help."""

    id: str
    code: str
    message: str
    retry_after_s: float | None = None

    @classmethod
    def of(cls, question_id: str, error: EdgeAssistantError) -> ErrorAnswer:
        """Return the answer to a question that the assistant failed at."""
        if isinstance(error, EngineBusyError):
            return cls(question_id, "busy", str(error), round(error.retry_after_s, 1))
        if isinstance(error, GrammarError) and error.kind == "json_schema":
            return cls(question_id, "invalid_schema", str(error))
        code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "model")
        return cls(question_id, code, str(error))

    def to_payload(self) -> bytes:
        """Return the JSON of it."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.retry_after_s is not None:
            error["retry_after_s"] = self.retry_after_s
        return _dump({"id": self.id, "status": "error", "error": error})

    @classmethod
    def from_payload(cls, payload: bytes) -> ErrorAnswer:
        """Read what `to_payload` wrote; ValueError or KeyError where it is something else."""
        document = json.loads(payload)
        error = document["error"]
        return cls(document["id"], error["code"], error["message"], error.get("retry_after_s"))


@dataclass(frozen=True, slots=True)
class Meta:
    """What a device says it is, by Home Assistant's names; `name` and `area` where its topic's levels will not do."""

    domain: str
    device_class: str | None = None
    floor: str | None = None
    unit: str | None = None
    name: str | None = None
    area: str | None = None
    aliases: tuple[str, ...] = ()

    def to_payload(self) -> bytes:
        """Return the JSON of it."""
        texts = {word: getattr(self, word) for word in _META_TEXTS}
        document: dict[str, Any] = {word: text for word, text in texts.items() if text is not None}
        return _dump({**document, "aliases": list(self.aliases)} if self.aliases else document)

    @classmethod
    def from_payload(cls, payload: bytes) -> Meta:
        """Read a description; ValueError says what is wrong with it. Fields that are not ours are passed over."""
        document = _object(payload.decode())
        texts = {word: _line(word, document[word]) for word in _META_TEXTS if document.get(word) is not None}
        if "domain" not in texts:
            msg = "domain is missing"
            raise ValueError(msg)
        aliases = document.get("aliases") or []
        if not isinstance(aliases, list) or len(aliases) > _MAX_ALIASES:
            msg = f"aliases has to be a list of at most {_MAX_ALIASES} names"
            raise ValueError(msg)
        return cls(**texts, aliases=tuple(_line("aliases", alias) for alias in aliases))


@dataclass(frozen=True, slots=True)
class TimerEnded:
    """A timer has run out."""

    timer: Timer

    def to_payload(self) -> bytes:
        """Return the JSON of it."""
        return _dump({"event": "timer", "name": self.timer.name, "seconds": self.timer.seconds})

    @classmethod
    def from_payload(cls, payload: bytes) -> TimerEnded:
        """Read what `to_payload` wrote; ValueError or KeyError where it is something else."""
        document = json.loads(payload)
        return cls(Timer(document["name"], document["seconds"]))


def _from_json(text: str) -> Ask:
    try:
        document = {name: value for name, value in _object(text).items() if value is not None}
    except ValueError as error:
        raise RequestError("invalid_json", f"the question starts like JSON and is none: {error}") from error
    request_id = document.get("id")
    if request_id is not None and not (isinstance(request_id, str) and re.fullmatch(NAME, request_id)):
        raise RequestError("invalid_field", "id has to be 1 to 64 letters, digits, or any of _ . : -")
    for name, value in document.items():
        wanted = _ASK_FIELDS.get(name)
        if wanted is None:
            raise RequestError(
                "invalid_field", f"there is no field {one_line(name)!r}: {', '.join(_ASK_FIELDS)}", request_id
            )
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise RequestError("invalid_field", f"{name} has to be {_KINDS[wanted]}", request_id)
    return _checked(document, request_id)


def _checked(document: dict[str, Any], request_id: str | None) -> Ask:
    if "text" not in document:
        raise RequestError("invalid_field", "text is missing", request_id)
    form = document.pop("response_format", None)
    try:
        ask = Ask(**document, schema=None if form is None else read_response_format(form))
    except ValueError as error:
        raise RequestError("invalid_field", str(error), request_id) from error
    if ask.max_tokens is not None and ask.max_tokens < 1:
        raise RequestError("invalid_field", "max_tokens has to be at least 1", request_id)
    if ask.session is not None and not 1 <= len(ask.session) <= 64:
        raise RequestError("invalid_field", "session has to be 1 to 64 characters", request_id)
    if ask.adapter is not None and not re.fullmatch(NAME, ask.adapter):
        raise RequestError("invalid_field", "adapter has to be 1 to 64 letters, digits, or any of _ . : -", request_id)
    try:
        f"{ask.text}{ask.session}".encode()
    except UnicodeEncodeError as error:
        raise RequestError("invalid_utf8", "the question holds half a surrogate pair", request_id) from error
    return ask


def _object(text: str) -> dict[str, Any]:
    """Parse a JSON object; ValueError, also where it is nested too deep to be read."""
    try:
        document = json.loads(text)
    except RecursionError as error:
        msg = "it is nested too deep"
        raise ValueError(msg) from error
    match document:
        case dict():
            return document
        case _:
            msg = "not an object"
            raise ValueError(msg)


def _line(word: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or one_line(value) != value.strip():
        msg = f"{word} has to be one short line of text"
        raise ValueError(msg)
    return value.strip()


def _dump(document: dict[str, Any]) -> bytes:
    # Half a surrogate pair, which an error may repeat of what arrived, stays an escape of JSON's.
    return json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace")
