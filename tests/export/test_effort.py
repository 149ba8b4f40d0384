"""What there is to do is known beforehand: what is told while an export runs comes to that sum."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.effort import gptq, nearest
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.synth import SHAPES
from edge_assistant_export.weights import plan_weights
from edge_assistant_export.write import export

TEXT = Path(__file__).parents[1] / "data" / "stories.txt"
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize("shape", ["mistral-7b", "1b", "mixtral-8x7b"])
def test_every_share_has_its_effort(shape):
    architecture = SHAPES[shape]
    weights = plan_weights(architecture, Recipe().quantization(architecture))
    shares = {name for matrix in weights.matrices for name, _ in matrix.shares()}
    for efforts in (nearest(weights), gptq(weights, architecture, 8192)):
        assert efforts.keys() == shares
        assert all(min(effort) >= 0 < effort.whole for effort in efforts.values())
    more = gptq(weights, architecture, 16_384)
    assert sum(one.passing for one in more.values()) == 2 * sum(one.passing for one in efforts.values())


@pytest.mark.parametrize("change", [{}, {"tie_word_embeddings": True}, MIXTURE], ids=["dense", "tied", "mixture"])
def test_all_of_it_is_told(tiny_checkpoint, tmp_path, change):
    told = []
    recipe = Recipe(method="gptq", zero_points=True, calibration=TEXT)
    with Checkpoint.open(tiny_checkpoint(**change)) as checkpoint:
        export(checkpoint, recipe, tmp_path / "out", lambda _stage, *counts: told.append(counts))
    *before, (done, total) = told
    assert done == total
    assert before[-1][0] == pytest.approx(total, rel=0.03), "the last step is what was counted beforehand too much"
    assert all(done < total for done, _ in before[:-1])
    assert [one for one, _ in told] == sorted(one for one, _ in told)
