"""What each way of quantising costs: bits a weight against the distance from the checkpoint, llama.cpp's beside ours.

One checkpoint, exported and quantised again and again; each result reads the same texts as the float32 model:

    bits     of all matrices, scales and zero points included, over their weights
    KL       of the next token's distributions, in nats, mean over the positions
    exact    share of questions about homes that are answered right to the letter (with --exact, for home-mini); ours
             are held to the grammar of the tools, as on a board, llama.cpp's are not

    python benchmarks/quality.py models/home-mini/checkpoint --homes 400 --exact 400 --gguf
    python benchmarks/quality.py CHECKPOINT --text tests/data/stories.txt --tokens 20000

What is calibrated, or chosen by measuring, reads what the checkpoint samples itself, with --homes conversations about
homes of another split than those that are measured with. llama.cpp's types want rows of 256 weights. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice, product, takewhile
from pathlib import Path
from typing import Any

from edge_assistant.bundle import Bundle
from edge_assistant.config import AssistantSettings
from edge_assistant.errors import ToolCallError
from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.calibration_text import calibration_texts
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.mixed import fitting
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward_all
from edge_assistant_export.reference_model.evaluate import Judge, by_bundle, evaluate, written
from edge_assistant_export.reference_model.packing import FORMAT
from edge_assistant_export.reference_model.splits import Case, Split, cases, same
from edge_assistant_export.safetensors_file import Float32
from edge_assistant_export.verify import Verification, compare, distance, texts_of
from edge_assistant_export.weights import Matrix, plan_weights
from edge_assistant_export.write import export

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine

_LONGEST = 512
_LONGEST_ANSWER = 160
_CALIBRATION_HOMES = 100
# What llama.cpp's Q4_0 and Q4_K_M come to with home-mini.
_MIXED_BITS = (4.81, 4.97)
_GGUF_TYPES = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q4_0", "Q4_1")


def recipes() -> Iterator[tuple[str, Recipe, float | None]]:
    """Give every setting by its name, with the bits a weight up to which matrices are stored better."""
    yield "8 bits, block 32", Recipe(bits=8), None
    yield "4 bits, block 32, maximum", Recipe(method="maximum"), None
    for method, zero_points, block in product(("least_squares", "awq", "gptq"), (False, True), (32, 64, 128)):
        name = f"4 bits, block {block}, {method.replace('_', ' ')}{', zero points' if zero_points else ''}"
        yield name, Recipe(method=method, zero_points=zero_points, block_size=block), None
    for bits, block in product(_MIXED_BITS, (64, 128)):
        mixed = Recipe(method="gptq", zero_points=True, block_size=block)
        yield f"mixed up to {bits} bits, block {block}, gptq, zero points", mixed, bits


def homes(tokenizer: Tokenizer, split: Split, count: int) -> list[list[int]]:
    """Return conversations about homes, each with its right answer; in split a all names are made up."""
    asked = cases(split, count)
    return [
        FORMAT.encode(tokenizer, [*case.talk.messages(case.example.question), case.example.answer])[-_LONGEST:]
        for case in asked
    ]


class Bundles:
    """Exports of one checkpoint, calibrated with some texts."""

    def __init__(self, checkpoint: Checkpoint, calibration: list[list[int]], folder: Path, exact: int) -> None:
        self._checkpoint, self._calibration, self._folder, self._exact = checkpoint, calibration, folder, exact

    def measure(
        self, name: str, recipe: Recipe, up_to: float | None, texts: Sequence[list[int]], expected: list[Float32]
    ) -> dict[str, Any]:
        """Export once and compare."""
        out = self._folder / name.replace(" ", "-")
        if up_to is not None:
            recipe = self._mixed(recipe, up_to)
        export(self._checkpoint, recipe, out, texts=self._calibration)
        row = _row(name, self._bits(recipe), compare(Bundle.open(out), texts, expected))
        row |= {"eight_bits": recipe.eight_bits, "small_blocks": recipe.small_blocks}
        if self._exact:
            scores = evaluate(by_bundle(out, len(os.sched_getaffinity(0))), ("a",), self._exact)
            row["exact_match"] = scores["a"].share
        return row

    def _mixed(self, recipe: Recipe, up_to: float) -> Recipe:
        """Return the recipe with matrices stored better, up to so many bits a weight."""
        return fitting(
            self._checkpoint, recipe, lambda tried: self._bits(tried) <= up_to, self._calibration, lambda *_: None
        )

    def _bits(self, recipe: Recipe) -> float:
        matrices = self._matrices(recipe)
        size = sum(matrix.nbytes for matrix in matrices)
        return 8 * size / sum(matrix.n_rows * matrix.row_size for matrix in matrices)

    def _matrices(self, recipe: Recipe) -> Sequence[Matrix]:
        shape = self._checkpoint.config
        return plan_weights(shape, recipe.quantization(shape)).matrices


class Ggufs:
    """The same checkpoint, quantised and run by llama.cpp."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer, folder: Path, exact: int) -> None:
        from gguf_file import write_checkpoint

        self._tokenizer, self._exact = tokenizer, exact
        self._whole = folder / "whole.gguf"
        write_checkpoint(checkpoint, self._whole)

    def measure(self, kind: str, texts: Sequence[list[int]], expected: list[Float32]) -> dict[str, Any]:
        """Quantise once and compare; `F32` is the checkpoint as it is."""
        path = self._whole
        if kind != "F32":
            path = self._whole.with_name(f"{kind}.gguf")
            quantise(self._whole, path, kind)
        row = _row(f"llama.cpp {kind}", _bits(path), distance(texts, expected, _scores(path, texts)))
        if self._exact:
            row["exact_match"] = evaluate(_by_gguf(path, self._tokenizer), ("a",), self._exact)["a"].share
        return row


