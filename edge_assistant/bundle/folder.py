"""What bundles of every kind share: a manifest that names the size and hash of every other file, and their checks."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from edge_assistant.errors import (
    BundleFileMissingError,
    BundleHashError,
    BundleKindError,
    BundleManifestError,
    BundleSizeError,
    BundleVersionError,
    PathEncodingError,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LOG = logging.getLogger(__name__)

FORMAT_VERSION = 1

MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
SEEN_FILE = "seen.json"
"""In the state directory: which files have been hashed."""

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Size = Annotated[int, Field(gt=0)]
Id = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


def _one_folder(name: str) -> str:
    if name in {"", ".", ".."} or "/" in name or not name.isprintable():
        raise ValueError(f"{name!r} is no name for a folder")
    return name


ModelName = Annotated[str, AfterValidator(_one_folder)]
"""A model's folders in the state directory are called by it, and are replaced: it must not lead out of there."""

Kind = Literal["language", "speech", "embedding"]
"""What a bundle's model is for."""


@dataclass(frozen=True, slots=True, config=STRICT)
class Origin:
    """The checkpoint, as transformers saves it, that the bundle was made from."""

    name: str
    """`organisation/model` where it came from the hub, else the folder's own name."""
    revision: str | None


@dataclass(frozen=True, slots=True, config=STRICT)
class FileEntry:
    """What a file must be."""

    bytes: Id
    sha256: Sha256

    @classmethod
    def of(cls, path: Path) -> Self:
        """Measure a file."""
        return cls(path.stat().st_size, _sha256(path))


class ManifestFile:
    """The text of a manifest: each kind is a dataclass of its own, which inherits the reading and writing."""

    __slots__ = ()

    KIND: ClassVar[Kind]
    REQUIRED: ClassVar[frozenset[str]]
    """The files without which a board cannot use the bundle."""

    name: ModelName
    files: Mapping[FileName, FileEntry]

    @property
    def identity(self) -> str:
        """The hash of the sizes and hashes of all files: what was computed with other files has another."""
        files = json.dumps({name: asdict(entry) for name, entry in self.files.items()}, sort_keys=True)
        return hashlib.sha256(files.encode()).hexdigest()

    def to_json(self: DataclassInstance) -> str:
        """Return the text of manifest.json."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, path: Path = Path(MANIFEST_FILE)) -> Self:
        """Read the text of manifest.json; `path` is for the messages.

        Raises:
            BundleVersionError: It was written by an exporter this runtime does not know.
            BundleKindError: It is the manifest of another kind.
            BundleManifestError: It is no JSON, or a key is unknown, missing or of the wrong kind.
        """
        version, kind = version_and_kind(text, path)
        if version is not None and version != FORMAT_VERSION:
            raise BundleVersionError(path, version, FORMAT_VERSION)
        if kind not in {None, cls.KIND}:
            raise BundleKindError(path, kind, cls.KIND)
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, item['loc'])) or 'top level'}: {item['msg']}" for item in error.errors()]
            raise BundleManifestError(path, problems) from error


M = TypeVar("M", bound=ManifestFile)


def version_and_kind(text: str | bytes, path: Path) -> tuple[int | None, str | None]:
    """Return what decides how a manifest is read: its format's version and its kind, None where it says none.

    Raises:
        BundleManifestError: It is no JSON.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleManifestError(path, [f"not JSON: {error}"]) from error
    raw = raw if isinstance(raw, dict) else {}
    version = raw.get("format_version")
    kind = raw.get("kind")
    return version if isinstance(version, int) else None, None if kind is None else str(kind)


class Folder(Generic[M]):
    """A bundle's folder whose manifest has been read and whose files are what it says."""

    MANIFEST: ClassVar[type[ManifestFile]]

    def __init__(self, path: Path, manifest: M) -> None:
        """Take what `open` has checked."""
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str, seen: Path | None = None) -> Self:
        """Check a bundle and return it.

        Version and sizes are checked every time. Hashing 4 GB costs half a minute, so a file is hashed when it is first
        seen and when its size or time has changed since; `seen` is the file that remembers. Without it all are hashed.

        Raises:
            BundleFileMissingError, BundleManifestError, BundleVersionError, BundleKindError, BundleSizeError,
            BundleHashError, PathEncodingError
        """
        path = Path(path)
        manifest = cls.MANIFEST.from_json(read_text(path), path / MANIFEST_FILE)
        if unlisted := sorted(manifest.REQUIRED - manifest.files.keys()):
            problems = [f"files: {name} is not listed" for name in unlisted]
            raise BundleManifestError(path / MANIFEST_FILE, problems)
        bundle = cls(path, manifest)  # type: ignore[arg-type]  # MANIFEST is M's class
        check_files(path, manifest.files, seen)
        return bundle

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer's file."""
        return self.path / TOKENIZER_FILE


def check_files(folder: Path, files: Mapping[str, FileEntry], seen: Path | None) -> None:
    """Check the sizes of files in a folder, and the hashes of those that `seen` does not know as they are now.

    Raises:
        BundleFileMissingError, BundleSizeError, BundleHashError
    """
    check_sizes(folder, files)
    _check_hashes(folder, files, seen)


def check_sizes(folder: Path, files: Mapping[str, FileEntry]) -> None:
    """Check that the files are in a folder, and how long they are.

    Raises:
        BundleFileMissingError, BundleSizeError
    """
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            raise BundleFileMissingError(file)
        if (actual := file.stat().st_size) != entry.bytes:
            raise BundleSizeError(file, entry.bytes, actual)


def _check_hashes(folder: Path, files: Mapping[str, FileEntry], seen: Path | None) -> None:
    known = _read_seen(seen)
    marks = {}
    for name, entry in files.items():
        file = (folder / name).resolve()
        status = file.stat()
        mark = [status.st_size, status.st_mtime_ns, entry.sha256]
        if known.get(str(file)) != mark and (actual := _sha256(file)) != entry.sha256:
            raise BundleHashError(file, entry.sha256, actual)
        marks[str(file)] = mark
    if seen is not None and known != (known | marks):
        _write_seen(seen, known | marks)


def read_text(path: Path) -> bytes:
    """Return the manifest of the bundle in a folder.

    Raises:
        BundleFileMissingError: There is none.
        PathEncodingError
    """
    check_path(path)
    if not (path / MANIFEST_FILE).is_file():
        raise BundleFileMissingError(path / MANIFEST_FILE)
    return (path / MANIFEST_FILE).read_bytes()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_seen(path: Path | None) -> dict[str, Any]:
    """Return what is remembered; an unreadable memory is an empty one, since it only saves time."""
    try:
        seen = json.loads(path.read_bytes()) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return seen if isinstance(seen, dict) else {}


def _write_seen(path: Path, seen: Mapping[str, Any]) -> None:
    try:
        replace_text(path, json.dumps(seen, indent=1))
    except OSError as error:
        _LOG.warning("%s cannot be written (%s): every start hashes the whole model anew", path, error.strerror)


def check_path(path: Path) -> None:
    """Refuse a path that is not in UTF-8, as whoever writes or loads what lies there would, later and less plainly.

    Raises:
        PathEncodingError
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise PathEncodingError(path) from error


def replace_text(path: Path, text: str) -> None:
    """Write a file, and its folder where there is none: a reader finds the old text or the new, never a part.

    What a full disk or Ctrl-C leaves of it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
