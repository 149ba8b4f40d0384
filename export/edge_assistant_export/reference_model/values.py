"""Numbers, durations and temperatures, as they are said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant_export.reference_model.phrasing import in_words

if TYPE_CHECKING:
    from random import Random


def percentage(rng: Random) -> int:
    """Return a percentage as people ask for one: mostly round."""
    roll = rng.random()
    if roll < 0.5:
        return rng.randrange(10, 101, 10)
    return rng.randrange(5, 100, 5) if roll < 0.75 else rng.randint(1, 99)


def percentage_said(rng: Random, value: int) -> str:
    """Return `40 percent` and its like."""
    said = in_words(value) if rng.random() < 0.3 else str(value)
    unit = rng.choice((" percent", " percent", " %", "%", "", " per cent"))
    return f"{said} percent" if unit in ("%", " %") and not said.isdigit() else f"{said}{unit}"


def degrees(rng: Random) -> int | float:
    """Return a target temperature."""
    return rng.randint(15, 28) if rng.random() < 0.8 else rng.randint(15, 27) + 0.5


def degrees_said(rng: Random, value: float) -> str:
    """Return `21 degrees` and its like."""
    whole = int(value)
    said = f"{value:g}"
    if rng.random() < 0.3:
        half = rng.choice((" and a half", " point five")) if value != whole else ""
        said = in_words(whole) + half
    unit = rng.choice((" degrees", " degrees", "", " °C", " degrees celsius", "°", " celsius"))
    return f"{said} degrees" if "°" in unit and not said[-1].isdigit() else f"{said}{unit}"


def duration(rng: Random) -> dict[str, int]:
    """Return a duration as a timer's slots."""
    unit = rng.choices(("minutes", "seconds", "hours", "both"), (60, 15, 15, 10))[0]
    if unit == "minutes":
        return {"minutes": rng.choice((rng.randint(1, 60), rng.randrange(5, 61, 5), rng.randint(1, 20)))}
    if unit == "seconds":
        return {"seconds": rng.choice((rng.randrange(5, 100, 5), rng.randint(2, 90)))}
    if unit == "hours":
        return {"hours": rng.randint(1, 12)}
    return rng.choice(
        (
            {"hours": rng.randint(1, 5), "minutes": rng.randrange(5, 60, 5)},
            {"minutes": rng.randint(1, 20), "seconds": rng.randrange(10, 60, 10)},
        )
    )


def duration_said(rng: Random, slots: dict[str, int]) -> str:
    """Return `ten minutes` and its like."""
    if slots == {"minutes": 30} and rng.random() < 0.3:
        return "half an hour"
    if slots == {"hours": 1} and rng.random() < 0.4:
        return "an hour"
    if slots == {"minutes": 1} and rng.random() < 0.4:
        return "a minute"
    if slots == {"minutes": 15} and rng.random() < 0.3:
        return "a quarter of an hour"
    short = rng.random() < 0.12
    words = rng.random() < 0.35
    parts = []
    for name, value in slots.items():
        unit = {"hours": "h", "minutes": "min", "seconds": "sec"}[name] if short else name if value != 1 else name[:-1]
        parts.append(f"{in_words(value) if words else value} {unit}")
    return " and ".join(parts) if rng.random() < 0.7 else " ".join(parts)
