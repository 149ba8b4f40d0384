"""Text that the model samples itself."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.reference import forward
from edge_assistant_export.sample import main, sample

STORIES_FILE = Path(__file__).parents[1] / "data" / "stories.txt"


@pytest.fixture
def tiny(tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        yield checkpoint


def test_texts_begin_and_do_not_hold_their_end(tiny):
    texts = sample(tiny, 50, 40)
    assert len(texts) == 50
    assert {len(text) for text in texts} - {40}, "some end early"
    for text in texts:
        assert text[0] == 1
        assert not {1, 2} & set(text[1:])
        assert len(text) <= 40


def test_a_checkpoint_that_is_none_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sample", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert f"error: {tmp_path}: it is no checkpoint" in capsys.readouterr().err


def test_same_seed_same_texts(tiny):
    assert sample(tiny, 4, 12, seed=5) == sample(tiny, 4, 12, seed=5)
    assert sample(tiny, 4, 12, seed=5) != sample(tiny, 4, 12, seed=6)


def test_tokens_are_drawn_from_the_models_own_distribution(tiny):
    n_texts = 4000
    scores = forward(tiny, [1])[0].astype(np.float64)
    expected = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    drawn = [text[1] if len(text) > 1 else None for text in sample(tiny, n_texts, 2)]
    for token in np.argsort(expected)[-20:]:
        if token not in {1, 2}:
            deviation = (expected[token] * (1 - expected[token]) / n_texts) ** 0.5
            assert drawn.count(token) / n_texts == pytest.approx(expected[token], abs=5 * deviation)


def test_progress_is_told(tiny):
    told = []
    sample(tiny, 2, 6, progress=lambda done, total: told.append((done, total)))
    assert told == [(step, 5) for step in range(1, 6)]


def test_the_committed_stories_are_what_the_model_samples(stories):
    committed = STORIES_FILE.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
    with Checkpoint.open(stories) as checkpoint:
        tokenizer = Tokenizer.from_buffer(checkpoint.tokenizer_json())
        texts = sample(checkpoint, len(committed), 20)
    for story, text in zip(committed, texts, strict=True):
        assert story.startswith(tokenizer.decode(text))


def test_the_command_writes_texts_with_blank_lines_between(stories, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sample", str(stories), "--texts", "3", "--tokens", "20"])
    main()
    written = capsys.readouterr().out
    assert len(written.split("\n\n")) == 3
    assert written.startswith("Once upon a time")
