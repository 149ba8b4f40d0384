"""Settings from one TOML file and the environment; the only reader of the environment.

    precedence    EDGE_ASSISTANT_<SECTION>__<KEY>  >  file  >  default
    file          the one named, else $XDG_CONFIG_HOME/edge-assistant/config.toml, else /etc/edge-assistant/config.toml
    state         $STATE_DIRECTORY (systemd), else $XDG_STATE_HOME/edge-assistant

A table [board] in the file describes the hardware it was written for: it is `device/boards.py`'s, and no setting.
Settings never change once loaded. A key that does not exist, a value out of its range and a secret that others
may read are errors that name the file or the variable, the key, and the mend. No secret stands in the file: it
names a file that holds one.

    sections.py   every key, declared with `keys.py`; `values.py` says what a value must look like
    settings.py   the precedence, decided where `toml.py`, `variables.py` and `places.py` come together
    unknown.py    a key that does not exist, and the one that was likely meant
    explain.py    what else is wrong, as an error of `errors.py`, whose classes hold the words
    printing.py   the texts of `config init` and `config show`
    secret.py     the files of secrets
"""

from edge_assistant.config.places import state_directory
from edge_assistant.config.printing import show, template
from edge_assistant.config.secret import read_secret
from edge_assistant.config.sections import AssistantSettings, EngineSettings, HomeSettings, MqttSettings
from edge_assistant.config.settings import Settings
from edge_assistant.config.values import NAME
from edge_assistant.config.variables import environment

__all__ = [
    "NAME",
    "AssistantSettings",
    "EngineSettings",
    "HomeSettings",
    "MqttSettings",
    "Settings",
    "environment",
    "read_secret",
    "show",
    "state_directory",
    "template",
]
