"""The steps of the recipe, one command each."""

from __future__ import annotations

# ruff: noqa: PLC0415 - torch is imported by the steps that need it alone
import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant.errors import EdgeAssistantError

if TYPE_CHECKING:
    from edge_assistant_export.reference_model.evaluate import Judge
    from edge_assistant_export.reference_model.model import Mistral

MODEL = Path("models/home-mini")
CHECKPOINT = MODEL / "checkpoint"
EXPERTS_PER_TOKEN = 2


def main() -> None:
    """Run one step."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except EdgeAssistantError as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge_assistant_export.reference_model", description=__doc__)
    steps = parser.add_subparsers(required=True)

    tokenizer = steps.add_parser("tokenizer", help="learn the vocabulary and write tokenizer.json")
    tokenizer.add_argument("--out", type=Path, default=CHECKPOINT / "tokenizer.json")
    tokenizer.set_defaults(run=_tokenizer)

    train = steps.add_parser("train", help="train, going on from the folder's state where there is one")
    train.add_argument("--state", type=Path, required=True, help="folder of the state and the log")
    train.add_argument("--tokenizer", type=Path, default=CHECKPOINT / "tokenizer.json")
    train.add_argument("--tokens", type=int, help="stop after so many tokens in all (default: when told to)")
    train.add_argument("--start-from", type=Path, help="a checkpoint folder whose weights to start with")
    train.add_argument(
        "--experts", type=int, help="with --start-from: so many experts in each layer, made of its feed-forward"
    )
    train.add_argument("--seed", type=int, default=1, help="of the data and the first weights (default: 1)")
    train.add_argument("--learning-rate", type=float, default=2e-3, help="its highest (default: 0.002)")
    train.add_argument("--decay-from", type=Path, help="a state.pt to start the decay of the learning rate from")
    train.add_argument("--decay-tokens", type=int, help="tokens over which the learning rate falls to nothing")
    train.add_argument("--threads", type=int, default=1)
    train.add_argument("--device", default="cpu")
    train.add_argument(
        "--bfloat16", action="store_true", help="compute products in bfloat16: 3 times as fast where the CPU has it"
    )
    train.add_argument("--int4", action="store_true", help="train the weights to be rounded to int4, for the last part")
    train.set_defaults(run=_train)

    save = steps.add_parser("save", help="write a training state as a checkpoint in the Hugging Face layout")
    save.add_argument("--state", type=Path, required=True, help="a state.pt")
    save.add_argument("--tokenizer", type=Path, default=CHECKPOINT / "tokenizer.json")
    save.add_argument("--out", type=Path, default=CHECKPOINT)
    save.set_defaults(run=_save)

    evaluate = steps.add_parser("evaluate", help="exact match by kind on the held-out splits; the last line is JSON")
    which = evaluate.add_mutually_exclusive_group(required=True)
    which.add_argument("--state", type=Path, help="a state.pt (needs torch)")
    which.add_argument("--checkpoint", type=Path, help="a checkpoint folder (needs torch)")
    which.add_argument("--bundle", type=Path, help="an exported bundle, on the board's engine")
    evaluate.add_argument("--tokenizer", type=Path, default=CHECKPOINT / "tokenizer.json", help="with --state")
    evaluate.add_argument("--splits", type=_splits, default="abc", help="of a, b and c (default: abc)")
    evaluate.add_argument("--count", type=_count, default=1200, help="questions of (a) and of (b)")
    evaluate.add_argument("--threads", type=int, default=1)
    evaluate.add_argument("--misses", action="store_true", help="print every miss")
    evaluate.set_defaults(run=_evaluate)
    return parser


def _splits(text: str) -> str:
    """Return the letters of held-out sets: there are questions of any other letter, but of training's own patterns."""
    if not text or set(text) - set("abc"):
        raise argparse.ArgumentTypeError(f"{text!r} names no splits: write some of abc, without anything between them")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of questions: write 1 or more")
    return int(text)


def _tokenizer(arguments: argparse.Namespace) -> None:
    from edge_assistant_export.reference_model.tokenizer import save

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save(arguments.out)


def _train(arguments: argparse.Namespace) -> None:
    import torch

    from edge_assistant.text.tokenizer import Tokenizer
    from edge_assistant_export.reference_model.saving import load_state
    from edge_assistant_export.reference_model.train import Recipe, Run, train

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    own = arguments.state / "state.pt"
    state = own if own.exists() else arguments.decay_from
    run = Run(
        Recipe(seed=arguments.seed, learning_rate=arguments.learning_rate),
        Tokenizer(arguments.tokenizer),
        arguments.state,
        model=load_state(state) if state else _first_model(arguments),
        device=arguments.device,
        bfloat16=arguments.bfloat16,
        int4=arguments.int4,
    )
    if state:
        run.load(state)
    train(run, until_tokens=arguments.tokens, decay_tokens=arguments.decay_tokens)


def _first_model(arguments: argparse.Namespace) -> Mistral | None:
    """Return the model that a run starts with, None for random weights."""
    from edge_assistant_export.reference_model.mixture import upcycled
    from edge_assistant_export.reference_model.saving import load_checkpoint

    if not arguments.start_from:
        return None
    model = load_checkpoint(arguments.start_from)
    return upcycled(model, arguments.experts, EXPERTS_PER_TOKEN) if arguments.experts else model


def _save(arguments: argparse.Namespace) -> None:
    from edge_assistant_export.reference_model.saving import load_state, save_checkpoint

    save_checkpoint(load_state(arguments.state), arguments.tokenizer.read_bytes(), arguments.out)


def _evaluate(arguments: argparse.Namespace) -> None:
    from edge_assistant_export.reference_model import evaluate

    judge = evaluate.by_bundle(arguments.bundle, arguments.threads) if arguments.bundle else _torch_judge(arguments)
    scores = evaluate.evaluate(judge, arguments.splits, arguments.count)
    print(evaluate.table(scores))
    if arguments.misses:
        for split, score in scores.items():
            for miss in score.misses:
                print(f"({split}) {miss['kind']}: {miss['question']}")
                print(f"    wanted {miss['wanted']}\n    said   {miss['said']}")
    print(json.dumps(evaluate.as_json(scores), ensure_ascii=False))


def _torch_judge(arguments: argparse.Namespace) -> Judge:
    import torch

    from edge_assistant.text.tokenizer import Tokenizer
    from edge_assistant_export.reference_model.evaluate import by_checkpoint
    from edge_assistant_export.reference_model.saving import load_checkpoint, load_state

    torch.set_num_threads(arguments.threads)
    if arguments.state:
        return by_checkpoint(load_state(arguments.state), Tokenizer(arguments.tokenizer))
    return by_checkpoint(load_checkpoint(arguments.checkpoint), Tokenizer(arguments.checkpoint / "tokenizer.json"))


if __name__ == "__main__":
    main()
