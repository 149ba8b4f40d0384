"""What a board must know of a speech recogniser: the manifest of a Whisper or Moonshine checkpoint, without its files.

Where generation_config.json is silent, config.json speaks, as in transformers. Languages and tasks are read off the
tokenizer: `<|de|>`, `<|transcribe|>`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

from tokenizers import Tokenizer

from edge_assistant.bundle import (
    DECODER_FILE,
    ENCODER_FILE,
    FORMAT_VERSION,
    MANIFEST_FILE,
    MEL_FILTERS_FILE,
    TOKENIZER_FILE,
    AudioSpec,
    MelSpec,
    SpeechArchitecture,
    SpeechManifest,
    SpeechTokens,
)
from edge_assistant.errors import CheckpointError, UnsupportedArchitectureError
from edge_assistant_export import __version__
from edge_assistant_export.pretrained import Pretrained, describing
from edge_assistant_export.recipe import check_choice
from edge_assistant_export.small_files import read_json

GENERATION_FILE: Final = "generation_config.json"
PREPROCESSOR_FILE: Final = "preprocessor_config.json"
SPEECH_FILES: Final = frozenset(
    {
        *(MANIFEST_FILE, ENCODER_FILE, DECODER_FILE, TOKENIZER_FILE, MEL_FILTERS_FILE),
        *("config.json", GENERATION_FILE, PREPROCESSOR_FILE, "vocab.json", "added_tokens.json"),
    }
)
"""All that the folder of a speech bundle may hold."""

_FAMILIES: Final = ("whisper", "moonshine")
_LANGUAGE: Final = re.compile(r"<\|([a-z]{2,3})\|>")
# The smallest vocabulary of a Whisper that knows more than English.
_MULTILINGUAL_VOCABULARY: Final = 51_865
# Kernel and stride of the three convolutions that a Moonshine begins with.
_MOONSHINE_CONVOLUTIONS: Final = ((127, 64), (7, 3), (3, 2))


def open_speech(path_or_hub_id: str | Path, revision: str | None = None) -> Pretrained:
    """Find a checkpoint of Whisper or Moonshine; see `Pretrained.open`."""
    checkpoint = Pretrained.open(path_or_hub_id, revision, _FAMILIES, (GENERATION_FILE, PREPROCESSOR_FILE))
    if not (checkpoint.folder / PREPROCESSOR_FILE).is_file():
        raise CheckpointError(checkpoint.folder, f"it has no {PREPROCESSOR_FILE}, which says how sound is prepared")
    return checkpoint


def describe_speech(
    checkpoint: Pretrained, *, bits: Literal[8, 32], name: str, licence: str | None = None
) -> SpeechManifest:
    """Return the manifest of the bundle to be, with no files and nothing measured in it yet.

    Raises:
        RecipeError: No quantiser knows the bits.
        CheckpointError: A key is missing, or files do not belong together.
    """
    check_choice("bits", bits, (8, 32))
    whisper = checkpoint.family == "whisper"
    with describing(checkpoint.folder / "config.json"):
        architecture = (_whisper if whisper else _moonshine)(checkpoint)
        audio = (_whisper_audio if whisper else _moonshine_audio)(checkpoint)
        tokenizer = checkpoint.tokenizer(architecture.vocab_size)
        return SpeechManifest(
            format_version=FORMAT_VERSION,
            kind="speech",
            name=name,
            created_by=f"edge-assistant-export {__version__}",
            architecture=architecture,
            bits=bits,
            audio=audio,
            tokens=_tokens(checkpoint, tokenizer, whisper=whisper),
            licence=licence or checkpoint.licence,
            source=checkpoint.source,
            files={},
            quality={},
        )


def _whisper(checkpoint: Pretrained) -> SpeechArchitecture:
    """Return the shape of one whose halves have as many heads: optimum counts those of the one for both."""
    config = checkpoint.config
    n_heads = config["decoder_attention_heads"]
    if (found := config.get("encoder_attention_heads") or n_heads) != n_heads:
        supported = "Whispers whose encoder and decoder have as many heads"
        raise UnsupportedArchitectureError(
            checkpoint.folder / "config.json", f"encoder_attention_heads {found}", supported
        )
    return SpeechArchitecture(
        family="whisper",
        hidden_size=config["d_model"],
        n_encoder_layers=config["encoder_layers"],
        n_decoder_layers=config["decoder_layers"],
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=config["d_model"] // n_heads,
        vocab_size=config["vocab_size"],
        max_positions=config["max_target_positions"],
    )


def _moonshine(checkpoint: Pretrained) -> SpeechArchitecture:
    """Return the shape of one whose encoder and decoder are alike: optimum counts the layers of the one for both."""
    config = checkpoint.config
    n_layers, n_heads = config["decoder_num_hidden_layers"], config["decoder_num_attention_heads"]
    alike = {
        "encoder_num_hidden_layers": n_layers,
        "encoder_num_attention_heads": n_heads,
        "encoder_num_key_value_heads": n_heads,
        "decoder_num_key_value_heads": n_heads,
    }
    for key, wanted in alike.items():
        if (found := config.get(key) or wanted) != wanted:
            supported = "Moonshines whose encoder and decoder have as many layers, heads and key-value heads"
            raise UnsupportedArchitectureError(checkpoint.folder / "config.json", f"{key} {found}", supported)
    return SpeechArchitecture(
        family="moonshine",
        hidden_size=config["hidden_size"],
        n_encoder_layers=n_layers,
        n_decoder_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=config["hidden_size"] // n_heads,
        vocab_size=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
    )


def _whisper_audio(checkpoint: Pretrained) -> AudioSpec:
    path, config = checkpoint.folder / PREPROCESSOR_FILE, checkpoint.config
    with describing(path):
        said = read_json(path)
        rate, hop_length = said["sampling_rate"], said["hop_length"]
        n_frames = said["chunk_length"] * rate // hop_length
        mel = MelSpec(n_mels=said["feature_size"], n_fft=said["n_fft"], hop_length=hop_length, n_frames=n_frames)
        audio = AudioSpec(sampling_rate=rate, min_samples=1, mel=mel)
    wanted = (config["num_mel_bins"], 2 * config["max_source_positions"])
    if (mel.n_mels, mel.n_frames) != wanted:
        found = f"{mel.n_mels} mels in {mel.n_frames} frames, but the model takes {wanted[0]} in {wanted[1]}"
        raise CheckpointError(path, f"it makes {found}: it belongs to another model")
    return audio


def _moonshine_audio(checkpoint: Pretrained) -> AudioSpec:
    path = checkpoint.folder / PREPROCESSOR_FILE
    with describing(path):
        said = read_json(path)
        if said["do_normalize"]:
            raise CheckpointError(path, "do_normalize is true, and a Moonshine takes the wave as it is")
        needed = 1
        for kernel, stride in reversed(_MOONSHINE_CONVOLUTIONS):
            needed = (needed - 1) * stride + kernel
        return AudioSpec(sampling_rate=said["sampling_rate"], min_samples=needed, mel=None)


def _tokens(checkpoint: Pretrained, tokenizer: Tokenizer, *, whisper: bool) -> SpeechTokens:
    said = {**checkpoint.config, **checkpoint.optional_json(GENERATION_FILE)}
    ends = said["eos_token_id"]
    large = checkpoint.config["vocab_size"] >= _MULTILINGUAL_VOCABULARY
    several = whisper and said.get("is_multilingual", large)
    found = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()} if whisper else {}
    languages = {match[1]: number for name, number in found.items() if (match := _LANGUAGE.fullmatch(name))}
    return SpeechTokens(
        start=said["decoder_start_token_id"],
        ends=tuple(ends) if isinstance(ends, list) else (ends,),
        languages=languages if several else {},
        transcribe=found.get("<|transcribe|>") if several else None,
        translate=found.get("<|translate|>") if several else None,
        no_timestamps=found.get("<|notimestamps|>"),
        no_speech=found.get("<|nospeech|>", found.get("<|nocaptions|>")),
        suppressed=tuple(said.get("suppress_tokens") or ()),
        suppressed_first=tuple(said.get("begin_suppress_tokens") or ()),
    )
