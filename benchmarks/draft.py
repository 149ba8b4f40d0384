"""What a draft model brings: how often home-mini-moe draws what home-mini guesses, at the costs of a larger pair.

The two have one vocabulary and learnt from the same examples, so that nearly all guesses come true: a pair that knows
less of each other brings less. Costs are not measured but given: a step of the large model is one, a run of several
takes what `guesses.py` has measured at 7B shape, and a run of the draft a share of the same, for what it reads of a
prompt as well. Of the time, what the large model takes to read prompts is left out.

The last line is one JSON object: tokens a step of the large model, by the draft's share, 0 being no draft.

    python benchmarks/draft.py --questions 150
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from unittest.mock import patch

from acceptance import KINDS, LONGEST_ANSWER, WARM_UP, kind_of, messages
from recorded import recorded_runs

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import SamplingParams, generate
from edge_assistant.errors import ToolCallError
from edge_assistant.home.tools import TOOLS
from edge_assistant.text.chat import ChatModel
from edge_assistant_export.reference_model.splits import Case, cases

SHARES = (0.0, 0.03, 0.05, 0.1, 0.15)
_STEPS = (1.0, 1.10, 1.26, 1.40, 1.59, 1.88, 2.03, 2.10)
"""Of runs of 1 to 8 tokens, those of docs/results.md with threads that sleep; a token more takes what the last took."""


def main() -> None:
    """Read the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="where both bundles are")
    parser.add_argument("--questions", type=int, default=150, metavar="N", help="of each of the splits a, b and c")
    options = parser.parse_args()
    asked = [*chain.from_iterable(cases(split, options.questions) for split in ("a", "b", "c"))]
    large, draft = (Bundle.open(options.models / name) for name in ("home-mini-moe", "home-mini"))
    found = {}
    for share in SHARES:
        print(f"a draft of {share}", file=sys.stderr)
        found[share] = tokens_a_step(asked, large, draft, share)
    print(json.dumps({"benchmark": "draft", "questions": len(asked), "tokens_a_step": found}))


def tokens_a_step(asked: Sequence[Case], large: Bundle, draft: Bundle, share: float) -> dict[str, float]:
    """Return how many tokens answers of each kind have for each step they took, the draft's runs included."""
    tokens, steps = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0.0)
    settings, params = EngineSettings(sequences=1), SamplingParams(max_tokens=LONGEST_ANSWER)
    weighed = patch.object(generate, "weighed", lambda *_: share) if share else nullcontext()
    clock = recorded_runs(_cost, draft.manifest.name, share)
    with clock, weighed, ChatModel.load(large, settings, draft=draft if share else None) as model:
        for number, case in enumerate(asked):
            try:
                reply = model.chat(messages(case), TOOLS, params)
            except ToolCallError:
                continue
            if number >= WARM_UP:
                tokens[kind_of(reply.message)] += reply.usage.completion_tokens - 1
                steps[kind_of(reply.message)] += reply.timing.decode_s
    return {kind: round(tokens[kind] / steps[kind], 3) for kind in KINDS}


def _cost(tokens: int, _: int) -> float:
    more = max(0, tokens - len(_STEPS))
    return _STEPS[min(tokens, len(_STEPS)) - 1] + more * (_STEPS[-1] - _STEPS[-2])


if __name__ == "__main__":
    main()
