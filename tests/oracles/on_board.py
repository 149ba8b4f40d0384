"""What a board does with a bundle of speech or embedding, in a process of its own: onnxruntime, numpy and tokenizers.

    python on_board.py BUNDLE GIVEN.npz FOUND.npz

For speech GIVEN holds `wave` [samples], `prompt` and `limit`, and perhaps `forced`, the ids to be read whatever is
written; FOUND has the `ids`, the `logits` [n, vocab] after the prompt and after each of them, the `text`, and what the
encoder was given. For an embedding GIVEN holds `texts`, FOUND the `vectors` [n, size].
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from edge_assistant.bundle import EmbeddingBundle, MelSpec, SpeechBundle, open_bundle


def main() -> None:
    bundle, given = open_bundle(Path(sys.argv[1])), np.load(sys.argv[2])
    found = embed(bundle, given) if isinstance(bundle, EmbeddingBundle) else recognise(bundle, given)
    assert not {"torch", "transformers", "onnx", "optimum"} & sys.modules.keys()
    np.savez(sys.argv[3], **found)


def recognise(bundle: SpeechBundle, given) -> dict:
    audio, tokens, shape = bundle.manifest.audio, bundle.manifest.tokens, bundle.manifest.architecture
    encoder, decoder = ort.InferenceSession(bundle.encoder_path), ort.InferenceSession(bundle.decoder_path)
    if audio.mel is not None:
        heard = {"input_features": log_mel(given["wave"], audio.mel, np.load(bundle.mel_filters_path))[None]}
        mask = {}
    else:
        wave = given["wave"][None]
        heard = {"input_values": wave, "attention_mask": np.ones(wave.shape, np.int64)}
        mask = {"encoder_attention_mask": heard["attention_mask"]}
    (hidden,) = encoder.run(None, heard)

    names = [one.name for one in decoder.get_outputs()]
    none = np.zeros((1, shape.n_kv_heads, 0, shape.head_dim), np.float32)
    pasts = {one.name: none for one in decoder.get_inputs() if one.name.startswith("past_key_values")}
    forced = list(given["forced"]) if "forced" in given else None
    read, ids, logits = given["prompt"], [], []
    while len(ids) < given["limit"]:
        said = {
            "input_ids": np.array([read]),
            "encoder_hidden_states": hidden,
            "use_cache_branch": np.array([bool(ids)]),
        }
        out = dict(zip(names, decoder.run(None, said | mask | pasts), strict=True))
        for name in pasts:
            if ".decoder." in name or not ids:
                pasts[name] = out[name.replace("past_key_values", "present")]
        chances = out["logits"][0, -1].copy()
        logits.append(out["logits"][0, -1])
        chances[[*tokens.suppressed, *([] if ids else tokens.suppressed_first)]] = -np.inf
        ids.append(int(chances.argmax()) if forced is None else int(forced[len(ids)]))
        read = ids[-1:]
        if forced is None and ids[-1] in tokens.ends:
            break
    text = Tokenizer.from_file(str(bundle.tokenizer_path)).decode(ids)
    return {"ids": ids, "logits": logits, "text": text, **heard}


def log_mel(wave: np.ndarray, mel: MelSpec, filters: np.ndarray) -> np.ndarray:
    """Return the log-mel spectrum [n_mels, n_frames] as the docstring of `bundle/speech.py` puts it."""
    samples = mel.n_frames * mel.hop_length
    wave = np.pad(wave[:samples], (0, max(0, samples - len(wave))))
    wave = np.pad(wave, mel.n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.n_fft) / mel.n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(wave, mel.n_fft)[:: mel.hop_length][:-1]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    spectrum = np.log10(np.maximum(power @ filters, 1e-10))
    spectrum = np.maximum(spectrum, spectrum.max() - 8)
    return ((spectrum + 4) / 4).T.astype(np.float32)


def embed(bundle: EmbeddingBundle, given) -> dict:
    """All texts at once, so that padding is seen not to matter."""
    manifest = bundle.manifest
    tokenizer, session = Tokenizer.from_file(str(bundle.tokenizer_path)), ort.InferenceSession(bundle.graph_path)
    tokenizer.enable_truncation(manifest.max_length)
    read = [tokenizer.encode(str(text)).ids for text in given["texts"]]
    ids = np.full((len(read), max(map(len, read))), manifest.pad_id)
    for row, one in zip(ids, read, strict=True):
        row[: len(one)] = one
    mask = np.array([[1] * len(one) + [0] * (ids.shape[1] - len(one)) for one in read])
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    taken = {one.name for one in session.get_inputs()}
    (hidden,) = session.run(None, {name: value for name, value in feed.items() if name in taken})
    if manifest.pooling == "cls":
        vectors = hidden[:, 0]
    else:
        vectors = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    if manifest.normalize:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return {"vectors": vectors}


if __name__ == "__main__":
    main()
