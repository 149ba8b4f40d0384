# mypy: disable-error-code="misc, untyped-decorator"
"""Muon: momentum whose matrix is brought to (nearly) orthogonal before it is taken as the step.

The same rule as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")` (K. Jordan 2024; Liu et al. 2025), but with matrices
of one shape together and a choice of precision: torch's own works in bfloat16, which a CPU without it emulates
(13 seconds a step instead of 0.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


def orthogonal(gradient: Tensor) -> Tensor:
    """Return `[n, rows, columns]` matrices with singular values near 1, by Newton-Schulz steps."""
    tall = gradient.shape[-2] > gradient.shape[-1]
    x = gradient.mT if tall else gradient
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices only; norms and embeddings belong to AdamW."""

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Take one step; `closure` is not supported."""
        if closure is not None:
            raise NotImplementedError("Muon takes no closure")
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                self._step(group, shape, parameters)

    def _step(self, group: dict[str, Any], shape: torch.Size, parameters: list[Tensor]) -> None:
        smoothed = []
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            state = self.state[parameter]
            buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
            buffer.lerp_(gradient, 1 - group["momentum"])
            smoothed.append(gradient.lerp(buffer, group["momentum"]))
        updates = orthogonal(torch.stack(smoothed).to(self.precision))
        scale = group["lr"] * 0.2 * max(shape) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-scale)
