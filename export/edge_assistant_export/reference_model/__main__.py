"""The steps of the recipe, one command each."""

from __future__ import annotations

import argparse
from pathlib import Path

CHECKPOINT = Path("models/home-mini/checkpoint")


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(prog="python -m edge_assistant_export.reference_model", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    tokenizer = steps.add_parser("tokenizer", help="learn the vocabulary and write tokenizer.json")
    tokenizer.add_argument("--out", type=Path, default=CHECKPOINT / "tokenizer.json")
    train = steps.add_parser("train", help="train, going on from the folder's state where there is one")
    train.add_argument("--state", type=Path, required=True, help="folder of the state and the log")
    train.add_argument("--tokenizer", type=Path, default=CHECKPOINT / "tokenizer.json")
    train.add_argument("--tokens", type=int, help="stop after so many tokens in all (default: when told to)")
    train.add_argument("--decay-from", type=Path, help="a state.pt to start the decay of the learning rate from")
    train.add_argument("--decay-tokens", type=int, help="tokens over which the learning rate falls to nothing")
    train.add_argument("--threads", type=int, default=1)
    train.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.step == "tokenizer":
        from edge_assistant_export.reference_model.tokenizer import save

        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        save(arguments.out)
    else:
        _train(arguments)


def _train(arguments: argparse.Namespace) -> None:
    import torch

    from edge_assistant.text.tokenizer import Tokenizer
    from edge_assistant_export.reference_model.train import Recipe, Run, train

    torch.set_num_threads(arguments.threads)
    run = Run(Recipe(), Tokenizer(arguments.tokenizer), arguments.state, arguments.device)
    own = arguments.state / "state.pt"
    if own.exists():
        run.load(own)
    elif arguments.decay_from:
        run.load(arguments.decay_from)
    train(run, until_tokens=arguments.tokens, decay_tokens=arguments.decay_tokens)


if __name__ == "__main__":
    main()
