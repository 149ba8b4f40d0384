"""Sentence patterns: expanded from compact lines, some held out whole, worn down the way people type.

A line such as `(turn|switch) [the] {t} on` stands for every sentence skeleton it expands to: `(a|b)` is a choice, an
empty alternative allowed; `{t}` is a slot that is filled from the home. A skeleton with its intent is a *pattern*.
One in `HELD_OUT_ONE_IN` patterns, by a hash of its text, is never used in training: split (b) is made of those alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from edge_assistant_export.reference_model.lexicon import LEXICON

if TYPE_CHECKING:
    from random import Random

HELD_OUT_ONE_IN = 25
_SEED = "home-mini-1"
_GROUP = re.compile(r"\(([^()]*)\)")


def expand(line: str) -> list[str]:
    """Return every skeleton a line stands for, innermost choices last."""
    match = _GROUP.search(line)
    if match is None:
        return [" ".join(line.split())]
    head, tail = line[: match.start()], line[match.end() :]
    return [full for choice in match.group(1).split("|") for full in expand(head + choice + tail)]


def is_held_out(intent: str, skeleton: str) -> bool:
    """Return whether the pattern is kept from training."""
    return (intent, skeleton) in _held_out()


@lru_cache(maxsize=1)
def _held_out() -> frozenset[tuple[str, str]]:
    """Return the patterns kept from training: chosen by hash, and made of words that training knows from others."""
    patterns = {(intent, one) for intent in LEXICON for one in _skeletons(intent)}
    chosen = {pattern for pattern in patterns if len(_skeletons(pattern[0])) >= HELD_OUT_ONE_IN and _by_hash(*pattern)}
    known = {word for _, skeleton in patterns - chosen for word in skeleton.split()}
    return frozenset((intent, one) for intent, one in chosen if known.issuperset(one.split()))


def _by_hash(intent: str, skeleton: str) -> bool:
    digest = hashlib.sha256(f"{_SEED}|{intent}|{skeleton}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


@cache
def _skeletons(intent: str) -> frozenset[str]:
    return frozenset(one for line in LEXICON[intent] for one in expand(line))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the lexicon, expanded: what may be trained on, and what may not."""

    known: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def weight(self) -> float:
        """How often the line is drawn: wide lines more often, but not in proportion."""
        return float((len(self.known) + 1) ** 0.4)


@cache
def lines(intent: str) -> tuple[Line, ...]:
    """Return the expanded lines of an intent, none where the lexicon has no such intent."""
    expanded = [list(dict.fromkeys(expand(line))) for line in LEXICON.get(intent, ())]
    return tuple(
        Line(
            tuple(one for one in skeletons if not is_held_out(intent, one)),
            tuple(one for one in skeletons if is_held_out(intent, one)),
        )
        for skeletons in expanded
    )


@cache
def _drawn(intent: str, held_out: bool) -> tuple[list[tuple[str, ...]], list[float]]:
    useful = [(line.held_out if held_out else line.known, line.weight) for line in lines(intent)]
    useful = [(skeletons, weight) for skeletons, weight in useful if skeletons]
    return [skeletons for skeletons, _ in useful], [weight for _, weight in useful]


def draw(rng: Random, intent: str, *, held_out: bool = False) -> str | None:
    """Return a skeleton of the intent, None where it has none of that side."""
    choices, weights = _drawn(intent, held_out)
    return rng.choice(rng.choices(choices, weights)[0]) if choices else None


def fill(skeleton: str, **slots: str) -> str:
    """Return the skeleton with its slots filled and its spaces tidied."""
    for name, text in slots.items():
        skeleton = skeleton.replace("{" + name + "}", text)
    return re.sub(r" ([,?.!])", r"\1", " ".join(skeleton.split()))


_TENS = {2: "twenty", 3: "thirty", 4: "forty", 5: "fifty", 6: "sixty", 7: "seventy", 8: "eighty", 9: "ninety"}
_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]


def in_words(number: int) -> str:
    """Return a number from 0 to 100 in words: `twenty five`."""
    if number < len(_SMALL):
        return _SMALL[number]
    if number >= 100:
        return "a hundred" if number == 100 else str(number)
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f" {_SMALL[ones]}" if ones else "")


