"""Questions of every kind about a home, each with its one right answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant_export.reference_model.examples import absent, bare, commands, other, questions
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_assistant_export.reference_model.homes import House

MAKERS: tuple[tuple[Callable[[Speaker, House], Example], float], ...] = (
    (commands.command, 30),
    (commands.several, 8),
    (commands.everything_off, 1.5),
    (commands.indirect, 4),
    (commands.climate_area, 2),
    (commands.scene, 2.5),
    (commands.timer, 3.5),
    (commands.list_item, 3),
    (questions.is_state, 13),
    (questions.state, 9),
    (questions.person, 2),
    (questions.reading, 9),
    (questions.quantity, 6),
    (questions.quantity_at_home, 0.7),
    (questions.property_of, 7),
    (questions.time, 1),
    (questions.listing, 11),
    (questions.who, 1.5),
    (absent.absent, 10),
    (absent.absent_floor, 0.5),
    (bare.ask_back, 5),
    (bare.partial, 5),
    (bare.which_room, 1),
    (other.event, 3),
    (other.chat, 6),
)
_CHOICES = [maker for maker, _ in MAKERS]
_WEIGHTS = [weight for _, weight in MAKERS]


def example(speaker: Speaker, house: House) -> Example:
    """Return a question that the home and the side of the patterns allow."""
    while True:
        maker = speaker.rng.choices(_CHOICES, _WEIGHTS)[0]
        try:
            return maker(speaker, house)
        except NoSuchQuestionError:
            continue
