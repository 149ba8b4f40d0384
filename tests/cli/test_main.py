from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_assistant import cli, config
from edge_assistant.cli.parser import build_parser

HEAVY = {"numpy", "onnxruntime", "pydantic", "pydantic_settings", "tokenizers", "yaml", "aiomqtt", "paho", "asyncio"}


def commands() -> list[list[str]]:
    """Every command that can be run, as the words that name it."""

    def below(parser: object, words: list[str]) -> list[list[str]]:
        groups = getattr(parser, "_subparsers", None)
        if groups is None:
            return [words]
        choices = groups._group_actions[0].choices
        return [found for name, child in choices.items() for found in below(child, [*words, name])]

    return below(build_parser(), [])


@pytest.mark.parametrize("words", [[], *commands()], ids=" ".join)
def test_help_imports_no_library_and_shows_an_example(words: list[str]) -> None:
    script = (
        "import sys; from edge_assistant.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    asked = subprocess.run([sys.executable, "-c", script, *words, "--help"], capture_output=True, text=True, check=True)
    assert not HEAVY & set(asked.stderr.split())
    assert f"usage: edge-assistant{''.join(f' {word}' for word in words)}" in asked.stdout


def test_the_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert "0  done    1  the work failed    2  wrong usage or configuration    130  interrupted" in shown
    assert (cli.OK, cli.FAILED, cli.USAGE, cli.INTERRUPTED) == (0, 1, 2, 130)


def test_config_init_prints_a_file_that_config_check_accepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config", "init"]) == 0
    file = tmp_path / "c.toml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert cli.main(["config", "check", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: the settings hold\n"


def test_config_show_names_the_variable_that_set_a_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__THREADS", "3")
    assert cli.main(["config", "show"]) == 0
    assert "threads = 3  # EDGE_ASSISTANT_ENGINE__THREADS\n" in capsys.readouterr().out


def test_config_never_shows_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret, file = tmp_path / "password", tmp_path / "c.toml"
    secret.write_text("geheim\n", encoding="utf-8")
    secret.chmod(0o600)
    file.write_text(f'[mqtt]\nbroker = "hub"\nusername = "ada"\npassword_file = "{secret}"\n', encoding="utf-8")
    assert cli.main(["config", "check", "--config", str(file)]) == 0
    assert cli.main(["config", "show", "--config", str(file)]) == 0
    shown = capsys.readouterr()
    assert str(secret) in shown.out
    assert "geheim" not in shown.out + shown.err


def test_config_check_reads_the_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[mqtt]\nbroker = "hub"\nca_file = "nowhere.pem"\n', encoding="utf-8")
    assert cli.main(["config", "check", "--config", str(file)]) == cli.USAGE
    assert "mqtt.ca_file is 'nowhere.pem', expected: a CA" in capsys.readouterr().err


def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[engine]\nthread = 1\n", encoding="utf-8")
    assert cli.main(["config", "check", "--config", str(file)]) == cli.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err == f"edge-assistant: error: {file}: there is no setting engine.thread; did you mean engine.threads?\n"
    )


def test_a_model_that_is_not_there_is_exit_code_1_and_says_where_it_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "verify", "no-such-model"]) == cli.FAILED
    said = capsys.readouterr().err
    assert said.startswith("edge-assistant: error: no model 'no-such-model'")
    assert str(config.state_directory() / "models" / "no-such-model") in said


def test_ctrl_c_while_a_library_is_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in C makes an ImportError of it."""

    def interrupted(name: str) -> object:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(cli, "_command", interrupted)
    assert cli.main(["ask", "are you there?"]) == cli.INTERRUPTED


@pytest.mark.parametrize("option", ["--model", "--adapter", "--state", "--schema", "--config"])
def test_a_file_that_is_not_there_is_exit_code_1_but_for_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    code = cli.main(["ask", option, str(tmp_path / "missing"), "are you there?"])
    assert code == (cli.USAGE if option == "--config" else cli.FAILED)
    assert str(tmp_path / "missing") in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_an_extra_that_is_not_installed_is_named(command: str) -> None:
    script = (
        "import sys; sys.modules['aiomqtt'] = None; from edge_assistant.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    asked = subprocess.run([sys.executable, "-c", script, command], capture_output=True, text=True, check=False)
    assert asked.returncode == cli.FAILED
    assert asked.stderr.startswith("edge-assistant: error: the package aiomqtt is not installed")
    assert asked.stderr.endswith("`pip install --editable '.[mqtt]'`\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_no_error(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edge_assistant.cli", "config", "init"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, env=environment)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_was_closed_before_it_began_is_an_empty_one(tiny_bundle, closed: str) -> None:
    command = f'"{sys.executable}" -m edge_assistant.cli ask --model "{tiny_bundle().path}" {closed}'
    asked = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert (asked.stdout, asked.stderr) == ("", "")
