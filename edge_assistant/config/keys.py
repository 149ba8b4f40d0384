"""What a table and its keys are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def key(default: Any, description: str, unit: str, **limits: Any) -> Any:
    """Make a field of a section: its default, what it is for, what it is counted in, and its limits."""
    return Field(default, description=description, json_schema_extra={"unit": unit}, **limits)


def optional(example: str, description: str, unit: str) -> Any:
    """Make a field that is unset by default; the template shows the example."""
    return Field(None, description=description, json_schema_extra={"unit": unit}, examples=[example])


def unit_of(field: FieldInfo) -> str:
    """Return what a field is counted in."""
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""
