"""The text that a checkpoint is calibrated with: a file's, or one that the model samples itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from tokenizers import Tokenizer

from edge_assistant.errors import CheckpointError
from edge_assistant_export.sample import Progress, sample

if TYPE_CHECKING:
    from pathlib import Path

    from edge_assistant_export.checkpoint import Checkpoint, ModelConfig

_LOG = logging.getLogger(__name__)

# GPTQ of home-mini is at a KL divergence of 0.026 with 4,096 tokens, 0.020 with 8,192, and no nearer with 23,000; of a
# 7B each 8,192 take a minute of a processor's core a layer to pass, and 2 GB of memory.
_FILE_TOKENS: Final = 8192
_FILE_TEXT_TOKENS: Final = 512
_FILE_CHARACTERS: Final = 64 * _FILE_TOKENS
# With fewer GPTQ gains little over plain rounding, and an int8 cache cuts off what the text did not show: stories260K,
# calibrated with a single letter, is then at a KL divergence of 0.44.
_FEW_TOKENS: Final = 256

# A model is read once for each token it samples, whatever the number of texts.
_SAMPLED_TEXTS: Final = 64
_SAMPLED_TOKENS: Final = 128
# Not the seed that texts for measuring are sampled with: what is calibrated on must not be measured on.
_SEED: Final = 1


def calibration_texts(
    checkpoint: Checkpoint, path: Path | None = None, progress: Progress | None = None
) -> list[list[int]]:
    """Return texts as ids of the model, `<s>` first in each.

    Of the file, the first 8,192 tokens are read, in texts of 512; without one the model samples 64 texts of 128, for
    which it is read 127 times, as `progress` is told. A text that is too short to be of use is warned of.

    Raises:
        CheckpointError: The file cannot be read as text, or is empty.
    """
    texts = _sampled(checkpoint, progress) if path is None else _read(checkpoint, path)
    if (count := sum(map(len, texts))) < _FEW_TOKENS:
        name = f"the text that {checkpoint.source_name} samples" if path is None else path
        problem = f"{count} tokens of {name} are few to calibrate with: the bundle may be far from its checkpoint"
        _LOG.warning("%s, so give %d or more to --calibration", problem, _FEW_TOKENS)
    return texts


def most_positions(config: ModelConfig) -> int:
    """Return of how many tokens the texts of a model are at most, `<s>` of each among them."""
    return max(_SAMPLED_TEXTS * _SAMPLED_TOKENS, _FILE_TOKENS + -(-_FILE_TOKENS // _step(config)))


def _sampled(checkpoint: Checkpoint, progress: Progress | None) -> list[list[int]]:
    longest = min(_SAMPLED_TOKENS, checkpoint.config.max_positions)
    return sample(checkpoint, _SAMPLED_TEXTS, longest, _SEED, progress)


def _read(checkpoint: Checkpoint, path: Path) -> list[list[int]]:
    text = _text_of(path)
    tokenizer = Tokenizer.from_buffer(checkpoint.tokenizer_json())
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:_FILE_TOKENS]
    if not ids:
        raise _empty(path)
    begin = checkpoint.special_ids().get("<s>", 1)
    step = _step(checkpoint.config)
    return [[begin, *ids[start : start + step]] for start in range(0, len(ids), step)]


def check_calibration(path: Path) -> None:
    """Refuse a file that cannot be calibrated with, before a checkpoint is fetched; a pipe can be read but once.

    Raises:
        CheckpointError: It cannot be read as text, or is empty.
    """
    if path.is_file() or path.is_dir() or not path.exists():
        _text_of(path)


def _text_of(path: Path) -> str:
    """Return what is read of a file.

    Raises:
        CheckpointError: It cannot be read as text, or is empty.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_FILE_CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise CheckpointError(path, f"it cannot be read as UTF-8 text ({problem}): name another") from error
    if not text.strip():
        raise _empty(path)
    return text


def _empty(path: Path) -> CheckpointError:
    return CheckpointError(path, "it is empty: there is nothing to calibrate with")


def _step(config: ModelConfig) -> int:
    """Return how many tokens of a file stand behind each `<s>`."""
    return min(_FILE_TEXT_TOKENS, config.max_positions) - 1
