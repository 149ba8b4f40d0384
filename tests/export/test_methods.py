"""What every method of the table keeps to."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_assistant.bundle import WEIGHTS_FILE
from edge_assistant.errors import RecipeError
from edge_assistant_export import sequential
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.methods import METHODS
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.verify import verify
from edge_assistant_export.weights import plan_weights
from edge_assistant_export.write import export
from edge_assistant_export.written import Written

TEXT = Path(__file__).parents[1] / "data" / "stories.txt"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("zero_points", [False, True])
def test_every_method_makes_a_bundle_that_knows_it(method, zero_points, tiny_checkpoint, tmp_path):
    if zero_points and not METHODS[method].finds_zero_points:
        with pytest.raises(RecipeError, match="zero_points"):
            Recipe(method=method, zero_points=True)
        return
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        manifest = export(
            checkpoint, Recipe(bits=8, method=method, zero_points=zero_points, accuracy_level=0), tmp_path / "out"
        )
        assert verify(tmp_path / "out", checkpoint, tokens=256).kl < 0.05
    assert manifest.quantization.method == method
    assert manifest.quantization.zero_points == zero_points


def test_a_calibration_text_that_nothing_reads_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="neither method gptq or awq nor an int8 cache"):
        Recipe(calibration=tmp_path / "text")


@pytest.mark.parametrize("mixture", [{}, {"num_local_experts": 4, "num_experts_per_tok": 2}], ids=["dense", "mixture"])
def test_what_is_written_reads_back_as_the_checkpoint_rounded(mixture, tiny_checkpoint, tmp_path):
    with Checkpoint.open(tiny_checkpoint(**mixture)) as checkpoint:
        manifest = export(checkpoint, Recipe(bits=8, zero_points=True), tmp_path / "out")
        weights = plan_weights(manifest.architecture, manifest.quantization)
        with (tmp_path / "out" / "model.onnx.data").open("rb") as file:
            written = Written(file.fileno(), weights, checkpoint)
            for matrix in weights.matrices:
                for name in (name for part in matrix.parts for name in part.names):
                    whole = checkpoint.tensor(name)
                    off = abs(written.tensor(name) - whole).max()
                    assert off < 0.02 * abs(whole).max()
                    some = slice(1, 3)
                    assert (written.tensor(name, some) == written.tensor(name)[some]).all()
            assert (written.tensor("norm") == checkpoint.tensor("norm")).all()


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_calibrated_export_goes_on_as_it_began(method, tiny_checkpoint, tmp_path):
    def stop_halfway(stage, done, total):
        if stage == "weights" and done > total // 2:
            raise KeyboardInterrupt

    recipe = Recipe(method=method, calibration=TEXT)
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        whole = export(checkpoint, recipe, tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            export(checkpoint, recipe, tmp_path / "out", stop_halfway)
        assert (tmp_path / ".out.partial").is_dir()
        assert export(checkpoint, recipe, tmp_path / "out").files.keys() == whole.files.keys()
        ends = [verify(tmp_path / name, checkpoint, tokens=256).kl for name in ("whole", "out")]
    assert ends[1] == pytest.approx(ends[0], rel=0.1)


def test_gptq_gone_on_with_keeps_finished_layers(tiny_checkpoint, tmp_path, monkeypatch):
    """What was written whole is neither weighed nor rounded again, and its bytes stay."""
    last = "layers.1.gate"
    shares = []
    mended = sequential.Mended

    def stop_at_the_last(*args):
        shares.append(args[0].shape)
        if len(shares) == stop_after:
            raise KeyboardInterrupt
        return mended(*args)

    monkeypatch.setattr(sequential, "Mended", stop_at_the_last)
    recipe = Recipe(method="gptq", zero_points=True, calibration=TEXT)
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        weights = plan_weights(checkpoint.config, recipe.quantization(checkpoint.config))
        names = [name for matrix in weights.matrices for name, _ in matrix.shares()]
        stop_after = names.index(last)  # the embedding, which is the first, is rounded for itself
        with pytest.raises(KeyboardInterrupt):
            export(checkpoint, recipe, tmp_path / "out")
        before = (tmp_path / ".out.partial" / WEIGHTS_FILE).read_bytes()
        told, n_of_first, stop_after = [], len(shares), 0
        shares.clear()
        export(checkpoint, recipe, tmp_path / "out", lambda *one: told.append(one))
        after = (tmp_path / "out" / WEIGHTS_FILE).read_bytes()
    assert len(shares) == len(names) - n_of_first
    assert n_of_first > 4, "more than one layer"
    for matrix in weights.matrices[:n_of_first]:
        for place in matrix.places:
            whole = slice(place.offset, place.offset + place.nbytes)
            assert after[whole] == before[whole]
            assert any(after[whole])
    totals = [total for _, _, total in told]
    assert totals == sorted(totals, reverse=True), "what is there already is no work that is left"
    assert told[-1][1] == told[-1][2] < totals[0]
