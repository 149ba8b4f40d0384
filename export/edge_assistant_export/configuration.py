"""The configuration of a checkpoint, in the words of either layout, as one `ModelConfig`.

What the exporter does not compute (other architectures and activations, other ways to stretch rotary positions than
YaRN, quantised weights, windows of several sizes) is refused here, by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from edge_assistant.bundle import Architecture as ModelConfig
from edge_assistant.bundle import Yarn
from edge_assistant.errors import CheckpointError, UnsupportedArchitectureError

_LENGTH: Final = "max_position_embeddings"
_TIED: Final = "tie_word_embeddings"
# No size of a model is larger, and no number that its positions are computed of.
_LARGEST: Final = 2**31 - 1
_LARGEST_REAL: Final = 1e30
_MODEL_TYPES: Final = {"mistral", "mistral3", "mixtral", "ministral", "ministral3"}
# Where transformers' other configurations do not agree with its MistralConfig.
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "mixtral": {
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    "ministral3": {"rms_norm_eps": 1e-5, "sliding_window": None, "head_dim": 128, "max_position_embeddings": 262_144},
}
# What transformers takes for a Ministral 3 whose file says nothing of its positions.
_MINISTRAL3_ROPE: Final[Mapping[str, Any]] = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16_384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def read_huggingface(path: Path, whole: Mapping[str, Any]) -> ModelConfig:
    """Read config.json; keys that are absent have the defaults of transformers."""
    config = {**whole, **_section(path, whole, "text_config")}
    for model_type in (whole.get("model_type"), config.get("model_type")):
        if not isinstance(model_type, str) or model_type not in _MODEL_TYPES:
            raise UnsupportedArchitectureError(path, f"model_type {model_type!r}")
    mixture = config["model_type"] == "mixtral"
    config = {**_DEFAULTS.get(config["model_type"], {}), **config}
    _refuse(path, config, ("quantization_config", "attention_bias", "mlp_bias"))
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise UnsupportedArchitectureError(path, f"hidden_act {activation!r}")
    rope = _rope(path, config)
    n_heads, hidden_size = _number(path, config, "num_attention_heads"), _number(path, config, "hidden_size")
    return _model_config(
        path,
        n_layers=_number(path, config, "num_hidden_layers"),
        hidden_size=hidden_size,
        n_heads=n_heads,
        n_kv_heads=_number(path, config, "num_key_value_heads"),
        head_dim=config.get("head_dim") or hidden_size // n_heads,
        ffn_size=_number(path, config, "intermediate_size"),
        vocab_size=_number(path, config, "vocab_size"),
        rope_theta=_real(path, rope, "rope_theta", 0.0) or _real(path, config, "rope_theta", 10_000.0),
        norm_eps=_real(path, config, "rms_norm_eps", 1e-6),
        sliding_window=config.get("sliding_window", 4096),
        tied_embedding=whole.get(_TIED, config.get(_TIED, whole["model_type"] == "mistral3")),
        max_positions=_unscaled_positions(
            path, rope, "llama_4_scaling_beta", _number(path, {"max_position_embeddings": 131_072} | config, _LENGTH)
        ),
        full_attention_layers=_full_layers(path, config),
        yarn=_huggingface_yarn(path, rope),
        n_experts=_number(path, config, "num_local_experts") if mixture else 0,
        n_experts_per_token=_number(path, config, "num_experts_per_tok") if mixture else 0,
    )


def _full_layers(path: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the layers that attend to all where others have a window."""
    kinds = config.get("layer_types")
    if kinds is None:
        return ()
    if not isinstance(kinds, list) or len(kinds) != config.get("num_hidden_layers"):
        raise CheckpointError(path, f"layer_types must list num_hidden_layers of them, and it is {kinds!r}")
    if unknown := [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]:
        raise UnsupportedArchitectureError(path, f"a layer of type {unknown[0]!r}")
    if "sliding_attention" in kinds and config.get("sliding_window", 4096) is None:
        raise CheckpointError(path, "layer_types names layers of sliding_attention, and sliding_window is null")
    return tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")


