"""Other runtimes load an exported folder as it lies there, and write the same tokens as our engine.

optimum-onnx and onnxruntime-genai want different versions of transformers: each is skipped in the other's environment.
"""

from __future__ import annotations

import numpy as np
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.synth import synthesise
from edge_assistant_export.weights import plan_weights

N_TOKENS = 40
PROMPT = [1, 300, 45, 260]
END = 2
# In float16 two tokens are as likely where their logits differ by this share of the logits' spread, some of its steps.
DOUBT = 0.004
FEWEST = 8


@pytest.fixture(scope="module", params=["tiny", "tiny-tied", "tiny-window", "tiny-moe", "stories"])
def checkpoint(request, tmp_path_factory):
    if request.param == "stories":
        return request.getfixturevalue("stories")
    return synthesise(request.param, tmp_path_factory.mktemp("synth") / "checkpoint", dtype="float32")


EVERY_OTHER: tuple[str, ...] = ("every other matrix",)
RECIPES = {
    "float32": {"bits": 32},
    "int4": {},
    "int4 with zero points": {"zero_points": True},
    "int4 that takes adapters": {"lora_rank": 8},
    "float16": {"bits": 16, "dtype": "float16"},
    "int4 in float16": {"dtype": "float16"},
    "4 and 8 bits": {"eight_bits": EVERY_OTHER},
    "4 and 8 bits with zero points": {"eight_bits": EVERY_OTHER, "zero_points": True},
}


@pytest.fixture(scope="module", params=RECIPES.values(), ids=RECIPES)
def bundle(request, checkpoint, export_bundle):
    recipe = request.param
    if "eight_bits" in recipe:
        with Checkpoint.open(checkpoint) as opened:
            names = plan_weights(opened.config, Recipe().quantization(opened.config)).by_name
        recipe = recipe | {"eight_bits": tuple(names)[::2]}
    # Without int8 arithmetic, so that what is compared is not how each reads a prompt in pieces.
    return export_bundle(checkpoint, accuracy_level=0, window_cache="full", **recipe)


@pytest.fixture(scope="module")
def expected(bundle) -> list[int]:
    with Engine.load(bundle, EngineSettings(threads=1)) as engine:
        params = SamplingParams(max_tokens=N_TOKENS, stop_ids=frozenset({END}))
        return list(engine.generate(PROMPT, params))


@pytest.fixture(scope="module")
def sure(bundle, expected) -> int:
    """Return how many of the first tokens no rounding in float16 could have made others."""
    if bundle.manifest.quantization.dtype == "float32":
        return N_TOKENS
    with Engine.load(bundle, EngineSettings(threads=1)) as engine:
        logits = engine.score(PROMPT + expected)[len(PROMPT) - 1 :]
    second, first = np.sort(logits, axis=1)[:, -2:].T
    tokens = int(np.append(first - second <= DOUBT * logits.std(), [True]).argmax())
    assert tokens >= FEWEST
    return tokens


def until_the_end(written: list[int]) -> list[int]:
    """Leave the token out that ends a text."""
    return [token for token in written if token != END]


def test_optimum_writes_the_same_tokens(bundle, expected, sure, continue_in_optimum):
    assert until_the_end(continue_in_optimum(bundle, PROMPT, N_TOKENS))[:sure] == expected[:sure]


@pytest.mark.genai
def test_genai_writes_the_same_tokens(bundle, expected, sure, continue_in_genai):
    assert until_the_end(continue_in_genai(bundle, PROMPT, N_TOKENS))[:sure] == expected[:sure]
