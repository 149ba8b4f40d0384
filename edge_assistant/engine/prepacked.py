"""Weights as this processor's kernels pack them, written once and mapped from then on.

onnxruntime packs the weights of every matrix anew when it loads a bundle, and keeps them as memory of its own: 4 GB for
a 7B, which the system cannot take back. Written to a file beside the raw ones, they are mapped like any other file.

    <state>/prepacked/<model>/<key>/    key: of the bundle, the processor and the version of onnxruntime
      model.onnx  model.onnx.data       about 2.5 times the bundle's
      record.json                       size and hash of both, and what they were packed from

The layout is the processor's and onnxruntime's alone. A folder gets its name once it is whole, and by then it has
answered exactly like the bundle; one for something else is never looked at, and removed when a new one is written.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from edge_assistant.bundle import GRAPH_FILE, WEIGHTS_FILE, Bundle, FileEntry, check_files
from edge_assistant.bundle.folder import STRICT
from edge_assistant.bundle.in_place import put_in_place, sync
from edge_assistant.engine.align import align
from edge_assistant.engine.child import ChildError, in_a_child
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.runtime import VERSION, save_prepacked
from edge_assistant.engine.session import Session
from edge_assistant.engine.tuning import Fingerprint
from edge_assistant.errors import BundleError, PrepackedError

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from edge_assistant.bundle import Manifest
    from edge_assistant.config import EngineSettings

_RECORD: Final = "record.json"
_TRIED: Final = ((1, 2, 3, 4, 5, 6, 7, 8), (9,))
"""Tokens of the steps that both must answer alike: kernels differ by the number of rows."""


@dataclass(frozen=True, slots=True, config=STRICT)
class _Record:
    fingerprint: Fingerprint
    files: Mapping[str, FileEntry]


def prepacked_folder(state: Path, manifest: Manifest, fingerprint: Fingerprint) -> Path:
    """Return where the prepacked weights of a model are, or would be."""
    return state / "prepacked" / manifest.name / fingerprint.key


def find_prepacked(folder: Path, fingerprint: Fingerprint, seen: Path | None) -> Path | None:
    """Return the folder if it holds what is to be mapped, None where there is none; `seen` is as for `Bundle.open`.

    Raises:
        PrepackedError: It is broken.
    """
    if not folder.is_dir():
        return None
    try:
        record: _Record = TypeAdapter(_Record).validate_json((folder / _RECORD).read_bytes())
        if record.fingerprint != fingerprint or record.files.keys() != {GRAPH_FILE, WEIGHTS_FILE}:
            raise PrepackedError(folder, f"{_RECORD} is that of another folder")
        check_files(folder, record.files, seen)
    except OSError as error:
        raise PrepackedError(folder, error.strerror or str(error)) from error
    except ValidationError as error:
        raise PrepackedError(folder, f"{_RECORD} cannot be read") from error
    except BundleError as error:
        raise PrepackedError(folder, str(error)) from error
    return folder


def write_prepacked(bundle: Bundle, settings: EngineSettings, folder: Path, fingerprint: Fingerprint) -> None:
    """Write the folder, in place of all that were written for this model before; those stay until it is whole.

    Raises:
        PrepackedError: The disk cannot take it, another process writes there, or the packed weights do not answer like
            the bundle's own.
    """
    try:
        with _alone(folder):
            _write(bundle, settings, folder, fingerprint)
    except BlockingIOError as error:
        raise PrepackedError(folder, "another process is writing them") from error
    except OSError as error:
        raise PrepackedError(folder, error.strerror or str(error)) from error


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Hold what is written for a model alone; BlockingIOError where another process does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _write(bundle: Bundle, settings: EngineSettings, folder: Path, fingerprint: Fingerprint) -> None:
    for left in folder.parent.glob("*.partial"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    _check_space(bundle, folder)
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        partial.mkdir()
        save_prepacked(bundle, settings, partial)
        align(partial / GRAPH_FILE, partial / WEIGHTS_FILE)
        _compare(bundle, settings, partial, folder)
        record = _Record(fingerprint, {name: FileEntry.of(partial / name) for name in (GRAPH_FILE, WEIGHTS_FILE)})
        (partial / _RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        for name in (GRAPH_FILE, WEIGHTS_FILE, _RECORD):
            sync(partial / name)
        put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in folder.parent.iterdir():
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def size_of(bundle: Bundle) -> int:
    """Return about how many bytes the folder of a bundle takes: the raw weights, and the packed ones beside them."""
    return 5 * bundle.manifest.files[WEIGHTS_FILE].bytes // 2


def _check_space(bundle: Bundle, folder: Path) -> None:
    existing = next(parent for parent in folder.parents if parent.is_dir())
    if (free := shutil.disk_usage(existing).free) < size_of(bundle):
        raise PrepackedError(folder, f"it takes about {size_of(bundle)} bytes, and {free} are free")


def _compare(bundle: Bundle, settings: EngineSettings, packed: Path, folder: Path) -> None:
    """Compare the answers of what lies in `packed` with the bundle's; raise PrepackedError for `folder` if they differ.

    In a process of its own, for kernels crash over weights that are not packed as they expect (`align.py`).
    """
    try:
        # As a bundle of its own, so that one that cannot be loaded is no answer by way of the other's weights.
        answers = in_a_child(_answers, Bundle(packed, bundle.manifest), settings)
    except ChildError as error:
        crash = f"onnxruntime {VERSION} crashes over what it has packed of this model"
        raise PrepackedError(folder, error.problem or crash) from error
    if not np.array_equal(answers, _answers(bundle, settings)):
        raise PrepackedError(folder, "the packed weights do not answer like the bundle's own")


def _answers(bundle: Bundle, settings: EngineSettings) -> NDArray[np.float32]:
    """Return the logits after some steps, [steps, vocab]."""
    cache = KvCache(bundle.manifest, sum(map(len, _TRIED)))
    session = Session(bundle, cache, settings.model_copy(update={"provider": "cpu"}))
    return np.stack([session.run(step).copy() for step in _TRIED])
