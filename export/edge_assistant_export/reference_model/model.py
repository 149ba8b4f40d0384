# mypy: disable-error-code="misc"
"""The model in torch, for training: Mistral's architecture with the parameter names of the Hugging Face layout.

RMS norms before, grouped-query attention with rotary positions (halves convention), SwiGLU or a mixture of such experts
(`mixture.py`), tied embedding. Who sees whom and at which position comes from outside, so that packs of questions can
be trained (`packing.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_assistant_export.reference_model.mixture import Mixture


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes, by the names of a Hugging Face config."""

    vocab_size: int = 3072
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 768
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 1024
    num_local_experts: int = 0
    """0 for a dense model."""
    num_experts_per_tok: int = 0

    def config(self) -> dict[str, Any]:
        """Return the document that goes to `config.json`."""
        mixture = self.num_local_experts > 0
        sizes = {key: size for key, size in asdict(self).items() if mixture or "experts" not in key}
        return {
            "architectures": ["MixtralForCausalLM" if mixture else "MistralForCausalLM"],
            "model_type": "mixtral" if mixture else "mistral",
            **sizes,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "sliding_window": None,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "torch_dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 11,
        }


class Attention(nn.Module):
    """Grouped-query attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        hidden, inner = shape.hidden_size, shape.num_attention_heads * shape.head_dim
        self.q_proj = nn.Linear(hidden, inner, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """`x` [batch, seq, hidden]; `cos`, `sin` [batch, 1, seq, head_dim]; `bias` [batch, 1, seq, seq]."""
        batch, seq, _ = x.shape
        q = _rotated(self.q_proj(x).view(batch, seq, self.heads, self.head_dim).transpose(1, 2), cos, sin)
        k = _rotated(self.k_proj(x).view(batch, seq, self.kv_heads, self.head_dim).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(batch, seq, self.kv_heads, self.head_dim).transpose(1, 2)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, seq, -1))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, seq, hidden]."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then feed-forward, each behind its norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        if shape.num_local_experts:
            self.block_sparse_moe = Mixture(shape)
        else:
            self.mlp = FeedForward(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """As `Attention.forward`."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, bias)
        feed_forward = self.block_sparse_moe if hasattr(self, "block_sparse_moe") else self.mlp
        return x + feed_forward(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """What the Hugging Face layout calls `model`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)


class Mistral(nn.Module):
    """The whole model; `state_dict()` has the names of a MistralForCausalLM with tied embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        frequencies = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim)
        self.register_buffer("frequencies", torch.cat([frequencies, frequencies]), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                narrow = name.endswith(("o_proj.weight", "down_proj.weight", "w2.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * shape.num_hidden_layers) ** 0.5 if narrow else 0.02)

    @property
    def quantized(self) -> list[Tensor]:
        """The matrices that a bundle holds in integers: all but the routers."""
        routers = {id(mixture.gate.weight) for mixture in self.mixtures}
        return [weight for weight in self.parameters() if weight.ndim == 2 and id(weight) not in routers]

    @property
    def mixtures(self) -> list[Mixture]:
        """The mixtures of experts, one a layer; none in a dense model."""
        return [module for module in self.modules() if isinstance(module, Mixture)]

    def forward(self, ids: Tensor, positions: Tensor, seen: Tensor, predicted: Tensor) -> Tensor:
        """Return logits [batch, n, vocab] at the `predicted` positions [batch, n].

        `ids` and `positions` [batch, seq], `seen` bool [batch, seq, seq] (query, key).
        """
        angles = positions[:, None, :, None].to(torch.float32) * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        bias = torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -torch.inf)[:, None]
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, cos, sin, bias)
        x = torch.gather(x, 1, predicted[..., None].expand(-1, -1, x.shape[-1]))
        return functional.linear(self.model.norm(x), self.model.embed_tokens.weight)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], -1) * sin.to(x.dtype)
