"""A checkpoint, whatever its layout: its configuration, its tensors by canonical name, its tokenizer.

    with Checkpoint.open("mistralai/Mistral-7B-Instruct-v0.3") as checkpoint:
        checkpoint.config.hidden_size                           4096
        checkpoint.shape("layers.0.k")                          (1024, 4096)
        checkpoint.tensor("layers.0.k", slice(0, 128))          float32 [128, 4096], read when asked for

Opening reads headers only, and checks there that every tensor the configuration calls for is in the files, with the
right shape and a type that can be read, and that no tensor is left over that the model would miss. Weights are
[out, in]; q and k have their rows in Hugging Face's order, in which (j, j + head_dim/2) of a head rotate together.

With an adapter, every tensor is given as the adapter makes it: whoever reads a checkpoint reads the tuned model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from edge_assistant.bundle import Architecture as ModelConfig
from edge_assistant.bundle import AssistantSpec, InstructVersion
from edge_assistant.errors import CheckpointError
from edge_assistant_export.adapter import Adapter
from edge_assistant_export.configuration import problems
from edge_assistant_export.hub import ADAPTER_CONFIG, Location, locate, locate_adapter, read_index
from edge_assistant_export.layouts import LAYOUTS, Layout, LayoutName, expected_shapes
from edge_assistant_export.safetensors_file import Float32, SafetensorsFile
from edge_assistant_export.small_files import read_json, read_licence, read_text
from edge_assistant_export.tied import head_is_embedding, index_lists
from edge_assistant_export.vocab import Vocabulary

__all__ = ["Checkpoint", "ModelConfig"]

ASSISTANT_FILE: Final = "assistant.json"
# Parts of a model that sees, which its language part does without, and buffers that old checkpoints stored.
_IGNORED: Final = (
    "vision_tower.",
    "vision_encoder.",
    "vision_language_adapter.",
    "multi_modal_projector.",
    "patch_merger.",
    "pre_mm_projector_norm.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)
_IGNORED_ENDING: Final = ".rotary_emb.inv_freq"
# Vocabularies of version 3 may name the control tokens of later versions already; their templates do not use them.
_WITHOUT_SYSTEM_PROMPT: Final[Mapping[InstructVersion, InstructVersion]] = {
    "v7": "v3",
    "v7-tekken": "v3-tekken",
    "v11": "v3-tekken",
    "v13": "v3-tekken",
}
# How the language part of a model that sees is set apart in Hugging Face's layout: in what transformers saves, and in
# what other trainers save by the names that its modules have had since 4.52, where the head stands outside.
_TEXT_PREFIXES: Final = (("language_model.", ""), ("model.language_model.", "model."))
"""Each with what it stands in place of."""


class Checkpoint:
    """An open checkpoint; threads may read from it at the same time."""

    def __init__(
        self, location: Location, layout: Layout, adapter: Location | None = None, *, weights: bool = True
    ) -> None:
        """Read the configuration and, with the weights, their headers; see `open`."""
        self.folder = location.folder
        self.source_name = location.name
        self.revision = location.revision
        self._layout = layout
        config_path = self.folder / layout.config_file
        self.config: ModelConfig = layout.read_config(config_path, read_json(config_path))
        self._files: dict[str, SafetensorsFile] = {}
        self.adapter: Adapter | None = None
        try:
            if not weights and index_lists(self.folder / layout.index_file, layout.tensors["lm_head"]):
                self.config = replace(self.config, tied_embedding=False)
            self._stored = self._find_tensors() if weights else {}
            if adapter is not None:
                self.adapter = Adapter(adapter, self.config)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(
        cls,
        path_or_hub_id: str | Path,
        revision: str | None = None,
        adapter: str | Path | None = None,
        adapter_revision: str | None = None,
        *,
        weights: bool = True,
    ) -> Self:
        """Open a folder or fetch a hub id (`organisation/model`), at a revision where it is one of the hub's.

        `adapter` is a LoRA adapter to be merged into the weights, a folder or a hub id too. Without the weights they
        are neither fetched nor looked at: what is known of the model is there, no tensor is.

        Raises:
            HubAccessError: The hub does not give it.
            UnsupportedArchitectureError: It is a model that the exporter does not know.
            AdapterError: The adapter is broken, of a kind that is not merged, or was trained on another model.
            CheckpointError: A file or tensor is missing, truncated, of a wrong shape or of a type that cannot be read.
        """
        tuned = None if adapter is None else locate_adapter(adapter, adapter_revision)
        location = locate(path_or_hub_id, revision, weights=weights)
        return cls(location, _find_layout(location.folder, weights=weights), tuned, weights=weights)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; a second time does nothing."""
        for file in self._files.values():
            file.close()
        if self.adapter is not None:
            self.adapter.close()

    @property
    def marks(self) -> list[tuple[str, int, int]]:
        """Name, size in bytes and time of change of every file of weights: what tells that nothing has changed."""
        return sorted((file.path.name, *file.mark) for file in self._files.values())

    def check_unchanged(self) -> None:
        """Refuse a checkpoint or adapter whose weights were written to since it was opened.

        Raises:
            CheckpointError
        """
        for file in self._files.values():
            file.check_unchanged()
        if self.adapter is not None:
            self.adapter.check_unchanged()

    def not_finite(self, name: str) -> CheckpointError:
        """Return the error of a tensor, by its canonical name, that holds numbers which are not finite."""
        file, stored = self._stored[name]
        mend = "download the file again, or take a checkpoint of before training went astray"
        return CheckpointError(file.path, f"{stored} holds numbers that are not finite: {mend}")

    @property
    def layout(self) -> LayoutName:
        """Which layout was read."""
        return self._layout.name

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor by its canonical name; KeyError where the model has none of it."""
        file, stored = self._stored[name]
        return file.tensors[stored].shape

    def tensor(self, name: str, rows: slice | None = None) -> Float32:
        """Return a tensor, or some rows of it, as float32 in memory of its own; KeyError where there is none.

        Raises:
            CheckpointError: The file has changed since it was opened.
            AdapterError: The adapter holds numbers that are not finite.
        """
        weight = self._read(name, rows)
        return weight if self.adapter is None else self.adapter.merge(name, weight, rows)

    def _read(self, name: str, rows: slice | None) -> Float32:
        """Return rows as the checkpoint's files have them, q and k in Hugging Face's order."""
        file, stored = self._stored[name]
        if not (self._layout.interleaved_rotary and name.endswith((".q", ".k"))):
            return file.read(stored, rows)
        # Rows move within their head only, so whole heads are read.
        head_dim, n_rows = self.config.head_dim, self.shape(name)[0]
        start, stop, _ = (rows or slice(None)).indices(n_rows)
        first = start // head_dim * head_dim
        heads = file.read(stored, slice(first, -(-stop // head_dim) * head_dim))
        pairs = heads.reshape(-1, head_dim // 2, 2, heads.shape[1])
        return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(heads.shape)[start - first : max(start, stop) - first])

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        vocabulary = Vocabulary.read(self.folder)
        if vocabulary.size > self.config.vocab_size:
            raise CheckpointError(
                vocabulary.path,
                f"it has {vocabulary.size} tokens, but the model has rows for {self.config.vocab_size}: "
                f"it belongs to another model",
            )
        return vocabulary

    def tokenizer_json(self) -> bytes:
        """Return the tokenizer as a tokenizer.json, converted from Mistral's own formats where need be.

        Raises:
            CheckpointError: There is no tokenizer, it cannot be read, or it belongs to another model.
        """
        return self._vocabulary.json

    def special_ids(self) -> dict[str, int]:
        """Return the ids of the control tokens by name, without the unnamed ones that fill up the vocabulary."""
        return dict(self._vocabulary.special_ids)

    @property
    def instruct(self) -> InstructVersion | None:
        """The format of a chat, None for a model without one, or with one that the runtime does not know.

        Where there is a chat template, it must be one of Mistral's; a tokenizer_config.json that holds none is a base
        model's. Without either the vocabulary alone says.
        """
        template = self._chat_template()
        if template is not None and "[INST]" not in template:
            return None
        version = self._vocabulary.instruct
        if "[INST]" not in self._vocabulary.special_ids:
            return version if template is None else "v1"
        if template is None or version is None:
            return version
        if "[SYSTEM_PROMPT]" not in template:
            return _WITHOUT_SYSTEM_PROMPT.get(version, version)
        guessed = version in ("v11", "v13") and not self._vocabulary.names_version
        return _version_by_calls(template, version) if guessed else version

    def _chat_template(self) -> str | None:
        """Return the chat template, empty where the tokenizer's configuration has none, None without configuration."""
        for path in (self.folder / "chat_template.jinja", self.folder / "chat_template.json"):
            if path.is_file():
                return read_text(path)
        path = self.folder / "tokenizer_config.json"
        return str(read_json(path).get("chat_template") or "") if path.is_file() else None

    @property
    def assistant(self) -> AssistantSpec | None:
        """What the model was trained to be told, from its assistant.json; None where there is none."""
        path = self.folder / ASSISTANT_FILE
        if not path.is_file():
            return None
        try:
            return TypeAdapter(AssistantSpec).validate_json(path.read_bytes())
        except ValidationError as error:
            raise CheckpointError(path, f"it is no description of an assistant: {problems(error)}") from error

    @property
    def licence(self) -> str | None:
        """What the model card's head says; None where there is no card or it says nothing."""
        return read_licence(self.folder)

    def _find_tensors(self) -> dict[str, tuple[SafetensorsFile, str]]:
        """Return the file and stored name of every tensor by its canonical name, all of them checked."""
        found = dict(self._all_tensors())
        named = partial(_name_in_whole, _text_prefix(found.keys()))
        head, embedding = (named(self._layout.tensors[name]) for name in ("lm_head", "embedding"))
        if self.config.tied_embedding and not head_is_embedding(found, head, embedding):
            self.config = replace(self.config, tied_embedding=False)
        names = {name: named(stored) for name, stored in self._layout.tensor_names(self.config).items()}
        if missing := [stored for stored in names.values() if stored not in found]:
            raise CheckpointError(self.folder, f"{_listed(missing)} missing in its {self._layout.weights}")
        for name, shape in expected_shapes(self.config).items():
            file, stored = found[names[name]], names[name]
            file.check_dtype(stored)
            if (actual := file.tensors[stored].shape) != shape:
                raise CheckpointError(
                    file.path,
                    f"{stored} has the shape {list(actual)}, but {self._layout.config_file} calls for {list(shape)}",
                )
        self._refuse_left_over(found.keys() - names.values(), head)
        return {name: (found[stored], stored) for name, stored in names.items()}

    def _refuse_left_over(self, names: set[str], head: str) -> None:
        """Refuse tensors that the model would miss; a head beside a tied embedding is the embedding once more."""
        left = [name for name in names if not name.startswith(_IGNORED) and not name.endswith(_IGNORED_ENDING)]
        if unknown := sorted(name for name in left if not (name == head and self.config.tied_embedding)):
            raise CheckpointError(
                self.folder, f"{_listed(unknown)} left over: the model is not what {self._layout.config_file} says"
            )

    def _all_tensors(self) -> Iterator[tuple[str, SafetensorsFile]]:
        """Give every stored name with its file: as the index says, or of the one file, or of all of its pattern."""
        index_path = self.folder / self._layout.index_file
        whole = self.folder / self._layout.weights.replace("*", "")
        if not index_path.is_file():
            yield from self._tensors_of([whole] if whole.is_file() else sorted(self.folder.glob(self._layout.weights)))
            return
        shards = read_index(index_path)
        # transformers takes such a file before the index, and a trainer may have left either from an earlier run.
        if whole.is_file() and whole.name not in shards.values():
            problem = f"beside it lies {index_path.name}, which names other files"
            raise CheckpointError(whole, f"{problem}: move the weights away that are not the model's")
        for name, shard in shards.items():
            path = self.folder / shard
            if not path.is_file():
                raise CheckpointError(path, f"it is missing; {index_path.name} says that {name} lies in it")
            file = self._open(path)
            if name not in file.tensors:
                raise CheckpointError(path, f"{name} is missing in it, though {index_path.name} names it")
            yield name, file

    def _tensors_of(self, paths: list[Path]) -> Iterator[tuple[str, SafetensorsFile]]:
        """Give every stored name with its file, each of which only one may hold."""
        first: dict[str, Path] = {}
        for path in paths:
            file = self._open(path)
            for name in file.tensors:
                if name in first:
                    problem = f"it holds {name}, and so does {first[name].name}"
                    raise CheckpointError(path, f"{problem}: move the file away that is not the model's")
                first[name] = path
                yield name, file

    def _open(self, path: Path) -> SafetensorsFile:
        if path.name not in self._files:
            self._files[path.name] = SafetensorsFile(path)
        return self._files[path.name]


