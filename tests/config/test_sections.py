from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edge_assistant.config import Settings
from edge_assistant.config.keys import unit_of
from edge_assistant.config.sections import SECTIONS

KEYS = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]
BOARDS = Path(__file__).parents[2] / "firmware_configs"


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_has_a_default_a_description_and_a_unit(section: str, key: str) -> None:
    field = SECTIONS[section].model_fields[key]
    assert not field.is_required()
    assert field.description
    assert unit_of(field)


@pytest.mark.parametrize("file", sorted(BOARDS.glob("*.toml")), ids=lambda file: file.stem)
def test_a_board_s_file_holds_every_section(file: Path) -> None:
    assert set(tomllib.loads(file.read_text(encoding="utf-8"))) >= {"board", "model", "engine", "assistant", "mqtt"}
    assert Settings.load(file).source == file
