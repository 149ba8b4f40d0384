"""Names nobody has heard before: the model must copy what the home is called, never recall it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant_export.reference_model.lexicon.names import WORDS

if TYPE_CHECKING:
    from random import Random

_ONSETS = [
    "b",
    "br",
    "c",
    "ch",
    "cl",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "qu",
    "r",
    "s",
    "sh",
    "sk",
    "sl",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "x",
    "y",
    "z",
    "z",
    "k",
    "v",
    "",
]
_NUCLEI = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ai", "ee", "oo", "ou", "ia", "ei", "ö", "ü", "é"]
_CODAS = [
    "",
    "",
    "",
    "n",
    "r",
    "l",
    "s",
    "x",
    "k",
    "m",
    "t",
    "th",
    "nd",
    "rk",
    "sh",
    "ng",
    "p",
    "d",
    "v",
    "z",
    "ck",
    "ll",
    "st",
]


def syllables(rng: Random, low: int = 2, high: int = 3) -> str:
    """Return a pronounceable word of that many syllables: `zorvik`."""
    parts = [rng.choice(_ONSETS) + rng.choice(_NUCLEI) for _ in range(rng.randint(low, high))]
    return "".join(parts) + rng.choice(_CODAS)


def mashed(rng: Random) -> str:
    """Return two halves of real words as one: `falbow`."""
    first, second = rng.choice(WORDS), rng.choice(WORDS)
    return (first[: rng.randint(2, 4)] + second[-rng.randint(2, 4) :]).replace(" ", "")


def code(rng: Random) -> str:
    """Return what a vendor's label looks like: `k7`, `ab 12`."""
    letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 2)))
    return f"{letters}{rng.choice(('', ' ', '-'))}{rng.randint(1, 99)}"


def word(rng: Random) -> str:
    """Return one word of a name that no list knows."""
    roll = rng.random()
    if roll < 0.4:
        return syllables(rng)
    if roll < 0.6:
        return mashed(rng)
    if roll < 0.66:
        return code(rng)
    if roll < 0.7:
        return syllables(rng, 4, 5)
    return rng.choice(WORDS)


def thing(rng: Random, known: list[str]) -> str:
    """Return a thing for a list or a timer: often one that everybody knows, else any words, to be copied as said."""
    if rng.random() < 0.5:
        return rng.choice(known)
    words = rng.sample(WORDS, rng.choice((1, 1, 2, 2, 3)))
    return " ".join([*words, word(rng)] if rng.random() < 0.2 else words)


def name(rng: Random, tail: str = "") -> str:
    """Return a name of one to three words; `tail`, a word for what the thing is, may close it."""
    words = [word(rng) for _ in range(rng.choice((1, 1, 1, 2, 2)))]
    if tail and rng.random() < 0.45:
        words = [*words[:1], tail]
    return " ".join(words)
