"""A model to talk to: a bundle with its engine, its tokenizer and its instruct format.

    with ChatModel.load(Path("models/home-mini"), EngineSettings()) as model:
        reply = model.chat([User("Is the hall light on?")], TOOLS, SamplingParams(max_tokens=64))
        print(reply.message.text, reply.message.calls)

It blocks; a thread is the caller's affair. Everything that stops a reply is gathered here: the ids that end a turn,
stop strings, max_tokens, and the caller's `cancel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edge_assistant.bundle import SEEN_FILE, Bundle
from edge_assistant.engine import (
    Adapter,
    Claim,
    Constraint,
    Engine,
    FinishReason,
    Grammars,
    Keep,
    Metrics,
    SamplingParams,
    Timing,
    Usage,
)
from edge_assistant.errors import ConversationError, LoraNameError, ToolCallError
from edge_assistant.text.conversation import checked, role_of
from edge_assistant.text.instruct import BOS, EOS, InstructFormat
from edge_assistant.text.messages import Assistant, Message, Tool, User
from edge_assistant.text.reply import Marks, ReplySplitter, read_reply
from edge_assistant.text.reply_grammar import reply_grammar
from edge_assistant.text.stream import StopStrings, StreamDecoder
from edge_assistant.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import threading

    from edge_assistant.config import EngineSettings


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered, why it ended, and what it took."""

    message: Assistant
    finish_reason: FinishReason
    """`stop`: it was done, or a stop string came; `length`: max_tokens; `cancelled`: its calls are left out."""
    usage: Usage
    timing: Timing


