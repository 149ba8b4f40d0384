"""`tune` and `warm` as commands, and that the commands that answer use what they leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_assistant import cli, config

MODEL = str(Path(__file__).parents[2] / "models" / "home-mini")


def tuned(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert cli.main(["tune", "--model", MODEL, "--json"]) == cli.OK
    said = capsys.readouterr()
    assert said.err.count("\n") > 5  # its progress
    found = json.loads(said.out)
    assert isinstance(found, dict)
    return found


def test_tune_prints_what_it_found_and_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = tuned(capsys)
    assert set(found) == {
        "model", "cpu", "saved", "threads", "spinning", "prefill_chunk", "prepacked", "batch_cost",
        "decode_tokens_per_s", "prefill_tokens_per_s", "skipped",
    }  # fmt: skip
    kept = json.loads(Path(str(found["saved"])).read_bytes())
    assert kept["tuning"]["threads"] == found["threads"]
    assert Path(str(found["saved"])).is_relative_to(config.state_directory())


def test_warm_prints_what_it_saves(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["warm", "--model", MODEL]) == cli.OK
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert Path(lines["saved"].strip()).is_relative_to(config.state_directory())
    with_them, without = (float(lines[f"anonymous {way}"].removesuffix(" MB")) for way in ("with", "without"))
    assert with_them < without


def test_ask_answers_alike_with_and_without(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="edge_assistant")
    question = ["ask", "--model", MODEL, "are you there?"]
    assert cli.main(question) == cli.OK
    answer = capsys.readouterr().out
    assert not caplog.messages
    assert cli.main(["warm", "--model", MODEL, "--json"]) == cli.OK
    assert Path(json.loads(capsys.readouterr().out)["saved"]).is_dir()
    tuned(capsys)
    caplog.clear()
    assert cli.main(question) == cli.OK
    assert capsys.readouterr().out == answer
    assert [message.split(":")[0] for message in caplog.messages][:1] == ["tuned for this device"]


def test_ask_goes_on_with_a_broken_file(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    Path(str(tuned(capsys)["saved"])).write_text("{", encoding="utf-8")
    caplog.clear()
    assert cli.main(["ask", "--model", MODEL, "are you there?"]) == cli.OK
    assert "run `edge-assistant tune` again" in caplog.text


def test_a_model_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("tune", "warm"):
        assert cli.main([command, "--model", "no-such-model"]) == cli.FAILED
        assert capsys.readouterr().err.startswith("edge-assistant: error: no model")
