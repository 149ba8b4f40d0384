from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant import cli
from edge_assistant.assistant import Answer
from edge_assistant.bundle import Bundle
from edge_assistant.cli.ask import DryRun
from edge_assistant.engine import Engine
from edge_assistant.engine.speculate import Pace
from edge_assistant.home.registry import Device, Home

STATE = """\
kitchen:
  ceiling light: {domain: light, state: "on", brightness: 40}
"""


@pytest.fixture(scope="module")
def talker(tiny_checkpoint, export_bundle, tmp_path_factory) -> Path:
    """A model that answers nonsense, but at once, and in text; the tools' descriptions need much context."""
    checkpoint = tmp_path_factory.mktemp("talker") / "checkpoint"
    shutil.copytree(tiny_checkpoint(max_position_embeddings=16384), checkpoint)
    vocabulary = json.loads((checkpoint / "tokenizer.json").read_bytes())["model"]["vocab"]
    weights = load_file(checkpoint / "model.safetensors")
    weights["lm_head.weight"][vocabulary["[TOOL_CALLS]"]] = 0
    save_file(weights, checkpoint / "model.safetensors")
    return export_bundle(checkpoint, bits=32, instruct="v7-tekken", lora_rank=4).path


@pytest.fixture
def words(talker: Path, tmp_path: Path) -> list[str]:
    state = tmp_path / "home.yaml"
    state.write_text(STATE, encoding="utf-8")
    return ["ask", "--model", str(talker), "--state", str(state)]


def test_json_is_one_answer_a_line_as_mqtt_gives_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--json", "is the light on?", "and now?"]) == cli.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert [Answer.from_json(line).to_json() for line in lines] == lines


def test_questions_come_from_standard_input_one_a_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("is the light on?\n\nand now?\n"))
    assert cli.main([*words, "--json"]) == cli.OK
    piped = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert cli.main([*words, "--json", "is the light on?", "and now?"]) == cli.OK
    assert piped == [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]


def test_a_stream_is_the_answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "is the light on?"]) == cli.OK
    whole = capsys.readouterr().out
    assert cli.main([*words, "--stream", "is the light on?"]) == cli.OK
    assert capsys.readouterr().out.strip() == whole.strip()


def test_a_question_that_does_not_fit_is_an_error_and_the_next_one_is_answered(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "x" * 20_000, "is the light on?"]) == cli.FAILED
    said = capsys.readouterr()
    assert said.err.startswith("edge-assistant: error: ")
    assert said.out.strip()
    assert cli.main([*words, "--json", "x" * 20_000]) == cli.FAILED
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["error"]["code"]) == ("error", "context_overflow")


LAMP = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "on": {"type": "boolean"}},
    "required": ["name", "on"],
    "additionalProperties": False,
}


@pytest.fixture
def lamp(tmp_path: Path) -> Path:
    path = tmp_path / "lamp.json"
    path.write_text(json.dumps(LAMP, indent=4), encoding="utf-8")
    return path


