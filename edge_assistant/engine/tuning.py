"""What `edge-assistant tune` found out, and for what it holds: this processor, this bundle, this onnxruntime.

One file for each model in the state directory, replaced as a whole. Where any of the three is another one, what was
measured is not believed: it has to be measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from edge_assistant.bundle import replace_text
from edge_assistant.bundle.folder import STRICT, Sha256, Size
from edge_assistant.engine.runtime import VERSION
from edge_assistant.errors import TuningError

if TYPE_CHECKING:
    from edge_assistant.bundle import Manifest

Speed = Annotated[float, Field(gt=0)]
Rows = Annotated[str, Field(pattern="^([2-9]|[1-9][0-9]{1,3})$")]
"""2 or more, as JSON's keys are."""


@dataclass(frozen=True, slots=True, config=STRICT)
class Fingerprint:
    """What a measurement, and weights packed for a processor, hold for."""

    cpu: str
    bundle: Sha256
    """Its manifest's identity."""
    onnxruntime: str

    @classmethod
    def of(cls, manifest: Manifest, cpu: str) -> Fingerprint:
        """Return that of a bundle on this processor, which `cpu` tells from others, under this onnxruntime."""
        return cls(cpu, manifest.identity, VERSION)

    @property
    def key(self) -> str:
        """A short name for all three."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: Fingerprint) -> list[str]:
        """Return what is not the same in words, `other` being what holds now."""
        pairs = [(field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self)]
        return [f"the {name} was {then}, it is {now}" for name, then, now in pairs if then != now]


@dataclass(frozen=True, slots=True, config=STRICT)
class Tuning:
    """The settings that were fastest, by their names in `EngineSettings`, and what was measured beside."""

    threads: Size
    spinning: bool
    prefill_chunk: Size
    prepacked: bool | None
    """Whether prepacked weights save memory and cost no speed; None where it was not measured."""
    batch_cost: Mapping[Rows, Speed]
    """What a step of so many rows takes, by their number, beside a step of one."""
    decode_tokens_per_s: Speed
    prefill_tokens_per_s: Speed
    skipped: tuple[str, ...]
    """What there was no time for."""

    @property
    def row_cost(self) -> float | None:
        """What a row more costs in steps of one row, the mean of what was measured; None where nothing was."""
        costs = [max(0.0, (cost - 1) / (int(rows) - 1)) for rows, cost in self.batch_cost.items()]
        return sum(costs) / len(costs) if costs else None

    def settings(self) -> dict[str, int | bool]:
        """Return the settings that follow, by their names in `EngineSettings`."""
        found = {"threads": self.threads, "spinning": self.spinning, "prefill_chunk": self.prefill_chunk}
        return found if self.prepacked is None else {**found, "prepacked": self.prepacked}


@dataclass(frozen=True, slots=True, config=STRICT)
class TuningFile:
    """The file's content."""

    fingerprint: Fingerprint
    tuning: Tuning


def tuning_path(state: Path, manifest: Manifest) -> Path:
    """Return where the tuning of a model is kept in the state directory."""
    return state / "tuning" / f"{manifest.name}.json"


def save_tuning(path: Path, fingerprint: Fingerprint, tuning: Tuning) -> None:
    """Replace what is kept."""
    replace_text(path, json.dumps(asdict(TuningFile(fingerprint, tuning)), indent=2) + "\n")


def read_tuning(path: Path, fingerprint: Fingerprint) -> Tuning | None:
    """Return what was measured, None where nothing was.

    Raises:
        TuningError: The file is broken, or it was measured on or for something else.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TuningError(path, error.strerror or str(error)) from error
    try:
        kept: TuningFile = TypeAdapter(TuningFile).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise TuningError(path, f"{'.'.join(map(str, first['loc'])) or 'not JSON'}: {first['msg']}") from error
    if differences := kept.fingerprint.differences(fingerprint):
        raise TuningError(path, "; ".join(differences))
    return kept.tuning
