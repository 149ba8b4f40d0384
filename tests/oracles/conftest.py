"""What the oracles share: other runtimes that load an exported folder as it lies there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_assistant.bundle import Bundle

Continue = Callable[[Bundle, list[int], int], list[int]]
"""Greedily continues a prompt by so many tokens; what comes may end earlier, with the token that ends a text."""


@pytest.fixture(scope="session")
def continue_in_optimum() -> Continue:
    """Return a function that lets optimum-onnx write; skips where it is not installed."""
    optimum = pytest.importorskip("optimum.onnxruntime", reason="make test-oracles installs optimum-onnx")
    import torch

    def write(bundle: Bundle, prompt: list[int], n_tokens: int) -> list[int]:
        model = optimum.ORTModelForCausalLM.from_pretrained(bundle.path)
        ids = torch.tensor([prompt])
        # Told so, because a prompt that holds the padding's id would be taken for a padded one.
        mask = torch.ones_like(ids)
        written = model.generate(ids, attention_mask=mask, max_new_tokens=n_tokens, do_sample=False)
        return list(written[0].tolist()[len(prompt) :])

    return write


@pytest.fixture(scope="session")
def continue_in_genai() -> Continue:
    """Return a function that lets onnxruntime-genai write; skips where it is not installed."""
    genai = pytest.importorskip("onnxruntime_genai", reason="make test-oracles installs onnxruntime-genai")

    def write(bundle: Bundle, prompt: list[int], n_tokens: int) -> list[int]:
        model = genai.Model(str(bundle.path))
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(prompt) + n_tokens)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(np.array([prompt], np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        return list(generator.get_sequence(0).tolist()[len(prompt) :])

    return write
