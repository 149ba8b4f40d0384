"""Whom we trust at the other end of the connection, and as whom we come."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from edge_assistant.errors import InvalidValueError

if TYPE_CHECKING:
    from edge_assistant.config import MqttSettings


def tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    """Return what the connection is encrypted with, None where it is not; InvalidValueError names a file at fault."""
    if settings.ca_file is None and settings.cert_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise InvalidValueError(
            "the configuration", "mqtt.ca_file", str(settings.ca_file), f"a CA ({error})"
        ) from error
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except OSError as error:
            value = str(settings.cert_file)
            raise InvalidValueError(
                "the configuration", "mqtt.cert_file", value, f"our certificate ({error})"
            ) from error
    return context