_BEFORE = [
    "please",
    "could you",
    "can you",
    "would you",
    "could you please",
    "can you please",
    "would you please",
    "hey",
    "ok",
    "okay",
    "hi,",
    "hello,",
    "i'd like you to",
    "i want you to",
    "i need you to",
    "be so kind and",
    "so,",
    "now",
    "then",
    "just",
    "quickly",
    "hey, can you",
    "hey, could you",
    "will you",
    "go ahead and",
    "go and",
    "would you kindly",
    "kindly",
    "let's",
    "listen,",
    "alright,",
    "right,",
    "can you quickly",
    "please can you",
    "please could you",
    "do me a favor and",
    "hey there,",
    "good morning,",
    "good evening,",
    "um,",
    "uh,",
    "well,",
    "and now",
    "next,",
    "i would like you to",
    "you can",
    "you may",
    "you should",
    "you need to",
    "you could",
    "i'm asking you to",
    "would it be possible to",
    "is it possible to",
    "are you able to",
    "may i ask you to",
    "can i ask you to",
    "i'd love you to",
    "can we",
    "could we",
    "can somebody",
    "home,",
    "assistant,",
    "computer,",
    "hey assistant,",
    "ok home,",
    "dear assistant,",
    "yo,",
    "hey please",
]
_AFTER = [
    "please",
    "now",
    "right now",
    "for me",
    "thanks",
    "thank you",
    "right away",
    "immediately",
    "would you",
    "will you",
    "can you",
    "could you",
    "for a bit",
    "again",
    "as well",
    "too",
    "today",
    "tonight",
    "already",
    "at once",
    "asap",
    "quickly",
    "for me please",
    "now please",
    ", ok",
    ", thanks",
    ", please",
    "if you can",
    "if possible",
    "when you can",
    "for us",
    "this evening",
    "before i go",
    "real quick",
    ", will you",
    ", thank you",
    ", would you",
    "if you don't mind",
    "straight away",
    "for the moment",
    ", cheers",
    ", ta",
    "this time",
    ", dear",
    "first",
]
_ASIDES = [
    "hey",
    "hi",
    "please",
    "ok",
    "so",
    "hello",
    "well",
    "um",
    "hey,",
    "hi,",
    "ok,",
    "so,",
    "tell me,",
    "quick question:",
    "excuse me,",
    "sorry,",
    "listen,",
    "assistant,",
    "home,",
    "computer,",
    "by the way,",
    "oh,",
    "and",
    "right,",
    "wait,",
    "question:",
    "i have a question:",
]


def polite(rng: Random, text: str, *, imperative: bool) -> str:
    """Return the sentence with what people put before and after it."""
    roll = rng.random()
    if imperative:
        if roll < 0.3:
            text = f"{rng.choice(_BEFORE)} {text}"
        if rng.random() < 0.22:
            text = fill(f"{text} {rng.choice(_AFTER)}")
    elif roll < 0.12:
        text = f"{rng.choice(_ASIDES)} {text}"
    elif roll < 0.16:
        text = fill(f"{text} {rng.choice(('please', ', please', 'now', 'right now', 'at the moment', ', thanks'))}")
    return text


_SLIPS = {
    "the": "teh",
    "you": "u",
    "please": "pls",
    "and": "adn",
    "turn": "trun",
    "light": "ligth",
    "lights": "ligths",
    "what": "waht",
    "is": "si",
    "are": "r",
    "lamp": "lmap",
    "temperature": "temprature",
    "off": "of",
    "switch": "swich",
    "open": "opne",
    "close": "clsoe",
    "kitchen": "kichen",
    "which": "wich",
    "brightness": "brighness",
    "blinds": "blinsd",
    "curtains": "curtians",
    "window": "windwo",
    "bedroom": "bedrom",
    "bathroom": "bathrom",
    "heating": "heatng",
    "what's": "whats",
    "i'm": "im",
    "it's": "its",
    "don't": "dont",
    "there": "ther",
    "for": "fro",
    "to": "ot",
}


def typo(rng: Random, word: str) -> str:
    """Return the word with one slip of the fingers; a short word is left alone."""
    if word in _SLIPS and rng.random() < 0.6:
        return _SLIPS[word]
    if len(word) < 5 or not word.isalpha():
        return word
    at = rng.randint(1, len(word) - 2)
    kind = rng.randint(0, 2)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :] if kind == 1 else word[:at] + word[at] + word[at:]


def worn(rng: Random, text: str, *, question: bool, names: frozenset[str] = frozenset()) -> str:
    """Return the sentence as typed: case, closing mark, now and then a typo outside `names` or a lost article."""
    words = text.split(" ")
    if rng.random() < 0.08:
        words = [word for word in words if word not in ("the", "a", "my") or word in names] or words
    if rng.random() < 0.07:
        at = rng.randrange(len(words))
        if words[at] not in names:
            words[at] = typo(rng, words[at])
    text = " ".join(words)
    roll = rng.random()
    if roll < 0.35:
        text = text[:1].upper() + text[1:]
    elif roll < 0.37:
        text = text.upper()
    if text[-1] in ".?!":
        return text
    ending = rng.random()
    if question:
        return text + ("?" if ending < 0.6 else "")
    return text + ("." if ending < 0.25 else "!" if ending < 0.3 else "")
