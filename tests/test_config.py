from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant import config
from edge_assistant.config import Settings
from edge_assistant.errors import ConfigFileError, InvalidValueError, SecretFileError, UnknownKeyError

BOARDS = Path(__file__).parents[1] / "firmware_configs"
KEYS = [(section, key) for section in Settings.model_fields for key in config._model(section).model_fields]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(config.ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_has_a_default_a_description_and_a_unit(section: str, key: str) -> None:
    field = config._model(section).model_fields[key]
    assert not field.is_required()
    assert field.description
    assert config._unit(field)


def test_environment_goes_before_file_and_file_before_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "c.toml", "[engine]\nthreads = 2\nprefill_chunk = 64\n")
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__THREADS", "3")
    settings = Settings.load(file)
    assert (settings.engine.threads, settings.engine.prefill_chunk, settings.engine.spinning) == (3, 64, False)
    assert settings.origin("engine", "threads") == "EDGE_ASSISTANT_ENGINE__THREADS"
    assert settings.origin("engine", "prefill_chunk") == str(file)
    assert settings.origin("engine", "spinning") == "default"


def test_the_file_of_the_user_is_found(tmp_path: Path) -> None:
    (tmp_path / "config" / "edge-assistant").mkdir(parents=True)
    file = write(tmp_path / "config" / "edge-assistant" / "config.toml", '[assistant]\nnode = "attic"\n')
    settings = Settings.load()
    assert (settings.assistant.node, settings.source) == ("attic", file)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().engine.threads = 4  # type: ignore[misc]


def test_template_with_every_key_uncommented_is_the_defaults(tmp_path: Path) -> None:
    text = config.template()
    assert Settings.load(write(tmp_path / "as-is.toml", text)).model_dump() == Settings().model_dump()
    table = tomllib.loads(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert [(section, key) for section in table for key in table[section]] == KEYS
    for section in ("model", "engine", "mqtt"):
        unset = {key for key, value in getattr(Settings(), section) if value is None}
        table[section] = {key: value for key, value in table[section].items() if key not in unset}
    assert Settings(**table).model_dump() == Settings().model_dump()


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("[engine]\nthread = 4", UnknownKeyError, "engine.thread; did you mean engine.threads?"),
        ("threads = 4", UnknownKeyError, "threads; did you mean engine.threads?"),
        ("[engin]\nthreads = 4", UnknownKeyError, "no setting engin"),
        (
            '[home.devices.hall.lamp]\ndomain = "light"\nalias = ["x"]',
            UnknownKeyError,
            "did you mean home.devices.hall.lamp.aliases?",
        ),
        ('[engine]\nthreads = "many"', InvalidValueError, "engine.threads is 'many', expected: a valid integer"),
        (
            "[engine]\nkv_cache_bytes = 0",
            InvalidValueError,
            "engine.kv_cache_bytes is 0, expected: greater than or equal to 1",
        ),
        ("engine = 4", InvalidValueError, "engine is 4, expected: a table"),
        (
            "[home.devices.hall.lamp]\nunit = 'x'",
            InvalidValueError,
            "home.devices.hall.lamp.domain is None, expected: a value",
        ),
        ('[mqtt]\nbroker = "mqtt://user:secret@host"', InvalidValueError, "expected: a host name or address alone"),
        ("[assistant]\ntemperature = 0.0005", InvalidValueError, "expected: 0, or at least 0.001"),
        ('[assistant]\nnode = "a/b"', InvalidValueError, "expected: one level of a topic"),
        ('[mqtt]\nbase = "home/#"', InvalidValueError, "expected: a topic without wildcards"),
        ('[model]\nadapters = {"a/b" = "x.npz"}', InvalidValueError, "expected: a name of 1 to 64 letters, digits"),
        (
            f"[model]\nadapters = {{{', '.join(f'a{n} = {chr(34)}x{chr(34)}' for n in range(9))}}}",
            InvalidValueError,
            "at most 8",
        ),
        ("[engine\n", ConfigFileError, "not TOML"),
        ('[model]\nadapter = "~nobody-is-called-so/x"', InvalidValueError, "expected: a path; nobody here is called"),
        ('[mqtt]\nbase = "assistant/home"', InvalidValueError, "expected: a topic that is neither"),
        ('[mqtt]\nbase = "$SYS"', InvalidValueError, "expected: a topic that is neither"),
        ('[mqtt]\nbroker = "localhost:1884"', InvalidValueError, "the port is mqtt.port"),
        ('[mqtt]\nbroker = "localhost"\nport = 0', InvalidValueError, "mqtt.port is 0, expected: the port of the"),
        ('[mqtt]\npassword_file = "x"', InvalidValueError, "expected: to stand beside mqtt.username"),
        ('[mqtt]\nkey_file = "x"', InvalidValueError, "expected: to stand beside mqtt.cert_file"),
        ("[mqtt]\nreconnect_min_seconds = inf", InvalidValueError, "mqtt.reconnect_min_seconds is inf"),
        *(
            (f"[home.devices.{names}]\ndomain = 'light'", InvalidValueError, "expected: a name on one line")
            for names in ('hall."a/b"', '"a+".lamp', 'hall."#"', 'hall." _"', 'hall."a\\nb"')
        ),
    ],
)
def test_a_mistake_in_the_file_names_file_key_and_mend(
    tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    file = write(tmp_path / "c.toml", text)
    with pytest.raises(error) as raised:
        Settings.load(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("EDGE_ASSISTANT_ENGINE__THREAD", "4", UnknownKeyError),
        ("EDGE_ASSISTANT_ENGIN__THREADS", "4", UnknownKeyError),
        ("EDGE_ASSISTANT_ENGINE__THREADS", "many", InvalidValueError),
        ("EDGE_ASSISTANT_ENGINE", "4", InvalidValueError),
        ("EDGE_ASSISTANT_ENGINE", '{"threads": "many"}', InvalidValueError),
        ("EDGE_ASSISTANT_ENGINE", '{"thread": 4}', UnknownKeyError),
        ("EDGE_ASSISTANT_MODEL__FOLDERS", "/models", InvalidValueError),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, error: type[Exception]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(error, match=f"^{name}: "):
        Settings.load()


def test_a_section_from_the_environment_is_known_as_the_origin_of_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE", '{"threads": 3}')
    settings = Settings.load()
    assert settings.engine.threads == 3
    assert settings.origin("engine", "threads") == "EDGE_ASSISTANT_ENGINE"
    assert settings.origin("engine", "queue") == "default"


@pytest.mark.parametrize("login", ["user:geheim", "user:geheim/a", "user:a/geheim@b", "geheim"])
@pytest.mark.parametrize("scheme", ["mqtt://", ""])
def test_the_login_of_a_wrong_address_is_not_shown(tmp_path: Path, scheme: str, login: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"'{scheme}\*\*\*@host'") as raised:
        Settings.load(write(tmp_path / "c.toml", f'[mqtt]\nbroker = "{scheme}{login}@host"'))
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize("file", sorted(BOARDS.glob("*.toml")), ids=lambda file: file.stem)
def test_a_board_s_file_holds_every_section(file: Path) -> None:
    assert set(tomllib.loads(file.read_text(encoding="utf-8"))) >= {"board", "model", "engine", "assistant", "mqtt"}
    assert Settings.load(file).source == file


def test_the_table_of_the_hardware_is_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "c.toml", '[board]\ntitle = "x"\n[engine]\nthreads = 2\n')
    assert Settings.load(file).engine.threads == 2
    monkeypatch.setenv("EDGE_ASSISTANT_BOARD__TITLE", "x")
    with pytest.raises(UnknownKeyError, match=r"no setting board\.title"):
        Settings.load(file)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match="No such file"):
        Settings.load(tmp_path / "missing.toml")


