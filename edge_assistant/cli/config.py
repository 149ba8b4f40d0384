"""`config init|check|show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant import config
from edge_assistant.mqtt.tls import tls_context

if TYPE_CHECKING:
    from argparse import Namespace


def init(_args: Namespace) -> int:
    """Print a commented file with every setting's default."""
    print(config.template(), end="")
    return 0


def check(args: Namespace) -> int:
    """Read the settings, and the secrets and certificates that they name."""
    settings = config.Settings.load(args.config)
    if settings.mqtt.password_file is not None:
        config.read_secret(settings.mqtt.password_file)
    tls_context(settings.mqtt)
    print(f"{settings.source or 'the defaults'}: the settings hold")
    return 0


def show(args: Namespace) -> int:
    """Print every setting and where its value comes from."""
    print(config.show(config.Settings.load(args.config)), end="")
    return 0
