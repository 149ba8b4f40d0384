"""Token ids in, token ids out; knows no text and no network."""

from edge_assistant.engine.adapter import Adapter
from edge_assistant.engine.generate import Engine, FinishReason, Generation, Timing, Usage
from edge_assistant.engine.grammar import Constraint, Grammar, Grammars
from edge_assistant.engine.prefixes import Keep
from edge_assistant.engine.sampling import SamplingParams

__all__ = [
    "Adapter",
    "Constraint",
    "Engine",
    "FinishReason",
    "Generation",
    "Grammar",
    "Grammars",
    "Keep",
    "SamplingParams",
    "Timing",
    "Usage",
]
