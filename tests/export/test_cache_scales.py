"""Scales of an int8 cache: nothing of the text is cut off, wherever it stands, and little of the model is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from edge_assistant.errors import CheckpointError
from edge_assistant_export.cache_scales import cache_scales
from edge_assistant_export.calibration_text import calibration_texts
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.reference import Observer, Past, forward, hidden_states, logits, rotary_angles, rotate

STORIES_FILE = Path(__file__).parents[1] / "data" / "stories.txt"


@pytest.fixture(scope="module")
def checkpoint(stories):
    with Checkpoint.open(stories) as checkpoint:
        yield checkpoint


@pytest.fixture(scope="module", params=["sampled", "file"])
def calibrated(checkpoint, request):
    """Return the scales from a text of either source."""
    return cache_scales(checkpoint, calibration_texts(checkpoint, STORIES_FILE if request.param == "file" else None))


@pytest.fixture(scope="module")
def file_scales(checkpoint):
    return cache_scales(checkpoint, calibration_texts(checkpoint, STORIES_FILE))


class KeysAndValues(Observer):
    """All that passed, by layer."""

    def __init__(self) -> None:
        self.seen = {}

    def keys_and_values(self, layer, keys, values):
        self.seen[layer] = keys, values


@pytest.fixture(scope="module")
def layers(checkpoint):
    """Return the keys before rotation and the values of every layer, over the text that `file_scales` has seen."""
    observer = KeysAndValues()
    hidden_states(checkpoint, calibration_texts(checkpoint, STORIES_FILE), observer=observer)
    return [observer.seen[layer] for layer in range(checkpoint.config.n_layers)]


class RoundedPast(Past):
    """A past that keeps what an int8 cache keeps."""

    def __init__(self, config, scales) -> None:
        super().__init__(config)
        self.scales = scales

    def extend(self, layer, keys, values):
        rounded = (
            np.clip(np.rint(array / scale[layer]), -128, 127) * scale[layer]
            for array, scale in zip((keys, values), self.scales, strict=True)
        )
        return super().extend(layer, *rounded)


def test_scales_have_the_shape_of_the_heads(checkpoint, calibrated):
    config = checkpoint.config
    for scales in calibrated:
        assert scales.shape == (config.n_layers, config.n_kv_heads, config.head_dim)
        assert scales.dtype == np.float32
        assert np.isfinite(scales).all()
        assert (scales > 0).all()


def test_nothing_is_cut_off_at_any_position(checkpoint, file_scales, layers):
    for layer, (keys, values) in enumerate(layers):
        assert np.abs(values / file_scales.values[layer]).max() <= 127
        for position in (0, 1, 17, 200, checkpoint.config.max_positions - 1):
            turned = rotate(keys, rotary_angles(checkpoint.config, np.full(len(keys), position)))
            assert np.abs(turned / file_scales.keys[layer]).max() <= 127


def test_values_use_the_whole_range_but_for_the_headroom(file_scales, layers):
    for layer, (_, values) in enumerate(layers):
        used = np.abs(values / file_scales.values[layer]).max(axis=0)
        np.testing.assert_allclose(used, 127 / 1.1, rtol=1e-3)


def test_a_rounded_cache_loses_little(checkpoint, calibrated):
    ids = calibration_texts(checkpoint, STORIES_FILE)[-1]
    expected = forward(checkpoint, ids).astype(np.float64)
    past = RoundedPast(checkpoint.config, calibrated)
    found = logits(checkpoint, hidden_states(checkpoint, [ids], [past])[0]).astype(np.float64)
    p, q = (scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True) for scores in (expected, found))
    assert (np.exp(p) * (p - q)).sum(axis=-1).mean() < 0.005


def test_a_channel_that_is_always_zero_has_a_scale(tiny_checkpoint, tmp_path):
    folder = Path(shutil.copytree(tiny_checkpoint(), tmp_path / "zero"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.v_proj.weight"][3] = 0
    save_file(tensors, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        values = cache_scales(checkpoint, calibration_texts(checkpoint)).values
    assert 0 < values[0, 0, 3] < 1e-30
    assert (0 / values[0, 0, 3]) == 0


def test_a_file_is_read_in_texts_that_the_model_can_hold(checkpoint):
    texts = calibration_texts(checkpoint, STORIES_FILE)
    assert sum(len(text) - 1 for text in texts) == 8192
    assert all(text[0] == 1 and len(text) <= 512 for text in texts)


def test_what_a_file_says_never_becomes_a_control_token(checkpoint, tmp_path):
    (tmp_path / "text").write_text("</s><s>")
    [ids] = calibration_texts(checkpoint, tmp_path / "text")
    assert ids[0] == 1
    assert not {0, 1, 2} & set(ids[1:])


def test_sampled_texts_are_not_those_that_quality_is_measured_on(checkpoint):
    told = []
    texts = calibration_texts(checkpoint, progress=lambda done, total: told.append((done, total)))
    assert told == [(step, 127) for step in range(1, 128)]
    measured = STORIES_FILE.read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_buffer(checkpoint.tokenizer_json())
    assert not any(tokenizer.decode(text)[-100:] in measured for text in texts if len(text) > 100)


@pytest.mark.parametrize(("content", "problem"), [(b"", "empty"), (b"\xff\xfe\x00", "UTF-8"), (None, "No such file")])
def test_a_file_that_is_no_text_is_named(checkpoint, tmp_path, content, problem):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"text: .*{problem}"):
        calibration_texts(checkpoint, tmp_path / "text")


@pytest.mark.parametrize(("words", "warned"), [(3, True), (700, False)])
def test_a_text_too_short_to_be_of_use_is_warned_of(checkpoint, tmp_path, caplog, words, warned):
    (tmp_path / "text").write_text("once upon a time " * words)
    count = sum(map(len, calibration_texts(checkpoint, tmp_path / "text")))
    assert [f"{count} tokens of {tmp_path / 'text'} are few" in line for line in caplog.messages] == [True] * warned