def quantise(source: Path, out: Path, kind: str) -> None:
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


def _by_gguf(path: Path, tokenizer: Tokenizer) -> Judge:
    """Return a judge that generates each answer greedily with llama.cpp, from the prompt that a board makes."""
    from llama_cpp import Llama

    stop_ids = FORMAT.stop_ids(tokenizer)

    def judge(asked: Iterable[Case]) -> Iterator[tuple[Case, bool, str]]:
        model = Llama(str(path), n_ctx=1024, verbose=False)
        for case in asked:
            messages = case.talk.as_asked(case.example.question, AssistantSettings().prompt_devices)
            prompt = FORMAT.encode(tokenizer, messages)
            answer = model.generate(prompt, temp=0.0, repeat_penalty=1.0)
            ids = list(takewhile(lambda token: token not in stop_ids, islice(answer, _LONGEST_ANSWER)))
            try:
                said = FORMAT.parse(tokenizer, ids)
            except ToolCallError as error:
                yield case, False, error.text
            else:
                yield case, same(said, case.example.answer), written(said)
        model.close()

    return judge


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
            texts = homes(tokenizer, "a", options.homes)
            calibration = homes(tokenizer, "b", _CALIBRATION_HOMES)
        else:
            calibration = calibration_texts(checkpoint)
            texts = texts_of(options.text.read_text(encoding="utf-8"), tokenizer, begin, _LONGEST, options.tokens)
        expected = list(forward_all(checkpoint, texts))
        print(
            f"| | bits | KL | same likeliest | perplexity |{' exact |' if options.exact else ''}\n|---|---|---|---|---|"
        )
        bundles = Bundles(checkpoint, calibration, Path(scratch), options.exact)
        for name, recipe, up_to in recipes():
            rows.append(bundles.measure(name, recipe, up_to, texts, expected))
            _show(rows[-1])
        if options.gguf:
            files = Ggufs(checkpoint, tokenizer, Path(scratch), options.exact)
            for kind in ("F32", *_GGUF_TYPES):
                rows.append(files.measure(kind, texts, expected))
                _show(rows[-1])
    print(json.dumps({"machine": machine(), "tokens": sum(map(len, texts)), "rows": rows}))


if __name__ == "__main__":
    main()
