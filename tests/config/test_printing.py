from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from edge_assistant.config import Settings, show, template
from edge_assistant.config.sections import SECTIONS

KEYS = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]


def test_template_with_every_key_uncommented_is_the_defaults(write: Callable[[str], Path]) -> None:
    text = template()
    assert Settings.load(write(text)).model_dump() == Settings().model_dump()
    table = tomllib.loads(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert [(section, key) for section in table for key in table[section]] == KEYS
    for section in ("model", "engine", "mqtt"):
        unset = {key for key, value in getattr(Settings(), section) if value is None}
        table[section] = {key: value for key, value in table[section].items() if key not in unset}
    assert Settings(**table).model_dump() == Settings().model_dump()


def test_show_is_toml_with_an_origin_on_every_line(write: Callable[[str], Path]) -> None:
    file = write('[mqtt]\nbroker = "hub"\nusername = "lamp"\n[home.devices.hall."the lamp"]\ndomain = "light"\n')
    shown = show(Settings.load(file))
    assert f'username = "lamp"  # {file}' in shown
    assert Settings(**tomllib.loads(shown)).model_dump() == Settings.load(file).model_dump()
