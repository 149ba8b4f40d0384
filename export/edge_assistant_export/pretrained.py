"""A checkpoint as transformers saves it, of a model that optimum exports: its small files, read without torch.

What cannot become a bundle is refused here, before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tokenizers import Tokenizer, normalizers

from edge_assistant.bundle import TOKENIZER_FILE, Origin
from edge_assistant.errors import CheckpointError, UnsupportedArchitectureError
from edge_assistant_export.configuration import problems
from edge_assistant_export.hub import locate
from edge_assistant_export.small_files import read_json, read_licence


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A folder with config.json, model*.safetensors and tokenizer.json."""

    folder: Path
    source: Origin
    config: Mapping[str, Any]

    @classmethod
    def open(
        cls, path_or_hub_id: str | Path, revision: str | None, families: Sequence[str], also: Sequence[str]
    ) -> Pretrained:
        """Find a checkpoint of one of the families (`model_type`); `also` are small files that its export reads.

        Raises:
            HubAccessError: The hub does not give it.
            UnsupportedArchitectureError: It is of another family.
            CheckpointError: A file is missing or cannot be read.
        """
        location = locate(path_or_hub_id, revision, also=also)
        folder = location.folder
        if not (folder / "config.json").is_file():
            raise CheckpointError(folder, "it is no checkpoint: there is no config.json")
        config = read_json(folder / "config.json")
        if config.get("model_type") not in families:
            found = f"model_type {config.get('model_type')!r}"
            raise UnsupportedArchitectureError(folder / "config.json", found, f"the families {', '.join(families)}")
        if not any(folder.glob("model*.safetensors")):
            mend = "weights that PyTorch pickled are not read: save them as safetensors first"
            raise CheckpointError(folder, f"it has no weights (model*.safetensors); {mend}")
        if not (folder / TOKENIZER_FILE).is_file():
            mend = "AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers writes one"
            raise CheckpointError(folder, f"it has no tokenizer ({TOKENIZER_FILE}); {mend}")
        return cls(folder, Origin(location.name, location.revision), config)

    @property
    def family(self) -> Any:
        """What config.json calls the architecture."""
        return self.config["model_type"]

    @property
    def licence(self) -> str | None:
        """What the model card says; None where it says nothing."""
        return read_licence(self.folder)

    def optional_json(self, name: str) -> Mapping[str, Any]:
        """Return what a file holds that need not be there.

        Raises:
            CheckpointError: It is there, and cannot be read.
        """
        path = self.folder / name
        return read_json(path) if path.is_file() else {}

    def tokenizer(self, vocab_size: int, *, lower_case: bool = False) -> Tokenizer:
        """Return the tokenizer, which will neither cut nor pad by itself; `lower_case` makes it lower a text first.

        Raises:
            CheckpointError: It cannot be read, or has more tokens than the model's `vocab_size`.
        """
        path = self.folder / TOKENIZER_FILE
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(path, f"it is no tokenizer ({error}); download it again") from error
        if (size := 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)) > vocab_size:
            problem = f"it has {size} tokens, but the model has rows for {vocab_size}: it belongs to another model"
            raise CheckpointError(path, problem)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if lower_case:
            rest = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
        return tokenizer


@contextmanager
def describing(path: Path) -> Iterator[None]:
    """Name the file of the configuration whose keys are missing, or of whose values a manifest cannot be made.

    Raises:
        CheckpointError
    """
    try:
        yield
    except KeyError as error:
        raise CheckpointError(path, f"it has no {error.args[0]}") from error
    except ValidationError as error:
        raise CheckpointError(path, f"it describes no model: {problems(error)}") from error
    except (TypeError, ArithmeticError) as error:
        raise CheckpointError(path, f"it describes no model: {error}") from error
