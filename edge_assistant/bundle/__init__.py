"""The contract between the exporter and the board: what lies in a bundle, and what must hold before it is loaded.

    home-mini/               a language model     whisper-tiny/                a speech recogniser
      manifest.json            the facts, and the size and hash of every other file
      model.onnx               the graph            encoder_model.onnx           hears
      model.onnx.data          its weights, mapped  decoder_model_merged.onnx    writes
      tokenizer.json           the vocabulary       tokenizer.json
      config.json              for neighbours       mel_filters.npy              Whisper's, to make a spectrum
      genai_config.json        for neighbours       config.json and others       for neighbours

    bge-small/               a sentence encoder
      manifest.json, model.onnx, tokenizer.json, and config.json for neighbours

A language model may have LoRA adapters beside it, for use while it runs: one file each (`lora`, `lora_file`).

A manifest says its `kind`. Each kind has a module with its manifest's class and its graphs' inputs and outputs; what
they share is in `folder`. The exporter writes through the same classes the board reads with.
"""

from edge_assistant.bundle.any import AnyBundle, AnyManifest, find_model, open_bundle, read_manifest
from edge_assistant.bundle.cache_size import REWINDABLE, CacheSize, bounded_rows
from edge_assistant.bundle.constants import read_constants
from edge_assistant.bundle.embedding import EmbeddingBundle, EmbeddingManifest, EncoderArchitecture, Pooling
from edge_assistant.bundle.folder import (
    FORMAT_VERSION,
    GRAPH_FILE,
    MANIFEST_FILE,
    SEEN_FILE,
    TOKENIZER_FILE,
    FileEntry,
    Kind,
    Origin,
    check_files,
    check_path,
    check_sizes,
    replace_text,
)
from edge_assistant.bundle.language import (
    ATTENTION_MASK,
    FLOAT_BITS,
    INPUT_IDS,
    LOGITS,
    LOGITS_TO_KEEP,
    SMALL_BLOCK,
    WEIGHTS_FILE,
    AdapterSource,
    Architecture,
    AssistantSpec,
    Bundle,
    CacheSpec,
    Dtype,
    InstructVersion,
    Manifest,
    Quantization,
    Source,
    Yarn,
    key_scale,
    past_key,
    past_value,
    present_key,
    present_value,
    value_scale,
)
from edge_assistant.bundle.lora import PARTS, LoraMatrix, LoraSpec, Shape, lora_a, lora_b, matrix_shape, part_shapes
from edge_assistant.bundle.lora_file import Factors, LoraAbout, LoraFile, check_base
from edge_assistant.bundle.rotary import frequencies
from edge_assistant.bundle.speech import (
    DECODER_FILE,
    ENCODER_FILE,
    MEL_FILTERS_FILE,
    AudioSpec,
    MelSpec,
    SpeechArchitecture,
    SpeechBundle,
    SpeechManifest,
    SpeechTokens,
)

__all__ = [
    "ATTENTION_MASK",
    "DECODER_FILE",
    "ENCODER_FILE",
    "FLOAT_BITS",
    "FORMAT_VERSION",
    "GRAPH_FILE",
    "INPUT_IDS",
    "LOGITS",
    "LOGITS_TO_KEEP",
    "MANIFEST_FILE",
    "MEL_FILTERS_FILE",
    "PARTS",
    "REWINDABLE",
    "SEEN_FILE",
    "SMALL_BLOCK",
    "TOKENIZER_FILE",
    "WEIGHTS_FILE",
    "AdapterSource",
    "AnyBundle",
    "AnyManifest",
    "Architecture",
    "AssistantSpec",
    "AudioSpec",
    "Bundle",
    "CacheSize",
    "CacheSpec",
    "Dtype",
    "EmbeddingBundle",
    "EmbeddingManifest",
    "EncoderArchitecture",
    "Factors",
    "FileEntry",
    "InstructVersion",
    "Kind",
    "LoraAbout",
    "LoraFile",
    "LoraMatrix",
    "LoraSpec",
    "Manifest",
    "MelSpec",
    "Origin",
    "Pooling",
    "Quantization",
    "Shape",
    "Source",
    "SpeechArchitecture",
    "SpeechBundle",
    "SpeechManifest",
    "SpeechTokens",
    "Yarn",
    "bounded_rows",
    "check_base",
    "check_files",
    "check_path",
    "check_sizes",
    "find_model",
    "frequencies",
    "key_scale",
    "lora_a",
    "lora_b",
    "matrix_shape",
    "open_bundle",
    "part_shapes",
    "past_key",
    "past_value",
    "present_key",
    "present_value",
    "read_constants",
    "read_manifest",
    "replace_text",
    "value_scale",
]