def test_an_answer_fits_the_schema(words: list[str], lamp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--schema", str(lamp), "is the light on?", "and now?"]) == cli.OK
    for line in capsys.readouterr().out.splitlines():
        jsonschema.validate(json.loads(line), LAMP)
    assert cli.main([*words, "--schema", str(lamp), "--json", "is the light on?"]) == cli.OK
    answer = Answer.from_json(capsys.readouterr().out)
    jsonschema.validate(json.loads(answer.text), LAMP)
    assert (answer.calls, answer.finish_reason) == ((), "stop")


def test_an_answer_that_was_cut_is_an_error_and_not_printed(
    words: list[str], lamp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_ASSISTANT__MAX_TOKENS", "10")
    assert cli.main([*words, "--schema", str(lamp), "is the light on?"]) == cli.FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert "no whole JSON yet after 10 tokens" in said.err
    assert cli.main([*words, "--schema", str(lamp), "--json", "is the light on?"]) == cli.FAILED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "incomplete"


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ('{"type": "integer", "minimum": 1, "maximum": 0}', "nsatisfiable"),
        ('{"not": {"type": "string"}}', 'Unimplemented keys: ["not"]'),
    ],
)
def test_a_schema_that_cannot_be_held_to_is_an_error_and_nothing_is_generated(
    words: list[str],
    tmp_path: Path,
    schema: str,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Engine, "generate", lambda *_, **__: pytest.fail("it was asked"))
    (tmp_path / "lamp.json").write_text(schema, encoding="utf-8")
    assert cli.main([*words, "--schema", str(tmp_path / "lamp.json"), "is the light on?"]) == cli.FAILED
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [None, b"\xff", b"[]", b"{", b"[" * 100_000, b'{"enum": ["' + b"x" * 20_000 + b'"]}']
)
def test_a_file_that_holds_no_schema_is_named(
    words: list[str], tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lamp.json"
    if content is not None:
        path.write_bytes(content)
    assert cli.main([*words, "--schema", str(path), "is the light on?"]) == cli.FAILED
    assert f"{path} holds no JSON schema" in capsys.readouterr().err


def test_a_home_that_cannot_be_read_is_named(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home.yaml").write_text("kitchen: [", encoding="utf-8")
    assert cli.main([*words, "is the light on?"]) == cli.FAILED
    assert str(tmp_path / "home.yaml") in capsys.readouterr().err


def test_a_chat_remembers_what_was_said_and_ends_with_its_input(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("is the light on?\nis the light on?\n"))
    assert cli.main(["chat", *words[1:]]) == cli.OK
    chatted = capsys.readouterr().out
    assert cli.main([*words, "is the light on?", "is the light on?"]) == cli.OK
    asked = capsys.readouterr().out
    assert asked == 2 * asked[: len(asked) // 2]
    assert chatted != asked


def test_one_ctrl_c_ends_a_chat_that_waits_for_a_question(talker: Path) -> None:
    ours, its = os.openpty()
    command = [sys.executable, "-m", "edge_assistant.cli", "chat", "--model", str(talker)]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=subprocess.PIPE) as process:
        os.close(its)
        assert os.read(ours, 2) == b"> "
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == cli.INTERRUPTED
        finally:
            process.kill()
            os.close(ours)
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_input_that_is_not_text_is_named(
    words: list[str], command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"is the light on?\nk\xfcche\n"), "utf-8"))
    assert cli.main([command, *words[1:]]) == cli.FAILED
    assert "standard input is not utf-8: it holds the byte 0xfc" in capsys.readouterr().err


def test_an_adapter_is_that_of_the_option_else_of_the_settings_that_name_the_model(
    talker: Path, lora_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(lora_file(tmp_path / f"{seed}.npz", Bundle.open(talker), seed)) for seed in range(2)]

    def answer(*options: str) -> str:
        assert cli.main(["ask", *options, "is the light on?"]) == cli.OK
        return capsys.readouterr().out

    named = ("--model", str(talker))
    without, *tuned = answer(*named), *(answer(*named, "--adapter", file) for file in files)
    assert len({without, *tuned}) == 3
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__NAME", str(talker))
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__ADAPTER", files[0])
    assert [answer(), answer("--adapter", files[1]), answer(*named)] == [tuned[0], tuned[1], without]
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__ADAPTERS", json.dumps({"kitchen": files[1]}))
    assert answer("--adapter", "kitchen") == tuned[1]
    assert cli.main(["ask", *named, "--adapter", "kitchen", "is the light on?"]) == cli.FAILED
    assert "kitchen is no adapter that can be read" in capsys.readouterr().err


def test_an_adapter_of_another_bundle_is_an_error(
    words: list[str], tiny_bundle, lora_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lora_file(tmp_path / "other.npz", tiny_bundle(lora_rank=4))
    assert cli.main([*words, "--adapter", str(file), "is the light on?"]) == cli.FAILED
    assert "other.npz was made for other weights" in capsys.readouterr().err


MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.skipif(not (MODELS / "home-mini-moe" / "model.onnx").is_file(), reason="models/ holds no bundles")
def test_a_draft_answers_as_the_model_alone_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home.yaml").write_text(STATE, encoding="utf-8")
    monkeypatch.setattr(Pace, "to_draft", lambda self, most, found, others=0: most if self.draft_cost < 1 else 0)
    monkeypatch.setattr(Pace, "to_read", lambda self, unread, left, most: True)
    said = []
    for draft in ("", "home-mini"):
        monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__DRAFT", draft)
        words = ["--model", "home-mini-moe", "--state", str(tmp_path / "home.yaml"), "--json"]
        assert cli.main(["ask", *words, "is the light on?", "turn off the ceiling light"]) == cli.OK
        said.append([Answer.from_json(line) for line in capsys.readouterr().out.splitlines()])
    alone, drafted = said
    assert [answer.text for answer in drafted] == [answer.text for answer in alone]
    assert [answer.calls for answer in drafted] == [answer.calls for answer in alone]
    accepted = [sum(answer.usage.accepted_prediction_tokens for answer in answers) for answers in said]
    assert accepted[1] > accepted[0]


def test_a_draft_of_another_vocabulary_is_an_error(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__DRAFT", "home-mini")
    assert cli.main([*words, "is the light on?"]) == cli.FAILED
    assert "home-mini cannot be the draft of" in capsys.readouterr().err
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__DRAFT", "nowhere")
    assert cli.main([*words, "is the light on?"]) == cli.FAILED
    assert "no model 'nowhere'" in capsys.readouterr().err


async def test_a_dry_run_invents_no_state_that_the_device_does_not_report() -> None:
    home = Home([Device("home", "shopping list", "todo", properties={"state": 3}), Device("hall", "lamp", "light")])
    actuator = DryRun(home, quiet=True)
    todo, lamp = home
    assert await actuator.set(todo, "add", "milk")
    assert await actuator.set(lamp, "state", "on")
    assert [dict(device.properties) for device in home] == [{"state": 3}, {"state": "on"}]
