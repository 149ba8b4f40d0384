"""Token ids in, token ids out; knows no text and no network."""

from edge_assistant.engine.adapter import Adapter
from edge_assistant.engine.generate import Engine, Generation
from edge_assistant.engine.grammar import Constraint, Grammar, Grammars
from edge_assistant.engine.metrics import Counts, Metrics
from edge_assistant.engine.prefixes import Keep
from edge_assistant.engine.request import Claim, FinishReason, Priority, Timing, Usage
from edge_assistant.engine.sampling import SamplingParams

__all__ = [
    "Adapter",
    "Claim",
    "Constraint",
    "Counts",
    "Engine",
    "FinishReason",
    "Generation",
    "Grammar",
    "Grammars",
    "Keep",
    "Metrics",
    "Priority",
    "SamplingParams",
    "Timing",
    "Usage",
]
