"""How far a bundle of speech recognition or embedding is from its checkpoint: both are given the same, and compared.

There is no recording here, so a recogniser hears noise: what it writes of that means nothing, but graph and checkpoint
must write the same. Its decoder reads as a board lets it: a prompt, then one token at a time with what is cached, so
that both of its branches are seen, and activations are rounded as there. A sentence encoder reads a few sentences. In
float32 hardly a difference is to be seen, and a graph that has one was traced wrongly: it is refused. In 8 bits it is
measured, and stands in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from tokenizers import Tokenizer

from edge_assistant.bundle import (
    DECODER_FILE,
    ENCODER_FILE,
    GRAPH_FILE,
    TOKENIZER_FILE,
    EmbeddingManifest,
    SpeechManifest,
)
from edge_assistant.errors import VerificationError
from edge_assistant_export.quantize import Float32
from edge_assistant_export.verify import log_softmax

# The most that rounding in float32 explains.
_SAME_KL: Final = 1e-4
_SAME_COSINE: Final = 0.9999
# Tokens that a recogniser writes, where it holds as many.
_TOKENS: Final = 24
# Of these, what a board reads at once: start, language, task, no timestamps.
_PROMPT: Final = 4
_SENTENCES: Final = (
    "Switch off the lamp in the kitchen.",
    "The heating in the bathroom is set to twenty-one degrees.",
    "Is the window of the study still open?",
    "Anna comes home at six on weekdays.",
    "The dishwasher was repaired in March and is under warranty until next year.",
    "cat",
)


_NO_NUMBER: Final = "it or its checkpoint computes what is no number: the weights are broken, or too large for float32"


def speech_quality(model: Any, folder: Path, manifest: SpeechManifest) -> Mapping[str, float]:
    """Return KL divergence (nats) and agreement of a recogniser's graphs in a folder with its torch model.

    Raises:
        VerificationError: The graphs are in float32, and differ; or they or the model compute what is no number.
    """
    heard = _noise(manifest)
    encoder, decoder = _session(folder / ENCODER_FILE), _session(folder / DECODER_FILE)
    (hidden,) = encoder.run(None, heard)
    ids, expected = _greedy(model, heard, manifest)
    given = {"encoder_hidden_states": hidden}
    if manifest.audio.mel is None:
        given["encoder_attention_mask"] = heard["attention_mask"]
    log_p, log_q = log_softmax(expected), log_softmax(_as_on_board(decoder, ids, given, manifest))
    kl = float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())
    agreement = float((log_p.argmax(axis=1) == log_q.argmax(axis=1)).mean())
    if not np.isfinite(kl):
        raise VerificationError(folder, _NO_NUMBER)
    if manifest.bits == 32 and kl > _SAME_KL:
        raise VerificationError(folder, _problem(f"their KL divergence is {kl:.2g} nats"))
    return {"kl": kl, "top1_agreement": agreement}


def embedding_quality(model: Any, folder: Path, manifest: EmbeddingManifest) -> Mapping[str, float]:
    """Return the mean and the least cosine between the vectors of a graph in a folder and those of its torch model.

    Raises:
        VerificationError: The graph is in float32, and differs; or it or the model computes what is no number.
    """
    tokenizer, session = Tokenizer.from_file(str(folder / TOKENIZER_FILE)), _session(folder / GRAPH_FILE)
    tokenizer.enable_truncation(manifest.max_length)
    taken = {one.name for one in session.get_inputs()}
    cosines = []
    for sentence in _SENTENCES:
        ids = np.array([tokenizer.encode(manifest.passage_prompt + sentence).ids])
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if "token_type_ids" in taken:
            given["token_type_ids"] = np.zeros_like(ids)
        (found,) = session.run(None, given)
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(value) for name, value in given.items()}).last_hidden_state
        cosines.append(_cosine(_pooled(found[0], manifest), _pooled(expected[0].numpy(), manifest)))
    if not np.isfinite(cosines).all():
        raise VerificationError(folder, _NO_NUMBER)
    if manifest.bits == 32 and min(cosines) < _SAME_COSINE:
        raise VerificationError(folder, _problem(f"the cosine of their vectors is {min(cosines):.4f}"))
    return {"mean_cosine": float(np.mean(cosines)), "min_cosine": min(cosines)}


def _noise(manifest: SpeechManifest) -> dict[str, npt.NDArray[Any]]:
    """Return what the encoder takes, made by chance, and the same each time."""
    chance, mel = np.random.default_rng(0), manifest.audio.mel
    if mel is not None:
        return {"input_features": chance.uniform(-1, 1, (1, mel.n_mels, mel.n_frames)).astype(np.float32)}
    wave = chance.normal(0, 0.1, (1, manifest.audio.sampling_rate)).astype(np.float32)
    return {"input_values": wave, "attention_mask": np.ones(wave.shape, np.int64)}


def _greedy(model: Any, heard: Mapping[str, npt.NDArray[Any]], manifest: SpeechManifest) -> tuple[Any, Float32]:
    """Return the ids [1, n] that the torch model reads, each but the first written by itself, and its logits of all."""
    given = {name: torch.from_numpy(value) for name, value in heard.items()}
    ids = torch.tensor([[manifest.tokens.start]])
    with torch.no_grad():
        encoded = model.get_encoder()(**given)
        mask = {name: value for name, value in given.items() if name == "attention_mask"}
        while True:
            logits = model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False, **mask).logits
            if ids.shape[1] == min(_TOKENS, manifest.architecture.max_positions):
                return ids.numpy(), logits[0].numpy()
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)


def _as_on_board(
    decoder: ort.InferenceSession, ids: Any, given: Mapping[str, npt.NDArray[Any]], manifest: SpeechManifest
) -> Float32:
    """Return the logits [n, vocab] of ids [1, n]: of the prompt without a past, then of one token at a time with it."""
    names = [one.name for one in decoder.get_outputs()]
    shape = manifest.architecture
    nothing = np.zeros((1, shape.n_kv_heads, 0, shape.head_dim), np.float32)
    pasts = {one.name: nothing for one in decoder.get_inputs() if one.name.startswith("past_key_values")}
    logits: list[Float32] = []
    parts = np.split(ids, range(_PROMPT, ids.shape[1]), axis=1)
    for number, part in enumerate(parts):
        read = {"input_ids": part, "use_cache_branch": np.array([number > 0])}
        found = dict(zip(names, decoder.run(None, {**given, **read, **pasts}), strict=True))
        logits.append(found["logits"][0])
        for name in pasts:
            if ".decoder." in name or number == 0:  # what was heard stays as it is
                pasts[name] = found[name.replace("past_key_values", "present")]
    return np.concatenate(logits)


def _pooled(hidden: Float32, manifest: EmbeddingManifest) -> Float32:
    vector: Float32 = hidden[0] if manifest.pooling == "cls" else hidden.mean(axis=0)
    return vector


def _cosine(a: Float32, b: Float32) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def _session(graph: Path) -> ort.InferenceSession:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def _problem(difference: str) -> str:
    return f"graph and checkpoint differ ({difference}): optimum-onnx does not trace this model well"
