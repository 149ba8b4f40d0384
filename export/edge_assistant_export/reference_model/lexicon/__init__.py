"""The words and sentence patterns the model learns. It knows no English but this.

`LEXICON` maps an intent to its lines (`phrasing.expand` says how a line is read). An intent `x` holds what may follow
"could you", `x.free` what stands for itself.
"""

from __future__ import annotations

from edge_assistant_export.reference_model.lexicon.commands import COMMANDS
from edge_assistant_export.reference_model.lexicon.follow_ups import FOLLOW_UPS
from edge_assistant_export.reference_model.lexicon.questions import QUESTIONS
from edge_assistant_export.reference_model.lexicon.settings import SETTINGS
from edge_assistant_export.reference_model.lexicon.talk import TALK

LEXICON: dict[str, tuple[str, ...]] = {
    intent: tuple(line for line in text.strip().splitlines() if line.strip())
    for part in (COMMANDS, SETTINGS, QUESTIONS, FOLLOW_UPS, TALK)
    for intent, text in part.items()
}
