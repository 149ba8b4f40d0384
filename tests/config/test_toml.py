from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.config.toml import read_toml, to_toml
from edge_assistant.errors import ConfigFileError


@given(
    st.recursive(
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
)
def test_what_is_written_as_toml_is_read_back(value: object) -> None:
    assert tomllib.loads(f"key = {to_toml(value)}") == {"key": value}


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000, "2020-13-45", '"'], ids=["deep", "long", "date", "open"])
def test_what_cannot_be_read_is_an_error_that_names_the_file(tmp_path: Path, value: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"key = {value}")
    with pytest.raises(ConfigFileError, match=str(file)):
        read_toml(file)
