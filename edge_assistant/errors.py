"""Every error this project raises on purpose.

    EdgeAssistantError
    ├── ConfigError            (ValueError)          a key, file or value of the configuration
    ├── ModelNotFoundError     (FileNotFoundError)   no bundle under the name or path asked for
    ├── BundleError            (ValueError)          a bundle that must not be loaded
    │   ├── BundleFileMissingError
    │   ├── BundleVersionError
    │   ├── BundleSizeError
    │   └── BundleHashError
    ├── EngineError
    │   ├── CacheBudgetError   (MemoryError)         the byte budget holds no token
    │   ├── ContextOverflowError (ValueError)        the prompt and answer do not fit the cache
    │   └── SamplingError      (ValueError)          a sampling parameter out of its range
    ├── TextError              (ValueError)          a chat that its instruct format cannot hold
    ├── HomeError              (ValueError)          a home description that cannot be read
    │   └── UnknownDeviceError (LookupError)         a call that names what the home does not list
    ├── MqttError                                    the broker and what arrives from it
    │   ├── BrokerLoginError   (PermissionError)
    │   ├── BrokerUnreachableError (ConnectionError)
    │   └── RequestError       (ValueError)          an `ask` that cannot be answered; carries a code
    └── ExportError            (ValueError)          the workstation's side
        ├── CheckpointError                          a checkpoint that is missing, truncated or misshapen
        │   └── UnsupportedArchitectureError
        ├── HubAccessError     (PermissionError)
        └── VerificationError

A class takes the facts and builds its own message: what is wrong, where, and how to mend it.
"""

from __future__ import annotations


class EdgeAssistantError(Exception):
    """The root: `except EdgeAssistantError` catches all that this project raises on purpose."""