def _rope(path: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is said of rotary positions, under the newer key of transformers or the older one.

    Where both are there transformers 4 and 5 read the older, which transformers 5 itself no longer writes: so one of
    the two is a mistake, and nobody can tell which.
    """
    newer, older = (_section(path, config, key) for key in ("rope_parameters", "rope_scaling"))
    if newer and older and newer != older:
        raise CheckpointError(path, "rope_parameters and rope_scaling differ: remove the one that does not hold")
    rope = newer or older
    if parts := sorted(key for key, value in rope.items() if isinstance(value, Mapping)):
        raise UnsupportedArchitectureError(path, f"rotary positions of their own for {', '.join(parts)}")
    for part in (config, rope):
        if (share := _real(path, part, "partial_rotary_factor", 1.0)) != 1:
            raise UnsupportedArchitectureError(path, f"partial_rotary_factor {share}")
    return rope or (_MINISTRAL3_ROPE if config["model_type"] == "ministral3" else {})


def _huggingface_yarn(path: Path, rope: Mapping[str, Any]) -> Yarn | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "yarn":
        raise UnsupportedArchitectureError(path, f"a rotary embedding of type {kind!r}")
    if rope.get("truncate") is False:
        raise UnsupportedArchitectureError(path, "a rotary embedding of type 'yarn' with truncate false")
    factor = _factor(path, rope)
    weights = [_real(path, rope, key, 0.0) for key in ("mscale", "mscale_all_dim")]
    length, total = (_mscale(factor, weight) for weight in weights)
    return _yarn(
        path,
        factor=factor,
        original_positions=_number(path, rope, "original_max_position_embeddings"),
        beta_fast=_real(path, rope, "beta_fast", 0.0) or 32.0,
        beta_slow=_real(path, rope, "beta_slow", 0.0) or 1.0,
        attention_factor=_real(path, rope, "attention_factor", 0.0)
        or (length / total if all(weights) else _mscale(factor, 1.0)),
    )


def _factor(path: Path, yarn: Mapping[str, Any]) -> float:
    """Return how many times longer the positions become: without it there is no telling what a model was trained on."""
    if yarn.get("factor") is None:
        raise CheckpointError(path, "factor must be a number where rotary positions are stretched, and it is not there")
    return _real(path, yarn, "factor", 1.0)


def _mscale(factor: float, weight: float) -> float:
    """Return how much longer YaRN makes queries and keys: attention over more positions wants to be as sharp."""
    return 1.0 if factor <= 1 else 0.1 * (weight or 1.0) * math.log(factor) + 1.0


def _yarn(path: Path, **values: Any) -> Yarn:
    try:
        return Yarn(**values)
    except ValidationError as error:
        raise CheckpointError(path, f"its rotary positions cannot be stretched so: {problems(error)}") from error


def _unscaled_positions(path: Path, scaling: Mapping[str, Any], key: str, max_positions: int) -> int:
    """Return how far the positions go whose queries are not scaled.

    Ministral 3 lengthens queries from the end of its first training on, by their position; the fused attention has no
    such factor, so a bundle ends there.
    """
    if not scaling.get(key):
        return max_positions
    return min(max_positions, _number(path, scaling, "original_max_position_embeddings"))


def read_mistral(path: Path, params: Mapping[str, Any]) -> ModelConfig:
    """Read params.json, whose keys are those of mistral-inference's TransformerArgs.

    It seldom says how long a context may be: 32,768 is what every model without that key was trained for.
    """
    _refuse(path, params, ("quantization", "q_lora_rank", "lora", "use_biases"))
    if (model_type := params.get("model_type", "transformer")) != "transformer":
        raise UnsupportedArchitectureError(path, f"model_type {model_type!r}")
    if (activation := params.get("activation", "silu")) != "silu":
        raise UnsupportedArchitectureError(path, f"activation {activation!r}")
    n_layers = _number(path, params, "n_layers")
    window, full_layers = _windows(path, params.get("sliding_window") or params.get("_sliding_window"), n_layers)
    length = next((key for key in (_LENGTH, "max_seq_len") if params.get(key)), None)
    max_positions = 32_768 if length is None else _number(path, params, length)
    moe = _section(path, params, "moe")
    return _model_config(
        path,
        n_layers=n_layers,
        hidden_size=_number(path, params, "dim"),
        n_heads=_number(path, params, "n_heads"),
        n_kv_heads=_number(path, params, "n_kv_heads"),
        head_dim=_number(path, params, "head_dim"),
        ffn_size=_number(path, params, "hidden_dim"),
        vocab_size=_number(path, params, "vocab_size"),
        # Mistral 7B v0.1, the one with a window, came before the key and before its later default.
        rope_theta=_real(path, params, "rope_theta", 0.0) or (1_000_000.0 if window is None else 10_000.0),
        norm_eps=_real(path, params, "norm_eps", 1e-5),
        sliding_window=window,
        tied_embedding=params.get("tied_embeddings", False),
        max_positions=_unscaled_positions(path, _section(path, params, "llama_4_scaling"), "beta", max_positions),
        full_attention_layers=full_layers,
        yarn=_mistral_yarn(path, _section(path, params, "yarn")),
        n_experts=_number(path, moe, "num_experts") if moe else 0,
        n_experts_per_token=_number(path, moe, "num_experts_per_tok") if moe else 0,
    )


def _windows(path: Path, window: object, n_layers: int) -> tuple[int | None, tuple[int, ...]]:
    """Return the window and the layers without one; a list is the pattern of some layers, repeated over all."""
    if window is None or isinstance(window, int):
        return window, ()
    if not isinstance(window, list) or not all(size is None or isinstance(size, int) for size in window):
        raise CheckpointError(path, f"sliding_window must be a number of tokens or a list of them, not {window!r}")
    sizes = {size for size in window if size is not None}
    if len(sizes) > 1:
        raise UnsupportedArchitectureError(path, f"a sliding_window of several sizes, {window},")
    if not window or n_layers % len(window):
        raise CheckpointError(path, f"a sliding_window of {len(window)} layers does not fill {n_layers} of them")
    if not sizes:
        return None, ()
    return sizes.pop(), tuple(i for i in range(n_layers) if window[i % len(window)] is None)


def _mistral_yarn(path: Path, yarn: Mapping[str, Any]) -> Yarn | None:
    if not yarn:
        return None
    factor = _factor(path, yarn)
    return _yarn(
        path,
        factor=factor,
        original_positions=_number(path, yarn, "original_max_position_embeddings"),
        beta_fast=_real(path, yarn, "beta", 32.0),
        beta_slow=_real(path, yarn, "alpha", 1.0),
        attention_factor=_mscale(factor, 1.0) if yarn.get("apply_scale", True) else 1.0,
    )


def _refuse(path: Path, config: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if config.get(key):
            raise UnsupportedArchitectureError(path, f"{key!r} in the configuration")


def _number(path: Path, config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST:
        raise CheckpointError(path, f"{key} must be a whole number above 0 and below 2**31, and it is {value!r}")
    return value


def _real(path: Path, config: Mapping[str, Any], key: str, default: float) -> float:
    """Return a number that may be absent or null."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= _LARGEST_REAL:
        raise CheckpointError(path, f"{key} must be a number, and it is {value!r}")
    return float(value)


def _section(path: Path, config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under a key, an empty one where it is absent or null."""
    value = config.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise CheckpointError(path, f"{key} must be an object, and it is {value!r}")
    return value or {}


def _model_config(path: Path, **values: Any) -> ModelConfig:
    """Return the configuration; its own checks say what does not hold."""
    try:
        family: Literal["mistral", "mixtral"] = "mixtral" if values["n_experts"] else "mistral"
        return ModelConfig(family=family, **values)
    except ValidationError as error:
        raise CheckpointError(path, f"it describes no model: {problems(error)}") from error


def problems(error: ValidationError) -> str:
    """Return in one line what is wrong with which key."""
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'all'}: {one['msg']}" for one in error.errors())
