"""A LoRA adapter in PEFT's layout becomes a file that a board uses with one bundle while that runs (`--lora-rank`).

Nothing is computed but the scaling, and nothing of the checkpoint is read: the bundle's manifest says what there is to
change. What a graph does not take (the embedding, the head, experts of a mixture) is refused; `model --adapter` merges
that too.
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

from edge_assistant.bundle import (
    MANIFEST_FILE,
    PARTS,
    Factors,
    LoraAbout,
    LoraFile,
    Manifest,
    read_manifest,
)
from edge_assistant.errors import BundleKindError, LoraGraphError, OutputWriteError
from edge_assistant_export.adapter import Adapter
from edge_assistant_export.publish import check_file, replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from edge_assistant_export.hub import Location


def convert(location: Location, bundle: Path, out: Path, *, overwrite: bool = False) -> LoraFile:
    """Write an adapter for the bundle in a folder, and return what was written; `out` is whole or not there.

    Raises:
        OutputExistsError: `out` is there and is not to be overwritten, or is a folder.
        OutputWriteError: The disk is full or otherwise refuses.
        AdapterError: The adapter is broken, of a kind that is not known, or was trained on a model of another shape.
        LoraGraphError: The bundle takes no adapter, none of its rank, or none for one of its matrices.
        BundleError: The folder is no bundle of a language model.
        PathEncodingError
    """
    check_file(out, overwrite=overwrite)
    manifest = read_manifest(bundle)
    if not isinstance(manifest, Manifest):
        raise BundleKindError(bundle / MANIFEST_FILE, manifest.KIND, Manifest.KIND)
    with closing(Adapter(location, manifest.architecture)) as adapter:
        file = _read(adapter, location, manifest)
    file.check(location.folder, manifest)
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        replace_file(out.absolute(), file.to_bytes())
    except OSError as error:
        raise OutputWriteError(out, None, error) from error
    return file


def _read(adapter: Adapter, location: Location, manifest: Manifest) -> LoraFile:
    """Return the adapter's content; a matrix that the graph does not take is refused before any is read."""
    if manifest.lora is None:
        raise LoraGraphError(location.folder, manifest.name)
    parts = {part for matrix in manifest.lora.matrices for part in PARTS[matrix]}
    for name in adapter.changed:
        if re.sub(r"^layers\.\d+\.", "", name) not in parts:
            problem = f"it changes {name}, and its graph lets only {', '.join(manifest.lora.matrices)} change"
            raise LoraGraphError(location.folder, manifest.name, f"{problem}; merge it with `model --adapter`")
    factors = {name: Factors(*adapter.factors(name)) for name in adapter.changed}
    return LoraFile(LoraAbout.of(adapter.source, manifest, factors), factors)
