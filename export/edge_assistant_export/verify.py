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
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant.bundle import MANIFEST_FILE, Bundle, cache_bytes_per_token
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant.errors import VerificationError
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.quantize import Float32
from edge_assistant_export.reference import forward_all
from edge_assistant_export.write import replace_file

if TYPE_CHECKING:
    from edge_assistant_export.checkpoint import Checkpoint

# Tokens that are read in one go, each time from a fresh start: enough for context to matter, few enough for a laptop.
_WINDOW: Final = 512
# Positions whose distributions are compared at a time.
_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Verification:
    """What was measured."""

    tokens: int
    """Positions whose next token was known."""
    kl: float
    top1_agreement: float
    perplexity: float
    reference_perplexity: float


def verify(bundle_path: Path, checkpoint: Checkpoint, text: str | None = None, tokens: int = 2048) -> Verification:
    """Compare a bundle with the checkpoint it was made from.

    Both read the first `tokens` of the text, in windows that each begin with `<s>`; without a text they read what the
    bundle samples at temperature 1, with the seeds 0, 1, 2, ...

    Raises:
        BundleError: The bundle is broken.
        VerificationError: It is of another architecture, or there is too little text.
    """
    bundle = Bundle.open(bundle_path)
    _check_architecture(bundle, checkpoint)
    begin = bundle.manifest.special_ids.get("<s>")
    window = min(_WINDOW, bundle.manifest.architecture.max_positions)
    settings = EngineSettings(kv_cache_bytes=window * cache_bytes_per_token(bundle.manifest))
    with Engine.load(bundle, settings) as engine:
        if text is not None:
            texts = _windows(Tokenizer(bundle.tokenizer_path).encode(text)[:tokens], begin, window)
        elif begin is not None:
            texts = list(islice(_sampled(engine, begin, window), -(-tokens // window)))
        else:
            raise VerificationError(
                bundle_path, "its vocabulary has no <s> to sample a text from: name one, --text FILE"
            )
        if sum(len(ids) - 1 for ids in texts) < 1:
            raise VerificationError(bundle_path, "the text is too short: no token of it has one that follows")
        return _summary(
            _compare(ids, expected, engine.score(ids))
            for ids, expected in zip(texts, forward_all(checkpoint, texts), strict=True)
        )


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


def _windows(ids: Sequence[int], begin: int | None, window: int) -> list[list[int]]:
    """Cut a text into windows of `window` tokens at most, the first of each `<s>` where there is one."""
    first = [] if begin is None else [begin]
    step = window - len(first)
    return [[*first, *ids[start : start + step]] for start in range(0, len(ids), step)]


def _sampled(engine: Engine, begin: int, window: int) -> Iterable[list[int]]:
    seed = 0
    while True:
        params = SamplingParams(max_tokens=window - 1, temperature=1.0, seed=seed)
        yield [begin, *engine.generate([begin], params)]
        seed += 1


def _compare(ids: Sequence[int], expected: Float32, found: Float32) -> Float32:
    """Return [n - 1, 4]: KL divergence, agreement, and -log p and -log q of the token that follows."""
    following = np.asarray(ids[1:])
    result = np.empty((len(following), 4), np.float32)
    for start in range(0, len(following), _ROWS):
        rows = slice(start, min(start + _ROWS, len(following)))
        log_p, log_q = _log_softmax(expected[rows]), _log_softmax(found[rows])
        each, token = np.arange(rows.stop - start), following[rows]
        result[rows, 0] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        result[rows, 1] = log_p.argmax(axis=1) == log_q.argmax(axis=1)
        result[rows, 2] = -log_p[each, token]
        result[rows, 3] = -log_q[each, token]
    return result


def _log_softmax(logits: Float32) -> Float32:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_total: Float32 = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - log_total


def _summary(parts: Iterable[Float32]) -> Verification:
    positions = np.concatenate(list(parts)).astype(np.float64)
    kl, agreement, reference_loss, loss = positions.mean(axis=0).tolist()
    return Verification(
        tokens=len(positions),
        kl=kl,
        top1_agreement=agreement,
        perplexity=float(np.exp(loss)),
        reference_perplexity=float(np.exp(reference_loss)),
    )
