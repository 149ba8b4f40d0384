"""Where weights lie: every row of every matrix comes from one row of the checkpoint, wherever it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.weights import plan_weights, read_rows

SHAPES = {"dense": {}, "mixture": {"num_local_experts": 3, "num_experts_per_tok": 2}}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@given(data=st.data())
def test_rows_read_in_pieces_are_the_rows_of_the_whole(shape, tiny_checkpoint, data):
    with Checkpoint.open(tiny_checkpoint(**shape)) as checkpoint:
        weights = plan_weights(checkpoint.config, Recipe().quantization(checkpoint.config))
        matrix = data.draw(st.sampled_from(weights.matrices))
        whole = read_rows(matrix, checkpoint.tensor, slice(0, matrix.n_rows))
        assert whole.shape == (matrix.n_rows, matrix.row_size)
        start = data.draw(st.integers(0, matrix.n_rows - 1))
        stop = data.draw(st.integers(start + 1, matrix.n_rows))
        np.testing.assert_array_equal(read_rows(matrix, checkpoint.tensor, slice(start, stop)), whole[start:stop])


def test_gate_and_up_of_an_expert_take_turns(tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint(**SHAPES["mixture"])) as checkpoint:
        fc1 = plan_weights(checkpoint.config, Recipe().quantization(checkpoint.config)).layers[1].feed_forward.fc1
        rows = read_rows(fc1, checkpoint.tensor, slice(0, fc1.n_rows)).reshape(3, -1, 2, 64)
        for expert in range(3):
            np.testing.assert_array_equal(rows[expert, :, 0], checkpoint.tensor(f"layers.1.experts.{expert}.gate"))
            np.testing.assert_array_equal(rows[expert, :, 1], checkpoint.tensor(f"layers.1.experts.{expert}.up"))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_shares_of_a_matrix_are_all_its_rows(shape, tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint(**shape)) as checkpoint:
        for matrix in plan_weights(checkpoint.config, Recipe().quantization(checkpoint.config)).matrices:
            shares = list(matrix.shares())
            assert len(shares) == matrix.n_experts
            assert [row for _, rows in shares for row in range(rows.start, rows.stop)] == list(range(matrix.n_rows))
            for name, rows in shares:
                first = read_rows(matrix, checkpoint.tensor, slice(rows.start, rows.start + 1))
                np.testing.assert_array_equal(first, checkpoint.tensor(name, slice(0, 1)))
