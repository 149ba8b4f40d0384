"""The arguments of every command. It imports argparse alone: `--help` must not wait for a model's libraries."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant import __version__

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Callable

_EPILOG = """\
examples:
  edge-assistant demo                              see it work, with a small home that is simulated
  edge-assistant ask --state home.yaml "is the front door locked?"
  edge-assistant serve                             answer over MQTT, with a broker of its own
  edge-assistant config init > config.toml         every setting, with its meaning and default

exit codes:
  0  done    1  the work failed    2  wrong usage or configuration    130  interrupted
  A model or file that is named and cannot be used is 1, but for the configuration's.
"""
_SERVE = """\
examples:
  edge-assistant serve --config /etc/edge-assistant/config.toml
  EDGE_ASSISTANT_MQTT__BROKER=broker.lan edge-assistant serve
  mosquitto_pub -V 5 -t assistant/home/ask -m 'turn off the kitchen light'

It ends cleanly, with exit code 0, on SIGTERM, and on SIGHUP: when its terminal is closed.
"""
_ASK = """\
examples:
  edge-assistant ask --state home.yaml "is the front door locked?" "turn off all the lights"
  edge-assistant ask --state home.yaml --json < questions.txt
  edge-assistant ask --model models/mistral-7b --stream "why is the sky blue?"
  edge-assistant ask --state home.yaml --schema lamp.json "is the ceiling light on?"
  edge-assistant ask --model models/mistral-7b --adapter my-lora.npz "is the front door locked?"

home.yaml (JSON will do as well):
  kitchen:
    ceiling light: {domain: light, state: "on", brightness: 40}
  hall:
    front door: {domain: lock, state: locked, floor: ground floor}

Without a broker, calls are printed and not carried out.

