"""Seconds and peak memory of an export, beside the disk's own copy speed and onnxruntime-genai's builder.

The checkpoint is dropped from the page cache before each run, so that each reads it from the disk. The builder
needs transformers 5 and torch, so it runs in an environment of its own (`make bench` makes it). Mapped pages
of the checkpoint do not count as memory: the kernel takes them back. The last line is one JSON object.

    python benchmarks/export.py CHECKPOINT [--builder-python .venv-genai/bin/python] [--scratch FOLDER]
    python benchmarks/export.py CHECKPOINT --block-size 128 -- --method gptq --zero-points --calibration pages.txt
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine
from process_memory import MIB, measure


def weight_files(checkpoint: Path) -> list[Path]:
    """Return the checkpoint's safetensors files."""
    return sorted(checkpoint.glob("*.safetensors"))


def forget(files: list[Path]) -> None:
    """Drop the files from the page cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def copy_speed(checkpoint: Path, scratch: Path, limit: int = 2 << 30) -> float:
    """Return MB/s of copying up to 2 GiB of the checkpoint to the scratch folder, synced to the disk."""
    files = weight_files(checkpoint)
    forget(files)
    target = scratch / "copy"
    copied = 0
    started = time.perf_counter()
    with target.open("wb") as output:
        for path in files:
            with path.open("rb") as source:
                while copied < limit and (block := source.read(8 * MIB)):
                    copied += output.write(block)
        output.flush()
        os.fsync(output.fileno())
    seconds = time.perf_counter() - started
    target.unlink()
    return copied / 1e6 / seconds


def run(name: str, command: list[str], checkpoint: Path, out: Path) -> dict[str, Any]:
    """Run one exporter to its end and return its figures; its output goes to standard error if it fails."""
    files = weight_files(checkpoint)
    size = sum(path.stat().st_size for path in files)
    forget(files)
    print(f"{name}: {' '.join(command)}", file=sys.stderr)
    with tempfile.TemporaryFile("w+") as log:
        measured = measure(command, log)
        if measured.returncode != 0:
            log.seek(0)
            raise SystemExit(f"{name} ended with status {measured.returncode}:\n{log.read()[-4000:]}")
    bundle = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    return {
        "seconds": round(measured.seconds, 1),
        "cpu_seconds": round(measured.cpu_seconds, 1),
        "mb_per_s": round(size / 1e6 / measured.seconds, 1),
        "peak_anonymous_mib": round(measured.peak_anonymous / MIB),
        "peak_resident_mib": round(measured.peak_resident / MIB),
        "bundle_mib": round(bundle / MIB),
    }


def main() -> None:
    """Read the command line, run each exporter and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a folder in the Hugging Face layout, such as synth makes")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where bundles are written")
    parser.add_argument("--block-size", default="32", help="block size of our export (default 32, the builder's own)")
    parser.add_argument("--builder-python", type=Path, help="the Python that has onnxruntime-genai's builder")
    parser.epilog = "Behind -- stand more options of our export."
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    options, more = parser.parse_args(given[:end]), given[end + 1 :]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        scratch = Path(folder)
        ours = scratch / "ours"
        command = [sys.executable, "-m", "edge_assistant_export", "model", str(options.checkpoint), str(ours)]
        report: dict[str, Any] = {
            "checkpoint_mb": round(sum(path.stat().st_size for path in weight_files(options.checkpoint)) / 1e6),
            "disk_copy_mb_per_s": round(copy_speed(options.checkpoint, scratch), 1),
            "edge-assistant-export": run(
                "edge-assistant-export",
                [*command, "--block-size", options.block_size, *more],
                options.checkpoint,
                ours,
            ),
        }
        if options.builder_python:
            theirs = scratch / "builder"
            builder = [str(options.builder_python), "-m", "onnxruntime_genai.models.builder"]
            arguments = ["-i", str(options.checkpoint), "-o", str(theirs), "-p", "int4", "-e", "cpu"]
            cache = ["-c", str(scratch / "cache")]
            result = run("genai builder", [*builder, *arguments, *cache], options.checkpoint, theirs)
            report["onnxruntime-genai builder"] = result
            own = report["edge-assistant-export"]
            report["builder_over_ours"] = {
                key: round(result[key] / own[key], 2) for key in ("seconds", "peak_anonymous_mib", "peak_resident_mib")
            }
    print(json.dumps({**report, "machine": machine()}))


if __name__ == "__main__":
    main()
