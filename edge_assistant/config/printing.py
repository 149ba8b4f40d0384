"""The settings as text: the template of `config init`, and what `config show` says holds and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.config.keys import unit_of
from edge_assistant.config.sections import SECTIONS
from edge_assistant.config.toml import to_toml
from edge_assistant.config.variables import variable_name

if TYPE_CHECKING:
    from edge_assistant.config.settings import Settings


def template() -> str:
    """Return the commented TOML of `config init`: every key with its meaning, unit and default."""
    lines = [
        "# edge-assistant's settings. A line of # and a key shows its default, or an example where it is unset:",
        f"# take the # away to change it. A variable goes before this file: {variable_name('engine', 'threads')}=4",
    ]
    for section, model in SECTIONS.items():
        lines += ["", f"# {model.__doc__}", f"[{section}]"]
        for key, field in model.model_fields.items():
            unset = field.default is None
            lines.append(f"# {field.description} ({unit_of(field)}{', unset' if unset else ''})")
            lines.append(f"#{key} = {to_toml((field.examples or [None])[0] if unset else field.default)}")
    return "\n".join(lines) + "\n"


def show(settings: Settings) -> str:
    """Return every setting that has a value as TOML, each line with where the value comes from."""
    lines: list[str] = []
    for section in SECTIONS:
        lines.append(f"[{section}]")
        values = getattr(settings, section).model_dump(mode="json", exclude_none=True)
        lines += [f"{key} = {to_toml(value)}  # {settings.origin(section, key)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"
