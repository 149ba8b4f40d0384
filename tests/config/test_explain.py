from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_assistant.config import Settings
from edge_assistant.errors import ConfigFileError, InvalidValueError, UnknownKeyError


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
        ("[engine]\nTHREADS = 4", UnknownKeyError, "did you mean engine.threads?"),
        ("[ENGINE]\nthreads = 4", UnknownKeyError, "did you mean engine?"),
        (
            "[home.devices.Hall.Lamp]\ndomain = 'light'\nUnit = 'x'",
            UnknownKeyError,
            "did you mean home.devices.Hall.Lamp.unit?",
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
        *(
            (f'[mqtt]\n{broker}{key} = "x"', InvalidValueError, f"{key} is 'x', expected: unset, as mqtt.broker is")
            for key in ("username", "ca_file", "cert_file")
            for broker in ("", 'broker = "embedded"\n')
        ),
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
    write: Callable[[str], Path], text: str, error: type[Exception], said: str
) -> None:
    file = write(text)
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


@pytest.mark.parametrize("login", ["user:geheim", "user:geheim/a", "user:a/geheim@b", "geheim"])
@pytest.mark.parametrize("scheme", ["mqtt://", ""])
def test_the_login_of_a_wrong_address_is_not_shown(write: Callable[[str], Path], scheme: str, login: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"'{scheme}\*\*\*@host'") as raised:
        Settings.load(write(f'[mqtt]\nbroker = "{scheme}{login}@host"'))
    assert "geheim" not in str(raised.value)
