"""Token ids in, token ids out; knows no text and no network."""

from edge_assistant.engine.generate import Engine, FinishReason, Generation, Timing, Usage
from edge_assistant.engine.sampling import SamplingParams

__all__ = ["Engine", "FinishReason", "Generation", "SamplingParams", "Timing", "Usage"]
