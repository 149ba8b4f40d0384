"""Training: seeded, resumable, with a decay that can be started from any saved state.

The learning rate rises for `WARMUP` steps and then stays (warmup-stable-decay); `decay` takes a saved state and
brings the rate down to nothing over so many tokens. State lies in one folder: `state.pt` (replaced atomically),
`log.jsonl` (a line every few steps). SIGTERM and SIGINT save and stop; starting again goes on where it stopped.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.quantize import dequantize, quantize
from edge_assistant_export.reference_model.model import Mistral, Shape
from edge_assistant_export.reference_model.muon import Muon
from edge_assistant_export.reference_model.packing import Batch, batch
from edge_assistant_export.reference_model.probe import exact_matches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

WARMUP = 100
BALANCE = 0.003
"""What the imbalance of a layer's experts weighs beside the loss."""
INT4_BLOCK = 32
"""Weights to a scale in the committed bundle."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is made of."""

    seed: int = 1
    tokens_per_step: int = 4096
    learning_rate: float = 2e-3
    save_seconds: float = 300.0
    log_steps: int = 20
    probe_steps: int = 250


class Run:
    """A model with its optimisers, somewhere along its training."""

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: Tokenizer,
        folder: Path,
        *,
        model: Mistral | None = None,
        device: str = "cpu",
        bfloat16: bool = False,
        int4: bool = False,
    ) -> None:
        """`folder` gets the state and the log; `model` is what to start with, by default random weights.

        With `bfloat16` products are computed in it; weights and sums stay float32. With `int4` losses are those of the
        weights as a bundle holds them.
        """
        torch.manual_seed(recipe.seed)
        self.recipe, self.tokenizer, self.folder, self.device = recipe, tokenizer, folder, device
        self.model = (model or Mistral(Shape())).to(device)
        self.precision = torch.bfloat16 if bfloat16 else torch.float32
        self.int4 = int4
        embedding = self.model.model.embed_tokens.weight
        matrices = [weight for weight in self.model.quantized if weight is not embedding]
        chosen = {id(weight) for weight in matrices}
        others = [weight for weight in self.model.parameters() if id(weight) not in chosen]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=recipe.learning_rate, precision=self.precision),
            torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
        )
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.decay_started: int | None = None
        """The tokens at which the decay of the learning rate began, None before it."""
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.decay_started = state["decay_started"]

    def save(self) -> None:
        """Write `state.pt`; a power cut leaves the old one."""
        state = {
            "shape": asdict(self.model.shape),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "decay_started": self.decay_started,
        }
        partial = self.folder / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "state.pt")

    def log(self, **facts: Any) -> None:
        """Append a line to `log.jsonl`."""
        line = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds), **facts}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def take_step(self, rate: float) -> tuple[float, float]:
        """Take one step at a share of the learning rate; return the loss on answers and on all."""
        data = batch(self.tokenizer, self.recipe.seed, self.step, self.recipe.tokens_per_step)
        weights = torch.from_numpy(data.weights).to(self.device)
        with int4_weights(self.model) if self.int4 else nullcontext():
            losses = self._losses(data)
            loss = (losses * weights).sum() / weights.sum()
            imbalance = sum(mixture.imbalance for mixture in self.model.mixtures)
            (loss + BALANCE * imbalance).backward()
        torch.nn.utils.clip_grad_norm_(self.optimizers[1].param_groups[0]["params"], 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * rate
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += data.ids.size
        return float(losses.detach()[weights == 1].mean()), float(loss.detach())

    def _losses(self, data: Batch) -> Tensor:
        ids, positions, seen, predicted, targets = (
            torch.from_numpy(array).to(self.device)
            for array in (data.ids, data.positions, data.seen, data.predicted, data.targets)
        )
        with torch.autocast(self.device, self.precision, enabled=self.precision != torch.float32):
            logits = self.model(ids, positions, seen, predicted)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


@contextmanager
def int4_weights(model: Mistral) -> Iterator[None]:
    """Give the model, for one pass, the weights that its bundle will compute with, by the exporter's own rounding.

    Gradients go to the weights that were rounded, as if they had not been (straight-through, arXiv 1308.3432).
    """
    matrices = model.quantized
    own = [weight.detach().clone() for weight in matrices]

    def rounded(weight: Tensor) -> Tensor:
        packed = quantize(weight.cpu().numpy(), 4, INT4_BLOCK)
        return torch.from_numpy(dequantize(packed, 4, weight.shape[1]))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for weight, values in zip(matrices, pool.map(rounded, own), strict=True):
            weight.data.copy_(values)
    try:
        yield
    finally:
        for weight, values in zip(matrices, own, strict=True):
            weight.data.copy_(values)


def train(run: Run, *, until_tokens: int | None = None, decay_tokens: int | None = None) -> None:
    """Train until stopped, until so many tokens, or with `decay_tokens` down to a learning rate of nothing."""
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    if decay_tokens and run.decay_started is None:
        run.decay_started = run.tokens
    started = run.decay_started or 0
    end = started + decay_tokens if decay_tokens else until_tokens
    answers: list[float] = []
    saved = clock = time.monotonic()
    while not stop.is_set() and (end is None or run.tokens < end):
        rate = min(1.0, (run.step + 1) / WARMUP)
        if decay_tokens:
            rate *= 1 - (run.tokens - started) / decay_tokens
        answers.append(run.take_step(rate)[0])
        now = time.monotonic()
        run.seconds, clock = run.seconds + now - clock, now
        if run.step % run.recipe.log_steps == 0:
            run.log(answer_loss=round(float(np.mean(answers)), 4), rate=round(rate, 4))
            answers.clear()
        if run.step % run.recipe.probe_steps == 0:
            _probe(run)
        if now - saved > run.recipe.save_seconds:
            run.save()
            saved = now
    run.save()
    _probe(run)


def _probe(run: Run) -> None:
    right, asked = exact_matches(run.model, run.tokenizer, seed=0, packs=12)
    share = round(sum(right.values()) / sum(asked.values()), 4)
    run.log(exact_match=share, by_kind={kind: f"{right[kind]}/{asked[kind]}" for kind in sorted(asked)})
