# mypy: disable-error-code="misc"
"""A mixture of experts in torch, as Mixtral has it (arXiv 2401.04088), with the names of the Hugging Face layout.

`upcycled` makes one of a trained dense model: its feed-forward is cut into as many parts as a token has experts, every
part is copied until there are enough, and the copies that stand together share a row of the router. So the router can
only choose whole sets of parts at first, and the mixture is the dense model to the last bit but rounding; training
then tells the copies apart (sparse upcycling, arXiv 2212.05055; cut experts, arXiv 2410.07524).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from edge_assistant_export.reference_model.model import FeedForward, Mistral, Shape


class Expert(nn.Module):
    """SwiGLU, by Mixtral's names."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.w1 = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.w2 = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)
        self.w3 = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [n, hidden]."""
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Mixture(nn.Module):
    """A router and its experts."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.chosen_experts = shape.num_experts_per_tok
        self.gate = nn.Linear(shape.hidden_size, shape.num_local_experts, bias=False)
        self.experts = nn.ModuleList(Expert(shape) for _ in range(shape.num_local_experts))
        self.imbalance = torch.zeros(())
        """Of the last pass: 1 where every expert is chosen as often as the others, and more where not."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, seq, hidden]. The router is computed in float32, as a board does."""
        flat = x.flatten(0, 1)
        with torch.autocast(x.device.type, enabled=False):
            logits = functional.linear(flat.float(), self.gate.weight.float())
        best, chosen = logits.topk(self.chosen_experts)
        shares = best.softmax(-1)
        self.imbalance = _imbalance(logits, chosen)
        mixed = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            tokens, rank = (chosen == number).nonzero(as_tuple=True)
            said = expert(flat[tokens]) * shares[tokens, rank, None]
            mixed = mixed.index_add(0, tokens, said.to(mixed.dtype))
        return mixed.view_as(x)


def _imbalance(logits: Tensor, chosen: Tensor) -> Tensor:
    """Return the balancing loss of Switch Transformers (arXiv 2101.03961, equation 4), for more than one choice."""
    n_experts = logits.shape[-1]
    often = functional.one_hot(chosen, n_experts).float().mean((0, 1))
    likely = logits.softmax(-1).mean(0)
    return n_experts * (often * likely).sum()


def upcycled(dense: Mistral, n_experts: int, n_experts_per_token: int) -> Mistral:
    """Return a mixture that computes what the dense model does, `n_experts_per_token` parts of it at a time.

    Raises:
        ValueError: The parts or the copies do not come out even.
    """
    parts = n_experts_per_token
    if n_experts % parts or dense.shape.intermediate_size % parts:
        problem = f"{n_experts} experts of {dense.shape.intermediate_size} / {parts} cannot be made of the dense layers"
        raise ValueError(problem)
    shape = replace(
        dense.shape,
        intermediate_size=dense.shape.intermediate_size // parts,
        num_local_experts=n_experts,
        num_experts_per_tok=parts,
    )
    sparse = type(dense)(shape)
    # Not strict: what is missing are the mixtures, filled below.
    sparse.load_state_dict({name: w for name, w in dense.state_dict().items() if ".mlp." not in name}, strict=False)
    with torch.no_grad():
        for layer, whole in zip(sparse.model.layers, dense.model.layers, strict=True):
            _fill(layer.block_sparse_moe, whole.mlp, parts)
    return sparse


def _fill(mixture: Mixture, whole: FeedForward, parts: int) -> None:
    """Give each expert its part; its share in the sum is 1 / parts, so the last product is that much larger."""
    cuts = [matrix.weight.chunk(parts) for matrix in (whole.gate_proj, whole.up_proj)]
    downs = whole.down_proj.weight.chunk(parts, dim=1)
    rows = mixture.gate.weight[::parts].repeat_interleave(parts, 0)
    mixture.gate.weight.copy_(rows)
    for number, expert in enumerate(mixture.experts):
        part = number % parts
        expert.w1.weight.copy_(cuts[0][part])
        expert.w3.weight.copy_(cuts[1][part])
        expert.w2.weight.copy_(downs[part] * parts)
