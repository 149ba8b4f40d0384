"""The settings as one whole: which source goes before which, and what is refused while they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from edge_assistant.config.explain import explain, explain_json
from edge_assistant.config.places import clone_models, config_files, state_directory
from edge_assistant.config.sections import Tables
from edge_assistant.config.toml import read_toml
from edge_assistant.config.unknown import dotted, refuse_unknown
from edge_assistant.config.variables import ENV_PREFIX, variable_of, variables


class Settings(Tables, BaseSettings):
    """All settings, frozen. Keyword arguments stand for the file: the environment overrides them."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )

    _file: Path | None = PrivateAttr(None)
    _in_file: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings' own
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the environment above the file."""
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path | None = None) -> Settings:
        """Read the file (the first of `config_files()` where none is named), then the environment.

        Raises ConfigFileError, UnknownKeyError or InvalidValueError.
        """
        if path is None:
            path = next((file for file in config_files() if file.is_file()), None)
        in_file = {} if path is None else read_toml(path)
        in_file.pop("board", None)
        refuse_unknown(dotted(in_file), str(path))
        for variable, key in variables().items():
            refuse_unknown([key], variable)
        try:
            settings = cls(**in_file)
        except ValidationError as error:
            raise explain(error, path) from error
        except SettingsError as error:
            raise explain_json(error) from error
        settings._file, settings._in_file = path, in_file
        return settings

    @property
    def source(self) -> Path | None:
        """The file that was read, None where there was none."""
        return self._file

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """Where a model's name is looked up, in order."""
        return (*self.model.folders, state_directory() / "models", *clone_models())

    def origin(self, section: str, key: str) -> str:
        """Return where a value comes from: a variable's name, the file's path, or `default`."""
        in_file = str(self._file) if key in self._in_file.get(section, {}) else "default"
        return variable_of(section, key) or in_file
