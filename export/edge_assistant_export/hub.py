"""Finds the folder of a checkpoint or of an adapter: on this machine, in the hub's cache, or fetched from the hub.

A repository of Mistral's often holds the same weights in both layouts; only one of them is fetched. Of an adapter's
repository only the adapter is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is that of requests or httpx
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # its list of names lacks it
from tqdm import tqdm

from edge_assistant.bundle import check_path
from edge_assistant.errors import CheckpointError, HubAccessError
from edge_assistant_export.layouts import LAYOUTS, Layout

# Everything but the weights: small, so all that may be needed is fetched first, and decides which weights are.
_SMALL_FILES: Final = [
    *(layout.config_file for layout in LAYOUTS),
    *(layout.index_file for layout in LAYOUTS),
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model*",
    "tekken.json",
    "chat_template.*",
    "assistant.json",
    "README.md",
]
ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# Lists the blobs of a cached repository that were hashed.
_CHECKED: Final = ".checked-by-edge-assistant"
_CACHE_FOLDER: Final = re.compile(r"models--(?P<organisation>[\w.-]+)--(?P<model>[\w.-]+)")


@dataclass(frozen=True, slots=True)
class Location:
    """A folder, and what is known of where it came from."""

    folder: Path
    name: str
    """`organisation/model` where it came from the hub, else the folder's own name."""
    revision: str | None
    """The commit, None for a folder that did not come from the hub."""


def locate(
    path_or_hub_id: str | Path, revision: str | None = None, *, weights: bool = True, also: Sequence[str] = ()
) -> Location:
    """Return the folder of a checkpoint, fetching it where it is a hub id, with its weights or without.

    `also` are patterns of small files to fetch beside those of a language model.

    A folder of the hub's cache (`models--organisation--model`, or one of its snapshots) is known by its name.

    Raises:
        CheckpointError: It is neither a folder nor looks like a hub id, or a plain folder was given with a revision.
        HubAccessError: The hub does not give it.
        PathEncodingError
    """
    return _locate(path_or_hub_id, revision, "checkpoint", partial(_fetch_checkpoint, weights=weights, also=also))


def locate_adapter(path_or_hub_id: str | Path, revision: str | None = None) -> Location:
    """Return the folder of an adapter, found or fetched as that of a checkpoint is; see `locate`."""
    return _locate(path_or_hub_id, revision, "adapter", _fetch_adapter)


def _locate(
    path_or_hub_id: str | Path, revision: str | None, what: str, fetch: Callable[[str, str | None], Path]
) -> Location:
    path = _expanded(Path(path_or_hub_id))
    if path.is_dir():
        return _locate_folder(path, revision)
    if path.exists():
        raise CheckpointError(path, f"it is a file; name the folder that holds the {what}")
    if not _is_hub_id(name := str(path_or_hub_id)):
        raise CheckpointError(path, "there is no such folder, and it is no hub id (organisation/model) either")
    with _explained(name, revision):
        folder = fetch(name, revision)
    return Location(folder, name, folder.name)


def _expanded(path: Path) -> Path:
    """Return a path with its `~` replaced, or as it stands where nobody is called so."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _is_hub_id(name: str) -> bool:
    """Return whether the hub could have a repository of this name, by our pattern and its own rules."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return _HUB_ID.fullmatch(name) is not None


def _locate_folder(path: Path, revision: str | None) -> Location:
    path = path.absolute()
    check_path(path)
    if _CACHE_FOLDER.fullmatch(path.name):
        path = _snapshot(path, revision)
    cached = _CACHE_FOLDER.fullmatch(path.parent.parent.name) if path.parent.name == "snapshots" else None
    if cached is None:
        if revision is not None:
            raise CheckpointError(path, f"revision {revision} cannot be had from a folder, only from a hub id")
        return Location(path, path.name, None)
    if revision is not None and (_read_ref(path.parent.parent, revision) or revision) != path.name:
        raise CheckpointError(
            path, f"this snapshot is not revision {revision}; name the folder {path.parent.parent.name}"
        )
    return Location(path, f"{cached['organisation']}/{cached['model']}", path.name)


def _snapshot(cache: Path, revision: str | None) -> Path:
    """Return the folder of a revision (a branch, a tag or a commit) in a folder of the hub's cache."""
    wanted = revision or "main"
    snapshot = cache / "snapshots" / (_read_ref(cache, wanted) or wanted)
    if snapshot.is_dir():
        return snapshot
    there = sorted(folder.name for folder in cache.glob("snapshots/*"))
    raise CheckpointError(cache, f"it holds no revision {wanted}; there is {', '.join(there) or 'none at all'}")