def test_a_list_and_a_table_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__FOLDERS", '["~/models"]')
    monkeypatch.setenv("EDGE_ASSISTANT_HOME__DEVICES", '{"hall": {"lamp": {"domain": "light"}}}')
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__ADAPTERS", '{"kitchen": "~/kitchen.npz"}')
    settings = Settings.load()
    assert settings.model.folders == (Path.home() / "models",)
    assert settings.model.adapters == {"kitchen": Path.home() / "kitchen.npz"}
    assert settings.home.devices["hall"]["lamp"].domain == "light"


def test_state_lies_where_systemd_says_else_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert config.state_directory() == tmp_path / "state" / "edge-assistant"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edge-assistant:/var/lib/other")
    assert config.state_directory() == Path("/var/lib/edge-assistant")


def test_models_are_looked_for_in_the_settings_then_the_state_then_the_clone(tmp_path: Path) -> None:
    settings = Settings.load(write(tmp_path / "c.toml", f'[model]\nfolders = ["{tmp_path}"]'))
    clone = Path(__file__).parents[1] / "models"
    assert settings.model_folders == (tmp_path, tmp_path / "state" / "edge-assistant" / "models", clone)


def test_a_secret_is_read_without_its_line_end(tmp_path: Path) -> None:
    file = write(tmp_path / "password", "geheim\n")
    file.chmod(0o600)
    assert config.read_secret(file) == "geheim"


@pytest.mark.parametrize(
    ("text", "mode", "said"), [("x", 0o604, "chmod 600"), ("x", 0o620, "chmod 600"), ("\n", 0o600, "empty")]
)
def test_a_secret_that_others_may_reach_or_that_is_empty_is_refused(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    file = write(tmp_path / "password", text)
    file.chmod(mode)
    with pytest.raises(SecretFileError, match=said):
        config.read_secret(file)


def test_a_secret_that_is_no_text_is_named_and_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xfcber")
    file.chmod(0o600)
    with pytest.raises(SecretFileError, match=r"password: it is not UTF-8 text$"):
        config.read_secret(file)


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="password: No such file"):
        config.read_secret(tmp_path / "password")


@given(
    st.recursive(
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
)
def test_what_is_written_as_toml_is_read_back(value: object) -> None:
    assert tomllib.loads(f"key = {config._toml(value)}") == {"key": value}


def test_show_is_toml_with_an_origin_on_every_line(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", '[mqtt]\nusername = "lamp"\n[home.devices.hall."the lamp"]\ndomain = "light"\n')
    shown = config.show(Settings.load(file))
    assert f'username = "lamp"  # {file}' in shown
    assert Settings(**tomllib.loads(shown)).model_dump() == Settings.load(file).model_dump()
