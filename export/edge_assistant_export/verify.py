"""How far a bundle is from its checkpoint: both read the same text, position by position.

The bundle runs as it will on the board, through the engine; the checkpoint runs through the numpy reference in float32.
With p the reference's and q the bundle's distribution of the next token, over the positions of the text:

    kl                    mean of sum p (log p - log q), in nats
    top1_agreement        share of positions where both think the same token the likeliest
    perplexity            exp of the mean of -log q(token that follows)
    reference_perplexity  the same of p
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt

from edge_assistant.bundle import MANIFEST_FILE, Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine
from edge_assistant.errors import VerificationError
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.publish import replace_file
from edge_assistant_export.quantize import Float32
from edge_assistant_export.reference import forward_all
from edge_assistant_export.sample import Progress, sample

if TYPE_CHECKING:
    from edge_assistant_export.checkpoint import Checkpoint

Float64 = npt.NDArray[np.float64]
Float = TypeVar("Float", np.float32, np.float64)

# The longest text that is read, in tokens: enough for context to matter, few enough for a laptop.
_LONGEST: Final = 512
# The same for texts that the checkpoint samples itself.
_SAMPLED: Final = 64
# Positions whose distributions are compared at a time, in float64: float32 has too few digits for what a bundle of
# floats is off, and would make it negative at times.
_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Verification:
    """What was measured."""

    tokens: int
    """Positions whose next token was known."""
    kl: float
    top1_agreement: float
    perplexity: float
    reference_perplexity: float


def verify(
    bundle_path: Path,
    checkpoint: Checkpoint,
    text: str | None = None,
    tokens: int = 2048,
    progress: Progress | None = None,
) -> Verification:
    """Compare a bundle with the checkpoint it was made from, opened with the adapter that was merged into it, if any.

    Both read texts of `tokens` in all: those of `text`, which blank lines part, or what the checkpoint samples itself,
    for which it is read once a token. `progress` is told of the sampling.

    Raises:
        BundleError: The bundle is broken.
        VerificationError: It is of another architecture or another adapter, or there is too little text.
    """
    bundle = Bundle.open(bundle_path)
    _check_architecture(bundle, checkpoint)
    _check_adapter(bundle, checkpoint)
    longest = min(_LONGEST, bundle.manifest.architecture.max_positions)
    if text is None:
        texts = sample(checkpoint, -(-tokens // _SAMPLED), min(_SAMPLED, longest), progress=progress)
    else:
        begin = bundle.manifest.special_ids.get("<s>")
        texts = texts_of(text, Tokenizer(bundle.tokenizer_path), begin, longest, tokens)
    texts = [ids for ids in texts if len(ids) > 1]
    if not texts:
        raise VerificationError(bundle_path, "there is too little text: no token of it has one that follows")
    return compare(bundle, texts, forward_all(checkpoint, texts))


def compare(bundle: Bundle, texts: Sequence[Sequence[int]], expected: Iterable[Float32]) -> Verification:
    """Compare what a bundle makes of texts, of two tokens or more, with the logits [n, vocab] expected of each.

    Raises:
        VerificationError: One of both computes what is no number.
    """
    longest = max(len(ids) for ids in texts)
    settings = EngineSettings(kv_cache_bytes=bundle.manifest.cache_size.of(longest))
    with Engine.load(bundle, settings) as engine:
        result = distance(texts, expected, map(engine.score, texts))
    if not np.isfinite(astuple(result)).all():
        problem = "it or its checkpoint computes what is no number: the weights are broken, or too large for float32"
        raise VerificationError(bundle.path, problem)
    return result


def distance(texts: Iterable[Sequence[int]], expected: Iterable[Float32], found: Iterable[Float32]) -> Verification:
    """Compare two sets of logits [n, vocab] of texts."""
    parts = [_distances(*one) for one in zip(texts, expected, found, strict=True)]
    positions = np.concatenate(parts)
    kl, agreement, reference_loss, loss = positions.mean(axis=0).tolist()
    return Verification(
        tokens=len(positions),
        kl=kl,
        top1_agreement=agreement,
        perplexity=float(np.exp(loss)),
        reference_perplexity=float(np.exp(reference_loss)),
    )


def check_record(bundle_path: Path) -> None:
    """Refuse a folder to whose manifest nothing can be recorded: asked before it is measured.

    Raises:
        VerificationError
    """
    try:
        with TemporaryFile(dir=bundle_path):
            pass
    except OSError as error:
        problem = f"nothing can be recorded in its folder ({error.strerror})"
        raise VerificationError(bundle_path, f"{problem}: leave out --record, or verify a copy") from error


def record(bundle_path: Path, result: Verification) -> None:
    """Write what was measured into the bundle's manifest."""
    quality = {name: float(value) for name, value in asdict(result).items()}
    manifest = replace(Bundle.open(bundle_path).manifest, quality=quality)
    replace_file(bundle_path / MANIFEST_FILE, manifest.to_json().encode())


