"""What several commands begin with: the settings that the arguments name, and the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.bundle import SEEN_FILE, Bundle, find_model
from edge_assistant.config import Settings, state_directory
from edge_assistant.device.prepare import Prepared, prepare
from edge_assistant.text.chat import ChatModel

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping
    from pathlib import Path


def settings_and_model(args: Namespace) -> tuple[Settings, Path]:
    """Read `--config`, and find the bundle that `--model`, else the settings, name."""
    settings = Settings.load(args.config)
    return settings, find_model(args.model or settings.model.name, settings.model_folders)


def open_bundle(path: Path) -> Bundle:
    """Open the bundle in a folder; files that were hashed before and have not changed are not hashed again."""
    return Bundle.open(path, state_directory() / SEEN_FILE)


def prepared_bundle(path: Path, settings: Settings) -> tuple[Bundle, Prepared]:
    """Open the bundle in a folder, and find how it is to be loaded on this device."""
    bundle = open_bundle(path)
    return bundle, prepare(bundle, settings, state_directory())


def load_model(
    args: Namespace, settings: Settings, path: Path, adapters: Mapping[str, Path] | None = None
) -> ChatModel:
    """Load the bundle in a folder as was measured to be best here, with the adapter and the draft that are named.

    `adapters` are those that questions may name.
    """
    bundle, prepared = prepared_bundle(path, settings)
    return ChatModel.load(
        bundle,
        prepared.settings,
        state_directory(),
        adapter_file(args, settings),
        prepacked=prepared.prepacked,
        row_cost=prepared.row_cost,
        adapters=adapters,
        draft=open_bundle(find_model(draft, settings.model_folders)) if (draft := settings.engine.draft) else None,
    )


def adapter_file(args: Namespace, settings: Settings) -> Path | None:
    """Return the adapter that `--adapter` names, by its file or as the settings call it, else that of the settings.

    What the settings say belongs to the model of the settings.
    """
    named: Path | None = args.adapter
    if named is None:
        return None if args.model else settings.model.adapter
    return named_adapters(args, settings).get(str(named), named)


def named_adapters(args: Namespace, settings: Settings) -> Mapping[str, Path]:
    """Return the adapters that questions may name; those of the settings belong to the model of the settings."""
    return {} if args.model else settings.model.adapters