lamp.json (JSON Schema): {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
With a schema no tool is offered. What cannot be held to, and an answer that was cut, is an error.
"""
_CHAT = """\
examples:
  edge-assistant chat --state home.yaml

Ctrl-D ends it.
"""
_MODELS = """\
examples:
  edge-assistant models list
  edge-assistant models inspect home-mini
  edge-assistant models add /media/usb/mistral-7b
"""
_BENCH = """\
examples:
  edge-assistant bench --model home-mini
  edge-assistant bench --prompt-tokens 512 --new-tokens 128 --json
"""
_TUNE = """\
examples:
  edge-assistant tune --model mistral-7b
  edge-assistant tune --json > tuning.json

It measures threads, spinning, the length of a prompt's steps, what a step of several rows costs, and whether prepacked
weights pay, in less than two minutes. Nothing else should run meanwhile. serve, ask, chat and bench use what it found,
where the configuration does not set the key.
"""
_WARM = """\
examples:
  edge-assistant warm --model mistral-7b

It takes 2.5 times the bundle's size in the state directory, once. The weights are then mapped from there, and no longer
take memory that the system cannot take back.
"""
_DEMO = """\
examples:
  edge-assistant demo
  edge-assistant demo --checkpoint models/home-mini/checkpoint
"""
_CONFIG = """\
examples:
  edge-assistant config init > config.toml
  edge-assistant config check --config config.toml
  edge-assistant config show
"""


def build_parser() -> ArgumentParser:
    """Return the parser; what it parses has `run`, the command's `module:function`."""
    parser = ArgumentParser(
        prog="edge-assistant",
        description="An offline assistant for small boards.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_ask(commands)
    _add_chat(commands)
    _add_models(commands)
    _add_tune(commands)
    _add_warm(commands)
    _add_bench(commands)
    _add_config(commands)
    _add_demo(commands)
    return parser


def _add(
    commands: _SubParsersAction[ArgumentParser], name: str, run: str, summary: str, epilog: str | None = None
) -> ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    """Return what reads a whole number from `least` on."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return read


def _add_config_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings (default: $XDG_CONFIG_HOME/edge-assistant/config.toml, then /etc/edge-assistant/config.toml)",
    )


def _add_bundle_options(parser: ArgumentParser) -> None:
    _add_config_option(parser)
    parser.add_argument("--model", metavar="DIR", help="a bundle's folder or name (default: the setting model.name)")


def _add_model_options(parser: ArgumentParser) -> None:
    _add_bundle_options(parser)
    parser.add_argument(
        "--adapter",
        type=Path,
        metavar="FILE",
        help="a LoRA adapter for that bundle: its file, or its name in the setting model.adapters, which like the "
        "default, model.adapter, is not looked at where --model names a bundle",
    )


def _add_serve(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "serve", "edge_assistant.cli.serve:serve", "answer questions that arrive over MQTT", _SERVE)
    _add_model_options(parser)
    parser.add_argument("--verbose", action="store_true", help="log every message by its topic and size, and its time")


def _add_ask(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "ask", "edge_assistant.cli.ask:ask", "answer questions and end", _ASK)
    _add_model_options(parser)
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="a question or command; none: standard input, one a line"
    )
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="the home: YAML or JSON, area -> device -> properties"
    )
    parser.add_argument("--schema", type=Path, metavar="FILE", help="a JSON schema: each answer is JSON that fits it")
    parser.add_argument("--json", action="store_true", help="print what MQTT would answer, one object a line")
    parser.add_argument("--stream", action="store_true", help="print the answer while it is made")


def _add_chat(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "chat", "edge_assistant.cli.ask:chat", "talk with the assistant", _CHAT)
    _add_model_options(parser)
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="the home: YAML or JSON, area -> device -> properties"
    )


def _add_models(commands: _SubParsersAction[ArgumentParser]) -> None:
    models = _add(commands, "models", "", "list, look into, check and add models", _MODELS)
    actions = models.add_subparsers(metavar="ACTION", required=True)
    listing = _add(actions, "list", "edge_assistant.cli.models:list_models", "list the models that a name would find")
    inspect = _add(actions, "inspect", "edge_assistant.cli.models:inspect", "show what a model is and what it needs")
    verify = _add(
        actions, "verify", "edge_assistant.cli.models:verify", "check every byte of a model against its manifest"
    )
    add = _add(
        actions, "add", "edge_assistant.cli.models:add", "copy a model into the state directory and check the copy"
    )
    for parser in (listing, inspect, verify, add):
        _add_config_option(parser)
    for parser in (inspect, verify, add):
        parser.add_argument("model", metavar="MODEL", help="a bundle's folder or name")
    for parser in (listing, inspect):
        parser.add_argument("--json", action="store_true", help="print JSON")


def _add_tune(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(
        commands, "tune", "edge_assistant.cli.tune:tune", "find the fastest settings for a model on this device", _TUNE
    )
    _add_bundle_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_warm(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(
        commands, "warm", "edge_assistant.cli.tune:warm", "write a model's weights as this processor packs them", _WARM
    )
    _add_bundle_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_bench(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(
        commands,
        "bench",
        "edge_assistant.cli.bench:bench",
        "measure a model's speed and memory on this machine, and what its memory would allow",
        _BENCH,
    )
    _add_model_options(parser)
    parser.add_argument(
        "--prompt-tokens", type=_at_least(1), default=128, metavar="N", help="length of the prompt (%(default)s)"
    )
    # The first comes with the prompt: a speed takes a second one.
    parser.add_argument(
        "--new-tokens", type=_at_least(2), default=64, metavar="N", help="tokens to generate (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_demo(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "demo", "edge_assistant.demo:demo", "show it all at work in a simulated home", _DEMO)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="export this first (with edge-assistant-export)")
    parser.add_argument(
        "--model", default="home-mini", metavar="DIR", help="else a bundle's folder or name (%(default)s)"
    )


def _add_config(commands: _SubParsersAction[ArgumentParser]) -> None:
    config = _add(commands, "config", "", "write, check and show the settings", _CONFIG)
    actions = config.add_subparsers(metavar="ACTION", required=True)
    _add(actions, "init", "edge_assistant.cli.config:init", "print a commented file with every setting's default")
    _add_config_option(
        _add(actions, "check", "edge_assistant.cli.config:check", "read the settings and say whether they hold")
    )
    _add_config_option(
        _add(actions, "show", "edge_assistant.cli.config:show", "print every setting and where its value comes from")
    )
