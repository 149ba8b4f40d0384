"""Bundles whose kind is not known beforehand: listed, verified and copied alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant.bundle.embedding import EmbeddingBundle, EmbeddingManifest
from edge_assistant.bundle.folder import FORMAT_VERSION, MANIFEST_FILE, read_text, version_and_kind
from edge_assistant.bundle.language import Bundle, Manifest
from edge_assistant.bundle.speech import SpeechBundle, SpeechManifest
from edge_assistant.errors import BundleManifestError, BundleVersionError, ModelNotFoundError

if TYPE_CHECKING:
    from typing import Final

AnyManifest = Manifest | SpeechManifest | EmbeddingManifest
AnyBundle = Bundle | SpeechBundle | EmbeddingBundle

_BUNDLES: Final[dict[str, type[AnyBundle]]] = {
    "language": Bundle,
    "speech": SpeechBundle,
    "embedding": EmbeddingBundle,
}


def open_bundle(path: Path | str, seen: Path | None = None) -> AnyBundle:
    """Check a bundle of any kind and return it; see `Folder.open`.

    Raises:
        BundleFileMissingError, BundleManifestError, BundleVersionError, BundleSizeError, BundleHashError
    """
    return _bundle_class(Path(path)).open(path, seen)


def read_manifest(path: Path) -> AnyManifest:
    """Read the manifest in a bundle's folder, of whatever kind, and check nothing else.

    Raises:
        BundleFileMissingError, BundleManifestError, BundleVersionError
    """
    return _bundle_class(path).MANIFEST.from_json(read_text(path), path / MANIFEST_FILE)


def _bundle_class(path: Path) -> type[AnyBundle]:
    version, kind = version_and_kind(read_text(path), path / MANIFEST_FILE)
    if kind is not None and kind in _BUNDLES:
        return _BUNDLES[kind]
    if version is not None and version != FORMAT_VERSION:
        raise BundleVersionError(path / MANIFEST_FILE, version, FORMAT_VERSION)
    problem = "Field required" if kind is None else f"{kind!r} is none of {', '.join(_BUNDLES)}"
    raise BundleManifestError(path / MANIFEST_FILE, [f"kind: {problem}"])


def find_model(name_or_path: str | Path, folders: Sequence[Path]) -> Path:
    """Return the bundle's folder: a path as it stands, or a name looked up in the folders in turn.

    Raises:
        ModelNotFoundError: No folder with a manifest is there; it says where was looked and how to get one.
    """
    looked = [_expanded(Path(name_or_path)), *(folder / name_or_path for folder in folders)]
    for path in looked:
        if (path / MANIFEST_FILE).is_file():
            return path
    raise ModelNotFoundError(str(name_or_path), looked)


def _expanded(path: Path) -> Path:
    """Return a path with its `~` replaced, or as it stands where nobody is called so."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