def _read_ref(cache: Path, name: str) -> str | None:
    ref = cache / "refs" / name
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def _fetch_checkpoint(name: str, revision: str | None, *, weights: bool, also: Sequence[str]) -> Path:
    """Return the folder into which the hub's files were fetched; what is in the cache is not fetched again."""
    folder = _download(name, revision, [*_SMALL_FILES, *also])
    for layout in LAYOUTS:
        if weights and (folder / layout.config_file).is_file():
            _download(name, folder.name, _weights(folder, layout))
            if any(folder.glob(layout.weights)):
                break
    return folder


def _fetch_adapter(name: str, revision: str | None) -> Path:
    return _download(name, revision, [ADAPTER_CONFIG, ADAPTER_WEIGHTS])


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Fetch those files of a repository that are not in the cache, and return their folder, all of them checked."""
    folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    _check_hashes(name, folder)
    return folder


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Say of what the hub answers what it means and how to go on."""
    try:
        yield
    except HubAccessError:
        raise
    except GatedRepoError as error:
        mend = f"Accept its licence at https://huggingface.co/{name}, then log in with `hf auth login`"
        raise HubAccessError(name, "it is gated", mend) from error
    except RepositoryNotFoundError as error:
        mend = "Check the name (organisation/model); for a private one, log in with `hf auth login`"
        raise HubAccessError(name, "there is no such model, or it is private", mend) from error
    except RevisionNotFoundError as error:
        mend = f"https://huggingface.co/{name}/tree/main lists the branches and tags"
        raise HubAccessError(name, f"it has no revision {revision}", mend) from error
    except LocalEntryNotFoundError as error:
        mend = f"Go online, or fetch it elsewhere with `hf download {name}` and name the folder"
        raise HubAccessError(name, "the hub cannot be reached and the cache does not hold it", mend) from error
    except (OSError, HTTPError) as error:
        mend = "What has arrived is kept: run the same command again"
        raise HubAccessError(name, f"the download broke off ({error})", mend) from error


def _check_hashes(name: str, folder: Path) -> None:
    """Hash the large files of a snapshot once, and remove what is not what the hub has.

    Their blobs are named by their SHA-256. Which were hashed is noted beside them, so that those that arrived before a
    download broke off are hashed when it is gone on with, and none is hashed at every start.

    Raises:
        HubAccessError
    """
    note = folder.parents[1] / _CHECKED
    checked = set(note.read_text(encoding="utf-8").splitlines()) if note.is_file() else set()
    files = {file.resolve() for file in folder.rglob("*") if file.is_file()}  # the link of a removed blob is none
    blobs = {file for file in files if _SHA256.fullmatch(file.name)}
    unchecked = sorted(blob for blob in blobs if _mark(blob) not in checked)
    for blob in tqdm(unchecked, "checking", disable=None if unchecked else True, leave=False):
        with blob.open("rb") as file:
            broken = hashlib.file_digest(file, "sha256").hexdigest() != blob.name
        if broken:
            blob.unlink()
            raise HubAccessError(
                name, "a file arrived broken and was removed", "Run the same command again: only that file is fetched"
            )
        # A cache that belongs to another user is hashed each time.
        with suppress(PermissionError), note.open("a", encoding="utf-8") as notes:
            notes.write(f"{_mark(blob)}\n")


def _mark(blob: Path) -> str:
    """Return what tells that a blob is the one that was hashed."""
    return f"{blob.name} {blob.stat().st_mtime_ns}"


def _weights(folder: Path, layout: Layout) -> list[str]:
    """Return the files of weights to fetch: the shards that the index names, or else all of the layout's pattern.

    Raises:
        CheckpointError: The index cannot be read.
    """
    index = folder / layout.index_file
    return sorted(set(read_index(index).values())) if index.is_file() else [layout.weights]


def read_index(path: Path) -> dict[str, str]:
    """Return the file of every tensor, from an index of shards.

    Raises:
        CheckpointError: It cannot be read, or names a file outside the folder.
    """
    try:
        files = json.loads(path.read_bytes())["weight_map"]
        outside = sorted({file for file in files.values() if Path(file).name != file})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(path, f"it is no index of shards ({error!r}); download it again") from error
    if outside:
        raise CheckpointError(path, f"it names {outside[0]!r}, which lies outside the checkpoint's folder")
    return dict(files)