class ChatModel:
    """A loaded model; threads may share it, each with a conversation of its own."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        tokenizer: Tokenizer,
        adapter: Adapter | None = None,
        adapters: Mapping[str, Adapter] | None = None,
    ) -> None:
        """Take what `load` has made; the engine is closed with the model."""
        self.manifest = bundle.manifest
        self._tokenizer_path = bundle.tokenizer_path
        self._engine = engine
        self._tokenizer = tokenizer
        self._adapter, self._adapters = adapter, adapters or {}
        self._format = InstructFormat.named(self.manifest.instruct) if self.manifest.instruct else Completion()
        self._stop_ids = self._format.stop_ids(tokenizer)
        self._marks = self._format.marks(tokenizer)

    @classmethod
    def load(
        cls,
        model: Bundle | Path,
        settings: EngineSettings,
        state: Path | None = None,
        adapter: Path | None = None,
        *,
        prepacked: Path | None = None,
        adapters: Mapping[str, Path] | None = None,
        row_cost: float | None = None,
        draft: Bundle | None = None,
    ) -> Self:
        """Load a bundle, or the one in a folder; `prepacked`, `row_cost` and `draft` are as for `Engine.load`.

        The directory `state` remembers which files were hashed (see Bundle.open), and keeps what prompts begin with.

        `adapter` is the file of a LoRA adapter, with which it answers where a request names none; `adapters` are files
        of others, by the names under which `adapter()` has them. All are read at once, and kept.

        Raises:
            BundleError, CacheBudgetError, TextError: The bundle cannot be used; each says why.
            LoraError: An adapter cannot be used with it.
            DraftError: The draft cannot.
        """
        bundle = model if isinstance(model, Bundle) else Bundle.open(model, state and state / SEEN_FILE)
        tokenizer = Tokenizer(bundle.tokenizer_path)
        paths = dict(adapters or {})
        files = dict.fromkeys((adapter, *paths.values()))
        tuned = {path: Adapter.load(path, bundle.manifest) for path in files if path}
        prefixes = state and state / "prefixes"
        engine = Engine.load(bundle, settings, prefixes, prepacked=prepacked, row_cost=row_cost, draft=draft)
        named = {name: tuned[path] for name, path in paths.items()}
        return cls(bundle, engine, tokenizer, tuned[adapter] if adapter else None, named)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the model's memory back."""
        self._engine.close()

    @property
    def capacity(self) -> int:
        """How many tokens a prompt and its reply may have together."""
        return self._engine.capacity

    def metrics(self) -> Metrics:
        """Return what the engine has counted."""
        return self._engine.metrics()

    def adapter(self, name: str) -> Adapter:
        """Return one of the adapters that the model was loaded with; LoraNameError where none has the name."""
        if name not in self._adapters:
            raise LoraNameError(name, sorted(self._adapters))
        return self._adapters[name]

    def load_adapter(self, path: Path) -> Adapter:
        """Read a LoRA adapter for `chat`; LoraError where it cannot be used with this model."""
        return self._engine.load_adapter(path)

    def count(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> int:
        """Return how many tokens the conversation is as a prompt; ConversationError as for `chat`."""
        return len(self._prompt(messages, tools))

    def chat(  # noqa: PLR0913 - each is a choice of its own, and all have a default
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        params: SamplingParams,
        *,
        on_text: Callable[[str], None] | None = None,
        cancel: threading.Event | None = None,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
        claim: Claim | None = None,
        adapter: Adapter | None = None,
    ) -> Reply:
        """Answer a conversation that ends with a user or a tool's result.

        `on_text` is given the text as it comes, in whole characters; calls and thoughts are never part of it. `stop`
        are strings that end the reply and are not part of it; they are looked for in text, not in calls or thoughts.
        With a `constraint` the reply calls nothing, and its text is as that says: whole where `finish_reason` is
        `stop` and no stop string came, a part of it else. Without one, calls are of the `tools` and with arguments as
        these say. `claim` says for whom it is and how urgent. An `adapter` takes the place of the one the model was
        loaded with, for this reply.

        Raises:
            GrammarError: The constraint, or a tool's schema, cannot be held to; nothing was computed.
            ConversationError: The model's format cannot hold the conversation.
            ContextOverflowError: It is too long; nothing was computed.
            EngineBusyError, DeadlineError: Others are first; see `Engine.generate`.
            ToolCallError: The model called a tool in a way that cannot be read.
            LoraError: The adapter was loaded for another model.
        """
        prompt = self._prompt(messages, tools)
        if constraint is None and tools and self._marks.calls is not None:
            constraint = reply_grammar(
                tools,
                self._marks,
                text_with_calls=self._format.text_with_calls,
                leading_space=self._tokenizer.adds_space,
            )
        grammar = self._grammars.compile(constraint) if constraint else None
        params = replace(params, stop_ids=params.stop_ids | self._stop_ids, grammar=grammar)
        writer = _Writer(self._tokenizer, stop, self._marks, on_text)
        keep = self._comes_again(messages, tools, prompt)
        adapter = adapter or self._adapter
        with closing(self._engine.generate(prompt, params, cancel, keep, claim, adapter=adapter)) as generation:
            for token_id in generation:
                writer.push(token_id)
                if writer.stopped:
                    break
            writer.finish()
        finish_reason = "stop" if writer.stopped else generation.finish_reason
        return Reply(self._message(writer, finish_reason), finish_reason, generation.usage, generation.timing)

    @cached_property
    def _grammars(self) -> Grammars:
        """The vocabulary as grammars see it, made when first needed: that takes a second for a large one."""
        return Grammars(
            self._tokenizer_path.read_bytes(),
            self.manifest.architecture.vocab_size,
            self._stop_ids,
            leading_space=self._tokenizer.adds_space,
        )

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        if messages and isinstance(messages[-1], Assistant):
            raise ConversationError(len(checked(messages)), role_of(messages[-1]), "it is the user's turn")
        spec = self.manifest.assistant
        listed = () if spec and spec.tools == "learnt" else tools
        return self._format.encode(self._tokenizer, messages, listed)

    def _comes_again(self, messages: Sequence[Message], tools: Sequence[Tool], prompt: Sequence[int]) -> Keep:
        """Return how much of a prompt others will begin with: the next turn's, or without a history those of others.

        What stays of a growing conversation differs by format: in v7 tools move to the last turn, in v3 the system
        block does as well. So both prompts are laid out, and what they share is what stays.
        """
        at = max(index for index, message in enumerate(messages) if isinstance(message, User))
        before, other = messages[:at], User("")
        fresh = not any(isinstance(message, User) for message in before)
        then = [*before, other] if fresh else [*before, other, Assistant("."), other]
        return Keep(_shared(prompt, self._prompt(then, tools)), lasting=fresh)

    def _message(self, writer: _Writer, finish_reason: FinishReason) -> Assistant:
        if writer.stopped or finish_reason == "cancelled":
            return Assistant(writer.text)
        try:
            return self._format.parse(self._tokenizer, writer.ids, cut_off=finish_reason == "length")
        except ToolCallError as error:
            if finish_reason == "length":
                raise ToolCallError(error.text, f"it was cut off after {len(writer.ids)} tokens") from error
            raise


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids two prompts share from their start."""
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(other))


class Completion:
    """The layout of a model without an instruct format: it goes on writing where the last user text ends."""

    text_with_calls = False

    def encode(self, tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Return `<s>` and the last user text; ConversationError where tools are asked for."""
        turns = checked(messages)
        last = turns[-1]
        if tools or not isinstance(last, User):
            raise ConversationError(len(turns), role_of(last), "this model only continues text, it knows no tools")
        return [tokenizer.control_id(BOS.name), *tokenizer.encode(last.text)]

    def stop_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Return the id of `</s>`."""
        return frozenset({tokenizer.control_id(EOS.name)})

    def marks(self, tokenizer: Tokenizer) -> Marks:  # noqa: ARG002 - as InstructFormat has it
        """Return no id: all of a reply is text."""
        return Marks()

    def parse(self, tokenizer: Tokenizer, ids: Iterable[int], *, cut_off: bool = False) -> Assistant:
        """Return the text of the ids."""
        return read_reply(tokenizer, self.marks(tokenizer), ids, cut_off=cut_off)


class _Writer:
    """Takes the ids of a reply as they come and hands its text on."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str], marks: Marks, on_text: Callable[[str], None] | None
    ) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._decoder = StreamDecoder(tokenizer)
        self._stops = StopStrings(stop)
        self._splitter = ReplySplitter(marks)
        self._on_text = on_text

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stops.found is not None

    def push(self, token_id: int) -> None:
        """Take one id."""
        self.ids.append(token_id)
        part = self._splitter.push(token_id)
        if part == "text":
            self._write(self._stops.push(self._decoder.push(token_id)))
        elif part == "calls":
            self.finish()

    def finish(self) -> None:
        """Hand on what was held back: no more text comes, or none but calls. A second time does nothing."""
        self._write(self._stops.push(self._decoder.finish()) + self._stops.finish())

    def _write(self, text: str) -> None:
        self.text += text
        if text and self._on_text is not None:
            self._on_text(text)
