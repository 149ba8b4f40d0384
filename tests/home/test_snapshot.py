"""A home from a file, and what is said of a file that holds none."""

from __future__ import annotations

import json

import pytest

from edge_assistant.errors import HomeFileError
from edge_assistant.home.registry import describe
from edge_assistant.home.snapshot import read_home

YAML = """\
kitchen:
  ceiling light: {domain: light, state: on, brightness: 40}
hall:
  front door: {domain: lock, state: LOCKED, floor: ground floor, aliases: [main door]}
  window: {domain: binary_sensor, device_class: window, state: "on"}
"""
PROMPT = """\
kitchen:
- light: ceiling light, on, brightness 40 %
hall (ground floor):
- lock: front door, locked
hall:
- window: window, open"""


def test_yaml_and_json_make_the_same_home(tmp_path):
    import yaml

    (tmp_path / "home.yaml").write_text(YAML)
    (tmp_path / "home.json").write_text(json.dumps(yaml.safe_load(YAML), indent="\t"))
    assert describe(read_home(tmp_path / "home.yaml")) == PROMPT
    assert list(read_home(tmp_path / "home.json")) == list(read_home(tmp_path / "home.yaml"))
    assert read_home(tmp_path / "home.yaml").get("hall", "front door").aliases == ("main door",)


def test_an_empty_file_is_an_empty_home(tmp_path):
    (tmp_path / "home.yaml").write_text("")
    assert len(read_home(tmp_path / "home.yaml")) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kitchen: {lamp: {state: on}}", r"kitchen\.lamp\.domain: is missing"),
        ("kitchen: {lamp: {domain: 7}}", r"kitchen\.lamp\.domain: has to be text, not 7"),
        ("kitchen: {lamp: {domain: light, state: [1]}}", r"kitchen\.lamp\.state: .* not \[1\]"),
        ("kitchen: {lamp: {domain: light, aliases: spot}}", r"kitchen\.lamp\.aliases: has to be a list"),
        ("kitchen: {lamp: on}", r"kitchen\.lamp: has to be a table"),
        ("kitchen: lamp", r"kitchen: has to be a table"),
        ("- kitchen", r"has to be a table of names"),
        ("on: {lamp: {domain: light}}", r"True is no name; put it in quotes"),
        ("kitchen: [", r"neither YAML nor JSON"),
        ("[" * 3000, r"nested too deep"),
        ("kitchen: {lamp: {domain: light, brightness: .nan}}", r"kitchen\.lamp\.brightness: .* not nan"),
    ],
)
def test_a_fault_is_named_with_its_file_and_place(tmp_path, text, words):
    path = tmp_path / "home.yaml"
    path.write_text(text)
    with pytest.raises(HomeFileError, match=words) as caught:
        read_home(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(HomeFileError, match=r"nothing\.yaml: No such file"):
        read_home(tmp_path / "nothing.yaml")
