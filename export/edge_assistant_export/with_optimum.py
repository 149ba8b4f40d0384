"""Exports that go through optimum-onnx, torch and onnxruntime's quantiser: speech recognisers and sentence encoders.

Only this module and `faithful` import them, and only a command that needs them imports this module: the extra `speech`
brings them. A model is held in memory whole, which those that a board can run allow.

A recogniser's decoder comes out of optimum as two graphs, one for the prompt and one for every token after it, and as
one that holds both behind an If. The last is what a bundle gets. Measured at the size of Whisper tiny, on disk and on
the heap of a process that has loaded it and run both branches:

    two graphs   float32 391 MB, 421 MB    int8 99 MB, 160 MB
    merged       float32 198 MB, 254 MB    int8 50 MB, 104 MB

since the branches share their weights; it is one session to load, and the file that others (onnx-asr, transformers.js)
look for. The graph with past alone would not do: it takes what the other one makes of the sound. Weights are rounded
before the merging, as the quantiser does not look into an If. The output head is kept apart from the embedding that it
is tied to: sharing them would save 80 of the 198 MB on disk, and cost 150 on the heap, where onnxruntime turns the
embedding round for either branch.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import numpy as np
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from optimum.exporters.onnx import onnx_export_from_model  # type: ignore[import-not-found]
from optimum.onnx import merge_decoders  # type: ignore[import-not-found]
from safetensors import SafetensorError
from tokenizers import Tokenizer

from edge_assistant.bundle import (
    DECODER_FILE,
    ENCODER_FILE,
    GRAPH_FILE,
    MANIFEST_FILE,
    MEL_FILTERS_FILE,
    TOKENIZER_FILE,
    EmbeddingManifest,
    FileEntry,
    SpeechManifest,
)
from edge_assistant.bundle.in_place import sync
from edge_assistant.errors import CheckpointError, EdgeAssistantError, OutputWriteError
from edge_assistant_export.embedding import EMBEDDING_FILES, lowers
from edge_assistant_export.faithful import embedding_quality, speech_quality
from edge_assistant_export.pretrained import Pretrained
from edge_assistant_export.publish import (
    check_output,
    check_space,
    partial_folder,
    publish,
    write_file,
    write_json,
)
from edge_assistant_export.speech import GENERATION_FILE, PREPROCESSOR_FILE, SPEECH_FILES

Report = Callable[[str], None]
"""Told what is about to be done."""

# A graph and its weights are one file, and protobuf writes none of 2 GiB.
_LARGEST: Final = 2**31 - 2**26
# As optimum calls them: the encoder, the decoder of the prompt, and that of every token after it.
_SPEECH_GRAPHS: Final = (ENCODER_FILE, "decoder_model.onnx", "decoder_with_past_model.onnx")

# Of a sentence encoder, whose vectors are made of its hidden states.
_UNUSED: Final = "pooler."

M = TypeVar("M", SpeechManifest, EmbeddingManifest)


def export_speech(
    checkpoint: Pretrained, manifest: SpeechManifest, out: Path, report: Report, *, overwrite: bool = False
) -> SpeechManifest:
    """Write the bundle of a speech recogniser that `describe_speech` has described; return its manifest.

    Raises:
        OutputExistsError: `out` exists and is not to be overwritten, or holds what is not a bundle's.
        OutputBusyError: Another export writes it.
        OutputSpaceError: The disk has too little room.
        OutputWriteError: It refuses all the same.
        CheckpointError: Weights are missing, or more than fit a graph.
        VerificationError: In float32, the bundle does not write what the checkpoint does.
    """
    out = out.absolute()
    check_output(out, SPEECH_FILES, overwrite=overwrite)
    with _writing(out) as folder, _quiet():
        model = _load(transformers.AutoModelForSpeechSeq2Seq, checkpoint, report)
        check_space(out, 5 * _float32_bytes(model))  # 4.2 at the size of Whisper tiny: the decoder three times
        with TemporaryDirectory(dir=folder) as scratch:
            _write_speech_graphs(model, manifest, Path(scratch), folder, report)
        tokenizer = checkpoint.tokenizer(manifest.architecture.vocab_size)
        write_file(folder / TOKENIZER_FILE, tokenizer.to_str().encode())
        if manifest.audio.mel is not None:
            _write_for_whisper(checkpoint, tokenizer, folder)
        write_file(folder / PREPROCESSOR_FILE, (checkpoint.folder / PREPROCESSOR_FILE).read_bytes())
        report("comparing the bundle with the checkpoint")
        manifest = _finish(folder, manifest, speech_quality(model, folder, manifest))
        publish(folder, out, SPEECH_FILES, overwrite=overwrite)
        return manifest


def export_embedding(
    checkpoint: Pretrained, manifest: EmbeddingManifest, out: Path, report: Report, *, overwrite: bool = False
) -> EmbeddingManifest:
    """Write the bundle of a sentence encoder that `describe_embedding` has described; return its manifest.

    Raises:
        As `export_speech`.
    """
    out = out.absolute()
    check_output(out, EMBEDDING_FILES, overwrite=overwrite)
    with _writing(out) as folder, _quiet():
        model = _load(transformers.AutoModel, checkpoint, report)
        check_space(out, 2 * _float32_bytes(model))
        with TemporaryDirectory(dir=folder) as scratch:
            _write_encoder_graph(model, manifest, Path(scratch), folder, report)
        tokenizer = checkpoint.tokenizer(manifest.architecture.vocab_size, lower_case=lowers(checkpoint))
        write_file(folder / TOKENIZER_FILE, tokenizer.to_str().encode())
        report("comparing the bundle with the checkpoint")
        manifest = _finish(folder, manifest, embedding_quality(model, folder, manifest))
        publish(folder, out, EMBEDDING_FILES, overwrite=overwrite)
        return manifest


@contextmanager
def _writing(out: Path) -> Iterator[Path]:
    """Give the folder that becomes the bundle; what the system refuses while it is filled is refused by name."""
    folder = out
    try:
        with partial_folder(out) as folder:
            yield folder
    except EdgeAssistantError:
        raise
    except OSError as error:
        raise OutputWriteError(out, None, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what libraries say of themselves, all of it known: traces of one shape, what is deprecated."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)


def _load(auto_class: Any, checkpoint: Pretrained, report: Report) -> Any:
    """Return the model in float32, all of its weights from the checkpoint and none made up."""
    report(f"reading {checkpoint.source.name}")
    try:
        model, found = auto_class.from_pretrained(
            checkpoint.folder,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, LookupError, TypeError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(checkpoint.folder, f"its weights cannot be read: {problem}; download it again") from error
    if missing := sorted(name for name in found["missing_keys"] if not name.startswith(_UNUSED)):
        raise CheckpointError(checkpoint.folder, f"{missing[0]} is missing in its weights, one of {len(missing)}")
    for name, parameter in model.named_parameters():
        if not name.startswith(_UNUSED) and not torch.isfinite(parameter).all():
            problem = f"{name} holds numbers that are not finite"
            raise CheckpointError(checkpoint.folder, f"{problem}: download it again, or take another checkpoint")
    if (size := _float32_bytes(model)) > _LARGEST:
        raise CheckpointError(
            checkpoint.folder,
            f"in float32 it takes {size / 1e9:.1f} GB, and one graph holds {_LARGEST / 1e9:.1f}: take a smaller model, "
            f"as a board would",
        )
    return model.eval()


def _float32_bytes(model: Any) -> int:
    return 4 * sum(int(parameter.numel()) for parameter in model.parameters())


def _write_speech_graphs(model: Any, manifest: SpeechManifest, scratch: Path, folder: Path, report: Report) -> None:
    """Write both graphs of a recogniser and the configuration for neighbours into the folder."""
    report("writing the graphs of encoder and decoder")
    shapes = {} if manifest.audio.mel is None else {"nb_max_frames": manifest.audio.mel.n_frames}
    _to_onnx(model, scratch, "automatic-speech-recognition-with-past", **shapes)
    encoder, *decoders = (_stored(scratch / name, manifest.bits, report) for name in _SPEECH_GRAPHS)
    encoder.rename(folder / ENCODER_FILE)
    report("merging the decoder's graphs")
    merge_decoders(*decoders, save_path=folder / DECODER_FILE, strict=False)
    for name in ("config.json", GENERATION_FILE):
        (scratch / name).rename(folder / name)


def _write_encoder_graph(model: Any, manifest: EmbeddingManifest, scratch: Path, folder: Path, report: Report) -> None:
    """Write the graph of a sentence encoder and the configuration for neighbours into the folder."""
    report("writing the graph")
    _to_onnx(model, scratch, "feature-extraction")
    _stored(scratch / GRAPH_FILE, manifest.bits, report).rename(folder / GRAPH_FILE)
    (scratch / "config.json").rename(folder / "config.json")


def _to_onnx(model: Any, folder: Path, task: str, **shapes: int) -> None:
    """Write the graphs of a model for a task, and nothing merged."""
    onnx_export_from_model(model, folder, task=task, do_validation=False, no_post_process=True, **shapes)


def _stored(graph: Path, bits: int, report: Report) -> Path:
    """Return the path of a graph whose matrices and embeddings have so many bits; for 8 it is written once more.

    Activations are rounded as they come (dynamic quantisation). Convolutions stay as they are: there are two or three,
    small, at the front, where an error would pass through all that follows.
    """
    if bits == 32:
        return graph
    report(f"rounding the weights of {graph.stem} to 8 bits")
    rounded = graph.with_suffix(".int8.onnx")
    types = ["MatMul", "Gather"]
    quantize_dynamic(graph, rounded, op_types_to_quantize=types, per_channel=True, weight_type=QuantType.QInt8)
    return rounded


def _write_for_whisper(checkpoint: Pretrained, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the filters of the spectrum, and the vocabulary as onnx-asr reads it."""
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(checkpoint.folder, local_files_only=True)
    np.save(folder / MEL_FILTERS_FILE, extractor.mel_filters.astype(np.float32))
    whole = json.loads(tokenizer.to_str())
    write_json(folder / "vocab.json", whole["model"]["vocab"])
    write_json(folder / "added_tokens.json", {token["content"]: token["id"] for token in whole["added_tokens"]})


def _finish(folder: Path, manifest: M, quality: Mapping[str, float]) -> M:
    """Write the manifest of all that lies in the folder, make it durable, and return it."""
    files = {}
    for file in sorted(folder.iterdir()):
        sync(file)
        files[file.name] = FileEntry.of(file)
    manifest = replace(manifest, files=files, quality=quality)
    write_file(folder / MANIFEST_FILE, manifest.to_json().encode())
    return manifest
