from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_assistant import cli, demo
from edge_assistant.bundle import MANIFEST_FILE

HOME_MINI = Path(__file__).parents[1] / "models" / "home-mini"

pytestmark = pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None,
    reason="needs a broker: sudo apt install mosquitto",
)


def test_a_model_that_talks_nonsense_fails_the_demo(tiny_bundle, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle({"max_position_embeddings": 16384}).path
    assert cli.main(["demo", "--model", str(bundle)]) == cli.FAILED
    shown = capsys.readouterr().out
    assert all(question.text in shown for question in demo.QUESTIONS)
    assert shown.count("NOT AS EXPECTED: ") == len(demo.QUESTIONS)


def test_a_server_that_does_not_start_fails_the_demo(tiny_bundle, tmp_path: Path, capfd) -> None:
    broken = Path(shutil.copytree(tiny_bundle().path, tmp_path / "broken"))
    (broken / "tokenizer.json").unlink()
    assert cli.main(["demo", "--model", str(broken)]) == cli.FAILED
    said = capfd.readouterr().err
    assert "tokenizer.json is missing" in said
    assert said.endswith("edge-assistant: error: the server did not start\n")


@pytest.mark.skipif(not (HOME_MINI / MANIFEST_FILE).is_file(), reason="models/home-mini holds no bundle")
def test_the_model_of_the_clone_passes_the_demo_whatever_the_environment_sets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_MQTT__BROKER", "hub.invalid")
    monkeypatch.setenv("EDGE_ASSISTANT_ASSISTANT__NODE", "kitchen")
    assert cli.main(["demo", "--model", str(HOME_MINI)]) == cli.OK
    assert f"{len(demo.QUESTIONS)} of {len(demo.QUESTIONS)} as expected" in capsys.readouterr().out
