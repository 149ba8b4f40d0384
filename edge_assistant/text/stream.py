r"""Text while it is being generated: whole characters only, and never a part of a stop string.

`StreamDecoder` turns ids into text as they come. What it has given out after `finish` equals `Tokenizer.decode` of
all the ids, however they were generated.

`StopStrings` watches text for strings that end it. What might still become a stop string is held back, and given out
as soon as it turns out not to be one. The stop string that is complete first wins, of two that are complete at the
same character the longer. So the result does not depend on how the text was cut into pieces.

    stops = StopStrings(["\nUser:"])
    stops.push("Yes.\nUs")  -> "Yes."
    stops.push("ually")     -> "\nUsually"
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from edge_assistant.text.tokenizer import Tokenizer


class StreamDecoder:
    """Ids to text, one id at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True

    def push(self, token_id: int) -> str:
        """Return the text that is certain now; it may be empty, and it may end an earlier id's character."""
        if self._tokenizer.is_control(token_id):
            return self.finish()
        data = self._tokenizer.token_bytes(token_id)
        if self._at_start and data:
            self._at_start = False
            data = data.removeprefix(b" ") if self._tokenizer.adds_space else data
        return self._utf8.decode(data)

    def finish(self) -> str:
        """Return what is left: U+FFFD for a character that was never completed. The next id begins anew."""
        self._at_start = True
        return self._utf8.decode(b"", final=True)


class StopStrings:
    """Text up to the first stop string, one piece at a time."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Watch for these strings; an empty one stops nothing."""
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text."""

    def push(self, text: str) -> str:
        """Return the text that is certain to stand before any stop string; nothing once one was found."""
        if self.found is not None:
            return ""
        text = self._held + text
        hits = [(text.index(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in text]
        if hits:
            end, _, self.found = min(hits)
            self._held = ""
            return text[: end - len(self.found)]
        kept = len(text) - self._possible_stop(text)
        self._held = text[kept:]
        return text[:kept]

    def finish(self) -> str:
        """Return what was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held

    def _possible_stop(self, text: str) -> int:
        """Return how many characters at the end of the text begin a stop string."""
        longest = min(len(text), max(map(len, self._stops), default=0))
        return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