def _find_layout(folder: Path, *, weights: bool) -> Layout:
    """Return the first layout of which both configuration and weights are there; the error says what is missing.

    Where weights need not be there, and are of no layout, it is the first that is configured.
    """
    configured = [layout for layout in LAYOUTS if (folder / layout.config_file).is_file()]
    for layout in configured:
        if (folder / layout.index_file).is_file() or any(folder.glob(layout.weights)):
            return layout
    if configured and not weights:
        return configured[0]
    if not configured:
        if (folder / ADAPTER_CONFIG).is_file():
            mend = "name the checkpoint it was trained on, and this folder with --adapter"
            raise CheckpointError(folder, f"it is an adapter, not a checkpoint: {mend}")
        files = " nor ".join(layout.config_file for layout in LAYOUTS)
        raise CheckpointError(folder, f"it is no checkpoint: there is neither {files}")
    wanted = " or ".join(layout.weights for layout in configured)
    mend = ""
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        mend = "; weights that PyTorch pickled (.bin, .pth) are not read: save them as safetensors first"
    raise CheckpointError(folder, f"it has no weights ({wanted}){mend}")


def _text_prefix(found: Collection[str]) -> tuple[str, str]:
    """Return what the names of the language part begin with, in place of what; nothing in a model that does not see."""
    return next((one for one in _TEXT_PREFIXES if any(name.startswith(one[0]) for name in found)), ("", ""))


def _name_in_whole(prefix: tuple[str, str], stored: str) -> str:
    """Return what a tensor of the language part is called in the whole model."""
    return prefix[0] + stored.removeprefix(prefix[1]) if stored.startswith(prefix[1]) else stored


def _version_by_calls(template: str, version: InstructVersion) -> InstructVersion:
    """Return the version in which a chat template writes calls; the one given where it writes none."""
    if "[CALL_ID]" in template:
        return "v11"
    if "[ARGS]" in template:
        return "v13"
    return "v7-tekken" if "[TOOL_CALLS]" in template else version


def _listed(names: list[str]) -> str:
    """Return the first of many names, with their verb."""
    others = f" and {len(names) - 1} more tensors are" if len(names) > 1 else " is"
    return names[0] + others
