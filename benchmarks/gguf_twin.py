"""Write a GGUF file of a Mistral shape for llama.cpp, so that both runtimes read the same number of weights.

Speed does not depend on what the weights are, so one layer is drawn at random, quantised by the gguf package
and written for every layer.

    python benchmarks/gguf_twin.py --shape mistral-7b --layers 32 twin.gguf
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np

from edge_assistant.bundle import Architecture
from edge_assistant_export.synth import SHAPES

sys.path.insert(0, str(Path(__file__).parent))
from gguf_file import begin, finish

_TYPE = gguf.GGMLQuantizationType.Q4_0


def _matrices(shape: Architecture) -> dict[str, tuple[int, int]]:
    """Return GGUF's name of each matrix of one layer with its [out, in]."""
    heads, kv_heads = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    return {
        "attn_q": (heads, shape.hidden_size),
        "attn_k": (kv_heads, shape.hidden_size),
        "attn_v": (kv_heads, shape.hidden_size),
        "attn_output": (shape.hidden_size, heads),
        "ffn_gate": (shape.ffn_size, shape.hidden_size),
        "ffn_up": (shape.ffn_size, shape.hidden_size),
        "ffn_down": (shape.hidden_size, shape.ffn_size),
    }


def _random_quantised(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return [rows, bytes of a Q4_0 row] of a random matrix; rows repeat in blocks to save time."""
    block = rng.standard_normal((min(rows, 256), columns), dtype=np.float32) * 0.02
    packed = gguf.quants.quantize(block, _TYPE)
    return np.resize(packed, (rows, packed.shape[1]))


def write(path: Path, shape: Architecture, layers: int) -> None:
    """Write the twin: weights Q4_0, norms float32, a vocabulary of placeholders (only ids are fed)."""
    rng = np.random.default_rng(0)
    writer = begin(path, shape, layers)
    vocabulary = _random_quantised(rng, shape.vocab_size, shape.hidden_size)
    norm = np.ones(shape.hidden_size, np.float32)
    writer.add_tensor("token_embd.weight", vocabulary, raw_dtype=_TYPE)
    writer.add_tensor("output.weight", vocabulary, raw_dtype=_TYPE)
    writer.add_tensor("output_norm.weight", norm)
    layer = {name: _random_quantised(rng, *size) for name, size in _matrices(shape).items()}
    for index in range(layers):
        writer.add_tensor(f"blk.{index}.attn_norm.weight", norm)
        writer.add_tensor(f"blk.{index}.ffn_norm.weight", norm)
        for name, packed in layer.items():
            writer.add_tensor(f"blk.{index}.{name}.weight", packed, raw_dtype=_TYPE)
    finish(writer)


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mistral-7b")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("path", type=Path)
    options = parser.parse_args()
    write(options.path, SHAPES[options.shape], options.layers)


if __name__ == "__main__":
    main()