def _check_architecture(bundle: Bundle, checkpoint: Checkpoint) -> None:
    found = replace(bundle.manifest.architecture, max_positions=checkpoint.config.max_positions)
    for name, value in asdict(checkpoint.config).items():
        if getattr(found, name) != value:
            raise VerificationError(
                bundle.path,
                f"its {name} is {getattr(found, name)}, and that of {checkpoint.source_name} is {value}: "
                f"name the checkpoint it was made from ({bundle.manifest.source.name})",
            )


def _check_adapter(bundle: Bundle, checkpoint: Checkpoint) -> None:
    """Refuse another adapter than the one the bundle was made with; it is known by its weights, not by its name."""
    made_with = bundle.manifest.source.adapter
    given = checkpoint.adapter.source if checkpoint.adapter else None
    if made_with is None and given is not None:
        raise VerificationError(bundle.path, f"it was made without an adapter: leave out --adapter ({given.name})")
    if made_with is not None and given is None:
        raise VerificationError(bundle.path, f"it was made with an adapter: name it with --adapter ({made_with.name})")
    if made_with and given and given != replace(made_with, name=given.name, revision=given.revision):
        problem = f"{given.name} is not the adapter it was made with ({made_with.name})"
        raise VerificationError(bundle.path, f"{problem}: name that one with --adapter")


def texts_of(text: str, tokenizer: Tokenizer, begin: int | None, longest: int, tokens: int) -> list[list[int]]:
    """Return the ids of the paragraphs, each begun with `<s>`, up to `tokens` in all.

    A paragraph of more than `longest` tokens becomes several texts.
    """
    first = [] if begin is None else [begin]
    step = max(1, longest - len(first))
    texts: list[list[int]] = []
    for paragraph in text.split("\n\n"):
        ids = tokenizer.encode(paragraph.strip()) if tokens > len(first) else []
        for start in range(0, len(ids), step):
            if tokens > len(first):
                texts.append([*first, *ids[start : start + step]][:tokens])
                tokens -= len(texts[-1])
    return texts


def _distances(ids: Sequence[int], expected: Float32, found: Float32) -> Float64:
    """Return [n - 1, 4]: KL divergence, agreement, and -log p and -log q of the token that follows."""
    following = np.asarray(ids[1:])
    result = np.empty((len(following), 4))
    for start in range(0, len(following), _ROWS):
        rows = slice(start, min(start + _ROWS, len(following)))
        log_p, log_q = (log_softmax(logits[rows].astype(np.float64)) for logits in (expected, found))
        each, token = np.arange(rows.stop - start), following[rows]
        result[rows, 0] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        result[rows, 1] = log_p.argmax(axis=1) == log_q.argmax(axis=1)
        result[rows, 2] = -log_p[each, token]
        result[rows, 3] = -log_q[each, token]
    return result


def log_softmax(logits: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Return the logarithms of the chances that logits [n, vocab] speak of, in their type."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[Float] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
