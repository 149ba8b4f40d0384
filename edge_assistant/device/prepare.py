"""What has been measured and written on this device, for this device: made on request, and used at every load.

    tune       measures, and keeps the settings that were fastest          <state>/tuning/<model>.json
    warm       writes the weights as this processor packs them             <state>/prepacked/<model>/<key>/
    prepare    applies both, except where the configuration sets a key

What is stale or broken is left out with a warning that names the command to run again: a load never fails by it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_assistant.bundle import SEEN_FILE
from edge_assistant.device.cpu import Cpu, this_cpu
from edge_assistant.device.loaded import loaded
from edge_assistant.device.state import check_writable
from edge_assistant.engine.measure import Clock, Tuner
from edge_assistant.engine.prepacked import find_prepacked, prepacked_folder, size_of, write_prepacked
from edge_assistant.engine.tuning import Fingerprint, read_tuning, save_tuning, tuning_path
from edge_assistant.errors import PrepackedError, TuningError

if TYPE_CHECKING:
    from edge_assistant.bundle import Bundle
    from edge_assistant.config import EngineSettings, Settings
    from edge_assistant.engine.tuning import Tuning

_LOG = logging.getLogger(__name__)
_INT8_LEVEL: Final = 4
"""MatMulNBits' accuracy level that multiplies in int8."""
_QUICKLY_WRITTEN: Final = 512 << 20
"""Bytes that any card takes within the time that measuring may last."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """How a bundle is to be loaded here."""

    settings: EngineSettings
    prepacked: Path | None
    """The folder of its prepacked weights, where there are some that hold."""
    row_cost: float | None = None
    """What a row more costs in steps of one row, where that was measured."""


def prepare(bundle: Bundle, settings: Settings, state: Path) -> Prepared:
    """Return the settings as tuned for this device, and the prepacked weights; log what is used and what is not."""
    cpu = this_cpu()
    if warning := float32_warning(bundle, cpu):
        _LOG.warning("%s", warning)
    fingerprint = Fingerprint.of(bundle.manifest, str(cpu))
    tuning = _tuning(bundle, state, fingerprint)
    engine, row_cost = (settings.engine, None) if tuning is None else (_tuned(settings, tuning), tuning.row_cost)
    if not engine.prepacked:
        return Prepared(engine, None, row_cost)
    try:
        folder = find_prepacked(prepacked_folder(state, bundle.manifest, fingerprint), fingerprint, state / SEEN_FILE)
    except PrepackedError as error:
        _LOG.warning("%s", error)
        return Prepared(engine, None, row_cost)
    if folder:
        _LOG.info("prepacked weights are mapped from %s", folder)
    return Prepared(engine, folder, row_cost)


def tune(bundle: Bundle, settings: EngineSettings, state: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure, keep what was found, and return it; `progress` is told what is being measured.

    Prepacked weights are measured where `warm` has written them. Of a small model they are written here, and stay only
    where they pay.

    Raises:
        StateDirectoryError: What is found could not be kept.
    """
    path = tuning_path(state, bundle.manifest)
    check_writable(path.parent)
    cpu = this_cpu()
    if warning := float32_warning(bundle, cpu):
        progress(warning)
    fingerprint = Fingerprint.of(bundle.manifest, str(cpu))
    folder = prepacked_folder(state, bundle.manifest, fingerprint)
    written = not folder.is_dir() and size_of(bundle) <= _QUICKLY_WRITTEN
    try:
        prepacked = _to_measure(bundle, settings, folder, fingerprint, state / SEEN_FILE, progress, write=written)
        written = written and prepacked is not None  # else what is there is another's
        found = Tuner(bundle, settings, Clock(progress)).run(
            thread_counts(cpu.cores), prepacked, lambda packed: loaded(bundle, settings, packed).anonymous
        )
        written = written and not found.prepacked
    finally:  # as well where it was interrupted: what was not found to pay would be loaded
        if written:
            shutil.rmtree(folder, ignore_errors=True)
    save_tuning(path, fingerprint, found)
    return {"model": bundle.manifest.name, "cpu": str(cpu), "saved": str(path), **asdict(found)}


def warm(bundle: Bundle, settings: EngineSettings, state: Path) -> dict[str, Any]:
    """Write the prepacked weights, and return where they are and what a load takes with them and without.

    Raises:
        StateDirectoryError: The state directory cannot be written.
        PrepackedError: They cannot be written, or do not answer like the bundle's own.
    """
    fingerprint = Fingerprint.of(bundle.manifest, str(this_cpu()))
    folder = prepacked_folder(state, bundle.manifest, fingerprint)
    check_writable(folder.parent)
    write_prepacked(bundle, settings, folder, fingerprint)
    find_prepacked(folder, fingerprint, state / SEEN_FILE)  # hashed now, it is not when the next load waits
    without, with_them = loaded(bundle, settings, None), loaded(bundle, settings, folder)
    return {
        "model": bundle.manifest.name,
        "saved": str(folder),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "anonymous_bytes_without": without.anonymous,
        "anonymous_bytes_with": with_them.anonymous,
        "file_bytes_without": without.file,
        "file_bytes_with": with_them.file,
    }


def float32_warning(bundle: Bundle, cpu: Cpu) -> str | None:
    """Return what to tell of a bundle that asks for int8 products where the processor has none, None else."""
    stored = bundle.manifest.quantization
    return cpu.float32_warning if stored.quantized and stored.accuracy_level == _INT8_LEVEL else None


def thread_counts(cores: int) -> list[int]:
    """Return the numbers of threads that are worth a try, the likeliest first; fewer may fill the memory's bus."""
    return [number for number in dict.fromkeys((cores, cores // 2, cores - 1, 3 * cores // 4)) if number > 0]


def _to_measure(
    bundle: Bundle,
    settings: EngineSettings,
    folder: Path,
    fingerprint: Fingerprint,
    seen: Path,
    progress: Callable[[str], None],
    *,
    write: bool,
) -> Path | None:
    """Return the folder of prepacked weights, written first where they are to be; None where there are none to use."""
    try:
        if write:
            progress("writing prepacked weights")
            write_prepacked(bundle, settings, folder, fingerprint)
        return find_prepacked(folder, fingerprint, seen)
    except PrepackedError as error:
        progress(str(error))
        return None


def _tuning(bundle: Bundle, state: Path, fingerprint: Fingerprint) -> Tuning | None:
    try:
        return read_tuning(tuning_path(state, bundle.manifest), fingerprint)
    except TuningError as error:
        _LOG.warning("%s", error)
        return None


def _tuned(settings: Settings, tuning: Tuning) -> EngineSettings:
    found = tuning.settings()
    used = {key: value for key, value in found.items() if settings.origin("engine", key) == "default"}
    kept = [f"engine.{key}" for key in found if key not in used]
    _LOG.info(
        "tuned for this device: %s%s",
        ", ".join(f"{key} = {value}" for key, value in used.items()) or "nothing",
        f" ({', '.join(kept)} as the configuration says)" if kept else "",
    )
    return settings.engine.model_copy(update=used)
