"""What each way of quantising costs: bits a weight against the distance from the checkpoint, llama.cpp's beside ours.

One checkpoint, exported and quantised again and again; each result reads the same texts as the float32 model:

    bits     of all matrices, scales and zero points included, over their weights
    KL       of the next token's distributions, in nats, mean over the positions
    exact    share of questions about homes that are answered right to the letter (with --exact, for home-mini)

    python benchmarks/quality.py models/home-mini/checkpoint --homes 400 --exact 400 --gguf
    python benchmarks/quality.py CHECKPOINT --text tests/data/stories.txt --tokens 20000

llama.cpp's types want rows of 256 weights. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from edge_assistant.bundle import Bundle
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward_all
from edge_assistant_export.reference_model.evaluate import by_bundle, evaluate
from edge_assistant_export.reference_model.packing import FORMAT
from edge_assistant_export.reference_model.splits import cases
from edge_assistant_export.safetensors_file import Float32
from edge_assistant_export.verify import Verification, compare, distance, texts_of
from edge_assistant_export.weights import plan_weights
from edge_assistant_export.write import export

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine

_LONGEST = 512
_GGUF_TYPES = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q4_0", "Q4_1")


def recipes() -> Iterator[tuple[str, Recipe]]:
    """Give every setting by its name."""
    yield "8 bits, block 32", Recipe(bits=8)
    yield "4 bits, block 32, maximum", Recipe(method="maximum")
    for method, zero_points, block in product(("least_squares", "awq", "gptq"), (False, True), (32, 64, 128)):
        name = f"4 bits, block {block}, {method.replace('_', ' ')}{', zero points' if zero_points else ''}"
        yield name, Recipe(method=method, zero_points=zero_points, block_size=block)


def homes(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Return conversations about homes with made-up names, each with its right answer."""
    asked = cases("a", count)
    return [
        FORMAT.encode(tokenizer, [*case.talk.messages(case.example.question), case.example.answer])[-_LONGEST:]
        for case in asked
    ]


class Bundles:
    """Exports of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, exact: int) -> None:
        self._checkpoint, self._folder, self._exact = checkpoint, folder, exact

    def measure(self, name: str, recipe: Recipe, texts: Sequence[list[int]], expected: list[Float32]) -> dict[str, Any]:
        """Export once and compare."""
        out = self._folder / name.replace(" ", "-")
        manifest = export(self._checkpoint, recipe, out)
        matrices = plan_weights(manifest.architecture, manifest.quantization).matrices
        size = sum(place.nbytes for matrix in matrices for place in matrix.places)
        weights = sum(matrix.n_rows * matrix.row_size for matrix in matrices)
        row = _row(name, 8 * size / weights, compare(Bundle.open(out), texts, expected))
        if self._exact:
            scores = evaluate(by_bundle(out, len(os.sched_getaffinity(0))), ("a",), self._exact)
            row["exact_match"] = scores["a"].share
        return row


class Ggufs:
    """The same checkpoint, quantised and run by llama.cpp."""

    def __init__(self, checkpoint: Checkpoint, folder: Path) -> None:
        from gguf_file import write_checkpoint

        self._whole = folder / "whole.gguf"
        write_checkpoint(checkpoint, self._whole)

    def measure(self, kind: str, texts: Sequence[list[int]], expected: list[Float32]) -> dict[str, Any]:
        """Quantise once and compare; `F32` is the checkpoint as it is."""
        path = self._whole
        if kind != "F32":
            path = self._whole.with_name(f"{kind}.gguf")
            _quantise(self._whole, path, kind)
        return _row(f"llama.cpp {kind}", _bits(path), distance(texts, expected, _scores(path, texts)))


def _quantise(source: Path, out: Path, kind: str) -> None:
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(options)):
        raise SystemExit(f"llama.cpp could not make {kind} of the checkpoint")


def _bits(path: Path) -> float:
    import gguf

    matrices = [tensor for tensor in gguf.GGUFReader(path).tensors if len(tensor.shape) > 1]
    return float(8 * sum(tensor.n_bytes for tensor in matrices) / sum(tensor.n_elements for tensor in matrices))


def _scores(path: Path, texts: Sequence[list[int]]) -> Iterator[Float32]:
    from llama_cpp import Llama

    room = max(map(len, texts))
    model = Llama(str(path), n_ctx=room, n_batch=room, n_ubatch=room, logits_all=True, verbose=False)
    for ids in texts:
        model.reset()
        model.eval(ids)
        yield model.scores[: len(ids)].copy()
    model.close()


def _row(name: str, bits: float, found: Verification) -> dict[str, Any]:
    lost = found.perplexity / found.reference_perplexity - 1
    return {"name": name, "bits": round(bits, 3), **asdict(found), "perplexity_lost": lost}


def _show(row: dict[str, Any]) -> None:
    exact = f" {row['exact_match']:.1%} |" if "exact_match" in row else ""
    print(
        f"| {row['name']} | {row['bits']:.2f} | {row['kl']:.5f} | {row['top1_agreement']:.2%} "
        f"| {row['perplexity_lost']:+.2%} |{exact}",
        flush=True,
    )


def main() -> None:
    """Read the command line, measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--text", type=Path, help="what to read; blank lines part texts")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--homes", type=int, help="read so many conversations about homes instead")
    parser.add_argument("--exact", type=int, default=0, help="also ask each bundle so many questions about homes")
    parser.add_argument("--gguf", action="store_true", help="llama.cpp's types too")
    options = parser.parse_args()
    rows = []
    with Checkpoint.open(options.checkpoint) as checkpoint, tempfile.TemporaryDirectory() as scratch:
        vocabulary = Path(scratch) / "tokenizer.json"
        vocabulary.write_bytes(checkpoint.tokenizer_json())
        tokenizer = Tokenizer(vocabulary)
        begin = checkpoint.special_ids().get("<s>")
        if options.homes:
            texts = homes(tokenizer, options.homes)
        else:
            texts = texts_of(options.text.read_text(encoding="utf-8"), tokenizer, begin, _LONGEST, options.tokens)
        expected = list(forward_all(checkpoint, texts))
        print(
            f"| | bits | KL | same likeliest | perplexity |{' exact |' if options.exact else ''}\n|---|---|---|---|---|"
        )
        bundles = Bundles(checkpoint, Path(scratch), options.exact)
        for name, recipe in recipes():
            rows.append(bundles.measure(name, recipe, texts, expected))
            _show(rows[-1])
        if options.gguf:
            files = Ggufs(checkpoint, Path(scratch))
            for kind in ("F32", *_GGUF_TYPES):
                rows.append(files.measure(kind, texts, expected))
                _show(rows[-1])
    print(json.dumps({"machine": machine(), "tokens": sum(map(len, texts)), "rows": rows}))


if __name__ == "__main__":
    main()
