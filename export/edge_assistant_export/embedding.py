"""What a board must know of a sentence encoder: the manifest of a BERT-like checkpoint, without its files.

How its vectors are made is in the files of sentence-transformers, where the checkpoint has them:

    modules.json                       Transformer, Pooling and, perhaps, Normalize
    1_Pooling/config.json              which hidden states become the vector
    sentence_bert_config.json          the longest text, and whether it is lowered first
    config_sentence_transformers.json  what stands before a question, and before a text to be found
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from edge_assistant.bundle import (
    FORMAT_VERSION,
    GRAPH_FILE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    EmbeddingManifest,
    EncoderArchitecture,
    Pooling,
)
from edge_assistant.errors import CheckpointError, UnsupportedArchitectureError
from edge_assistant_export import __version__
from edge_assistant_export.pretrained import Pretrained, describing
from edge_assistant_export.recipe import check_choice
from edge_assistant_export.small_files import read_json, read_json_list

EMBEDDING_FILES: Final = frozenset({MANIFEST_FILE, GRAPH_FILE, TOKENIZER_FILE, "config.json"})
"""All that the folder of an embedding bundle may hold."""

_FAMILIES: Final = ("bert", "distilbert", "roberta", "xlm-roberta")
_MODULES_FILE: Final = "modules.json"
_LENGTH_FILE: Final = "sentence_bert_config.json"
_PROMPTS_FILE: Final = "config_sentence_transformers.json"
_OTHER_NAMES: Final = {"distilbert": ("n_layers", "dim", "n_heads")}
_POOLINGS: Final[Mapping[str, Pooling]] = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


@dataclass(frozen=True, slots=True)
class EmbeddingRecipe:
    """The choices of an export; what is None is decided by the checkpoint.

    Raises:
        RecipeError: No quantiser knows the bits, or no board the pooling.
    """

    bits: Literal[8, 32] = 8
    pooling: Pooling | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        check_choice("bits", self.bits, (8, 32))
        check_choice("pooling", self.pooling, (None, *get_args(Pooling)))


def open_embedding(path_or_hub_id: str | Path, revision: str | None = None) -> Pretrained:
    """Find the checkpoint of a sentence encoder; see `Pretrained.open`."""
    also = (_MODULES_FILE, _LENGTH_FILE, _PROMPTS_FILE, "*_Pooling/config.json")
    return Pretrained.open(path_or_hub_id, revision, _FAMILIES, also)


def lowers(checkpoint: Pretrained) -> bool:
    """Say whether sentence-transformers lowers a text before the tokenizer sees it."""
    return bool(checkpoint.optional_json(_LENGTH_FILE).get("do_lower_case"))


def describe_embedding(checkpoint: Pretrained, recipe: EmbeddingRecipe, name: str) -> EmbeddingManifest:
    """Return the manifest of the bundle to be, with no files and nothing measured in it yet.

    Raises:
        UnsupportedArchitectureError: Its vectors are made in a way that no board knows.
        CheckpointError: A key is missing, or how its vectors are made.
    """
    pooling, normalize = _modules(checkpoint, recipe)
    prompts = checkpoint.optional_json(_PROMPTS_FILE)
    with describing(checkpoint.folder / "config.json"):
        architecture = _architecture(checkpoint.family, checkpoint.config)
        pad_id = checkpoint.config.get("pad_token_id", 1 if "roberta" in checkpoint.family else 0)
        return EmbeddingManifest(
            format_version=FORMAT_VERSION,
            kind="embedding",
            name=name,
            created_by=f"edge-assistant-export {__version__}",
            architecture=architecture,
            bits=recipe.bits,
            embedding_size=architecture.hidden_size,
            pooling=pooling,
            normalize=normalize,
            max_length=_max_length(checkpoint, pad_id),
            pad_id=pad_id,
            query_prompt=_prompt(prompts, recipe.query_prompt, "query"),
            passage_prompt=_prompt(prompts, recipe.passage_prompt, "passage", "document"),
            licence=recipe.licence or checkpoint.licence,
            source=checkpoint.source,
            files={},
            quality={},
        )


def _architecture(family: Any, config: Mapping[str, Any]) -> EncoderArchitecture:
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    n_layers, hidden_size, n_heads = (config[name] for name in _OTHER_NAMES.get(family, names))
    return EncoderArchitecture(
        family=family, n_layers=n_layers, hidden_size=hidden_size, n_heads=n_heads, vocab_size=config["vocab_size"]
    )


def _max_length(checkpoint: Pretrained, pad_id: int) -> int:
    """Return the longest text: what was trained on, and never more than there are positions."""
    positions: int = checkpoint.config["max_position_embeddings"]
    if "roberta" in checkpoint.family:
        positions -= pad_id + 1  # its positions are counted from there
    asked = checkpoint.optional_json(_LENGTH_FILE).get("max_seq_length")
    asked = asked or checkpoint.optional_json("tokenizer_config.json").get("model_max_length")
    return positions if asked is None else int(min(positions, asked))


def _modules(checkpoint: Pretrained, recipe: EmbeddingRecipe) -> tuple[Pooling, bool]:
    """Return how hidden states become a vector, and whether it is divided by its length."""
    path = checkpoint.folder / _MODULES_FILE
    if not path.is_file():
        if recipe.pooling is None:
            problem = f"it has no {_MODULES_FILE}, which says how its vectors are made: name it with --pooling mean|cls"
            raise CheckpointError(checkpoint.folder, problem)
        return recipe.pooling, True
    with describing(path):
        modules = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in read_json_list(path)}
    kinds = list(modules)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnsupportedArchitectureError(path, " + ".join(kinds), "Transformer + Pooling, and Normalize after them")
    if modules["Transformer"]:
        raise CheckpointError(path, f"its Transformer lies in {modules['Transformer']}/: move its files up beside it")
    said = _pooling(checkpoint.folder / modules["Pooling"] / "config.json")
    return recipe.pooling or said, "Normalize" in modules


def _pooling(path: Path) -> Pooling:
    said = read_json(path)
    modes = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _POOLINGS or not said.get("include_prompt", True):
        found = " + ".join(modes) if said.get("include_prompt", True) else "include_prompt false"
        raise UnsupportedArchitectureError(path, found or "no pooling", ", or ".join(_POOLINGS))
    return _POOLINGS[modes[0]]


def _prompt(said: Mapping[str, Any], chosen: str | None, *names: str) -> str:
    """Return the prompt that was chosen, or the first that the checkpoint has under one of the names."""
    if chosen is not None:
        return chosen
    prompts = said.get("prompts") or {}
    return str(next((prompts[name] for name in (*names, said.get("default_prompt_name")) if name in prompts), ""))
