"""The bundle of a speech recogniser: an encoder of sound, and a decoder that writes text one token at a time.

    encoder_model.onnx
        input_features             float32 [batch, n_mels, n_frames]      Whisper: log-mel, silence up to n_frames
        input_values               float32 [batch, samples]               Moonshine: the wave itself, -1 to 1
        attention_mask             int64   [batch, samples]               Moonshine: 0 behind the end of a shorter wave
        last_hidden_state          float32 [batch, frames, hidden]
    decoder_model_merged.onnx
        input_ids                  int64   [batch, seq]
        encoder_hidden_states      float32 [batch, frames, hidden]
        encoder_attention_mask     int64   [batch, samples]               Moonshine: as the encoder's
        use_cache_branch           bool    [1]
        past_key_values.N.decoder.key   float32 [batch, n_kv_heads, past, head_dim], `.value` alike
        past_key_values.N.encoder.key   float32 [batch, n_kv_heads, frames, head_dim], `.value` alike
        logits                     float32 [batch, seq, vocab]
        present.N.decoder.key, present.N.encoder.key, and `.value` of both

The first call has the prompt, use_cache_branch false and pasts of length 0; it gives the cache of what was heard
(`encoder`), which stays as it is, and that of what was written (`decoder`). Every other call has one token,
use_cache_branch true, and both as its past; it gives `decoder` anew and for `encoder` nothing to be used.

Whisper's log-mel: a Hann window (periodic) of n_fft, the wave reflected by n_fft / 2 at both ends, the power of each
frame but the last times mel_filters.npy [n_fft / 2 + 1, n_mels], log10 of at least 1e-10, then no less than the
greatest - 8, then (x + 4) / 4 (Radford et al. 2022, section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from edge_assistant.bundle.folder import (
    STRICT,
    TOKENIZER_FILE,
    FileEntry,
    FileName,
    Folder,
    Id,
    Kind,
    ManifestFile,
    ModelName,
    Origin,
    Size,
)

ENCODER_FILE = "encoder_model.onnx"
DECODER_FILE = "decoder_model_merged.onnx"
MEL_FILTERS_FILE = "mel_filters.npy"


@dataclass(frozen=True, slots=True, config=STRICT)
class SpeechArchitecture:
    """The shape of the model; heads are the decoder's."""

    family: Literal["whisper", "moonshine"]
    hidden_size: Size
    n_encoder_layers: Size
    n_decoder_layers: Size
    n_heads: Size
    n_kv_heads: Size
    head_dim: Size
    vocab_size: Size
    max_positions: Size
    """How many tokens the decoder can hold, prompt and text together."""


@dataclass(frozen=True, slots=True, config=STRICT)
class MelSpec:
    """What a log-mel spectrum is made of."""

    n_mels: Size
    n_fft: Size
    """Samples of a frame."""
    hop_length: Size
    """Samples from one frame to the next."""
    n_frames: Size
    """Frames that the encoder takes, no more and no less."""


@dataclass(frozen=True, slots=True, config=STRICT)
class AudioSpec:
    """The sound that the model was trained on."""

    sampling_rate: Size
    """Samples a second, of one channel."""
    min_samples: Size
    """A shorter wave is to be filled up with silence."""
    mel: MelSpec | None
    """None: the encoder takes the wave itself."""


@dataclass(frozen=True, slots=True, config=STRICT)
class SpeechTokens:
    """The ids that a decoder is begun with, ended by and kept from.

    The prompt is `start`, then a language and `transcribe` where there are such, then `no_timestamps` where there is.
    """

    start: Id
    ends: tuple[Id, ...]
    languages: Mapping[str, Id]
    """By their code, such as `de`; empty for a model of one language."""
    transcribe: Id | None
    translate: Id | None
    """Writes English instead."""
    no_timestamps: Id | None
    no_speech: Id | None
    """Its chance after `start` is that of nobody speaking."""
    suppressed: tuple[Id, ...]
    """Never to be written."""
    suppressed_first: tuple[Id, ...]
    """Not to be written right after the prompt."""

    def all(self) -> Iterator[int]:
        """Give every id there is."""
        single = (self.start, self.transcribe, self.translate, self.no_timestamps, self.no_speech)
        yield from (token for token in single if token is not None)
        yield from (*self.ends, *self.languages.values(), *self.suppressed, *self.suppressed_first)


@dataclass(frozen=True, slots=True, config=STRICT)
class SpeechManifest(ManifestFile):
    """All that is known of a speech recogniser without reading its graphs."""

    KIND: ClassVar[Kind] = "speech"
    REQUIRED: ClassVar[frozenset[str]] = frozenset({ENCODER_FILE, DECODER_FILE, TOKENIZER_FILE})

    format_version: int
    kind: Literal["speech"]
    name: ModelName
    created_by: str
    """The exporter and its version."""
    architecture: SpeechArchitecture
    bits: Literal[8, 32]
    """Bits of a weight in the matrices; convolutions are float32."""
    audio: AudioSpec
    tokens: SpeechTokens
    licence: str | None
    source: Origin
    files: Mapping[FileName, FileEntry]
    """Every file but the manifest itself, by its name in the folder."""
    quality: Mapping[str, float]
    """`kl` (nats) and `top1_agreement` with the checkpoint, of the tokens that the checkpoint itself makes of noise."""

    def __post_init__(self) -> None:
        """Refuse ids outside the vocabulary, and a spectrum without its filters."""
        if (greatest := max(self.tokens.all())) >= self.architecture.vocab_size:
            raise ValueError(f"tokens: {greatest} is no id of {self.architecture.vocab_size} tokens")
        if self.files and self.audio.mel is not None and MEL_FILTERS_FILE not in self.files:
            raise ValueError(f"files: {MEL_FILTERS_FILE} is not listed")


class SpeechBundle(Folder[SpeechManifest]):
    """The folder of a speech recogniser."""

    MANIFEST = SpeechManifest

    @property
    def encoder_path(self) -> Path:
        """The graph that hears."""
        return self.path / ENCODER_FILE

    @property
    def decoder_path(self) -> Path:
        """The graph that writes."""
        return self.path / DECODER_FILE

    @property
    def mel_filters_path(self) -> Path:
        """The filters [n_fft / 2 + 1, n_mels] in float32, of a model that takes a spectrum."""
        return self.path / MEL_FILTERS_FILE
