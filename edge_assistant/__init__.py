"""An offline assistant for small boards: MQTT and voice in, actions and answers out."""

__version__ = "0.1.0"
