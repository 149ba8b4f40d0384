"""Text that a checkpoint writes itself, by the numpy reference: all texts grow together, a token of each a pass.

From the command line it writes texts to standard output, a blank line between them:

    python -m edge_assistant_export.sample CHECKPOINT --texts 40 --tokens 512 --seed 0 > stories.txt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer

from edge_assistant.errors import EdgeAssistantError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.reference import Past, hidden_states, logits

Progress = Callable[[int, int], None]
"""Told how much of how much is done."""


def sample(
    checkpoint: Checkpoint,
    n_texts: int,
    n_tokens: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[list[int]]:
    """Return the ids of texts drawn from the model's own distribution, `<s>` first and the end not included.

    A text is shorter than `n_tokens` where the model ends it itself. The whole checkpoint is read once a token. Same
    seed, same texts, up to what rounding decides.
    """
    special_ids = checkpoint.special_ids()
    begin, end = special_ids.get("<s>", 1), {special_ids.get("<s>", 1), special_ids.get("</s>", 2)}
    rng = np.random.default_rng(seed)
    texts = [[begin] for _ in range(n_texts)]
    growing = [(text, Past(checkpoint.config)) for text in texts]
    for step in range(1, n_tokens):
        if not growing:
            break
        new = [text[-1:] for text, _ in growing]
        hidden = hidden_states(checkpoint, new, [past for _, past in growing])
        scores = logits(checkpoint, np.concatenate(hidden))
        # The largest of the logits plus Gumbel noise is a draw from their softmax.
        drawn = (scores + rng.gumbel(size=scores.shape)).argmax(axis=-1).tolist()
        for (text, _), token in zip(growing, drawn, strict=True):
            text.append(token)
        growing = [(text, past) for text, past in growing if text[-1] not in end]
        if progress is not None:
            progress(step, n_tokens - 1)
    return [text[:-1] if text[-1] in end and len(text) > 1 else text for text in texts]


def main() -> None:
    """Write texts to standard output, a blank line between them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a folder or a hub id")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="the longest a text becomes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        with Checkpoint.open(options.checkpoint) as checkpoint:
            tokenizer = Tokenizer.from_buffer(checkpoint.tokenizer_json())
            texts = sample(checkpoint, options.texts, options.tokens, options.seed)
    except EdgeAssistantError as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    sys.stdout.write("\n\n".join(tokenizer.decode(text) for text in texts) + "\n")


if __name__ == "__main__":
    main()
