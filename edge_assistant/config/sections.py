"""The tables of the file and their keys: each with its default, what it is for, what it is counted in, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from edge_assistant.config.keys import Section, key, optional
from edge_assistant.config.values import Base, File, Host, Level, Name, Place, Temperature

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class ModelSettings(Section):
    """Which model answers, and where models are looked for."""

    name: str = key("home-mini", "A bundle's folder, or its name in one of the folders.", "name or path", min_length=1)
    adapter: File | None = optional(
        "/var/lib/edge-assistant/kitchen.npz", "A LoRA adapter that was made for this model's bundle.", "path"
    )
    adapters: dict[Name, File] = key(
        {},
        'Others that a question may name: {kitchen = "/path/kitchen.npz"}; all are held in memory.',
        "name -> path",
        max_length=8,
    )
    folders: tuple[File, ...] = key((), "Looked through first, then the state directory's models/.", "paths")


class EngineSettings(Section):
    """How the model runs."""

    kv_cache_bytes: int = key(
        64 * MIB, "Memory of the key/value cache, a draft's too; it sets how many tokens fit.", "bytes", ge=1
    )
    sequences: int = key(
        0,
        "Answers computed at once; they share kv_cache_bytes evenly. 0: up to 4, if each may have the longest context.",
        "sequences",
        ge=0,
        le=64,
    )
    queue: int = key(16, "Requests that may wait for the model; more are refused at once.", "requests", ge=1)
    threads: int = key(0, "Threads that compute; 0 takes every physical core.", "threads", ge=0, le=1024)
    prefill_chunk: int = key(128, "Tokens of a prompt that are read in one step.", "tokens", ge=1)
    prefix_bytes: int = key(
        64 * MIB, "Memory for the beginnings that prompts share, beside the cache; 0 keeps none.", "bytes", ge=0
    )
    prefix_disk_bytes: int = key(
        256 * MIB, "Disk for those that every prompt shares, so that a restart keeps them; 0 is none.", "bytes", ge=0
    )
    guesses: int = key(
        8,
        "Tokens guessed ahead at most, where that pays; answers stay the same. 0 never guesses.",
        "tokens",
        ge=0,
        le=64,
    )
    draft: str | None = optional(
        "home-mini",
        "A small model of the same vocabulary that guesses where nothing comes again: a bundle's folder or name.",
        "name or path",
    )
    cache_reuse: int = key(
        64,
        "Fewest tokens to keep behind old turns that a prompt lacks: soon, not quite exact. 0 reads them anew.",
        "tokens",
        ge=0,
    )
    refresh_when_idle: bool = key(
        False,
        "Read anew what cache_reuse has kept, while nobody asks: exact, for a prompt's power.",
        "true or false",
    )
    spinning: bool = key(
        False, "Let threads spin while they wait for one another: faster, if the cores are free.", "true or false"
    )
    prepacked: bool = key(
        True, "Load the weights that `edge-assistant warm` has written, where it has.", "true or false"
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = key(
        "auto", "What computes; auto is CUDA where it proves to run the model's attention, else the CPU.", "name"
    )
    gpu_memory_bytes: int = key(6 * GIB, "Memory that CUDA or TensorRT may take beside the cache.", "bytes", ge=1)


class AssistantSettings(Section):
    """How the assistant answers."""

    node: Level = key("home", "This assistant's name in assistant/<node>/ask.", "name")
    max_tokens: int = key(128, "Longest answer.", "tokens", ge=1)
    temperature: Temperature = key(
        0.0, "Chance in the choice of words; 0 always takes the likeliest.", "ratio", ge=0, le=5
    )
    sessions: int = key(64, "Conversations that are kept; the one unused for longest goes first.", "sessions", ge=0)
    session_turns: int = key(6, "Turns that a conversation keeps.", "turns", ge=0)
    session_bytes: int = key(64 * KIB, "Text that all kept turns of one conversation may take.", "bytes", ge=0)
    prompt_devices: int = key(
        12, "Devices that the prompt shows, more only where the question mentions more.", "devices", ge=0
    )
    settle_seconds: float = key(2.0, "How long a command waits for the device's state to follow.", "s", gt=0, le=60)
    queue: int = key(8, "Questions over MQTT that may wait; more are refused at once.", "questions", ge=1)


class MqttSettings(Section):
    """The broker, and the topics under which the home's states arrive."""

    broker: Host = key("embedded", 'A host, or "embedded" to start a broker of our own on loopback.', "host")
    port: int = key(1883, "The broker's port; 0 lets an embedded broker take a free one.", "port", ge=0, le=65535)
    username: str | None = optional("edge-assistant", "Who logs in; unset is anonymous.", "name")
    password_file: File | None = optional(
        "/etc/edge-assistant/mqtt-password", "File that holds the password; others must not be able to read it.", "path"
    )
    ca_file: File | None = optional(
        "/etc/edge-assistant/ca.pem", "Certificate of the authority that signed the broker's; turns TLS on.", "path"
    )
    cert_file: File | None = optional(
        "/etc/edge-assistant/client.pem", "Our own certificate, where the broker asks for one.", "path"
    )
    key_file: File | None = optional("/etc/edge-assistant/client.key", "The key of cert_file.", "path")
    client_id: str | None = optional(
        "edge-assistant-kitchen", "Name at the broker; unset makes one from the node.", "name"
    )
    keepalive_seconds: int = key(30, "A silent connection counts as lost after 1.5 times this.", "s", ge=1, le=65535)
    base: Base = key("home", "States are <base>/<area>/<device>/<property>.", "topic")
    max_payload_bytes: int = key(64 * KIB, "Longest message that is read; longer ones are refused.", "bytes", ge=1)
    reconnect_min_seconds: float = key(0.5, "First wait after the broker was lost; it doubles.", "s", gt=0, le=86400)
    reconnect_max_seconds: float = key(30.0, "Longest wait between two attempts.", "s", gt=0, le=86400)

    @field_validator("port")
    @classmethod
    def _known(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("broker") != "embedded":
            raise ValueError("the port of the broker: 0 is for an embedded one")
        return value

    @field_validator("username", "ca_file", "cert_file")
    @classmethod
    def _for_a_broker_elsewhere(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        """Refuse what an embedded broker would not use."""
        if value is not None and info.data.get("broker") == "embedded":
            raise ValueError('unset, as mqtt.broker is "embedded", which knows neither users nor TLS')
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
    device_class: str | None = optional("blind", "blind, window, temperature, ...", "name")
    floor: str | None = optional("ground floor", "The floor its area is on.", "name")
    unit: str | None = optional("°C", "What its state is counted in.", "unit")
    aliases: tuple[str, ...] = key((), "Other names people call it by.", "names")


class HomeSettings(Section):
    """The home's devices, for those that do not describe themselves on <base>/<area>/<device>/meta."""

    devices: dict[Place, dict[Place, DeviceSettings]] = key(
        {}, 'A table each: [home.devices.kitchen."ceiling light"] with domain = "light".', "area -> device -> table"
    )


class Tables(BaseModel):
    """All tables, in the order in which they are shown; `Settings` is these and the sources that fill them."""

    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    assistant: AssistantSettings = AssistantSettings()
    mqtt: MqttSettings = MqttSettings()
    home: HomeSettings = HomeSettings()


SECTIONS: Mapping[str, type[Section]] = {
    name: cast("type[Section]", field.annotation) for name, field in Tables.model_fields.items()
}
"""The class of each table, by the table's name."""
