"""Settings from one TOML file and the environment; the only reader of the environment.

    precedence    EDGE_ASSISTANT_<SECTION>__<KEY>  >  file  >  default
    file          the one named, else $XDG_CONFIG_HOME/edge-assistant/config.toml, else /etc/edge-assistant/config.toml
    state         $STATE_DIRECTORY (systemd), else $XDG_STATE_HOME/edge-assistant

A table [board] in the file describes the hardware it was written for: it is `device/boards.py`'s, and no setting.
Settings never change once loaded. A key that does not exist, a value out of its range and a secret that others
may read are errors that name the file or the variable, the key, and the mend. No secret stands in the file: it
names a file that holds one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from edge_assistant.errors import ConfigFileError, InvalidValueError, SecretFileError, UnknownKeyError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

ENV_PREFIX = "EDGE_ASSISTANT_"
NAME = r"[A-Za-z0-9_.:-]{1,64}"
"""What a name is made of that travels in questions."""
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def _key(default: Any, description: str, unit: str, **limits: Any) -> Any:
    """Make a field of a section: its default, what it is for, what it is counted in, and its limits."""
    return Field(default, description=description, json_schema_extra={"unit": unit}, **limits)


def _optional(example: str, description: str, unit: str) -> Any:
    """Make a field that is unset by default; the template shows the example."""
    return Field(None, description=description, json_schema_extra={"unit": unit}, examples=[example])


def _host(value: str) -> str:
    if not value or any(mark in value for mark in "/@ "):
        msg = "a host name or address alone; user and password have keys of their own"
        raise ValueError(msg)
    if re.fullmatch(r"[^:]*:\d*", value):
        msg = "a host name or address alone; the port is mqtt.port"
        raise ValueError(msg)
    return value


def _topic(value: str) -> str:
    if not value or value.startswith("/") or value.endswith("/") or any(mark in value for mark in "+#\0"):
        msg = "a topic without wildcards, and without / at its ends"
        raise ValueError(msg)
    return value


def _base(value: str) -> str:
    if value.startswith("$") or value.split("/", maxsplit=1)[0] == "assistant":
        msg = "a topic that is neither the broker's own ($...) nor the assistant's (assistant/...)"
        raise ValueError(msg)
    return _topic(value)


def _level(value: str) -> str:
    if "/" in value:
        msg = "one level of a topic, without /"
        raise ValueError(msg)
    return _topic(value)


def _place(value: str) -> str:
    if not value.replace("_", " ").strip() or not value.isprintable() or any(mark in value for mark in "/+#"):
        msg = "a name on one line, without / + and #"
        raise ValueError(msg)
    return value


def _expanded(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError as error:
        msg = "a path; nobody here is called as its ~ says"
        raise ValueError(msg) from error


def _name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        msg = "a name of 1 to 64 letters, digits, or any of _ . : -"
        raise ValueError(msg)
    return value


def _temperature(value: float) -> float:
    if 0 < value < 1e-3:
        msg = "0, or at least 0.001"
        raise ValueError(msg)
    return value


File = Annotated[Path, AfterValidator(_expanded)]
Host = Annotated[str, AfterValidator(_host)]
Base = Annotated[str, AfterValidator(_base)]
Place = Annotated[str, AfterValidator(_place)]
Name = Annotated[str, AfterValidator(_name)]
Level = Annotated[str, AfterValidator(_level)]
Temperature = Annotated[float, AfterValidator(_temperature)]


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSettings(Section):
    """Which model answers, and where models are looked for."""

    name: str = _key("home-mini", "A bundle's folder, or its name in one of the folders.", "name or path", min_length=1)
    adapter: File | None = _optional(
        "/var/lib/edge-assistant/kitchen.npz", "A LoRA adapter that was made for this model's bundle.", "path"
    )
    adapters: dict[Name, File] = _key(
        {},
        'Others that a question may name: {kitchen = "/path/kitchen.npz"}; all are held in memory.',
        "name -> path",
        max_length=8,
    )
    folders: tuple[File, ...] = _key((), "Looked through first, then the state directory's models/.", "paths")


class EngineSettings(Section):
    """How the model runs."""

    kv_cache_bytes: int = _key(
        64 * MIB, "Memory of the key/value cache, a draft's too; it sets how many tokens fit.", "bytes", ge=1
    )
    sequences: int = _key(
        0,
        "Answers computed at once; they share kv_cache_bytes evenly. 0: up to 4, if each may have the longest context.",
        "sequences",
        ge=0,
        le=64,
    )
    queue: int = _key(16, "Requests that may wait for the model; more are refused at once.", "requests", ge=1)
    threads: int = _key(0, "Threads that compute; 0 takes every physical core.", "threads", ge=0, le=1024)
    prefill_chunk: int = _key(128, "Tokens of a prompt that are read in one step.", "tokens", ge=1)
    prefix_bytes: int = _key(
        64 * MIB, "Memory for the beginnings that prompts share, beside the cache; 0 keeps none.", "bytes", ge=0
    )
    prefix_disk_bytes: int = _key(
        256 * MIB, "Disk for those that every prompt shares, so that a restart keeps them; 0 is none.", "bytes", ge=0
    )
    guesses: int = _key(
        8,
        "Tokens guessed ahead at most, where that pays; answers stay the same. 0 never guesses.",
        "tokens",
        ge=0,
        le=64,
    )
    draft: str | None = _optional(
        "home-mini",
        "A small model of the same vocabulary that guesses where nothing comes again: a bundle's folder or name.",
        "name or path",
    )
    cache_reuse: int = _key(
        64,
        "Fewest tokens to keep behind old turns that a prompt lacks: soon, not quite exact. 0 reads them anew.",
        "tokens",
        ge=0,
    )
    refresh_when_idle: bool = _key(
        False,
        "Read anew what cache_reuse has kept, while nobody asks: exact, for a prompt's power.",
        "true or false",
    )
    spinning: bool = _key(
        False, "Let threads spin while they wait for one another: faster, if the cores are free.", "true or false"
    )
    prepacked: bool = _key(
        True, "Load the weights that `edge-assistant warm` has written, where it has.", "true or false"
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = _key(
        "auto", "What computes; auto is CUDA where it proves to run the model's attention, else the CPU.", "name"
    )
    gpu_memory_bytes: int = _key(6 * GIB, "Memory that CUDA or TensorRT may take beside the cache.", "bytes", ge=1)


class AssistantSettings(Section):
    """How the assistant answers."""

    node: Level = _key("home", "This assistant's name in assistant/<node>/ask.", "name")
    max_tokens: int = _key(128, "Longest answer.", "tokens", ge=1)
    temperature: Temperature = _key(
        0.0, "Chance in the choice of words; 0 always takes the likeliest.", "ratio", ge=0, le=5
    )
    sessions: int = _key(64, "Conversations that are kept; the one unused for longest goes first.", "sessions", ge=0)
    session_turns: int = _key(6, "Turns that a conversation keeps.", "turns", ge=0)
    session_bytes: int = _key(64 * KIB, "Text that all kept turns of one conversation may take.", "bytes", ge=0)
    prompt_devices: int = _key(
        12, "Devices that the prompt shows, more only where the question mentions more.", "devices", ge=0
    )
    settle_seconds: float = _key(2.0, "How long a command waits for the device's state to follow.", "s", gt=0, le=60)
    queue: int = _key(8, "Questions over MQTT that may wait; more are refused at once.", "questions", ge=1)


class MqttSettings(Section):
    """The broker, and the topics under which the home's states arrive."""

    broker: Host = _key("embedded", 'A host, or "embedded" to start a broker of our own on loopback.', "host")
    port: int = _key(1883, "The broker's port; 0 lets an embedded broker take a free one.", "port", ge=0, le=65535)
    username: str | None = _optional("edge-assistant", "Who logs in; unset is anonymous.", "name")
    password_file: File | None = _optional(
        "/etc/edge-assistant/mqtt-password", "File that holds the password; others must not be able to read it.", "path"
    )
    ca_file: File | None = _optional(
        "/etc/edge-assistant/ca.pem", "Certificate of the authority that signed the broker's; turns TLS on.", "path"
    )
    cert_file: File | None = _optional(
        "/etc/edge-assistant/client.pem", "Our own certificate, where the broker asks for one.", "path"
    )
    key_file: File | None = _optional("/etc/edge-assistant/client.key", "The key of cert_file.", "path")
    client_id: str | None = _optional(
        "edge-assistant-kitchen", "Name at the broker; unset makes one from the node.", "name"
    )
    keepalive_seconds: int = _key(30, "A silent connection counts as lost after 1.5 times this.", "s", ge=1, le=65535)
    base: Base = _key("home", "States are <base>/<area>/<device>/<property>.", "topic")
    max_payload_bytes: int = _key(64 * KIB, "Longest message that is read; longer ones are refused.", "bytes", ge=1)
    reconnect_min_seconds: float = _key(0.5, "First wait after the broker was lost; it doubles.", "s", gt=0, le=86400)
    reconnect_max_seconds: float = _key(30.0, "Longest wait between two attempts.", "s", gt=0, le=86400)

    @field_validator("port")
    @classmethod
    def _known(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("broker") != "embedded":
            raise ValueError("the port of the broker: 0 is for an embedded one")
        return value

    @field_validator("password_file", "key_file")
    @classmethod
    def _with_its_other_half(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """Refuse what would silently not be used."""
        other = {"password_file": "username", "key_file": "cert_file"}[str(info.field_name)]
        if value is not None and info.data.get(other, "") is None:
            raise ValueError(f"to stand beside mqtt.{other}, without which it is not used")
        return value


class DeviceSettings(Section):
    """What the home's own messages do not say of a device, by Home Assistant's names."""

    domain: str = Field(description="light, switch, cover, lock, sensor, ...", min_length=1)
    device_class: str | None = _optional("blind", "blind, window, temperature, ...", "name")
    floor: str | None = _optional("ground floor", "The floor its area is on.", "name")
    unit: str | None = _optional("°C", "What its state is counted in.", "unit")
    aliases: tuple[str, ...] = _key((), "Other names people call it by.", "names")


class HomeSettings(Section):
    """The home's devices, for those that do not describe themselves on <base>/<area>/<device>/meta."""

    devices: dict[Place, dict[Place, DeviceSettings]] = _key(
        {}, 'A table each: [home.devices.kitchen."ceiling light"] with domain = "light".', "area -> device -> table"
    )


class Settings(BaseSettings):
    """All settings, frozen. Keyword arguments stand for the file: the environment overrides them."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )

    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    assistant: AssistantSettings = AssistantSettings()
    mqtt: MqttSettings = MqttSettings()
    home: HomeSettings = HomeSettings()

    _file: Path | None = PrivateAttr(None)
    _in_file: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings' own
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the environment above the file."""
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path | None = None) -> Settings:
        """Read the file (the first of `config_files()` where none is named), then the environment.

        Raises ConfigFileError, UnknownKeyError or InvalidValueError.
        """
        if path is None:
            path = next((file for file in config_files() if file.is_file()), None)
        in_file = {} if path is None else _read_toml(path)
        in_file.pop("board", None)
        _refuse_unknown(_dotted(in_file), str(path))
        for variable, key in _variables().items():
            _refuse_unknown([key], variable)
        try:
            settings = cls(**in_file)
        except ValidationError as error:
            raise _explain(error, path) from error
        except SettingsError as error:
            raise _explain_json(error) from error
        settings._file, settings._in_file = path, in_file
        return settings

    @property
    def source(self) -> Path | None:
        """The file that was read, None where there was none."""
        return self._file

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """Where a model's name is looked up, in order."""
        return (*self.model.folders, state_directory() / "models", *_clone_models())

    def origin(self, section: str, key: str) -> str:
        """Return where a value comes from: a variable's name, the file's path, or `default`."""
        in_file = str(self._file) if key in self._in_file.get(section, {}) else "default"
        return _variable_of(section, key) or in_file


def config_files() -> tuple[Path, ...]:
    """Return the files that are read where none is named, the first that exists wins."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "edge-assistant" / "config.toml", Path("/etc/edge-assistant/config.toml")


def state_directory() -> Path:
    """Return the folder for what must survive a restart; it need not exist yet."""
    systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if systemd:
        return Path(systemd)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edge-assistant"


def read_secret(path: Path) -> str:
    """Return the secret that a file holds, without the line's end; SecretFileError where others may read it too."""
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise SecretFileError(path, f"others may read or change it; run `chmod 600 {path}`")
        secret = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SecretFileError(path, error.strerror or str(error)) from error
    except UnicodeDecodeError:
        raise SecretFileError(path, "it is not UTF-8 text") from None  # the decoder's word would quote the secret
    if not secret:
        raise SecretFileError(path, "it is empty")
    return secret


def environment() -> tuple[str, ...]:
    """Return the names of the environment's variables that set something."""
    return tuple(_variables())


def template() -> str:
    """Return the commented TOML of `config init`: every key with its meaning, unit and default."""
    lines = [
        "# edge-assistant's settings. A line of # and a key shows its default, or an example where it is unset:",
        "# take the # away to change it. A variable goes before this file: " + _variable("engine", "threads") + "=4",
    ]
    for section in Settings.model_fields:
        model = _model(section)
        lines += ["", f"# {model.__doc__}", f"[{section}]"]
        for key, field in model.model_fields.items():
            unset = field.default is None
            lines.append(f"# {field.description} ({_unit(field)}{', unset' if unset else ''})")
            lines.append(f"#{key} = {_toml((field.examples or [None])[0] if unset else field.default)}")
    return "\n".join(lines) + "\n"


def show(settings: Settings) -> str:
    """Return every setting that has a value as TOML, each line with where the value comes from."""
    lines: list[str] = []
    for section in Settings.model_fields:
        lines.append(f"[{section}]")
        values = getattr(settings, section).model_dump(mode="json", exclude_none=True)
        lines += [f"{key} = {_toml(value)}  # {settings.origin(section, key)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _model(section: str) -> type[Section]:
    return cast("type[Section]", Settings.model_fields[section].annotation)


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


def _toml(value: Any) -> str:
    """Write a value as TOML on one line; JSON's strings, numbers and lists are TOML's too."""
    if isinstance(value, Mapping):
        pairs = (f"{_toml(key)} = {_toml(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # legal in JSON, not in TOML


def _variable(section: str, key: str) -> str:
    return f"{ENV_PREFIX}{section}__{key}".upper()


def _variables() -> dict[str, str]:
    """Return the environment's variables that set something, with the keys they set: `engine.threads`."""
    ours = (name for name, value in os.environ.items() if name.upper().startswith(ENV_PREFIX) and value)
    return {name: ".".join(name[len(ENV_PREFIX) :].lower().split("__")[:2]) for name in ours}


def _variable_of(section: str, key: str | None) -> str | None:
    """Return the variable that sets a key by itself or in its section's JSON, or the whole section; None for none."""
    for variable, dotted in _variables().items():
        if dotted == f"{section}.{key}":
            return variable
        if dotted == section and (key is None or key in json.loads(os.environ[variable])):
            return variable
    return None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFileError(path, error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigFileError(path, f"not TOML: {error}") from error


def _dotted(table: Mapping[str, Any]) -> Iterator[str]:
    for section, values in table.items():
        if isinstance(values, Mapping) and section in Settings.model_fields:
            yield from (f"{section}.{key}" for key in values)
        else:
            yield section


def _refuse_unknown(keys: Iterable[str], source: str) -> None:
    known = [f"{section}.{key}" for section in Settings.model_fields for key in _model(section).model_fields]
    for key in keys:
        if key not in known and key not in Settings.model_fields:
            raise UnknownKeyError(source, key, _nearest(key, known))


def _nearest(key: str, known: list[str]) -> str | None:
    """Return the known key that was most likely meant: the same word elsewhere, else the most alike."""
    same_word = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return next(iter(same_word or difflib.get_close_matches(key, known, n=1)), None)


def _explain(error: ValidationError, path: Path | None) -> UnknownKeyError | InvalidValueError:
    """Turn pydantic's first finding into an error that names its source."""
    first = error.errors()[0]
    loc = [str(part) for part in first["loc"] if part != "[key]"]  # pydantic's word for what is wrong with a name
    key, section = ".".join(loc), loc[0]
    source = _variable_of(section, loc[1] if len(loc) > 1 else None) or str(path or "the environment")
    if first["type"] == "extra_forbidden":
        table, _, _ = key.rpartition(".")
        model = _model(section) if table == section else DeviceSettings
        return UnknownKeyError(source, key, _nearest(key, [f"{table}.{name}" for name in model.model_fields]))
    if first["type"] == "missing":
        return InvalidValueError(source, key, None, "a value")
    expected = "a table" if first["type"] == "model_type" else first["msg"].removeprefix("Value error, ")
    return InvalidValueError(source, key, _without_login(first["input"]), expected.removeprefix("Input should be "))


def _without_login(value: Any) -> Any:
    """Return a value as it may be shown: of an address with user and password the rest."""
    return re.sub(r"^(\w+://)?.*@", r"\1***@", value) if isinstance(value, str) else value


def _explain_json(error: SettingsError) -> InvalidValueError:
    """Find the variable whose list or table is not JSON: pydantic-settings names only its section."""
    for variable, dotted in _variables().items():
        section, _, key = dotted.partition(".")
        if not key or isinstance(_model(section).model_fields[key].default, (tuple, dict)):
            try:
                json.loads(os.environ[variable])
            except json.JSONDecodeError:
                return InvalidValueError(variable, dotted, os.environ[variable], 'JSON, such as ["a", "b"] or {"a": 1}')
    return InvalidValueError("the environment", "a value", None, str(error))


def _clone_models() -> tuple[Path, ...]:
    """Return the models/ of the clone this package runs from, if it does run from one."""
    root = Path(__file__).parents[1]
    return (root / "models",) if (root / "firmware_configs").is_dir() and (root / "models").is_dir() else ()
