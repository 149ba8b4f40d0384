"""What a LoRA adapter's adapter_config.json says, by the rules of PEFT, which wrote it.

    {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"],
     "rank_pattern": {"layers.0.self_attn.q_proj": 4}, ...}

    config.rank("model.layers.0.self_attn.q_proj")       4
    config.scaling("model.layers.0.self_attn.q_proj")    8.0
    config.targets("model.layers.0.mlp.up_proj")         False

Modules have the names they had in the model that was trained. PEFT has many variants of LoRA, each switched on by a
key of its own, and gains more: so a key that is neither read here nor known to say nothing of the merged weights must
be off, or the adapter is refused by that key's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, PositiveInt, TypeAdapter, ValidationError

from edge_assistant.errors import AdapterError, UnsupportedAdapterError

# Of how it was trained, or detail of a variant that another key switches on.
_WITHOUT_EFFECT: Final = frozenset(
    {
        "auto_mapping",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
# Other ways to begin (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) change the base weights too, and the adapter lacks those.
_BEGINNINGS: Final = (True, False, None, "gaussian", "eva", "orthogonal")
# What PEFT takes for a Mistral model where nothing is said.
_DEFAULT_TARGETS: Final = ("q_proj", "v_proj")
_ALL_LINEAR: Final = "all-linear"
_EMBEDDINGS: Final = ("embed_tokens", "lm_head")

_Number = TypeVar("_Number", int, float)


_OBJECT: Final[TypeAdapter[dict[str, Any]]] = TypeAdapter(dict[str, Any])


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from error
    return text


_Expression = Annotated[str, AfterValidator(_expression)]


class LoraConfig(BaseModel):
    """The keys that are read."""

    model_config = ConfigDict(frozen=True, strict=True)

    peft_type: str
    base_model_name_or_path: str | None = None
    r: PositiveInt
    lora_alpha: FiniteFloat
    use_rslora: bool = False
    rank_pattern: dict[_Expression, PositiveInt] | None = None
    alpha_pattern: dict[_Expression, FiniteFloat] | None = None
    target_modules: list[str] | _Expression | None = None
    exclude_modules: list[str] | _Expression | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[_Expression] | _Expression | None = None

    @classmethod
    def read(cls, path: Path) -> LoraConfig:
        """Read adapter_config.json.

        Raises:
            AdapterError: It is missing, no JSON, or a key is missing or of the wrong kind.
            UnsupportedAdapterError: It is of another method, or of a variant of LoRA that is not computed here.
        """
        try:
            content = _OBJECT.validate_json(path.read_bytes())
            # Before its keys are looked at: those of another method are others.
            _refuse_variants(path, content)
            return cls.model_validate(content)
        except FileNotFoundError as error:
            raise AdapterError(path, "it is missing: name the folder of an adapter that PEFT saved") from error
        except (OSError, ValidationError) as error:
            raise AdapterError(path, f"it is no configuration of an adapter: {_problem(error)}") from error

    def rank(self, module: str) -> int:
        """Return the rank of a module's factors."""
        return _of_pattern(self.rank_pattern, module, self.r)

    def scaling(self, module: str | None = None) -> float:
        """Return what a module's B A is multiplied by: alpha / rank, or alpha / sqrt(rank) (arXiv 2312.03732).

        Without a module, what holds for those that no pattern fits.
        """
        rank, alpha = self.r, self.lora_alpha
        if module is not None:
            rank, alpha = self.rank(module), _of_pattern(self.alpha_pattern, module, alpha)
        return alpha / (rank**0.5 if self.use_rslora else rank)

    def targets(self, module: str) -> bool:
        """Return whether the adapter has factors for a matrix: a list names ends of names, a text is an expression."""
        if self.exclude_modules and _names(self.exclude_modules, module):
            return False
        if self.target_modules == _ALL_LINEAR:
            return not _names(_EMBEDDINGS, module)
        targets = _DEFAULT_TARGETS if self.target_modules is None else self.target_modules
        return _names(targets, module) and (isinstance(targets, str) or self._transforms(module))

    def _transforms(self, module: str) -> bool:
        """Return whether the module's layer is among those that are transformed; all are where none is named."""
        layers = [self.layers_to_transform] if isinstance(self.layers_to_transform, int) else self.layers_to_transform
        if not layers:
            return True
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern
        for pattern in patterns or [r"[^.]*"]:
            if found := re.match(rf"(?:^|.*?\.)(?:{pattern})\.(\d+)\.", module):
                return int(found[1]) in layers
        return False


def _refuse_variants(path: Path, content: Mapping[str, Any]) -> None:
    if (method := content.get("peft_type", "LORA")) != "LORA":
        raise UnsupportedAdapterError(path, f"peft_type {method!r}")
    if (bias := content.get("bias")) not in (None, "none"):
        raise UnsupportedAdapterError(path, f"bias {bias!r}")
    if (beginning := content.get("init_lora_weights")) not in _BEGINNINGS:
        raise UnsupportedAdapterError(path, f"init_lora_weights {beginning!r}, which changes the base weights too,")
    known = LoraConfig.model_fields.keys() | _WITHOUT_EFFECT | {"bias", "init_lora_weights"}
    for key, value in content.items():
        if value and key not in known:
            raise UnsupportedAdapterError(path, f"{key} {value!r}")


def _of_pattern(patterns: Mapping[str, _Number] | None, module: str, default: _Number) -> _Number:
    """Return what the first pattern says that is the module's name, or the end of it after a dot."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _names(names: Sequence[str] | str, module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _problem(error: Exception) -> str:
    """Return what is wrong with which key, once for every kind of value that it could be."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = []
    for each in error.errors():
        key = ".".join(part for part in map(str, each["loc"]) if "[" not in part)  # without the names of kinds
        found.append(f"{key}: {each['msg']}" if key else each["msg"])
    return "; ".join(found)
