"""`models list|inspect|verify|add`."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_assistant.bundle import (
    MANIFEST_FILE,
    AnyManifest,
    Manifest,
    SpeechManifest,
    check_sizes,
    find_model,
    open_bundle,
    read_manifest,
)
from edge_assistant.bundle.in_place import put_in_place, recover, sync
from edge_assistant.config import Settings, state_directory
from edge_assistant.device.state import check_writable
from edge_assistant.errors import BundleError, PathEncodingError

if TYPE_CHECKING:
    from argparse import Namespace

    from edge_assistant.config import EngineSettings

_MB = 1e6


def list_models(args: Namespace) -> int:
    """List what a name would find, in the order of the search; what cannot be read is named on standard error."""
    settings = Settings.load(args.config)
    manifests = [path for folder in settings.model_folders for path in sorted(folder.glob(f"*/{MANIFEST_FILE}"))]
    rows = [row for path in manifests if (row := _summary(path.parent))]
    if args.json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return 0
    for row in rows:
        print(f"{row['name']:20} {row['bits']:>2} bit {row['bytes'] / _MB:8.1f} MB  {row['kind']:9}  {row['path']}")
    if not rows:
        print("no models in", *settings.model_folders, sep="\n  ")
    return 0


def inspect(args: Namespace) -> int:
    """Show what a model is, and how many tokens its cache holds with these settings."""
    settings = Settings.load(args.config)
    path = find_model(args.model, settings.model_folders)
    manifest = read_manifest(path)
    if args.json:
        print(json.dumps({"path": str(path), **asdict(manifest)}, ensure_ascii=False, indent=2))
        return 0
    quality = ", ".join(f"{name} {value:.4g}" for name, value in (manifest.quality or {}).items())
    facts = {
        "name": manifest.name,
        "kind": manifest.KIND,
        "path": path,
        "made by": manifest.created_by,
        "from": manifest.source.name,
        "licence": manifest.licence or "not stated",
        **_facts(manifest, settings.engine),
        "size": f"{_bundle_bytes(manifest) / _MB:.1f} MB",
        "quality": quality or "not measured",
    }
    for name, value in facts.items():
        print(f"{name + ':':12}{value}")
    return 0


def _facts(manifest: AnyManifest, settings: EngineSettings) -> dict[str, str]:
    """Return what is only said of a kind."""
    if isinstance(manifest, Manifest):
        shape, stored, cache, lora = manifest.architecture, manifest.quantization, manifest.cache_size, manifest.lora
        budget = settings.kv_cache_bytes
        sequences = settings.sequences or cache.sequences(budget)
        context = f"{cache.holds(budget // sequences)} of {shape.max_positions} tokens in {budget} bytes"
        context += f" for each of {sequences} sequences" if sequences > 1 else ""
        beyond = f" ({cache.per_late_token} beyond {cache.bound})" if cache.bound < shape.max_positions else ""
        return {
            "layout": manifest.source.layout,
            "layers": f"{shape.n_layers} of {shape.hidden_size}, {shape.n_heads} heads over {shape.n_kv_heads}",
            "vocabulary": f"{shape.vocab_size} tokens, instruct format {manifest.instruct or 'none'}",
            "weights": f"{stored.bits} bit" + (f" in blocks of {stored.block_size}" if stored.block_size else ""),
            **({} if stored.dtype == "float32" else {"computes": f"in {stored.dtype}"}),
            **({"8 bit": ", ".join(stored.eight_bits)} if stored.eight_bits else {}),
            **({"block 32": ", ".join(stored.small_blocks)} if stored.small_blocks else {}),
            **(
                {"adapters": f"up to rank {lora.rank} in {', '.join(lora.matrices)}"} if (lora := manifest.lora) else {}
            ),
            "cache": f"{manifest.cache.type}, {cache.per_token} bytes a token{beyond}, {context}",
        }
    if isinstance(manifest, SpeechManifest):
        heard, languages = manifest.audio, len(manifest.tokens.languages)
        return {
            "weights": f"{manifest.architecture.family}, {manifest.bits} bit",
            "hears": f"{heard.sampling_rate} samples a second, {languages or 'no choice of'} languages",
        }
    return {
        "weights": f"{manifest.architecture.family}, {manifest.bits} bit",
        "vector": f"{manifest.embedding_size} numbers of up to {manifest.max_length} tokens, by {manifest.pooling}",
    }


def verify(args: Namespace) -> int:
    """Hash every file of a model."""
    path = find_model(args.model, Settings.load(args.config).model_folders)
    open_bundle(path)  # which hashes all, as it is told of none that was seen before
    print(f"{path}: every file is what its manifest says")
    return 0


def add(args: Namespace) -> int:
    """Copy a model into the state directory under its own name; the copy takes its place once it is verified."""
    path = find_model(args.model, Settings.load(args.config).model_folders)
    manifest = read_manifest(path)
    check_sizes(path, manifest.files)
    target = state_directory() / "models" / manifest.name
    recover(target)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    check_writable(target.parent, _bundle_bytes(manifest))
    partial.mkdir()
    try:
        for name in (*manifest.files, MANIFEST_FILE):  # the manifest last: without it what is half copied is no model
            shutil.copy2(path / name, partial / name)
            sync(partial / name)
        open_bundle(partial)
        put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(target)
    return 0


def _bundle_bytes(manifest: AnyManifest) -> int:
    return sum(entry.bytes for entry in manifest.files.values())


def _summary(path: Path) -> dict[str, Any] | None:
    """Return what `list` shows of a model; None, and a line on standard error, where its manifest cannot be read."""
    try:
        manifest = read_manifest(path)
    except (BundleError, PathEncodingError, OSError) as error:
        print(f"edge-assistant: not listed: {error}", file=sys.stderr)
        return None
    size = _bundle_bytes(manifest)
    return {"name": path.name, "kind": manifest.KIND, "bits": manifest.bits, "bytes": size, "path": str(path)}
